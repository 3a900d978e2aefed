"""A long list of names, a page at a time."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from lipwire.domain import InvalidInput

_PAGE: Final = 1000
_LARGEST_PAGE: Final = 10_000


def page_of(names: Sequence[str], size: int, token: str) -> tuple[Sequence[str], str]:
    """One page of ``names``, which are in order, and the token of the next; empty on the last.

    The token is the last name of a page, so that names that come and go in between move no others.
    ``size`` 0 stands for 1000. Raises InvalidInput for sizes below 0 or above 10000.
    """
    if not 0 <= size <= _LARGEST_PAGE:
        raise InvalidInput(f"page_size is {size}; allowed are 1 to {_LARGEST_PAGE}, or 0 for 1000")
    start = bisect_right(names, token) if token else 0
    page = names[start : start + (size or _PAGE)]
    more = start + len(page) < len(names)
    return page, page[-1] if more else ""
