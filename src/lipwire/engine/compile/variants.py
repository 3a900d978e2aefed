"""Networks that are like the ones served and are others, told by the shapes of their inputs.

The SyncTalk_2D family has variants for three kinds of speech features, and comes from networks of
160 pixels; shapes are those of https://github.com/ZiqiaoPeng/SyncTalk_2D (``utils``, ``unet_328``),
https://github.com/anliyuan/Ultralight-Digital-Human and https://github.com/Rudrabha/Wav2Lip.
"""

from collections.abc import Sequence
from typing import Final

from lipwire.domain import AUDIO_WINDOW_SHAPE, MOUTH_PX

Dims = tuple[int | str | None, ...]
"""Of an input or output: numbers, and names or None where it is open."""

_HUBERT: Final = ((32, 32, 32), (16, 32, 32))
_WENET: Final = (16, 32)
"""The last two; before them are 256 or 128."""
_UNSHAPED: Final = ((16, 512), (1, 16, 512), (512, 16), (8192,))
_MEL: Final = (1, 80, 16)
_CHANNELS: Final = 2 * 3
_MAKERS: Final = {160: " as Ultralight-Digital-Human's", 96: " as Wav2Lip's", 288: " as Wav2Lip's"}


def known_variant(inputs: Sequence[Dims | None]) -> str:
    """Return what kind of network has inputs of these shapes, as text that begins with "; ", to be
    put at the end of a message; an empty string where the kind is not known.

    ``inputs`` are the shapes of the network's inputs; a dimension is a number, or a name or None
    where it is open. None in place of a shape: the file does not say.
    """
    shapes = [dims[1:] for dims in inputs if dims is not None and len(dims) > 1]
    if shapes == [_MEL]:
        return "; that is an audio encoder, which belongs to checkpoint/audio_encoder.onnx"
    told = [told for shape in shapes if (told := _speech(shape) or _picture(shape))]
    return "".join(f"; {each}" for each in told)


def _speech(shape: Dims) -> str | None:
    sizes = [size for size in shape if isinstance(size, int)]
    if shape in _HUBERT or 1024 in sizes:
        kind = "the family's hubert variant"
    elif len(shape) == 3 and shape[1:] == _WENET:
        kind = "the family's wenet variant"
    elif shape == _MEL:
        kind = "a mel spectrogram, as Wav2Lip hears it"
    elif shape in ((50, 384), (384,)):
        kind = "Whisper's features, as MuseTalk hears them"
    elif 29 in sizes:
        kind = "DeepSpeech's features"
    elif shape in _UNSHAPED:
        kind = "'ave' features in another shape"
    else:
        return None
    wanted = "x".join(map(str, AUDIO_WINDOW_SHAPE))
    return (
        f"its audio input is {_written(shape)}: that is {kind}; served are 'ave' features {wanted}"
    )


def _picture(shape: Dims) -> str | None:
    if len(shape) != 3:
        return None
    if shape[2] == _CHANNELS:
        return f"its crops are {_written(shape)}: the channels have to come first"
    side = shape[1]
    if shape[0] == _CHANNELS and isinstance(side, int) and side == shape[2] and side != MOUTH_PX:
        return (
            f"its crops are {_written(shape)}: that is a network of {side} pixels"
            f"{_MAKERS.get(side, '')}; served are networks of {MOUTH_PX} pixels"
        )
    return None


def _written(shape: Dims) -> str:
    sides = ("?" if side is None else str(side)[:12] for side in shape)
    return f"(N, {', '.join(sides)})"
