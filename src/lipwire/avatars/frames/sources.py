"""The frames of a compiled avatar decoded again from its source, by their numbers.

What is decoded is compared with the checksum that compiling noted. So a source that was changed
since is seen, and so is a video that cannot be decoded from the middle though its file says so: it
is decoded from its beginning then.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Final, Protocol

from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.images import read_image
from lipwire.avatars.frames.origins import Origins, frame_sum
from lipwire.avatars.frames.videoframes import Video, VideoFrame, video_broken
from lipwire.domain import AvatarInvalid, UInt8Array

_SKIP: Final = 4
"""So many frames are decoded for nothing before it is worth to look for the next key frame."""

_DECODERS: Final = 3
"""So many walks over one video go on beside each other without each jumping back for its own."""
_DECODERS_BYTES: Final = 128 * 1024 * 1024
"""What they hold together at most; those of large frames are fewer."""
_HELD_FRAMES: Final = 16
"""By a decoder: H.264 refers to so many."""
_NEAR: Final = 64
"""A decoder that has so many frames before it is on the same walk."""


class Source(Protocol):
    """A folder of images or a video from which whole frames are decoded when they are needed.
    Frames are numbered as the avatar shows them, 25 a second, from 0. ``workers`` is how many
    threads may call ``read`` at a time."""

    workers: int
    """How many threads may use it at a time."""

    def begin_of(self, number: int) -> int:
        """Return the number of the first frame that has to be decoded to get to frame ``number``:
        that of the key frame before it in a video, ``number`` itself among images."""

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, UInt8Array]]:
        """Yield (number, frame) for each of ``numbers``, which rise. They count the frames that the
        avatar shows, 25 a second, from 0; IndexError is raised past the last one.

        A frame is (height, width, 3) uint8 BGR, not to be written to. Raises AvatarInvalid where
        the source was changed since it was compiled, or cannot be decoded.
        """

    def close(self) -> None:
        """Close files and drop decoders. No other thread may be reading."""


def open_source(pictures: Pictures, origins: Origins, workers: int) -> Source:
    """Return what decodes whole frames of ``pictures``, a folder of images or a video, when they
    are needed; the caller closes it.

    ``origins`` is what was found out about them when they were compiled: which frames are shown,
    their checksums, and how to seek. ``workers`` is how many threads may decode images at a time; a
    video is decoded by one, whatever ``workers`` is. Raises AvatarInvalid where a video cannot be
    opened.
    """
    if pictures.video_path is not None:
        return VideoSource(pictures.video_path, origins)
    return ImageSource(pictures, origins, workers)


class ImageSource:
    """Decodes frames from a folder of images, each of which is decoded by itself. A ``Source``."""

    def __init__(self, pictures: Pictures, origins: Origins, workers: int) -> None:
        """``pictures`` are the images, ``origins`` what was found out about them when they were
        compiled, of which only the checksums are used; up to ``workers`` threads call ``read`` at a
        time.
        """
        self.workers = workers
        self._pictures = pictures
        self._sums = origins.sums

    def begin_of(self, number: int) -> int:
        """Return ``number``: each image is decoded by itself. See ``Source.begin_of``."""
        return number

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, UInt8Array]]:
        """Yield (number, frame) for each of ``numbers``, which rise and count the images from 0;
        IndexError is raised past the last one. A frame is (height, width, 3) uint8 BGR. Raises
        AvatarInvalid where an image was changed since it was compiled, or cannot be decoded."""
        for number in numbers:
            label = self._pictures.label(number)
            pixels = read_image(self._pictures.frame_paths[number], label)
            if frame_sum(pixels) != self._sums[number]:
                raise _changed(label)
            yield number, pixels

    def close(self) -> None:
        """Do nothing: no image stays open. See ``Source.close``."""
        pass


class VideoSource:
    """Decodes frames from a video. A ``Source`` for one thread at a time. The file stays open, so
    replacing it does no harm.

    Up to three decoders are kept, each at another place of the video, for several viewers that walk
    through it; fewer where they would take too much memory.
    """

    workers = 1

    def __init__(self, path: Path, origins: Origins) -> None:
        """``path`` is the video, ``origins`` what was found out about it when it was compiled. It
        is opened now and decoded when frames are needed. Raises AvatarInvalid where it cannot be
        opened."""
        self._path = path
        self._origins = origins
        self._places = {time: number for number, time in enumerate(origins.times)}
        self._decoders = [_Decoder(path, origins, self._places)]
        """Those used last at the end."""

    def begin_of(self, number: int) -> int:
        """Return the number of the first frame that has to be decoded to get to frame ``number``,
        that of the key frame before it. See ``Source.begin_of``."""
        shown = self._origins.shown
        return bisect_left(shown, self._decoders[-1].key_of(shown[number]))

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, UInt8Array]]:
        """Return an iterator of (number, frame) for each of ``numbers``, at least one, which rise.
        They count the frames that the avatar shows, 25 a second, from 0, not those of the file;
        IndexError is raised past the last one. A frame is (height, width, 3) uint8 BGR, not to be
        written to. Raises AvatarInvalid where the video was changed since it was compiled, or
        cannot be decoded."""
        decoder = self._decoder_at(self._origins.shown[numbers[0]])
        self._decoders.remove(decoder)
        self._decoders.append(decoder)
        return decoder.read(numbers)

    def close(self) -> None:
        """Close the video and its decoders. No other thread may be reading. See
        ``Source.close``."""
        for decoder in self._decoders:
            decoder.close()

    def _decoder_at(self, source: int) -> "_Decoder":
        """The one that is least far before that source frame, or else a new one or the one not used
        for longest."""
        ways = [(decoder.way_to(source), decoder) for decoder in self._decoders]
        near = [(way, place) for place, (way, _) in enumerate(ways) if way is not None]
        if near:
            return ways[min(near)[1]][1]
        newest = self._decoders[-1]
        if len(self._decoders) < min(_DECODERS, newest.allowed_beside()):
            other = self._another(newest)
            if other is not None:
                self._decoders.append(other)
                return other
        return self._decoders[0]

    def _another(self, opened: "_Decoder") -> "_Decoder | None":
        """A decoder of the same file; None where another one lies in its place now."""
        try:
            other = _Decoder(self._path, self._origins, self._places)
        except AvatarInvalid:
            return None
        if other.file != opened.file:
            other.close()
            return None
        return other


class _Decoder:
    """One place in a video, from which it is decoded forward."""

    def __init__(self, path: Path, origins: Origins, places: dict[int | None, int]) -> None:
        """``places`` are the source frames by what they are sought by. Raises AvatarInvalid where
        the file cannot be opened."""
        self._label = path.name
        self._origins = origins
        try:
            self._stream: IO[bytes] = path.open("rb")
            self._stat = self._stream_stat()
        except OSError as error:
            raise video_broken(self._label, error) from error
        self._video: Video | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._next = 0
        """Number of the source frame that ``_frames`` gives next."""
        self._seeks = bool(origins.times)
        self._places = places
        self._last: tuple[int, UInt8Array] | None = None

    @property
    def file(self) -> tuple[int, ...]:
        """Which file it is, as it was when it was opened."""
        found = os.fstat(self._stream.fileno())
        return found.st_dev, found.st_ino, *self._stat

    def way_to(self, source: int) -> int | None:
        """How many frames it has to decode before that source frame; None where they are many, or
        it stands behind it."""
        if self._video is None:
            return _NEAR
        if self._last is not None and self._last[0] == source:
            return 0
        way = source - self._next
        return way if 0 <= way < _NEAR else None

    def allowed_beside(self) -> int:
        """How many decoders of this video there may be."""
        if self._last is None:
            return 1
        frame_bytes = self._last[1].nbytes // 2  # of BGR; decoders mostly hold 12 bits a pixel
        return _DECODERS_BYTES // (frame_bytes * _HELD_FRAMES)

    def key_of(self, source: int) -> int:
        """With which source frame decoding begins on the way to that one."""
        return self._origins.key_before(source) if self._seeks else 0

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, UInt8Array]]:
        for number in numbers:
            source = self._origins.shown[number]
            if self._last is None or self._last[0] != source:
                self._last = (source, self._checked(source, self._origins.sums[number]))
            yield number, self._last[1]

    def close(self) -> None:
        if self._video is not None:
            self._video.close()
        self._stream.close()

    def _checked(self, source: int, expected_sum: int) -> UInt8Array:
        while True:
            try:
                pixels = self._decoded(source)
            except AvatarInvalid:
                if not self._seeks:
                    raise
                pixels = None
            if pixels is not None and frame_sum(pixels) == expected_sum:
                return pixels
            if not self._seeks:
                break
            # Once more from the beginning, and always from there after that.
            self._seeks = False
            self._rewind()
        # Several threads may have hidden damage in another way than one does.
        if pixels is None or self._stream_stat() != self._stat:
            raise _changed(self._label)
        return pixels

    def _decoded(self, source: int) -> UInt8Array | None:
        """The pixels of a source frame; None where the video ends before it."""
        key = self.key_of(source)
        if self._video is None or self._next > source or self._next + _SKIP < key:
            self._go_to(key)
        for frame in self._frames:
            self._next += 1
            if self._next > source:
                return frame.pixels()
        return None

    def _go_to(self, key: int) -> None:
        """Have ``_frames`` begin with a frame that is not behind ``key``."""
        video = self._video
        if video is None:
            video = self._rewind()
        if key == 0:
            if self._next > 0:
                self._rewind()
            return
        video.seek(self._origins.times[key] or 0)
        frames = video.frames(key)
        first = next(frames, None)
        place = None if first is None else self._places.get(first.mark)
        if first is None or place is None or place > key:
            self._rewind()
        else:
            self._next, self._frames = place, chain([first], frames)

    def _rewind(self) -> Video:
        if self._video is None:
            # One thread: others are at work on the network, and going back loses what more had
            # decoded ahead.
            self._video = Video(self._stream, self._label, threads=1)
        else:
            self._video.rewind()
        self._next, self._frames = 0, self._video.frames()
        return self._video

    def _stream_stat(self) -> tuple[int, int]:
        found = os.fstat(self._stream.fileno())
        return found.st_size, found.st_mtime_ns


def _changed(label: str) -> AvatarInvalid:
    return AvatarInvalid(f"{label} was changed after it was compiled; open the avatar again")
