"""The speech corpus: a fixed plan of utterances, spoken into a folder.

Utterance k of a split depends on (seed, split, k) alone, so a corpus can be stopped, continued, and
enlarged. The held-out split has voices and sentences that training never hears.
"""

import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from rich.progress import track

from lipwire.domain import InvalidInput, NotFound, StorageFailed
from studio.speech import festival, flite
from studio.speech.espeak import Espeak, Manner
from studio.speech.sentences import Split, sentence
from studio.speech.utterance import Utterance

FLITE_VOICES: Final[dict[Split, tuple[str, ...]]] = {
    "train": ("slt", "awb", "kal16"),
    "held_out": ("rms",),
}
"""A man's voice is held out, since `slt` is the only woman's."""

ESPEAK_LANGUAGES: Final = (
    "en-us", "en-us", "en-us", "en", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "de", "de",
    "fr", "fr", "es", "es-419", "it", "pt-br", "nl", "pl", "sv", "ru", "tr", "ro", "id", "fi",
)  # fmt: skip
"""Named as often as their share."""

ESPEAK_VARIANTS: Final[dict[Split, tuple[str, ...]]] = {
    "train": (
        "", "f1", "f2", "f3", "f5", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "klatt", "klatt2",
        "klatt4", "klatt6", "Alicia", "Andrea", "Annie", "Diogo", "Gene", "Henrique", "iven",
        "Jacky", "Lee", "linda", "marcelo", "Marco", "Mario", "max", "Michael", "Mike", "steph",
        "zac", "grandma", "grandpa", "whisper", "belinda", "david", "antonio",
    ),
    "held_out": ("f4", "m5", "Andy", "klatt3", "steph2", "benjamin"),
}  # fmt: skip

FESTIVAL_VOICES: Final = ("ked_diphone", *festival.VOICES)
"""Named as often as their share, for training alone: English is what is judged."""

SHARES: Final[dict[Split, dict[str, float]]] = {
    "train": {"flite": 0.35, "festival": 0.3, "espeak": 0.35},
    "held_out": {"flite": 0.5, "espeak": 0.5},
}
"""Part of a split that each engine speaks: flite's and Festival's voices are nearer to people's."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the plan: who says what, and how."""

    name: str
    engine: str
    voice: str
    text: str
    stretch: float
    manner: Manner
    pitch: float
    """Festival's, beside the voice's own."""
    melody: flite.Pitch | None
    """flite's; None is the voice's own."""

    def speak(self) -> Utterance:
        if self.engine == "flite":
            return flite.speak(self.text, self.voice, self.stretch, self.melody)
        if self.engine == "festival":
            return festival.speak(self.text, self.voice, self.stretch, self.pitch)
        return Espeak.open().speak(self.text, self.voice, self.manner)


def plan(split: Split, count: int, seed: int = 0) -> Iterator[Line]:
    """The first ``count`` lines of a split.

    Three voices of flite's at any pitch are nearer to all people's than at their own: with it a
    voice that was never heard is read much better. The held-out split's have their own.
    """
    for k in range(count):
        rng = random.Random(f"{seed}/{split}/{k}")
        shares = SHARES[split]
        engine = list(shares)[bisect(list(accumulate(shares.values()))[:-1], rng.random())]
        if engine == "flite":
            language = "en-us"
            voice = rng.choice(FLITE_VOICES[split])
        elif engine == "festival":
            voice = rng.choice(FESTIVAL_VOICES)
            language = festival.VOICES[voice].language
        else:
            language = rng.choice(ESPEAK_LANGUAGES) if split == "train" else "en-us"
            variant = rng.choice(ESPEAK_VARIANTS[split])
            voice = f"{language}+{variant}" if variant else language
        yield Line(
            name=f"{split}-{k:05d}",
            engine=engine,
            voice=voice,
            text=sentence(language, split, rng),
            stretch=rng.uniform(0.85, 1.35),
            manner=Manner(rng.randint(120, 210), rng.randint(20, 80), rng.randint(25, 80)),
            pitch=rng.uniform(0.8, 1.25),
            melody=_melody(rng) if split == "train" else None,
        )


def _melody(rng: random.Random) -> flite.Pitch:
    mean_hz = rng.uniform(75, 250)
    return flite.Pitch(mean_hz, mean_hz * rng.uniform(0.04, 0.22))


def build_corpus(
    folder: Path, *, train: int = 4000, held_out: int = 120, seed: int = 0, quiet: bool = False
) -> None:
    """Speak the plan into ``folder/train`` and ``folder/held_out``; what is there is kept.

    Raises `DependencyMissing` without flite, espeak-ng, or Festival and its voices,
    `StorageFailed` for a folder that cannot be written.
    """
    for split, count in (("train", train), ("held_out", held_out)):
        place = folder / split
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(f"cannot make the folder {place}: {error.strerror}") from error
        lines = plan(split, count, seed)  # type: ignore[arg-type]
        for line in track(lines, f"speaking {split}", total=count, disable=quiet):
            path = place / f"{line.name}.npz"
            if not path.exists():
                line.speak().save(path)


def load_split(folder: Path, split: Split, limit: int | None = None) -> list[Utterance]:
    """The utterances of a split in order. Raises `NotFound` when there are none."""
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}; at least 1")
    paths = sorted((folder / split).glob("*.npz"))[:limit]
    if not paths:
        raise NotFound(f"no utterances in {folder / split}; make them first (speech corpus)")
    return [Utterance.load(path) for path in paths]
