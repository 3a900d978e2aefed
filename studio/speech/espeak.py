"""Speech from espeak-ng: formant synthesis with many voices and languages and exact phone times.

The library is called directly, for its phoneme events; its header `speak_lib.h` is the reference.
https://github.com/espeak-ng/espeak-ng
"""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soxr

from lipwire.domain import SAMPLE_RATE_HZ, DependencyMissing, InvalidInput
from lipwire.training.coarticulation import Phone
from lipwire.training.visemes import SILENCE
from studio.speech.utterance import Utterance

LIBRARY: Final = "libespeak-ng.so.1"

_SYNCHRONOUS = 2
_PHONEME_EVENTS_IN_IPA = 0x0001 | 0x0002
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _RANGE = 1, 3, 4

UNVOICED_STOPS: Final = frozenset("ptkc")
CLOSURE_S: Final = 0.04
"""The event of an unvoiced stop comes at its burst; the closure before it lasts about this long."""


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_void_p), ("text", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a voice speaks: words a minute, pitch and its range (espeak-ng's 0..100)."""

    rate_wpm: int = 165
    pitch: int = 50
    range: int = 50


class Espeak:
    """The library, opened once; it holds one voice at a time, so calls take turns.

    It keeps a trace of one sentence into the next: said again, a sentence may be a few samples
    longer. A new process that says the same in the same order repeats itself exactly.
    """

    _lock = threading.Lock()
    _opened: "Espeak | None" = None

    def __init__(self, library: Any, rate_hz: int) -> None:
        """Use `open`."""
        self._library = library
        self._rate_hz = rate_hz
        self._pieces: list[bytes] = []
        self._events: list[tuple[str, float]] = []
        self._callback = _CALLBACK(self._receive)  # kept alive: the library holds only its address
        library.espeak_SetSynthCallback(self._callback)

    @classmethod
    def open(cls) -> "Espeak":
        """The one instance of this process. Raises `DependencyMissing`."""
        with cls._lock:
            if cls._opened is None:
                try:
                    library = ctypes.CDLL(LIBRARY)
                except OSError as error:
                    raise DependencyMissing(
                        f"{LIBRARY} is not installed (Debian package: libespeak-ng1)"
                    ) from error
                rate_hz = library.espeak_Initialize(
                    _SYNCHRONOUS, 0, None, _PHONEME_EVENTS_IN_IPA | _DO_NOT_EXIT
                )
                if rate_hz <= 0:
                    raise DependencyMissing("espeak-ng has no voice data (espeak-ng-data)")
                cls._opened = cls(library, rate_hz)
            return cls._opened

    def speak(self, text: str, voice: str, manner: Manner | None = None) -> Utterance:
        """Speak with a language code and an optional variant: "de", "en-us+f2".

        Raises `InvalidInput` for an unknown voice, and for text that gives no sound.
        """
        manner = manner or Manner()
        with self._lock:
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise InvalidInput(f"espeak-ng voice {voice!r} is unknown")
            for parameter, value in (
                (_RATE, manner.rate_wpm),
                (_PITCH, manner.pitch),
                (_RANGE, manner.range),
            ):
                self._library.espeak_SetParameter(parameter, value, 0)
            self._pieces.clear()
            self._events.clear()
            raw = text.encode()
            self._library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None)
            self._library.espeak_Synchronize()
            wave = np.frombuffer(b"".join(self._pieces), np.int16)
            events = list(self._events)
        if not len(wave):
            raise InvalidInput(f"espeak-ng gave no sound for {text!r}")
        length_s = len(wave) / self._rate_hz
        pcm = soxr.resample(wave, self._rate_hz, SAMPLE_RATE_HZ)
        return Utterance(f"espeak/{voice}", text, pcm, phones_of_events(events, length_s))

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if count > 0 and samples:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        k = 0
        while events[k].type != _EVENT_END_OF_LIST:
            event = events[k]
            if event.type == _EVENT_PHONEME:
                # The name needs all 8 bytes when it is long, and then has no zero at its end.
                address = ctypes.addressof(event) + _Event.id.offset
                name = ctypes.string_at(address, 8).split(b"\0")[0].decode("utf-8", "ignore")
                self._events.append((name, event.sample / self._rate_hz))
            k += 1
        return 0


def phones_of_events(events: Sequence[tuple[str, float]], length_s: float) -> tuple[Phone, ...]:
    """(name, start in seconds) -> phones; an unvoiced stop begins with its closure."""
    phones: list[Phone] = []
    for k, (name, start_s) in enumerate(events):
        end_s = events[k + 1][1] if k + 1 < len(events) else length_s
        end_s = max(start_s, end_s)
        symbol = SILENCE if name.startswith("(") else name  # "(en)" marks a change of language
        if symbol and symbol[0] in UNVOICED_STOPS and phones:
            last = phones[-1]
            start_s = max(start_s - CLOSURE_S, (last.start_s + last.end_s) / 2)
            phones[-1] = Phone(last.symbol, last.start_s, start_s)
        phones.append(Phone(symbol, start_s, end_s))
    return tuple(p for p in phones if p.end_s > p.start_s)
