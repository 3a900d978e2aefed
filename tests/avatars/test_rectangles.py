import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipwire.avatars.problems import Findings
from lipwire.avatars.rectangles import parse_rectangles
from lipwire.domain import CropRect

RECT = [10, 20, 30, 50]


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
        ("", "crop_rects.json line 1 column 1"),
        (b"\xff\xfe\x00", "crop_rects.json is not UTF-8"),
        ("[" * 100_000, "crop_rects.json holds a number too long or a nesting too deep"),
        ("[[1,2,3," + "9" * 5000 + "]]", "crop_rects.json holds a number too long"),
        ("7", "holds 7; it has to be a list of [x1,y1,x2,y2]"),
        ("[[1,2,3]]", "rectangle 0 is [1, 2, 3]; it has to be four integers"),
        ("[[1,2,3,4.5]]", "rectangle 0 is [1, 2, 3, 4.5]; it has to be four integers"),
        ("[[1,2,3,NaN]]", "rectangle 0 is [1, 2, 3, nan]; it has to be four integers"),
        ("[[1,2,3,Infinity]]", "it has to be four integers"),
        ("[[false,false,true,true]]", "it has to be four integers"),
        ('[["1","2","3","4"]]', "it has to be four integers"),
        ("[null]", "rectangle 0 is None; it has to be four integers"),
        ('[{"x": 1}]', "rectangle 0 is {'x': 1}; it has to be four integers"),
        ("[[0,0,1,99999999999999999999]]", "coordinates are at most 1048576"),
        ("[[0,0,5,5],[5,5,5,9]]", "rectangle 1 is [5, 5, 5, 9], which is empty"),
        ("[[9,0,5,5]]", "which is empty"),
        ('{"0": [0,0,1,1], "2": [0,0,1,1]}', "frame 1 is missing"),
        ('{"0": [0,0,1,1], "0000": [0,0,1,1]}', "frame 0 is given twice, as '0' and '0000'"),
        ('{"0": [0,0,1,1], "0": [0,0,1,1]}', "frame 0 is given twice"),
        ('{"left": [0,0,1,1]}', "key 'left' is no frame"),
        ('{"-1": [0,0,1,1]}', "key '-1' is no frame"),
    ],
)
def test_says_in_one_line_what_is_wrong(text: str | bytes, message: str) -> None:
    rects, problems = parsed(text)
    assert rects is None
    assert len(problems) == 1
    assert message in problems[0]
    assert len(problems[0]) < 200


def test_says_every_broken_rectangle() -> None:
    _, problems = parsed("[[1,2],[0,0,1,1],[5,5,5,5]]")
    assert len(problems) == 2


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
