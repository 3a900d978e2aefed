"""The call of a request that came over gRPC."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from lipwire.domain import Cancelled
from lipwire.rpc.calls import call_of, open_call, with_call


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


def test_a_servicer_finds_the_call_and_all_else_in_its_context() -> None:
    context: Any = Context(20.0)
    with open_call(context) as call:
        handed = with_call(context, call)
        assert call_of(handed) is call
        assert handed.time_remaining() == 20.0


def test_a_request_without_a_call_is_a_defect() -> None:
    context: Any = Context(None)
    with pytest.raises(TypeError, match="no call was opened"):
        call_of(context)


@pytest.mark.parametrize("remaining_s", [None, math.inf, 1e12])
def test_no_deadline_is_none(remaining_s: float | None) -> None:
    with opened(Context(remaining_s)) as call:
        assert call.remaining_s() is None
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
