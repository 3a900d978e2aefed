"""Files of video: H.264 and AAC in MP4, through PyAV (FFmpeg's libraries, with x264).

Time. Frame i is shown at i / fps, and sample n is heard at n / rate: both streams begin at 0. What
an AAC encoder puts before the first sample (priming) is cut by the edit list that FFmpeg writes.

Colour. The planes are BT.709 in limited range, and the stream says so.

Speed, measured on frames of 1280x720 with a still background, CRF 18: ``veryfast`` takes about 5
ms of processor time a frame and 84 kB a second of video, ``superfast`` 6 ms and 281 kB,
``ultrafast`` 3 ms and 362 kB, ``faster`` 11 ms and 103 kB. Encoding releases the interpreter
lock.
"""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self, get_args

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container.output import OutputContainer
from av.video.stream import VideoStream

from lipwire.compose.colour import bgr_to_i420, i420_shape
from lipwire.compose.geometry import check_pixels
from lipwire.compose.sound import AacQueue
from lipwire.compose.staging import publish_file, stage_file
from lipwire.config import usable_cores
from lipwire.domain import FPS, Float32Array, InvalidInput, StorageFailed, UInt8Array
from lipwire.domain.filekinds import VIDEO_SUFFIXES
from lipwire.domain.newfiles import remove, storage_errors

X264Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]

_FRAGMENTED: Final = "empty_moov+delay_moov+default_base_moof+frag_keyframe"
"""An index for each piece, in front of it, for who cannot seek back; the first one waits for the
first sound, whose encoder's delay it names."""
_FRAGMENT_US: Final = "1000000"

_MAX_SIDE_PX: Final = 16_384
_BT709: Final = 1
"""For primaries, transfer and matrix alike (ITU-T H.264, tables E-3 to E-5)."""
_LIMITED_RANGE: Final = 1  # AVCOL_RANGE_MPEG
_X264_MOST_THREADS: Final = 128
_AVX512: Final = 13
"""OpenCV's number of the instructions (CV_CPU_AVX_512F)."""


class Writable(Protocol):
    """An open binary file, or anything else to which bytes can be written. Where it has ``flush``,
    that is called after each write."""

    def write(self, data: bytes | memoryview, /) -> int | None:
        """Write ``data``, or a part of it from its beginning; return how many bytes were written,
        None for all."""


class _OnlyWritten:
    """A file for FFmpeg, which seeks in whatever can be sought in. All of the data is written."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            written = self._file.write(left)  # files without a buffer may take a part
            left = left[written if written is not None else len(left) :]
        if (flush := getattr(self._file, "flush", None)) is not None:
            flush()
        self.size_bytes += len(data)
        return len(data)


class VideoWriter:
    """Writes one MP4 file that appears under its name when it is finished, and not before.

        with VideoWriter(Path("out.mp4"), 1280, 720, audio_rate_hz=16_000) as writer:
            writer.write_audio(pcm)
            for frame in frames:
                writer.write_frame(frame)

    On an error or Ctrl-C nothing is left, and a file that was there before is as it was. The index
    is put in front of the data (faststart), so that a browser can play while it loads.

    ``path`` ends in .mp4, .m4v or .mov. It may instead be an open binary file, a pipe for example:
    fragmented MP4 goes there as it is made, in fragments of about a second; the file is left open,
    and what came before an error stays in it.

    Frames are ``width`` x ``height`` pixels, 2 to 16,384 each; one of odd width or height is
    completed to an even one by repeating its last column or row, because H.264 at 4:2:0 knows only
    even ones. ``fps``, 1 to 1000, is how many are shown a second. ``audio_rate_hz``, 1,000 to
    768,000, and ``audio_channels``, 1 or 2, are those of the sound that is written. Without
    ``audio_rate_hz`` there is no sound; sound of a rate that AAC does not support is resampled to
    48 kHz. ``preset`` is x264's: slower presets make smaller files. ``crf`` is x264's quality:
    0-51, less is better, 18 is hard to tell from the source. ``threads`` is the encoder's; None is
    as many as suit the cores that may be used. ``frames_written`` counts frames, and ``size_bytes``
    is the length of the finished video.

    One thread may write at a time; it need not be the one that entered. Raises InvalidInput when an
    argument cannot work, and on leaving when no frame was written; entering, writing and leaving
    raise StorageFailed when the folder is missing or may not be written to or the disk is full, and
    BrokenPipeError when nobody reads an open file any more.
    """

    def __init__(
        self,
        path: Path | Writable,
        width: int,
        height: int,
        fps: Fraction | int = FPS,
        *,
        audio_rate_hz: int | None = None,
        audio_channels: int = 1,
        preset: X264Preset = "veryfast",
        crf: int = 18,
        threads: int | None = None,
    ) -> None:
        self._target = path
        if isinstance(path, Path) and path.suffix.lower() not in VIDEO_SUFFIXES:
            raise InvalidInput(
                f"cannot write {path}: the name ends in {path.suffix!r}, "
                f"allowed are {', '.join(VIDEO_SUFFIXES)}"
            )
        for side in (width, height):
            if not 2 <= side <= _MAX_SIDE_PX:
                raise InvalidInput(
                    f"video of {width}x{height} is impossible, allowed are 2-{_MAX_SIDE_PX} a side"
                )
        if not 1 <= fps <= 1000:
            raise InvalidInput(f"fps is {fps}, allowed are 1-1000")
        if audio_rate_hz is not None and not 1000 <= audio_rate_hz <= 768_000:
            raise InvalidInput(f"audio rate is {audio_rate_hz} Hz, allowed are 1000-768000")
        if audio_channels not in (1, 2):
            raise InvalidInput(f"audio has {audio_channels} channels, allowed are 1 and 2")
        if preset not in get_args(X264Preset):
            raise InvalidInput(
                f"preset is {preset!r}, allowed are {', '.join(get_args(X264Preset))}"
            )
        if not 0 <= crf <= 51:
            raise InvalidInput(f"crf is {crf}, allowed are 0-51")
        if threads is not None and threads < 1:
            raise InvalidInput(f"threads is {threads}, allowed are 1 and more")
        self.width = width
        self.height = height
        self.fps = Fraction(fps)
        self.frames_written = 0
        self.size_bytes = 0
        """Of the finished video."""
        self._options = {"preset": preset, "crf": str(crf), **_same_each_time()}
        self._threads = threads
        self._audio = AacQueue(audio_rate_hz, audio_channels) if audio_rate_hz else None
        self._staged: Path | None = None
        self._open_file: _OnlyWritten | None = None
        self._container: OutputContainer | None = None
        self._video_stream: VideoStream
        self._audio_stream: AudioStream

    def __enter__(self) -> Self:
        if isinstance(self._target, Path):
            self._staged = stage_file(self._target)
        try:
            with self._storage_errors():
                self._open()
        except BaseException:
            self._abandon()
            raise
        return self

    def write_planes(self, planes: UInt8Array) -> None:
        """Add the next frame, as I420 planes.

        ``planes`` is (even height * 3/2, even width) uint8, contiguous, where "even" is the side
        rounded up to an even number: the rows of Y, then U and V, BT.709 in limited range
        (``lipwire.compose.bgr_to_i420`` makes it of a frame). The array may be used again as soon
        as this returns. Raises InvalidInput when its shape or dtype is another or it is not
        contiguous, StorageFailed when the disk is full, BrokenPipeError when nobody reads an open
        file any more, RuntimeError outside the ``with`` block.
        """
        container = self._opened()
        shape = i420_shape(self.width, self.height)
        if planes.shape != shape or planes.dtype != np.uint8 or not planes.flags.c_contiguous:
            raise InvalidInput(
                f"planes are {planes.dtype} of shape {planes.shape}, "
                f"allowed is contiguous uint8 of shape {shape}"
            )
        # A frame over the caller's memory: x264 copies the pixels before encode() returns.
        frame = av.VideoFrame.from_numpy_buffer(planes, "yuv420p")
        frame.pts = self.frames_written
        frame.time_base = 1 / self.fps
        with self._storage_errors():
            container.mux(self._video_stream.encode(frame))
            self.frames_written += 1
            if self._audio is not None:
                # Sound in step with the pictures, so that the file is well interleaved.
                self._encode_audio(self._audio, until=self.frames_written / self.fps)

    def write_frame(self, frame: UInt8Array) -> None:
        """Add ``frame``, the next one, (height, width, 3) uint8 BGR of the video's size; the array
        may be used again as soon as this returns. Raises InvalidInput when the shape or dtype is
        another, StorageFailed when the disk is full, RuntimeError outside the ``with`` block."""
        check_pixels(frame, "the frame")
        if frame.shape[:2] != (self.height, self.width):
            raise InvalidInput(
                f"the frame is {frame.shape[1]}x{frame.shape[0]}, "
                f"this video is {self.width}x{self.height}"
            )
        self.write_planes(bgr_to_i420(frame))

    def write_audio(self, pcm: Float32Array) -> None:
        """Add sound behind what was given so far: all of it at once or piece by piece.

        ``pcm`` is (samples, channels) float32, or (samples,) for one channel, in [-1, 1]; what is
        louder is clipped. It waits in memory and is encoded as the pictures come, so the array must
        not be changed until then; sound that lasts longer than the pictures is written on leaving.
        Raises InvalidInput when the shape or type is another, a sample is not a finite number, or
        the video was opened without sound; RuntimeError outside the ``with`` block.
        """
        self._opened()
        if self._audio is None:
            raise InvalidInput("this video was opened without sound: audio_rate_hz is not set")
        self._audio.push(pcm)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._container is None:
            return
        try:
            if kind is None:
                self._finish()
        finally:
            self._abandon()

    def _open(self) -> None:
        if isinstance(self._target, Path):
            # "file:" keeps FFmpeg from reading a name such as "a:b.mp4" as a protocol.
            container = av.open(
                f"file:{self._staged}",
                "w",
                format="mov" if self._target.suffix.lower() == ".mov" else "mp4",
                container_options={"movflags": "+faststart"},
            )
        else:
            self._open_file = _OnlyWritten(self._target)
            container = av.open(
                self._open_file,
                "w",
                format="mp4",
                container_options={"movflags": _FRAGMENTED, "frag_duration": _FRAGMENT_US},
            )
        self._container = container
        video = container.add_stream("libx264", rate=self.fps, options=self._options)
        rows, video.width = i420_shape(self.width, self.height)
        video.height = rows // 3 * 2
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.time_base = 1 / self.fps
        context.color_range = _LIMITED_RANGE
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.thread_count = self._threads or _x264_threads(video.height)
        self._video_stream = video
        if self._audio is not None:
            sound = container.add_stream("aac", rate=self._audio.rate_hz)
            sound.codec_context.layout = self._audio.layout
            sound.codec_context.bit_rate = self._audio.bits_a_second
            sound.codec_context.time_base = Fraction(1, self._audio.rate_hz)
            self._audio_stream = sound
        container.start_encoding()

    def _opened(self) -> OutputContainer:
        if self._container is None:
            raise RuntimeError("a VideoWriter is written to inside its with block")
        return self._container

    def _encode_audio(self, audio: AacQueue, until: Fraction | None) -> None:
        """Encode the sound that is there, up to a time in seconds; None: all of it, and end."""
        container = self._opened()
        limit = None if until is None else int(until * audio.rate_hz)
        for start, samples in audio.take(limit):
            frame = av.AudioFrame.from_ndarray(samples, "fltp", audio.layout)
            frame.sample_rate = audio.rate_hz
            frame.pts = start
            frame.time_base = Fraction(1, audio.rate_hz)
            container.mux(self._audio_stream.encode(frame))

    def _finish(self) -> None:
        container = self._opened()
        if self.frames_written == 0:
            raise InvalidInput(f"cannot write {self._name()}: there is not one frame")
        with self._storage_errors():
            container.mux(self._video_stream.encode(None))
            if self._audio is not None:
                self._encode_audio(self._audio, until=None)
                container.mux(self._audio_stream.encode(None))
            container.close()
        self._container = None
        if isinstance(self._target, Path) and self._staged is not None:
            self.size_bytes = self._staged.stat().st_size
            publish_file(self._staged, self._target)
            self._staged = None
        elif self._open_file is not None:
            self.size_bytes = self._open_file.size_bytes

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """As ``storage_errors``; that nobody reads an open file any more is for its owner."""
        if isinstance(self._target, Path):
            with storage_errors(self._target):
                yield
            return
        try:
            yield
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:  # closed, for example
            raise StorageFailed(f"cannot write {self._name()}: {error}") from error

    def _name(self) -> str:
        if isinstance(self._target, Path):
            return str(self._target)
        # Standard output is called "<stdout>"; of an unnamed file the name is a number.
        name = getattr(self._target, "name", None)
        return name if isinstance(name, str) else "the open file"

    def _abandon(self) -> None:
        """Leave nothing behind; does nothing after a success."""
        container, self._container = self._container, None
        staged, self._staged = self._staged, None
        if staged is not None:
            # Before closing, so that closing does not move all data of a file that goes away.
            remove(staged)
        if container is not None:
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                container.close()
        if staged is not None:
            remove(staged)


def _same_each_time() -> dict[str, str]:
    """Options of x264 with which the same frames give the same file.

    What it computes with AVX-512 depends on memory that it has not written (of its macroblock tree,
    for some sizes of frames); with AVX2 it does not, and takes no longer.
    """
    return {"x264-params": "asm=avx2"} if cv2.checkHardwareSupport(_AVX512) else {}


def _x264_threads(height: int) -> int:
    """Threads for frames of ``height``, as x264 chooses them itself for slices (``encoder.c``), but
    for the cores of this process and not those of the machine around its container."""
    macroblock_rows = (height + 15) // 16
    return min(usable_cores(), max(1, macroblock_rows // 4), _X264_MOST_THREADS)
