"""``lipwire avatar compile``."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lipwire.avatars import Part


class Purpose(StrEnum):
    """What an avatar is compiled for; each needs other parts."""

    SERVE = "serve"
    RENDER = "render"
    RAW = "raw"
    ALL = "all"


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's name or folder.", show_default=False)],
    purpose: Annotated[
        Purpose,
        typer.Option(
            "--for",
            help="serve: JPEG frames. render: video files. raw: uncompressed frames "
            "(2.8 MB each at 1280x720).",
        ),
    ] = Purpose.ALL,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality, for serve and all.")
    ] = 75,
) -> None:
    """Prepare an avatar, so that opening it later takes milliseconds.

    Without this it is done when the avatar is first used. What is already there is kept.
    """
    import time

    from lipwire.avatars import Avatar, find_avatar
    from lipwire.cli.terminal import compile_progress, duration, plain

    parts: dict[Purpose, frozenset[Part]] = {
        Purpose.SERVE: frozenset({"jpeg"}),
        Purpose.RENDER: frozenset({"planes"}),
        Purpose.RAW: frozenset({"pixels"}),
        Purpose.ALL: frozenset({"jpeg", "planes", "pixels"}),
    }
    path = find_avatar(avatar)
    started_s = time.monotonic()
    with (
        compile_progress() as progress,
        Avatar.open(path, parts=parts[purpose], quality=quality, progress=progress) as opened,
    ):
        elapsed = duration(time.monotonic() - started_s)
        typer.echo(
            f"{plain(opened.name)}: {opened.frame_count} frames are compiled for {purpose.value}"
            f" ({elapsed})"
        )
