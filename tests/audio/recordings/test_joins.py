"""MP4 files in fragments that were put together."""

import io
import struct
from functools import cache

import numpy as np
import pytest
from tests.audio.soundfiles import encoded, loud, tone

from lipwire.audio import FileRecording
from lipwire.audio.recordings import joins
from lipwire.audio.recordings.joins import beginnings
from lipwire.domain import InvalidInput

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}


@cache
def fragmented(seconds: float, codec: str = "aac", begin_s: float = 0.0) -> bytes:
    sound = tone(seconds, 44_100)
    return encoded("mp4", codec, sound, 44_100, options=FRAGMENTED, move_s=lambda _time_s: begin_s)


def box(kind: bytes, content: bytes = b"", *, long: bool = False) -> bytes:
    if long:
        return b"\0\0\0\1" + kind + struct.pack(">Q", 16 + len(content)) + content
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize(
    ("parts", "length_s"),
    [
        ([fragmented(2.0), fragmented(3.0)], 5.0),
        ([fragmented(2.0), fragmented(1.0), fragmented(3.0)], 6.0),
        ([fragmented(2.0), fragmented(3.0, begin_s=2.0)], 5.0),  # as players are sent them
        ([fragmented(2.0), fragmented(3.0, "flac")], 5.0),
        ([fragmented(2.0), encoded("mp4", "aac", tone(3.0, 44_100), 44_100)], 5.0),
        ([fragmented(2.0), box(b"free", bytes(50), long=True), fragmented(3.0)], 5.0),
        ([fragmented(3.0)], 3.0),
    ],
)
def test_fragmented_files_that_were_put_together_are_heard_one_after_the_other(
    parts: list[bytes], length_s: float
) -> None:
    with FileRecording(b"".join(parts)) as recording:
        heard = np.concatenate(list(recording.heard()))
        assert recording.warnings == ()
    assert len(heard) / 16_000 == pytest.approx(length_s, abs=0.3)
    for start_s in np.arange(0.2, length_s - 0.5, 0.5):
        assert loud(heard, start_s, start_s + 0.1)


def test_only_so_many_boxes_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of boxes of 8 bytes each has more of them than can be counted."""
    monkeypatch.setattr(joins, "MAX_BOXES", 9)
    data = fragmented(2.0) + box(b"free") * 100
    with pytest.raises(InvalidInput, match=r"^what the bytes hold .* more than 9 boxes;"):
        FileRecording(data)
    monkeypatch.setattr(joins, "MAX_BOXES", 200)
    with FileRecording(data) as recording:
        assert recording.warnings == ()


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("flac", b"fLaC\0\0\0\x22" + bytes(34)),
        ("ogg", b"OggS\0\2" + bytes(50) + b"OggS\0\0" + bytes(50)),
        ("mp3", b"\xff\xfb\x90\x64" + bytes(60) + b"TAG" + bytes(125)),
        ("mov,mp4,m4a", box(b"ftyp") + box(b"moov") + box(b"moof")),
    ],
)
def test_only_so_many_files_may_be_put_together(
    kind: str, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joins, "MAX_PARTS", 5)
    assert len(beginnings(io.BytesIO(part * 5), len(part) * 5, kind)) == 5
    with pytest.raises(InvalidInput, match="was put together from more than 5 files"):
        beginnings(io.BytesIO(part * 6), len(part) * 6, kind)
