"""The clip that ``lipwire avatar import`` renders, so that people can see what came of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lipwire.domain import Float32Array

CLIP_S: Final = 5
"""Seconds that a clip has at most."""
_QUIET_RMS: Final = 0.01
"""Of a second of a recording in which nobody speaks; full scale is 1.0."""


def clip_beside(package: Path) -> Path:
    """Return the path for the clip of the avatar in the folder ``package``. It lies beside that
    folder, because a server would serve files inside it as a part of the avatar."""
    return package.with_name(f"{package.name}-clip.mp4")


def sentence_there() -> bool:
    """Return whether the sentence that comes with Lipwire, a FLAC file, is installed."""
    from importlib.resources import files

    return files("lipwire").joinpath("assets", "speech", "sample.flac").is_file()


def render_clip(package: Path, recording: Path | None, out: Path) -> int:
    """Write a video of the avatar in the folder ``package`` to the file ``out``, and return how
    many frames it has. The avatar says at most 5 seconds (``CLIP_S``) of ``recording``, beginning
    where the recording is no longer quiet; with None, of the sentence that comes with Lipwire. The
    avatar is compiled first where it is not yet; progress is printed to stderr.

    Raises InvalidInput where the recording cannot be decoded, AvatarInvalid where the avatar cannot
    be used, and StorageFailed where ``out`` cannot be written. After an error ``out`` is unchanged.
    """
    from importlib.resources import as_file, files

    from lipwire.api import open_avatar
    from lipwire.cli.terminal import compile_progress, progress_bar

    with ExitStack() as stack:
        if recording is None:
            sentence = files("lipwire").joinpath("assets", "speech", "sample.flac")
            recording = stack.enter_context(as_file(sentence))
        speech = _first_seconds(recording)
        compiling = stack.enter_context(compile_progress())
        # A path of one name alone would be looked for as an avatar of that name.
        opened = stack.enter_context(
            open_avatar(package.absolute(), outputs=("i420",), progress=compiling)
        )
        progress = stack.enter_context(progress_bar("rendering", "frames"))
        return opened.render(speech, out, progress=progress).frames


def _first_seconds(path: Path) -> Float32Array:
    """(samples,) float32 at 16 kHz: the first seconds of the recording ``path`` that are not quiet.
    What lies behind them is not decoded, and may be damaged."""
    import numpy as np

    from lipwire.audio import FileRecording, redone_if_changed
    from lipwire.domain import SAMPLE_RATE_HZ

    samples = CLIP_S * SAMPLE_RATE_HZ

    def gathered() -> Float32Array:
        kept: list[Float32Array] = []
        quiet: list[Float32Array] = []
        for piece in recording.heard():
            if not kept and float(np.sqrt(np.mean(np.square(piece)))) < _QUIET_RMS:
                if sum(map(len, quiet)) < samples:
                    quiet.append(piece)
                continue
            kept.append(piece)
            if sum(map(len, kept)) >= samples:
                break
        return np.concatenate(kept or quiet)[:samples]

    with FileRecording(path, allow_damaged=True) as recording:
        return redone_if_changed(recording, gathered)
