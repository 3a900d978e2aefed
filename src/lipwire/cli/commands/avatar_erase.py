"""``lipwire avatar erase``."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's name or folder.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    audit_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LIPWIRE_SECURITY__AUDIT_FILE",
            help="Where the removal is recorded (security.audit_file).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Forget a person: remove an avatar's package, its compiled forms and its caches on this
    machine.

    Servers that serve the folder notice within a second. Copies elsewhere, backups, and videos that
    were rendered are not known here.
    """
    from importlib.resources import as_file, files

    from lipwire.avatars import find_avatar
    from lipwire.avatars.erasing import erase, kept_of
    from lipwire.cli.terminal import file_size, plain
    from lipwire.domain import InvalidInput
    from lipwire.security import AuditLog

    package = find_avatar(avatar)
    with as_file(files("lipwire")) as own:
        if package.resolve().is_relative_to(own.resolve()):
            raise InvalidInput(f"{avatar} came with Lipwire and shows no real person; it stays")
    found = kept_of(package)
    for one in found:
        typer.echo(f"{plain(str(one.path))}: {one.files} files, {file_size(one.size_bytes)}")
    if dry_run:
        return
    if not yes:
        typer.confirm("Remove all of this for good?", abort=True)
    audit = None if audit_file is None else AuditLog(audit_file, required=True)
    for one in found:
        erase(one)
        if audit is not None:
            audit.write(
                {
                    "operation": "erase",
                    "avatar": package.name,
                    "path": str(one.path),
                    "files": one.files,
                    "bytes": one.size_bytes,
                    "outcome": "OK",
                }
            )
    if audit is not None:
        audit.close()
    typer.echo(f"{plain(package.name)}: erased")
