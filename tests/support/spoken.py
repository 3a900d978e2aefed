"""What a live session shows of a piece of speech."""

import numpy as np
import numpy.typing as npt

from lipwire.rpc.conversing import ConverseStream
from lipwire.session.live import LiveFrame, SpeechEnded


def spoken(session: ConverseStream, speech: npt.NDArray[np.int16]) -> list[bytes]:
    """The frames of ``speech``, at 16 kHz, until it has ended."""
    session.push(speech, 16_000)
    session.end_of_speech()
    frames = []
    for received in session:
        if isinstance(received, LiveFrame):
            frames.append(received.data)
        if isinstance(received, SpeechEnded):
            return frames
    raise AssertionError("the session ended")
