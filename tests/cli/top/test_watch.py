from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.cli.top.watch import Seen, Watch
from lipwire.domain import Unavailable
from lipwire.rpc.serverstatus import ModelUse, ServerStatus


def status(uses: int, name: str = "anna") -> ServerStatus:
    model = ModelUse(name, 1_000, uses, 0, 0.0, 1)
    return ServerStatus(
        *("localhost:1", "compositing server", "1.0", True, "", 1, 3, 1, 10, 1_000, 0, 0),
        models=(model,),
        gpus=(),
    )


class Server:
    """A stand-in that gives one answer after the other, then the last one; the test's clock has
    gone on by two seconds with each."""

    def __init__(
        self, answers: Iterable[ServerStatus | Exception], clock: Clock, address: str = "a:1"
    ) -> None:
        self.address = address
        self.closed = False
        self.asked = 0
        self._answers = iter(answers)
        self._clock = clock
        self._last: ServerStatus | Exception = Unavailable("nothing was said")

    def status(self, timeout_s: float) -> ServerStatus:
        self.asked += 1
        self._clock.now += 2
        self._last = next(self._answers, self._last)
        if isinstance(self._last, Exception):
            raise self._last
        return self._last

    def close(self) -> None:
        self.closed = True


def watched(*answers: ServerStatus | Exception) -> Seen:
    """What is known of a server that would give ``answers``, when it was asked once."""
    clock = Clock()
    server = Server(answers, clock)
    with Watch([server], timeout_s=WAIT_S, every_s=None, clock=clock) as watch:
        watch.wait()
        (seen,) = watch.seen()
    assert server.asked == 1
    return seen


def test_a_server_is_asked_once_where_that_is_wanted() -> None:
    seen = watched(status(3), status(9))
    assert seen.status is not None
    assert (seen.status.models[0].uses, seen.rates, seen.error) == (3, {}, "")


def test_a_server_that_does_not_answer_is_named_with_the_reason() -> None:
    seen = watched(Unavailable("connection refused"))
    assert (seen.status, seen.error) == (None, "connection refused")


@pytest.mark.parametrize(
    ("answers", "rates"),
    [
        ([status(3), status(9)], {"anna": 3.0}),
        ([status(9), status(4)], {"anna": 2.0}),  # it was started anew
        ([status(9, "ben"), status(4)], {"anna": 2.0}),
        ([status(3), Unavailable("away"), status(9)], {}),
    ],
)
def test_rates_are_those_between_the_last_two_answers(
    answers: list[ServerStatus | Exception], rates: dict[str, float]
) -> None:
    clock = Clock()
    all_given = threading.Event()

    class Ending(Server):
        """Does not answer any more when all was given, until it is closed."""

        def status(self, timeout_s: float) -> ServerStatus:
            if self.asked == len(answers):
                all_given.set()
                until(lambda: self.closed)
                raise Unavailable("closed")
            return super().status(timeout_s)

    with Watch([Ending(answers, clock)], timeout_s=WAIT_S, every_s=0.0, clock=clock) as watch:
        assert all_given.wait(WAIT_S)
        (seen,) = watch.seen()
    assert seen.rates == rates
    assert seen.rate == sum(rates.values())


def test_a_server_that_hangs_does_not_keep_others_from_being_shown() -> None:
    clock = Clock()

    class Hanging(Server):
        def status(self, timeout_s: float) -> ServerStatus:
            until(lambda: self.closed)
            raise Unavailable("closed")

    hanging, other = Hanging([], clock, "a:1"), Server([status(1)], clock, "b:1")
    with Watch([hanging, other], timeout_s=WAIT_S, every_s=3600.0, clock=clock) as watch:
        until(lambda: watch.seen()[1].status)
        first, second = watch.seen()
        assert (first, second.address) == (Seen("a:1"), "b:1")
    assert other.closed


def test_nobody_is_asked_after_the_end() -> None:
    clock = Clock()
    server = Server([status(1)], clock)
    with Watch([server], timeout_s=WAIT_S, every_s=0.0, clock=clock):
        until(lambda: server.asked > 2)
    asked = server.asked
    assert server.closed
    assert not any(thread.name == "lipwire-top" for thread in threading.enumerate())
    assert server.asked == asked
