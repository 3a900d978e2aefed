"""One encoder for the viewers of a session, in virtual time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import av
import numpy as np
import pytest
from tests.support.liveparts import FakeAvatar, LiveTime
from tests.support.webparts import SIZE, planes

from lipwire.compose.livevideo import EncodedPicture, EncodedSound
from lipwire.domain import UInt8Array
from lipwire.session.live import Event, LiveSession, SessionSettings, Sound, StateChanged
from lipwire.session.live.broadcast import Broadcast, Media


class Viewing(LiveTime):
    """A session with a broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.avatar = FakeAvatar()

        def composed(
            position: int, mouth: UInt8Array | None, out: UInt8Array | None = None
        ) -> UInt8Array:
            self.avatar.on_compose(position)
            return planes(position, mouth, out)

        live = replace(self.avatar.live(), width=SIZE, height=SIZE, planes=composed)
        self.shown = LiveSession(live, SessionSettings(gate=False), self.threads, clock=self.clock)
        self.broadcast = Broadcast(clock=self.clock)
        self.shown.add_output(self.broadcast)
        self.shown.start()


class Viewer:
    def __init__(self) -> None:
        self.given: list[tuple[Media, ...]] = []

    def __call__(self, media: tuple[Media, ...]) -> None:
        self.given.append(media)

    def all(self, kind: Any) -> list[Any]:
        return [item for media in self.given for item in media if isinstance(item, kind)]

    @property
    def pictures(self) -> list[EncodedPicture]:
        return self.all(EncodedPicture)

    @property
    def keys(self) -> list[int]:
        return [picture.frame for picture in self.pictures if picture.key]


@pytest.fixture
def viewing() -> Iterator[Viewing]:
    viewing = Viewing()
    yield viewing
    viewing.shown.close()


def decoded(viewer: Viewer) -> int:
    """How many of the viewer's pictures a decoder shows."""
    decodes = av.CodecContext.create("h264", "r")
    assert isinstance(decodes, av.VideoCodecContext)
    shown = [frame for one in viewer.pictures for frame in decodes.decode(av.Packet(one.data))]
    return len([*shown, *decodes.decode(None)])


def test_nothing_is_encoded_for_nobody(viewing: Viewing) -> None:
    viewing.run(1)
    assert viewing.broadcast.encoded == 0
    assert viewing.shown.counts.frames == 0


def test_many_viewers_have_one_encoder(viewing: Viewing) -> None:
    viewers = [Viewer() for _ in range(5)]
    for viewer in viewers:
        viewing.broadcast.add(viewer)
    viewing.run(1)
    assert viewing.broadcast.viewers == 5
    assert viewing.broadcast.encoded in (24, 25, 26)
    for viewer in viewers:
        assert viewer.given == viewers[0].given
        assert len(viewer.pictures) == viewing.broadcast.encoded
        assert viewer.pictures[0].key


def test_sound_of_a_frame_leaves_before_its_picture_is_composed(viewing: Viewing) -> None:
    viewer = Viewer()
    given: list[int] = []
    viewing.avatar.on_compose = lambda position: given.append(len(viewer.given))
    viewing.broadcast.add(viewer)
    viewing.run(1)
    assert given == list(range(1, len(viewer.given), 2))
    for sound, picture in zip(viewer.given[::2], viewer.given[1::2], strict=True):
        (one,) = picture
        assert isinstance(one, EncodedPicture)
        samples = [item.sample for item in sound if isinstance(item, EncodedSound)]
        assert samples == [one.frame * 1920, one.frame * 1920 + 960]


def test_sound_does_not_wait_where_its_picture_is_left_out(viewing: Viewing) -> None:
    viewer = Viewer()
    viewing.broadcast.add(viewer)
    viewing.run(0.2)
    frame = viewer.pictures[-1].frame
    viewing.shown._composing.add(-1)  # as if the one before were not done
    viewing.run(0.04)
    assert viewer.pictures[-1].frame == frame
    assert viewer.all(EncodedSound)[-1].sample == (frame + 1) * 1920 + 960


def test_sound_stays_whole_where_a_picture_is_left_out(viewing: Viewing) -> None:
    viewer = Viewer()
    viewing.broadcast.add(viewer)
    viewing.run(0.4)
    viewing.clock.now += 0.2  # the pacing thread comes late
    viewing.run(0.4)
    samples = [sound.sample for sound in viewer.all(EncodedSound)]
    assert samples == list(range(samples[0], samples[0] + 960 * len(samples), 960))
    frames = [picture.frame for picture in viewer.pictures]
    assert len(frames) < len(samples) // 2
    assert decoded(viewer) == len(frames)


def test_events_are_given_with_the_rest(viewing: Viewing) -> None:
    viewer = Viewer()
    viewing.broadcast.add(viewer)
    viewing.run(0.2)
    viewing.shown.push(np.full(4000, 9000, np.int16), 16_000)
    viewing.shown.end_of_speech()
    viewing.run(1)
    assert any(isinstance(event, StateChanged) for event in viewer.all(Event))
    assert not viewer.all(Sound)


def test_who_joins_soon_has_the_pictures_since_the_key_frame(viewing: Viewing) -> None:
    first, second = Viewer(), Viewer()
    viewing.broadcast.add(first)
    viewing.run(0.5)
    viewing.broadcast.add(second)
    viewing.run(0.5)
    assert second.pictures == first.pictures
    assert len(first.keys) == 1
    assert decoded(second) == len(first.pictures)


def test_who_joins_late_has_a_key_frame_made(viewing: Viewing) -> None:
    first, second = Viewer(), Viewer()
    viewing.broadcast.add(first)
    viewing.run(3)
    viewing.broadcast.add(second)
    assert not second.given
    viewing.run(0.1)
    assert second.pictures[0].key
    assert decoded(second) == len(second.pictures)


def test_key_frames_are_made_once_a_second_at_most(viewing: Viewing) -> None:
    viewer = Viewer()
    viewing.broadcast.add(viewer)
    for _ in range(100):
        viewing.broadcast.want_key()
        viewing.run(0.04)
    gaps = np.diff(viewer.keys)
    assert len(gaps) == 4
    assert (gaps >= 25).all()


def test_who_has_left_is_given_nothing(viewing: Viewing) -> None:
    viewer = Viewer()
    viewing.broadcast.add(viewer)
    viewing.run(0.2)
    viewing.broadcast.remove(viewer)
    given, encoded = len(viewer.given), viewing.broadcast.encoded
    shown = len(viewer.pictures)
    viewing.run(1)
    assert (len(viewer.given), viewing.broadcast.encoded) == (given, encoded)
    viewing.broadcast.add(viewer)
    viewing.run(0.1)
    assert viewer.pictures[shown].key


def test_it_ends_with_the_session(viewing: Viewing) -> None:
    viewer = Viewer()
    viewing.broadcast.add(viewer)
    viewing.run(0.1)
    viewing.shown.close()
    assert viewing.broadcast.closed
    assert viewing.broadcast.viewers == 0
    viewing.broadcast.add(viewer)
    assert viewing.broadcast.viewers == 0


@pytest.mark.slow
def test_the_bit_rate_follows_the_slowest_viewer_within_bounds(viewing: Viewing) -> None:
    fast, slow = Viewer(), Viewer()
    viewing.broadcast.add(fast)
    viewing.broadcast.add(slow)
    viewing.run(3)
    usual = rate(viewing)
    viewing.broadcast._sent.extend((viewing.clock.now, 600_000) for _ in range(2))
    viewing.broadcast.limit(slow, 200_000)
    viewing.broadcast.limit(fast, 50_000_000)
    viewing.run(3)
    assert rate(viewing) == 200_000 < usual
    viewing.broadcast._sent.extend((viewing.clock.now, 600_000) for _ in range(2))
    viewing.broadcast.limit(slow, 1)
    viewing.run(6)
    assert rate(viewing) == 150_000
    viewing.broadcast.remove(slow)
    viewing.run(6)
    assert rate(viewing) == usual
    assert decoded(fast) == len(fast.pictures)


def rate(viewing: Viewing) -> int:
    assert viewing.broadcast._video is not None
    return viewing.broadcast._video.bits_a_second
