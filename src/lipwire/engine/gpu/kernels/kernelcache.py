"""Kernels of our own for the networks on one device, made once for each architecture."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.engine.gpu.kernels.cuda.kerneltexts import CannotLower
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.kernels.lowering.operations import Addresses
from lipwire.engine.gpu.kernels.planning.plan import NotPlanned, Plan
from lipwire.engine.gpu.kernels.planning.planner import plan_network
from lipwire.engine.gpu.kernels.running.kernelruns import Program
from lipwire.engine.gpu.kernels.verify.kerneltrial import why_not_planned, why_not_the_same
from lipwire.engine.gpu.kernels.verify.trialprocess import Trials
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.gpu.programs import KernelsUnavailable, Programs
from lipwire.engine.gpu.store.gpufiles import GpuGraph, ImageFile, read_gpu_graph
from lipwire.engine.keyedlocks import KeyedLocks
from lipwire.engine.tuning import MOST_FRAMES

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Made:
    plan: Plan
    program: Program


class KernelCache:
    """The compiled kernels for each architecture (networks with equal graphs) on one device.
    Thread-safe; to be closed when nothing runs any more."""

    def __init__(self, memory: Memory, trials: Trials | None = None) -> None:
        """``memory`` is that of the device. ``trials`` tries new kernels before they are used; None
        for a ``Trials`` that remembers results in the user's cache folder."""
        self._memory = memory
        self._trials = trials or Trials()
        self._making = KeyedLocks()
        self._programs: Programs | None = None
        try:
            self._programs = memory.programs()
        except KernelsUnavailable as error:
            _LOG.warning("%s: all networks run in ONNX Runtime: %s", memory.device, error)
        self._made: dict[object, _Made | None] = {}
        """By architecture; None for one that is ONNX Runtime's."""

    def program(
        self, folder: Path, graph: GpuGraph, fixed_batch: int | None, source: ImageFile
    ) -> Program | None:
        """Return kernels for the network whose graph is ``graph`` in ``folder``; None where ONNX
        Runtime is to run it, because there are no kernels for it or they did not pass their trial.

        ``fixed_batch`` is the only batch size that the network takes (None: any); ``source`` has
        its weights, with which new kernels are tried. The first call for an architecture takes
        seconds, and calls for other networks of it wait meanwhile; calls for other architectures do
        not. Raises AvatarInvalid where a file is damaged, DeviceOutOfMemory where the device has no
        room for a trial, DeviceLost where it has failed, and one of ``RUNTIME_ERRORS`` where ONNX
        Runtime fails in a trial.
        """
        if self._programs is None:
            return None
        key = (graph.sha256, tuple((weight.name, weight.offset_bytes) for weight in graph.weights))
        with self._making.held(key):
            if key not in self._made:
                self._made[key] = self._make(self._programs, folder, graph, fixed_batch, source)
            made = self._made[key]
        if made is None:
            return None
        reason = why_not_planned(made.plan, graph.weights, source.image)
        if reason is not None:
            _LOG.warning("%s: a network runs in ONNX Runtime: %s", self._memory.device, reason)
            return None
        return made.program

    def close(self) -> None:
        """Unload all kernels; nothing may run them any more. Raises DeviceLost where the device has
        failed."""
        while self._made:
            _, made = self._made.popitem()
            if made is not None:
                made.program.programs.drop(made.program.module)

    def _make(
        self,
        programs: Programs,
        folder: Path,
        graph: GpuGraph,
        fixed_batch: int | None,
        source: ImageFile,
    ) -> _Made | None:
        device = self._memory.device
        data = read_gpu_graph(folder, graph)
        places = {weight.name: weight.offset_bytes for weight in graph.weights}
        try:
            plan = plan_network(data)
            lowered = Lowered(plan, places, programs.limits)
        except (NotPlanned, CannotLower) as error:
            _LOG.info("%s: an architecture is ONNX Runtime's: %s", device, error)
            return None
        try:
            program = Program(lowered, programs, programs.load(lowered.source))
        except KernelsUnavailable as error:
            _LOG.warning("%s: an architecture runs in ONNX Runtime: %s", device, error)
            return None
        try:
            if programs.identity is not None:
                code = program.module.digest
                identity = (programs.identity, code, _digest(lowered), graph.sha256)
                reason = self._trials.why_not(device, folder, identity)
            else:
                image = np.array(source.image)
                reason = why_not_the_same(
                    self._memory, program, data, fixed_batch, graph.weights, image
                )
        except KernelsUnavailable as error:
            reason = str(error)
        except BaseException:
            programs.drop(program.module)
            raise
        if reason is not None:
            programs.drop(program.module)
            _LOG.warning(
                "%s: an architecture runs in ONNX Runtime: its kernels did not pass: %s",
                device,
                reason,
            )
            return None
        _LOG.info("%s: an architecture runs in kernels of Lipwire's own", device)
        return _Made(plan, program)


def _digest(lowered: Lowered) -> str:
    """Of kernels and of how they are launched, which their text does not say."""
    source, nowhere = lowered.source, Addresses(0, 0, 0, 0, 0)
    launches = [lowered.launches(frames, nowhere) for frames in (1, MOST_FRAMES)]
    parts = source.header, source.text, repr(launches)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
