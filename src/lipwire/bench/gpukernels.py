"""Parts of ``bench gpu``: where the time goes in kernels of our own.

Nothing is copied from or to the host here: recordings run one after another, measured by a clock of
the host's. A GPU that waits for launches would be measured as slow as they
are, so many runs go into the stream before it is waited for.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.bench.gpurig import Rig, Row, inputs
from lipwire.engine.gpu.kernels.kernelcache import KernelCache
from lipwire.engine.gpu.kernels.lowering.operations import Addresses
from lipwire.engine.gpu.kernels.running.kernelruns import Program
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES
from lipwire.engine.gpu.memory.devicememory import Memory, Region
from lipwire.engine.gpu.programs import Launch
from lipwire.engine.gpu.store.gpufiles import ImageFile

_RUNS: Final = 50
"""One after another, of a recording or of one launch."""
_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """Kernels of the first network, and all that a batch of noise takes on the device."""

    memory: Memory
    program: Program
    stream: int
    addresses: Addresses
    one_avatar: npt.NDArray[np.uint64]
    """A table of weights: one image for all frames."""
    many_avatars: npt.NDArray[np.uint64]
    """Another: an image for each frame, of equal values."""

    def launches(self, frames: int) -> list[Launch]:
        return self.program.lowered.launches(frames, self.addresses)

    def choose(self, table: npt.NDArray[np.uint64]) -> None:
        """Have frames use the weights that ``table`` says."""
        self.memory.upload(self.stream, self.addresses.weights, table.view(np.uint8))
        self.memory.wait(self.stream)

    def seconds(self, launches: Sequence[Launch], runs: int, rounds: int) -> float:
        """Of one recording of ``launches``: the median of ``rounds``, after one for nothing."""
        programs = self.program.programs
        recording = programs.record(self.program.module, launches, self.stream)
        try:
            times_s = []
            for _ in range(rounds + 1):
                begun_s = time.perf_counter()
                for _ in range(runs):
                    programs.run(recording, self.stream)
                self.memory.wait(self.stream)
                times_s.append(time.perf_counter() - begun_s)
        finally:
            programs.drop(recording)
        return statistics.median(times_s[1:]) / runs


@contextmanager
def _staged(rig: Rig, frames: int) -> Iterator[_Stage]:
    """For batches of up to ``frames``. Raises RuntimeError where kernels do not run the network."""
    memory = rig.gpu_memory()
    model = rig.gpu_model(0, "half")
    if model is None:
        raise RuntimeError("this network has no half precision")
    source = ImageFile(rig.compiled(0, for_gpu=True), model)
    with ExitStack() as stack:
        cache = KernelCache(memory)
        stack.callback(cache.close)
        program = cache.program(rig.compiled(0, for_gpu=True), model.graphs["pixels"], None, source)
        if program is None:
            raise RuntimeError("this network runs in ONNX Runtime here")
        stream = memory.open_stream()
        stack.callback(memory.close_stream, stream)

        def room(size_bytes: int) -> Region:
            region = memory.allocate(size_bytes)
            stack.callback(memory.free, region)
            return region

        def put(values: npt.NDArray[Any]) -> int:
            data = values.reshape(-1).view(np.uint8)
            region = room(data.nbytes)
            memory.upload(stream, region.address, data)
            memory.wait(stream)
            return region.address

        image = np.array(source.image)
        images = np.array([put(image) for _ in range(frames)], np.uint64)
        crops, windows = inputs(frames)
        first = put(crops)
        addresses = Addresses(
            weights=put(images),
            crops=put(np.arange(frames, dtype=np.uint64) * CROP_BYTES + np.uint64(first)),
            speech=put(windows),
            mouths=room(crops.nbytes).address,
            scratch=room(program.lowered.scratch_bytes(frames)).address,
        )
        one = np.full(frames, images[0], np.uint64)
        yield _Stage(memory, program, stream, addresses, one, images)


def recording(rig: Rig) -> Iterator[Row]:
    """Yield rows with the time of all kernels of a batch on the GPU of ``rig``, recorded once (as a
    CUDA graph) and run as a whole. There is a row for each batch size with all frames of one
    avatar, and another with each frame of a different avatar. Ends early when the rig's time is up.
    Raises RuntimeError where Lipwire's kernels do not run the network there."""
    runs, rounds = (1, 1) if rig.quick else (_RUNS, _ROUNDS)
    sizes = sorted(rig.sizes, key=lambda size: size != rig.large)  # the most wanted first
    with _staged(rig, max(sizes)) as stage:
        for batch in sizes:
            launches = stage.launches(batch)
            for avatars, table in ((1, stage.one_avatar), (batch, stage.many_avatars)):
                if avatars == 1 and table is stage.many_avatars:
                    continue  # a batch of one
                stage.choose(table)
                run_s = stage.seconds(launches, runs, rounds)
                yield {
                    "batch": batch,
                    "avatars": avatars,
                    "kernels": len(launches),
                    "ms a run": round(run_s * 1e3, 4),
                    "ms a frame": round(run_s * 1e3 / batch, 5),
                    "frames/s": round(batch / run_s),
                }
            if rig.time_is_up():
                return


def launches(rig: Rig) -> Iterator[Row]:
    """Yield a row with the time of each kernel launch of a batch by itself on the GPU of ``rig``.
    Each launch is repeated many times in one recording, so that the data it reads is in the GPU's
    caches. Ends early when the rig's time is up. Raises RuntimeError where Lipwire's kernels do not
    run the network there.

    The last row of each batch size has the sum of these times, and the time of one recording of all
    launches.
    """
    runs, rounds = (1, 1) if rig.quick else (_RUNS, _ROUNDS)
    batches = (1,) if rig.quick else (rig.large, 1)
    with _staged(rig, max(batches)) as stage:
        stage.choose(stage.one_avatar)
        for batch in batches:
            all_of_it = stage.launches(batch)
            run_s = stage.seconds(all_of_it, runs, rounds)
            times_s = [stage.seconds([each] * runs, 1, rounds) / runs for each in all_of_it]
            sum_s = sum(times_s)
            labels = stage.program.lowered.labels
            for number, (launch, label, time_s) in enumerate(
                zip(all_of_it, labels, times_s, strict=True)
            ):
                yield {
                    "batch": batch,
                    "number": number,
                    "kernel": launch.kernel,
                    "what": label,
                    "blocks": int(np.prod(launch.grid)),
                    "us a frame": round(time_s * 1e6 / batch, 3),
                    "share": f"{time_s / sum_s:.1%}",
                }
            yield {
                "batch": batch,
                "what": "all of them, and in one recording",
                "us a frame": round(sum_s * 1e6 / batch, 3),
                "in one recording": round(run_s * 1e6 / batch, 3),
            }
            if rig.time_is_up():
                return
