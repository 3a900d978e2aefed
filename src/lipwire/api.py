"""Lipwire from Python: open an avatar, let it speak, take the frames.

    >>> from lipwire.api import open_avatar
    >>> with open_avatar("demo") as avatar:  # doctest: +SKIP
    ...     for frame in avatar.speak("speech.wav"):
    ...         show(frame.bgr)  # (height, width, 3) uint8

or straight to a file:

    >>> from lipwire.api import render
    >>> render("demo", "speech.wav", "talking.mp4")  # doctest: +SKIP
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from lipwire.audio import StreamResampler, decode_audio, frame_count
from lipwire.avatars import DEFAULT_QUALITY, Avatar, Part
from lipwire.compose import JpegFolderWriter, VideoWriter, X264Preset
from lipwire.domain import FPS, SAMPLE_RATE_HZ, Float32Array, InvalidInput, UInt8Array
from lipwire.session import (
    Pace,
    Performer,
    Progress,
    Stage,
    StageTime,
    Stopwatch,
    Track,
    animate,
    render_frames,
    render_video,
    track_of_file,
    track_of_pcm,
)
from lipwire.wiring import CompileProgress, open_performer

__all__ = ["Audio", "Frame", "Output", "RenderResult", "TalkingAvatar", "open_avatar", "render"]

Audio = str | Path | npt.NDArray[np.int16] | Float32Array
"""A file that FFmpeg can decode, or PCM: (samples,) or (samples, channels), int16 or float32 in
[-1, 1]. PCM needs its ``rate_hz`` said beside it, where it is not 16 kHz."""

Output = Literal["bgr", "jpeg", "i420"]
"""A form in which frames can be had."""

_PARTS: dict[Output, Part] = {"bgr": "pixels", "jpeg": "jpeg", "i420": "planes"}


class Frame:
    """One frame of video. It is put together when one of its forms is asked for.

    A frame may be kept and used from any thread as long as its avatar is open.
    """

    __slots__ = ("_avatar", "_background", "_mouth", "index")

    def __init__(self, avatar: TalkingAvatar, index: int, background: int, mouth: UInt8Array):
        self._avatar = avatar
        self._background = background
        self._mouth = mouth
        self.index = index

    @property
    def time_s(self) -> float:
        """When the frame is shown, in seconds from the beginning of the speech."""
        return self.index / FPS

    @property
    def mouth(self) -> UInt8Array:
        """(320, 320, 3) uint8, colours in the package's order: what the network made."""
        return self._mouth

    @property
    def bgr(self) -> UInt8Array:
        """(height, width, 3) uint8, BGR as OpenCV has it. A new array each time."""
        return self._avatar.opened("bgr").pixels(self._background, self._mouth)

    @property
    def i420(self) -> UInt8Array:
        """Planes for a video encoder: (height * 3/2, width) uint8, BT.709 in limited range."""
        return self._avatar.opened("i420").planes(self._background, self._mouth)

    def jpeg(self) -> bytes:
        """The frame as a JPEG file, in the avatar's ``jpeg_quality``."""
        return self._avatar.opened("jpeg").jpeg(self._background, self._mouth)

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, time_s={self.time_s:.2f})"


@dataclass(frozen=True, slots=True)
class RenderResult:
    """What a render made and how fast."""

    path: Path
    frames: int
    video_s: float
    elapsed_s: float  # speech to finished file, without opening and compiling the avatar
    cpu_s: float  # of all threads of this process in that time
    size_bytes: int
    stages: dict[Stage, StageTime]

    @property
    def fps(self) -> float:
        """Frames made in a second of time."""
        return self.frames / self.elapsed_s


class TalkingAvatar:
    """An opened avatar; a context manager. See ``open_avatar``.

    >>> with open_avatar(avatar_path) as avatar:
    ...     frames = list(avatar.speak(speech, rate_hz=16_000))
    >>> (frames[1].index, frames[1].time_s)
    (1, 0.04)
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        outputs: tuple[Output, ...] = (),
        jpeg_quality: int = DEFAULT_QUALITY,
        audio_encoder: str | Path | None = None,
        threads: int | None = None,
        progress: CompileProgress | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InvalidInput(f"threads is {threads}, at least 1 is needed")
        self._quality = jpeg_quality
        self._progress = progress
        self._lock = threading.Lock()
        self._speeches: WeakSet[Generator[Frame]] = WeakSet()
        self._stack = ExitStack()
        self._outputs: dict[Output, Avatar] = {}
        self._performer: Performer = self._stack.enter_context(
            open_performer(
                name_or_path,
                parts=frozenset(_PARTS[output] for output in outputs),
                quality=jpeg_quality,
                audio_encoder=None if audio_encoder is None else Path(audio_encoder),
                progress=progress,
            )
        )
        self._pace = Pace.for_machine(self._performer.model.fixed_batch, threads)
        self._outputs = dict.fromkeys(outputs, self._performer.avatar)

    @property
    def name(self) -> str:
        return self._performer.avatar.name

    @property
    def width(self) -> int:
        return self._performer.avatar.width

    @property
    def height(self) -> int:
        return self._performer.avatar.height

    @property
    def fps(self) -> int:
        return FPS

    @property
    def frame_count(self) -> int:
        """Frames of the background; speech that lasts longer walks back and forth over them."""
        return self._performer.avatar.frame_count

    def speak(
        self, audio: Audio, *, rate_hz: int = SAMPLE_RATE_HZ, start_frame: int = 0
    ) -> Generator[Frame]:
        """The frames that say ``audio``, 25 for each second, computed a little ahead in threads.

        Its threads end with the iterator. Where it may be left half-way, close it with
        ``contextlib.closing``; closing the avatar ends what is left.

        Raises InvalidInput, before the first frame, for audio that cannot be decoded.
        """
        speech = self._speak(_heard(audio, rate_hz), start_frame)
        self._speeches.add(speech)
        return speech

    def render(
        self,
        audio: Audio,
        out: str | Path,
        *,
        rate_hz: int = SAMPLE_RATE_HZ,
        start_frame: int = 0,
        preset: X264Preset = "veryfast",
        crf: int = 18,
        progress: Progress | None = None,
    ) -> RenderResult:
        """Write a video of the avatar saying ``audio``, and say how it went.

        ``out`` ends in .mp4, .m4v or .mov and gets H.264 and AAC, the sound as it was recorded.
        ``start_frame`` is the frame of the background to begin with. A file that was there is
        replaced when the new one is finished; on an error or Ctrl-C it stays as it was, and nothing
        new is left.

        Raises InvalidInput for audio or settings that cannot work, StorageFailed when ``out``
        cannot be written.
        """
        path = Path(out)
        clock = _Clock()
        pcm = _timed_heard(audio, rate_hz, clock.stopwatch)
        track = _track(audio, rate_hz)
        with VideoWriter(
            path,
            self.width,
            self.height,
            FPS,
            audio_rate_hz=track.rate_hz,
            audio_channels=track.channels,
            preset=preset,
            crf=crf,
        ) as writer:
            render_video(
                self._showing("i420"),
                pcm,
                track,
                writer,
                start_frame=start_frame,
                pace=self._pace,
                stopwatch=clock.stopwatch,
                progress=progress,
            )
        return clock.result(path, frame_count(len(pcm)), path.stat().st_size)

    def render_frames(
        self,
        audio: Audio,
        folder: str | Path,
        *,
        rate_hz: int = SAMPLE_RATE_HZ,
        start_frame: int = 0,
        progress: Progress | None = None,
    ) -> RenderResult:
        """Write the frames of the avatar saying ``audio`` as JPEG files into ``folder``.

        They are named frame_000000.jpg and so on. A folder that holds nothing but such files is
        replaced when the new one is finished; any other that is not empty is refused. Otherwise as
        ``render``.
        """
        path = Path(folder)
        clock = _Clock()
        pcm = _timed_heard(audio, rate_hz, clock.stopwatch)
        with JpegFolderWriter(path) as writer:
            render_frames(
                self._showing("jpeg"),
                pcm,
                writer,
                start_frame=start_frame,
                pace=self._pace,
                stopwatch=clock.stopwatch,
                progress=progress,
            )
        size_bytes = sum(entry.stat().st_size for entry in path.iterdir())
        return clock.result(path, frame_count(len(pcm)), size_bytes)

    def opened(self, output: Output) -> Avatar:
        """The avatar with what ``output`` needs, compiled now where it never was.

        Naming the outputs in ``open_avatar`` has that done before the first frame.
        """
        with self._lock:
            if output not in self._outputs:
                self._outputs[output] = self._stack.enter_context(
                    Avatar.open(
                        self._performer.avatar.path,
                        parts=frozenset({_PARTS[output]}),
                        quality=self._quality,
                        progress=self._progress,
                    )
                )
            return self._outputs[output]

    def close(self) -> None:
        """End speeches under way; give back threads, sessions, mapped files. Twice does no harm."""
        for speech in list(self._speeches):
            speech.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _speak(self, pcm: Float32Array, start_frame: int) -> Generator[Frame]:
        batches = animate(
            self._performer,
            pcm,
            start_frame=start_frame,
            batch_size=self._pace.batch_size,
            lanes=self._pace.lanes,
        )
        with closing(batches):
            for batch in batches:
                for offset, mouth in enumerate(batch.mouths):
                    yield Frame(self, batch.first + offset, batch.background + offset, mouth)

    def _showing(self, output: Output) -> Performer:
        """The performer with the avatar that has what ``output`` needs."""
        mine = self._performer
        return Performer(self.opened(output), mine.engine, mine.model, mine.encoder)


def open_avatar(
    name_or_path: str | Path,
    *,
    outputs: tuple[Output, ...] = (),
    jpeg_quality: int = DEFAULT_QUALITY,
    audio_encoder: str | Path | None = None,
    threads: int | None = None,
    progress: CompileProgress | None = None,
) -> TalkingAvatar:
    """Open an avatar by its name or its folder, compiling it first where that was never done.

    ``outputs`` are the forms of frames that will be asked for; what they need is compiled now and
    not at the first frame. ``audio_encoder`` replaces the package's own. ``threads`` is how many
    cores the network may use, None for all of them. ``progress`` is told of compiling.

    >>> with open_avatar(avatar_path, outputs=("jpeg",), jpeg_quality=90) as avatar:
    ...     first = next(avatar.speak(speech, rate_hz=16_000))
    ...     first.bgr.shape == (avatar.height, avatar.width, 3)
    ...     first.jpeg()[:3]
    True
    b'\\xff\\xd8\\xff'

    Raises NotFound, AvatarInvalid, InvalidInput or StorageFailed, each with one line that says
    what is wrong.
    """
    return TalkingAvatar(
        name_or_path,
        outputs=outputs,
        jpeg_quality=jpeg_quality,
        audio_encoder=audio_encoder,
        threads=threads,
        progress=progress,
    )


def render(
    avatar: str | Path,
    audio: Audio,
    out: str | Path,
    *,
    rate_hz: int = SAMPLE_RATE_HZ,
    start_frame: int = 0,
    preset: X264Preset = "veryfast",
    crf: int = 18,
    progress: Progress | None = None,
) -> RenderResult:
    """Open ``avatar``, write a video of it saying ``audio`` to ``out``, and close it.

    >>> result = render(avatar_path, speech, out / "talking.mp4", rate_hz=16_000)
    >>> result.path.name, result.frames
    ('talking.mp4', 25)

    See ``TalkingAvatar.render`` for the arguments.
    """
    with open_avatar(avatar, outputs=("i420",)) as opened:
        return opened.render(
            audio,
            out,
            rate_hz=rate_hz,
            start_frame=start_frame,
            preset=preset,
            crf=crf,
            progress=progress,
        )


class _Clock:
    """Measures one render."""

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()
        self._wall_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def result(self, path: Path, frames: int, size_bytes: int) -> RenderResult:
        return RenderResult(
            path=path,
            frames=frames,
            video_s=frames / FPS,
            elapsed_s=time.perf_counter() - self._wall_s,
            cpu_s=time.process_time() - self._cpu_s,
            size_bytes=size_bytes,
            stages=self.stopwatch.times(),
        )


def _heard(audio: Audio, rate_hz: int) -> Float32Array:
    """What the network hears of it: (samples,) float32 at 16 kHz."""
    if isinstance(audio, (str, Path)):
        return decode_audio(Path(audio))
    if audio.ndim not in (1, 2) or audio.size == 0:
        raise InvalidInput(
            f"audio has shape {audio.shape}; allowed are (samples,) and (samples, channels),"
            " with at least one sample"
        )
    resampler = StreamResampler(rate_hz, audio.shape[1] if audio.ndim == 2 else 1)
    return np.concatenate([resampler.push(audio), resampler.flush()])


def _timed_heard(audio: Audio, rate_hz: int, watch: Stopwatch) -> Float32Array:
    with watch.measure("audio"):
        return _heard(audio, rate_hz)


def _track(audio: Audio, rate_hz: int) -> Track:
    if isinstance(audio, (str, Path)):
        return track_of_file(Path(audio))
    return track_of_pcm(cast("Float32Array", audio), rate_hz)
