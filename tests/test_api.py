import doctest
import shutil
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import lipwire.api
from lipwire.api import Frame, TalkingAvatar, open_avatar, render
from lipwire.domain import AvatarInvalid, InvalidInput, NotFound

SECOND = np.zeros(16_000, np.float32)


@pytest.mark.slow
def test_examples_in_the_docstrings_run(avatar_package: Path, tmp_path: Path) -> None:
    names = {"avatar_path": avatar_package, "speech": SECOND, "out": tmp_path}
    failed, tried = doctest.testmod(lipwire.api, extraglobs=names)
    assert failed == 0
    assert tried > 5


def test_frames_come_in_every_form_and_all_show_the_same(avatar_package: Path) -> None:
    with open_avatar(avatar_package, jpeg_quality=95) as avatar:
        frame = list(avatar.speak(SECOND))[11]
        bgr, i420, jpeg = frame.bgr, frame.i420, frame.jpeg()
    assert frame.index == 11
    assert frame.time_s == pytest.approx(0.44)
    assert bgr.shape == (240, 320, 3)
    assert i420.shape == (360, 320)
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    assert cv2.PSNR(decoded, cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)) > 35
    luma = 16 + cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).astype(float) * 219 / 255
    assert np.corrcoef(luma.ravel(), i420[:240].ravel())[0, 1] > 0.97


def test_frames_stay_good_while_the_speech_goes_on(avatar_package: Path) -> None:
    with open_avatar(avatar_package) as avatar:
        speech = avatar.speak(SECOND)
        first = next(speech)
        before = first.bgr
        list(speech)
        np.testing.assert_array_equal(first.bgr, before)


def test_only_what_is_asked_for_is_compiled(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / ".lipwire")

    def parts() -> set[str]:
        return {path.name.split("-")[0] for path in (avatar_package / ".lipwire").glob("*-*-*")}

    with open_avatar(avatar_package, outputs=("bgr", "i420")) as avatar:
        assert parts() == {"model", "patches"}
        next(avatar.speak(SECOND)).jpeg()
        assert parts() == {"model", "patches", "jpeg"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("channels", [0, 2])
def test_pcm_of_every_kind_is_heard(
    avatar_package: Path, dtype: npt.DTypeLike, channels: int
) -> None:
    shape = (24_000, channels) if channels else 24_000
    with open_avatar(avatar_package) as avatar:
        assert len(list(avatar.speak(np.zeros(shape, dtype), rate_hz=48_000))) == 13


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0, np.float32), r"shape \(0,\)"),
        (np.zeros((2, 2, 2), np.float32), r"shape \(2, 2, 2\)"),
        (np.full(9, np.nan, np.float32), "nan"),
        ("nowhere.wav", r"no file nowhere\.wav"),
    ],
)
def test_bad_audio_is_refused_before_the_first_frame(
    avatar_package: Path, audio: lipwire.api.Audio, message: str
) -> None:
    with open_avatar(avatar_package) as avatar, pytest.raises(InvalidInput, match=message):
        avatar.speak(audio)


@pytest.mark.slow
def test_two_speeches_of_one_avatar_do_not_disturb_each_other(avatar_package: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    with open_avatar(avatar_package) as avatar:
        alone = [[f.mouth for f in avatar.speak(pcm)] for pcm in (SECOND, noise)]
        both = list(zip(avatar.speak(SECOND), avatar.speak(noise), strict=True))
    for which in (0, 1):
        for frame, mouth in zip(both, alone[which], strict=True):
            np.testing.assert_array_equal(frame[which].mouth, mouth)


def test_closing_the_avatar_ends_its_speeches(
    avatar_package: Path, own_threads: Callable[[], list[str]]
) -> None:
    avatar = open_avatar(avatar_package)
    speech = avatar.speak(SECOND)
    next(speech)
    avatar.close()
    avatar.close()
    for _ in range(2):
        with pytest.raises(InvalidInput, match="is closed; what it makes needs it open"):
            next(speech)
    assert own_threads() == []


def test_a_loop_over_a_speech_notices_that_its_avatar_was_closed(avatar_package: Path) -> None:
    avatar = open_avatar(avatar_package)
    taken = []

    def take() -> None:
        for frame in avatar.speak(SECOND):
            taken.append(frame.index)
            if len(taken) == 3:
                avatar.close()

    with pytest.raises(InvalidInput, match="is closed"):
        take()
    assert taken == [0, 1, 2]


def test_a_speech_that_was_over_stays_over(avatar_package: Path) -> None:
    with open_avatar(avatar_package) as avatar:
        whole, closed, untouched = (avatar.speak(SECOND) for _ in range(3))
        assert len(list(whole)) == 25
        next(closed)
        closed.close()
        broken = avatar.speak(SECOND)
        with pytest.raises(KeyError):
            broken.throw(KeyError("whoever takes frames"))
    for over in (whole, closed, broken):
        assert list(over) == []
    with pytest.raises(InvalidInput, match="is closed"):
        next(untouched)
    untouched.close()
    assert list(untouched) == []


@pytest.mark.slow
def test_closing_the_avatar_waits_for_a_frame_that_another_thread_takes(
    avatar_package: Path, own_threads: Callable[[], list[str]]
) -> None:
    for _ in range(5):
        avatar = open_avatar(avatar_package)
        speech = avatar.speak(SECOND)
        next(speech)
        errors: list[BaseException] = []

        def take(speech: Generator[Frame] = speech, errors: list[BaseException] = errors) -> None:
            try:
                for _ in speech:
                    pass
            except BaseException as error:
                errors.append(error)

        taking = threading.Thread(target=take)
        taking.start()
        avatar.close()
        taking.join()
        assert all(type(failure) is InvalidInput for failure in errors)
        assert own_threads() == []


def test_compiling_is_told_of(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / ".lipwire")
    calls: list[tuple[int, int, str]] = []
    open_avatar(
        avatar_package, outputs=("i420",), progress=lambda *call: calls.append(call)
    ).close()
    assert (8, 8, "compiling frames") in calls


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name_or_path": "nobody"}, NotFound, "no avatar named nobody"),
        ({"threads": 0}, InvalidInput, "threads is 0"),
        ({"jpeg_quality": 0, "outputs": ("jpeg",)}, InvalidInput, "quality is 0"),
        ({"audio_encoder": "nowhere.onnx"}, (NotFound, AvatarInvalid), "nowhere.onnx"),
    ],
)
def test_what_cannot_be_opened_says_why(
    avatar_package: Path,
    arguments: dict[str, object],
    error: type[Exception] | tuple[type[Exception], ...],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        TalkingAvatar(**{"name_or_path": avatar_package, **arguments})  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_avatar_without_an_audio_encoder_needs_one(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / ".lipwire")
    encoder = avatar_package / "checkpoint" / "audio_encoder.onnx"
    elsewhere = avatar_package.parent / "ears.onnx"
    encoder.rename(elsewhere)
    with pytest.raises(InvalidInput, match=r"has no audio encoder .*--audio-encoder FILE.onnx"):
        open_avatar(avatar_package)
    (avatar_package.parent / "none.onnx").write_bytes(b"no encoder")
    with pytest.raises(AvatarInvalid, match=r"none\.onnx"):
        open_avatar(avatar_package, audio_encoder=avatar_package.parent / "none.onnx")
    assert not (avatar_package / ".lipwire").exists()  # it was said before anything was compiled
    with open_avatar(avatar_package, audio_encoder=elsewhere) as avatar:
        assert len(list(avatar.speak(SECOND))) == 25


@pytest.mark.slow
def test_an_avatar_is_found_by_name(
    avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPWIRE_AVATARS", str(avatar_package.parent))
    assert render("anna", SECOND, tmp_path / "out.mp4").frames == 25
