"""OpenVINO, which runs a network in bfloat16 where the processor has units for it.

The only module that imports it, and only when it is needed: it takes half a second and 50 MB.
OpenVINO's package for telemetry is never imported (``openvino`` then takes its own stub for it), so
nothing can be sent.
"""

import functools
import importlib
import importlib.util
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, Final

import numpy as np

from lipwire.domain import AUDIO_WINDOW_SHAPE, AudioWindows, Crops, Mouths
from lipwire.engine.forms import PIXELS_SHAPE
from lipwire.engine.runtime import first_line

_CLOSING_S: Final = 10.0
BROKEN: Final = "OpenVINO cannot be used"
"""What ``why_not`` begins with where the processor may well have the units."""
_MACHINES: Final = frozenset({"x86_64", "amd64"})
_UNITS: Final = frozenset({"avx512_bf16", "amx_bf16"})
_CPU_INFO: Final = Path("/proc/cpuinfo")
_SILENCE: Final = np.zeros((1, *AUDIO_WINDOW_SHAPE), np.float32)


class OpenVinoFailed(Exception):
    """OpenVINO cannot do what was asked of it; the message says why, in one line."""


@functools.cache
def why_not() -> str | None:
    """Return why networks cannot run in bfloat16 on this machine, in one line; None where they can.
    The answer is kept until the process ends. The first call may import OpenVINO."""
    machine = platform.machine().lower()
    if machine not in _MACHINES:
        return f"this is a processor of the kind {machine}, needed is x86_64"
    if (flags := _cpu_flags()) and not _UNITS & flags:
        return "the processor has no units for bfloat16 (AVX512-BF16 or AMX)"
    try:
        capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # whatever a broken installation raises
        return f"{BROKEN}: {first_line(error)}"
    return None if "BF16" in capabilities else "the processor has no units for bfloat16"


def openvino_key() -> str:
    """Return everything that a specialised network depends on besides its source, as a text:
    OpenVINO's version, the processor's name and its instruction sets. Only to be called where
    ``why_not`` returns None."""
    name = _core().get_property("CPU", "FULL_DEVICE_NAME")
    return f"{_openvino().get_version()}|{name}|{' '.join(sorted(_cpu_flags()))}"


def specialise(model: bytes, lanes: int) -> bytes:
    """Compile ``model``, the bytes of an ONNX model in the form "pixels", with its weights inside,
    for this processor in bfloat16, for one frame a run and ``lanes`` runs at a time. Returns bytes
    for ``SpecialisedNetwork`` with the same ``lanes``.

    Takes seconds. Raises OpenVinoFailed where OpenVINO cannot compile it, or cannot run it in
    bfloat16.
    """
    with _failures():
        core = _core()
        network = core.read_model(model)
        network.reshape({value.get_any_name(): _one(value) for value in network.inputs})
        compiled = core.compile_model(network, "CPU", _settings(lanes))
        if compiled.get_property("INFERENCE_PRECISION_HINT") != _openvino().Type.bf16:
            raise OpenVinoFailed("OpenVINO does not run it in bfloat16")
        data: bytes = compiled.export_model().getvalue()
        return data


class SpecialisedNetwork:
    """A network that ``specialise`` has compiled, loaded to be run by several threads at a time, as
    many as it has lanes. Memory for all lanes is allocated when it is loaded. Each run computes on
    one core, in a thread that OpenVINO started."""

    def __init__(self, blob: bytes, lanes: int) -> None:
        """``blob`` is what ``specialise`` returned on a machine of this kind for as many ``lanes``.
        Raises OpenVinoFailed where OpenVINO cannot load it."""
        with _failures():
            compiled = _core().import_model(blob, "CPU", _settings(lanes))
            requests = [compiled.create_infer_request() for _ in range(lanes)]
            for request in requests:  # all at once, so that each lane has its memory now
                request.start_async({0: np.zeros((1, *PIXELS_SHAPE), np.uint8), 1: _SILENCE})
            for request in requests:
                request.wait()
        self._free: LifoQueue[Any] = LifoQueue()
        for request in requests:
            self._free.put(request)
        self._lanes = lanes

    def run(
        self, crops: Crops, windows: AudioWindows, mouths: Mouths, *, wait: bool = False
    ) -> bool:
        """Write the mouths of N frames into ``mouths``, (N, 320, 320, 3) uint8, made of ``crops``,
        of the same shape and type, and ``windows``, (N, 32, 16, 16) float32, and return True. The
        frames are run one after the other in one lane. Where all lanes are in use, return False and
        write nothing; with ``wait``, wait for a lane instead, without limit. Raises OpenVinoFailed
        where a run fails."""
        try:
            request = self._free.get(block=wait)
        except Empty:
            return False
        try:
            with _failures():
                for number in range(len(crops)):
                    one = slice(number, number + 1)
                    request.infer({0: crops[one], 1: windows[one]}, share_inputs=True)
                    mouths[one] = request.get_output_tensor().data
        finally:
            self._free.put(request)
        return True

    def close(self) -> None:
        """Wait until the runs under way are over, and free the network. It may not be run
        afterwards. Raises TimeoutError where a run takes more than 10 s to end."""
        for _ in range(self._lanes):
            try:
                self._free.get(timeout=_CLOSING_S)
            except Empty:
                raise TimeoutError("a network is still run") from None


def _settings(lanes: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16",
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": lanes,
        "ENABLE_CPU_PINNING": False,  # other processes would be pinned to the same cores
    }


def _one(value: Any) -> list[int]:
    """The shape of an input, for one frame."""
    return [1, *(dimension.get_length() for dimension in list(value.get_partial_shape())[1:])]


def _cpu_flags() -> frozenset[str]:
    """What Linux says that the processor can do; empty elsewhere."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


@functools.cache
def _openvino() -> Any:
    if "openvino" not in sys.modules and importlib.util.find_spec("openvino") is None:
        raise OpenVinoFailed("it is not installed")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


@functools.cache
def _core() -> Any:
    return _openvino().Core()


@contextmanager
def _failures() -> Iterator[None]:
    """Raise what OpenVINO raises in the block, which may be anything, as OpenVinoFailed."""
    try:
        yield
    except OpenVinoFailed:
        raise
    except Exception as error:
        raise OpenVinoFailed(first_line(error)) from None
