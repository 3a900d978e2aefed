"""Whether a video says that its pixels have alpha, where the decoder gives their colour alone.

VP8 and VP9 keep alpha beside the picture, which FFmpeg's own decoders do not look at; Matroska says
that it is there (``AlphaMode``, RFC 9559, 5.1.4.1.28.4). HEVC has a layer of its own for it, and a
message that says what it means (ITU-T H.265, F.14.2.8); hvcC: ISO/IEC 14496-15, 8.3.2.
"""

from collections.abc import Iterator
from typing import Final

from av.video.stream import VideoStream

_SEI: Final = frozenset({39, 40})
"""NAL units of messages, in front of pictures and behind them (H.265, table 7-1)."""
_ALPHA_CHANNEL_INFO: Final = 165
_ARRAYS_AT: Final = 22  # in hvcC: how many arrays of NAL units follow


def says_alpha(stream: VideoStream) -> bool:
    """Return whether the file of ``stream`` says that its pixels have alpha in a layer of its own
    (VP8 and VP9 in WebM, HEVC), which decoded frames then lack."""
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    if tags.get("alpha_mode", "0") not in ("", "0"):
        return True
    context = stream.codec_context
    return context.name == "hevc" and tells_alpha(context.extradata or b"")


def tells_alpha(extradata: bytes) -> bool:
    """Return whether ``extradata`` of an HEVC stream says that one of its layers is alpha (the SEI
    message alpha channel information). ``extradata`` is its parameter sets, in the form of MP4
    (hvcC) or one after the other with start codes."""
    units = _of_hvcc(extradata) if extradata[:1] == b"\1" else extradata.split(b"\0\0\1")
    return any(
        len(unit) > 2 and unit[0] >> 1 & 0x3F in _SEI and _ALPHA_CHANNEL_INFO in _messages(unit[2:])
        for unit in units
    )


def _of_hvcc(extradata: bytes) -> Iterator[bytes]:
    at = _ARRAYS_AT + 1
    for _ in range(extradata[_ARRAYS_AT] if len(extradata) > _ARRAYS_AT else 0):
        count = int.from_bytes(extradata[at + 1 : at + 3])
        at += 3
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2])
            if at + 2 + size > len(extradata) or not size:
                return
            yield extradata[at + 2 : at + 2 + size]
            at += 2 + size


def _messages(data: bytes) -> Iterator[int]:
    """The kinds of the messages of a NAL unit: numbers of bytes that are 255 but for the last, each
    kind followed by its size (H.265, 7.3.5)."""
    at = 0

    def number() -> int:
        nonlocal at
        total = 0
        while at < len(data):
            total += data[at]
            at += 1
            if data[at - 1] != 0xFF:
                break
        return total

    while at + 1 < len(data) and data[at:] != b"\x80":
        kind, size = number(), number()
        yield kind
        at += size
