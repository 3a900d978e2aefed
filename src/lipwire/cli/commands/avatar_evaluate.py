"""`lipwire avatar evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from lipwire.cli.exits import EXIT_FAILED


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's folder or name.")],
    audio: Annotated[
        Path | None,
        typer.Option(
            "--audio",
            help="Judge with this recording, instead of the avatar's held-out speech.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "evaluation"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Measure how good an avatar's mouth is, and draw it.

    The avatar says speech that its network was not trained on, and its frames are compared with
    the right ones, which lie in its package: how far the mouth opens and when, whether the lips
    close, the quality of the picture, the seam round it. With a recording of your own there are no
    right frames, and the mouth's opening is compared with the loudness.

    Exits with 1 when a figure is not within its limit.
    """
    from lipwire.cli.terminal import compile_progress, progress_bar
    from lipwire.domain.wording import escaped
    from lipwire.evaluation import evaluate

    with compile_progress() as compiling, progress_bar("evaluating", "frames") as progress:
        report = evaluate(avatar, out, audio=audio, compiling=compiling, progress=progress)
    if as_json:
        import json

        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        typer.echo(f"{escaped(report.avatar)}: {report.frames} frames")
        for bar in report.bars:
            colour = typer.colors.GREEN if bar.passed else typer.colors.RED
            verdict, rest = bar.line().split("  ", 1)
            typer.echo(f"{typer.style(verdict, fg=colour)}  {rest}")
        for name, figures in report.figures.items():
            listed = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
            typer.echo(f"{escaped(name)}: {listed}")
        for path in report.pictures:
            typer.echo(f"picture: {path}")
    if not report.passed:
        raise typer.Exit(EXIT_FAILED)
