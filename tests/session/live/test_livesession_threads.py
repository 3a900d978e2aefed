"""One session with real threads: what happens at the same time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from tests.support.liveparts import SETTINGS, FakeAvatar, buzz
from tests.support.waiting import WAIT_S, until

from lipwire.domain import Call, Cancelled, Unavailable
from lipwire.session.live import LiveSession, LiveThreads, Pacer, SessionSettings, Sound

SMALL = SessionSettings(sound_rate_hz=16_000, gate=False, max_buffered_speech_s=1)


@pytest.fixture
def threads() -> Iterator[LiveThreads]:
    with (
        Pacer() as pacer,
        ThreadPoolExecutor(2) as workers,
        ThreadPoolExecutor(1) as composing,
    ):
        yield LiveThreads(pacer, workers, composing)


def session_of(avatar: FakeAvatar, settings: SessionSettings, threads: LiveThreads) -> LiveSession:
    """A session that has an outbox, and was not started."""
    session = LiveSession(avatar.live(), settings, threads)
    session.fill_outbox()
    return session


class Block:
    """Where a thread waits until it may go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, _: object = None) -> None:
        self.reached.set()
        self.go_on.wait(WAIT_S)  # not for ever, where the test has failed


def in_thread(do: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            do()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_a_sender_that_waits_for_room_is_told_that_the_session_ended(threads: LiveThreads) -> None:
    avatar = FakeAvatar()
    session = session_of(avatar, SMALL, threads)  # not started: nothing is spoken
    thread, errors = in_thread(lambda: session.push(buzz(10), 16_000))
    until(lambda: not session._conversation.has_room)
    session.close()
    thread.join()
    assert [type(error) for error in errors] == [Cancelled]
    until(lambda: avatar.closed == 1)


def test_audio_that_waits_for_room_is_dropped_by_an_interruption(threads: LiveThreads) -> None:
    session = session_of(FakeAvatar(), SMALL, threads)
    with session:
        thread, errors = in_thread(lambda: session.push(buzz(10), 16_000, sequence=1))
        until(lambda: not session._conversation.has_room)
        session.interrupt()
        thread.join()
        assert not errors
        assert session.silent
        session.push(buzz(0.2), 16_000, sequence=2)
        assert not session.silent


@pytest.mark.slow
def test_a_sender_goes_on_when_there_is_room_and_nothing_is_lost(threads: LiveThreads) -> None:
    with session_of(FakeAvatar(), SMALL, threads) as session:
        samples = 0

        def read() -> None:
            nonlocal samples
            while (items := session.outbox.take()) is not None:
                samples += sum(
                    len(item.samples) for item in items if isinstance(item, Sound) and item.speech
                )

        reader, _ = in_thread(read)
        session.start()
        session.push(buzz(2.4), 16_000)
        session.end_of_speech()
        until(lambda: session.silent)
        until(lambda: samples == 38_400)
    reader.join()


@pytest.mark.slow
def test_an_interruption_ends_the_call_for_mouths(threads: LiveThreads) -> None:
    calls: list[Call] = []
    ended = threading.Event()

    def wait(call: Call) -> None:
        calls.append(call)
        if len(calls) == 1:
            call.on_end(ended.set)
            ended.wait()
            call.check()

    avatar = FakeAvatar(on_mouths=wait)
    with session_of(avatar, SETTINGS, threads) as session:
        session.start()
        session.push(buzz(1), 16_000)
        until(lambda: calls)
        session.interrupt()
        assert ended.is_set()
        session.push(buzz(0.4), 16_000)
        session.end_of_speech()
        until(lambda: session.silent)
        assert not session.closed
        assert session.counts.mouths == 10


def test_mouths_that_take_long_are_asked_for_before_the_others_have_come(
    threads: LiveThreads,
) -> None:
    both, asked = threading.Barrier(2, timeout=WAIT_S), 0

    def together(call: Call) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:  # the first has taken long, and the next two wait for each other
            both.wait()
        else:
            time.sleep(0.2)

    avatar = FakeAvatar(on_mouths=together)
    with session_of(avatar, SETTINGS, threads) as session:
        session.start()
        session.push(buzz(4), 16_000)
        until(lambda: asked >= 3)
        until(lambda: session.counts.mouths >= 5)
        both.abort()


def test_the_avatar_is_closed_when_its_last_mouths_are_made(threads: LiveThreads) -> None:
    block = Block()
    avatar = FakeAvatar(on_mouths=block)
    session = session_of(avatar, SETTINGS, threads)
    session.start()
    session.push(buzz(1), 16_000)
    until(block.reached.is_set)
    session.close()
    threads.workers.submit(int).result()  # what was submitted before has begun
    assert not avatar.closed
    block.go_on.set()
    until(lambda: avatar.closed == 1 and not session._composing and not session._working)
    assert not avatar.misused


def test_the_avatar_is_closed_where_the_workers_end_with_the_session() -> None:
    """As they do when a server stops: the last of them finds that no other takes anything."""
    block = Block()
    avatar = FakeAvatar(complete=False, on_rest=lambda position: block() if position else None)
    with Pacer() as pacer, ThreadPoolExecutor(1) as composing:
        workers = ThreadPoolExecutor(2)
        session = session_of(avatar, SMALL, LiveThreads(pacer, workers, composing))
        session.start()
        assert block.reached.wait(WAIT_S)
        session.close()
        workers.shutdown(wait=False)
        assert not avatar.closed
        block.go_on.set()
        workers.shutdown()
    assert (avatar.closed, avatar.misused) == (1, 0)


def test_the_avatar_is_closed_when_its_last_frame_is_composed(threads: LiveThreads) -> None:
    block = Block()
    avatar = FakeAvatar(on_compose=block)
    session = session_of(avatar, SETTINGS, threads)
    session.start()
    until(block.reached.is_set)
    session.close()
    threads.workers.submit(int).result()  # what was submitted before has begun
    assert not avatar.closed
    block.go_on.set()
    until(lambda: avatar.closed == 1 and not session._composing and not session._working)
    assert not avatar.misused


def test_a_frame_that_fails_closes_no_avatar_whose_mouths_are_being_made(
    threads: LiveThreads,
) -> None:
    block = Block()

    def fail(_: int) -> None:
        block.reached.wait()
        raise Unavailable("gone")

    avatar = FakeAvatar(on_mouths=block, on_compose=fail)
    session = session_of(avatar, SETTINGS, threads)
    session.start()
    with suppress(Cancelled):  # it may end before all of it is taken in
        session.push(buzz(1), 16_000)
    until(lambda: session.closed)
    assert not avatar.closed
    block.go_on.set()
    until(lambda: avatar.closed == 1)
    assert not avatar.misused
    assert session.ended_because == "error"


def test_an_avatar_is_changed_when_its_frame_is_composed(threads: LiveThreads) -> None:
    block = Block()
    first, second = FakeAvatar(1, on_compose=block), FakeAvatar(2)
    with session_of(first, SETTINGS, threads) as session:
        session.start()
        until(block.reached.is_set)
        session.change_avatar(second.live())
        until(lambda: session.counts.dropped)  # time goes on
        assert session.avatar.name == "avatar1"
        assert not first.closed
        block.go_on.set()
        until(lambda: session.avatar.name == "avatar2")
        until(lambda: first.closed == 1)
        assert not session.closed
    until(lambda: second.closed == 1)


def test_all_at_once_ends_well(threads: LiveThreads) -> None:
    avatars = [FakeAvatar(mark) for mark in range(8)]
    sessions = [session_of(avatar, SMALL, threads) for avatar in avatars]
    for session in sessions:
        session.start()
    begun = threading.Barrier(3 * len(sessions))

    def speak(session: LiveSession) -> None:
        begun.wait()
        for _ in range(20):
            session.push(buzz(0.1), 16_000)

    def interrupt(session: LiveSession) -> None:
        begun.wait()
        for _ in range(20):
            session.interrupt()
            session.listen(True)
            session.outbox.take(0.001)

    def close(session: LiveSession) -> None:
        begun.wait()
        until(lambda: session.counts.frames > 2)
        session.close()

    running = [
        in_thread(lambda do=do, session=session: do(session))  # type: ignore[misc]
        for session in sessions
        for do in (speak, interrupt, close)
    ]
    for thread, _ in running:
        thread.join()
    errors = [error for _, found in running for error in found]
    # Whoever speaks to a session that has ended is told so.
    assert all("closed" in str(error) or "ended" in str(error) for error in errors)
    until(lambda: all(avatar.closed == 1 for avatar in avatars))
    until(lambda: len(threads.pacer) == 0)
    assert not any(avatar.misused for avatar in avatars)
    assert not any(session.error for session in sessions)
