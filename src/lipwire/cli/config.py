"""`lipwire config`: check a server's configuration, and show what it can hold."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipwire.cli.exits import EXIT_FAILED

if TYPE_CHECKING:
    from lipwire.config import Kind, ServerConfig


class Server(StrEnum):
    """Whose configuration it is."""

    INFERENCE = "inference"
    COMPOSITING = "compositing"


app = typer.Typer(no_args_is_help=True)


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A YAML file.", show_default=False)],
    kind: Annotated[
        Server | None, typer.Option(help="Which server's it is (default: by its keys).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List everything that is wrong with a server's configuration.

    Variables that override it count, as when the server starts. Exits with 1 when there are
    problems; notes alone are fine.
    """
    import os

    from lipwire.cli.terminal import plain
    from lipwire.config import check_config

    which = _which(file, kind)
    checked = check_config(file, os.environ, which)
    notes = [f"{each.variable} sets {each.key}" for each in checked.overrides]
    notes += checked.doubts
    if checked.config is not None:
        notes += [*checked.config.notes(), *_missing(checked.config)]
    if as_json:
        import json

        problems = [
            {
                "line": problem.place if isinstance(problem.place, int) else None,
                "variable": problem.place if isinstance(problem.place, str) else None,
                "message": problem.message,
            }
            for problem in checked.problems
        ]
        document = {
            "path": str(file),
            "kind": which,
            "valid": not problems,
            "problems": problems,
            "notes": notes,
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        for found in checked.problems:
            typer.echo(f"{typer.style('error', fg=typer.colors.RED)}: {plain(str(found))}")
        for note in notes:
            typer.echo(f"{typer.style('note', fg=typer.colors.YELLOW)}: {plain(note)}")
        count = len(checked.problems)
        wrong = f"cannot be used: {count} error{'' if count == 1 else 's'}"
        verdict = wrong if count else f"is ok, for the {which} server"
        typer.echo(f"{plain(str(file))} {verdict}")
    if checked.problems:
        raise typer.Exit(EXIT_FAILED)


@app.command("schema")
def schema(
    kind: Annotated[Server, typer.Option(help="Which server's.", show_default=False)],
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="A file with every key, its default and meaning.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="A table, as in the documentation.")
    ] = False,
) -> None:
    """Print what a server's configuration can hold: a JSON Schema, or an example file."""
    from lipwire.config.schema import example_yaml, json_schema, markdown
    from lipwire.domain import InvalidInput

    if as_yaml and as_markdown:
        raise InvalidInput("--yaml and --markdown are given; allowed is one of them")
    if as_yaml:
        typer.echo(example_yaml(kind.value), nl=False)
    elif as_markdown:
        typer.echo(markdown(kind.value), nl=False)
    else:
        import json

        typer.echo(json.dumps(json_schema(kind.value), indent=2))


def _which(file: Path, kind: Server | None) -> Kind:
    from lipwire.config import detect_kind
    from lipwire.domain import InvalidInput

    found = detect_kind(file) if kind is None else kind.value
    if found is None:
        raise InvalidInput(
            f"the keys of {file} do not tell which server it is for; add --kind inference or"
            " --kind compositing"
        )
    return found


def _missing(config: ServerConfig) -> Iterator[str]:
    """Folders that are not there, which may be so on purpose: the file may be for elsewhere."""
    from lipwire.config.paths import is_foreign

    folders = {f"models.{name}": path for name, path in config.packages.items()}
    if config.models_root is not None:
        folders["models_root"] = config.models_root
    for key, path in folders.items():
        if not is_foreign(path) and not path.is_dir():
            yield f"{key}: there is no folder {path}"
