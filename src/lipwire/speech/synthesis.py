"""What says a text: the protocol of voices, and what they have in common."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from lipwire.domain import Float32Array, Unavailable

_LEAD_S: Final = 0.06
"""What is left of the silence before a sentence: a soft consonant may begin in it."""
_PAUSE_S: Final = 0.3
"""What is left of the silence behind a sentence."""
_QUIET: Final = 0.004
"""Samples of at most this size, -48 dB of full scale, are silence; or of at most so much of the
loudest: """
_QUIET_OF_PEAK: Final = 0.02


@dataclass(frozen=True, slots=True)
class SpokenPiece:
    """Some sound of a sentence that a voice says: ``pcm`` is (n,) float32, mono, in [-1, 1], at
    ``rate_hz``. ``text`` is the sentence where the piece is its first; empty in further pieces."""

    pcm: Float32Array
    """(n,) float32 mono in [-1, 1]."""
    rate_hz: int
    text: str
    """The sentence that begins with this piece; empty where the piece goes on with one."""


class Voice(Protocol):
    """Makes sound of texts (text to speech). For use by many threads. Nothing has to be closed but
    iterators of ``say`` that are left half-way."""

    @property
    def name(self) -> str:
        """The voice's name, for people: a word or two."""
        ...

    def prepare(self) -> None:
        """Load what is needed, so that the first text need not wait for it; may take seconds. Does
        nothing where that was done.

        Raises DependencyMissing where the voice is not installed or lacks a file, InvalidInput
        where it does not have the language that was asked for, Unavailable where it does not run.
        """
        ...

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        """Return the sound of ``text``, sentence by sentence, as an iterator of pieces: a sentence
        is made when its first piece is asked for. A sentence without sound gives no piece.

        Raises InvalidInput at once where ``text`` has more than 10,000 characters or nothing that
        can be said; while it is iterated, Unavailable where the voice fails or does not run,
        DeadlineExceeded where it does not answer in time, and, where ``prepare`` was not called
        before, DependencyMissing where the voice is not installed or lacks a file, and InvalidInput
        where it does not have the language that was asked for.
        """
        ...


def said_in_full(voice: Voice, text: str) -> tuple[Float32Array, int]:
    """Have ``voice`` say all of ``text``, and return (the sound, (n,) float32 mono in [-1, 1]; its
    rate in Hz), when all of it is made.

    Raises InvalidInput where ``text`` is too long or has nothing that can be said, Unavailable
    where the voice fails, says nothing, or speaks at several rates, DeadlineExceeded where it does
    not answer in time, and DependencyMissing where it cannot be loaded.
    """
    pieces = list(voice.say(text))
    rates = sorted({piece.rate_hz for piece in pieces})
    if len(rates) != 1:
        said = "says nothing" if not rates else f"speaks at {len(rates)} rates; allowed is one"
        raise Unavailable(f"the voice {voice.name} {said}")
    return np.concatenate([piece.pcm for piece in pieces]), rates[0]


def trimmed(pcm: Float32Array, rate_hz: int) -> Float32Array:
    """Return ``pcm``, the sound of a sentence, (n,) float32 mono in [-1, 1] at ``rate_hz``, without
    most of the silence before and behind it: 60 ms are left before it, and 300 ms behind it, where
    there was so much. Silence is what is not above -48 dB of full scale, or not above 2 % of the
    peak of ``pcm`` where that is more. Empty where all of it is silence. The result is a view."""
    size = np.abs(pcm)
    loud = np.flatnonzero(size > max(_QUIET, _QUIET_OF_PEAK * float(size.max(initial=0.0))))
    if not len(loud):
        return pcm[:0]
    first = max(0, int(loud[0]) - round(_LEAD_S * rate_hz))
    return pcm[first : int(loud[-1]) + 1 + round(_PAUSE_S * rate_hz)]
