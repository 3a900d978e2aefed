"""A request under way, as those see it who work for it."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from lipwire.domain import DeadlineExceeded
from lipwire.rpc.calls import Call, Cancelled, current, open_call


class Context:
    """As much of gRPC's context as ``open_call`` uses."""

    def __init__(self, remaining_s: float | None, alive: bool = True) -> None:
        self.remaining_s = remaining_s
        self.alive = alive
        self.callbacks: list[Callable[[], None]] = []

    def time_remaining(self) -> float | None:
        return self.remaining_s

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return self.alive


def opened(context: Context) -> Any:
    return open_call(context)  # type: ignore[arg-type]


def test_the_call_is_current_inside_the_block_only() -> None:
    assert current() is None
    with opened(Context(None)) as call:
        assert current() is call
    assert current() is None


@pytest.mark.parametrize("remaining_s", [None, math.inf, 1e12])
def test_no_deadline_is_none(remaining_s: float | None) -> None:
    with opened(Context(remaining_s)) as call:
        assert call.remaining_s() is None
        call.check()


def test_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("lipwire.rpc.calls.time.monotonic", lambda: now_s)
    call = Call(0.25)
    now_s += 0.125
    assert call.remaining_s() == 0.125
    call.check()
    now_s += 0.25
    assert call.remaining_s() == 0.0
    with pytest.raises(DeadlineExceeded):
        call.check()


def test_watchers_hear_of_the_end_once_however_late_they_come() -> None:
    heard: list[int] = []
    context = Context(None)
    with opened(context) as call:
        call.on_end(lambda: heard.append(1))
        assert heard == []
        (ended,) = context.callbacks
        ended()  # gRPC says that the caller has gone
        assert heard == [1]
        call.on_end(lambda: heard.append(2))
        assert heard == [1, 2]
        with pytest.raises(Cancelled):
            call.check()
    assert heard == [1, 2]


def test_a_call_that_was_over_before_it_began_is_ended() -> None:
    with opened(Context(None, alive=False)) as call:
        assert call.ended
