"""The avatar of a live session, whose package may be replaced while it speaks."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lipwire.audio import AudioEncoder
from lipwire.bench.randomnetworks import write_tiny_audio_encoder
from lipwire.domain import AvatarChanged, Call, Unavailable
from lipwire.registry import Loaded, Registry
from lipwire.serving import AudioEncoders
from lipwire.serving.encoders import EncoderFile
from lipwire.wiring.sessionavatars import SessionAvatar

WINDOWS = np.zeros((2, 32, 16, 16), np.float32)


class Package:
    """What is loaded as avatar anna; where its network is, may be another revision."""

    def __init__(self, encoder: Path) -> None:
        self.revision = self.of_network = "a"
        self.width = 64
        self.encoder = encoder
        self.closed: list[str] = []
        self.loads = 0
        self.before_mouths: Any = lambda: None

    def load(self, name: str) -> Loaded[Any]:
        self.loads += 1
        revision = self.revision

        def check(*_: object, call: Call | None = None) -> None:
            self.before_mouths()
            if revision != self.of_network:
                raise AvatarChanged("another revision")

        def mouths(*_: object, call: Call | None = None) -> Any:
            check()
            return SimpleNamespace(pixels=revision)

        def rest_mouth(number: int, call: Call | None = None) -> str:
            check()
            return f"rest {revision}"

        rest = SimpleNamespace(
            complete=revision == "b", ready=lambda number: revision, mouth=rest_mouth
        )
        avatar = SimpleNamespace(
            frames=SimpleNamespace(
                width=self.width,
                height=48,
                frame_count=8,
                jpeg=lambda position, mouth: f"{revision} {position}".encode(),
                pixels=lambda position, mouth: np.full(3, ord(revision), np.uint8),
            ),
            network=SimpleNamespace(mouths=mouths),
            encoder=EncoderFile.at(self.encoder),
            rest_mouths=lambda encoders, call: rest,
        )
        return Loaded(avatar, 0, lambda: self.closed.append(revision))

    def replace(self) -> None:
        """Here and where its network is."""
        self.revision = self.of_network = "b"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    path = tmp_path / "audio_encoder.onnx"
    write_tiny_audio_encoder(path, 0)
    return Package(path)


@pytest.fixture
def avatar(package: Package) -> Iterator[SessionAvatar]:
    encoders = AudioEncoders()
    with (
        Registry(package.load, version=lambda name: package.revision) as registry,
        SessionAvatar("anna", registry, encoders, Call(10)) as opened,
    ):
        yield opened
    encoders.close()


def test_a_session_goes_on_with_the_package_that_replaced_its_own(
    avatar: SessionAvatar, package: Package
) -> None:
    live = avatar.live_avatar("jpeg")
    assert (live.name, live.width, live.height, live.frame_count) == ("anna", 64, 48, 8)
    assert live.mouths(0, WINDOWS, Call(10)) == "a"
    assert (live.compose(3, None), live.rest.complete) == (b"a 3", False)
    package.replace()
    assert live.mouths(0, WINDOWS, Call(10)) == "b"
    assert (live.compose(3, None), live.rest.complete) == (b"b 3", True)
    assert str(live.rest.ready(0)) == "b"
    assert package.closed == ["a"]
    assert package.loads == 2


def test_speech_is_heard_by_the_encoder_of_the_new_package(
    avatar: SessionAvatar, package: Package
) -> None:
    live = avatar.live_avatar("jpeg")
    mels = np.ones((1, 1, 80, 16), np.float32)
    before = live.encoder.encode(mels)
    write_tiny_audio_encoder(package.encoder, 1)
    package.replace()
    live.mouths(0, WINDOWS, Call(10))
    after = live.encoder.encode(mels)
    np.testing.assert_array_equal(after, AudioEncoder.open(package.encoder).encode(mels))
    assert (after != before).any()


def test_raw_frames_are_of_the_new_package_too(avatar: SessionAvatar, package: Package) -> None:
    live = avatar.live_avatar("raw")
    package.replace()
    assert live.rest.mouth(0, call=Call(10)) == "rest b"
    assert live.compose(0, None) == b"bbb"


def test_the_old_package_stays_open_while_a_frame_is_made_of_it(
    avatar: SessionAvatar, package: Package
) -> None:
    live = avatar.live_avatar("jpeg")
    with avatar.used() as old:
        package.replace()
        live.mouths(0, WINDOWS, Call(10))
        assert package.closed == []
        assert old.frames.jpeg(0, None) == b"a 0"
    assert package.closed == ["a"]


def test_two_that_notice_load_it_once(avatar: SessionAvatar, package: Package) -> None:
    live = avatar.live_avatar("jpeg")
    package.replace()

    def another() -> None:
        package.before_mouths = lambda: None
        live.rest.mouth(0, call=Call(10))

    package.before_mouths = another
    assert live.mouths(0, WINDOWS, Call(10)) == "b"
    assert package.loads == 2


def test_a_package_of_another_size_ends_the_session(
    avatar: SessionAvatar, package: Package
) -> None:
    live = avatar.live_avatar("jpeg")
    package.replace()
    package.width = 100
    with pytest.raises(
        AvatarChanged, match="was 64 x 48 and was replaced by one of 100 x 48; begin"
    ):
        live.mouths(0, WINDOWS, Call(10))
    assert live.compose(0, None) == b"a 0"


def test_folders_that_differ_are_not_tried_for_ever(
    avatar: SessionAvatar, package: Package
) -> None:
    package.of_network = "c"
    with pytest.raises(Unavailable, match="their folders differ"):
        avatar.live_avatar("jpeg").mouths(0, WINDOWS, Call(10))
    assert package.loads == 1
