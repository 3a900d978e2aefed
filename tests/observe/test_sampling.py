from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.observe.sampling import Sampler, profile, stacks, thread_name, thread_times


@contextmanager
def thread_in(name: str) -> Iterator[threading.Thread]:
    """A thread called ``name`` that waits in the function ``wait_here``."""
    begun, end = threading.Event(), threading.Event()

    def wait_here() -> None:
        begun.set()
        end.wait(WAIT_S)

    thread = threading.Thread(target=wait_here, name=name)
    thread.start()
    assert begun.wait(WAIT_S)
    try:
        yield thread
    finally:
        end.set()
        thread.join()


def only(thread: threading.Thread) -> Mapping[int, FrameType]:
    """The stacks of this thread and of ``thread``."""
    ours = (thread.ident, threading.get_ident())
    return {ident: frame for ident, frame in sys._current_frames().items() if ident in ours}


def test_a_stack_gets_the_processor_time_of_its_thread() -> None:
    with thread_in("lipwire-test") as thread:
        number = thread.native_id
        assert number is not None
        answers = iter([{number: 5_000_000}, {number: 7_000_000}, {number: 7_000_000}])
        sampler = Sampler(frames=lambda: only(thread), times=lambda: next(answers))
        sampler.sample()
        sampler.sample()  # it did nothing since
    (line,) = sampler.folded().splitlines()
    stack, _, count = line.rpartition(" ")
    assert count == "2000"
    frames = stack.split(";")
    assert frames[0] == "lipwire-test"
    assert any("wait_here:" in frame for frame in frames)
    assert "threading.Event.wait" in frames[-2] or "threading.Event.wait" in frames[-1]


def test_who_looks_does_not_count() -> None:
    own = threading.get_native_id()
    answers = iter([{own: 1_000}, {own: 9_000_000}])
    sampler = Sampler(times=lambda: next(answers))
    sampler.sample()
    assert sampler.folded() == ""


def test_a_thread_without_python_has_its_name() -> None:
    answers = iter([{1: 0}, {99_999: 4_000_000}, {99_999: 5_000_000}])
    sampler = Sampler(times=lambda: next(answers), name=lambda number: f"onnx;{number}")
    sampler.sample()
    sampler.sample()
    assert sampler.folded() == "native thread onnx?99999 5000\n"


@pytest.mark.parametrize("wall", [True, False], ids=["asked for", "no times"])
def test_samples_are_counted_where_there_are_no_times(wall: bool) -> None:
    with thread_in("lipwire-test") as thread:
        sampler = Sampler(wall=wall, frames=lambda: only(thread), times=lambda: None)
        for _ in range(3):
            sampler.sample()
    assert sampler.wall
    (line,) = sampler.folded().splitlines()
    assert line.startswith("lipwire-test;")
    assert line.endswith(" 3")


def test_the_number_of_stacks_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipwire.observe.sampling._MOST_STACKS", 2)
    answers = iter([{0: 0}, dict.fromkeys(range(1, 6), 1000000)])
    sampler = Sampler(times=lambda: next(answers), name=str)
    sampler.sample()
    assert sorted(sampler.folded().splitlines()) == [
        "further stacks 3000",
        "native thread 1 1000",
        "native thread 2 1000",
    ]


def test_a_profile_lasts_as_long_as_was_asked_for() -> None:
    clock = Clock()

    class Ended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            clock.now += timeout
            return False

    begun_s = clock.now
    sampler = profile(2.0, wall=True, ended=Ended(), clock=clock)
    assert clock.now - begun_s == pytest.approx(2.0, abs=0.1)
    assert sampler.wall


def test_a_profile_ends_when_the_server_does() -> None:
    ended = threading.Event()
    ended.set()
    assert profile(600.0, ended=ended).counts == {}


@pytest.mark.skipif(sys.platform != "linux", reason="the files are Linux's")
def test_this_systems_threads_have_names_and_times() -> None:
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work, name="lipwire-busy")
    thread.start()
    try:
        number = thread.native_id
        assert number is not None
        assert thread_name(number)
        before = thread_times()
        assert before is not None
        until(lambda: (thread_times() or {}).get(number, 0) > before.get(number, 0))
    finally:
        ended.set()
        thread.join()
    until(lambda: thread_name(number) == "ended")  # the system's thread ends after Python's


def test_a_system_without_such_files_has_no_times(tmp_path: Path) -> None:
    assert thread_times(tmp_path / "none") is None


def test_stacks_are_those_of_all_threads() -> None:
    with thread_in("lipwire-test") as thread:
        text = stacks()
    assert re.search(rf"^lipwire-test \({thread.ident}\):$", text, re.MULTILINE)
    assert "in wait_here" in text
    assert "test_stacks_are_those_of_all_threads" in text
