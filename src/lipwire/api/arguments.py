"""Arguments of the API: taken as people give them, or refused in one line."""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, SupportsIndex, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt

from lipwire.audio import (
    FileRecording,
    PcmRecording,
    Recording,
    RecordingFile,
    heard_in_full,
)
from lipwire.compose import Writable, X264Preset
from lipwire.domain import Float32Array, InvalidInput
from lipwire.domain.wording import shown

PathLike = str | os.PathLike[str]

Audio = (
    RecordingFile | npt.NDArray[np.int16] | npt.NDArray[np.floating] | Sequence[float] | Recording
)
"""What an avatar can say: a recording that FFmpeg can decode, as the path of its file, as an open
binary file (which need not be one that can be sought in), or as the bytes of such a file; samples,
as an array or list, (samples,) or (samples, channels), int16, or float32 or float64 in [-1, 1]; or
what ``open_recording`` gave. Samples need their ``rate_hz`` said beside them, where it is not 16
kHz."""

Output = Literal["bgr", "jpeg", "i420"]
"""A form in which frames can be had."""
Precision = Literal["auto", "float32"]
"""What the network may be computed in on a processor."""

_Given = TypeVar("_Given")


def recording_of(audio: Audio, rate_hz: int, track: int | None, allow_damaged: bool) -> Recording:
    """Return ``audio`` as an opened recording; the caller closes it, unless ``audio`` was one
    already, which is returned itself.

    ``audio`` is a file that FFmpeg can decode (a path, an open binary file, or the bytes of one),
    samples, (n,) or (n, channels), int16 or float with full scale 1.0, or a recording. ``rate_hz``
    is the rate of samples; files say theirs. ``track`` is the number of a file's audio track, from
    1 (None: the default one), and ``allow_damaged`` has a damaged file taken, with silence where
    something is missing. Raises InvalidInput for audio that cannot be decoded, StorageFailed where
    a pipe cannot be copied.
    """
    if isinstance(audio, (FileRecording, PcmRecording)):
        return audio
    if _is_file(audio):
        return FileRecording(
            cast(RecordingFile, audio), track=_track(track), allow_damaged=bool(allow_damaged)
        )
    return PcmRecording(audio, whole_number("rate_hz", rate_hz, 1))


@contextmanager
def open_audio(
    audio: Audio, rate_hz: int, track: int | None, allow_damaged: bool
) -> Iterator[Recording]:
    """Context manager: give the block ``audio`` as a recording, and close it afterwards, unless it
    was a recording already. ``audio`` is a file that FFmpeg can decode (a path, an open binary
    file, or the bytes of one), samples, (n,) or (n, channels), int16 or float with full scale 1.0,
    or a recording. ``rate_hz`` is the rate of samples, ``track`` the number of a file's audio
    track, from 1 (None: the default one), and ``allow_damaged`` has a damaged file taken; what does
    not apply is ignored. Raises InvalidInput for a file that cannot be read or decoded, or lacks
    the track, and for samples of another shape or type; StorageFailed where a pipe cannot be
    copied."""
    recording = recording_of(audio, rate_hz, track, allow_damaged)
    try:
        yield recording
    finally:
        if recording is not audio:
            recording.close()


def heard_of(audio: Audio, rate_hz: int, track: int | None, allow_damaged: bool) -> Float32Array:
    """Return all of ``audio`` as the network hears it: (samples,) float32 at 16 kHz in [-1, 1],
    mono. ``audio`` is a file that FFmpeg can decode (a path, an open binary file, or the bytes of
    one), samples, (n,) or (n, channels), int16 or float with full scale 1.0, or a recording.
    ``rate_hz`` is the rate of samples, ``track`` the number of a file's audio track, from 1 (None:
    the default one), and ``allow_damaged`` has a damaged file taken. Raises InvalidInput for
    audio that cannot be decoded, StorageFailed where a pipe cannot be copied."""
    with open_audio(audio, rate_hz, track, allow_damaged) as recording:
        return heard_in_full(recording)


def _is_file(audio: object) -> bool:
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(audio, kinds) or callable(getattr(audio, "read", None))


def _track(track: object) -> int | None:
    """``audio_track``: None, or a number; the file says which there are."""
    return None if track is None else whole_number("audio_track", track, 0)


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int; numpy's integers count, floats do not. Raises InvalidInput where
    it is no whole number, below ``least`` or above ``most`` (None: no limit); ``name`` is what the
    error calls it."""
    allowed = f"{least} and more" if most is None else f"{least} to {most}"
    try:
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        raise InvalidInput(f"{name} is {_shown(value)}, allowed are whole numbers, {allowed}")
    return number


def path_of(name: str, value: object) -> Path:
    """Return ``value``, a path as str or os.PathLike, as a Path. Raises InvalidInput for anything
    else and for an empty one; ``name`` is what the error calls it."""
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(given, str) or not given or "\0" in given:
        raise InvalidInput(f"{name} is {_shown(value)}, allowed are paths, as str or Path")
    return Path(given)


def name_of(name: str, value: object) -> str | Path:
    """Return ``value``, an avatar's name or path, as it is where it is a str, else as a Path.
    Raises InvalidInput where it is neither str nor os.PathLike, or empty; ``name`` is what the
    error calls it."""
    path = path_of(name, value)
    return value if isinstance(value, str) else path


def target_of(out: object) -> Path | Writable:
    """Return where a video goes: ``out`` as a Path where it is a str or os.PathLike, else ``out``
    itself, a binary file that is open for writing. Raises InvalidInput for anything else."""
    if isinstance(out, (str, os.PathLike)) or not callable(getattr(out, "write", None)):
        return path_of("out", out)
    if isinstance(out, io.TextIOBase):
        raise InvalidInput("out is open as text; allowed: a file opened as binary ('wb')")
    try:
        may_write = getattr(out, "writable", lambda: True)()
    except ValueError as error:  # it is closed
        raise InvalidInput(f"out cannot be written to: {error}") from error
    if not may_write:
        raise InvalidInput("out is open for reading; allowed: a file opened for writing ('wb')")
    return cast(Writable, out)


def outputs_of(outputs: object) -> tuple[Output, ...]:
    """Return ``outputs``, an iterable of forms of frames ("bgr", "jpeg", "i420"), as a tuple that
    has each once. Raises InvalidInput where it is a str or no iterable, and for an unknown form."""
    allowed = get_args(Output)
    if isinstance(outputs, str) or not isinstance(outputs, Iterable):
        raise InvalidInput(
            f"outputs is {_shown(outputs)}, allowed is a tuple of {', '.join(map(repr, allowed))}"
        )
    return tuple(dict.fromkeys(output_of(output) for output in outputs))


def output_of(output: object) -> Output:
    """Return ``output`` if it is a form of frames: "bgr", "jpeg" or "i420". Raises InvalidInput for
    anything else."""
    allowed = get_args(Output)
    if output not in allowed:
        raise InvalidInput(
            f"the output {_shown(output)} is unknown, allowed are {', '.join(map(repr, allowed))}"
        )
    return cast(Output, output)


def preset_of(preset: object) -> X264Preset:
    """Return ``preset`` if it is the name of one of x264's presets ("veryfast" for example, see
    ``X264Preset``). Raises InvalidInput for anything else."""
    allowed = get_args(X264Preset)
    if not isinstance(preset, str) or preset not in allowed:
        raise InvalidInput(f"preset is {_shown(preset)}, allowed are {', '.join(allowed)}")
    return cast(X264Preset, preset)


def precision_of(precision: object) -> Precision:
    """Return ``precision`` if it is "auto" or "float32". Raises InvalidInput for anything else."""
    allowed = get_args(Precision)
    if not isinstance(precision, str) or precision not in allowed:
        raise InvalidInput(f"precision is {_shown(precision)}, allowed are {', '.join(allowed)}")
    return cast(Precision, precision)


def callback_of(name: str, value: _Given) -> _Given:
    """Return ``value`` if it is None or callable. Raises InvalidInput for anything else; ``name``
    is what the error calls it."""
    if value is not None and not callable(value):
        raise InvalidInput(f"{name} is {_shown(value)}, allowed are None and a function")
    return value


def _shown(value: object) -> str:
    """``value`` in a message, in one short line."""
    if isinstance(value, (str, int, float, bool, type(None), os.PathLike)):
        return shown(value, 80)
    return f"of type {type(value).__name__}"
