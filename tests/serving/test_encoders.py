"""Audio encoders that avatars share; opening them is made up, the files are real."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lipwire.domain import AvatarChanged, Call, DeadlineExceeded, InvalidInput, NotFound
from lipwire.serving import AudioEncoders
from lipwire.serving.encoders import EncoderFile

WAIT_S = 60.0


class Opening:
    """Opens what is in a file, in place of an encoder. ``slow`` holds the file of that name up."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.slow: str | None = None
        self.inside, self.going = threading.Event(), threading.Event()

    def __call__(self, path: Path) -> Any:
        if path.name == self.slow:
            self.inside.set()
            assert self.going.wait(WAIT_S)
        self.opened.append(path.name)
        if not path.exists():
            raise NotFound(f"{path} is not there")
        return path.read_text()


@pytest.fixture
def opening() -> Opening:
    return Opening()


@pytest.fixture
def encoders(opening: Opening) -> Iterator[AudioEncoders]:
    with AudioEncoders(opening, most=2) as encoders:
        yield encoders


def file(folder: Path, name: str) -> Path:
    (folder / name).write_text(name)
    return folder / name


def heard(encoders: AudioEncoders, path: Path) -> Any:
    with encoders.use(EncoderFile.at(path), None) as encoder:
        return encoder


def test_links_to_one_file_are_one_encoder(
    encoders: AudioEncoders, opening: Opening, tmp_path: Path
) -> None:
    path = file(tmp_path, "a")
    (tmp_path / "symbolic").symlink_to(path)
    os.link(path, tmp_path / "hard")
    first = heard(encoders, path)
    assert heard(encoders, tmp_path / "symbolic") is heard(encoders, tmp_path / "hard") is first
    assert opening.opened == ["a"]


def test_a_file_that_was_replaced_is_opened_anew(
    encoders: AudioEncoders, opening: Opening, tmp_path: Path
) -> None:
    path = file(tmp_path, "a")
    assert heard(encoders, path) == "a"
    (tmp_path / "new").write_text("newer")
    (tmp_path / "new").replace(path)
    assert heard(encoders, path) == "newer"


def test_who_knows_a_file_from_before_never_gets_the_newer_one(
    encoders: AudioEncoders, tmp_path: Path
) -> None:
    path = file(tmp_path, "a")
    before = EncoderFile.at(path)
    heard(encoders, path)
    (tmp_path / "new").write_text("newer")
    (tmp_path / "new").replace(path)
    with encoders.use(before, None) as encoder:
        found: Any = encoder
    assert found == "a"
    for name in "bc":  # two are open at most
        heard(encoders, file(tmp_path, name))
    with pytest.raises(AvatarChanged, match="a was replaced"), encoders.use(before, None):
        pass


def test_an_encoder_that_is_slow_to_open_keeps_nobody_else_waiting(
    encoders: AudioEncoders, opening: Opening, tmp_path: Path
) -> None:
    slow, known, new = (file(tmp_path, name) for name in ("slow", "known", "new"))
    heard(encoders, known)
    opening.slow = "slow"
    with ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(heard, encoders, slow) for _ in range(2)]
        assert opening.inside.wait(WAIT_S)
        assert heard(encoders, known) == "known"
        assert heard(encoders, new) == "new"
        assert not any(call.done() for call in waiting)
        opening.going.set()
        assert [call.result(WAIT_S) for call in waiting] == ["slow", "slow"]
    assert opening.opened == ["known", "new", "slow"], "each is opened once"


def test_who_cannot_wait_for_an_encoder_is_told_and_it_is_opened_all_the_same(
    encoders: AudioEncoders, opening: Opening, tmp_path: Path
) -> None:
    path = file(tmp_path, "slow")
    opening.slow = "slow"
    with (
        pytest.raises(DeadlineExceeded, match="audio encoder slow was not loaded"),
        encoders.use(EncoderFile.at(path), Call(0.0)),
    ):
        pass
    opening.going.set()
    assert heard(encoders, path) == "slow"
    assert opening.opened == ["slow"]


def test_those_not_used_for_longest_are_given_up(
    encoders: AudioEncoders, opening: Opening, tmp_path: Path
) -> None:
    a, b, c = (file(tmp_path, name) for name in "abc")
    for path in (a, b, a, c, a, b):
        heard(encoders, path)
    assert opening.opened == ["a", "b", "c", "b"]


def test_what_cannot_be_opened_is_tried_again_by_who_asks_next(
    encoders: AudioEncoders, opening: Opening, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(NotFound, match=r"a is not there$"):
            heard(encoders, tmp_path / "a")
    assert heard(encoders, file(tmp_path, "a")) == "a"


def test_an_avatar_without_an_encoder_is_told_what_to_send(encoders: AudioEncoders) -> None:
    with pytest.raises(InvalidInput, match=r"has no audio encoder here.*send audio_features"):
        encoders.use(None, None)
