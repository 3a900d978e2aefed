"""``lipwire render``."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipwire.cli.recordings import DASH, AllowDamaged, AudioTrack

if TYPE_CHECKING:
    from lipwire.api import RenderResult


class Preset(StrEnum):
    """x264's presets that make sense here: slower ones take longer and make smaller files."""

    ULTRAFAST = "ultrafast"
    SUPERFAST = "superfast"
    VERYFAST = "veryfast"
    FASTER = "faster"
    FAST = "fast"
    MEDIUM = "medium"
    SLOW = "slow"


class Precision(StrEnum):
    """What the network may be computed in on a processor."""

    AUTO = "auto"
    FLOAT32 = "float32"


def command(
    avatar: Annotated[
        str, typer.Argument(help="An avatar's name (try: demo) or folder.", show_default=False)
    ],
    audio: Annotated[
        Path,
        typer.Argument(
            help="A recording of speech: any audio or video file; - is standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The video to write (.mp4, .m4v, .mov), or a folder for JPEG frames; "
            "- is standard output, as fragmented MP4.",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            "--frames",
            help="A folder to write JPEG frames to, whatever its name.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace what is there already.")
    ] = False,
    preset: Annotated[
        Preset, typer.Option(help="Video: slower makes smaller files.")
    ] = Preset.VERYFAST,
    crf: Annotated[
        int, typer.Option(min=0, max=51, help="Video: quality, smaller is better.")
    ] = 18,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Frames: JPEG quality.")] = 90,
    start_frame: Annotated[
        int, typer.Option(min=0, help="Frame of the avatar's background to begin with.")
    ] = 0,
    audio_track: AudioTrack = None,
    allow_damaged: AllowDamaged = False,
    audio_encoder: Annotated[
        Path | None,
        typer.Option(help="ONNX file to use instead of the avatar's own.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Cores for the network (default: all).")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            help="auto: the network of speech of 10 s or more in bfloat16, where that is faster "
            "and the mouths look the same."
        ),
    ] = Precision.AUTO,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of a frame went.")
    ] = False,
) -> None:
    """Make a video of an avatar saying a recording.

    lipwire render demo speech.wav -o talking.mp4

    The file appears when it is finished; after an error or Ctrl-C there is nothing new.
    """
    from lipwire.api import open_avatar, open_recording
    from lipwire.cli.recordings import recording_of, standard_output, warn
    from lipwire.cli.terminal import compile_progress, progress_bar

    streamed = out is not None and out == DASH and frames is None
    video, folder = (out, None) if streamed else destination(out, frames, force, audio)
    target = standard_output() if streamed else video
    with ExitStack() as stack:
        # Compiling an avatar may take minutes: what is wrong with the recording is said before.
        recording = stack.enter_context(
            open_recording(
                recording_of(audio),
                audio_track=audio_track,
                allow_damaged=allow_damaged,
                examine=streamed,  # standard output gets nothing of a damaged one
            )
        )
        warned = recording.warnings
        warn(warned)
        compiling = stack.enter_context(compile_progress())
        opened = stack.enter_context(
            open_avatar(
                avatar,
                outputs=("jpeg",) if target is None else ("i420",),
                jpeg_quality=quality,
                audio_encoder=audio_encoder,
                threads=threads,
                precision=precision.value,
                progress=compiling,
            )
        )
        for note in opened.notes:
            typer.echo(f"note: {note}", err=True)
        progress = stack.enter_context(progress_bar("rendering", "frames"))
        if target is not None:
            result = opened.render(
                recording,
                target,
                start_frame=start_frame,
                preset=preset.value,
                crf=crf,
                progress=progress,
            )
        else:
            assert folder is not None  # one of the two: destination
            result = opened.render_frames(
                recording, folder, start_frame=start_frame, progress=progress
            )
        size = f"{opened.width}x{opened.height}"
    warn(result.warnings, told=warned)
    typer.echo(summary(result, size), err=streamed)
    if profile:
        _print_profile(result, streamed)


def destination(
    out: Path | None, frames: Path | None, force: bool, audio: Path
) -> tuple[Path | None, Path | None]:
    """Return where a render is to be written: ``(video, None)`` for a video file, or ``(None,
    folder)`` for JPEG files. ``out`` means a video where it has a video's suffix, else a folder;
    ``frames`` is always a folder. With ``force``, what exists there may be replaced, but never the
    recording ``audio``. Nothing is created here.

    Raises InvalidInput where not exactly one of ``out`` and ``frames`` is given, where ``out`` has
    another suffix and is no folder, where something would be replaced without ``force``, or where
    the destination is the recording itself. Raises NotFound where the folder that would contain it
    does not exist.
    """
    from lipwire.domain import InvalidInput, NotFound
    from lipwire.domain.filekinds import VIDEO_SUFFIXES

    if (out is None) == (frames is None):
        raise InvalidInput(
            "name one place to write to: -o VIDEO.mp4, or --frames FOLDER for JPEG files"
        )
    folder = frames
    if out is not None and out.suffix.lower() not in VIDEO_SUFFIXES:
        if out.suffix and not out.is_dir():
            raise InvalidInput(
                f"{out} ends in {out.suffix}; allowed are {', '.join(VIDEO_SUFFIXES)} and, for"
                " JPEG frames, a folder"
            )
        folder = out
    there = folder if folder is not None else out
    assert there is not None
    if not there.absolute().parent.is_dir():
        raise NotFound(f"cannot write {there}; there is no folder {there.parent}")
    taken = any(there.iterdir()) if there.is_dir() and folder is not None else there.exists()
    if taken and not force:
        raise InvalidInput(f"{there} is there already; --force replaces it")
    if taken and audio != DASH and audio.exists() and there.samefile(audio):
        raise InvalidInput(f"{there} is the recording itself; name another file to write to")
    return (out, None) if folder is None else (None, folder)


def summary(result: RenderResult, size: str) -> str:
    """Return one line about ``result`` for people: where the video is, its length, time, speed and
    size. ``size`` is the frames' size as text ("1280x720")."""
    from lipwire.cli.terminal import duration, file_size

    speed = result.video_s / result.elapsed_s
    where = result.path or "standard output"
    return (
        f"{where}: {duration(result.video_s)} of {size} in {duration(result.elapsed_s)}"
        f" ({result.fps:.1f} fps, {speed:.1f}x real time), {result.frames} frames,"
        f" {file_size(result.size_bytes)}{', bfloat16' if result.precision == 'bfloat16' else ''}"
    )


def _print_profile(result: RenderResult, streamed: bool) -> None:
    """Milliseconds a frame. Stages overlap, so elapsed times do not add up to the whole."""
    from rich.console import Console
    from rich.table import Table

    from lipwire.config import describe_machine

    table = Table(title="milliseconds a frame", title_justify="left")
    table.add_column("stage")
    table.add_column("one core", justify="right")
    table.add_column("elapsed", justify="right")
    for stage in ("audio", "crop", "network", "compose", "encode"):
        if (spent := result.stages.get(stage)) is not None:
            table.add_row(
                stage,
                f"{spent.cpu_ms / result.frames:.2f}",
                f"{spent.wall_ms / result.frames:.2f}",
            )
    others_s = result.cpu_s - sum(spent.cpu_ms for spent in result.stages.values()) / 1000
    table.add_row("H.264's own threads", f"{max(0.0, others_s) * 1000 / result.frames:.2f}", "")
    table.add_section()
    table.add_row(
        "everything",
        f"{result.cpu_s * 1000 / result.frames:.2f}",
        f"{result.elapsed_s * 1000 / result.frames:.2f}",
    )
    Console(stderr=streamed).print(table)
    typer.echo(describe_machine().line(), err=streamed)
