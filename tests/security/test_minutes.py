"""Minutes of live sessions a month, in a file that processes share."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.waiting import Clock

from lipwire.domain import InvalidInput, MinutesUsedUp, StorageFailed
from lipwire.security import LiveMinutes
from lipwire.security.minutes import EVERY_S


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = at(2030, 1, 15, 12)
    return clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "minutes.json"


def test_minutes_are_counted_by_tenant_until_they_are_used_up(file: Path, clock: Clock) -> None:
    minutes = LiveMinutes(file, 2, now=clock)
    minutes.check("acme")
    assert minutes.spend("acme", 100)
    assert not minutes.spend("acme", 20)
    assert minutes.spend("beta", 100)
    minutes.check("beta")
    with pytest.raises(
        MinutesUsedUp,
        match=r"tenant acme has used 2 minutes of live sessions this month; allowed are 2, and the"
        r" next month begins on 2030-02-01 \(UTC\)",
    ) as refused:
        minutes.check("acme")
    assert (refused.value.used_minutes, refused.value.allowed_minutes) == (2, 2)
    assert refused.value.renewed_in_s == at(2030, 2, 1) - clock.now
    assert not refused.value.retryable


def test_a_restart_does_not_forget(file: Path, clock: Clock) -> None:
    with LiveMinutes(file, 2, now=clock) as minutes:
        minutes.spend("acme", 119.5)
    with LiveMinutes(file, 2, now=clock) as minutes:
        minutes.check("acme")
        assert not minutes.spend("acme", 0.5)
    with pytest.raises(MinutesUsedUp):
        LiveMinutes(file, 2, now=clock).check("acme")
    told = json.loads(file.read_text())
    assert told == {"version": 1, "month": "2030-01", "seconds": {"acme": 120.0}}


def test_processes_have_one_count_that_is_late_by_seconds(file: Path, clock: Clock) -> None:
    first, second = (LiveMinutes(file, 10, now=clock) for _ in range(2))
    for _ in range(4):
        assert first.spend("acme", 60)
        assert second.spend("acme", 60)
    due = [first.due]
    second.check("acme")
    clock.now += EVERY_S
    due.append(first.due)
    first.sync()
    second.sync()
    assert [*due, first.due] == [False, True, False]
    assert not second.spend("acme", 120)
    first.check("acme")  # it has not heard of that yet
    second.sync()
    clock.now += EVERY_S
    with pytest.raises(MinutesUsedUp, match="has used 10 minutes"):
        first.check("acme")


@pytest.mark.slow
def test_nothing_is_lost_or_counted_twice_where_many_write_at_one_time(
    file: Path, clock: Clock
) -> None:
    processes = [LiveMinutes(file, 1000, now=clock) for _ in range(4)]

    def used(minutes: LiveMinutes) -> None:
        for _ in range(20):
            minutes.spend("acme", 1)
            minutes.sync()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(used, processes * 2))
    assert json.loads(file.read_text())["seconds"] == {"acme": 160.0}


def test_a_month_begins_with_none_used(file: Path, clock: Clock) -> None:
    clock.now = at(2030, 12, 31, 23, 59)
    minutes = LiveMinutes(file, 1, now=clock)
    assert not minutes.spend("acme", 60)
    minutes.sync()
    with pytest.raises(MinutesUsedUp, match="begins on 2031-01-01") as refused:
        minutes.check("acme")
    assert refused.value.renewed_in_s == 60
    clock.now += 60
    assert minutes.spend("acme", 59)
    minutes.check("acme")
    minutes.sync()
    assert json.loads(file.read_text()) == {
        "version": 1,
        "month": "2031-01",
        "seconds": {"acme": 59.0},
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "\ud800",
        '{"version": 1}',
        '{"version": 1, "month": "2030-01", "seconds": {"a": "x"}}',
        '{"version": 1, "month": "2030-01", "seconds": [1]}',
        '{"version": 1, "month": "2030-01", "seconds": {"a": -1}}',
        '{"version": 1, "month": "2030-01", "seconds": {"a": NaN}}',
        '{"version": 1, "month": "2030-01", "seconds": {"a": Infinity}}',
        '{"version": 2, "month": "2030-01", "seconds": {}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_told_at_the_start(file: Path, clock: Clock, text: str) -> None:
    file.parent.mkdir()
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidInput, match=r"minutes\.json is (no file of minutes|of version 2)"):
        LiveMinutes(file, 1, now=clock)
    assert file.read_bytes() == text.encode("utf-8", "surrogatepass")


def test_a_place_that_cannot_be_written_is_told_at_the_start(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot be written"):
        LiveMinutes(tmp_path / "file" / "minutes.json", 1, now=clock)


def test_what_cannot_be_kept_is_counted_and_kept_later(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    minutes = LiveMinutes(file, 1, now=clock)
    good = file.read_text()
    file.write_text("damaged")
    minutes.spend("acme", 50)
    with caplog.at_level(logging.ERROR):
        minutes.sync()
        minutes.sync()
    assert len(caplog.records) == 1
    assert "no file of minutes" in caplog.text
    assert not minutes.spend("acme", 10)
    file.write_text(good)
    minutes.sync()
    assert json.loads(file.read_text())["seconds"] == {"acme": 60.0}
