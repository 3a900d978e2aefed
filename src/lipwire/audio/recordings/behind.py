"""What lies behind a recording's sound in its file: another file that was put there, or bytes that
are no sound.

FFmpeg plays the first of two files that were put together with ``cat``, as players do, unless their
format allows that (``joins``), and says nothing about the second.
"""

import re
from typing import BinaryIO, Final

from lipwire.audio.recordings.containers import BARE
from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.joins import mp3_begins, tag_bytes

_LONGEST_SEARCH_BYTES: Final = 1 << 26
"""Behind the sound may be the rest of a video, which is not worth reading to its end."""
_LEAST_BYTES: Final = 4096  # less is padding

_BEGINNINGS: Final = re.compile(
    rb"(?P<WAV>(?:RIFF|RF64).{4}WAVE)"
    rb"|(?P<AIFF>FORM.{4}AIF[FC])"
    rb"|(?P<W64>riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb)"
    rb"|(?P<CAF>caff\x00\x01\x00\x00desc)"
    rb"|(?P<Ogg>OggS\x00\x02\x00{8})"
    rb"|(?P<FLAC>fLaC[\x00\x80]\x00\x00\x22)"
    rb"|(?P<MP4>\x00\x00\x00[\x10-\xff]ftyp)"
    rb"|(?P<FLV>FLV\x01[\x00-\x05]\x00\x00\x00\x09)"
    rb"|(?P<Matroska>\x1a\x45\xdf\xa3.{1,60}?(?:webm|matroska))"
    rb"|(?P<WMA>\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c)"
    rb"|(?P<TTA>TTA1[\x01-\x03]\x00)"
    rb"|(?P<MP3>ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4})",
    re.DOTALL,
)
_LONGEST_BEGINNING_BYTES: Final = 80


def note_what_lies_behind(
    file: BinaryIO, size_bytes: int, format_name: str, findings: Findings, *, last: bool
) -> None:
    """Add a warning to ``findings`` where something follows the last decoded packet
    (``findings.last_packet``) of ``file`` that is not heard, such as a second recording that was
    appended. Adds nothing where nothing follows, or no packet was decoded.

    Indexes and tags are parts of a file and are not noted. ``file`` is seekable; its position is
    changed. ``size_bytes`` is its length, ``format_name`` FFmpeg's name of its container. ``last``
    is whether no other part of the recording comes after this file; only the wording of the warning
    depends on it.
    """
    begin, end = findings.last_packet
    if not end:
        return
    # The last packet of some formats reaches as far as the file.
    if found := _next_file(file, size_bytes, begin):
        kind, at = found
        findings.note(
            f"what begins at byte {at} as a file of its own does ({kind}) is not heard, "
            f"{size_bytes - at} bytes; files that were put together with cat look like this"
        )
        return
    left_bytes = size_bytes - end
    if format_name in BARE and left_bytes >= _LEAST_BYTES:
        file.seek(end)
        if not tag_bytes(file.read(64)):
            place = " at its end" if last else f", {findings.heard_s:.2f} s after its beginning,"
            findings.note(f"{left_bytes} bytes{place} are no sound and were passed over")


def another_file_follows(file: BinaryIO, size_bytes: int, findings: Findings) -> bool:
    """Return whether another file begins right behind the last decoded packet
    (``findings.last_packet``) of ``file``, which is seekable and ``size_bytes`` long; False where
    none was decoded. The file's position is changed."""
    begin, end = findings.last_packet
    found = _next_file(file, min(size_bytes, end + _LEAST_BYTES), begin) if end else None
    return found is not None


def _next_file(file: BinaryIO, size_bytes: int, start: int) -> tuple[str, int] | None:
    """The first file that begins behind ``start``: its kind and where."""
    chunk_bytes = 1 << 20
    for at in range(start, min(size_bytes, start + _LONGEST_SEARCH_BYTES), chunk_bytes):
        file.seek(at)
        chunk = file.read(chunk_bytes + _LONGEST_BEGINNING_BYTES)
        for match in _BEGINNINGS.finditer(chunk):
            offset = at + match.start()
            kind = match.lastgroup or ""
            if kind != "MP3" or mp3_begins(file, offset):  # other files carry such tags too
                return kind, offset
    return None
