"""Which colours of videos can be shown, and the command that converts the others.

A video says its primaries, transfer characteristics and matrix by numbers (ITU-T H.273, tables 2
to 4). Allowed are those with which FFmpeg shows what OpenCV's ``VideoCapture`` does, without
converting anything but the matrix.
"""

import shlex
from typing import Final

import av

from lipwire.domain import AvatarInvalid

UNKNOWN: Final = 2
"""Each of the three numbers, where the video does not say it."""

_PRIMARIES: Final = frozenset({UNKNOWN, 1, 4, 5, 6, 7})
"""BT.709, BT.470 M, BT.601 for 625 and for 525 lines, SMPTE 240M."""
_TRANSFERS: Final = frozenset({UNKNOWN, 1, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 17})
"""All but HDR and logarithms."""
_MATRICES: Final = frozenset({0, UNKNOWN, 1, 4, 5, 6, 7, 9})
"""RGB, BT.709, FCC, BT.601 for 625 and for 525 lines, SMPTE 240M, BT.2020."""

_HDR: Final = {16: "PQ", 18: "HLG"}
_PRIMARIES_NAMES: Final = {
    8: "film",
    9: "BT.2020",
    10: "SMPTE 428 (XYZ)",
    11: "SMPTE 431 (DCI-P3)",
    12: "SMPTE 432 (Display P3)",
    22: "EBU 3213",
}
_TRANSFER_NAMES: Final = {9: "a logarithm to 100:1", 10: "a logarithm to 316:1"}
_MATRIX_NAMES: Final = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE 2085",
    12: "one that follows from the primaries",
    13: "one that follows from the primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}

_TO_SDR: Final = (
    "zscale={known}{kept}t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)
_TO_BT709: Final = "zscale={known}p=bt709:t=bt709:m=bt709:r=tv,format=yuv420p"
_BY_ZSCALE: Final = frozenset({8, 10, 12, 13})  # matrices


def check_colours(frame: av.VideoFrame, label: str) -> None:
    """Raise AvatarInvalid where the primaries, transfer characteristics or matrix that ``frame``
    says would not be shown right, such as those of HDR; values that it does not say are allowed.
    ``label`` is the video's file name, and the message has the command that converts it."""
    primaries, transfer = frame.color_primaries, frame.color_trc
    if transfer in _HDR:
        command = _to(_TO_SDR, frame, label, ("bt2020", "bt709", "bt2020nc"))
        raise AvatarInvalid(f"{label} is HDR ({_HDR[transfer]}); allowed is SDR, so {command}")
    command = _to(_TO_BT709, frame, label, ("bt709", "bt709", "bt709"))
    if primaries not in _PRIMARIES:
        named = _PRIMARIES_NAMES.get(primaries, f"the primaries {primaries}")
        raise AvatarInvalid(
            f"{label} has the colours of {named}; allowed are those of BT.709 and"
            f" BT.601, so {command}"
        )
    if transfer not in _TRANSFERS:
        named = _TRANSFER_NAMES.get(transfer, f"number {transfer}")
        raise AvatarInvalid(
            f"{label} has the transfer characteristics {named}; allowed are those of BT.709 and"
            f" other SDR, so {command}"
        )
    matrix = int(frame.colorspace)
    if matrix not in _MATRICES:
        named = _MATRIX_NAMES.get(matrix, f"number {matrix}")
        if matrix not in _BY_ZSCALE:
            command = "export it in these"
        raise AvatarInvalid(
            f"{label} has the colour matrix {named}; allowed are those of BT.709, BT.601 and"
            f" BT.2020, so {command}"
        )


def conversion(label: str, filters: str) -> str:
    """Return the end of a message that tells a person how to convert the video: "convert it: ffmpeg
    -i ...". ``label`` is the video's file name, ``filters`` what FFmpeg's option -vf is given."""
    name = shlex.quote(label)
    return f'convert it: ffmpeg -i {name} -vf "{filters}" -c:v libx264 -crf 12 converted.mp4'


def _to(filters: str, frame: av.VideoFrame, label: str, usual: tuple[str, str, str]) -> str:
    """``conversion`` with ``filters``, which are told the ``usual`` primaries, transfer and matrix
    where the video does not say its own: zscale refuses to guess."""
    said = (frame.color_primaries, frame.color_trc, int(frame.colorspace))
    known = "".join(
        f"{letter}in={name}:"
        for letter, number, name in zip("ptm", said, usual, strict=True)
        if number == UNKNOWN
    )
    kept = "" if frame.color_primaries != UNKNOWN else f"p={usual[0]}:"
    return conversion(label, filters.format(known=known, kept=kept))
