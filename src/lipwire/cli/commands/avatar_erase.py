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
    renders: Annotated[
        Path | None,
        typer.Option(
            envvar="LIPWIRE_RENDERS__FOLDER",
            help="A server's folder of renders (renders.folder): those of the avatar go, too.",
            show_default=False,
        ),
    ] = None,
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
    were rendered are not known here, but for those in a server's folder that --renders names.
    """
    from lipwire.avatars import find_avatar
    from lipwire.avatars.erasing import Kept, erase, kept_of
    from lipwire.cli.terminal import file_size
    from lipwire.domain import NotFound
    from lipwire.domain.wording import escaped
    from lipwire.renders.forgetting import forget_avatar
    from lipwire.security import AuditLog

    package = find_avatar(avatar)
    found = kept_of(package)
    made = None
    if renders is not None:
        if not renders.is_dir():
            raise NotFound(f"there is no folder {renders}")
        held = forget_avatar(renders, package.name, dry_run=True)
        made = Kept(renders, "renders", held.renders, held.size_bytes)
        typer.echo(f"{escaped(str(renders))}: {held.renders} renders, {file_size(held.size_bytes)}")
    for one in found:
        typer.echo(f"{escaped(str(one.path))}: {one.files} files, {file_size(one.size_bytes)}")
    if dry_run:
        return
    if not yes:
        typer.confirm("Remove all of this for good?", abort=True)
    audit = None if audit_file is None else AuditLog(audit_file, required=True)
    if made is not None:
        forget_avatar(made.path, package.name)
    for one in [*([] if made is None else [made]), *found]:
        if one is not made:
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
    typer.echo(f"{escaped(package.name)}: erased")
