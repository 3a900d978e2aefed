"""Recordings as frames of sound: the one place where files are decoded.

A file may consist of several that were put together (``joins``); each is decoded for itself, and
their sound follows one another.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from lipwire.audio.recordings.behind import another_file_follows, note_what_lies_behind
from lipwire.audio.recordings.clock import Decoded, on_one_clock
from lipwire.audio.recordings.containers import (
    BARE,
    NotAudioError,
    open_container,
    parts_of,
)
from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.lengths import declared_length_s, packet_length_s, too_short
from lipwire.audio.recordings.source import Source
from lipwire.audio.recordings.tracks import choose_track
from lipwire.domain.media import packets_of

_TIMED: Final = frozenset({"matroska", "mov", "mpegts", "flv", "asf", "ogg", "nut", "mxf", "rm"})
"""Containers whose time stamps say when sound is heard, where others count samples."""
_SYNC_BITS: Final = {"mp3": 0xFFE0, "aac": 0xFFF0}
"""Formats without a container: the bits that begin each frame. What else lies between is no sound.
(ISO/IEC 11172-3, 2.4.2.3; 14496-3, 1.A.2.2)"""


def read_frames(source: Source, track: int | None, findings: Findings) -> Generator[av.AudioFrame]:
    """Yield the decoded frames of one audio track of ``source``, with silence where it has holes;
    files that were put together with ``cat`` follow one another.

    ``track`` counts audio tracks from 1; None is the one marked as default, or the first. Warnings
    are added to ``findings``. Rate, channels and format may differ from frame to frame. Close the
    iterator where it is not exhausted.

    Raises InvalidInput, while it is iterated, for a file that is not audio or has no such track,
    and for one that is damaged or truncated where ``findings`` does not allow that.
    """
    with open_container(source) as container:
        parts = parts_of(container, source)
        if len(parts) == 1:
            yield from _sound_of(container, source, track, findings, last=True)
            return
    for part in parts:
        try:
            with open_container(part) as container:
                last = part is parts[-1]
                yield from _sound_of(container, part, track, findings, last=last)
        except NotAudioError as error:
            findings.damage(f"damaged {findings.heard_s:.2f} s after its beginning", cause=error)


def _sound_of(
    container: InputContainer, source: Source, track: int | None, findings: Findings, *, last: bool
) -> Iterator[av.AudioFrame]:
    before_s, findings.last_packet = findings.heard_s, (0, 0)
    stream = choose_track(container, track, source.name)
    yield from on_one_clock(_decoded(container, source, stream, findings), findings)
    length_s = findings.heard_s - before_s
    declared_s = declared_length_s(container, stream) - findings.closed_up_s
    if length_s and too_short(length_s, declared_s):
        findings.damage(f"truncated or damaged: {length_s:.2f} s of {declared_s:.2f} s are there")
    name = container.format.name
    if name != "wav":  # what a WAV holds more was looked at (``wav``)
        note_what_lies_behind(source.file, source.size_bytes, name, findings, last=last)


def _decoded(
    container: InputContainer, source: Source, stream: AudioStream, findings: Findings
) -> Iterator[Decoded]:
    """Frames, each with what failed in front of it. What fails at the end is passed over: files
    carry junk there."""
    names = container.format.name.split(",")
    timed = not _TIMED.isdisjoint(names)
    begin_s = (container.start_time or 0) / av.time_base
    sync = _SYNC_BITS.get(names[0])
    lost_s = last_s = 0.0
    junk_bytes = 0
    try:
        for packet in packets_of(container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if sync is None or _begins_with(bytes(packet), sync):
                    lost_s += packet_length_s(packet) or last_s
                else:
                    junk_bytes += packet.size
                continue
            if frames and packet.pos is not None:
                findings.last_packet = (packet.pos, packet.pos + packet.size)
            for frame in frames:
                last_s = frame.samples / max(1, frame.sample_rate)
                time_s = None
                if timed and frame.pts is not None and frame.time_base is not None:
                    time_s = float(frame.pts * frame.time_base) - begin_s
                if junk_bytes and findings.heard_s:
                    findings.note(
                        f"{junk_bytes} bytes, {findings.heard_s:.2f} s after its beginning, are no "
                        "sound and were passed over"
                    )
                yield Decoded(frame, time_s, lost_s)
                lost_s, junk_bytes = 0.0, 0
    except (av.FFmpegError, OSError, ValueError) as error:  # or the file was closed
        # Of a bare format FFmpeg reads on in a file of another one, and fails.
        bare = names[0] in BARE and isinstance(error, av.FFmpegError)
        if not (bare and another_file_follows(source.file, source.size_bytes, findings)):
            findings.damage(f"truncated or damaged at {findings.heard_s:.2f} s", cause=error)


def _begins_with(packet: bytes, sync: int) -> bool:
    return int.from_bytes(packet[:2], "big") & sync == sync
