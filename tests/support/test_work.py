import sys

from tests.support.work import calls_made


def test_calls_of_python_and_of_c_are_counted() -> None:
    def one_more(value: int) -> int:
        return abs(value) + 1

    assert calls_made(lambda: [one_more(value) for value in range(10)]) >= 20
    assert calls_made(lambda: sum(range(10_000))) < 10


def test_a_profile_that_was_set_is_put_back() -> None:
    before = sys.getprofile()
    calls_made(lambda: None)
    assert sys.getprofile() is before
