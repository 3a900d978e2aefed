"""Runs in kernels of our own: whose weights, crops and speech they get, and what is kept for them.

The kernels are imitated: a mouth shows which weights and which speech its crop was given.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from tests.engine.drawing import Drawing, places_of
from tests.engine.imitated import ImitatedPrograms, stamped
from tests.support.hostmemory import HostMemory

from lipwire.domain import Float32Array, UInt8Array
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.kernels.lowering.lowered import Lowered
from lipwire.engine.gpu.kernels.planning.plan import Pixels, Speech
from lipwire.engine.gpu.kernels.running.kernelruns import KernelRuns, Part, Program
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES, CropPlace, Face
from lipwire.engine.gpu.memory.devicememory import Bytes, DeviceOutOfMemory, Region
from lipwire.engine.gpu.programs import KernelsUnavailable

PLENTY = 1 << 28
IMAGE_BYTES = 4096


class Counting(HostMemory):
    """Counts what is brought and copied, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__(PLENTY)
        self.uploaded: list[int] = []
        """Bytes."""
        self.copied: list[int] = []
        self.in_stream: list[str] = []
        """What was put there last, and not waited for."""
        self.allocations_left: int | None = None

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        self.uploaded.append(source.nbytes)
        self.in_stream.append("upload")
        super().upload(stream, address, source)

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None:
        self.copied.append(size_bytes)
        self.in_stream.append("copy")
        super().copy(stream, target, source, size_bytes)

    def download(self, stream: int, target: Bytes, address: int) -> None:
        self.in_stream.append("download")
        super().download(stream, target, address)

    def wait(self, stream: int) -> None:
        self.in_stream.clear()
        super().wait(stream)

    def allocate(self, size_bytes: int) -> Region:
        self._count()
        return super().allocate(size_bytes)

    def allocate_host(self, size_bytes: int) -> Bytes:
        self._count()
        return super().allocate_host(size_bytes)

    def _count(self) -> None:
        if self.allocations_left is not None:
            if not self.allocations_left:
                raise DeviceOutOfMemory("told to")
            self.allocations_left -= 1


class Bench:
    """One stream's runs, and avatars with weights on the device."""

    def __init__(self, memory: Counting) -> None:
        self.memory = memory
        self.programs = ImitatedPrograms(stamped, IMAGE_BYTES)
        drawing = Drawing()
        drawing.full("heard", Speech(), 8)
        drawing.mouth(drawing.inverted("seen", Pixels(), 8), "sigmoid")
        places, _ = places_of(drawing.weights(0))
        self.lowered = Lowered(drawing.plan, places, self.programs.limits)
        self.module = self.programs.load(self.lowered.source)
        program = Program(self.lowered, self.programs, self.module)
        self.runs = KernelRuns(memory, program, memory.open_stream())
        self._random = np.random.default_rng(0)
        self.images: list[Bytes] = [
            self._random.integers(0, 256, IMAGE_BYTES, np.uint8) for _ in range(2)
        ]
        self.regions = [self.brought(image) for image in self.images]
        self.kept_regions = memory.regions
        memory.uploaded.clear()

    def brought(self, values: Bytes) -> Region:
        region = self.memory.allocate(values.nbytes)
        self.memory.upload(0, region.address, values.reshape(-1))
        return region

    def crops(self, frames: int) -> UInt8Array:
        return self._random.integers(0, 256, (frames, 320, 320, 3), np.uint8)

    def check(
        self, which: int, crops: UInt8Array, faces: UInt8Array | Sequence[Face] | None = None
    ) -> None:
        """That ``faces``, whose crops are ``crops``, become the mouths of avatar ``which``."""
        self.check_together([(which, crops, faces)])

    def check_together(
        self, asked: Sequence[tuple[int, UInt8Array, UInt8Array | Sequence[Face] | None]]
    ) -> None:
        """Likewise, of several in one batch."""
        parts = [
            Part(
                self.regions[which].address,
                crops if faces is None else faces,
                self.speech(len(crops)),
                np.zeros_like(crops),
            )
            for which, crops, faces in asked
        ]
        self.runs.run(parts)
        assert self.memory.in_stream == []
        for (which, crops, _), part in zip(asked, parts, strict=True):
            for mouth, crop, window in zip(part.mouths, crops, part.speech, strict=True):
                assert (mouth == stamped(self.images[which], crop, window)).all()

    def speech(self, frames: int) -> Float32Array:
        return self._random.standard_normal((frames, 32, 16, 16), np.float32)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """What its runs took has to be given back."""
    bench = Bench(Counting())
    yield bench
    bench.memory.allocations_left = None
    bench.runs.close()
    assert bench.programs.held == {bench.module}
    assert (bench.memory.regions, bench.memory.host_blocks) == (bench.kept_regions, 0)


def test_every_avatar_and_every_frame_gets_its_own(bench: Bench) -> None:
    for which, frames in ((0, 3), (1, 3), (0, 1), (1, 2), (0, 3)):
        bench.check(which, bench.crops(frames))


def test_several_avatars_share_a_batch(bench: Bench) -> None:
    bench.check_together([(which, bench.crops(n), None) for which, n in ((0, 2), (1, 1), (0, 1))])
    bench.check_together([(1, bench.crops(1), None), (0, bench.crops(3), None)])
    assert bench.programs.records == [4]
    assert bench.programs.runs == [4, 4]


def test_the_wrong_weights_or_speech_would_be_seen(bench: Bench) -> None:
    """That these comparisons can fail."""
    crop, (window, other) = bench.crops(1)[0], bench.speech(2)
    made = stamped(bench.images[0], crop, window)
    assert (made != stamped(bench.images[1], crop, window)).any()
    assert (made != stamped(bench.images[0], crop, other)).any()
    assert (made != stamped(bench.images[0], bench.crops(1)[0], window)).any()


# Recordings


def test_avatars_share_a_recording_for_each_number_of_frames(bench: Bench) -> None:
    for which, frames in ((0, 3), (1, 3), (0, 2), (1, 2), (0, 3), (1, 1), (0, 1)):
        bench.check(which, bench.crops(frames))
    assert bench.programs.records == [3, 2, 1]
    assert bench.programs.runs == [3, 3, 2, 2, 3, 1, 1]


def test_more_frames_than_ever_take_new_room_and_new_recordings(bench: Bench) -> None:
    bench.check(0, bench.crops(1))
    taken = bench.memory.regions, bench.memory.host_blocks
    bench.check(1, bench.crops(3))
    assert (bench.memory.regions, bench.memory.host_blocks) == taken
    assert len(bench.programs.held) == 2  # the module, and a recording with the room's addresses
    bench.check(0, bench.crops(1))
    bench.check(1, bench.crops(2))
    assert bench.programs.records == [1, 3, 1, 2]


def test_what_is_closed_is_made_again_by_the_next_run(bench: Bench) -> None:
    bench.check(0, bench.crops(2))
    bench.runs.close()
    assert bench.programs.held == {bench.module}
    assert (bench.memory.regions, bench.memory.host_blocks) == (bench.kept_regions, 0)
    assert (bench.runs.device_bytes, bench.runs.host_bytes) == (0, 0)
    bench.check(1, bench.crops(2))
    assert bench.programs.records == [2, 2]


def _place(region: Region, number: int, *, there: bool) -> CropPlace:
    return CropPlace(region, number * CROP_BYTES, there)


def test_crops_that_are_kept_are_used_where_they_are(bench: Bench) -> None:
    crops = bench.crops(4)
    region = bench.brought(crops)
    bench.kept_regions += 1
    order = [2, 0, 3, 0]
    faces = [Face(_place(region, number, there=True), None) for number in order]
    bench.memory.uploaded.clear()
    bench.check(0, crops[order], faces)
    assert max(bench.memory.uploaded) < CROP_BYTES  # tables and speech
    assert bench.memory.copied == []


def test_crops_are_brought_and_kept_where_they_are_to_be(bench: Bench) -> None:
    """Some are there, some are to be kept, some are not; neighbours are copied together."""
    crops = bench.crops(6)
    region = bench.brought(crops[:5])
    bench.kept_regions += 1
    for number in (1, 2, 4):  # not there yet
        address = region.address + number * CROP_BYTES
        bench.memory.upload(0, address, np.zeros(CROP_BYTES, np.uint8))
    order = [5, 1, 2, 0, 4, 3]
    there = {0, 3}
    faces = [
        Face(None, crops[5]) if number == 5
        else Face(_place(region, number, there=number in there), crops[number])
        for number in order
    ]  # fmt: skip
    bench.memory.uploaded.clear()
    bench.check(1, crops[order], faces)
    assert bench.memory.uploaded[0] == 4 * CROP_BYTES
    assert bench.memory.copied == [2 * CROP_BYTES, CROP_BYTES]
    kept = np.empty((5, 320, 320, 3), np.uint8)
    bench.memory.download(0, kept.reshape(-1), region.address)
    assert (kept == crops[:5]).all()
    faces = [Face(_place(region, number, there=True), None) for number in range(5)]
    bench.check(0, crops[:5], faces)


def test_avatars_bring_their_crops_together(bench: Bench) -> None:
    """One upload for all that is not there, whoever's it is."""
    crops = bench.crops(5)
    region = bench.brought(crops[:1])
    bench.kept_regions += 1
    there = Face(_place(region, 0, there=True), None)
    bench.memory.uploaded.clear()
    bench.check_together(
        [
            (0, crops[[0, 1]], [there, Face(None, crops[1])]),
            (1, crops[[2, 0]], [Face(None, crops[2]), there]),
            (0, crops[3:], None),
        ]
    )
    assert bench.memory.uploaded[0] == 4 * CROP_BYTES
    assert len(bench.memory.uploaded) == 2


# What it takes


def test_it_counts_what_it_takes(bench: Bench) -> None:
    free_bytes = bench.memory.free_bytes()
    bench.check(0, bench.crops(2))
    assert bench.runs.device_bytes == free_bytes - bench.memory.free_bytes()
    crops_and_mouths = 2 * 2 * CROP_BYTES
    arena = bench.lowered.scratch_bytes(2)
    assert 0 <= bench.runs.device_bytes - crops_and_mouths - arena - 2 * 32768 < 64
    assert bench.runs.host_bytes == bench.runs.device_bytes - arena


def test_memory_that_ends_anywhere_leaves_nothing_and_the_next_run_goes_on(bench: Bench) -> None:
    bench.check(0, bench.crops(1))
    needed = bench.memory.regions - bench.kept_regions + bench.memory.host_blocks
    assert needed == 7
    for left in range(needed):
        bench.memory.allocations_left = left
        with pytest.raises(DeviceOutOfMemory):
            bench.check(0, bench.crops(2))
        assert (bench.memory.regions, bench.memory.host_blocks) == (bench.kept_regions, 0)
        assert bench.programs.held == {bench.module}
        bench.memory.allocations_left = None
        bench.check(1, bench.crops(1))


@pytest.mark.parametrize("where", ["record", "run"])
@pytest.mark.parametrize(
    "error",
    [DeviceOutOfMemory("full"), RuntimeError("spoilt"), KernelsUnavailable("no"), DeviceLost("!")],
    ids=lambda error: type(error).__name__,
)
def test_a_run_that_fails_says_why_and_the_next_one_goes_on(
    bench: Bench, where: str, error: Exception
) -> None:
    bench.programs.fails[where].append(error)
    with pytest.raises(type(error), match=str(error)):
        bench.check(0, bench.crops(2))
    bench.check(1, bench.crops(2))


def test_the_lock_is_left_to_whoever_records(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken in there: holding it already would wait for oneself."""
    lock, record, asked = bench.memory.allocation_lock, bench.programs.record, []

    def recording(*arguments: Any) -> Any:
        asked.append((lock._holders, lock._exclusive))
        return record(*arguments)

    monkeypatch.setattr(bench.programs, "record", recording)
    bench.check(0, bench.crops(1))
    assert asked == [(0, False)]
