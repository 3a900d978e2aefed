"""The trial of kernels in a process of its own, and what is remembered of it.

A kernel that reads beside its memory, or never ends, spoils CUDA for the whole process that started
it: nothing runs on that GPU any more, not even what would run without kernels. So the trial
(``kerneltrial``) is a child's. What passed is not tried again on this machine with these kernels,
this architecture and this driver.

    python -m lipwire.engine.gpu.kernels.verify.trialprocess FOLDER INDEX

tries the network compiled for GPUs in FOLDER on GPU INDEX and prints why it may not run in kernels,
as JSON.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.config.folders import cache_folders
from lipwire.domain import LipwireError
from lipwire.domain.pythonprocess import python_command
from lipwire.engine.device import Device
from lipwire.engine.gpu.kernels.cuda.cudaprograms import CudaPrograms
from lipwire.engine.gpu.kernels.cuda.kerneltexts import CannotLower
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.kernels.planning.plan import NotPlanned
from lipwire.engine.gpu.kernels.planning.planner import plan_network
from lipwire.engine.gpu.kernels.running.kernelruns import Program
from lipwire.engine.gpu.kernels.verify.kerneltrial import why_not_the_same
from lipwire.engine.gpu.memory.cudamemory import CudaMemory
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory
from lipwire.engine.gpu.programs import KernelsUnavailable
from lipwire.engine.gpu.store.gpufiles import ImageFile, read_gpu_graph, read_gpu_manifest
from lipwire.engine.runtime import RUNTIME_ERRORS, first_line

_LIMIT_S: Final = 180.0
"""For starting, compiling (10 s on one core) and a few inferences on the processor."""
_FAILURES: Final[tuple[type[Exception], ...]] = (
    CannotLower,
    KernelsUnavailable,
    LipwireError,
    NotPlanned,
    OSError,
    *RUNTIME_ERRORS,
)


class Trials:
    """Tries new kernels in processes of their own, where a fault does no harm, and remembers which
    have passed. Thread-safe."""

    def __init__(self, folder: Path | None = None, *, limit_s: float = _LIMIT_S) -> None:
        """Which kernels have passed is remembered in ``folder``; None for one in the user's cache
        folder. A trial that takes longer than ``limit_s`` seconds is ended, and has not passed."""
        self._folder = folder or cache_folders()[-1] / "kernels"
        self._limit_s = limit_s

    def why_not(self, device: Device, compiled: Path, identity: Sequence[str]) -> str | None:
        """Try the kernels of the network in folder ``compiled``, which ``compile_for_gpu`` filled,
        on GPU ``device``, in a process of its own, and wait for it; return in one line why the
        network may not run in these kernels; None where it may. A trial that breaks off, or takes
        too long, is such a reason.

        ``identity`` is everything that the answer depends on, as texts: where a trial with the same
        texts has passed before, no other trial is made and None is returned. Raises
        DeviceOutOfMemory where the device has no room for a trial.
        """
        digest = hashlib.sha256(json.dumps(list(identity)).encode()).hexdigest()
        passed = self._folder / f"{digest}.passed"
        if passed.exists():
            return None
        reason = self._ask_child(device, compiled)
        if reason is None:
            with suppress(OSError):  # it is tried again then
                self._folder.mkdir(parents=True, exist_ok=True)
                passed.touch()
        return reason

    def _ask_child(self, device: Device, compiled: Path) -> str | None:
        try:
            child = subprocess.run(
                self._command(device, compiled),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"their trial was not over after {self._limit_s:.0f} s"
        except OSError as error:
            return f"their trial cannot be started: {error.strerror or error}"
        try:
            said = json.loads(child.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
            reason: str | None = said["reason"]
            full = bool(said["full"])
        except (IndexError, KeyError, TypeError, ValueError):
            lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
            last = f": {lines[-1][:200]}" if lines else ""
            return f"their trial ended with status {child.returncode}{last}"
        if full:
            raise DeviceOutOfMemory(reason)
        return reason

    def _command(self, device: Device, compiled: Path) -> list[str]:
        return python_command("-m", __name__, str(compiled), str(device.index))


def tried(compiled: Path, device: Device) -> str | None:
    """Try the kernels of a network in this process: run them, and compare their mouths with those
    of ONNX Runtime on the processor.

    ``compiled`` is the folder that ``compile_for_gpu`` filled, with half precision, ``device`` the
    GPU to try them on. Returns in one line why the network may not run in the kernels: their mouths
    differ too much, or they could not be tried. Returns None where it may. Raises DeviceOutOfMemory
    where the device has no room for the trial.
    """
    try:
        manifest = read_gpu_manifest(compiled)
        model = manifest.models["half"]
        graph = model.graphs["pixels"]
        data = read_gpu_graph(compiled, graph)
        memory = CudaMemory(device)
        programs = CudaPrograms(memory)
        places = {weight.name: weight.offset_bytes for weight in graph.weights}
        lowered = Lowered(plan_network(data), places, programs.limits)
        program = Program(lowered, programs, programs.load(lowered.source))
        image = np.array(ImageFile(compiled, model).image)
        return why_not_the_same(memory, program, data, manifest.fixed_batch, graph.weights, image)
    except _FAILURES as error:
        return first_line(error)


def main(compiled: Path, device: Device) -> None:
    """Try the kernels of the network in folder ``compiled``, which ``compile_for_gpu`` filled, on
    GPU ``device`` (``tried``), and print the answer for the parent process: a line of JSON with
    ``reason`` (a text, or null where the network may run in kernels) and ``full`` (true where the
    trial was not made because the device's memory was full)."""
    try:
        answer = {"reason": tried(compiled, device), "full": False}
    except DeviceOutOfMemory as error:
        answer = {"reason": str(error), "full": True}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Device.cuda(int(sys.argv[2])))
