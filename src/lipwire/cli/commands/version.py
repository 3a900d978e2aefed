"""`lipwire version`."""

import typer

from lipwire import __version__


def command() -> None:
    """Show the version of Lipwire and of what it stands on."""
    from lipwire.config import describe_machine

    typer.echo(f"lipwire {__version__}")
    typer.echo(describe_machine().line())


def show_and_exit(wanted: bool) -> None:
    """Where ``wanted``, print the version alone, for scripts, and raise ``typer.Exit``; else do
    nothing. The callback of ``--version``."""
    if wanted:
        typer.echo(f"lipwire {__version__}")
        raise typer.Exit
