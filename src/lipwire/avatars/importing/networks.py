"""The networks of a source: ONNX files, told apart by what they take, and PyTorch checkpoints, told
by their names."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lipwire.audio.encoder_file import read_encoder_file
from lipwire.avatars.checks.hints import SPEECH, listed_paths, natural
from lipwire.avatars.importing.sources import Source, followed
from lipwire.domain import AvatarInvalid, LipwireError
from lipwire.domain.avatarfiles import ENCODER_NAME, MODEL_NAME
from lipwire.engine import inspect_model

Kind = Literal["network", "audio encoder"]

_CHECKPOINTS: Final = (".pth", ".pt", ".ckpt")
_MOST_TRIED: Final = 16
"""ONNX files that are looked into; a tree of a program has its detectors' too."""
_OTHERS: Final = re.compile(r"syncnet|discriminator|optim|detect|landmark|vgg", re.IGNORECASE)
"""In names of checkpoints that are neither of the two."""
_OTHER_SPEECH: Final = re.compile(r"hubert|wenet|wav2vec|whisper", re.IGNORECASE)
_LAST_NUMBER: Final = re.compile(r"(\d{1,9})(?!.*\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network of a source: its file (``path``), how messages name it (``label``), whether the
    file is a PyTorch checkpoint and not ONNX (``pytorch``), and how many further checkpoints there
    were (``others``)."""

    path: Path
    label: str
    pytorch: bool
    others: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Two functions that read PyTorch checkpoints, which needs PyTorch.

    ``describe(path, kind)`` returns what is in a checkpoint, in a few words, and ``convert(path,
    kind, onnx)`` writes it as the ONNX file ``onnx``. Both raise AvatarInvalid for a checkpoint
    that is not of ``kind``, and DependencyMissing without PyTorch.
    """

    describe: Callable[[Path, Kind], str]
    convert: Callable[[Path, Kind, Path], None]


def find_network(source: Source) -> FoundNetwork:
    """Return the lip-sync network of ``source``: the file that was named (``source.model``), else
    an ONNX file in its folders, else a checkpoint there. Of several checkpoints it is one whose
    name contains "best", else the one with the highest number in its name, else the newest. Raises
    AvatarInvalid where there is none, with what is wrong with the most likely file, and where the
    file that was named is not there or is not valid."""
    if source.model is not None:
        return _named(source.model, inspect_model)
    found, why = _first_onnx(source, inspect_model, MODEL_NAME)
    if found is not None:
        return found
    checkpoint = _checkpoint(source, lambda name: not SPEECH.search(name))
    if checkpoint is not None:
        return checkpoint
    raise AvatarInvalid(
        why
        or f"{source.shown} has no network: neither {MODEL_NAME} nor checkpoint/195.pth is"
        " there, nor anything like them; --network names one"
    )


def find_encoder(source: Source) -> FoundNetwork | None:
    """Return the audio encoder of ``source``: the file that was named (``source.audio_encoder``),
    else an ONNX file in its folders, else a checkpoint there; None where there is none. Raises
    AvatarInvalid where the file that was named is not there or is not valid."""
    if source.audio_encoder is not None:
        return _named(source.audio_encoder, read_encoder_file)
    found, _ = _first_onnx(source, read_encoder_file, ENCODER_NAME)
    return found or _checkpoint(
        source, lambda name: bool(SPEECH.search(name)) and not _OTHER_SPEECH.search(name)
    )


def _named(path: Path, look: Callable[[Path], object]) -> FoundNetwork:
    if not path.is_file():
        raise AvatarInvalid(f"{path} is not there; it has to be an ONNX file or a checkpoint")
    pytorch = path.suffix.lower() in _CHECKPOINTS
    if not pytorch:
        look(path)
    return FoundNetwork(path, path.name, pytorch)


def _first_onnx(
    source: Source, look: Callable[[Path], object], usual: str
) -> tuple[FoundNetwork | None, str]:
    """The first ONNX file that ``look`` accepts, and what it says of the likeliest otherwise."""
    paths = [each for each in _paths(source.folders) if each[1].lower().endswith(".onnx")]
    paths.sort(key=lambda each: (each[1] != usual, not _is_best(each[1])))
    why = ""
    for root, name in paths[:_MOST_TRIED]:
        path = followed(root / name, root, name)
        try:
            look(path)
        except LipwireError as error:
            if not why and not SPEECH.search(name) and not _OTHERS.search(name):
                why = str(error)
            continue
        return FoundNetwork(path, name, False), ""
    return None, why


def _checkpoint(source: Source, wanted: Callable[[str], bool]) -> FoundNetwork | None:
    """The best, the one with the highest number, or the newest of the checkpoints whose file names
    are ``wanted``."""
    found = [
        (root, name)
        for root, name in _paths(source.folders)
        if Path(name).suffix.lower() in _CHECKPOINTS
        and not _OTHERS.search(Path(name).name)
        and wanted(Path(name).name)
    ]
    if not found:
        return None
    root, name = max(found, key=lambda each: _rank(*each))
    return FoundNetwork(followed(root / name, root, name), name, True, len(found) - 1)


def _rank(root: Path, name: str) -> tuple[bool, int, float, list[tuple[int, str]]]:
    number = _LAST_NUMBER.search(Path(name).stem)
    try:
        changed_s = (root / name).stat().st_mtime
    except OSError:
        changed_s = 0.0
    return _is_best(name), int(number[1]) if number else -1, changed_s, natural(name)


def _is_best(name: str) -> bool:
    return "best" in Path(name).name.lower()


def _paths(folders: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        yield from ((folder, name) for name in listed_paths(folder))
