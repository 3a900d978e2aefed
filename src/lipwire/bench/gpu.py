"""What a GPU makes of it: speed, swaps, memory and live sessions, against plain ways and the floor.

GPUs are scarce, so this is one program that runs by itself: what fails is noted and the rest goes
on, a limit of time skips what is left, and the report is written again after every part. Parts
stand in the order of what one wants to know first.

Given a ``Memory`` in the host, everything here runs on the processor: that the program works can be
seen without a GPU, what it measures then means nothing.
"""

import json
import logging
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import onnxruntime

from lipwire.bench import gpukernels, gpuserve, gpuspeed
from lipwire.bench.gpurig import Rig, Row
from lipwire.bench.randomnetworks import FULL_WIDTHS, Widths
from lipwire.domain import DependencyMissing
from lipwire.engine import Device, cuda_problem
from lipwire.engine.gpu.kernels.cuda.cudaprograms import kernels_problem
from lipwire.engine.gpu.memory.devicememory import Memory

PARTS: Final[dict[str, Callable[[Rig], Iterator[Row]]]] = {
    "faces": gpuspeed.faces,
    "recording": gpukernels.recording,
    "launches": gpukernels.launches,
    "floor": gpuspeed.floor,
    "speed": gpuspeed.speed,
    "live": gpuserve.live,
    "apart": gpuserve.apart,
    "swaps": gpuserve.swaps,
    "crops": gpuserve.crops,
    "residents": gpuserve.residents,
    "onnx-faces": gpuspeed.onnx_faces,
    "placement": gpuspeed.placement,
    "ways": gpuspeed.ways,
    "plain": gpuspeed.plain,
    "onnx-live": gpuserve.onnx_live,
}

ONNX_PARTS: Final = ("onnx-faces", "placement", "ways", "plain", "onnx-live")
"""Of ONNX Runtime alone."""

_MOST_NOTES: Final = 20

TITLES: Final = {
    "faces": "mouths against the processor's, levels of 255",
    "recording": "kernels of one batch, recorded: what they take on the device",
    "launches": "kernels of one batch, each by itself",
    "placement": "which nodes ONNX Runtime runs where",
    "floor": "memory traffic, and the time it takes at the measured bandwidth",
    "ways": "batch of 24 in half precision: which options of ONNX Runtime pay",
    "speed": "frames through the engine, copies from and to the host included",
    "plain": "ONNX Runtime: shared graph against sessions with constant weights, one stream",
    "swaps": "another avatar's turn",
    "residents": "avatars on the device",
    "crops": "pixels brought with every call, and kept on the device",
    "live": "sessions of different avatars, 25 frames a second in steps of 4, within 160 ms",
    "apart": "the same sessions, every request by itself",
    "onnx-faces": "mouths of ONNX Runtime against the processor's, levels of 255",
    "onnx-live": "the same sessions in ONNX Runtime",
}


@dataclass(slots=True)
class Part:
    """What one part of the GPU measurement found: its rows, how many ``seconds`` it took, and
    messages of the engine (``notes``). Where the part failed or was left out, ``problem`` says why
    in one line, and ``rows`` are those up to then; else ``problem`` is empty."""

    name: str
    title: str
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    """What the engine said meanwhile, each once: what runs where, and what does not."""


@dataclass(slots=True)
class GpuReport:
    """What the parts of the GPU measurement have found, in their order, and facts about the machine
    (``machine``, by name)."""

    machine: dict[str, str]
    parts: list[Part] = field(default_factory=list)

    def as_json(self) -> str:
        """Return the report as a JSON document: ``machine``, and ``parts`` with the fields of
        ``Part``."""
        return json.dumps(asdict(self), indent=1)


def as_text(part: Part) -> str:
    """Return ``part`` as lines of text: its title, a line for each row, notes, and the problem
    where it has one."""
    lines = [f"== {part.name}: {part.title} ({part.seconds:.0f} s)"]
    lines += ["  ".join(f"{name}: {value}" for name, value in row.items()) for row in part.rows]
    lines += [f"NOTE: {note}" for note in part.notes]
    return "\n".join([*lines, *([f"PROBLEM: {part.problem}"] if part.problem else [])])


def why_not(device: Device) -> str | None:
    """Return why neither ONNX Runtime nor Lipwire's kernels run on ``device``, so that nothing can
    be measured there, as a line of text; None where one of them runs."""
    problem = cuda_problem(device)
    if problem is not None and kernels_problem(device) is None:
        return None
    return (
        None
        if problem is None
        else f"bench gpu needs a GPU, and {device} cannot be used: {problem}"
    )


def run_gpu(
    *,
    device: Device | None = None,
    memory: Memory | None = None,
    widths: Widths | None = FULL_WIDTHS,
    parts: tuple[str, ...] = tuple(PARTS),
    limit_s: float = 480.0,
    quick: bool = False,
    tell: Callable[[Part], None] = lambda part: None,
    out: Path | None = None,
    networks: Path | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> GpuReport:
    """Measure ``parts`` (keys of ``PARTS``, such as "speed"; KeyError for others) on ``device``
    (None: the first GPU), and return what was found. After ``limit_s`` seconds no further part
    begins. A part that fails, or is left out, is noted in the report, and the next one follows.

    ``memory`` is used in place of the GPU's, to try the program where there is no GPU. ``widths``
    are the channels of the networks' layers, None for tiny networks. ``quick`` measures a few
    rounds only. After each part the report so far is written to the file ``out`` as JSON (None: no
    file), and ``tell(part)`` is called. ``networks`` is a folder in which networks are kept for the
    next time; None for a temporary one. ``clock_s()`` returns seconds. Raises DependencyMissing
    where ``memory`` is None and nothing runs on ``device`` (``why_not``).
    """
    device = device or Device.cuda(0)
    if memory is None:
        reason = why_not(device)
        if reason is not None:
            raise DependencyMissing(reason)
    report = GpuReport(describe_gpu(device))
    end_s = clock_s() + limit_s
    with ExitStack() as stack:
        folder = networks or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="lipwire-gpu-"))
        )
        rig = Rig(folder, device, memory, widths, quick=quick, end_s=end_s, clock_s=clock_s)
        for name in parts:
            part = Part(name, TITLES[name])
            begun_s = clock_s()
            missing = rig.onnx_problem() if name in ONNX_PARTS else None
            if begun_s >= end_s:
                part.problem = f"left out: {limit_s:.0f} s were over"
            elif missing is not None:
                part.problem = f"left out: ONNX Runtime does not run on {device}: {missing}"
            else:
                try:
                    with _noted(part.notes):
                        for row in PARTS[name](rig):
                            part.rows.append(row)
                except Exception as error:  # whatever it is, the next part may work
                    part.problem = f"{type(error).__name__}: {str(error)[:500]}"
            part.seconds = round(clock_s() - begun_s, 1)
            report.parts.append(part)
            if out is not None:
                out.write_text(report.as_json(), "utf-8")
            tell(part)
    return report


class _Notes(logging.Handler):
    """Keeps what is said, each once."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.INFO)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said not in self._notes and len(self._notes) < _MOST_NOTES:
            self._notes.append(said)


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """Put what the engine says into ``notes``: whether kernels run a network, and why not."""
    logger = logging.getLogger("lipwire.engine")
    handler, level = _Notes(notes), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def describe_gpu(device: Device) -> dict[str, str]:
    """Return facts about ``device``, a mapping of names to texts: the GPU's name, memory and
    driver, versions of Python and ONNX Runtime, and whether ONNX Runtime and Lipwire's kernels run
    there."""
    facts = {
        "device": str(device),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "built for CUDA": str(getattr(onnxruntime, "cuda_version", "") or "no"),
    }
    if device.kind == "cuda":
        facts["ONNX Runtime there"] = cuda_problem(device) or "runs"
        facts["kernels there"] = kernels_problem(device) or "run"
    tool = shutil.which("nvidia-smi")
    if tool is not None and device.kind == "cuda":
        query = "name,memory.total,driver_version"
        try:
            answer = subprocess.run(
                [tool, f"--id={device.index}", f"--query-gpu={query}", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            ).stdout
            names = ("gpu", "memory", "driver")
            facts |= dict(zip(names, (part.strip() for part in answer.split(",")), strict=False))
        except (OSError, subprocess.SubprocessError) as error:
            facts["gpu"] = f"unknown: {type(error).__name__}"
    return facts
