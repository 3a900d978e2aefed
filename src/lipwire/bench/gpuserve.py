"""Parts of ``bench gpu``: many avatars on one device, and people who wait for them."""

import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Final

import numpy as np

from lipwire.bench.gpurig import (
    KERNELS,
    ONNX,
    ROADS,
    Noise,
    OtherRoad,
    Rig,
    Row,
    called,
    inputs,
    road_of,
)
from lipwire.domain import Float32Array, UInt8Array, percentile
from lipwire.engine import Engine, Model, Request, Tuning
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.gpu.memory.weightscache import WeightsCache
from lipwire.engine.gpu.store.gpufiles import ImageFile
from lipwire.engine.graphs import PRECISIONS
from lipwire.engine.tuning import MOST_FRAMES
from lipwire.scheduling import Across, Array, Job, Scheduler

AVATAR_FRAMES: Final = 250
"""Ten seconds of an avatar, 77 MB of crops."""
LIVE_FRAMES: Final = 4
FRAME_S: Final = 0.04
_AVATARS: Final = 4
"""Networks made; further avatars are loaded from the same files, and share nothing else."""
_SESSIONS: Final = (8, 50, 100, 200, 300, 400, 600, 800, 1200)


def swaps(rig: Rig) -> Iterator[Row]:
    """Yield rows with how many milliseconds it takes to bring a network's weights to where the GPU
    of ``rig`` uses them: from another place of the device's memory, from the host's memory, and
    from the disk. Further rows have the time of a call with the same avatar as before, and with
    another avatar."""
    memory = rig.gpu_memory()
    for precision in PRECISIONS:
        models = [rig.gpu_model(number, precision) for number in range(2)]
        if None in models:
            continue
        sources = [
            ImageFile(rig.compiled(n, for_gpu=True), m)
            for n, m in enumerate(models)
            if m is not None
        ]
        size_bytes = sources[0].size_bytes
        mb = round(size_bytes / 1e6, 1)
        copy_ms = _copy_ms(memory, size_bytes)
        yield {"precision": precision, "MB": mb, "swap": "device to slot", "ms": copy_ms}
        for name, host_bytes in (("host to device", 4 * size_bytes), ("disk to device", 0)):
            weights_cache = WeightsCache(
                memory, device_bytes=4 * size_bytes, host_bytes=host_bytes, max_items=1
            )
            items = [weights_cache.add(source) for source in sources]
            times_s = []
            for turn in range(6 if rig.quick else 40):
                begun_s = time.perf_counter()
                weights_cache.prefetch(items[turn % 2])
                times_s.append(time.perf_counter() - begun_s)
            weights_cache.close()
            yield {
                "precision": precision,
                "MB": mb,
                "swap": name + ("" if host_bytes else " (page cache)"),
                "ms": round(statistics.median(times_s[2:]) * 1e3, 3),
            }
    for road in ROADS:
        try:
            yield from _switches(rig, road)
        except OtherRoad as error:
            yield {"road": road, "problem": str(error)}


def _switches(rig: Rig, road: str) -> Iterator[Row]:
    tuning = Tuning(streams=1, batch_sizes=(LIVE_FRAMES,), cuda=rig.options)
    pixels, windows = inputs(LIVE_FRAMES)
    with rig.loaded(road, tuning) as (engine, model):
        pair = [model, rig.load(engine, 1)]
        turns = itertools.count()
        for name, models_used in (("the same avatar", pair[:1]), ("avatars in turns", pair)):

            def call(_: int, used: list[Model] = models_used) -> None:
                engine.infer(used[next(turns) % len(used)], pixels, windows)

            calls = called(rig, 1, call)
            yield {
                "road": road,
                "precision": model.precision,
                "swap": f"a call of {LIVE_FRAMES} frames, {name}",
                "ms": round(calls.median_ms, 3),
            }


def _copy_ms(memory: Memory, size_bytes: int) -> float:
    stream = memory.open_stream()
    regions = [memory.allocate(size_bytes) for _ in range(2)]
    times_s = []
    for _ in range(20):
        begun_s = time.perf_counter()
        memory.copy(stream, regions[0].address, regions[1].address, size_bytes)
        memory.wait(stream)
        times_s.append(time.perf_counter() - begun_s)
    for region in regions:
        memory.free(region)
    memory.close_stream(stream)
    return round(statistics.median(times_s) * 1e3, 4)


def residents(rig: Rig) -> Iterator[Row]:
    """Yield a row for each of a few rising numbers of avatars loaded on the device of ``rig``, with
    how much of the device's memory they take and how much each further one takes, by the device's
    own count. Ends early when the rig's time is up."""
    counts = (2, 6) if rig.quick else (8, 50, 200, 500)
    memory = rig.gpu_memory()
    tuning = Tuning(streams=2, batch_sizes=(LIVE_FRAMES,), cuda=rig.options)
    pixels, windows = inputs(LIVE_FRAMES)
    with rig.engine(tuning) as engine:
        models = [rig.load(engine, 0)]
        engine.infer(models[0], pixels, windows)  # sessions and slots are not counted
        before_bytes = memory.free_bytes()
        for count in counts:
            while len(models) < count:
                models.append(rig.load(engine, len(models) % _AVATARS))
            taken_bytes = before_bytes - memory.free_bytes()
            weights_cache = engine.weights
            yield {
                "road": road_of(models[0]),
                "precision": models[0].precision,
                "avatars": count,
                "on the device": 0 if weights_cache is None else weights_cache.device_items,
                "MB taken": round(taken_bytes / 1e6, 1),
                "MB for each further": round(taken_bytes / 1e6 / (count - 1), 2),
            }
            if rig.time_is_up():
                return


def crops(rig: Rig) -> Iterator[Row]:
    """Yield rows with the time of calls on the device of ``rig`` whose crops are sent with each
    call (*brought*) and of calls whose crops stay on the device (*kept*). The last row has the
    device's memory by what it is used for; it is left out when the rig's time is up before.

    Crops are ready in the host's memory: the time to cut them out of frames would be added to
    *brought*.
    """
    streams, frame_count = (2, 2 * rig.large) if rig.quick else (4, AVATAR_FRAMES)
    sizes = (LIVE_FRAMES, rig.large) if rig.large > LIVE_FRAMES else (LIVE_FRAMES,)
    shown = Noise(frame_count)
    with rig.engine(Tuning(streams=streams, batch_sizes=sizes, cuda=rig.options)) as engine:
        model = rig.load(engine, 0, shown)
        for batch, callers in itertools.product(sizes, (1, streams)):
            _, windows = inputs(batch)
            firsts = itertools.count(0, batch)

            def numbers(count: int = batch, firsts: Iterator[int] = firsts) -> range:
                first = next(firsts) % (frame_count - count)
                return range(first, first + count)

            def brought(_: int, windows: Float32Array = windows) -> None:
                engine.infer(model, shown.crops(numbers()), windows)

            def kept(_: int, windows: Float32Array = windows) -> None:
                engine.infer_frames(model, numbers(), windows)

            for first in range(0, frame_count - batch + 1, batch):  # each once
                engine.infer_frames(model, range(first, first + batch), windows)
            found = {}
            for way, call in (("brought", brought), ("kept", kept)):
                before = engine.crops
                calls = called(rig, callers, call)
                after = engine.crops
                assert before is not None  # on a GPU
                assert after is not None
                asked = after.hits + after.misses - before.hits - before.misses
                found[way] = calls.median_ms
                yield {
                    "road": road_of(model),
                    "precision": model.precision,
                    "batch": batch,
                    "streams": callers,
                    "crops": way,
                    "p50 ms a call": round(calls.median_ms, 3),
                    "ms a frame": round(calls.elapsed_s * 1e3 / len(calls.times_s) / batch, 4),
                    "hits": f"{(after.hits - before.hits) / asked:.0%}" if asked else "none",
                }
            if rig.time_is_up():
                return
        use = engine.memory_use
        assert use is not None  # on a GPU
        yield {
            "MB of weights": round(use.weights / 1e6, 1),
            "MB of crops": round(use.crops / 1e6, 1),
            "MB of slots": round(use.slots / 1e6, 1),
            "MB of staging": round(use.staging / 1e6, 1),
        }


def live(rig: Rig) -> Iterator[Row]:
    """Yield a row for each of rising numbers of simulated live sessions on the GPU of ``rig``. Ends
    with the first number at which more than one request in a hundred is late, or when the rig's
    time is up.

    Each session asks for 4 frames, by their numbers, every 160 ms; a request is late where its
    frames take longer than these 160 ms. Requests that wait are joined in batches, as a server
    joins them.
    """
    yield from _live(rig, KERNELS, join=True)


def apart(rig: Rig) -> Iterator[Row]:
    """Yield the rows of ``live``, but with every request run by itself instead of joined with
    others in batches."""
    yield from _live(rig, KERNELS, join=False)


def onnx_live(rig: Rig) -> Iterator[Row]:
    """Yield the rows of ``live``, but with ONNX Runtime in place of Lipwire's kernels."""
    yield from _live(rig, ONNX, join=True)


def _live(rig: Rig, road: str, *, join: bool) -> Iterator[Row]:
    streams = 2 if rig.quick else 4
    tuning = Tuning(
        streams=streams, batch_sizes=(LIVE_FRAMES,), kernels=road == KERNELS, cuda=rig.options
    )
    shown = Noise(2 * LIVE_FRAMES if rig.quick else AVATAR_FRAMES)
    numbers = np.arange(LIVE_FRAMES, dtype=np.int64)
    _, windows = inputs(LIVE_FRAMES)
    deadline_s = LIVE_FRAMES * FRAME_S
    with ExitStack() as stack:
        engine = stack.enter_context(rig.engine(tuning))
        runs = _Runs(engine)
        scheduler: Scheduler[Model] = stack.enter_context(
            Scheduler(
                runs.one,
                workers=streams + 1,
                queue_size=4096,
                max_run_frames=MOST_FRAMES if join else LIVE_FRAMES,
                join=join,
                across=Across(lambda model: model.together, runs.across) if join else None,
                split=False,
            )
        )
        models: list[Model] = []
        for sessions in (2, 4) if rig.quick else _SESSIONS:
            while len(models) < sessions:
                models.append(rig.load(engine, len(models) % _AVATARS, shown))
            for _ in range(2):  # every stream has its session
                for job in [scheduler.submit(model, numbers, windows) for model in models[:8]]:
                    job.result(120)
            runs.count = 0
            late_s = _speak(scheduler, models, windows, 0.5 if rig.quick else 4.0)
            p99_s = percentile(late_s, 99)
            kept = engine.crops
            yield {
                "road": road_of(models[0]),
                "sessions": sessions,
                "precision": models[0].precision,
                "requests": len(late_s),
                "frames a run": round(len(late_s) * LIVE_FRAMES / runs.count, 1),
                "p50 ms": round(statistics.median(late_s) * 1e3, 2),
                "p99 ms": round(p99_s * 1e3, 2),
                "late": sum(each > deadline_s for each in late_s),
                "held": str(p99_s <= deadline_s),
                "MB of crops": 0 if kept is None else round(kept.device_bytes / 1e6),
            }
            if p99_s > deadline_s or rig.time_is_up():
                return


def _speak(
    scheduler: Scheduler[Model],
    models: list[Model],
    windows: Float32Array,
    seconds: float,
) -> list[float]:
    """Each session asks for its next 4 frames every 160 ms, all at different moments; how long each
    waited after its moment."""
    period_s = LIVE_FRAMES * FRAME_S
    waits_s: list[float] = []
    jobs: list[Job[Model]] = []
    begun_s = time.perf_counter()
    for turn in range(max(1, round(seconds / period_s))):
        for number, model in enumerate(models):
            due_s = begun_s + (turn + number / len(models)) * period_s
            left_s = due_s - time.perf_counter()
            if left_s > 0:
                time.sleep(left_s)

            def done(_: Future[Array], due_s: float = due_s) -> None:
                waits_s.append(time.perf_counter() - due_s)

            first = (turn + number) * LIVE_FRAMES
            numbers = np.arange(first, first + LIVE_FRAMES, dtype=np.int64)
            job = scheduler.submit(model, numbers, windows)
            job.add_done_callback(done)
            jobs.append(job)
    for job in jobs:
        job.result(120)
    while len(waits_s) < len(jobs):  # results are there a moment before callbacks are called
        time.sleep(0.001)
    return waits_s


class _Runs:
    """What a scheduler has an engine run, counted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self.count = 0

    def one(self, model: Model, numbers: Array, windows: Float32Array) -> Array:
        self._add()
        return self._engine.infer_frames(model, numbers.tolist(), windows)

    def across(self, parts: list[tuple[Model, Array, Float32Array]]) -> list[UInt8Array]:
        self._add()
        return self._engine.infer_together(
            [Request(model, numbers.tolist(), windows) for model, numbers, windows in parts]
        )

    def _add(self) -> None:
        with self._lock:
            self.count += 1
