import numpy as np
import pytest

from lipwire.audio import row_columns, row_count, rows_from_mel, windows_from_rows
from lipwire.domain import InvalidInput


def test_rows_start_where_the_family_s_floating_point_puts_them() -> None:
    day = 25 * 86_400
    assert all(row_columns(i).start == int(80.0 * (i / 25.0)) for i in range(0, day, 7))
    assert row_columns(5) == slice(16, 32)
    assert row_columns(6) == slice(19, 35)


def test_rows_past_the_end_are_its_last_columns() -> None:
    assert row_columns(100, columns=50) == slice(34, 50)
    assert row_columns(0, columns=16) == slice(0, 16)


@pytest.mark.parametrize(
    ("columns", "rows"), [(16, 2), (19, 2), (20, 3), (32, 7), (384, 116), (400, 122), (881, 272)]
)
def test_the_number_of_rows_is_the_familys(columns: int, rows: int) -> None:
    """384 columns: 115 rows in whole numbers would be 5, and one more than floating point gives."""
    assert row_count(columns) == rows == int((columns - 16) / 80.0 * float(25)) + 2


def test_rows_hold_bands_by_columns() -> None:
    mel = np.arange(50 * 80, dtype=np.float32).reshape(50, 80)
    rows = rows_from_mel(mel)
    assert rows.shape == (row_count(50), 80, 16)
    np.testing.assert_array_equal(rows[3], mel[9:25].T)
    np.testing.assert_array_equal(rows[-1], mel[34:].T)
    np.testing.assert_array_equal(rows_from_mel(mel, 4, 9), rows[4:9])


@pytest.mark.parametrize(
    ("shape", "message"),
    [((15, 80), "15 columns; allowed: 16 or more"), ((80, 20), r"\(80, 20\)"), ((80,), r"\(80,\)")],
)
def test_other_spectrograms_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rows_from_mel(np.zeros(shape, np.float32))


def test_rows_that_are_not_there_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"rows 0 to 99; allowed: within 0 to 12"):
        rows_from_mel(np.zeros((50, 80), np.float32), 0, 99)


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (1, 30), (3, 2), (40, 44), (40, 10), (5, 0)])
def test_windows_are_sixteen_padded_rows_around_the_frame(rows: int, frames: int) -> None:
    features = np.random.default_rng(0).standard_normal((rows, 512)).astype(np.float32)
    padded = [features[0], *features, features[-1]]
    windows = windows_from_rows(features, frames)
    assert windows.shape == (frames, 32, 16, 16)
    for frame, window in enumerate(windows):
        expected = [
            padded[i] if 0 <= i < len(padded) else np.zeros(512, np.float32)
            for i in range(frame - 8, frame + 8)
        ]
        np.testing.assert_array_equal(window, np.stack(expected).reshape(32, 16, 16))


def test_windows_share_memory_and_cannot_be_written() -> None:
    windows = windows_from_rows(np.ones((10, 512), np.float32), 100)
    assert np.shares_memory(windows[0], windows[1])
    with pytest.raises(ValueError, match="read-only"):
        windows[0] = 0


@pytest.mark.parametrize("shape", [(0, 512), (3, 511), (512,)])
def test_other_rows_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="allowed: \\(rows, 512\\)"):
        windows_from_rows(np.zeros(shape, np.float32), 5)


def test_a_negative_number_of_frames_is_refused() -> None:
    with pytest.raises(InvalidInput, match="-1 frames"):
        windows_from_rows(np.zeros((1, 512), np.float32), -1)
