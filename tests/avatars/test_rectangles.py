import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.rectangles import parse_rectangles
from lipwire.domain import CropRect

RECT = [10, 20, 30, 50]
Order = Callable[[int, int, int, int], tuple[int, ...]]


def parsed(
    data: str | bytes, first_frame: int | None = 0
) -> tuple[tuple[CropRect, ...] | None, list[str]]:
    findings = Findings()
    raw = data if isinstance(data, bytes) else data.encode()
    rects = parse_rectangles(raw, findings, first_frame=first_frame)
    return rects, [problem.message for problem in findings.problems]


def test_reads_a_list() -> None:
    rects, problems = parsed("[[1,2,3,4],[5,6,7,8]]")
    assert rects == (CropRect(1, 2, 3, 4), CropRect(5, 6, 7, 8))
    assert not problems


@pytest.mark.parametrize(
    "keys", [("0", "1", "2"), ("0000", "0001", "0002"), ("frame_0", "frame_1", "frame_2")]
)
def test_reads_an_object_by_number_and_not_by_place(keys: tuple[str, str, str]) -> None:
    first, second, third = keys
    text = json.dumps({third: [0, 0, 1, 3], first: [0, 0, 1, 1], second: [0, 0, 1, 2]})
    rects, problems = parsed(text)
    assert not problems
    assert rects is not None
    assert [rect.y2 for rect in rects] == [1, 2, 3]


def test_ten_comes_after_nine() -> None:
    rects, _ = parsed(json.dumps({str(n): [0, 0, 1, n + 1] for n in range(12)}))
    assert rects is not None
    assert [rect.y2 for rect in rects] == list(range(1, 13))


def test_keys_may_start_where_the_frames_do() -> None:
    text = json.dumps({"frame_0001.png": RECT, "frame_0002.png": RECT})
    assert parsed(text, first_frame=1)[0] == (CropRect(*RECT),) * 2
    rects, problems = parsed(text, first_frame=0)
    assert rects is None
    assert "the first key is frame 1; it has to be 0" in problems[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Pythons differ by one in where they see the comma.
        ("[[1,2,3,4],\n[5,6,7,]]", "crop_rects.json line 2 column "),
        ("", "crop_rects.json is empty; it has to be a list of [x1,y1,x2,y2]"),
        (b"\xff\xfe\x00", "crop_rects.json is not UTF-16-LE at byte 2; it has to be"),
        ("[" * 100_000, "crop_rects.json holds a number too long or a nesting too deep"),
        ("[[1,2,3," + "9" * 5000 + "]]", "crop_rects.json holds a number too long"),
        ("7", "holds 7; it has to be a list of [x1,y1,x2,y2]"),
        ("[[1,2,3]]", "rectangle of frame 0 is [1, 2, 3]; it has to be four integers"),
        ("[[1,2,3,4.5]]", "rectangle of frame 0 is [1, 2, 3, 4.5]; it has to be four integers"),
        ("[[1,2,3,NaN]]", "rectangle of frame 0 is [1, 2, 3, nan]; it has to be four integers"),
        ("[[1,2,3,Infinity]]", "it has to be four integers"),
        ("[[false,false,true,true]]", "it has to be four integers"),
        ('[["1","2","3","4"]]', "it has to be four integers, without quotes"),
        ("[]", "crop_rects.json holds no rectangles; each frame needs one"),
        ("{}", "crop_rects.json holds no rectangles; each frame needs one"),
        ("[null]", "rectangle of frame 0 is None; it has to be four integers"),
        ('[{"x": 1}]', "{'x': 1}; it has to be four integers, or an object that has them as rect"),
        (
            '[{"rect": [1, 2], "x": 5}]',
            "rectangle of frame 0 is [1, 2]; it has to be four integers",
        ),
        ('[{"rect": {"rect": [1, 2, 3, 4]}}]', "it has to be four integers"),
        ('[{"rect": null}]', "rectangle of frame 0 is None; it has to be four integers"),
        ("[[1e400,2,3,4]]", "it has to be four integers"),
        ("[[0.1, 0.25, 0.5, 0.75]]", "pixels, not parts of the frame's sides"),
        ("[[0,0,1,99999999999999999999]]", "coordinates are at most 1048576"),
        ("[[0,0,5,5],[5,5,5,9]]", "rectangle of frame 1 is [5, 5, 5, 9], which is empty"),
        ("[[9,0,5,5]]", "which is empty"),
        ('{"0": [0,0,1,1], "2": [0,0,1,1]}', "frame 1 is missing"),
        ('{"0": [0,0,1,1], "0000": [0,0,1,1]}', "frame 0 is given twice, as '0' and '0000'"),
        ('{"0": [0,0,1,1], "0": [0,0,1,1]}', "frame 0 is given twice"),
        ('{"left": [0,0,1,1]}', "key 'left' is no frame"),
        ('{"-1": [0,0,1,1]}', "key '-1' is no frame"),
        ("version https://git-lfs.github.com/spec/v1", "this is a Git LFS pointer; `git lfs pull`"),
        ("\n<!DOCTYPE html><html>", "this is an HTML page"),
    ],
)
def test_says_in_one_line_what_is_wrong(text: str | bytes, message: str) -> None:
    rects, problems = parsed(text)
    assert rects is None
    assert len(problems) == 1
    assert message in problems[0]
    assert len(problems[0]) < 200


def test_says_every_kind_of_broken_rectangle_once() -> None:
    _, problems = parsed("[[1,2],[0,0,1,1],[5,5,5,5],[7],[1.5,2,3,4],[0,0,9,9]]", first_frame=10)
    assert problems == [
        "crop_rects.json: frames 10, 13-14: rectangle of frame 10 is [1, 2]; it has to be four"
        " integers",
        "crop_rects.json: rectangle of frame 12 is [5, 5, 5, 5], which is empty; x2 has to be above"
        " x1 and y2 above y1",
    ]


@pytest.mark.parametrize(
    "wrong", [[1, 2], ["1", "2", "3", "4"], [5, 5, 5, 5], [0, 0, 1 << 21, 9], None]
)
def test_one_mistake_in_all_frames_is_one_line(wrong: object) -> None:
    for text in (
        json.dumps([wrong] * 523),
        json.dumps({f"frame_{n:04}": wrong for n in range(523)}),
    ):
        rects, problems = parsed(text)
        assert rects is None
        assert len(problems) == 1
        assert problems[0].startswith("crop_rects.json: frames 0-522: rectangle of frame 0 is ")


@pytest.mark.parametrize(
    "written",
    [
        [548.0, 299.0, 728.0, 479.0],
        {"rect": [548, 299, 728, 479]},
        {"rect": [548.0, 299, 728.0, 479]},
        {"original_path": "x/0.png", "rect": [548, 299, 728, 479], "landmarks": [[0.5, 1.5]]},
    ],
)
def test_reads_whole_floats_and_objects(written: object) -> None:
    for text in (json.dumps([written] * 2), json.dumps({"0": written, "1": written})):
        assert parsed(text) == ((CropRect(548, 299, 728, 479),) * 2, [])


@pytest.mark.parametrize(
    "key",
    [
        "{}",
        "{:04}",
        "frame_{}",
        "frame_{:04}.png",
        "{}.jpg",
        "full_body_img/{}.jpg",
        "frame{:05}",
        "frames\\frame_{:04}.PNG",
        "img_{:03}.jpeg",
    ],
)
def test_keys_may_be_files(key: str) -> None:
    text = json.dumps({key.format(number): [0, 0, 9, 9 + number] for number in range(12)})
    rects, problems = parsed(text)
    assert not problems
    assert rects is not None
    assert [rect.y2 for rect in rects] == list(range(9, 21))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_any_encoding_of_unicode_is_read(encoding: str, mark: str) -> None:
    assert parsed((mark + "[[10, 20, 30, 50]]").encode(encoding))[0] == (CropRect(*RECT),)


SQUARES = [(300 + n, 200 + n % 3, 420 + n, 320 + n % 3) for n in range(9)]
"""x1, y1, x2, y2 of a face that moves."""


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x, y, width, height", lambda a, b, c, d: (a, b, c - a, d - b)),
        ("x1, x2, y1, y2", lambda a, b, c, d: (a, c, b, d)),
        ("x2, y2, x1, y1", lambda a, b, c, d: (c, d, a, b)),
        ("top, right, bottom, left", lambda a, b, c, d: (b, c, d, a)),
    ],
)
def test_rectangles_that_are_empty_may_be_in_another_order(name: str, write: Order) -> None:
    rects, problems = parsed(json.dumps([write(*square) for square in SQUARES]))
    assert rects is None
    (problem,) = problems
    assert problem.startswith("crop_rects.json: frames 0-8: rectangle of frame 0 is ")
    assert f"; all would be squares as {name} ([300,200,420,320])" in problem


def test_another_order_may_make_a_few_empty_and_the_others_no_squares() -> None:
    text = json.dumps([[150 + n, 100, 160, 160] for n in range(12)])
    (problem,) = parsed(text)[1]
    assert problem.startswith("crop_rects.json: frames 10-11: rectangle of frame 10 is [160, 100,")
    assert "; all would be squares as x, y, width, height ([150,100,310,260])" in problem


def test_a_few_empty_rectangles_are_no_other_order() -> None:
    empty = (300, 200, 120, 120)
    (problem,) = parsed(json.dumps([*SQUARES, empty]))[1]
    assert "would be" not in problem


@pytest.mark.slow
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_give_rectangles_or_problems(data: bytes) -> None:
    rects, problems = parsed(data)
    assert (rects is None) == bool(problems)
