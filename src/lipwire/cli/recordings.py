"""Recordings on the command line: their options, standard input and output ("-"), warnings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from lipwire.cli.streams import was_closed

DASH = Path("-")

AudioTrack = Annotated[
    int | None,
    typer.Option(
        help="Which of the recording's audio tracks, from 1 (default: the one marked as default, "
        "or the first).",
        show_default=False,
    ),
]
AllowDamaged = Annotated[
    bool,
    typer.Option(
        "--allow-damaged", help="Take a damaged recording too; what is missing is silence."
    ),
]


def recording_of(audio: Path) -> Path | BinaryIO:
    """Return the binary stream of standard input where ``audio`` is "-"; else ``audio`` itself, the
    path of a recording. Raises InvalidInput where standard input is wanted and is a terminal or
    missing."""
    from lipwire.domain import InvalidInput

    if audio != DASH:
        return audio
    if sys.stdin is None or sys.stdin.isatty():
        raise InvalidInput(
            "standard input is a terminal; allowed: a recording, piped or redirected"
        )
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Return the binary stream of standard output, for a video. Raises InvalidInput where it is a
    terminal or closed."""
    from lipwire.domain import InvalidInput

    if was_closed("stdout"):
        raise InvalidInput("standard output is closed; allowed: a file or a pipe")
    if sys.stdout is None or sys.stdout.isatty():
        raise InvalidInput("standard output is a terminal; allowed: a file or a pipe")
    return sys.stdout.buffer


def warn(lines: tuple[str, ...], *, told: tuple[str, ...] = ()) -> None:
    """Print each of ``lines`` to stderr as a warning, except those that are in ``told``, which were
    printed before."""
    from lipwire.domain.wording import escaped

    for line in lines:
        if line in told:
            continue
        print(f"warning: {escaped(line)}", file=sys.stderr, flush=True)
