"""The client's end of live sessions, over a socket, with avatars that cost nothing."""

import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc.conftest import ServeLive
from tests.rpc.liveserver import (
    HEIGHT,
    WIDTH,
    LiveServer,
    kinds,
    noise,
    until_seen,
)
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Call, Cancelled, InvalidInput, NotFound, Overloaded, Unavailable
from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.received import Ended, Refused
from lipwire.session.live import (
    Caption,
    GoingAway,
    LiveFrame,
    LiveSession,
    SessionRules,
    SessionSettings,
    Sound,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)

UNPACED = SessionSettings(gate=False, sound_rate_hz=16_000, paced=False)
PACED = SessionSettings(gate=False, sound_rate_hz=16_000)


def readers() -> list[str]:
    """Threads that follow the messages of a stream."""
    return [each.name for each in threading.enumerate() if each.name == "lipwire-converse"]


def ends_speech(received: object) -> bool:
    return isinstance(received, SpeechEnded)


# -- a conversation --------------------------------------------------------------------------------


def test_speech_comes_back_as_frames_sound_and_events(client: AvatarConnection) -> None:
    with client.converse("anna", UNPACED) as session:
        assert (session.width, session.height) == (WIDTH, HEIGHT)
        assert (session.frame_format, session.sound_rate_hz) == ("jpeg", 16_000)
        assert (session.resumed, session.state) == (False, State.IDLE)
        speech = noise(0.4)
        session.push(speech, 16_000)
        session.end_of_speech()
        seen = until_seen(session, ends_speech)
    frames, sounds = kinds(seen, LiveFrame), kinds(seen, Sound)
    assert [frame.at_ms for frame in frames] == [40 * number for number in range(10)]
    assert [frame.position for frame in frames] == list(range(10))
    assert {frame.speech for frame in frames} == {1}
    assert frames[0].data == b"anna 0 speaks"
    assert [sound.at_ms for sound in sounds] == [40 * number for number in range(10)]
    heard = np.concatenate([sound.samples for sound in sounds])
    np.testing.assert_allclose(heard, speech / np.float32(32768), atol=1 / 32768)
    assert kinds(seen, SpeechBegan) == [SpeechBegan(0, 1)]
    assert kinds(seen, SpeechEnded) == [SpeechEnded(400, 1, 400, False, 0)]
    states = [change.state for change in kinds(seen, StateChanged)]
    assert states[:1] == [State.SPEAKING]


def test_sound_goes_on_through_silence_on_the_clock(client: AvatarConnection) -> None:
    with client.converse("anna", PACED) as session:
        seen = until_seen(session, lambda got: isinstance(got, Sound) and got.at_ms == 200)
    assert [sound.at_ms for sound in kinds(seen, Sound)] == [0, 40, 80, 120, 160, 200]
    assert all(not len(sound.samples) for sound in kinds(seen, Sound))
    assert all(frame.data.endswith(b"rests") for frame in kinds(seen, LiveFrame))


def test_frames_may_be_raw_pixels(serve_live: ServeLive) -> None:
    live = serve_live(frame_format="raw")
    with AvatarConnection(live.address) as client, client.converse("anna", UNPACED) as session:
        assert session.frame_format == "bgr24"
        session.push(noise(0.2), 16_000)
        session.end_of_speech()
        frame = kinds(until_seen(session, ends_speech), LiveFrame)[0]
    assert frame.data == np.ones((HEIGHT, WIDTH, 3), np.uint8).tobytes()


def test_floats_and_channels_are_heard_as_int16_is(client: AvatarConnection) -> None:
    speech = noise(0.2)
    stereo = np.stack([speech, speech], axis=1)
    heard = []
    forms: list[Any] = [speech, stereo, speech.astype(np.float32) / 32768]
    for pcm in forms:
        with client.converse("anna", UNPACED) as session:
            session.push(pcm, 16_000)
            session.end_of_speech()
            sounds = kinds(until_seen(session, ends_speech), Sound)
            heard.append(np.concatenate([sound.samples for sound in sounds]))
    np.testing.assert_allclose(heard[1], heard[0], atol=2 / 32768)
    np.testing.assert_array_equal(heard[2], heard[0])


def say(session: LiveSession, text: str) -> None:
    """As long as the text has tenths of its letters."""
    if len(text) > 20:
        raise Overloaded("8 texts wait to be said; allowed are 8")
    session.push(noise(len(text) / 10), 16_000, caption=text)
    session.end_of_speech()


@pytest.mark.slow
def test_a_text_is_said_and_told_as_a_caption(serve_live: ServeLive) -> None:
    live = serve_live(speak=say)
    with AvatarConnection(live.address) as client, client.converse("anna", UNPACED) as session:
        session.say("Good day")
        seen = until_seen(session, ends_speech)
        assert kinds(seen, Caption) == [Caption(0, 1, "Good day")]
        assert kinds(seen, SpeechEnded) == [SpeechEnded(800, 1, 800, False, 0)]
        session.say("Too long to be said now")
        refused = kinds(until_seen(session, lambda got: isinstance(got, Refused)), Refused)
        told = "8 texts wait to be said; allowed are 8"
        assert refused == [Refused("RESOURCE_EXHAUSTED", told, "say", 2)]


def test_a_text_from_before_an_interrupt_is_not_said(serve_live: ServeLive) -> None:
    live = serve_live(speak=say)
    with AvatarConnection(live.address) as client, client.converse("anna", UNPACED) as session:
        live.sessions.find(session.id).interrupt(1)  # has overtaken the text
        session.say("Before")
        session.interrupt()
        session.say("After")
        seen = until_seen(session, ends_speech)
        assert [caption.text for caption in kinds(seen, Caption)] == ["After"]


@pytest.mark.slow
def test_a_server_without_a_voice_says_so(client: AvatarConnection) -> None:
    with client.converse("anna", UNPACED) as session:
        session.say("Hello")
        (refused,) = kinds(until_seen(session, lambda got: isinstance(got, Refused)), Refused)
        assert refused.error_code == "FAILED_PRECONDITION"
        assert "this server has no voice; it needs lipwire[speech]" in refused.error


def test_listening_is_a_state(client: AvatarConnection) -> None:
    with client.converse("anna", PACED) as session:
        for listening, state in ((True, State.LISTENING), (False, State.IDLE)):
            session.listen(listening)
            seen = until_seen(session, lambda got: isinstance(got, StateChanged))
            assert kinds(seen, StateChanged)[0].state is state


def test_another_avatar_is_shown_when_it_is_asked_for(
    client: AvatarConnection, live: LiveServer
) -> None:
    with client.converse("anna", PACED) as session:
        session.change_avatar("bert")
        until_seen(session, lambda got: isinstance(got, LiveFrame) and got.data.startswith(b"bert"))
        until(lambda: live.closed == ["anna"])
    until(lambda: live.closed == ["anna", "bert"])


def test_an_avatar_that_cannot_be_had_is_refused_and_the_session_goes_on(
    client: AvatarConnection,
) -> None:
    with client.converse("anna", PACED) as session:
        session.change_avatar("carl")
        seen = until_seen(session, lambda got: isinstance(got, Refused))
        assert kinds(seen, Refused) == [
            Refused("NOT_FOUND", "there is no avatar 'carl'", "change_avatar", 1)
        ]
        until_seen(session, lambda got: isinstance(got, LiveFrame))


# -- interruptions ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interruption_ends_speech_and_what_follows_is_heard(client: AvatarConnection) -> None:
    with client.converse("anna", PACED) as session:
        session.push(noise(5.0), 16_000)
        until_seen(session, lambda got: isinstance(got, SpeechBegan))
        session.interrupt()
        seen = until_seen(session, ends_speech)
        (ended,) = kinds(seen, SpeechEnded)
        assert ended.interrupted
        assert ended.left_ms > 0
        session.push(noise(0.1), 16_000)
        session.end_of_speech()
        (ended,) = kinds(until_seen(session, ends_speech), SpeechEnded)
        assert (ended.speech, ended.interrupted, ended.spoken_ms) == (2, False, 100)


@pytest.mark.slow
def test_an_interruption_goes_past_audio_that_the_server_has_no_room_for(
    client: AvatarConnection,
) -> None:
    pushed = threading.Event()

    def push_much() -> None:
        session.push(noise(200.0, 8_000), 8_000)
        pushed.set()

    with client.converse("anna", PACED) as session:
        pushing = threading.Thread(target=push_much, name="pushing")
        pushing.start()
        until_seen(session, lambda got: isinstance(got, SpeechBegan))
        until_full(session, pushing)
        session.interrupt()
        pushing.join()
        assert pushed.is_set()
        (ended,) = kinds(until_seen(session, ends_speech), SpeechEnded)
        assert ended.interrupted
        # Nothing of what was on its way is spoken, and what follows is numbered right.
        session.push(noise(0.1), 16_000)
        session.end_of_speech()
        seen = until_seen(session, ends_speech)
        assert kinds(seen, SpeechEnded)[0].spoken_ms == 100
        assert not kinds(seen, Refused)


# -- what is refused -------------------------------------------------------------------------------


def test_an_unknown_avatar_is_not_found(client: AvatarConnection) -> None:
    with pytest.raises(NotFound, match="there is no avatar 'carl'"):
        client.converse("carl")


def test_audio_that_is_none_is_refused_before_it_is_sent(client: AvatarConnection) -> None:
    with client.converse("anna", PACED) as session:
        with pytest.raises(InvalidInput, match="type float64"):
            session.push(np.zeros(10), 16_000)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="NaN"):
            session.push(np.full(10, np.nan, np.float32), 16_000)


def test_too_many_sessions_are_told_how_many_run_and_when_to_come_back(
    serve_live: ServeLive,
) -> None:
    live = serve_live(rules=SessionRules(max_sessions=1))
    with AvatarConnection(live.address) as client, client.converse("anna", PACED):
        with pytest.raises(Overloaded, match="1 live sessions run; allowed are 1") as refused:
            client.converse("bert", PACED)
        assert refused.value.retry_after_s == 5.0


# -- ends ------------------------------------------------------------------------------------------


def test_a_session_that_is_closed_says_so_and_frees_its_avatar(
    client: AvatarConnection, live: LiveServer
) -> None:
    session = client.converse("anna", PACED)
    session.push(noise(1.0), 16_000)
    session.end()
    *_, last = list(session)
    assert last == Ended("closed")
    session.end()
    session.close()
    with pytest.raises(Cancelled):
        session.push(noise(0.1), 16_000)
    until(lambda: live.closed == ["anna"])
    until(lambda: not readers())
    assert live.sessions.stats().ended == {"closed": 1}


def test_a_session_ends_by_a_rule_and_says_which(serve_live: ServeLive) -> None:
    live = serve_live(rules=SessionRules(max_duration_s=60))
    with AvatarConnection(live.address) as client, client.converse("anna", PACED) as session:
        live.sessions.on_due(time.monotonic() + 60)
        assert list(session)[-1] == Ended("max_duration")
    until(lambda: not readers())


def test_a_session_is_closed_at_once_though_much_speech_waits(client: AvatarConnection) -> None:
    with client.converse("anna", PACED) as session:
        pushing = threading.Thread(target=push_all, args=(session,), name="pushing")
        pushing.start()
        until_full(session, pushing)
    pushing.join()
    until(lambda: not readers())


def until_full(session: ConverseStream, pushing: threading.Thread) -> None:
    """Until the stream is full; or gRPC, whose windows grow, has taken all that the server will
    not."""
    until(lambda: len(session._waiting) >= 32 or not pushing.is_alive())


def push_all(session: ConverseStream) -> None:
    try:
        session.push(noise(200.0, 8_000), 8_000)
    except Cancelled:
        return


def test_a_draining_server_says_so_and_ends_what_is_left(serve_live: ServeLive) -> None:
    clock = Clock()
    live = serve_live(clock=clock)
    with AvatarConnection(live.address) as client, client.converse("anna", PACED) as session:
        draining = threading.Thread(target=live.server.drain, args=(WAIT_S,), name="draining")
        draining.start()
        seen = until_seen(session, lambda got: isinstance(got, GoingAway))
        (going,) = kinds(seen, GoingAway)
        assert (going.reason, going.left_s) == ("the server is shutting down", WAIT_S)
        until_seen(session, lambda got: isinstance(got, LiveFrame))
        with pytest.raises(Unavailable, match="shutting down"):
            client.converse("anna")
        clock.now += WAIT_S
        with pytest.raises(Unavailable, match="shutting down; begin a session on another one"):
            for _ in session:
                pass
        draining.join()
    until(lambda: not readers())


def test_a_server_that_stops_cuts_off_what_it_says(serve_live: ServeLive) -> None:
    live = serve_live()
    with AvatarConnection(live.address) as client, client.converse("anna", PACED) as session:
        live.server.stop()
        with pytest.raises(Unavailable):
            list(session)


# -- streams that break ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_session_is_found_again_where_its_connection_broke(
    live: LiveServer, client: AvatarConnection
) -> None:
    with AvatarConnection(live.address) as first:
        session = first.converse("anna", PACED)
        session.push(noise(30.0), 16_000)
        until_seen(session, lambda got: isinstance(got, SpeechBegan))
    until(lambda: not readers())
    with client.resume(session.id) as again:
        assert (again.resumed, again.id, again.state) == (True, session.id, State.SPEAKING)
        seen = until_seen(again, lambda got: isinstance(got, LiveFrame))
        assert kinds(seen, LiveFrame)[0].data.endswith(b"speaks")
        again.interrupt()
        until_seen(again, ends_speech)
        again.push(noise(0.1), 16_000)
        again.end_of_speech()
        seen = until_seen(again, ends_speech)
        assert kinds(seen, SpeechEnded)[0].spoken_ms == 100
        assert not kinds(seen, Refused)
    with pytest.raises(NotFound, match="no such session"):
        client.resume(session.id)


def test_a_session_ends_whose_client_does_not_come_back(serve_live: ServeLive) -> None:
    live = serve_live(rules=SessionRules(reconnect_grace_s=0))
    with AvatarConnection(live.address) as client:
        session = client.converse("anna", PACED)
        session.leave()
        until(lambda: live.closed == ["anna"])
        with pytest.raises(NotFound):
            client.resume(session.id)
    assert live.sessions.stats().ended == {"reconnect_grace": 1}


def test_a_stream_that_goes_on_elsewhere_ends(client: AvatarConnection) -> None:
    session = client.converse("anna", PACED)
    until_seen(session, lambda got: isinstance(got, LiveFrame))
    with client.resume(session.id) as again:
        until_seen(again, lambda got: isinstance(got, LiveFrame))
        assert list(session)[-1] == Ended("resumed by another stream")
        until_seen(again, lambda got: isinstance(got, LiveFrame))
        until(lambda: len(readers()) == 1)


def test_a_session_of_somebody_else_is_not_found(
    live: LiveServer, client: AvatarConnection
) -> None:
    with client.converse("bert", PACED):
        others = live.sessions.open("anna", PACED, tenant="others", call=Call(10))
        for session_id in ("", "abc", others.id):
            with pytest.raises(NotFound if session_id else InvalidInput):
                client.resume(session_id)
            with pytest.raises(grpc.RpcError) as refused:
                client._stub.InterruptSession(pb.InterruptSessionRequest(session_id=session_id))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_client_has_two_sessions(client: AvatarConnection) -> None:
    with client.converse("anna", PACED) as first, client.converse("bert", PACED) as second:
        assert first.id != second.id
        for session, name in ((first, b"anna"), (second, b"bert")):
            seen = until_seen(session, lambda got: isinstance(got, LiveFrame))
            assert kinds(seen, LiveFrame)[0].data.startswith(name)


@pytest.mark.slow
def test_a_client_that_does_not_read_is_not_waited_for(serve_live: ServeLive) -> None:
    live = serve_live(frame_bytes=4_000_000)
    with AvatarConnection(live.address) as client:
        slow = client.converse("anna", PACED)
        session = live.sessions.find(slow.id)
        until(lambda: session.counts.dropped >= 3)
        # The others do not notice.
        with client.converse("bert", PACED) as quick:
            until_seen(quick, lambda got: isinstance(got, LiveFrame))
        # When it reads, it is on the clock again.
        seen = until_seen(slow, lambda got: isinstance(got, Sound) and got.at_ms >= 200)
        times = [sound.at_ms for sound in kinds(seen, Sound)]
        assert times == sorted(set(times))
        slow.close()


def test_a_session_that_is_kept_alive_does_not_become_idle(
    live: LiveServer, client: AvatarConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    monkeypatch.setattr(live.sessions, "keep_alive", lambda session: kept.append(session.id))
    with client.converse("anna", PACED) as session:
        session.keep_alive()
        until(lambda: kept == [session.id])


def test_a_connection_needs_an_address() -> None:
    with pytest.raises(InvalidInput):
        AvatarConnection("http://localhost:50052")


def test_nobody_listens() -> None:
    with AvatarConnection("127.0.0.1:1") as client, pytest.raises(Unavailable):
        client.converse("anna")
