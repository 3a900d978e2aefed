"""What is asked of a backend for an avatar whose frames are here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.rpc.plainbackend import FRAMES, PlainBackend, expected_mouth

from lipwire.audio import AudioEncoder, silence_window
from lipwire.avatars import Avatar
from lipwire.avatars.compiled.restpart import mouth_of, stored_form
from lipwire.domain import Call, Visual
from lipwire.rpc.backends.network import RemoteNetwork
from lipwire.serving import AudioEncoders, Backend, LoadedAvatar

WINDOWS = np.zeros((2, 32, 16, 16), np.float32)


class Asked:
    """A backend that remembers what it was asked."""

    def __init__(self) -> None:
        self.given: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}

    def mouths(self, *given: Any, **named: Any) -> str:
        self.given, self.named = given, named
        return "mouths"

    mouths_of = mouths


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Avatar:
    return Avatar.open(make_package(tmp_path_factory.mktemp("root") / "anna", frames=3))


@pytest.fixture
def backend() -> Asked:
    return Asked()


def network_of(backend: Asked, avatar: Avatar) -> RemoteNetwork:
    return RemoteNetwork(cast(Backend, backend), "anna", avatar)


def test_mouths_are_of_the_frames_revision_and_crops_are_made_when_wanted(
    backend: Asked, avatar: Avatar
) -> None:
    call = Call(None)
    made: Any = network_of(backend, avatar).mouths(1, WINDOWS, call=call)
    assert made == "mouths"
    crops = backend.named.pop("crops")
    assert backend.given == ("anna", 1, WINDOWS)
    assert backend.named == {"revision": avatar.revision, "call": call}
    np.testing.assert_array_equal(crops(), avatar.crops(1, 2))


def test_crops_that_are_given_go_before_the_frames(backend: Asked, avatar: Avatar) -> None:
    def given() -> Any:
        return None

    network_of(backend, avatar).mouths(0, WINDOWS, crops=given)
    assert backend.named["crops"] is given


def test_the_guides_form_is_of_the_frames_revision_too(backend: Asked, avatar: Avatar) -> None:
    visual = np.zeros((2, 6, 320, 320), np.float32).view(Visual)
    made: Any = network_of(backend, avatar).mouths_of(visual, WINDOWS)
    assert made == "mouths"
    assert backend.given == ("anna", visual, WINDOWS)
    assert backend.named == {"revision": avatar.revision, "call": None}


@pytest.mark.parametrize("known", [True, False])
def test_rest_mouths_of_a_network_elsewhere_are_stored_where_it_is_known(
    avatar_package: Path, known: bool
) -> None:
    """Without the network's file nobody could tell later whether it is still the same network."""
    backend = PlainBackend()
    if not known:
        (avatar_package / "checkpoint" / "model_best.onnx").unlink()
    with (
        Avatar.open(avatar_package, with_model=False) as frames,
        AudioEncoders() as encoders,
    ):
        assert frames.encoder_path is not None
        window = silence_window(AudioEncoder.open(frames.encoder_path))
        network = RemoteNetwork(cast(Backend, backend), "anna", frames)
        rest = LoadedAvatar(frames, network, frames.revision).rest_mouths(encoders)
        for _ in range(2):
            for number in range(FRAMES):
                drawn = mouth_of(stored_form(expected_mouth(number, window)))
                assert drawn is not None
                np.testing.assert_array_equal(rest.mouth(number), drawn)
        assert backend.revisions == [frames.revision] * FRAMES
        assert rest.complete
        rest.fill()
    assert len(list((avatar_package / ".lipwire").glob("rest-*"))) == known
