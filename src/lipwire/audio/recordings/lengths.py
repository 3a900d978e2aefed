"""How long a recording is, by what its container says, without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from lipwire.audio.recordings.containers import BARE, open_container, parts_of
from lipwire.audio.recordings.source import Source
from lipwire.audio.recordings.tracks import choose_track
from lipwire.domain import InvalidInput
from lipwire.domain.media import packets_of

_EXACT_LENGTHS: Final = frozenset({"wav", "w64", "flac", "aiff", "au", "caf", "ogg", "mov"})
_MISSING_S: Final = 0.5  # what a file may lack of its own length: edit lists, encoder padding
_MISSING_SHARE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a recording's file says of it: its approximate length in seconds (``length_s``; 0 where
    it is not known), and whether it was ``cut_short``, because the end that it declares is not
    there."""

    length_s: float  # about; 0 where nothing tells it
    cut_short: bool  # whether the end that the file declares is not there


def outlook(source: Source, track: int | None) -> Outlook:
    """Return how many seconds long audio track ``track`` of ``source`` is according to its file
    (``length_s``, 0 where that is not known), and whether it was cut short (``cut_short``), without
    decoding it. Packets are read where the headers do not say how long it is. ``track`` counts from
    1; None is the default one.

    The position of ``source.file`` is afterwards what it was before, so that a container that is
    open on the file can still be read. Raises nothing for a file that is wrong: it counts as cut
    short with length 0, and decoding it raises the error.
    """
    position = source.file.tell()
    try:
        with open_container(source) as container:
            parts = parts_of(container, source)
            if len(parts) == 1:
                return _outlook(container, source, track)
        looks = []
        for part in parts:
            with open_container(part) as container:
                looks.append(_outlook(container, part, track))
        return Outlook(sum(look.length_s for look in looks), any(look.cut_short for look in looks))
    except InvalidInput:
        return Outlook(0.0, cut_short=True)
    finally:
        source.file.seek(position)


def declared_length_s(container: InputContainer, stream: AudioStream) -> float:
    """Return how many seconds long ``stream``, an audio track of the opened ``container``, is
    according to the file; 0 where the file does not say it, or where FFmpeg would only guess."""
    names = set(container.format.name.split(","))
    # The ends of Ogg and Matroska count from 0; a broadcast, or a cut, may begin at another time.
    begin_s = max(0, container.start_time or 0) / av.time_base
    if names & _EXACT_LENGTHS and stream.duration and stream.time_base:
        length_s = float(stream.duration * stream.time_base)
        return length_s - begin_s if "ogg" in names else length_s
    if "matroska" in names and container.duration and len(container.streams) == 1:
        return container.duration / av.time_base - begin_s
    return 0.0


def too_short(length_s: float, declared_s: float) -> bool:
    """Return whether ``length_s`` seconds are fewer than the ``declared_s`` seconds of a file's
    header by more than edit lists and encoders explain: by over 0.5 s and over 2 %."""
    return declared_s - length_s > max(_MISSING_S, _MISSING_SHARE * declared_s)


def packet_length_s(packet: av.Packet[AudioStream]) -> float:
    """Return how many seconds of sound ``packet`` holds; 0 where that is not known."""
    if packet.duration is None or packet.time_base is None:
        return 0.0
    return float(packet.duration * packet.time_base)


def _outlook(container: InputContainer, source: Source, track: int | None) -> Outlook:
    stream = choose_track(container, track, source.name)
    if declared_s := declared_length_s(container, stream):
        return Outlook(declared_s, _cut_short(container, stream, declared_s))
    # Of formats without a container FFmpeg guesses the length by the first bit rate.
    if container.duration and container.format.name not in BARE:
        return Outlook(container.duration / av.time_base, cut_short=False)
    return Outlook(_last_end_s(container, stream), cut_short=False)


def _cut_short(container: InputContainer, stream: AudioStream, declared_s: float) -> bool:
    """Whether no packet is there from about the declared end."""
    least_s = (1 - _MISSING_SHARE) * declared_s - _MISSING_S
    begin_s = max(0, container.start_time or 0) / av.time_base
    try:
        container.seek(round((begin_s + least_s) * av.time_base))
    except av.FFmpegError:
        return False  # it cannot be sought in
    return too_short(_last_end_s(container, stream), declared_s)


def _last_end_s(container: InputContainer, stream: AudioStream) -> float:
    """Where the last packet from here on ends, from the beginning of the file."""
    begin_s = (container.start_time or 0) / av.time_base
    end_s = 0.0
    try:
        for packet in packets_of(container, stream):
            if packet.pts is not None and packet.time_base is not None:
                packet_s = float(packet.pts * packet.time_base) - begin_s
                end_s = max(end_s, packet_s + packet_length_s(packet))
    except (av.FFmpegError, OSError, ValueError):
        pass
    return end_s
