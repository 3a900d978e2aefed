"""The figures that a plan is computed from, and where each comes from: given, measured here,
measured for the documentation, or assumed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from lipwire.domain import InvalidInput
from lipwire.planning.guide import GPU_FRAMES_A_SECOND, GPU_GB

Kind = Literal["given", "measured", "computed", "guide", "assumed"]
"""Where a figure comes from: the command line; a benchmark; arithmetic on what was measured; the
guide; or nowhere."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, ``value``, with its ``unit`` and where it comes from: ``kind``, and ``why`` in a
    few words, empty for one that was given."""

    value: float
    unit: str
    kind: Kind
    why: str


_FRAMES: Final = "523 frames of 1280x720, by the demo's 250 in docs/avatars.md"
_DENSITY: Final = "`lipwire bench density` in docs/performance.md, demo avatar, AMD EPYC (Zen 3)"

_DEFAULTS: Final[dict[str, Figure]] = {
    "besides_share": Figure(0.16, "cores", "measured", f"{_DENSITY}, client included"),
    "frames_mb": Figure(180.0, "MB", "computed", f"{_FRAMES}: patches, JPEG, mouths at rest"),
    "package_mb": Figure(550.0, "MB", "assumed", "a network of 49 MB and 523 PNG files of 1 MB"),
    "session_mbit": Figure(
        12.6, "Mbit/s", "measured", "`benchmarks/tuning.py`: JPEG of 63 kB at quality 75, 25 fps"
    ),
    "load_ms": Figure(
        74.0, "ms", "measured", "`lipwire bench capacity` in docs/performance.md, cold, p99"
    ),
    "talk_s": Figure(60.0, "s", "assumed", "how long a live session lasts in the mean"),
    "cores": Figure(32.0, "", "assumed", "of a machine"),
    "memory_gb": Figure(128.0, "GB", "assumed", "of a machine"),
    "disk_gb": Figure(4_000.0, "GB", "assumed", "of a machine"),
    "network_gbit": Figure(10.0, "Gbit/s", "assumed", "of a machine"),
    "gpu_memory_gb": Figure(float(GPU_GB), "GB", "guide", "of a GPU (RTX 4090)"),
}
_ON_PROCESSOR: Final = {
    "frame_ms": Figure(50.8, "ms", "measured", f"{_DENSITY}: a mouth, of one core"),
    "network_mb": Figure(49.0, "MB", "computed", "12.2 M parameters of 4 bytes"),
}
_ON_GPU: Final = {
    "frame_ms": Figure(
        1000 / GPU_FRAMES_A_SECOND, "ms", "guide", "320 fps of an RTX 4090; no GPU was measured"
    ),
    "network_mb": Figure(24.0, "MB", "computed", "12.2 M parameters of 2 bytes, on the GPU"),
}
NAMES: Final = (*_ON_GPU, *_DEFAULTS)
"""Names of all figures."""


def figures(
    given: Mapping[str, float | None],
    *,
    on_gpu: bool,
    density: Path | None = None,
    live: Path | None = None,
) -> dict[str, Figure]:
    """Return all figures that a plan is computed from, by name (``NAMES``). Each is read from the
    first of these that has it: ``given``, values by name (None: not given); the file ``live``; the
    file ``density``; a default. ``Figure.kind`` says where a figure comes from: a default was
    "measured" or "computed", is from the deployment guide of the system that Lipwire replaces
    ("guide"), or is "assumed"; ``Figure.why`` says more.

    ``density`` and ``live`` are files with what `lipwire bench density --json` and `lipwire bench
    live --json` print (None: no file). ``on_gpu`` says whether networks run on GPUs. Raises
    InvalidInput for a given number that is infinite or not above 0 (0 is allowed for
    ``besides_share`` and ``load_ms``), and for a file that cannot be read or has other content.
    """
    found = _DEFAULTS | (_ON_GPU if on_gpu else _ON_PROCESSOR)
    if density is not None:
        found |= _of_density(density, on_gpu=on_gpu)
    if live is not None:
        found |= _of_live(live)
    for name, value in given.items():
        if value is None:
            continue
        least_allowed = name in ("besides_share", "load_ms")
        if not (value > 0 or (least_allowed and value == 0)) or value == float("inf"):
            allowed = "0 and above" if least_allowed else "what is above 0"
            raise InvalidInput(f"{option(name)} is {value:g}; allowed is {allowed}")
        found[name] = Figure(float(value), found[name].unit, "given", "")
    return found


def option(name: str) -> str:
    """Return the command-line option of `lipwire plan` that sets the figure ``name``: "--frame-ms"
    for "frame_ms". Nothing is checked."""
    return "--" + name.replace("_", "-")


def _of_density(path: Path, *, on_gpu: bool) -> dict[str, Figure]:
    document = _read(path, "density")
    machine = str(document.get("machine", {}).get("processor", "a machine"))
    why = f"`lipwire bench density` on {machine}"
    try:
        row = document["density"][0]
        besides = float(row["besides_share"])
        frame_ms = 1000 * float(row["cores"]) / float(row["mouths_a_second"])
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        raise _no_result(path, "density") from None
    found = {"besides_share": Figure(besides, "cores", "measured", why)}
    if not on_gpu:
        found["frame_ms"] = Figure(frame_ms, "ms", "measured", f"{why}: a mouth, of one core")
    return found


def _of_live(path: Path) -> dict[str, Figure]:
    """How long an avatar is loaded: what a first frame takes longer where it was not."""
    try:
        rows = {row["what"]: row["p50_ms"] for row in _read(path, "live")["live"][0]["figures"]}
        load_ms = float(rows["first frame, cold"]) - float(rows["first frame, warm"])
    except (KeyError, IndexError, TypeError, ValueError):
        raise _no_result(path, "live") from None
    why = "`lipwire bench live`: the first frame, cold less warm, p50"
    return {"load_ms": Figure(max(load_ms, 0.0), "ms", "measured", why)}


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise _no_result(path, kind) from None
    if not isinstance(document, dict) or not isinstance(document.get("machine", {}), dict):
        raise _no_result(path, kind)
    return document


def _no_result(path: Path, kind: str) -> InvalidInput:
    return InvalidInput(f"{path} is no result; wanted is what `lipwire bench {kind} --json` prints")
