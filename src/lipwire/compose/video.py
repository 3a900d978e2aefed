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
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, get_args

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container.output import OutputContainer
from av.video.stream import VideoStream

from lipwire.compose.colour import bgr_to_i420, i420_shape
from lipwire.compose.geometry import check_pixels
from lipwire.compose.sound import AacQueue
from lipwire.compose.staging import discard, publish_file, stage_file, storage_errors
from lipwire.domain import FPS, Float32Array, InvalidInput, UInt8Array

X264Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]

_SUFFIXES: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
_MAX_SIDE_PX: Final = 16_384
_BT709: Final = 1
"""For primaries, transfer and matrix alike (ITU-T H.264, tables E-3 to E-5)."""
_LIMITED_RANGE: Final = 1  # AVCOL_RANGE_MPEG


class VideoWriter:
    """Writes one MP4 file that appears under its name when it is finished, and not before.

        with VideoWriter(Path("out.mp4"), 1280, 720, audio_rate_hz=16_000) as writer:
            writer.write_audio(pcm)
            for frame in frames:
                writer.write_frame(frame)

    On an error or Ctrl-C nothing is left, and a file that was there before is as it was. The index
    is put in front of the data (faststart), so that a browser can play while it loads.

    ``path`` ends in .mp4, .m4v or .mov. A frame of odd width or height is completed to an even
    one by repeating its last column or row, because H.264 at 4:2:0 knows only even ones. Without
    ``audio_rate_hz`` there is no sound; audio at a rate that AAC does not know is resampled to 48
    kHz. ``crf`` is x264's quality: 0-51, less is better, 18 is hard to tell from the source.
    ``threads`` is the encoder's; None leaves the number to it.

    One thread may write at a time; it need not be the one that entered.
    Raises InvalidInput when an argument cannot work; entering, writing and leaving raise
    StorageFailed when the folder is missing or may not be written to or the disk is full.
    """

    def __init__(
        self,
        path: Path,
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
        self._target = Path(path)
        if self._target.suffix.lower() not in _SUFFIXES:
            raise InvalidInput(
                f"cannot write {path}: the name ends in {self._target.suffix!r}, "
                f"allowed are {', '.join(_SUFFIXES)}"
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
        self._options = {"preset": preset, "crf": str(crf)}
        self._threads = threads
        self._audio = AacQueue(audio_rate_hz, audio_channels) if audio_rate_hz else None
        self._staged: Path | None = None
        self._container: OutputContainer | None = None
        self._video_stream: VideoStream
        self._audio_stream: AudioStream

    def __enter__(self) -> Self:
        self._staged = stage_file(self._target)
        try:
            with storage_errors(self._target):
                self._open(self._staged)
        except BaseException:
            self._abandon()
            raise
        return self

    def write_planes(self, planes: UInt8Array) -> None:
        """Add the next frame. ``planes``: ``i420_shape(width, height)`` uint8, contiguous, as
        ``bgr_to_i420`` makes it; it may be used again as soon as this returns.

        Raises InvalidInput when the shape is another, StorageFailed when the disk is full.
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
        with storage_errors(self._target):
            container.mux(self._video_stream.encode(frame))
            self.frames_written += 1
            if self._audio is not None:
                # Sound in step with the pictures, so that the file is well interleaved.
                self._encode_audio(self._audio, until=self.frames_written / self.fps)

    def write_frame(self, frame: UInt8Array) -> None:
        """Add the next frame: (height, width, 3) uint8 BGR. Raises as ``write_planes`` does."""
        check_pixels(frame, "the frame")
        if frame.shape[:2] != (self.height, self.width):
            raise InvalidInput(
                f"the frame is {frame.shape[1]}x{frame.shape[0]}, "
                f"this video is {self.width}x{self.height}"
            )
        self.write_planes(bgr_to_i420(frame))

    def write_audio(self, pcm: Float32Array) -> None:
        """Add sound behind what was given so far: all of it at once or piece by piece.

        ``pcm`` is (samples,) or (samples, channels) float32 in [-1, 1]; what is louder is
        clipped. It is encoded as the pictures come, and the array must not be changed until then.
        Raises InvalidInput when the shape is another or a sample is not a finite number.
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
        if self._staged is None:
            return
        try:
            if kind is None:
                self._finish(self._staged)
        finally:
            self._abandon()

    def _open(self, staged: Path) -> None:
        # "file:" keeps FFmpeg from reading a name such as "a:b.mp4" as a protocol.
        container = av.open(
            f"file:{staged}",
            "w",
            format=_SUFFIXES[self._target.suffix.lower()],
            container_options={"movflags": "+faststart"},
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
        if self._threads is not None:
            context.thread_count = self._threads
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

    def _finish(self, staged: Path) -> None:
        container = self._opened()
        if self.frames_written == 0:
            raise InvalidInput(f"cannot write {self._target}: there is not one frame")
        with storage_errors(self._target):
            container.mux(self._video_stream.encode(None))
            if self._audio is not None:
                self._encode_audio(self._audio, until=None)
                container.mux(self._audio_stream.encode(None))
            container.close()
        self._container = None
        publish_file(staged, self._target)
        self._staged = None

    def _abandon(self) -> None:
        """Leave nothing behind; does nothing after a success."""
        container, self._container = self._container, None
        staged, self._staged = self._staged, None
        if staged is not None:
            # Before closing, so that closing does not move all data of a file that goes away.
            discard(staged)
        if container is not None:
            with contextlib.suppress(av.FFmpegError):
                container.close()
        if staged is not None:
            discard(staged)
