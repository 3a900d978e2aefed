"""The pictures of an evaluation."""

import numpy as np

from lipwire.evaluation.pictures import MADE, TRUTH, Track, opening_chart, viseme_sheet


def test_the_chart_shows_every_curve_in_rows_of_eight_seconds() -> None:
    made = np.abs(np.sin(np.arange(450) / 7)).astype(np.float32) * 30
    pcm = np.random.default_rng(0).normal(0, 0.1, 450 * 640).astype(np.float32)
    track = Track("anna", pcm, 640, made, made[::-1].copy(), ((0, 20),), ((100, 103),))

    whole = opening_chart([track])
    short = opening_chart([Track("anna", pcm[: 100 * 640], 640, made[:100])])

    assert whole.shape[0] > 2.5 * short.shape[0] - 200
    for picture, colour, there in (
        (whole, TRUTH, True),
        (whole, MADE, True),
        (short, TRUTH, False),
    ):
        near = np.abs(picture.astype(int) - colour).max(axis=2) < 12
        assert (near.sum() > 200) == there


def test_the_sheet_shows_truth_beside_output() -> None:
    truth = np.full((60, 60, 3), (10, 200, 30), np.uint8)
    made = np.full((60, 60, 3), (200, 20, 90), np.uint8)

    sheet = viseme_sheet([("a", truth, made), ("m b p", made, truth)], columns=2)

    green = np.nonzero((sheet == truth[0, 0]).all(axis=2))
    assert len(green[0]) == 2 * 3600
    assert green[1].min() < sheet.shape[1] // 4
