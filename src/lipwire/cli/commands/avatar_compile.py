"""``lipwire avatar compile``."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lipwire.cli.sandboxing import SANDBOX_HELP, opened_sandbox

if TYPE_CHECKING:
    from lipwire.avatars import Part


class Purpose(StrEnum):
    """What an avatar is compiled for: serving its frames as JPEG files (serve), rendering videos
    (render), uncompressed frames (raw), or all of these (all); running its network on GPUs as well
    as on the processor (gpu) or on the processor alone (cpu); showing its mouth at rest in live
    sessions (live)."""

    SERVE = "serve"
    RENDER = "render"
    RAW = "raw"
    ALL = "all"
    CPU = "cpu"
    GPU = "gpu"
    LIVE = "live"


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's name or folder.", show_default=False)],
    purposes: Annotated[
        list[Purpose] | None,
        typer.Option(
            "--for",
            help="serve: JPEG frames. render: video files. raw: uncompressed frames. all: all of"
            " these. cpu: the network for the processor, which is always made. gpu: the network for"
            " GPUs as well. live: the mouths for silence as well, which live sessions show. May be"
            " given more than once; all and cpu where nothing is said.",
            show_default=False,
        ),
    ] = None,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality, for serve and all.")
    ] = 75,
    sandbox: Annotated[bool, typer.Option("--sandbox", help=SANDBOX_HELP)] = False,
) -> None:
    """Prepare an avatar, so that opening it later takes milliseconds.

    Without this it is done when the avatar is first used. What is already there is kept, for each
    quality of JPEG by itself. Exits with 2 where there is no such avatar, and with 1 where it is
    damaged or the result cannot be written.
    """
    import time

    from lipwire.avatars import Avatar, find_avatar
    from lipwire.avatars.compiled.parts import FOR_GPU
    from lipwire.cli.terminal import compile_progress, duration
    from lipwire.domain import InvalidInput
    from lipwire.domain.wording import escaped

    of_output: dict[Purpose, frozenset[Part]] = {
        Purpose.SERVE: frozenset({"jpeg"}),
        Purpose.RENDER: frozenset({"planes"}),
        Purpose.RAW: frozenset({"pixels"}),
        Purpose.ALL: frozenset({"jpeg", "planes", "pixels"}),
    }
    chosen = purposes or [Purpose.ALL]
    if sandbox and Purpose.LIVE in chosen:
        raise InvalidInput(
            "--sandbox and --for live are given; the mouths for silence are made by the network,"
            " which runs in this process. Give one of the two"
        )
    outputs = [purpose for purpose in chosen if purpose in of_output] or [Purpose.ALL]
    parts = frozenset(part for output in outputs for part in of_output[output])
    if Purpose.GPU in chosen:
        parts |= FOR_GPU
    path = find_avatar(avatar)
    started_s = time.monotonic()
    with (
        compile_progress() as progress,
        Avatar.open(
            path,
            parts=parts,
            quality=quality,
            progress=progress,
            sandbox=opened_sandbox(sandbox),
        ) as opened,
    ):
        if Purpose.LIVE in chosen:
            from lipwire.wiring.resting import compile_rest  # brings what serves along

            compile_rest(opened, progress)
        elapsed = duration(time.monotonic() - started_s)
        typer.echo(
            f"{escaped(opened.name)}: {opened.frame_count} frames are compiled for"
            f" {', '.join(purpose.value for purpose in chosen)} ({elapsed})"
        )
