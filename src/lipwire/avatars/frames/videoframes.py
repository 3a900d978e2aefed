"""A video's frames one after the other, as players show them.

Taken from the file: the rotation and mirroring of its display matrix, the matrix and range of its
colours, its edit list, its time stamps. Refused, with the command that converts it: pixels that
are not square, colours that would not be shown right (``videocolours``), rotations other than
quarter turns. Of pixels with alpha only the colour is taken, and interlaced frames are shown as
they are. What is damaged is passed over as players do it, and counted.

Display matrix: ISO/IEC 14496-12, 6.2.2 (``matrix``), as FFmpeg's ``libavutil/display.h`` has it.
"""

import shlex
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Final

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.format import Flags as FormatFlags
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from lipwire.avatars.frames.images import MAX_SIDE_PX
from lipwire.avatars.frames.videoalpha import says_alpha
from lipwire.avatars.frames.videocolours import check_colours, conversion
from lipwire.config import usable_cores
from lipwire.domain import FPS, AvatarInvalid, UInt8Array
from lipwire.domain.closing import Closing
from lipwire.domain.filekinds import HEAD_BYTES, kind_hint
from lipwire.domain.media import beyond_limits, open_media, packets_of

_SHOWN_AS_SQUARE: Final = 0.01
"""Pixels are taken as square where width and height differ by less than this part."""

_UNTIMED: Final = "avi"
"""A format that says when frames are decoded, and not when they are shown."""

_MAX_THREADS: Final = 8
"""Each holds a frame or more; beyond these a video is hardly decoded faster."""

_TO_SQUARE: Final = "scale=trunc(iw*sar/2)*2:ih,setsar=1"
_TO_PROGRESSIVE: Final = "bwdif=mode=send_frame"


@dataclass(frozen=True, slots=True)
class Turn:
    """How a stored picture is turned upright: first the exchange of rows and columns, then
    flips."""

    transpose: bool
    flip_x: bool
    flip_y: bool

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return self.transpose or self.flip_x or self.flip_y

    def __call__(self, pixels: UInt8Array) -> UInt8Array:
        """Return ``pixels``, (height, width, 3) uint8, turned upright; the same array where there
        is nothing to do."""
        turned: Any = cv2.transpose(pixels) if self.transpose else pixels
        if self.flip_x or self.flip_y:
            turned = cv2.flip(turned, -1 if self.flip_x and self.flip_y else int(self.flip_x))
        return np.asarray(turned, np.uint8)


@dataclass(slots=True)
class Damage:
    """What of a video could not be decoded so far: ``frames`` are the numbers of those that are
    shown with faults, rising, and ``lost`` is how many packets could not be decoded and were left
    out."""

    frames: list[int] = field(default_factory=list)
    """Numbers of those that are shown with faults, rising."""
    lost: int = 0
    """How many packets could not be decoded and were passed over."""


class VideoFrame:
    """One decoded frame. Its pixels are made when they are asked for, in any thread.

    ``number`` is how many frames were shown before it, ``pts`` when it is shown in units of
    ``Video.time_base`` (None where that is not known), ``mark`` the time stamp for ``Video.seek``
    (None where that is not known), ``is_key`` whether decoding can begin with it, and
    ``interlaced`` whether it is marked as such.
    """

    __slots__ = ("_frame", "_label", "_turn", "interlaced", "is_key", "mark", "number", "pts")

    def __init__(
        self, frame: av.VideoFrame, number: int, turn: Turn, label: str, *, timed: bool = True
    ) -> None:
        """``frame`` is the decoder's, number ``number`` of the video ``label``; ``turn`` says how
        it is turned upright. ``timed`` is whether the file says when it is shown; if not, the order
        of decoding takes the place of its time."""
        self._frame = frame
        self._label = label
        self._turn = turn
        self.number = number
        """How many frames were shown before it."""
        self.mark: int | None = frame.pts
        """What to seek it by."""
        self.pts: int | None = frame.pts if timed else frame.dts
        """When it is shown, in units of ``Video.time_base``. Of an untimed file the order of
        decoding is as good: the frames are the same distance behind it."""
        self.is_key: bool = frame.key_frame
        """Whether decoding can begin with it."""
        self.interlaced: bool = frame.interlaced_frame

    def pixels(self) -> UInt8Array:
        """Return the frame as (height, width, 3) uint8 BGR, upright. Raises AvatarInvalid where
        FFmpeg cannot convert its pixels."""
        try:
            # One thread: the frames beside this one are converted by others.
            converted = self._frame.reformat(format="bgr24", threads=1)
            bgr = converted.to_ndarray()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise AvatarInvalid(
                f"{self._label} has pixels of the format {self._frame.format.name}, which cannot be"
                f" converted to BGR; allowed is yuv420p, so"
                f" {conversion(self._label, 'format=yuv420p')}"
            ) from error
        # What has such pixels already is not converted: they are the decoder's own memory.
        own = converted is not self._frame
        return self._turn(np.ascontiguousarray(bgr if own else bgr.copy(), np.uint8))


@dataclass(frozen=True, slots=True)
class FrameTime:
    """When a frame is shown, without its pixels: ``number`` counts frames from 0, ``pts`` is in
    units of ``Video.time_base``, None where the file does not say it."""

    number: int
    pts: int | None


class Video(Closing):
    """A video that is being decoded; a context manager. For one thread at a time.

    ``damage`` says what could not be decoded since the beginning or the last ``rewind``: the
    numbers of ``frames`` with faults, and how many packets were ``lost``, which are left out.
    Opening and every method but ``close`` raise AvatarInvalid where the file is no video or cannot
    be decoded. Refused in the same way are sides over 8192 pixels, pixels that are not square,
    rotations other than quarter turns, and colours such as those of HDR (``check_colours``).
    """

    def __init__(self, stream: IO[bytes], label: str, *, threads: int) -> None:
        """``stream`` is the opened file, seekable, which stays the caller's. ``label`` names it in
        messages. ``threads`` is how many decode; each holds frames in memory."""
        self._stream = stream
        self._label = label
        self._threads = threads
        self._turn: Turn | None = None
        self.damage = Damage()
        """Of the frames since the beginning."""
        self._open()

    @property
    def time_base(self) -> Fraction:
        """Seconds in one unit of a frame's ``pts``."""
        return self._video.time_base or Fraction(1, FPS)

    @property
    def rate(self) -> Fraction:
        """Mean number of frames a second, as the file says; 25 where it does not."""
        # Where a format has no times the average is made up, and the codec knows more.
        told = self._video.average_rate if self._timed else self._video.guessed_rate
        return told or Fraction(FPS)

    def frames(self, number: int = 0) -> Iterator[VideoFrame]:
        """Yield the frames from where the video stands to its end, in the order in which they are
        shown, the first of them with the number ``number``.

        The video stands at its beginning when it was opened and after ``rewind``, at a key frame
        after ``seek``, and otherwise behind the last frame that was read. What cannot be decoded is
        left out and counted in ``damage``. Raises AvatarInvalid where no frame at all is found and
        ``number`` is 0.
        """
        broken: Exception | None = None
        try:
            for packet in packets_of(self._container, self._video):
                try:
                    frames = packet.decode()
                except av.InvalidDataError as error:
                    broken = error
                    self.damage.lost += 1
                    continue
                for frame in frames:
                    self._check_size(frame)
                    check_colours(frame, self._label)  # they may change on the way
                    if self._turn is None:
                        self._check_shape()
                        self._turn = _turn(frame, self._label)
                    if frame.is_corrupt:
                        self.damage.frames.append(number)
                    yield VideoFrame(frame, number, self._turn, self._label, timed=self._timed)
                    number += 1
        except (av.FFmpegError, OSError) as error:
            raise video_broken(self._label, error) from error
        if number == 0 and broken is not None:
            raise video_broken(self._label, broken) from broken
        if number == 0:
            raise AvatarInvalid(f"{self._label} holds no frame; at least one is needed")

    def frame_times(self) -> list[FrameTime]:
        """Return the times of all frames, in the order in which they are shown, without decoding
        them; where the time of one frame is not known, ``pts`` is None for all.

        To be called before any frame is read; afterwards ``rewind`` before ``frames``.
        """
        try:
            packets = [
                packet.pts if self._timed else packet.dts
                for packet in packets_of(self._container, self._video)
                if packet.size and not packet.is_discard
            ]
        except (av.FFmpegError, OSError) as error:
            raise video_broken(self._label, error) from error
        known = sorted(pts for pts in packets if pts is not None)
        times = known if len(known) == len(packets) else [None] * len(packets)
        return [FrameTime(number, pts) for number, pts in enumerate(times)]

    @property
    def turned(self) -> bool:
        """Whether frames are shown turned or mirrored; known after the first one."""
        return bool(self._turn)

    @property
    def alpha(self) -> bool:
        """Whether pixels have alpha, decoded or not; known after the first frame."""
        pixels = self._video.codec_context.format
        decoded = pixels is not None and any(part.is_alpha for part in pixels.components)
        return decoded or says_alpha(self._video)

    def seek(self, pts: int) -> None:
        """Have the next call of ``frames`` begin at or before the frame whose ``mark`` is ``pts``,
        in units of ``time_base``, as near as the format allows.

        The caller finds out from ``mark`` which frame is the first then.
        """
        try:
            self._container.seek(pts, stream=self._video)
        except (av.FFmpegError, OSError) as error:
            raise video_broken(self._label, error) from error

    def rewind(self) -> None:
        """Have the next call of ``frames`` begin with the first frame again, and ``damage`` begin
        anew."""
        self.close()
        self._stream.seek(0)
        self.damage = Damage()
        self._open()

    def close(self) -> None:
        """Close the decoder; the stream stays open."""
        self._container.close()

    def _head(self) -> bytes:
        """How the file begins."""
        try:
            self._stream.seek(0)
            return self._stream.read(HEAD_BYTES)
        except OSError:
            return b""

    def _open(self) -> None:
        try:
            self._container: InputContainer = open_media(self._stream)
        except (av.FFmpegError, OSError) as error:
            raise video_broken(self._label, error, self._head()) from error
        streams = self._container.streams.video
        if not streams:
            self._container.close()
            raise AvatarInvalid(f"{self._label} holds no video stream")
        # A cover picture is a stream too.
        moving = (each for each in streams if not each.disposition & Disposition.attached_pic)
        self._video = next(moving, streams[0])
        form = self._container.format
        self._timed = not (
            form.name == _UNTIMED or FormatFlags(form.flags) & FormatFlags.no_timestamps
        )
        context: av.VideoCodecContext | None = self._video.codec_context
        if context is None:
            self._container.close()
            raise AvatarInvalid(f"{self._label} holds a video stream that no decoder is known for")
        if max(context.width, context.height) > MAX_SIDE_PX:
            self._container.close()
            raise self._too_large(context.width, context.height)
        # The header may say one size and the frames another; none is decoded before it is checked.
        context.options = {"max_pixels": str(MAX_SIDE_PX**2)}
        context.thread_type = "AUTO" if self._threads > 1 else "NONE"
        context.thread_count = self._threads

    def _check_size(self, frame: av.VideoFrame) -> None:
        if max(frame.width, frame.height) > MAX_SIDE_PX:
            raise self._too_large(frame.width, frame.height)

    def _too_large(self, width: int, height: int) -> AvatarInvalid:
        return AvatarInvalid(
            f"{self._label} is {width}x{height}; each side has to be 1 to {MAX_SIDE_PX} pixels"
        )

    def _check_shape(self) -> None:
        ratio = self._video.sample_aspect_ratio
        if ratio and not 1 - _SHOWN_AS_SQUARE < ratio < 1 + _SHOWN_AS_SQUARE:
            raise AvatarInvalid(
                f"{self._label} has pixels of {ratio.numerator}:{ratio.denominator}; allowed are"
                f" square ones, so {conversion(self._label, _TO_SQUARE)}"
            )


@contextmanager
def opened_video(path: Path) -> Generator[Video]:
    """Context manager: open the video at ``path`` for the block, decoded by half as many threads as
    there are cores, 8 at most.

    Raises AvatarInvalid where it cannot be opened or is no video, or a side is over 8192 pixels.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise video_broken(path.name, error) from error
    # As many again make something of the frames. Each that decodes beside another costs more.
    threads = max(1, min(usable_cores() // 2, _MAX_THREADS))
    with stream, Video(stream, path.name, threads=threads) as video:
        yield video


def interlaced_warning(label: str) -> str:
    """Return the warning for the video ``label``, whose frames are marked as interlaced."""
    return (
        f"{label} is marked as interlaced and its frames are shown as they are; if moving edges"
        f" look like combs, {conversion(label, _TO_PROGRESSIVE)}"
    )


def _turn(frame: av.VideoFrame, label: str) -> Turn:
    """From the display matrix: x' = a x + c y and y' = b x + d y, with y growing downwards."""
    found: Any = frame.side_data  # the stubs have its keys as texts
    data = found.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return Turn(transpose=False, flip_x=False, flip_y=False)
    a, b, _, c, d = (int(number) for number in np.frombuffer(data, np.int32)[:5])
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    # Some writers round the sines of their angles.
    if max(abs(b), abs(c)) * 50 < straight:
        return Turn(transpose=False, flip_x=a < 0, flip_y=d < 0)
    if max(abs(a), abs(d)) * 50 < crossed:
        return Turn(transpose=True, flip_x=c < 0, flip_y=b < 0)
    if not (a or b or c or d):
        return Turn(transpose=False, flip_x=False, flip_y=False)
    raise AvatarInvalid(
        f"{label} is to be shown rotated by {frame.rotation} degrees; allowed are 0, 90, 180 and"
        f" 270, so convert it: ffmpeg -i {shlex.quote(label)} -c:v libx264 -crf 12 converted.mp4"
    )


def video_broken(label: str, error: Exception, head: bytes = b"") -> AvatarInvalid:
    """Return, without raising it, an AvatarInvalid that says that the video named ``label`` cannot
    be decoded, and why reading it ended with ``error``.

    ``head`` is the first bytes of the file, empty where they are not known; where they are those of
    another kind of file, the message names that kind.
    """
    reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
    if limits := beyond_limits(error):
        reason = f"it {limits}"
    return AvatarInvalid(f"{label} cannot be decoded as a video; {reason}{kind_hint(head)}")
