"""Videos made for tests: frames that are told apart, with what a file can say beside them."""

import json
import shutil
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lipwire.domain import UInt8Array

SIZE = (96, 64)
"""(width, height) of the frames."""
MARKS = 8
LEVELS = np.array([60 + 16 * value for value in range(MARKS)], np.int16)


def marked(number: int, size: tuple[int, int] = SIZE) -> UInt8Array:
    """Frame ``number``, from which ``number_of`` reads it: (height, width, 3) uint8 BGR.

    Grey, with the number in three bands across, and a corner that is red.
    """
    width, height = size
    frame = np.empty((height, width, 3), np.uint8)
    for band in range(3):
        rows = slice(height * band // 3, height * (band + 1) // 3)
        frame[rows] = LEVELS[number // MARKS**band % MARKS]
    frame[: height // 4, : width // 4] = (0, 0, 255)
    return frame


def number_of(frame: UInt8Array) -> int:
    """The number of a frame that ``marked`` made, after it went through an encoder."""
    height, width = frame.shape[:2]
    number = 0
    for band in range(3):
        level = frame[height * (2 * band + 1) // 6, width * 3 // 4].astype(np.int16).mean()
        number += int(np.abs(LEVELS - level).argmin()) * MARKS**band
    return number


def write_video(
    path: Path,
    times: Sequence[int],
    time_base: Fraction = Fraction(1, 25),
    *,
    frames: Sequence[UInt8Array] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    **context: Any,
) -> Path:
    """Write a video whose frame i is shown at ``times[i]`` and is ``marked(i)``, or ``frames[i]``.

    ``options`` are the codec's, ``context`` is set on its context.
    """
    pictures = frames or [marked(number) for number in range(len(times))]
    with av.open(str(path), "w") as video:
        stream: Any = video.add_stream(codec, options=options or {"crf": "5", "g": "10"})
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.framerate = 1 / time_base
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for pts, pixels in zip(times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame.pts, frame.time_base = pts, time_base
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return path


def cut(path: Path, frames: int) -> Path:
    """A copy beside ``path`` whose first frames are there and, by its edit list, not shown."""
    target = path.with_name("cut.mp4")
    with (
        av.open(str(path)) as whole,
        av.open(str(target), "w", container_options={"avoid_negative_ts": "disabled"}) as video,
    ):
        source = whole.streams.video[0]
        stream = video.add_stream_from_template(source)
        for packet in whole.demux(source):
            if packet.dts is not None and packet.pts is not None and source.time_base is not None:
                shift = int(frames / 25 / source.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                video.mux(packet)
    return target


def without_middle(path: Path) -> Path:
    """Overwrite the middle third of a video's packets, as a disk does that loses blocks."""
    with av.open(str(path)) as video:
        places = [packet.pos for packet in video.demux(video=0) if packet.pos is not None]
    places.sort()
    begin, end = places[len(places) // 3], places[2 * len(places) // 3]
    data = bytearray(path.read_bytes())
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    return path


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the display matrix of an MP4 file's first track: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2, version 0
    one = 65536
    data[place : place + 36] = struct.pack(
        ">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)
    return path


def with_video(package: Path, video: Path, frames: int) -> Path:
    """The package with that video for its frames, and a rectangle of its own for each of them."""
    shutil.rmtree(package / "frames")
    shutil.move(video, package / video.name)
    (package / "avatar.yaml").write_text(f"source_video: {video.name}\n")
    rects = [[8 + number % 8, 8, 40 + number % 8, 40] for number in range(frames)]
    (package / "crop_rects.json").write_text(json.dumps(rects))
    return package
