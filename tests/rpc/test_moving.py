"""A client's session that goes on on another server."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from tests.rpc.conftest import ServeLive
from tests.rpc.liveserver import LiveServer, noise
from tests.support.waiting import WAIT_S, until

from lipwire.domain import LipwireError, Overloaded, Unavailable
from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.rpc.moving import MovingStream
from lipwire.rpc.received import Received, Refused
from lipwire.session.live import (
    Caption,
    GoingAway,
    LiveFrame,
    LiveSession,
    SessionSettings,
    Sound,
    SpeechBegan,
    SpeechEnded,
)

PACED = SessionSettings(gate=False, sound_rate_hz=16_000)


class Servers:
    """Servers behind one address: a new session comes to the first that does not stop."""

    def __init__(self, serve: ServeLive, stack: ExitStack, streams: ExitStack) -> None:
        self._serve, self._stack, self._streams = serve, stack, streams
        self.staying: list[tuple[LiveServer, AvatarConnection]] = []

    def add(self, **given: Any) -> LiveServer:
        server = self._serve(**given)
        connection = self._stack.enter_context(AvatarConnection(server.address))
        self.staying.append((server, connection))
        return server

    def begin(self, model_id: str, settings: SessionSettings) -> ConverseStream:
        if not self.staying:
            raise Unavailable("there is no server")
        return self.staying[0][1].converse(model_id, settings)

    def converse(self) -> MovingStream:
        return self._streams.enter_context(MovingStream(self.begin, "anna", PACED))

    def drain(self, left_s: float = WAIT_S) -> LiveServer:
        """Have the first server stop in so many seconds."""
        server, _ = self.staying.pop(0)
        threading.Thread(target=server.server.drain, args=(left_s,), daemon=True).start()
        return server


@pytest.fixture
def servers(serve_live: ServeLive) -> Iterator[Servers]:
    with ExitStack() as stack, ExitStack() as streams:  # which end first
        yield Servers(serve_live, stack, streams)


class Seen:
    """What a session sent, in a thread that takes it."""

    def __init__(self, stream: MovingStream) -> None:
        self.received: list[Received] = []
        self.error: LipwireError | None = None
        self._stream = stream
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        try:
            self.received.extend(iter(self._stream))
        except LipwireError as error:
            self.error = error

    def __call__(self, *kinds: type) -> list[Any]:
        return [each for each in list(self.received) if isinstance(each, kinds)]

    def frames(self, kind: type) -> list[int]:
        return [each.frame for each in self(kind)]

    def is_one_session(self) -> None:
        """Time goes on, and next to nothing of it is missing."""
        assert all(1 <= after - before <= 3 for before, after in pairwise(self.frames(Sound)))
        assert all(before < after for before, after in pairwise(self.frames(LiveFrame)))
        assert self.error is None


@pytest.mark.slow
def test_at_rest_it_moves_at_once(servers: Servers) -> None:
    servers.add()
    second = servers.add()
    stream = servers.converse()
    seen = Seen(stream)
    until(lambda: len(seen(LiveFrame)) > 5)
    before = stream.id
    first = servers.drain()
    until(lambda: stream.moves == 1)
    assert stream.id != before
    count = len(seen(LiveFrame))
    until(lambda: len(seen(LiveFrame)) > count + 5)
    until(lambda: first.sessions.running == 0)
    assert second.sessions.running == 1
    seen.is_one_session()
    assert len(seen(GoingAway)) == 1


@pytest.mark.slow
def test_speech_that_waits_is_said_elsewhere_and_what_is_said_is_said_to_its_end(
    servers: Servers,
) -> None:
    servers.add()
    servers.add()
    stream = servers.converse()
    seen = Seen(stream)
    for _ in range(3):
        stream.push(noise(1.0), 16_000)
        stream.end_of_speech()
    until(lambda: seen(SpeechBegan))
    servers.drain()
    until(lambda: len(seen(SpeechEnded)) == 3, seen=lambda: seen(SpeechBegan, SpeechEnded))
    assert stream.moves == 1
    ends = seen(SpeechEnded)
    assert [(each.speech, each.spoken_ms) for each in ends] == [(1, 1000), (2, 1000), (3, 1000)]
    stream.push(noise(0.2), 16_000)
    stream.end_of_speech()
    until(lambda: len(seen(SpeechEnded)) == 4)
    seen.is_one_session()


@pytest.mark.slow  # seconds of speech
def test_where_there_is_no_time_it_is_broken_off_and_goes_on(servers: Servers) -> None:
    servers.add()
    servers.add()
    stream = servers.converse()
    seen = Seen(stream)
    threading.Thread(target=stream.push, args=(noise(8.0), 16_000), daemon=True).start()
    until(lambda: seen(SpeechBegan))
    servers.drain(left_s=6.0)
    until(lambda: stream.moves == 1)
    until(lambda: len(seen(SpeechEnded)) >= 2)
    spoken_ms = sum(each.spoken_ms for each in seen(SpeechEnded))
    assert 7900 <= spoken_ms <= 8100
    assert [each.speech for each in seen(SpeechEnded)][:2] == [1, 2]
    seen.is_one_session()


@pytest.mark.slow
def test_speech_that_is_pushed_while_it_moves_comes_once_and_in_order(servers: Servers) -> None:
    for _ in range(3):
        servers.add()
    stream = servers.converse()
    seen = Seen(stream)
    over = threading.Event()

    def talk() -> None:
        while not over.is_set():
            stream.push(noise(0.12), 16_000)
            stream.end_of_speech()
            pushed.append(0.12)
            over.wait(0.05)

    pushed: list[float] = []
    thread = threading.Thread(target=talk)
    thread.start()
    for _ in range(2):
        count = len(seen(SpeechEnded))
        until(lambda: len(seen(SpeechEnded)) > count + 2)  # noqa: B023
        moves = stream.moves
        servers.drain()
        until(lambda: stream.moves > moves)  # noqa: B023
    over.set()
    thread.join()
    until(lambda: len(seen(SpeechEnded)) == len(pushed), seen=lambda: len(pushed))
    assert {each.spoken_ms for each in seen(SpeechEnded)} == {120}
    seen.is_one_session()


@pytest.mark.slow  # a server that stops for seconds
def test_without_another_server_it_stays_to_its_end(servers: Servers) -> None:
    servers.add()
    stream = servers.converse()
    seen = Seen(stream)
    servers.drain(left_s=8.0)
    stream.push(noise(0.5), 16_000)
    stream.end_of_speech()
    until(lambda: seen(SpeechEnded))
    until(lambda: seen.error is not None)
    assert isinstance(seen.error, Unavailable)
    assert stream.moves == 0


@pytest.mark.slow
def test_an_interruption_counts_where_it_goes_on(servers: Servers) -> None:
    servers.add()
    servers.add()
    stream = servers.converse()
    seen = Seen(stream)
    stream.push(noise(2.0), 16_000)
    stream.end_of_speech()
    stream.push(noise(40.0), 16_000)
    stream.end_of_speech()
    until(lambda: seen(SpeechBegan))
    servers.drain()
    until(lambda: stream.moves == 1)
    until(lambda: len(seen(SpeechBegan)) == 2)
    stream.interrupt()
    until(lambda: len(seen(SpeechEnded)) == 2)
    assert seen(SpeechEnded)[1].interrupted


@pytest.mark.slow  # seconds of speech
def test_a_text_that_was_not_said_is_said_elsewhere(servers: Servers) -> None:
    said: list[str] = []

    def speak(session: LiveSession, text: str) -> None:
        said.append(text)
        session.push(noise(2.0), 16_000, caption=text, timeout_s=WAIT_S)
        session.end_of_speech()

    servers.add(speak=speak)
    servers.add(speak=speak)
    stream = servers.converse()
    seen = Seen(stream)
    stream.say("One.")
    stream.say("Two.")
    until(lambda: seen(Caption))
    servers.drain()
    until(lambda: len(seen(SpeechEnded)) == 2)
    assert [each.text for each in seen(Caption)] == ["One.", "Two."]
    assert said == ["One.", "Two.", "Two."]
    seen.is_one_session()


@pytest.mark.slow  # seconds of speech
def test_only_the_text_that_was_refused_is_not_said_elsewhere(servers: Servers) -> None:
    said: list[str] = []

    def speak(session: LiveSession, text: str) -> None:
        if text == "No.":
            raise Overloaded("not this one")
        said.append(text)
        session.push(noise(2.0), 16_000, caption=text, timeout_s=WAIT_S)
        session.end_of_speech()

    for _ in range(3):
        servers.add(speak=speak)
    stream = servers.converse()
    seen = Seen(stream)
    for text in ("One.", "No.", "Two."):
        stream.say(text)
    stream.change_avatar("nobody")  # refused, too, and no text
    until(lambda: len(seen(Refused)) == 2 and seen(Caption))
    servers.drain()
    until(lambda: stream.moves == 1)
    stream.say("No.")
    stream.say("Three.")
    until(lambda: len(seen(Refused)) == 3 and len(seen(Caption)) == 2)
    servers.drain()
    until(lambda: len(seen(SpeechEnded)) == 3)
    assert [(each.message, each.number) for each in seen(Refused)] == [
        ("say", 2),
        ("change_avatar", 1),
        ("say", 2),
    ]
    assert said == ["One.", "Two.", "Two.", "Three.", "Three."]
