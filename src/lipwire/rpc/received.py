"""What a client gets of a live session, and audio as it sends it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipwire.audio import from_int16, to_int16
from lipwire.domain import Float32Array, InvalidInput
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.session.live import (
    FRAME_MS,
    Caption,
    FramesDropped,
    GoingAway,
    LiveFrame,
    Sound,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of the client that the server did not follow: ``error_code`` is the name of a gRPC
    status code, such as INVALID_ARGUMENT, and ``error`` one line with the value seen and the value
    allowed. ``message`` is its field of ``ConverseRequest``, as "say", and ``number`` says that it
    was the first (1), second and so on of its kind on this connection; servers of version 0.1 leave
    both out (empty, 0). The session goes on."""

    error_code: str
    """The name of a gRPC status code, as INVALID_ARGUMENT."""
    error: str
    """One line with the value seen and the value allowed."""
    message: str = ""
    """Its field of ``ConverseRequest``, as "say"."""
    number: int = 0
    """The how manyth of its kind it was on this connection, from 1."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session has ended; nothing follows. ``reason`` is ``closed``, or the name of the rule
    that ended it, such as ``max_idle``."""

    reason: str
    """``closed``, or the rule that ended it, as ``max_idle``."""


Received = (
    LiveFrame
    | Sound
    | StateChanged
    | SpeechBegan
    | SpeechEnded
    | Caption
    | FramesDropped
    | GoingAway
    | Refused
    | Ended
)


def int16_of(pcm: Float32Array | npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return ``pcm``, audio of (n,) or (n, channels), int16 or float32 in [-1, 1], as a new array
    of (n, channels) int16, little endian; floats beyond [-1, 1] are limited to it. Raises
    InvalidInput where it is neither, or holds NaN or infinity."""
    columns = pcm[:, None] if pcm.ndim == 1 else pcm
    if columns.ndim != 2 or columns.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
        raise InvalidInput(
            f"audio of shape {pcm.shape} and type {pcm.dtype}; allowed: (samples,) or (samples,"
            " channels), int16 or float32"
        )
    if columns.dtype == np.int16:
        return columns.astype("<i2")
    if not np.isfinite(columns).all():
        raise InvalidInput("audio has samples that are NaN or infinite")
    return to_int16(columns.astype(np.float32, copy=False))


def received_of(message: pb.ConverseResponse) -> Received | None:
    """Return what ``message`` says, as the client's own type: a frame, sound or event, ``Refused``
    or ``Ended``. None for a message that this client does not know."""
    match message.WhichOneof("message"):
        case "picture":
            picture = message.picture
            return LiveFrame(
                picture.at_ms // FRAME_MS,
                picture.data,
                picture.width,
                picture.height,
                picture.position,
                picture.speech,
            )
        case "sound":
            sound = message.sound
            return Sound(sound.at_ms // FRAME_MS, from_int16(sound.samples), sound.speech)
        case "state_changed":
            change = message.state_changed
            if change.state not in frozenset(State):
                return None
            return StateChanged(change.at_ms, State(change.state), change.speech)
        case "speech_began":
            return SpeechBegan(message.speech_began.at_ms, message.speech_began.speech)
        case "speech_ended":
            ended = message.speech_ended
            return SpeechEnded(
                ended.at_ms, ended.speech, ended.spoken_ms, ended.interrupted, ended.left_ms
            )
        case "caption":
            return Caption(message.caption.at_ms, message.caption.speech, message.caption.text)
        case "frames_dropped":
            dropped = message.frames_dropped
            return FramesDropped(dropped.at_ms, dropped.count, dropped.reason)
        case "going_away":
            going = message.going_away
            return GoingAway(going.at_ms, going.reason, going.left_s)
        case "refused":
            refused = message.refused
            return Refused(refused.error_code, refused.error, refused.message, refused.number)
        case "ended":
            return Ended(message.ended.reason)
        case _:
            return None
