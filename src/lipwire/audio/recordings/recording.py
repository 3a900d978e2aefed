"""A recording in its two forms, on one clock: what the network hears and what people hear."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

from lipwire.audio.recordings.blocks import SoundForm
from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.lengths import outlook
from lipwire.audio.recordings.otherheaders import without_rest
from lipwire.audio.recordings.passes import MAX_AUDIO_S, FirstPass, FormChanged, Step, later_pass
from lipwire.audio.recordings.source import RecordingFile, open_source
from lipwire.audio.recordings.wav import check_wav_length
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array, InvalidInput
from lipwire.domain.closing import Closing

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Piece:
    """About a second of a recording, in both forms: ``heard`` is for the network, (k,) float32 mono
    at 16 kHz in [-1, 1], ``sound`` for people, (n, channels) float32 with full scale 1.0.

    The two forms need not cover exactly the same time: resampling holds some milliseconds of either
    back until the next piece.
    """

    heard: Float32Array  # (k,) float32 at 16 kHz, mono, in [-1, 1]: for the network
    sound: Float32Array  # (n, channels) float32 in [-1, 1]: for people


class Recording(Protocol):
    """A recording that has been read, at least its beginning, so that errors in it are known. It
    has two forms: what the network that draws the mouths hears (16 kHz mono), and the sound for
    people.

    A context manager. ``heard`` and ``pieces`` may be called several times, each begun when the
    iterator before is exhausted or closed. Not for use from several threads at once.
    """

    @property
    def rate_hz(self) -> int:
        """Rate of the sound for people, in samples a second of each channel."""

    @property
    def channels(self) -> int:
        """Channels of the sound for people: 1 or 2."""

    @property
    def samples(self) -> int:
        """How many samples the network hears in all, at 16 kHz. Until the recording was read to its
        end, this is an estimate from what its file declares."""

    @property
    def loudest_rms(self) -> float:
        """Root mean square of the loudest second of the loudest channel, in what was read so far;
        full scale is 1.0."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user about what was read so far, one line each: holes, damage that was
        allowed, sound that is left out."""

    def examine(self) -> None:
        """Read the recording to its end, unless that was done before; ``samples``, ``warnings`` and
        the other properties are final then. May take as long as decoding it takes.

        Raises InvalidInput where the recording is damaged and that is not allowed, where its
        samples are not finite, absurdly loud or too many, and once it is closed; ``heard`` and
        ``pieces`` raise the same error at that place.
        """

    def heard(self) -> Generator[Float32Array]:
        """Yield what the network hears, from the beginning of the recording to its end, in pieces
        of about a second: (k,) float32 mono at 16 kHz in [-1, 1].

        Close the iterator where it is not exhausted. Raises InvalidInput where the recording is
        damaged and that is not allowed, where its samples are not finite, absurdly loud or too
        many, and once it is closed. Raises FormChanged where a later part shows that ``rate_hz``,
        ``channels`` or the choice of the channels that are heard were wrong: discard what was
        yielded, call ``examine``, and begin again (``redone_if_changed`` does this).
        """

    def pieces(self) -> Generator[Piece]:
        """Yield the recording from its beginning to its end, in pieces of about a second. Each has
        what the network hears (``heard``, (k,) float32 mono at 16 kHz in [-1, 1]) and the sound for
        people (``sound``, (n, channels) float32 in [-1, 1], of ``rate_hz``).

        Close the iterator where it is not exhausted. Raises InvalidInput where the recording is
        damaged and that is not allowed, where its samples are not finite, absurdly loud or too
        many, and once it is closed. Raises FormChanged where a later part shows that ``rate_hz``,
        ``channels`` or the choice of the channels that are heard were wrong: discard what was
        yielded, call ``examine``, and begin again (``redone_if_changed`` does this).
        """

    def close(self) -> None:
        """Close the files. Closing twice is allowed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def redone_if_changed(recording: Recording, work: Callable[[], _Made]) -> _Made:
    """Call ``work()``, which reads ``recording``, and return its result. Where ``work`` raises
    FormChanged, call ``recording.examine()`` and then ``work()`` once more; a call that raises
    FormChanged must leave nothing behind. Any other error that ``work`` raises is passed on. Raises
    InvalidInput where the rest of the recording is damaged and that is not allowed, or its samples
    are not finite, absurdly loud or too many."""
    try:
        return work()
    except FormChanged:
        recording.examine()
        return work()


class FileRecording(Closing):
    """A recording in a file of any container and codec that FFmpeg decodes. A ``Recording``.

    ``recording`` is a file's path, its bytes, or a file opened as binary, which the caller has to
    close; ``track`` the number of the audio track, from 1 (None: the one marked as default, or the
    first). Any rate from 1 to 768 kHz, up to 64 channels: for the network they are averaged, or one
    is taken where they would cancel each other out; for people more than two are mixed to two. Rate
    and channels may change on the way; people hear the highest rate and the most channels that
    there are. At most half a minute of the recording is in memory, however long it is. Nothing but
    the file itself is read: playlists that point elsewhere fail.

    Opening it decodes the first half minute, and the first pass goes on from there. Where the
    container shows that the recording is cut short, or too long, it is examined at once. Each later
    pass decodes the file again.

    Raises InvalidInput where the file is missing, a folder or device, not audio, without samples,
    longer than four hours, or holds NaN, infinite or absurdly loud samples; and where it is
    truncated or damaged inside, unless ``allow_damaged``: then silence takes the place of what is
    missing, and a warning is added. Errors after the first half minute are raised by the first
    pass. Raises StorageFailed where a pipe cannot be copied to a temporary file. Junk before the
    first and after the last good packet, which MP3 files often have, is skipped. MP3 and bare AAC
    do not say how long they are: a truncated one cannot be told from a shorter one.
    """

    def __init__(
        self, recording: RecordingFile, *, track: int | None = None, allow_damaged: bool = False
    ) -> None:
        self._stack = ExitStack()
        self._track = track
        self._allow_damaged = allow_damaged
        self._closed = False
        self._declared_s = 0.0
        with ExitStack() as stack:
            self._whole = stack.enter_context(open_source(recording))
            self._begin()
            if not self._first.ended:
                look = outlook(self._source, track)
                self._declared_s = look.length_s
                if look.cut_short or look.length_s > MAX_AUDIO_S:
                    self.examine()
            self._stack = stack.pop_all()

    @property
    def rate_hz(self) -> int:
        """Rate of the sound for people, in samples a second of each channel. See
        ``Recording.rate_hz``."""
        return self._first.form.rate_hz

    @property
    def channels(self) -> int:
        """Channels of the sound for people: 1 or 2. See ``Recording.channels``."""
        return self._first.form.channels

    @property
    def samples(self) -> int:
        """How many samples the network hears, at 16 kHz; until the file was read to its end, an
        estimate from what it declares. See ``Recording.samples``."""
        if self._first.ended:
            return self._first.samples
        return max(self._first.samples, round(self._declared_s * SAMPLE_RATE_HZ))

    @property
    def loudest_rms(self) -> float:
        """Root mean square of the loudest second of the loudest channel, in what was read so far;
        full scale is 1.0. See ``Recording.loudest_rms``."""
        return self._first.loudest_rms

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user, one line each. See ``Recording.warnings``."""
        return self._findings.warnings

    def examine(self) -> None:
        """Read the file to its end, unless that was done before, so that everything is known of it.
        Raises InvalidInput where it is damaged and that is not allowed, where its samples are not
        finite, absurdly loud or too many, and once it is closed. See ``Recording.examine``."""
        self._check_open()
        if not self._first.ended:
            self._untouched().finish()

    def heard(self) -> Generator[Float32Array]:
        """Yield what the network hears from the beginning, in pieces of about a second: (k,)
        float32 mono at 16 kHz in [-1, 1]. Close the iterator where it is not exhausted. Raises
        InvalidInput at once where the recording is closed, and during the iteration at damage that
        is not allowed and at samples that are not finite, absurdly loud or too many. Raises
        FormChanged where a later part shows that ``rate_hz``, ``channels`` or the choice of the
        channels that are heard were wrong: discard what was yielded, call ``examine``, and begin
        again (``redone_if_changed`` does this)."""
        return self._heard(self._steps())

    def pieces(self) -> Generator[Piece]:
        """Yield the recording from its beginning, in pieces of about a second, each of which has
        what the network hears (``heard``, (k,) float32 mono at 16 kHz) and the sound for people
        (``sound``, (n, channels) float32 of ``rate_hz``), both in [-1, 1]. Close the iterator where
        it is not exhausted. Raises InvalidInput at once where the recording is closed, and during
        the iteration at damage that is not allowed and at samples that are not finite, absurdly
        loud or too many. Raises FormChanged where a later part shows that ``rate_hz``, ``channels``
        or the choice of the channels that are heard were wrong: discard what was yielded, call
        ``examine``, and begin again (``redone_if_changed`` does this)."""
        return self._pieces(self._steps())

    def close(self) -> None:
        """Close the files. Closing twice is allowed. See ``Recording.close``."""
        self._closed = True
        self._stack.close()

    def _begin(self) -> None:
        self._findings = Findings(self._whole.name, allow_damaged=self._allow_damaged)
        self._source = without_rest(self._whole, self._findings)
        check_wav_length(self._source, self._findings)
        self._first = FirstPass(self._source, self._track, self._findings)
        self._begun = False

    def _untouched(self) -> FirstPass:
        """A first pass, of which nothing was taken."""
        if self._begun:
            self._begin()
        self._begun = True
        return self._first

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInput("the recording is closed")

    def _steps(self) -> Generator[Step]:
        self._check_open()
        if self._begun and self._first.ended:
            return later_pass(self._source, self._track, self._first.form)
        return self._untouched().steps()

    def _heard(self, steps: Generator[Step]) -> Generator[Float32Array]:
        with closing(steps):
            for heard, _ in steps:
                yield heard

    def _pieces(self, steps: Generator[Step]) -> Generator[Piece]:
        sound = SoundForm(self.rate_hz, self.channels)
        with closing(steps):
            for heard, block in steps:
                yield Piece(heard, sound.flush() if block is None else sound.push(block))
