"""Going through a file from its beginning to its end: decoding it, and making what the network
hears.

How a recording is to be heard depends on all of it: on its highest rate, its most channels, and on
whether channels cancel each other out. The first pass decides that by what it reads ahead, and
notices where the rest says otherwise. A recording that is no longer than what is read ahead is
known from the start.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from lipwire.audio.recordings.blocks import Block, HeardForm, read_blocks
from lipwire.audio.recordings.channels import ChannelLevels
from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.source import Source
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array, InvalidInput

MAX_AUDIO_S: Final = 4 * 3600
"""Longest recording in seconds. Cut longer ones into parts."""
AHEAD_S: Final = 30.0
"""How much of a recording the first pass reads ahead, at most."""
_AHEAD_VALUES: Final = 1 << 22  # of all channels together; 16 MB as float32

Step = tuple[Float32Array, Block | None]
"""What the network hears, (k,) float32 at 16 kHz, and the block that it comes from; None at the
end, where what resampling held back is left."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a recording is given to people and to the network. ``rate_hz`` and
    ``channels``, 1 or 2, are those of the sound for people. ``choices`` is for the network: the
    keys are numbers of channels, the value the index, from 0, of the one channel to use in place of
    the average where the recording has so many."""

    rate_hz: int  # by people
    channels: int  # by people: 1 or 2
    choices: dict[int, int]  # for a number of channels: the one to hear instead of their average


class FormChanged(Exception):
    """A later part of a recording needs another ``Form`` (rate, channels, or which of them is
    heard) than its beginning: what was made of it so far has to be made again."""


class FirstPass:
    """The first pass through audio track ``track`` (from 1; None for the default one) of
    ``source``; warnings are added to ``findings``. Not for use from several threads at once.

    Making it decodes the first half minute, or less of many channels, which decides ``form``: the
    rate and the channels that the sound for people has, and which channel the network hears where
    an average of all would cancel out. Then either ``steps`` or ``finish`` is called, once.
    ``ended`` says whether the recording has been read to its end; for a recording shorter than half
    a minute this is so from the beginning. Making it, ``steps`` and ``finish`` raise InvalidInput
    for a file that is not audio or has no such track, for damage that ``findings`` does not allow,
    and for a track without samples, with more than four hours of them, or with samples that are not
    finite or absurdly loud.
    """

    def __init__(self, source: Source, track: int | None, findings: Findings) -> None:
        self.ended = False
        self._form_may_change = False
        self._measures = _Measures()
        self._blocks = read_blocks(source, track, findings)
        self._ahead: deque[Block] = deque()
        whole = self._read_ahead()
        if not self._ahead:
            raise _no_samples(source.name)
        self.form = self._measures.form()
        self._heard = HeardForm(self.form.choices)
        self._steps = _steps(self._checked(), self._heard, source.name)
        self._ready = deque(self._steps if whole else islice(self._steps, len(self._ahead)))
        self.ended = whole

    @property
    def samples(self) -> int:
        """How many samples at 16 kHz have been made for the network so far."""
        return self._heard.samples

    @property
    def loudest_rms(self) -> float:
        """Root mean square of the loudest second of the loudest channel so far; full scale is
        1.0."""
        return self._measures.loudest_rms

    def steps(self) -> Generator[Step]:
        """Yield (what the network hears, (k,) float32 at 16 kHz; the ``Block`` that it was made of)
        for each block from the beginning to the end; to be called once.

        After the last block the remaining samples follow, with None in place of a block. Raises
        FormChanged where a later part of the recording has another rate, other channels, or sound
        in a channel that was silent, so that ``form`` does not fit it; InvalidInput where the
        recording is damaged and that is not allowed, or its samples are not finite, absurdly loud
        or too many.
        """
        with closing(self._blocks):
            while self._ready:
                yield self._ready.popleft()
            yield from self._steps
        self.ended = True

    def finish(self) -> None:
        """Go through the whole recording instead of calling ``steps``, and set ``form`` to the one
        that fits all of it. Raises InvalidInput where the recording is damaged and that is not
        allowed, or its samples are not finite, absurdly loud or too many."""
        self._form_may_change = True
        for _ in self.steps():
            pass
        self.form = self._measures.form()

    def _read_ahead(self) -> bool:
        """Whether that was all."""
        length_s, values = 0.0, 0
        for block in self._blocks:
            self._measures.add(block)
            self._ahead.append(block)
            length_s += len(block.columns) / max(1, block.rate_hz)
            values += block.columns.size
            if length_s >= AHEAD_S or values >= _AHEAD_VALUES:
                return False
        return True

    def _checked(self) -> Iterator[Block]:
        while self._ahead:
            yield self._ahead.popleft()
        for block in self._blocks:
            self._measures.add(block)
            if not self._form_may_change and self._measures.form() != self.form:
                raise FormChanged
            yield block


def later_pass(source: Source, track: int | None, form: Form) -> Generator[Step]:
    """Yield (what the network hears, (k,) float32 at 16 kHz in [-1, 1]; the ``Block`` that it was
    made of) for each block of ``source``, a recording that an earlier pass has read to its end.
    After the last block the remaining samples follow, with None in place of a block.

    ``form`` is that of ``FirstPass`` at its end; ``track`` counts audio tracks from 1, None is the
    default one. Silence takes the place of damage, and no warning of it is added again. Close the
    iterator where it is not exhausted. Raises InvalidInput where the file was changed meanwhile so
    that it cannot be decoded.
    """
    findings = Findings(source.name, allow_damaged=True)
    with closing(read_blocks(source, track, findings)) as blocks:
        yield from _steps(blocks, HeardForm(form.choices), source.name)


def _steps(blocks: Iterable[Block], heard: HeardForm, name: str) -> Iterator[Step]:
    for block in blocks:
        try:
            pcm = heard.push(block)
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from error
        if heard.samples > MAX_AUDIO_S * SAMPLE_RATE_HZ:
            raise InvalidInput(f"{name} is longer than {MAX_AUDIO_S} s, the most allowed")
        yield pcm, block
    rest = heard.flush()
    if not heard.samples:
        raise _no_samples(name)
    yield rest, None


def _no_samples(name: str) -> InvalidInput:
    return InvalidInput(f"{name} holds an audio track of zero length")


class _Measures:
    """What the form of a recording depends on, measured block by block."""

    def __init__(self) -> None:
        self._rate_hz = 0
        self._levels: dict[int, ChannelLevels] = {}

    def add(self, block: Block) -> None:
        self._rate_hz = max(self._rate_hz, block.rate_hz)
        levels = self._levels.setdefault(block.channels, ChannelLevels(block.channels))
        with np.errstate(invalid="ignore", over="ignore"):  # what is no sound is refused later
            levels.add(block.columns, block.rate_hz)

    def form(self) -> Form:
        """The form of all that was added."""
        choices = {count: levels.choice() for count, levels in self._levels.items()}
        return Form(
            self._rate_hz,
            min(2, max(self._levels)),
            {count: choice for count, choice in choices.items() if choice is not None},
        )

    @property
    def loudest_rms(self) -> float:
        return max(levels.loudest_rms for levels in self._levels.values())
