"""Kernels of our own for the networks on one device, made once for each architecture."""

import hashlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.engine.gpunetworks import MOST_FRAMES
from lipwire.engine.gpustorage import GpuGraph, ImageSource, read_gpu_graph
from lipwire.engine.kernelchild import Trials
from lipwire.engine.kernelruns import Program
from lipwire.engine.kerneltexts import CannotLower
from lipwire.engine.kerneltrial import why_not_planned, why_not_the_same
from lipwire.engine.lowering import Lowered
from lipwire.engine.memory import Memory
from lipwire.engine.operations import Addresses
from lipwire.engine.plan import NotPlanned, Plan
from lipwire.engine.planning import plan_network
from lipwire.engine.programs import KernelsUnavailable, Programs

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Made:
    plan: Plan
    program: Program


class KernelShelf:
    """Thread-safe; ``close`` it when nothing runs any more."""

    def __init__(self, memory: Memory, trials: Trials | None = None) -> None:
        self._memory = memory
        self._trials = trials or Trials()
        self._lock = threading.Lock()
        self._programs: Programs | None = None
        try:
            self._programs = memory.programs()
        except KernelsUnavailable as error:
            _LOG.warning("%s: all networks run in ONNX Runtime: %s", memory.device, error)
        self._made: dict[object, _Made | None] = {}
        """By architecture; None for one that is ONNX Runtime's."""

    def program(
        self, folder: Path, graph: GpuGraph, fixed_batch: int | None, source: ImageSource
    ) -> Program | None:
        """Kernels for the network ``graph`` in ``folder`` with the weights of ``source``; None
        where ONNX Runtime is to run it.

        The first network of an architecture takes seconds. Raises AvatarInvalid,
        DeviceOutOfMemory, DeviceLost.
        """
        if self._programs is None:
            return None
        key = (graph.sha256, tuple((weight.name, weight.place_bytes) for weight in graph.weights))
        with self._lock:
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
        """Raises DeviceLost."""
        with self._lock:
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
        source: ImageSource,
    ) -> _Made | None:
        device = self._memory.device
        data = read_gpu_graph(folder, graph)
        places = {weight.name: weight.place_bytes for weight in graph.weights}
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
