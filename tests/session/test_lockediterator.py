import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

from tests.support.waiting import until

from lipwire.session.lockediterator import LockedIterator


def test_it_gives_what_the_generator_gives() -> None:
    assert list(LockedIterator(n for n in range(4))) == [0, 1, 2, 3]


def test_closing_waits_for_the_value_that_is_being_made() -> None:
    making, going, ended = threading.Event(), threading.Event(), threading.Event()

    def values() -> Generator[int]:
        try:
            making.set()
            assert going.wait(60)
            yield 1
            yield 2
        finally:
            ended.set()

    iterator = LockedIterator(values())
    with ThreadPoolExecutor(2) as threads:
        taken = threads.submit(next, iterator)
        assert making.wait(60)
        closing = threads.submit(iterator.close)
        assert not ended.is_set()
        going.set()
        assert taken.result(60) == 1
        closing.result(60)
    until(ended.is_set)
    assert list(iterator) == []
    iterator.close()
