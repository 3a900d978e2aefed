"""A request under way, as those see it who work for it."""

import pytest

from lipwire.domain import Call, Cancelled, DeadlineExceeded


def test_without_a_deadline_there_is_no_limit() -> None:
    call = Call(None)
    assert call.remaining_s() is None
    call.check()


def test_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("lipwire.domain.calls.time.monotonic", lambda: now_s)
    call = Call(0.25)
    now_s += 0.125
    assert call.remaining_s() == 0.125
    call.check()
    now_s += 0.25
    assert call.remaining_s() == 0.0
    with pytest.raises(DeadlineExceeded):
        call.check()


def test_a_call_is_batch_of_the_unnamed_tenant_unless_it_is_said() -> None:
    assert (Call(None).service, Call(None).tenant) == ("batch", "")
    call = Call(1.0, service="live", tenant="acme")
    assert (call.service, call.tenant) == ("live", "acme")
    with pytest.raises(AttributeError):
        call.service = "batch"  # type: ignore[misc]


def test_a_call_of_another_class_ends_with_the_first_and_has_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr("lipwire.domain.calls.time.monotonic", lambda: now_s)
    call = Call(2.0)
    live = call.classed("live", "acme")
    assert (live.service, live.tenant) == ("live", "acme")
    assert live.classed("live", "acme") is live
    now_s += 0.5
    assert live.remaining_s() == call.remaining_s() == 1.5
    heard: list[int] = []
    live.on_end(lambda: heard.append(1))
    call.end()
    assert heard == [1]
    assert live.ended
    assert call.classed("render", "").ended


def test_watchers_hear_of_the_end_once_however_late_they_come() -> None:
    heard: list[int] = []
    call = Call(None)
    call.on_end(lambda: heard.append(1))
    assert heard == []
    call.end()
    assert heard == [1]
    assert call.ended
    call.on_end(lambda: heard.append(2))
    assert heard == [1, 2]
    with pytest.raises(Cancelled):
        call.check()
    call.end()
    assert heard == [1, 2]
