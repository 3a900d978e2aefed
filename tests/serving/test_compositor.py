"""The frames of a batch."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.accessunits import (
    KEY_SLICE,
    PICTURE_PARAMETERS,
    SEQUENCE_PARAMETERS,
    SLICE,
    decoded_planes,
    kinds_of,
    pixels_of,
    psnr_db,
)

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.domain import (
    AvatarChanged,
    Call,
    Cancelled,
    Float32Array,
    InvalidInput,
    Revision,
    UInt8Array,
    Unavailable,
    Visual,
)
from lipwire.registry import Loaded, Registry
from lipwire.serving import (
    AudioEncoders,
    Batch,
    Compositor,
    DrawnFloatMouths,
    DrawnMouths,
    LoadedAvatar,
    MakeCrops,
    RawAudio,
    compose_frames,
    encode_frames,
    windows_from_raw,
)

MOUTHS: UInt8Array = np.random.default_rng(4).integers(0, 256, (17, 320, 320, 3), dtype=np.uint8)


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(3) as executor:
        yield executor


@pytest.mark.parametrize("count", [1, 6, 7, 17])
def test_side_by_side_or_not_the_frames_come_in_order(
    anna: Avatar, threads: Executor, count: int
) -> None:
    wanted = [anna.jpeg(5 + i, MOUTHS[i]) for i in range(count)]
    for executor in (None, threads):
        frames = compose_frames(
            anna, 5, MOUTHS[:count], frame_format="jpeg", threads=executor, call=None
        )
        assert frames == wanted


def test_raw_frames(anna: Avatar, threads: Executor) -> None:
    frames = compose_frames(anna, 0, MOUTHS, frame_format="raw", threads=threads, call=None)
    assert frames == [anna.pixels(i, MOUTHS[i]).tobytes() for i in range(17)]


def test_h264_frames_are_those_of_the_avatar_an_access_unit_each(anna: Avatar) -> None:
    mouths = np.stack([anna.crop(index) for index in range(17)])
    units = encode_frames(anna, 5, mouths, crf=20, call=None)
    assert len(units) == 17
    assert kinds_of(units[0]) == [SEQUENCE_PARAMETERS, PICTURE_PARAMETERS, KEY_SLICE]
    assert all(kinds_of(unit) == [SLICE] for unit in units[1:])
    for index, shown in enumerate(decoded_planes(units)):
        assert psnr_db(shown, anna.planes(5 + index, mouths[index])) > 35
        wanted = anna.pixels(5 + index, mouths[index])
        assert psnr_db(pixels_of(shown), wanted) > 25
        assert psnr_db(pixels_of(shown)[..., ::-1], wanted) < 20


def test_nobody_waits_for_the_frames_of_a_call_that_is_over(
    anna: Avatar, threads: Executor
) -> None:
    call = Call(None)
    call.end()
    for executor in (None, threads):
        with pytest.raises(Cancelled):
            compose_frames(anna, 0, MOUTHS, frame_format="jpeg", threads=executor, call=call)
    with pytest.raises(Cancelled):
        encode_frames(anna, 0, MOUTHS, crf=23, call=call)


class Slow:
    """An avatar whose first frame fails while the others are still being made."""

    def __init__(self) -> None:
        self.inside = 0
        self.started = threading.Event()

    def jpeg(self, index: int, mouth: UInt8Array) -> bytes:
        if index == 0:
            assert self.started.wait(60)
            raise InvalidInput("the first frame")
        self.inside += 1
        self.started.set()
        threading.Event().wait(0.05)
        self.inside -= 1
        return b""


@pytest.mark.slow
def test_an_error_leaves_no_thread_inside_the_avatar() -> None:
    slow: Any = Slow()
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(InvalidInput, match="the first frame"):
            compose_frames(slow, 0, MOUTHS[:12], frame_format="jpeg", threads=threads, call=None)
        assert slow.inside == 0


class Drawing:
    """A network whose mouths are those of ``MOUTHS``; ``errors`` are raised first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[int, Float32Array]] = []

    def mouths(
        self,
        first: int,
        windows: Float32Array,
        *,
        crops: MakeCrops | None = None,
        call: Call | None = None,
    ) -> DrawnMouths:
        self.asked.append((first, windows))
        if self.errors:
            raise self.errors.pop(0)
        return DrawnMouths(MOUTHS[: len(windows)], 3, 1.5)

    def mouths_of(
        self, visual: Float32Array, windows: Float32Array, *, call: Call | None = None
    ) -> DrawnFloatMouths:
        return DrawnFloatMouths(visual[:, :3], 4, 2.5)


def registry(anna: Avatar, *networks: Drawing) -> Registry[LoadedAvatar]:
    """Of anna, with one of ``networks`` after the other, each time that she is loaded anew."""
    left = list(networks)

    def load(name: str) -> Loaded[LoadedAvatar]:
        avatar = LoadedAvatar(anna, left.pop(0), anna.revision)
        return Loaded(avatar, 1, lambda: None)

    return Registry(load, version=lambda name: len(left), version_every_s=1000.0)


def windows(count: int) -> Float32Array:
    return np.random.default_rng(1).normal(0, 1, (count, 32, 16, 16)).astype(np.float32)


@pytest.fixture
def encoders() -> Iterator[AudioEncoders]:
    with AudioEncoders() as encoders:
        yield encoders


def test_a_batch_is_composited_and_says_where_the_time_went(
    anna: Avatar, encoders: AudioEncoders
) -> None:
    ticks = iter([10.0, 10.25])
    with registry(anna, Drawing()) as avatars:
        compositor = Compositor(avatars, encoders, clock=lambda: next(ticks))
        made = compositor.composite(Batch("anna", 3, 5, None, windows(3)), Call(None))
    assert made.frames == [anna.jpeg(5 + i, MOUTHS[i]) for i in range(3)]
    assert (made.width, made.height, made.gpu_id) == (anna.width, anna.height, 3)
    assert (made.audio_ms, made.inference_ms, made.composite_ms) == (0.0, 1.5, 250.0)


def test_two_batches_in_h264_are_decoded_one_without_the_other(
    anna: Avatar, encoders: AudioEncoders
) -> None:
    with registry(anna, Drawing()) as avatars:
        compositor = Compositor(avatars, encoders, frame_format="h264", crf=18)
        for first in (5, 8):
            made = compositor.composite(Batch("anna", 3, first, None, windows(3)), Call(None))
            assert made.frames == encode_frames(anna, first, MOUTHS[:3], crf=18, call=None)
            assert (made.width, made.height) == (anna.width, anna.height)
            assert len(decoded_planes(made.frames)) == 3


class Sized:
    """An avatar of a size."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.encoder_path = None

    def look_ahead(self, index: int) -> None:
        pass

    def planes(self, index: int, mouth: UInt8Array, out: UInt8Array | None = None) -> UInt8Array:
        return np.full((self.height // 2 * 3 + 3, self.width + 1), 90, np.uint8)


@pytest.mark.parametrize(("width", "height"), [(63, 47), (639, 361)])
def test_odd_frames_in_h264_have_a_column_and_a_row_more(
    encoders: AudioEncoders, width: int, height: int
) -> None:
    sized: Any = Sized(width, height)
    loaded = LoadedAvatar(sized, Drawing(), Revision("a", "b"))
    with Registry(lambda name: Loaded(loaded, 1, lambda: None)) as avatars:
        compositor = Compositor(avatars, encoders, frame_format="h264")
        made = compositor.composite(Batch("sized", 2, 0, None, windows(2)), Call(None))
    assert (made.width, made.height) == (width + 1, height + 1)
    for shown in decoded_planes(made.frames):
        assert shown.shape == ((height + 1) // 2 * 3, width + 1)


def test_frames_that_h264_does_not_have_are_refused_before_they_are_made(
    encoders: AudioEncoders,
) -> None:
    sized: Any = Sized(16_384, 16_384)
    network = Drawing()
    loaded = LoadedAvatar(sized, network, Revision("a", "b"))
    with Registry(lambda name: Loaded(loaded, 1, lambda: None)) as avatars:
        compositor = Compositor(avatars, encoders, frame_format="h264")
        with pytest.raises(InvalidInput, match=r"frames of 16384 x 16384; H\.264 has no level"):
            compositor.composite(Batch("sized", 2, 0, None, windows(2)), Call(None))
    assert network.asked == []


def test_visual_frames_become_the_mouths_that_are_pasted(
    anna: Avatar, encoders: AudioEncoders
) -> None:
    visual = np.random.default_rng(2).random((2, 6, 320, 320), np.float32).view(Visual)
    expected = DrawnFloatMouths(visual[:, :3], 4, 2.5).as_mouths().pixels
    with registry(anna, Drawing()) as avatars:
        compositor = Compositor(avatars, encoders, frame_format="raw")
        made = compositor.composite(Batch("anna", 2, 0, visual, windows(2)), Call(None))
    assert made.frames == [anna.pixels(i, expected[i]).tobytes() for i in range(2)]
    assert made.inference_ms == 2.5


def test_raw_audio_is_heard_by_the_avatars_encoder(anna: Avatar, encoders: AudioEncoders) -> None:
    samples = np.random.default_rng(3).integers(-9000, 9000, (16_000, 1)).astype(np.int16)
    assert anna.encoder_path is not None
    audio = RawAudio(samples, 16_000, 2)
    expected = windows_from_raw(audio, 4, AudioEncoder.open(anna.encoder_path))
    network = Drawing()
    with registry(anna, network) as avatars:
        made = Compositor(avatars, encoders).composite(Batch("anna", 4, 7, None, audio), Call(None))
    ((first, heard),) = network.asked
    assert first == 7
    np.testing.assert_array_equal(heard, expected)
    assert made.audio_ms > 0


def test_an_encoder_that_is_slow_to_open_holds_up_only_requests_that_need_it(
    tmp_path: Path, compiled_template: Path
) -> None:
    inside, going = threading.Event(), threading.Event()

    def open_encoder(path: Path) -> AudioEncoder:
        if path.parent.parent.name == "slow":
            inside.set()
            assert going.wait(60)
        return AudioEncoder.open(path)

    for name in ("slow", "quick", "other"):
        shutil.copytree(compiled_template, tmp_path / name)

    def load(name: str) -> Loaded[LoadedAvatar]:
        frames = Avatar.open(tmp_path / name, parts=frozenset({"jpeg"}))
        return Loaded(LoadedAvatar(frames, Drawing(), frames.revision), 1, frames.close)

    samples = np.zeros((16_000, 1), np.int16)
    with (
        Registry(load) as avatars,
        AudioEncoders(open_encoder) as encoders,
        ThreadPoolExecutor(2) as clients,
    ):
        compositor = Compositor(avatars, encoders)

        def ask(name: str) -> int:
            batch = Batch(name, 1, 0, None, RawAudio(samples, 16_000, 0))
            return len(compositor.composite(batch, Call(None)).frames)

        ask("quick")
        held_up = [clients.submit(ask, "slow") for _ in range(2)]
        assert inside.wait(60)
        assert (ask("quick"), ask("other")) == (1, 1)
        assert not any(call.done() for call in held_up)
        going.set()
        assert [call.result(60) for call in held_up] == [1, 1]


def test_an_avatar_that_has_changed_is_loaded_anew(anna: Avatar, encoders: AudioEncoders) -> None:
    changed = AvatarChanged("another one is here")
    networks = [Drawing(changed), Drawing(changed), Drawing()]
    with registry(anna, *networks) as avatars:
        made = Compositor(avatars, encoders).composite(
            Batch("anna", 1, 0, None, windows(1)), Call(None)
        )
    assert len(made.frames) == 1
    assert [len(network.asked) for network in networks] == [1, 1, 1]


def test_an_avatar_that_stays_another_one_elsewhere_is_unavailable(
    anna: Avatar, encoders: AudioEncoders
) -> None:
    networks = [Drawing(AvatarChanged("another one is here")) for _ in range(4)]
    with (
        registry(anna, *networks) as avatars,
        pytest.raises(Unavailable, match="anna is not the same here and where its network is"),
    ):
        Compositor(avatars, encoders).composite(Batch("anna", 1, 0, None, windows(1)), Call(None))
    assert [len(network.asked) for network in networks] == [1, 1, 1, 0]


def test_raw_frames_that_are_too_large_are_refused_before_they_are_made(
    anna: Avatar, encoders: AudioEncoders
) -> None:
    network = Drawing()
    size_bytes = anna.width * anna.height * 3
    with registry(anna, network) as avatars:
        compositor = Compositor(
            avatars, encoders, frame_format="raw", max_answer_bytes=3 * (size_bytes + 16) + 1024
        )
        with pytest.raises(InvalidInput, match="batch_size is 4; allowed are up to 3 raw frames"):
            compositor.composite(Batch("anna", 4, 0, None, windows(4)), Call(None))
        assert network.asked == []
        assert len(compositor.composite(Batch("anna", 3, 0, None, windows(3)), Call(None)).frames)


def test_who_has_gone_is_made_no_mouths(anna: Avatar, encoders: AudioEncoders) -> None:
    network, call = Drawing(), Call(None)
    call.end()
    with registry(anna, network) as avatars, pytest.raises(Cancelled):
        Compositor(avatars, encoders).composite(Batch("anna", 1, 0, None, windows(1)), call)
    assert network.asked == []
