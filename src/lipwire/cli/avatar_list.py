"""`lipwire avatar list`."""

from typing import Annotated

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List the avatars that can be named.

    They are looked for in the folders of LIPWIRE_AVATARS, in ./avatars, in the user's data folder,
    and among those that came with Lipwire. Earlier ones win.
    """
    from lipwire.avatars import list_avatars

    found = list_avatars()
    if as_json:
        import json

        typer.echo(json.dumps([{"name": name, "path": str(path)} for name, path in found]))
        return
    if not found:
        typer.echo("no avatars found", err=True)
        return
    width = max(len(name) for name, _ in found)
    for name, path in found:
        typer.echo(f"{name:<{width}}  {path}")
