"""The voice of hibari-tts: English, made on the processor, of files that lie in its package."""

from __future__ import annotations

import logging
import re
import threading
import unicodedata
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from lipwire.domain import DependencyMissing, Float32Array, InvalidInput, Unavailable
from lipwire.speech.sentences import sentences
from lipwire.speech.synthesis import SpokenPiece, trimmed

if TYPE_CHECKING:
    from hibari import Hibari

_LOG: Final = logging.getLogger(__name__)
_VOICE: Final = "heart"
"""The one whose file is in the package. The others would be downloaded."""
_LATIN: Final = re.compile(r"[A-Za-zÀ-ɏ]|\d")
_LONG_NUMBER: Final = re.compile(r"\d{13,}")
"""Numbers for which it has no words."""


def hibari_is_installed() -> bool:
    """Return whether the package of the voice hibari is installed; it is not loaded."""
    return find_spec("hibari") is not None


class HibariVoice:
    """A ``Voice`` that speaks English, of the package hibari-tts. It is loaded when it is first
    needed. For use by many threads, of which one is served at a time."""

    name: Final = "hibari"

    def __init__(self, *, speed: float = 1.0) -> None:
        """``speed`` is a factor, 0.5 to 2. Nothing is loaded yet. Raises DependencyMissing where
        the package hibari-tts is not installed."""
        if not hibari_is_installed():
            raise DependencyMissing(
                "the voice hibari is not installed; `pip install lipwire[speech]` brings it"
            )
        self._speed = speed
        self._lock = threading.Lock()
        self._loaded: Hibari | None = None

    def prepare(self) -> None:
        """Load the voice, which takes seconds; does nothing where it is loaded. Raises
        DependencyMissing where the file of its network is not in its package."""
        with self._lock:
            self._hibari()

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        """Return an iterator of the sound of ``text``, sentence by sentence, each as one piece that
        is made when it is asked for; it waits while another thread's sentence is made.

        Raises InvalidInput at once where ``text`` has more than 10,000 characters, or neither Latin
        letters nor digits: the voice speaks English. Raises Unavailable while it is iterated where
        the voice fails, and DependencyMissing where it cannot be loaded.
        """
        said = sentences(_LONG_NUMBER.sub(lambda number: " ".join(number[0]), text))
        if not any(_LATIN.search(sentence) for sentence in said):
            raise InvalidInput(
                "nothing to say: the voice hibari speaks English, and the text has no Latin letters"
            )
        return self._spoken(said)

    def _spoken(self, said: list[str]) -> Generator[SpokenPiece, None, None]:
        for sentence in said:
            with self._lock:
                pcm, rate_hz = self._sound(sentence)
            if len(pcm):
                yield SpokenPiece(pcm, rate_hz, sentence)

    def _sound(self, sentence: str) -> tuple[Float32Array, int]:
        """Under the lock: (n,) float32 in [-1, 1], and its rate."""
        voice = self._hibari()
        rate_hz = int(voice.sample_rate)
        for text in (sentence, _plain(sentence)):
            try:
                made = np.asarray(voice(text, speed=self._speed), np.float32)
                break
            except Exception as error:
                failed = error
                _LOG.info("the voice hibari failed on a sentence", exc_info=True)
        else:
            raise Unavailable(f"the voice hibari failed: {type(failed).__name__}")
        return trimmed(np.clip(np.nan_to_num(made), -1.0, 1.0), rate_hz), rate_hz

    def _hibari(self) -> Hibari:
        """Under the lock."""
        if self._loaded is None:
            import hibari

            # With the file named, the package looks for no voice elsewhere and downloads none.
            model = Path(hibari.__file__).with_name("assets") / "hibari.onnx"
            if not model.is_file():
                raise DependencyMissing(
                    "the voice hibari has no hibari.onnx; install lipwire[speech] again"
                )
            loaded = hibari.Hibari(voice=_VOICE, model=str(model), threads=1)
            loaded("Ready, xyzq.")  # loads its words, and the network for those it does not know
            self._loaded = loaded
        return self._loaded


def _plain(text: str) -> str:
    """``text`` without what its rules may fail on: in ASCII, as far as there is such a form."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
