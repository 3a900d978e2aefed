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
    """Whose configuration a file is: the inference server's or the compositing server's."""

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

    from lipwire.config import check_config
    from lipwire.domain.wording import escaped

    which = kind.value if kind is not None else _told_by_keys(file)
    checked = check_config(file, os.environ, which)
    notes = [f"{each.variable} sets {each.key}" for each in checked.overrides]
    notes += checked.doubts
    if checked.config is not None:
        notes += [*checked.config.notes(), *_missing(checked.config)]
    count = len(checked.problems)
    if as_json:
        import json

        problems = [
            {
                "line": found.place if isinstance(found.place, int) else None,
                "variable": found.place if isinstance(found.place, str) else None,
                "message": found.message,
            }
            for found in checked.problems
        ]
        told = {"path": str(file), "kind": which, "valid": not count}
        typer.echo(json.dumps(told | {"problems": problems, "notes": notes}, indent=2))
    else:
        for found in checked.problems:
            typer.echo(f"{typer.style('error', fg=typer.colors.RED)}: {escaped(str(found))}")
        for note in notes:
            typer.echo(f"{typer.style('note', fg=typer.colors.YELLOW)}: {escaped(note)}")
        wrong = f"cannot be used: {count} error{'' if count == 1 else 's'}"
        typer.echo(f"{escaped(str(file))} {wrong if count else f'is ok, for the {which} server'}")
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


def _told_by_keys(file: Path) -> Kind:
    from lipwire.config import detect_kind
    from lipwire.domain import InvalidInput

    if (kind := detect_kind(file)) is None:
        raise InvalidInput(
            f"the keys of {file} do not tell which server it is for; add --kind inference or"
            " --kind compositing"
        )
    return kind


def _missing(config: ServerConfig) -> Iterator[str]:
    """Files that are not there, which may be so on purpose: the configuration may be for
    elsewhere."""
    from lipwire.config.values import is_foreign

    places = [
        (f"models.{name}", path)
        for name, files in config.files.items()
        for path in (files.folder, *files.named)
    ]
    places.append(("models_root", config.models_folder))
    for key, path in places:
        if path is not None and not is_foreign(path) and not path.exists():
            yield f"{key}: there is nothing at {path}"
