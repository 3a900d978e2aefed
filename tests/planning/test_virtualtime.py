"""A clock that runs as fast as what happens is computed."""

from lipwire.planning.virtualtime import VirtualTime


def test_things_happen_in_order_at_their_time() -> None:
    time = VirtualTime()
    seen: list[tuple[str, float]] = []

    def note(what: str) -> None:
        seen.append((what, time()))

    time.after(2.0, lambda: note("second"))
    time.after(1.0, lambda: note("first"))
    time.after(2.0, lambda: note("second too"))
    time.after(1.0, lambda: time.after(0.5, lambda: note("between")))
    time.after(9.0, lambda: note("never"))
    assert time.run(3.0) == 5
    assert seen == [("first", 1.0), ("between", 1.5), ("second", 2.0), ("second too", 2.0)]
    assert time() == 3.0
