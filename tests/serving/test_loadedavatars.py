"""The rest mouths of a loaded avatar."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from lipwire.audio import AudioEncoder, silence_window
from lipwire.avatars import Avatar
from lipwire.domain import AudioWindows, InvalidInput, Revision
from lipwire.serving import AudioEncoders, DrawnMouths, LoadedAvatar, Network
from lipwire.serving.loadedavatars import mapped_bytes


class Drawing:
    """A network that remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[AudioWindows] = []

    def mouths(self, first: int, windows: AudioWindows, **_named: Any) -> DrawnMouths:
        self.heard.append(windows)
        return DrawnMouths(np.full((len(windows), 320, 320, 3), 90, np.uint8), 0, 1.0)


@pytest.fixture
def encoders() -> Iterator[AudioEncoders]:
    with AudioEncoders() as encoders:
        yield encoders


def loaded(frames: Avatar | None, network: Drawing) -> LoadedAvatar:
    revision = Revision() if frames is None else frames.revision
    return LoadedAvatar(frames, cast(Network, network), revision)


def test_its_network_hears_what_its_audio_encoder_makes_of_silence(
    anna: Avatar, encoders: AudioEncoders
) -> None:
    network = Drawing()
    shown = loaded(anna, network).rest_mouths(encoders).mouth(3)
    assert anna.encoder_path is not None
    silence = silence_window(AudioEncoder.open(anna.encoder_path))
    (heard,) = network.heard
    np.testing.assert_array_equal(heard, silence[None])
    np.testing.assert_array_equal(shown, 90)


def test_all_who_ask_share_them_until_it_is_closed(anna: Avatar, encoders: AudioEncoders) -> None:
    avatar = loaded(anna, Drawing())
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda _: avatar.rest_mouths(encoders), range(8)))
    assert len(set(map(id, given))) == 1
    avatar.close()
    with pytest.raises(InvalidInput, match="closed"):
        given[0].mouth(0)


def test_without_frames_or_audio_encoder_there_are_none(
    avatar_package: Path, encoders: AudioEncoders
) -> None:
    (avatar_package / "checkpoint" / "audio_encoder.onnx").unlink()
    with Avatar.open(avatar_package) as frames, pytest.raises(InvalidInput, match="no audio enc"):
        loaded(frames, Drawing()).rest_mouths(encoders)
    with pytest.raises(InvalidInput, match="no frames here"):
        loaded(None, Drawing()).rest_mouths(encoders)


def test_compiled_rest_mouths_are_counted(anna: Avatar, encoders: AudioEncoders) -> None:
    assert mapped_bytes(anna) == anna.mapped_bytes
    rest = loaded(anna, Drawing()).rest_mouths(encoders)
    rest.fill()
    assert mapped_bytes(anna) >= anna.mapped_bytes + rest.size_bytes
