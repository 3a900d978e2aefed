"""An avatar that speaks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from lipwire.api.arguments import (
    Audio,
    Output,
    PathLike,
    Precision,
    callback_of,
    heard_of,
    name_of,
    open_audio,
    output_of,
    outputs_of,
    path_of,
    precision_of,
    preset_of,
    target_of,
    whole_number,
)
from lipwire.api.results import Clock, RenderResult
from lipwire.audio import frame_count, redone_if_changed
from lipwire.avatars import DEFAULT_QUALITY, Avatar, Part
from lipwire.compose import JpegFolderWriter, VideoWriter, Writable, X264Preset
from lipwire.domain import FPS, SAMPLE_RATE_HZ, CompileProgress, InvalidInput, Progress, UInt8Array
from lipwire.domain.closing import Closing
from lipwire.engine.graphs import FLOAT_TYPES
from lipwire.session import (
    MouthBatch,
    Pace,
    Performer,
    animate,
    render_frames,
    render_video,
)
from lipwire.wiring import open_performer, specialised

_LOG: Final = logging.getLogger("lipwire.api")
_LONG_FRAMES: Final = 250
"""From 10 s on it pays to load a specialised network, or even to make it."""
_PARTS: dict[Output, Part] = {"bgr": "pixels", "jpeg": "jpeg", "i420": "planes"}


class Frame:
    """One frame of a video in which an avatar speaks, made by ``TalkingAvatar.speak`` alone;
    ``index`` is its number, from 0. It is composed when one of its forms is asked for, each time
    anew.

    A frame may be kept and used from any thread as long as its avatar is open. Once the avatar is
    closed, only ``mouth`` can be read; the other forms raise InvalidInput. What a form needs that
    was not named in ``outputs`` when the avatar was opened is compiled when it is first asked for,
    which may raise AvatarInvalid or StorageFailed as ``open_avatar`` does; ``bgr`` and ``i420``
    raise AvatarInvalid where the files of the avatar's frames were changed since it was opened.
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
        """The image of the mouth region that the network made for this frame: (320, 320, 3) uint8,
        channels in the order that the avatar's network uses (BGR unless the avatar's settings say
        RGB). The same array each time, not to be written to."""
        return self._mouth

    @property
    def bgr(self) -> UInt8Array:
        """The frame with its mouth: (height, width, 3) uint8, BGR as OpenCV has it. A new array
        each time. Raises InvalidInput once the avatar is closed."""
        return self._avatar.opened("bgr").pixels(self._background, self._mouth)

    @property
    def i420(self) -> UInt8Array:
        """The frame with its mouth as I420, for a video encoder: (height * 3/2, width) uint8, both
        of them rounded up to even numbers first; BT.709 in limited range. Raises InvalidInput once
        the avatar is closed."""
        return self._avatar.opened("i420").planes(self._background, self._mouth)

    def jpeg(self) -> bytes:
        """Return the frame with its mouth as the bytes of a JPEG file, in the avatar's
        ``jpeg_quality``. Raises InvalidInput once the avatar is closed."""
        return self._avatar.opened("jpeg").jpeg(self._background, self._mouth)

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, time_s={self.time_s:.2f})"


class TalkingAvatar(Closing):
    """An opened avatar, which says recordings as frames or videos; a context manager. Made by
    ``open_avatar``, which takes the same arguments and says what they are. Its frames and the
    iterators of ``speak`` may be used in any thread, and any thread may close it. Once it is
    closed, methods that make something raise InvalidInput.

    >>> with open_avatar(avatar_path) as avatar:
    ...     frames = list(avatar.speak(speech, rate_hz=16_000))
    >>> (frames[1].index, frames[1].time_s)
    (1, 0.04)
    """

    def __init__(
        self,
        name_or_path: PathLike,
        *,
        outputs: tuple[Output, ...] = (),
        jpeg_quality: int = DEFAULT_QUALITY,
        audio_encoder: PathLike | None = None,
        threads: int | None = None,
        precision: Precision = "auto",
        progress: CompileProgress | None = None,
    ) -> None:
        outputs = outputs_of(outputs)
        self._precision = precision_of(precision)
        self._special: tuple[Performer | None, str] | None = None
        self._specialising = threading.Lock()
        threads = None if threads is None else whole_number("threads", threads, 1)
        encoder = None if audio_encoder is None else path_of("audio_encoder", audio_encoder)
        self._quality = whole_number("jpeg_quality", jpeg_quality, 1, 100)
        self._progress = callback_of("progress", progress)
        self._closed = False
        self._lock = threading.Lock()
        self._speaking = threading.Lock()
        self._speeches: WeakSet[_Speech] = WeakSet()
        self._stack = ExitStack()
        self._outputs: dict[Output, Avatar] = {}
        self._performer: Performer = self._stack.enter_context(
            open_performer(
                name_of("name_or_path", name_or_path),
                parts=frozenset(_PARTS[output] for output in outputs),
                quality=self._quality,
                audio_encoder=encoder,
                progress=self._progress,
            )
        )
        self._pace = Pace.for_machine(self._performer.model.fixed_batch, threads)
        self._outputs = dict.fromkeys(outputs, self._performer.avatar)

    @property
    def name(self) -> str:
        """The avatar's name for people: that of its settings, or its folder's."""
        return self._performer.avatar.name

    @property
    def width(self) -> int:
        """Width of the avatar's frames in pixels."""
        return self._performer.avatar.width

    @property
    def height(self) -> int:
        """Height of the avatar's frames in pixels."""
        return self._performer.avatar.height

    @property
    def fps(self) -> int:
        """Frames a second: 25."""
        return FPS

    @property
    def frame_count(self) -> int:
        """How many frames of its own the avatar shows, at 25 a second; speech that lasts longer
        walks back and forth over them."""
        return self._performer.avatar.frame_count

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know about how the avatar is shown, a line of text each, such as that
        its video is resampled to 25 frames a second; empty where there is nothing. See
        ``Avatar.notes``."""
        return self._performer.avatar.notes

    def speak(
        self,
        audio: Audio,
        *,
        rate_hz: int = SAMPLE_RATE_HZ,
        audio_track: int | None = None,
        allow_damaged: bool = False,
        start_frame: int = 0,
    ) -> Generator[Frame]:
        """Return an iterator of the frames that say ``audio``, 25 for each second, computed a
        little ahead in threads. The audio is decoded to its end before this returns.

        ``audio`` is a file (a path, an open binary file or the bytes of one), what
        ``open_recording`` gave, or samples, (n,) or (n, channels), int16 or float with full scale
        1.0, whose rate is ``rate_hz``. ``audio_track`` is the number of a file's audio track, from
        1 (None: the default one), and ``allow_damaged`` has a damaged file taken with silence where
        something is missing. ``start_frame`` (0 or above) is the avatar's frame to begin with.

        The threads end with the iterator. Where it may be left half-way, close it with
        ``contextlib.closing``. Raises InvalidInput at once for audio that cannot be decoded, other
        arguments that cannot work, and once the avatar is closed; the iterator raises InvalidInput
        instead of the next frame where the avatar was closed meanwhile.
        """
        self._check_open()
        start = whole_number("start_frame", start_frame, 0)
        heard = heard_of(audio, rate_hz, audio_track, allow_damaged)
        batches = animate(
            self._performer_for(frame_count(len(heard))),
            heard,
            start_frame=start,
            batch_size=self._pace.batch_size,
            lanes=self._pace.lanes,
        )
        speech = _Speech(self._frames(batches))
        with self._speaking:
            self._check_open()
            self._speeches.add(speech)
        return speech

    def render(
        self,
        audio: Audio,
        out: PathLike | Writable,
        *,
        rate_hz: int = SAMPLE_RATE_HZ,
        audio_track: int | None = None,
        allow_damaged: bool = False,
        start_frame: int = 0,
        preset: X264Preset = "veryfast",
        crf: int = 18,
        progress: Progress | None = None,
    ) -> RenderResult:
        """Write a video of the avatar saying ``audio``, and return what was made and how fast, when
        it is finished.

        ``audio`` is a recording (a path, an open binary file or the bytes of one, or what
        ``open_recording`` gave) or samples, (samples,) or (samples, channels), int16 or float in
        [-1, 1]. ``rate_hz`` is the rate of samples; files say theirs. ``audio_track`` chooses among
        a file's audio tracks, counted from 1; without it the track that is marked as default is
        taken, or the first. A damaged or truncated file is refused, or, with ``allow_damaged``,
        rendered with silence where something is missing and a warning in the result.

        ``out`` ends in .mp4, .m4v or .mov and gets H.264 and AAC, the sound as it was recorded. A
        file that was there is replaced when the new one is finished; on an error or Ctrl-C it stays
        as it was, and nothing new is left. ``out`` may also be an open binary file, which gets
        fragmented MP4 as it is made and stays open. ``start_frame`` (0 or above) is the frame of
        the avatar to begin with. ``preset`` is x264's, slower ones make smaller files; ``crf`` its
        quality, 0 (best) to 51. ``progress(done, total)`` is called with numbers of frames while
        they are made.

        Raises InvalidInput for audio or settings that cannot work and once the avatar is closed,
        AvatarInvalid when the avatar's files were changed meanwhile, StorageFailed when ``out``
        cannot be written, BrokenPipeError when nobody reads an open file any more.
        """
        self._check_open()
        target = target_of(out)
        start = whole_number("start_frame", start_frame, 0)
        crf = whole_number("crf", crf, 0, 51)
        preset, progress = preset_of(preset), callback_of("progress", progress)
        clock = Clock()
        with ExitStack() as stack:
            with clock.stopwatch.measure("audio"):
                recording = stack.enter_context(
                    open_audio(audio, rate_hz, audio_track, allow_damaged)
                )
                if not isinstance(target, Path):
                    recording.examine()  # what an open file has been given cannot be taken back

            performer = self._performer_for(frame_count(recording.samples))

            def write() -> tuple[int, tuple[str, ...]]:
                writer = VideoWriter(
                    target,
                    self.width,
                    self.height,
                    FPS,
                    audio_rate_hz=recording.rate_hz,
                    audio_channels=recording.channels,
                    preset=preset,
                    crf=crf,
                )
                with writer:
                    noticed = render_video(
                        self._showing(performer, "i420"),
                        recording,
                        writer,
                        start_frame=start,
                        pace=self._pace,
                        stopwatch=clock.stopwatch,
                        progress=progress,
                    )
                return writer.size_bytes, noticed

            size_bytes, noticed = redone_if_changed(recording, write)
            return clock.result(
                target if isinstance(target, Path) else None,
                frame_count(recording.samples),
                size_bytes,
                FLOAT_TYPES[performer.model.precision],
                (*recording.warnings, *noticed),
            )

    def render_frames(
        self,
        audio: Audio,
        folder: PathLike,
        *,
        rate_hz: int = SAMPLE_RATE_HZ,
        audio_track: int | None = None,
        allow_damaged: bool = False,
        start_frame: int = 0,
        progress: Progress | None = None,
    ) -> RenderResult:
        """Write the frames of the avatar saying ``audio`` as JPEG files, in the avatar's
        ``jpeg_quality``, into ``folder``, and return what was made and how fast, when all are
        written.

        They are named frame_000000.jpg and so on. A folder that holds nothing but such files is
        replaced when the new one is finished; any other that is not empty is refused. ``audio`` is
        a file (a path, an open binary file or the bytes of one), what ``open_recording`` gave, or
        samples, (n,) or (n, channels), int16 or float with full scale 1.0, whose rate is
        ``rate_hz``; ``audio_track`` is the number of a file's audio track, from 1 (None: the
        default one), and ``allow_damaged`` has a damaged file taken with silence where something is
        missing. ``start_frame`` (0 or above) is the avatar's frame to begin with; ``progress(done,
        total)`` is called with numbers of frames while they are made. Raises InvalidInput for audio
        or settings that cannot work and once the avatar is closed, AvatarInvalid when the
        avatar's files were changed meanwhile, StorageFailed when ``folder`` cannot be written.
        """
        self._check_open()
        path = path_of("folder", folder)
        start = whole_number("start_frame", start_frame, 0)
        progress = callback_of("progress", progress)
        clock = Clock()
        with ExitStack() as stack:
            with clock.stopwatch.measure("audio"):
                recording = stack.enter_context(
                    open_audio(audio, rate_hz, audio_track, allow_damaged)
                )

            performer = self._performer_for(frame_count(recording.samples))

            def write() -> tuple[str, ...]:
                with JpegFolderWriter(path) as writer:
                    return render_frames(
                        self._showing(performer, "jpeg"),
                        recording,
                        writer,
                        start_frame=start,
                        pace=self._pace,
                        stopwatch=clock.stopwatch,
                        progress=progress,
                    )

            noticed = redone_if_changed(recording, write)
            size_bytes = sum(entry.stat().st_size for entry in path.iterdir())
            warnings = (*recording.warnings, *noticed)
            return clock.result(
                path,
                frame_count(recording.samples),
                size_bytes,
                FLOAT_TYPES[performer.model.precision],
                warnings,
            )

    def opened(self, output: Output) -> Avatar:
        """Return the ``lipwire.avatars.Avatar``, whose methods give single frames and crops, opened
        for frames in the form ``output`` ("bgr", "jpeg" or "i420"). Each form has one such object,
        returned at each call; do not close it, ``close`` does.

        What the form needs is compiled now, unless it was before. Raises InvalidInput for an
        unknown form, and after ``close``; AvatarInvalid where the avatar's files are not right any
        more, StorageFailed where the compiled files can be written nowhere.
        """
        output = output_of(output)
        with self._lock:
            self._check_open()
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
        """End speeches under way, and release threads, networks and mapped files; a frame that is
        being made is waited for. An iterator of ``speak`` that is used after that raises
        InvalidInput in place of its next frame. Closing twice is allowed."""
        with self._speaking:
            self._closed = True
            under_way = list(self._speeches)
        for speech in under_way:
            speech.end(self.name)
        with self._specialising, self._lock:
            self._stack.close()

    def _check_open(self) -> None:
        if self._closed:
            raise _closed(self.name)

    def _frames(self, batches: Generator[MouthBatch]) -> Generator[Frame]:
        with closing(batches):
            for batch in batches:
                for offset, mouth in enumerate(batch.mouths):
                    yield Frame(self, batch.first + offset, batch.background + offset, mouth)

    def _performer_for(self, frames: int) -> Performer:
        """What makes the mouths of a speech of so many frames: for a long one, the specialised
        network, where there is one. Nothing else decides, so equal speeches get equal frames."""
        if self._precision == "float32" or frames < _LONG_FRAMES:
            return self._performer
        with self._specialising:  # for seconds, in which frames are composed
            self._check_open()
            if self._special is None:
                self._special = specialised(self._performer, self._pace.lanes)
            performer, reason = self._special
        if performer is None:
            _LOG.debug("the network of %s runs in float32: %s", self.name, reason)
            return self._performer
        return performer

    def _showing(self, performer: Performer, output: Output) -> Performer:
        """``performer`` with the avatar that has what ``output`` needs."""
        return replace(performer, avatar=self.opened(output))


class _Speech(Generator[Frame]):
    """The frames of a speech, which another thread may close than the one that takes them: it waits
    until the frame is made that is being made."""

    def __init__(self, frames: Generator[Frame]) -> None:
        self._frames = frames
        self._lock = threading.RLock()
        self._cut_off_with: str | None = None  # the avatar that was closed before its last frame
        self._ended = False  # by itself, by an error, or by whoever takes its frames

    def send(self, value: None) -> Frame:
        """Return the next frame. Raises InvalidInput where there would be one, and the avatar is
        closed."""
        with self._lock, self._ending():
            return self._frames.send(value)

    def throw(self, *error: Any) -> Frame:
        """Raise ``error`` where the frames are made, and return the next frame if it is caught."""
        with self._lock, self._ending():
            return self._frames.throw(*error)

    def close(self) -> None:
        """Make no more frames."""
        with self._lock:
            self._ended = True
            self._cut_off_with = None
            self._frames.close()

    def end(self, avatar: str) -> None:
        """Make no more frames because ``avatar`` is closed."""
        with self._lock:
            if not self._ended:
                self._cut_off_with = avatar
            self._frames.close()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        if self._cut_off_with is not None:
            raise _closed(self._cut_off_with)
        try:
            yield
        except BaseException:
            self._ended = True
            raise


def _closed(name: str) -> InvalidInput:
    return InvalidInput(f"avatar {name} is closed; what it makes needs it open")
