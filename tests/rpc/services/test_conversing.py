"""Live sessions over a socket, as a client of another make sees them, which may send anything."""

import threading
import time

import grpc
import pytest
from tests.rpc.conftest import ServeLive
from tests.rpc.liveserver import LiveServer, Raw, noise
from tests.support.waiting import until

from lipwire.domain import Call
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.services import conversing, livemessages
from lipwire.session.live import Item, LiveSession, SessionObserver, SessionRules


@pytest.mark.slow
def test_an_interruption_beside_the_stream_is_the_one_in_it(live: LiveServer) -> None:
    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna", gate=False))
        session_id = raw.until("started").session_id
        raw.say(audio=pb.SpeechAudio(samples=noise(2.0).tobytes()))
        raw.until("speech_began")
        raw.stub.InterruptSession(pb.InterruptSessionRequest(session_id=session_id, number=1))
        assert raw.until("speech_ended").interrupted
        # On its way when it was interrupted: dropped. After it: heard.
        raw.say(audio=pb.SpeechAudio(samples=noise(2.0).tobytes(), after_interrupts=0))
        raw.say(audio=pb.SpeechAudio(samples=noise(0.2).tobytes(), after_interrupts=1))
        raw.say(interrupt=pb.Interrupt(number=1))
        raw.say(end_of_speech=pb.EndOfSpeech())
        ended = raw.until("speech_ended")
        assert (ended.spoken_ms, ended.interrupted) == (200, False)


def test_who_interrupts_a_session_that_ends_finds_it_gone(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends_first(session: LiveSession, number: int | None = None) -> None:
        live.sessions.end(session)
        interrupt(session, number)

    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna"))
        session_id = raw.until("started").session_id
        interrupt = LiveSession.interrupt
        monkeypatch.setattr(LiveSession, "interrupt", ends_first)
        with pytest.raises(grpc.RpcError) as refused:
            raw.stub.InterruptSession(pb.InterruptSessionRequest(session_id=session_id))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        pb.ConverseRequest(audio=pb.SpeechAudio(samples=b"12")).SerializeToString(),
        pb.ConverseRequest().SerializeToString(),
        b"\xff\xff\xff\xff",
        pb.ConverseRequest(
            start=pb.StartSession(model_id="anna", start_frame=-1)
        ).SerializeToString(),
        pb.ConverseRequest(
            start=pb.StartSession(model_id="anna", sound_rate=7)
        ).SerializeToString(),
        pb.ConverseRequest(start=pb.StartSession()).SerializeToString(),
        None,
    ],
    ids=["audio", "empty", "garbage", "start frame", "sound rate", "no avatar", "nothing"],
)
def test_a_wrong_first_message_is_refused(live: LiveServer, first: bytes | None) -> None:
    with Raw(live) as raw:
        raw.send(first)
        with pytest.raises(grpc.RpcError) as refused:
            raw.until("started")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert live.sessions.stats().active == 0


def test_a_session_ends_whose_client_has_gone_before_it_was_told_of_it(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin = conversing.ConversingServicer._begin

    def begin_and_leave(
        servicer: conversing.ConversingServicer, message: pb.ConverseRequest | None, call: Call
    ) -> tuple[LiveSession, bool]:
        begun = begin(servicer, message, call)
        raw.answers.cancel()
        until(lambda: call.ended)
        return begun

    # A server has what it will call before the first message comes.
    monkeypatch.setattr(conversing.ConversingServicer, "_begin", begin_and_leave)
    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna"))
        until(lambda: live.closed == ["anna"])
    assert live.sessions.stats().active == 0
    assert "incident" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (pb.SpeechAudio(samples=b"RIFF\0\0\0\0WAVEfmt "), "samples begins as"),
        (pb.SpeechAudio(samples=b"123"), "samples is 3 bytes"),
        (pb.SpeechAudio(samples=b"12", sample_rate=7), "sample_rate is 7"),
        (pb.SpeechAudio(samples=b"12", channels=-1), "channels is -1"),
        (pb.SpeechAudio(samples=b"12", sequence=5), "audio number 5; expected is 1"),
    ],
    ids=["file", "half a sample", "rate", "channels", "sequence"],
)
def test_bad_audio_is_refused_and_the_session_goes_on(
    live: LiveServer, wrong: pb.SpeechAudio, said: str
) -> None:
    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna", gate=False))
        raw.say(audio=pb.SpeechAudio(samples=noise(0.1).tobytes(), sequence=0))
        counted = 1
        if not wrong.HasField("sequence"):
            wrong.sequence = 1
            counted = 2
        raw.say(audio=wrong)
        refused = raw.until("refused")
        assert refused.error_code == "INVALID_ARGUMENT"
        assert said in refused.error
        # It counts as a message all the same.
        raw.say(audio=pb.SpeechAudio(samples=noise(0.1).tobytes(), sequence=counted))
        raw.say(end_of_speech=pb.EndOfSpeech())
        assert raw.until("speech_ended").spoken_ms == 200


def test_audio_without_samples_counts_as_a_message(live: LiveServer) -> None:
    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna", gate=False))
        raw.say(audio=pb.SpeechAudio(sequence=0))
        raw.say(audio=pb.SpeechAudio(samples=noise(0.1).tobytes(), sequence=1))
        raw.say(end_of_speech=pb.EndOfSpeech())
        assert raw.until("speech_ended").spoken_ms == 100


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff\xff\xff\xff",
        pb.ConverseRequest().SerializeToString(),
        pb.ConverseRequest(start=pb.StartSession(model_id="anna")).SerializeToString(),
        pb.ConverseRequest(interrupt=pb.Interrupt(number=-1)).SerializeToString(),
    ],
    ids=["garbage", "empty", "second start", "interrupt number"],
)
def test_a_wrong_message_is_refused_and_the_session_goes_on(live: LiveServer, wrong: bytes) -> None:
    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna"))
        raw.send(wrong)
        assert raw.until("refused").error_code == "INVALID_ARGUMENT"
        raw.say(listening=pb.Listening(listening=True))
        assert raw.until("state_changed").state == "listening"


def test_a_client_that_goes_while_an_avatar_is_opened_leaves_nothing(serve_live: ServeLive) -> None:
    opened, go_on = threading.Event(), threading.Event()

    def opening(name: str) -> None:
        opened.set()
        go_on.wait()

    live = serve_live(opening=opening, rules=SessionRules(reconnect_grace_s=0))
    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna"))
        opened.wait()
        raw.answers.cancel()
    go_on.set()
    until(lambda: live.closed == ["anna"])
    until(lambda: live.sessions.stats().active == 0)


@pytest.mark.slow
def test_the_work_of_sending_counts_for_the_picture_after_it(
    serve_live: ServeLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked_s: list[float] = []

    class Told(SessionObserver):
        def composed(self, processor_s: float) -> None:
            worked_s.append(processor_s)

    def laborious(item: Item) -> pb.ConverseResponse:
        until_s = time.thread_time() + 0.02
        while time.thread_time() < until_s:
            pass
        return livemessages.message_of(item)

    monkeypatch.setattr(conversing, "message_of", laborious)
    live = serve_live(observer=Told())
    with Raw(live) as raw:
        raw.say(start=pb.StartSession(model_id="anna"))
        raw.until("started")
        until(lambda: sum(worked_s) > 0.3)  # which composing takes minutes to come to
