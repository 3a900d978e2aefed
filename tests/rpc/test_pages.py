"""Lists in pages."""

import pytest

from lipwire.domain import InvalidInput
from lipwire.rpc.pages import page_of

NAMES = [f"user_{i:05d}" for i in range(2500)]


@pytest.mark.parametrize(("size", "pages"), [(1, 2500), (999, 3), (1250, 2), (0, 3), (10_000, 1)])
def test_pages_are_the_whole_list_in_order(size: int, pages: int) -> None:
    found: list[str] = []
    token, count = "", 0
    while count == 0 or token:
        page, token = page_of(NAMES, size, token)
        found += page
        count += 1
    assert found == NAMES
    assert count == pages


def test_names_that_go_in_between_move_no_others() -> None:
    _, token = page_of(NAMES, 10, "")
    page, _ = page_of([name for name in NAMES if name != token], 2, token)
    assert page == NAMES[10:12]


def test_nothing_is_one_empty_page() -> None:
    assert page_of([], 5, "") == ([], "")


@pytest.mark.parametrize("size", [-1, 10_001])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match=f"page_size is {size}; allowed are 1 to 10000"):
        page_of(NAMES, size, "")
