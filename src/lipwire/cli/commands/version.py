"""`lipwire version`."""

import typer

from lipwire import __version__


def command() -> None:
    """Show the versions of Lipwire, of Python and of the libraries that decide about speed, with
    the machine's processor and cores."""
    from lipwire.config import describe_machine

    typer.echo(f"lipwire {__version__}")
    typer.echo(describe_machine().line())


def show_and_exit(wanted: bool) -> None:
    """Where ``wanted``, print the version alone, for scripts, and raise ``typer.Exit``; else do
    nothing. The callback of ``--version``."""
    if wanted:
        typer.echo(f"lipwire {__version__}")
        raise typer.Exit
