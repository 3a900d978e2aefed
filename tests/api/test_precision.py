"""Long speech may be computed in bfloat16; what decides is its length alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.bfloat16 import needs_bfloat16

from lipwire.api import open_avatar, talkingavatar
from lipwire.audio import sample_speech
from lipwire.domain import Float32Array, InvalidInput
from lipwire.session import Performer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lanes a specialised network was asked for, each time; there is none."""
    lanes: list[int] = []

    def none(performer: Performer, count: int) -> tuple[Performer | None, str]:
        lanes.append(count)
        return None, "no units"

    monkeypatch.setattr(talkingavatar, "specialised", none)
    return lanes


def seconds(count: float) -> Float32Array:
    sentence = sample_speech()
    return np.resize(sentence, int(16_000 * count))


@pytest.mark.slow
@pytest.mark.parametrize(("length_s", "times"), [(9.9, 0), (10.0, 1)])
def test_ten_seconds_are_long(
    avatar_package: Path, asked: list[int], length_s: float, times: int
) -> None:
    with open_avatar(avatar_package, threads=2) as avatar:
        for _ in range(2):
            next(avatar.speak(seconds(length_s)))
    assert asked == [2] * times


@pytest.mark.slow
@pytest.mark.parametrize(("length_s", "times"), [(9.9, 0), (10.0, 1)])
def test_ten_seconds_are_long_whatever_is_made_of_them(
    avatar_package: Path, tmp_path: Path, asked: list[int], length_s: float, times: int
) -> None:
    with open_avatar(avatar_package, threads=2) as avatar:
        for _ in range(2):
            result = avatar.render(seconds(length_s), tmp_path / "out.mp4")
            next(avatar.speak(seconds(length_s)))
            assert result.precision == "float32"
        avatar.render_frames(seconds(length_s), tmp_path / "frames")
    assert asked == [2] * times  # once, for all of them


def test_float32_is_float32(avatar_package: Path, asked: list[int]) -> None:
    with open_avatar(avatar_package, precision="float32") as avatar:
        next(avatar.speak(seconds(11)))
    assert asked == []


def test_another_precision_is_refused(avatar_package: Path) -> None:
    with pytest.raises(InvalidInput, match="precision is 'int8', allowed are auto, float32"):
        open_avatar(avatar_package, precision="int8")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_whole_speech_is_of_one_network(
    avatar_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that makes black mouths stands for the specialised one."""
    with open_avatar(avatar_package, threads=2, outputs=("jpeg",)) as avatar:
        engine = avatar._performer.engine

        class Black:
            def infer(self, _model: object, crops: np.ndarray, _windows: object) -> np.ndarray:
                return np.zeros_like(crops)

        def black(performer: Performer, _lanes: int) -> tuple[Performer | None, str]:
            return replace(performer, engine=Black()), ""  # type: ignore[arg-type]

        monkeypatch.setattr(talkingavatar, "specialised", black)
        mouths = [frame.mouth for frame in avatar.speak(seconds(10))]
        assert len(mouths) == 250
        assert not any(mouth.any() for mouth in mouths)
        assert all(frame.mouth.any() for frame in avatar.speak(seconds(1)))
        assert avatar._performer.engine is engine


@needs_bfloat16
@pytest.mark.slow
def test_long_speech_of_the_demo_avatar_is_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    videos = []
    for number in range(2):
        with open_avatar("demo") as avatar:
            out = tmp_path / f"{number}.mp4"
            result = avatar.render(seconds(10), out)
            assert result.precision == "bfloat16"
            videos.append(out.read_bytes())
    assert videos[0] == videos[1]
    with open_avatar("demo", precision="float32") as avatar:
        assert avatar.render(seconds(10), tmp_path / "exact.mp4").precision == "float32"
    assert (tmp_path / "exact.mp4").read_bytes() != videos[0]
