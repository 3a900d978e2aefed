"""Frames of several avatars in one batch, by an engine and by a scheduler over it.

The kernels are imitated: what they make shows whose weights, crop and speech a frame was given.
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.imitated import ImitatedPrograms, half_of, stamped
from tests.engine.standin import Shown
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory
from tests.support.waiting import WAIT_S

from lipwire.domain import Float32Array, InvalidInput, Unavailable
from lipwire.engine import Engine, Model, Request, Tuning
from lipwire.engine.gpu.kernels import kernelcache
from lipwire.scheduling import Across, Scheduler

PLENTY = 1 << 30
AVATARS = 4


@pytest.fixture
def folders(alike: Callable[[int], list[Path]]) -> list[Path]:
    return alike(AVATARS)


@pytest.fixture
def programs(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> ImitatedPrograms:
    monkeypatch.setattr(kernelcache, "why_not_the_same", lambda *_: None)
    return ImitatedPrograms(stamped, half_of(folders[0])[2].nbytes)


@pytest.fixture
def memory(programs: ImitatedPrograms) -> Iterator[HostMemory]:
    memory = HostMemory(PLENTY, programs=programs)
    yield memory
    assert (memory.regions, memory.host_blocks, programs.loaded) == (0, 0, 0)


@pytest.fixture
def shown() -> list[Shown]:
    return [Shown(seed) for seed in range(AVATARS)]


@pytest.fixture
def images(folders: list[Path]) -> list[Any]:
    return [half_of(folder)[2] for folder in folders]


def windows(frames: int, seed: int) -> Float32Array:
    return np.random.default_rng(seed).standard_normal((frames, 32, 16, 16), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("crop_bytes", [None, 0])
def test_every_frame_is_its_own_avatars(
    memory: HostMemory,
    programs: ImitatedPrograms,
    folders: list[Path],
    shown: list[Shown],
    images: list[Any],
    crop_bytes: int | None,
) -> None:
    with Engine(threads=1, memory=memory, tuning=Tuning(crop_bytes=crop_bytes)) as engine:
        models = [load_both(engine, *each) for each in zip(folders, shown, strict=True)]
        for turn in range(3):  # crops are brought, then found
            counts = [1 + (turn + which) % 3 for which in range(AVATARS)]
            speech = [windows(count, 10 * turn + which) for which, count in enumerate(counts)]
            requests = [
                Request(models[which], list(range(count)), speech[which])
                for which, count in enumerate(counts)
            ]
            pixels = shown[0].crops[:2].copy()
            requests.append(Request(models[0], pixels, windows(2, turn)))
            made = engine.infer_together(requests)
            assert programs.runs[-1] == sum(counts) + 2
            for which, count in enumerate(counts):
                for number in range(count):
                    wanted = stamped(
                        images[which], shown[which].crops[number], speech[which][number]
                    )
                    assert np.array_equal(made[which][number], wanted)
            for number in range(2):
                wanted = stamped(images[0], pixels[number], windows(2, turn)[number])
                assert np.array_equal(made[-1][number], wanted)


def test_what_cannot_be_run_together_is_refused(
    memory: HostMemory, folders: list[Path], shown: list[Shown], tmp_path: Path
) -> None:
    one = windows(1, 0)
    with (
        Engine(threads=1, memory=memory) as engine,
        Engine(threads=1, memory=memory) as other,
        Engine(threads=1, memory=memory, tuning=Tuning(kernels=False)) as without,
    ):
        model, far = load_both(engine, folders[0], shown[0]), load_both(other, folders[1], shown[1])
        onnx = load_both(without, folders[0], shown[0])
        assert onnx.together is None
        for bad in ([model, onnx], [model, far], [onnx], []):
            with pytest.raises(InvalidInput, match="cannot be run together"):
                engine.infer_together([Request(each, [0], one) for each in bad])
        with pytest.raises(RuntimeError, match="another engine"):
            engine.infer_together([Request(far, [0], one)])
        with pytest.raises(InvalidInput, match="51 frames, allowed together are 50"):
            engine.infer_together(
                [Request(model, [0] * 50, windows(50, 1)), Request(model, [0], one)]
            )
        with pytest.raises(InvalidInput, match="windows holds 2"):
            engine.infer_together([Request(model, [0], windows(2, 1))])
        with pytest.raises(InvalidInput, match="NaN"):
            engine.infer_together([Request(model, [0], np.full_like(one, np.nan))])
        with pytest.raises(InvalidInput, match="frame numbers"):
            engine.infer_together([Request(model, [-1], one)])
        with pytest.raises(InvalidInput, match="crops is"):
            engine.infer_together([Request(model, np.zeros((1, 6, 320, 320), np.float32), one)])
        gone = load_both(engine, folders[1], shown[1])
        engine.unload(gone)
        with pytest.raises(Unavailable, match="unloaded"):
            engine.infer_together([Request(model, [0], one), Request(gone, [0], one)])
        made = engine.infer_together([Request(model, [0], one)])  # and nothing was harmed
        assert np.array_equal(made[0], engine.infer_frames(model, [0], one))


@pytest.mark.slow
def test_sessions_of_many_avatars_share_batches_and_nothing_else(
    memory: HostMemory,
    programs: ImitatedPrograms,
    folders: list[Path],
    shown: list[Shown],
    images: list[Any],
) -> None:
    tuning = Tuning(max_models=AVATARS - 1, host_bytes=0)  # somebody always has to go
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        models = [load_both(engine, *each) for each in zip(folders, shown, strict=True)]

        def run(key: Model, faces: Any, speech: Float32Array) -> Any:
            return engine.infer_frames(key, faces.tolist(), speech)

        def together(parts: list[tuple[Model, Any, Float32Array]]) -> Any:
            return engine.infer_together([Request(k, f.tolist(), s) for k, f, s in parts])

        with Scheduler(
            run,
            workers=2,
            queue_size=1000,
            max_run_frames=50,
            join=True,
            split=False,
            across=Across(lambda model: model.together, together),
        ) as scheduler:

            def talk(session: int) -> None:
                chance = random.Random(session)
                for turn in range(8):
                    which = chance.randrange(AVATARS)
                    numbers = np.array([chance.randrange(8) for _ in range(4)])
                    speech = windows(4, 100 * session + turn)
                    job = scheduler.submit(models[which], numbers, speech)
                    mouths = job.result(WAIT_S)
                    for mouth, number, window in zip(mouths, numbers, speech, strict=True):
                        crops = shown[which].crops
                        crop = crops[number] if number < len(crops) else None
                        if crop is not None:
                            assert np.array_equal(mouth, stamped(images[which], crop, window))

            with ThreadPoolExecutor(8) as pool:
                for session in [pool.submit(talk, number) for number in range(8)]:
                    session.result()
            stats = scheduler.stats()
        assert (stats.finished, stats.failed) == (8 * 8, 0)
        assert max(programs.runs) > 4  # batches were shared
        assert engine.weights is not None
        assert engine.weights.evictions > 0


def test_weights_that_have_to_be_brought_first_are_told(
    memory: HostMemory, folders: list[Path], shown: list[Shown]
) -> None:
    with Engine(threads=1, memory=memory, tuning=Tuning(max_models=1)) as engine:
        models = [load_both(engine, *each) for each in zip(folders[:2], shown[:2], strict=True)]
        assert [model.warm for model in models] == [False, True]
        engine.infer_frames(models[0], [0], windows(1, 0))
        assert [model.warm for model in models] == [True, False]


def test_kernels_take_single_precision_from_nobody(memory: HostMemory, folders: list[Path]) -> None:
    tuning = replace(Tuning(), precision="single")
    with Engine(threads=1, memory=memory, tuning=tuning) as engine:
        assert load_both(engine, folders[0]).together is None
