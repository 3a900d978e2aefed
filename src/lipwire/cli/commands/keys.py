"""`lipwire keys create|list|revoke`: API keys of a server."""

import json
from pathlib import Path
from typing import Annotated

import typer

KeysFile = Annotated[
    Path,
    typer.Option(
        "--file",
        envvar="LIPWIRE_SECURITY__KEYS_FILE",
        help="The servers' security.keys_file; made where it is not there.",
        show_default=False,
    ),
]
_OPERATIONS = "live, render, read, manage, infer, deliver"
_DAY_S = 86_400


def create(
    name: Annotated[
        str, typer.Argument(help="What the key is called: a-z, 0-9 and -.", show_default=False)
    ],
    file: KeysFile,
    tenant: Annotated[
        str, typer.Option(help="Whose requests are made with it; without it, those of everybody.")
    ] = "",
    may: Annotated[
        str, typer.Option(help=f"What it allows, with commas: {_OPERATIONS}.", show_default="all")
    ] = _OPERATIONS,
    avatars: Annotated[
        str, typer.Option(help="The avatars it allows: names or patterns as acme-*, with commas.")
    ] = "*",
    days: Annotated[
        float | None,
        typer.Option(min=0.001, help="Days until it expires (default: never).", show_default=False),
    ] = None,
) -> None:
    """Make an API key and print it. It is shown this once: the file has only its hash.

    lipwire keys create phone --file keys.json --tenant acme --may live --avatars "acme-*"
    """
    from lipwire.security import KeyFile

    key = KeyFile(file).create(
        name,
        tenant=tenant,
        operations=_parts(may),  # type: ignore[arg-type]  # which create checks
        avatars=_parts(avatars),
        lifetime_s=None if days is None else days * _DAY_S,
    )
    typer.echo(key)


def list_keys(
    file: KeysFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """The keys of a file, and what each allows. The keys themselves are in no file."""
    from lipwire.security import KeyFile

    keys = KeyFile(file).listed()
    if as_json:
        rows = [
            {
                "name": key.name,
                "tenant": key.tenant,
                "operations": key.operations,
                "avatars": key.avatars,
                "created": _time(key.created_s),
                "expires": None if key.expires_s is None else _time(key.expires_s),
            }
            for key in keys
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    for key in keys:
        whose = f"tenant {key.tenant}" if key.tenant else "every tenant"
        until = "" if key.expires_s is None else f", expires {_time(key.expires_s)}"
        typer.echo(
            f"{key.name}: {whose}, may {', '.join(key.operations)}, avatars"
            f" {', '.join(key.avatars)}{until}"
        )
    if not keys:
        typer.echo(f"no keys in {file}")


def revoke(
    name: Annotated[str, typer.Argument(help="What the key is called.", show_default=False)],
    file: KeysFile,
) -> None:
    """Have a key count for nothing; servers that use the file notice within a second."""
    from lipwire.security import KeyFile

    KeyFile(file).revoke(name)
    typer.echo(f"{name}: revoked")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _time(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
