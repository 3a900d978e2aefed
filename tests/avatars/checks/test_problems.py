import pytest

from lipwire.avatars.checks.problems import Findings, FrameFindings, frames_shown, rectangle_of


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ([3], "frame 3"),
        ([3, 7, 8, 9], "frames 3, 7-9"),
        (range(523), "frames 0-522"),
        ([0, 1, 5], "frames 0-1, 5"),
        (range(0, 40, 2), "frames 0, 2, 4, 6, 8, 10, 12, 14 and 12 more"),
        ([*range(0, 16, 2), *range(100, 200)], "frames 0, 2, 4, 6, 8, 10, 12, 14 and 100 more"),
    ],
)
def test_frames_are_listed_as_runs(numbers: list[int], shown: str) -> None:
    assert frames_shown(numbers) == shown


def test_a_rectangle_is_named_with_all_that_are_like_it() -> None:
    assert rectangle_of([4]) == "rectangle of frame 4"
    assert rectangle_of([4, 5]) == "frames 4-5: rectangle of frame 4"


def test_what_differs_in_digits_is_one_kind() -> None:
    wrong, findings = FrameFindings(), Findings()
    for number in (10, 9, 2):
        wrong.add(number, f"frame {number}", f"is cut off after {number * 100} bytes")
    wrong.add(5, "frame 5", "is empty")
    assert (len(wrong), 9 in wrong, 3 in wrong) == (4, True, False)
    wrong.report(findings)
    assert [problem.message for problem in findings.problems] == [
        "frames 2, 9-10: frame 10 is cut off after 1000 bytes",
        "frame 5 is empty",
    ]


def test_kinds_without_end_are_counted() -> None:
    wrong, findings = FrameFindings(), Findings()
    for number in range(30):
        wrong.add(number, "it", f"is {chr(ord('A') + number)}")
    wrong.report(findings)
    assert len(findings.problems) == 21
    assert findings.problems[-1].message == "10 more frames are wrong in other ways"
