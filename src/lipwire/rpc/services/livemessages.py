"""What a live session has for its client, as messages, and what its first message asks for."""

from lipwire.audio import to_int16
from lipwire.domain import Float32Array, InvalidInput
from lipwire.rpc.errors import public_message
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.services.livestreams import Refusal
from lipwire.session.live import (
    Caption,
    FramesDropped,
    GoingAway,
    Item,
    LiveFrame,
    SessionSettings,
    Sound,
    SpeechBegan,
    SpeechEnded,
    StateChanged,
)


def settings_of(start: pb.StartSession) -> SessionSettings:
    """Return the settings of the session that ``start`` asks for. Raises InvalidInput, with the
    value seen and the value allowed, where one is out of range."""
    given: dict[str, float] = {
        name: getattr(start, field)
        for name, field in (
            ("lookahead_ms", "lookahead_ms"),
            ("gate", "gate"),
            ("crossfade_frames", "crossfade_frames"),
            ("end_of_speech_timeout_s", "end_of_speech_timeout"),
        )
        if start.HasField(field)  # type: ignore[arg-type]
    }
    if start.sound_rate:
        given["sound_rate_hz"] = start.sound_rate
    return SessionSettings(
        start_frame=start.start_frame,
        paced=not start.unpaced,
        **given,  # type: ignore[arg-type]
    )


def interrupt_number(number: int) -> int | None:
    """Return ``number``, how many interrupts a message says that its client has sent; None for 0,
    which stands for a client that does not count. Raises InvalidInput for a number below 0."""
    if number < 0:
        raise InvalidInput(f"interrupt number is {number}; allowed are 0 and above")
    return number or None


def _pcm16(samples: Float32Array, speech: int) -> bytes:
    """As the message has it: empty for silence."""
    return to_int16(samples).tobytes() if speech else b""


def message_of(item: Item) -> pb.ConverseResponse:
    """Return ``item``, a frame, sound or event of a session, as the message that its client
    gets."""
    match item:
        case LiveFrame():
            return pb.ConverseResponse(
                picture=pb.Picture(
                    at_ms=item.at_ms,
                    data=item.data,
                    width=item.width,
                    height=item.height,
                    speech=item.speech,
                    position=item.position,
                )
            )
        case Sound():
            return pb.ConverseResponse(
                sound=pb.Sound(
                    at_ms=item.at_ms,
                    samples=_pcm16(item.samples, item.speech),
                    speech=item.speech,
                )
            )
        case StateChanged():
            return pb.ConverseResponse(
                state_changed=pb.StateChanged(
                    at_ms=item.at_ms, state=item.state.value, speech=item.speech
                )
            )
        case SpeechBegan():
            return pb.ConverseResponse(
                speech_began=pb.SpeechBegan(at_ms=item.at_ms, speech=item.speech)
            )
        case SpeechEnded():
            return pb.ConverseResponse(
                speech_ended=pb.SpeechEnded(
                    at_ms=item.at_ms,
                    speech=item.speech,
                    spoken_ms=item.spoken_ms,
                    interrupted=item.interrupted,
                    left_ms=item.left_ms,
                )
            )
        case Caption():
            return pb.ConverseResponse(
                caption=pb.Caption(at_ms=item.at_ms, speech=item.speech, text=item.text)
            )
        case FramesDropped():
            return pb.ConverseResponse(
                frames_dropped=pb.FramesDropped(
                    at_ms=item.at_ms, count=item.count, reason=item.reason
                )
            )
        case GoingAway():
            return pb.ConverseResponse(
                going_away=pb.GoingAway(at_ms=item.at_ms, reason=item.reason, left_s=item.left_s)
            )


def refused_of(refusal: Refusal) -> pb.ConverseResponse:
    """Return the message that tells a client which message was not followed, and why:
    ``refusal``."""
    error = refusal.error
    return pb.ConverseResponse(
        refused=pb.Refused(
            error_code=error.code,
            error=public_message(error),
            message=refusal.message,
            number=refusal.number,
        )
    )
