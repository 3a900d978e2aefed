"""`lipwire service print|install|uninstall`: servers as services of the operating system."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from lipwire.cli.service.definition import ServiceDefinition

Which = Annotated[
    Literal["inference", "compositing", "serve"],
    typer.Argument(help="Which server; serve is both in one process.", show_default=False),
]
User = Annotated[
    bool,
    typer.Option(
        "--user", help="A service of the user who calls this, not one of the whole system."
    ),
]
RunAs = Annotated[str, typer.Option(help="The user that a service of the system runs as.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file of the server (default: /etc/lipwire/SERVER.yaml, with --user "
        "~/.config/lipwire/SERVER.yaml).",
        show_default=False,
    ),
]
Program = Annotated[
    Path | None,
    typer.Option(help="The lipwire to start (default: this one).", show_default=False),
]
Platform = Annotated[
    Literal["linux", "darwin"] | None,
    typer.Option(help="For systemd (linux) or launchd (darwin).", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def print_file(
    server: Which,
    user: User = False,
    run_as: RunAs = "lipwire",
    config: Config = None,
    program: Program = None,
    platform: Platform = None,
) -> None:
    """Print the service's file: a unit of systemd, or a property list of launchd.

    Nothing is written. Without --platform it is for the system on which this is called. Exits with
    2 where that has neither of the two, as Windows, or the configuration file is wrong.
    """
    text, _ = _written(_defined(server, user, run_as, config, program), _platform(platform))
    typer.echo(text, nl=False)


def install(
    server: Which,
    user: User = False,
    run_as: RunAs = "lipwire",
    config: Config = None,
    program: Program = None,
    dry_run: DryRun = False,
) -> None:
    """Write the service's file where the system looks for it, and say how it is started.

    Nothing is started. A file of that name that lipwire service did not write is kept, with an
    error (exit code 2), and so it is where the file cannot be written (1).
    """
    from lipwire.domain import InvalidInput
    from lipwire.domain.newfiles import storage_errors, write_file

    service, platform = _defined(server, user, run_as, config, program), _platform(None)
    text, path = _written(service, platform)
    if path.exists() and not _is_ours(path, service):
        raise InvalidInput(f"{path} is there and was not written by lipwire service; it is kept")
    if not dry_run:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode())
        path.chmod(0o644)  # it holds no secrets, and whoever asks systemd for it may read it
    typer.echo(f"{'would write' if dry_run else 'wrote'} {path}")
    _say_next(service, platform, removed=False)


def uninstall(
    server: Which,
    user: User = False,
    dry_run: DryRun = False,
) -> None:
    """Remove the service's file, and say how what runs is ended. Avatars, configuration and caches
    stay.

    Exits with 2 where there is no such file, or lipwire service did not write it.
    """
    from lipwire.domain import InvalidInput, NotFound
    from lipwire.domain.newfiles import storage_errors

    service, platform = _defined(server, user, "lipwire", None, None), _platform(None)
    _, path = _written(service, platform)
    if not path.exists():
        raise NotFound(f"there is no {path}")
    if not _is_ours(path, service):
        raise InvalidInput(f"{path} was not written by lipwire service; it is kept")
    if not dry_run:
        with storage_errors(path):
            path.unlink()
    typer.echo(f"{'would remove' if dry_run else 'removed'} {path}")
    _say_next(service, platform, removed=True)


def _defined(
    server: Literal["inference", "compositing", "serve"],
    user: bool,
    run_as: str,
    config: Path | None,
    program: Path | None,
) -> ServiceDefinition:
    from lipwire.cli.service.definition import ServiceDefinition, installed_program
    from lipwire.config import load_compositing_config, load_inference_config

    if config is None:
        folder = Path("~/.config/lipwire").expanduser() if user else Path("/etc/lipwire")
        config = folder / f"{server}.yaml"
    drain_timeout_s = 30.0
    if config.is_file():
        load = load_inference_config if server == "inference" else load_compositing_config
        read = load(config, {})
        drain_timeout_s = read.server.drain_delay + read.drain_timeout_s
    return ServiceDefinition(
        server,
        installed_program() if program is None else program.absolute(),
        config.absolute(),
        None if user else run_as,
        drain_timeout_s,
    )


def _platform(given: str | None) -> str:
    from lipwire.domain import InvalidInput

    platform = given or sys.platform
    if platform not in ("linux", "darwin"):
        raise InvalidInput(
            f"there are no service files for {platform}; docs/deployment.md says how a server is"
            " made a service of Windows"
        )
    return platform


def _written(service: ServiceDefinition, platform: str) -> tuple[str, Path]:
    """The text of the service's file, and where it belongs."""
    from lipwire.cli.service import launchd, systemd

    if platform == "darwin":
        return launchd.plist_of(service), launchd.plist_path(service)
    return systemd.unit_of(service), systemd.unit_path(service)


def _say_next(service: ServiceDefinition, platform: str, *, removed: bool) -> None:
    from lipwire.cli.service import launchd, systemd

    control = launchd if platform == "darwin" else systemd
    for command in control.next_commands(service, removed=removed):
        typer.echo(f"next: {command}")


def _is_ours(path: Path, service: ServiceDefinition) -> bool:
    """Whether the file is a service of this server, whatever its options and versions are."""
    text = path.read_text(errors="replace")
    return f"Description={service.description}\n" in text or "io.github.lipwire." in text
