"""`lipwire version`."""

import typer

from lipwire import __version__


def command() -> None:
    """Show the version of Lipwire and of what it stands on."""
    from lipwire.config import describe_machine

    typer.echo(f"lipwire {__version__}")
    typer.echo(describe_machine().line())


def show_and_exit(wanted: bool) -> None:
    """Print the version alone, for scripts, and exit, where ``wanted``: the callback of
    ``--version``."""
    if wanted:
        typer.echo(f"lipwire {__version__}")
        raise typer.Exit
