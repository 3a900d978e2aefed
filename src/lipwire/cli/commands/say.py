"""`lipwire say`."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipwire.cli.commands.render import Preset
from lipwire.cli.recordings import DASH

if TYPE_CHECKING:
    from lipwire.domain import Float32Array
    from lipwire.speech import Voice


class VoiceKind(StrEnum):
    """The kind of voice that says a text: hibari, the program espeak-ng, or a server with OpenAI's
    protocol."""

    HIBARI = "hibari"
    ESPEAK = "espeak-ng"
    OPENAI = "openai"


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[AVATAR] TEXT",
            help="An avatar's name or folder (default: demo), and what it says; - is standard"
            " input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The video to write (.mp4, .m4v, .mov), or a folder for JPEG frames.",
            show_default=False,
        ),
    ] = None,
    save_audio: Annotated[
        Path | None,
        typer.Option(help="A file for the sound, ending in .wav.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace what is there already.")
    ] = False,
    voice: Annotated[
        VoiceKind | None,
        typer.Option(
            help="Who says it (default: that of the configuration, or hibari).", show_default=False
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=0.5, max=2.0, help="How fast it is said.", show_default="1"),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="For espeak-ng, one that `espeak-ng --voices` lists.", show_default="en-us"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="A compositing server's configuration, whose section speech counts.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="Video: slower makes smaller files.")
    ] = Preset.VERYFAST,
    crf: Annotated[
        int, typer.Option(min=0, max=51, help="Video: quality, smaller is better.")
    ] = 18,
    start_frame: Annotated[
        int, typer.Option(min=0, help="Frame of the avatar's background to begin with.")
    ] = 0,
) -> None:
    """Make a video of an avatar saying a text.

    lipwire say "Good morning." -o morning.mp4
    """
    from lipwire.api import open_avatar
    from lipwire.cli.commands.render import destination, summary
    from lipwire.cli.recordings import warn
    from lipwire.cli.terminal import compile_progress, progress_bar
    from lipwire.domain import InvalidInput
    from lipwire.speech.synthesis import said_in_full

    avatar, text = _said(words)
    if save_audio is not None:
        _check_audio(save_audio, force)
    if (out is None and save_audio is None) or out == DASH:
        raise InvalidInput("name a file to write to: -o VIDEO.mp4, or --save-audio SOUND.wav")
    if out is not None:
        video, folder = destination(out, None, force, DASH)
    speaker = _voice(config, voice, speed, language)
    # What is wrong with the text is said before an avatar is compiled, which may take minutes.
    pcm, rate_hz = said_in_full(speaker, text)
    if save_audio is not None:
        _write_wav(save_audio, pcm, rate_hz)
        typer.echo(f"{save_audio}: {len(pcm) / rate_hz:.1f} s at {rate_hz} Hz")
    if out is None:
        return
    with ExitStack() as stack:
        opened = stack.enter_context(
            open_avatar(
                avatar,
                outputs=("jpeg",) if video is None else ("i420",),
                progress=stack.enter_context(compile_progress()),
            )
        )
        for note in opened.notes:
            typer.echo(f"note: {note}", err=True)
        progress = stack.enter_context(progress_bar("rendering", "frames"))
        if video is not None:
            result = opened.render(
                pcm,
                video,
                rate_hz=rate_hz,
                start_frame=start_frame,
                preset=preset.value,
                crf=crf,
                progress=progress,
            )
        else:
            assert folder is not None  # one of the two: destination
            result = opened.render_frames(
                pcm, folder, rate_hz=rate_hz, start_frame=start_frame, progress=progress
            )
        size = f"{opened.width}x{opened.height}"
    warn(result.warnings)
    typer.echo(summary(result, size))


def _said(words: list[str]) -> tuple[str, str]:
    """The avatar, and the text."""
    import sys

    from lipwire.domain import InvalidInput
    from lipwire.speech import MAX_TEXT

    if len(words) > 2:
        raise InvalidInput(
            f"{len(words)} arguments are given; allowed are an avatar and a text, which is put"
            " between quotes"
        )
    avatar, text = ("demo", words[0]) if len(words) == 1 else (words[0], words[1])
    if text == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise InvalidInput("standard input is a terminal; allowed: a text, piped or redirected")
        # A byte more than the longest text can have, so that a longer one is noticed.
        text = sys.stdin.buffer.read(4 * MAX_TEXT + 1).decode("utf-8", "replace")
    return avatar, text


def _voice(
    config: Path | None, kind: VoiceKind | None, speed: float | None, language: str | None
) -> Voice:
    import os

    from lipwire.config import load_compositing_config
    from lipwire.domain import DependencyMissing
    from lipwire.speech import open_voice

    given: dict[str, object] = {
        "voice": None if kind is None else kind.value,
        "speed": speed,
        "language": language,
    }
    settings = load_compositing_config(config, os.environ).speech.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    voice = open_voice(settings)
    if voice is None:
        raise DependencyMissing(
            "there is no voice; `pip install lipwire[speech]` brings one, and --voice names another"
        )
    return voice


def _check_audio(path: Path, force: bool) -> None:
    from lipwire.domain import InvalidInput, NotFound

    if path.suffix.lower() != ".wav":
        raise InvalidInput(f"{path} ends in {path.suffix or 'nothing'}; allowed is .wav")
    if not path.absolute().parent.is_dir():
        raise NotFound(f"cannot write {path}; there is no folder {path.parent}")
    if path.exists() and not force:
        raise InvalidInput(f"{path} is there already; --force replaces it")


def _write_wav(path: Path, pcm: Float32Array, rate_hz: int) -> None:
    import io
    import wave

    from lipwire.audio import to_int16
    from lipwire.domain.newfiles import followed, write_file

    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(to_int16(pcm).tobytes())
    write_file(followed(path), written.getvalue())
