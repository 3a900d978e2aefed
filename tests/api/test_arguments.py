"""Arguments of every kind are taken, or are one line of the error tree."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.audio.soundfiles import encoded, tone

from lipwire.api import TalkingAvatar, open_avatar, open_recording, render
from lipwire.domain import InvalidInput, LipwireError

PCM = tone(0.2, 16_000)


class Wrapped(os.PathLike[str]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.fixture(scope="module")
def avatar(
    compiled_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TalkingAvatar]:
    path = shutil.copytree(compiled_template, tmp_path_factory.mktemp("api") / "anna")
    with open_avatar(path) as opened:
        yield opened


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    (path := tmp_path / "a.wav").write_bytes(encoded("wav", "pcm_s16le", PCM, 16_000))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [
        str,
        Wrapped,
        lambda path: path.open("rb"),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: path.read_bytes(),
        open_recording,
        lambda path: np.frombuffer(path.read_bytes()[-2 * len(PCM) :], np.int16),
        lambda path: (np.frombuffer(path.read_bytes()[-2 * len(PCM) :], np.int16) / 32768).tolist(),
    ],
    ids=["str", "pathlike", "file", "bytesio", "bytes", "recording", "int16", "list"],
)
def test_audio_in_every_form_gives_the_same_mouths(
    avatar: TalkingAvatar, wav: Path, tmp_path: Path, form: Any
) -> None:
    expected = [frame.mouth for frame in avatar.speak(wav)]
    given = form(wav)
    made = [frame.mouth for frame in avatar.speak(given)]
    np.testing.assert_array_equal(made, expected)
    if hasattr(given, "seek"):
        given.seek(0)
    assert avatar.render(given, tmp_path / "a.mp4").frames == 5
    if hasattr(given, "close"):
        given.close()


def test_a_recording_is_spoken_and_rendered_several_times(
    avatar: TalkingAvatar, wav: Path, tmp_path: Path
) -> None:
    with open_recording(wav) as recording:
        for name in ("a", "b"):
            assert len(list(avatar.speak(recording))) == 5
            avatar.render(recording, tmp_path / f"{name}.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(InvalidInput, match="the recording is closed"):
        list(avatar.speak(recording))


def test_a_video_goes_into_an_open_file(avatar: TalkingAvatar) -> None:
    file = io.BytesIO()
    result = avatar.render(PCM, file)
    assert not file.closed
    assert (result.path, result.size_bytes) == (None, len(file.getvalue()))
    assert file.getvalue()[4:8] == b"ftyp"


class Nothing:
    """An object of no use."""


WRONG: list[tuple[str, Any]] = [
    ("start_frame", -1),
    ("start_frame", "0"),
    ("start_frame", 1.5),
    ("start_frame", None),
    ("crf", 52),
    ("crf", "18"),
    ("crf", None),
    ("preset", "turbo"),
    ("preset", 5),
    ("preset", np.zeros(3)),
    ("preset", None),
    ("progress", 5),
    ("rate_hz", "16k"),
    ("rate_hz", 16_000.0),
    ("rate_hz", 0),
    ("rate_hz", None),
    ("out", 5),
    ("out", None),
    ("out", ""),
    ("out", "a\0.mp4"),
    ("out", b"a.mp4"),
    ("out", "a.avi"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_cannot_be_rendered_with_is_one_line(
    avatar: TalkingAvatar, tmp_path: Path, name: str, value: Any
) -> None:
    arguments = {"audio": PCM, "out": tmp_path / "a.mp4", name: value}
    with pytest.raises(InvalidInput) as caught:
        avatar.render(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert "allowed" in message
    assert name.removeprefix("rate_hz").removeprefix("out") in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"), [pair for pair in WRONG if pair[0] in ("start_frame", "rate_hz")]
)
def test_what_cannot_be_spoken_with_is_one_line(
    avatar: TalkingAvatar, name: str, value: Any
) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is .*allowed"):
        avatar.speak(PCM, **{name: value})


@pytest.mark.parametrize("audio", [5, None, Nothing(), {"a": 1}, object, 1 + 2j, "", "a\0b"])
def test_what_is_no_audio_is_one_line(avatar: TalkingAvatar, tmp_path: Path, audio: Any) -> None:
    for use in (avatar.speak, lambda a: avatar.render(a, tmp_path / "a.mp4"), open_recording):
        with pytest.raises(InvalidInput) as caught:
            use(audio)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("track", [0, 2, -1, "1", 1.0])
def test_a_track_that_cannot_be_is_one_line(avatar: TalkingAvatar, wav: Path, track: Any) -> None:
    with pytest.raises(InvalidInput, match="track"):
        avatar.speak(wav, audio_track=track)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("outputs", "bgr"),
        ("outputs", ("png",)),
        ("outputs", (5,)),
        ("outputs", 5),
        ("outputs", None),
        ("jpeg_quality", 0),
        ("jpeg_quality", 101),
        ("jpeg_quality", "high"),
        ("jpeg_quality", None),
        ("threads", 0),
        ("threads", "2"),
        ("threads", 1.0),
        ("progress", "yes"),
        ("audio_encoder", 5),
        ("audio_encoder", ""),
        ("name_or_path", 5),
        ("name_or_path", None),
        ("name_or_path", ""),
        ("name_or_path", b"demo"),
    ],
)
def test_what_cannot_be_opened_with_is_one_line(
    package_template: Path, tmp_path: Path, name: str, value: Any
) -> None:
    package = shutil.copytree(package_template, tmp_path / "anna")
    with pytest.raises(LipwireError) as caught:
        TalkingAvatar(**{"name_or_path": package, name: value})
    assert "\n" not in str(caught.value)
    assert not (package / ".lipwire").exists()


def test_a_list_of_outputs_and_numbers_of_numpy_are_taken(
    avatar_package: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "outputs": ["jpeg"],
        "jpeg_quality": np.int64(80),
        "threads": np.int32(1),
    }
    with open_avatar(Wrapped(avatar_package), **given) as opened:
        numbers: dict[str, Any] = {"rate_hz": np.int64(16_000), "start_frame": np.uint8(2)}
        frame = next(opened.speak(PCM, **numbers))
        assert frame.jpeg()[:2] == b"\xff\xd8"
        with pytest.raises(InvalidInput, match="the output 'png' is unknown"):
            opened.opened("png")  # type: ignore[arg-type]
    assert render(avatar_package, PCM.tolist(), Wrapped(tmp_path / "a.mp4")).frames == 5


@pytest.mark.parametrize("ready", [(), ("bgr", "i420", "jpeg")])
def test_a_frame_of_a_closed_avatar_is_refused(
    avatar_package: Path, tmp_path: Path, ready: tuple[Any, ...]
) -> None:
    with open_avatar(avatar_package, outputs=ready) as opened:
        frame = next(opened.speak(PCM))
    for ask in (
        lambda: frame.bgr,
        lambda: frame.i420,
        frame.jpeg,
        lambda: opened.speak(PCM),
        lambda: opened.render(PCM, tmp_path / "a.mp4"),
        lambda: opened.render_frames(PCM, tmp_path / "frames"),
    ):
        with pytest.raises(InvalidInput, match="avatar anna is closed"):
            ask()
    assert frame.mouth.shape == (320, 320, 3)
    assert not (tmp_path / "a.mp4").exists()


def closed_file() -> io.BytesIO:
    file = io.BytesIO()
    file.close()
    return file


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (io.StringIO(), "out is open as text"),
        (io.BufferedReader(io.BytesIO()), "out is open for reading"),
        (closed_file(), "out cannot be written to: I/O operation on closed file"),
    ],
)
def test_an_open_file_that_takes_no_bytes_is_refused(
    avatar: TalkingAvatar, out: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        avatar.render(PCM, out)
