"""`lipwire avatar list`."""

from typing import Annotated

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List the avatars that can be named.

    They are looked for in the folders of LIPWIRE_AVATARS, in ./avatars, in the user's data folder,
    and among those that came with Lipwire. Of two with one name the first found is used.
    """
    from lipwire.avatars import list_avatars, search_folders

    found = list_avatars()
    if as_json:
        import json

        typer.echo(json.dumps([{"name": path.name, "path": str(path)} for path in found]))
        return
    if not found:
        typer.echo("no avatars found; looked in " + ", ".join(map(str, search_folders())))
        return
    width = max(len(path.name) for path in found)
    for path in found:
        typer.echo(f"{path.name:<{width}}  {path}")
