"""Speech for a live session, as it comes."""

import io

import numpy as np
import pytest
from tests.support.waiting import until

from lipwire.cli.live.speech import SpeechSender, SpeechSource, bare_pieces
from lipwire.domain import Cancelled, InvalidInput, LipwireError


class Session:
    """Takes what is sent to a session."""

    def __init__(self, error: LipwireError | None = None) -> None:
        self.pushed: list[int] = []
        self.ended = False
        self._error = error

    def push(self, pcm: np.ndarray, rate_hz: int) -> None:
        if self._error is not None:
            raise self._error
        self.pushed.append(len(pcm))

    def end_of_speech(self) -> None:
        self.ended = True


class Dribble(io.RawIOBase):
    """A pipe that gives 3 bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        given, self._data = self._data[:3], self._data[3:]
        return given


def test_bare_samples_are_whole_however_they_come() -> None:
    samples = np.arange(20, dtype="<i2")
    file = Dribble(samples.tobytes() + b"\1")
    pieces = list(bare_pieces(file, 16_000, 2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate(pieces), samples.reshape(10, 2))


def send(sender: SpeechSender, session: Session) -> None:
    sender.start(session)  # type: ignore[arg-type]


def test_speech_is_sent_and_ended() -> None:
    session = Session()
    source = SpeechSource(1000, iter([np.zeros(100, np.int16), np.zeros(50, np.int16)]), False)
    with SpeechSender(source, live=False) as sender:
        send(sender, session)
        until(lambda: sender.done)
        assert (session.pushed, session.ended) == ([100, 50], True)
        assert sender.sent_ms == 150
        assert sender.began_s is not None


def test_live_speech_is_sent_in_small_pieces_that_were_spoken() -> None:
    now = [0.0]
    waits: list[float] = []
    session = Session()
    source = SpeechSource(1000, iter([np.zeros(100, np.int16)]), False)
    with SpeechSender(source, live=True, clock=lambda: now[0]) as sender:
        stopped = sender._stopped

        def wait(seconds: float | None = None) -> bool:
            waits.append(round(seconds or 0.0, 3))
            now[0] += seconds or 0.0
            return False

        stopped.wait = wait  # type: ignore[assignment, method-assign]
        send(sender, session)
        until(lambda: sender.done)
    assert session.pushed == [40, 40, 20]
    assert waits == [0.04, 0.04, 0.02]


def test_nothing_is_sent_once_stopped() -> None:
    session = Session()
    source = SpeechSource(1000, iter([np.zeros(100, np.int16)]), False)
    with SpeechSender(source, live=False) as sender:
        sender.stop()
        send(sender, session)
        until(lambda: sender.done)
    assert (session.pushed, session.ended) == ([], False)


@pytest.mark.parametrize("error", [InvalidInput("no audio"), Cancelled("ended")])
def test_what_sending_fails_with_is_told_unless_the_session_has_ended(error: LipwireError) -> None:
    session = Session(error)
    source = SpeechSource(1000, iter([np.zeros(100, np.int16)]), False)
    with SpeechSender(source, live=False) as sender:
        send(sender, session)
    assert sender.error is (None if isinstance(error, Cancelled) else error)
