"""The measure of mouths, fitted to a few that the demo avatar's network paints."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lipwire.domain import NotFound  # noqa: E402
from lipwire.training.coarticulation import Phone  # noqa: E402
from lipwire.training.visemes import OPEN, WIDE  # noqa: E402
from studio import mouth_metric, train_audio  # noqa: E402
from studio.speech import Utterance  # noqa: E402


@pytest.mark.slow
def test_the_jaw_and_the_gap_are_what_moves_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train").mkdir()
    phones = tuple(
        Phone(symbol, 0.15 * k, 0.15 * (k + 1)) for k, symbol in enumerate("mɑisuɛfoʊlæbaɪwɑ")
    )
    said = Utterance("nobody", "", np.zeros(16 * 2400, np.int16), phones)
    said.save(tmp_path / "train" / "train-00000.npz")
    mouth_metric.measure(tmp_path, 40)
    printed = capsys.readouterr().out.split()
    weight = {
        name: float(value) for name, value in zip(printed[0:14:2], printed[1:14:2], strict=True)
    }
    assert list(weight) == ["open", "wide", "round", "press", "bite", "tongue", "gap"]
    assert min(weight["open"], weight["gap"]) > 2 * max(weight["wide"], weight["tongue"], 0)
    assert float(printed[printed.index("logarithms") + 1].rstrip(",")) > 0.85


def test_a_corpus_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no utterances"):
        mouth_metric.measure(tmp_path, 5)


def test_an_error_of_the_jaw_costs_more_than_one_of_the_corners() -> None:
    true = torch.full((1, 6), 0.4)
    jaw, corners = true.clone(), true.clone()
    jaw[0, OPEN] += 0.1
    corners[0, WIDE] += 0.1
    assert float(train_audio.picture_error(true, true)) == 0
    assert float(train_audio.picture_error(jaw, true)) > 10 * float(
        train_audio.picture_error(corners, true)
    )
