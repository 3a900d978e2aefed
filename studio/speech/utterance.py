"""A piece of speech that knows when each of its phones sounds."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lipwire.domain import SAMPLE_RATE_HZ, InvalidInput
from lipwire.domain.newfiles import new_file, storage_errors
from lipwire.training.coarticulation import Phone


@dataclass(frozen=True, slots=True)
class Utterance:
    """Synthetic speech at `SAMPLE_RATE_HZ`, with its phones in time order."""

    voice: str
    text: str
    pcm: npt.NDArray[np.int16]  # (samples,) int16, full scale 32768
    phones: tuple[Phone, ...]

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / SAMPLE_RATE_HZ

    def save(self, path: Path) -> None:
        """Write to ``path`` (.npz), whole or not at all. Raises `StorageFailed`."""
        with storage_errors(path), new_file(path) as file:
            np.savez_compressed(
                file,
                voice=np.array(self.voice),
                text=np.array(self.text),
                pcm=self.pcm,
                symbols=np.array([p.symbol for p in self.phones], dtype=str),
                times_s=np.array([(p.start_s, p.end_s) for p in self.phones]).reshape(-1, 2),
            )

    @classmethod
    def load(cls, path: Path) -> "Utterance":
        """Read what `save` wrote. Raises `InvalidInput` for a file that is something else."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                phones = tuple(
                    Phone(str(symbol), float(start), float(end))
                    for symbol, (start, end) in zip(data["symbols"], data["times_s"], strict=True)
                )
                return cls(str(data["voice"]), str(data["text"]), data["pcm"], phones)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"{path} is not an utterance: {error}") from error
