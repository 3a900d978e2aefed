"""Files told from bare samples by how they begin.

Any bytes can be PCM. What is looked for takes in so many bits (32 and more) that speech does not
begin so by chance.
"""

import re
from typing import Final

HEAD_BYTES: Final = 8192
"""As much of the beginning as is looked at: three MPEG frames of the largest size fit into it."""

_BEGINNINGS: Final = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("a WAV file", rb"(RIFF|RIFX|RF64).{4}WAVE"),
        ("an AVI file", rb"RIFF.{4}AVI "),
        # Its header may be cut off or damaged; what follows would be heard as noise.
        ("a RIFF file", rb"RIFF"),
        ("an AIFF file", rb"FORM.{4}AIF[FC]"),
        # Version, revision, flags, and a length of four times 7 bits (id3.org, ID3v2.4, 3.1).
        ("an MP3 file", rb"ID3[\x00-\x04]\x00[\x00\x10-\xf0][\x00-\x7f]{4}"),
        # Version 0, one of eight page types (RFC 3533, 6).
        ("an Ogg file", rb"OggS\x00[\x00-\x07]"),
        # The first block is STREAMINFO, which has 34 bytes (RFC 9639, 8).
        ("a FLAC file", rb"fLaC[\x00\x80]\x00\x00\x22"),
        # The first box, shorter than 64 KiB (ISO/IEC 14496-12, 4.3).
        ("an MP4 file", rb"\x00\x00..ftyp"),
        ("a Matroska or WebM file", rb"\x1a\x45\xdf\xa3.{1,60}(webm|matroska)"),
        ("an AU file", rb"\.snd\x00\x00.."),
        # GUIDs of riff and wave (Sony Wave64).
        ("a W64 file", rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"),
        ("a WavPack file", rb"wvpk.{4}.\x04"),
        ("a TTA file", rb"TTA[12]"),
        ("an AMR file", rb"#!AMR(-WB)?\n"),
        ("a CAF file", rb"caff\x00\x01\x00\x00"),
        ("a WMA file", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
    )
)

_FRAMES: Final = 3
"""Frames of MP3 or AAC that follow each other before they are taken for such."""
_MP3_KBPS: Final = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Of layer III, from index 1; by whether it is MPEG 1 (ISO/IEC 11172-3, 2.4.2.3; 13818-3)."""
_MP3_HZ: Final = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8000),
}


def file_kind(head: bytes) -> str | None:
    """Return the kind of file that begins with ``head``, its first ``HEAD_BYTES`` bytes (or fewer),
    for a message: "a WAV file" for example. None where it may be bare samples."""
    for name, pattern in _BEGINNINGS:
        if pattern.match(head):
            return name
    for name, length_of in (("an MP3 file", _mp3_bytes), ("an AAC file", _adts_bytes)):
        at = 0
        for _ in range(_FRAMES):
            length = length_of(head[at : at + 6])
            if not length:
                break
            at += length
        else:
            return name
    return None


def _mp3_bytes(header: bytes) -> int:
    """The length of the MPEG frame of layer III that ``header`` begins; 0 where it begins none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, rate, index = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or rate == 3 or not 1 <= index <= 14 or header[3] & 3 == 2:
        return 0
    bits_per_s = _MP3_KBPS[version == 3][index - 1] * 1000
    samples = 1152 if version == 3 else 576
    return samples // 8 * bits_per_s // _MP3_HZ[version][rate] + (header[2] >> 1 & 1)


def _adts_bytes(header: bytes) -> int:
    """The length of the ADTS frame that ``header`` begins (ISO/IEC 13818-7, 6.2); 0 for none."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0
