"""What is kept of a live session: frames as files, its sound, a video."""

from __future__ import annotations

import queue
import threading
import wave
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import cv2
import numpy as np

from lipwire.audio import to_int16
from lipwire.compose import VideoWriter, encode_jpeg
from lipwire.domain import InvalidInput, StorageFailed, UInt8Array
from lipwire.domain.newfiles import followed, storage_errors
from lipwire.session.live import FRAME_MS, LiveFrame, Sound

if TYPE_CHECKING:
    from lipwire.rpc.conversing import ConverseStream
    from lipwire.rpc.moving import MovingStream

_MOST_WAITING: Final = 500
"""Items that wait to be written, ten seconds of them; whoever has more waits."""
_QUALITY: Final = 90
"""Of JPEG files that are made of raw pixels."""


class SessionKeeper:
    """Writes the frames and the sound of a live session to files, in a thread of its own. A context
    manager: the end of its ``with`` block waits until all is written, and raises the error where
    something could not be written. After an error there is no video; frames that were written as
    single files before stay."""

    def __init__(
        self, session: ConverseStream | MovingStream, *, folder: Path | None, video: Path | None
    ) -> None:
        """``folder`` is where frames are written as JPEG files, with their times in ms in their
        names, and the sound as sound.wav. ``video`` is the path of a video file, H.264 with sound.
        Where one of them is None, it is not written. ``session`` is asked for the size and format
        of frames and the rate of its sound."""
        self._raw = (session.height, session.width, 3) if session.frame_format == "bgr24" else None
        self._silence = np.zeros(session.sound_rate_hz * FRAME_MS // 1000, np.float32)
        self._folder = folder
        self._rate_hz = session.sound_rate_hz
        self._size = (session.width, session.height)
        self._video_path = video
        self._video: VideoWriter | None = None
        self._wave: wave.Wave_write | None = None
        self._sounds = 0
        """Frames of sound that were written."""
        self._last: UInt8Array | None = None
        """The frame that was written last, (height, width, 3) BGR."""
        self._stack = ExitStack()
        self._items: queue.Queue[LiveFrame | Sound | None] = queue.Queue(_MOST_WAITING)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="lipwire-keeping", daemon=True)
        self.frames = 0
        """Frames that were written as files."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._folder is not None:
                with storage_errors(self._folder):
                    followed(self._folder).mkdir(parents=True, exist_ok=True)
                    path = str(self._folder / "sound.wav")
                    self._wave = stack.enter_context(wave.open(path, "wb"))
                self._wave.setparams((1, 2, self._rate_hz, 0, "NONE", ""))
            if self._video_path is not None:
                self._video = stack.enter_context(
                    VideoWriter(self._video_path, *self._size, audio_rate_hz=self._rate_hz)
                )
            self._stack = stack.pop_all()
        self._thread.start()
        return self

    def put(self, item: LiveFrame | Sound) -> None:
        """Hand ``item`` to the thread that writes; waits while many others are waiting there. Call
        it inside the ``with`` block. Where an earlier item could not be written, raises that error,
        for example StorageFailed."""
        self._check()
        if self._wave is not None or self._video is not None:
            self._items.put(item)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._items.put(None)
        self._thread.join()
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        if self._error is not None:
            self._stack.__exit__(type(self._error), self._error, None)
            raise self._error
        if self._video is not None and self._last is not None:
            while self._video.frames_written < self._sounds:
                self._video.write_frame(self._last)
        self._stack.close()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._error is not None:
                continue  # whoever puts more must not wait for ever
            try:
                if isinstance(item, Sound):
                    self._write_sound(item)
                else:
                    self._write_frame(item)
            except OSError as error:
                self._error = StorageFailed(f"cannot write {self._folder}: {error.strerror}")
            except Exception as error:
                self._error = error

    def _write_sound(self, sound: Sound) -> None:
        missing = [self._silence] * (sound.frame - self._sounds)
        for samples in (*missing, sound.samples if len(sound.samples) else self._silence):
            if self._wave is not None:
                self._wave.writeframes(to_int16(samples).tobytes())
            if self._video is not None:
                self._video.write_audio(samples)
            self._sounds += 1

    def _write_frame(self, frame: LiveFrame) -> None:
        if self._folder is not None:
            data = frame.data if self._raw is None else encode_jpeg(self._pixels(frame), _QUALITY)
            (self._folder / f"frame_{frame.at_ms:08d}.jpg").write_bytes(data)
            self.frames += 1
        if self._video is None:
            return
        pixels = self._pixels(frame)
        if pixels.shape[1::-1] != self._size:
            return  # of another avatar: a video has one size
        before = self._last if self._last is not None else pixels
        while self._video.frames_written < frame.frame:
            self._video.write_frame(before)
        self._video.write_frame(pixels)
        self._last = pixels

    def _pixels(self, frame: LiveFrame) -> UInt8Array:
        """(height, width, 3) uint8 BGR."""
        if self._raw is not None:
            return np.frombuffer(frame.data, np.uint8).reshape(self._raw)
        pixels = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise InvalidInput(f"the frame at {frame.at_ms} ms is no JPEG file")
        return np.asarray(pixels, np.uint8)
