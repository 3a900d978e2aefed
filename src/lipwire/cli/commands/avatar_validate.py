"""`lipwire avatar validate`."""

from typing import Annotated

import typer

from lipwire.cli.exits import EXIT_FAILED
from lipwire.cli.sandboxing import SANDBOX_HELP, opened_sandbox


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's folder or name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    sandbox: Annotated[bool, typer.Option("--sandbox", help=SANDBOX_HELP)] = False,
) -> None:
    """Check everything about an avatar and list all that is wrong with it.

    Exits with 1 when there are errors; warnings alone are fine.
    """
    from lipwire.avatars import find_avatar, validate_package
    from lipwire.cli.terminal import compile_progress
    from lipwire.domain.wording import escaped

    path = find_avatar(avatar)
    with compile_progress("decoding") as progress:
        problems = validate_package(path, progress=progress, sandbox=opened_sandbox(sandbox))
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        import json

        document = {
            "path": str(path),
            "valid": errors == 0,
            "problems": [
                {"severity": problem.severity, "message": problem.message} for problem in problems
            ],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        for problem in problems:
            colour = typer.colors.RED if problem.severity == "error" else typer.colors.YELLOW
            typer.echo(f"{typer.style(problem.severity, fg=colour)}: {escaped(problem.message)}")
        warnings = len(problems) - errors
        verdict = "is valid" if errors == 0 else "cannot be used"
        counts = ", ".join(
            f"{number} {noun}{'' if number == 1 else 's'}"
            for number, noun in ((errors, "error"), (warnings, "warning"))
            if number
        )
        typer.echo(f"{escaped(str(path))} {verdict}" + (f": {counts}" if counts else ""))
    if errors:
        raise typer.Exit(EXIT_FAILED)
