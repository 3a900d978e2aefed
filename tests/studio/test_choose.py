"""Which mouths are rendered."""

from pathlib import Path

import numpy as np
import pytest

from lipwire.domain import Float32Array, InvalidInput
from lipwire.training.coarticulation import Phone
from studio.choose import choose_mouths, main
from studio.speech import Utterance


def mouths(count: int = 400) -> Float32Array:
    """Mostly half-open mouths, and one far away in a corner: (count, 6)."""
    rng = np.random.default_rng(5)
    pool = np.clip(rng.normal(0.3, 0.05, (count, 6)), 0, 1).astype(np.float32)
    pool[count // 2] = 1.0
    return pool


def test_the_choice_is_always_the_same() -> None:
    np.testing.assert_array_equal(choose_mouths(mouths(), 50), choose_mouths(mouths(), 50))
    assert (choose_mouths(mouths(), 50) != choose_mouths(mouths(), 50, seed=1)).any()


def test_fewer_are_the_beginning_of_more() -> None:
    many = choose_mouths(mouths(), 90)
    assert many.shape == (90, 6)
    assert many.dtype == np.float32
    np.testing.assert_array_equal(choose_mouths(mouths(), 31), many[:31])


def test_all_come_from_the_pool() -> None:
    pool = {row.tobytes() for row in mouths()}
    assert all(row.tobytes() in pool for row in choose_mouths(mouths(), 60))


def test_the_rarest_is_among_the_first() -> None:
    assert (choose_mouths(mouths(), 3) == 1.0).all(axis=1).any()


def test_they_cover_more_than_a_draw_does() -> None:
    """The farthest that any mouth is from a chosen one."""

    def reach(chosen: Float32Array) -> float:
        apart = np.linalg.norm(mouths()[:, None] - chosen[None], axis=-1)
        return float(apart.min(axis=1).max())

    drawn = mouths()[np.random.default_rng(0).permutation(400)[:60]]
    assert reach(choose_mouths(mouths(), 60)) < 0.8 * reach(drawn)


@pytest.mark.parametrize("count", [0, -1, 401])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 400"):
        choose_mouths(mouths(), count)


def test_the_program_writes_controls(tmp_path: Path) -> None:
    phones = tuple(
        Phone(symbol, 0.1 * k, 0.1 * k + 0.1) for k, symbol in enumerate(["m", "a", "p", "u"])
    )
    (tmp_path / "train").mkdir()
    Utterance("test", "mapu", np.zeros(6400, np.int16), phones).save(tmp_path / "train" / "0.npz")
    out = tmp_path / "mouths.npy"
    assert main(["--corpus", str(tmp_path), "--count", "5", "--out", str(out)]) == 0
    chosen = np.load(out)
    assert chosen.shape == (5, 6)
    assert chosen[:, 3].max() > 0.9  # lips that close are there


def test_the_program_names_a_missing_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mouths.npy"
    assert main(["--corpus", str(tmp_path / "nowhere"), "--out", str(out)]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not out.exists()
