"""Alpha that lies beside a video's picture."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.avatars.videos import marked

from lipwire.avatars.frames.videoalpha import tells_alpha
from lipwire.avatars.frames.videoframes import opened_video


def webm(path: Path, codec: str, tags: dict[str, str]) -> Path:
    with av.open(str(path), "w") as video:
        stream: Any = video.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.metadata.update(tags)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(marked(number), format="bgr24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize(("tags", "alpha"), [({"alpha_mode": "1"}, True), ({}, False)])
def test_alpha_of_vp8_and_vp9_is_seen(
    tmp_path: Path, codec: str, tags: dict[str, str], alpha: bool
) -> None:
    path = webm(tmp_path / "a.webm", codec, tags)
    with opened_video(path) as video:
        pixels = next(video.frames()).pixels()
        assert video.alpha == alpha
    assert np.asarray(pixels).shape == (64, 96, 3)


def sei(*messages: tuple[int, int], suffix: bool = False) -> bytes:
    """A NAL unit of messages, (kind, size) each."""
    body = b""
    for kind, size in messages:
        for number in (kind, size):
            body += b"\xff" * (number // 255) + bytes([number % 255])
        body += b"\x11" * size
    return bytes([(40 if suffix else 39) << 1, 1]) + body + b"\x80"


def hvcc(*units: bytes) -> bytes:
    """HEVCDecoderConfigurationRecord, with an array for each unit."""
    arrays = b"".join(
        bytes([unit[0] >> 1 & 0x3F, 0, 1]) + len(unit).to_bytes(2) + unit for unit in units
    )
    return b"\x01" + bytes(21) + bytes([len(units)]) + arrays


VPS = bytes([32 << 1, 1]) + b"\xa5\xa5\xa5\x80"


@pytest.mark.parametrize(
    ("units", "alpha"),
    [
        ([VPS, sei((165, 4))], True),
        ([VPS, sei((5, 300), (165, 4))], True),
        ([sei((137, 24), (165, 3), suffix=True)], True),
        ([VPS, sei((5, 165))], False),  # a size is no kind
        ([VPS, sei((5, 4))], False),
        ([VPS], False),
        ([], False),
    ],
)
def test_alpha_of_hevc_is_seen_in_its_parameter_sets(units: list[bytes], alpha: bool) -> None:
    assert tells_alpha(hvcc(*units)) == alpha
    assert tells_alpha(b"".join(b"\0\0\0\1" + unit for unit in units)) == alpha


def test_parameter_sets_that_are_cut_off_say_nothing() -> None:
    whole = hvcc(VPS, sei((5, 300), (165, 4)))
    for size in range(len(whole)):
        assert tells_alpha(whole[:size]) in (False, True)
    assert not tells_alpha(b"")
