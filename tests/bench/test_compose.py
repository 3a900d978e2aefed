"""The benchmark of the compositor runs, and its picture is no easy one."""

from lipwire.bench.compose import run, textured_picture
from lipwire.compose import encode_jpeg


def test_both_sizes_are_compared() -> None:
    results = run(rounds=5)
    assert [result.name for result in results] == [
        f"{what} {size}"
        for size in ("1280x720", "1920x1080")
        for what in ("JPEG", "crop, paste and JPEG", "crop, paste and I420")
    ]
    # Far below what is measured on a quiet machine, far above what a broken path would reach.
    assert results[0].ratio > 4
    assert results[3].ratio > 6


def test_the_picture_is_as_hard_as_a_photograph() -> None:
    assert 100_000 < len(encode_jpeg(textured_picture(1280, 720), 75)) < 140_000
