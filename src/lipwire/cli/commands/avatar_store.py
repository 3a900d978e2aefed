"""`lipwire avatar push|pull|publish|rollback|versions|forget`: avatars in a store."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lipwire.avatars.store.layout import Published
    from lipwire.stores.objects import ObjectStore

_LEAST_PERCENT = 0.01
Store = Annotated[
    str,
    typer.Option(
        envvar="LIPWIRE_MODELS_ROOT",
        help="The store's URL, as s3://BUCKET/FOLDER or file:///FOLDER.",
        show_default=False,
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        envvar="LIPWIRE_STORE__ENDPOINT_URL",
        help="A server with S3's protocol that is not Amazon's (store.endpoint_url).",
        show_default=False,
    ),
]
Redis = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar="LIPWIRE_REDIS__URL",
        help="The servers' Redis server (redis.url), which tells them to look at once. Its other"
        " settings are taken from the environment, as LIPWIRE_REDIS__PASSWORD.",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(help="The avatar's name in the store.", show_default=False)]
Version = Annotated[
    str, typer.Argument(help="A version, or the first digits of its name.", show_default=False)
]


def push(
    name: Name,
    store: Store,
    package: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="The package's folder (default: the avatar found by NAME).",
            show_default=False,
        ),
    ] = None,
    publish_it: Annotated[
        bool, typer.Option("--publish", help="Have this version shown at once.")
    ] = False,
    endpoint_url: Endpoint = None,
    redis_url: Redis = None,
) -> None:
    """Bring an avatar's package into a store as a new version, and print the version.

    Only files that the store does not have are sent; what was interrupted goes on. It is shown when
    it is published.
    """
    from lipwire.avatars import find_avatar
    from lipwire.avatars.store import pushing
    from lipwire.cli.terminal import file_size, progress_bar
    from lipwire.domain.wording import escaped

    where = find_avatar(name) if package is None else package
    with _opened(store, endpoint_url) as opened:
        with progress_bar("sending", "bytes") as told:
            manifest = pushing.push(opened, name, where, told)
        if publish_it:
            pushing.publish(opened, manifest.avatar, manifest.version)
            _tell_servers(redis_url)
    size, count = file_size(manifest.size_bytes), len(manifest.files)
    typer.echo(f"{escaped(manifest.avatar)}: {count} files, {size}", err=True)
    typer.echo(manifest.version)


def pull(
    name: Name,
    store: Store,
    version: Annotated[
        str | None,
        typer.Option(help="A version (default: the published one).", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="The folder to put the avatar's folder into (default: where it is found by name).",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Bring a version of an avatar from a store, as a package in a folder.

    What was interrupted goes on; the package appears when all its files are there and right.
    """
    from lipwire.avatars.finding import folder_for_new
    from lipwire.avatars.store import pushing
    from lipwire.avatars.store.fetching import fetch, missing_files, remove_others
    from lipwire.cli.terminal import progress_bar
    from lipwire.domain import InvalidInput, newfiles
    from lipwire.domain.names import checked_name
    from lipwire.domain.wording import escaped

    name = checked_name(name)
    folder = folder_for_new() if into is None else into
    target = folder / name
    if target.exists() and not force:
        raise InvalidInput(f"{target} is there already; --force replaces it")
    with _opened(store, endpoint_url) as opened:
        if version is None:
            wanted = pushing.published(opened, name).version
        else:
            wanted = pushing.find_version(opened, name, version)
        manifest = pushing.read_manifest(opened, name, wanted)
        # Of the same name each time, so that another try goes on with it.
        partial = folder / f".lipwire-pull-{wanted[:16]}"
        with newfiles.storage_errors(target):
            partial.mkdir(parents=True, exist_ok=True)
            remove_others(partial, manifest)
            with progress_bar("receiving", "bytes") as told:
                fetch(opened, manifest, partial, missing_files(partial, manifest), told)
            newfiles.flush(partial)
            newfiles.publish(partial, target)
    typer.echo(f"{escaped(name)}: {target}")


def publish(
    name: Name,
    version: Version,
    store: Store,
    share: Annotated[
        str,
        typer.Option(
            help="How many of those who use the avatar are shown this version, as 5%; all others"
            " the one that is published."
        ),
    ] = "100%",
    endpoint_url: Endpoint = None,
    redis_url: Redis = None,
) -> None:
    """Have a version of an avatar shown from now on; servers notice within store.poll_seconds, or
    at once by Redis.

    With --share only some are shown it (a canary). Publishing it without makes it the one for all;
    `lipwire avatar rollback` ends it.
    """
    from lipwire.avatars.store import pushing

    wanted = _share(share)
    with _opened(store, endpoint_url) as opened:
        _say(name, pushing.publish(opened, name, version, wanted))
    _tell_servers(redis_url)


def rollback(
    name: Name, store: Store, endpoint_url: Endpoint = None, redis_url: Redis = None
) -> None:
    """End the canary; where there is none, have the version shown again that was before the
    published one."""
    from lipwire.avatars.store import pushing

    with _opened(store, endpoint_url) as opened:
        _say(name, pushing.rollback(opened, name))
    _tell_servers(redis_url)


def versions(
    name: Name,
    store: Store,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """List an avatar's versions in a store, and which of them is published."""
    from lipwire.avatars.store import pushing
    from lipwire.cli.terminal import file_size
    from lipwire.domain import NotFound

    rows = []
    with _opened(store, endpoint_url) as opened:
        found = pushing.versions(opened, name)
        if not found:
            raise NotFound(f"no avatar named {name} is in the store")
        try:
            now: Published | None = pushing.published(opened, name)
        except NotFound:
            now = None
        for each in found:
            manifest = pushing.read_manifest(opened, name, each)
            rows.append(
                {
                    "version": each,
                    "state": _state(each, now),
                    "files": len(manifest.files),
                    "bytes": manifest.size_bytes,
                }
            )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        size = file_size(int(str(row["bytes"])))
        typer.echo(
            f"{str(row['version'])[: pushing.SHORT_DIGITS]}  {row['files']:>6} files {size:>9}"
            f"  {row['state']}".rstrip()
        )


def forget(
    name: Name,
    store: Store,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    endpoint_url: Endpoint = None,
    redis_url: Redis = None,
) -> None:
    """Remove all versions of an avatar from a store. Servers end its sessions, and remove it from
    their caches, within store.poll_seconds, or at once by Redis."""
    from lipwire.avatars.store import pushing
    from lipwire.domain import NotFound
    from lipwire.domain.wording import escaped

    if not yes:
        typer.confirm(f"Remove all of {escaped(name)} from the store for good?", abort=True)
    with _opened(store, endpoint_url) as opened:
        count = pushing.forget(opened, name)
    if not count:
        raise NotFound(f"no avatar named {name} is in the store")
    typer.echo(f"{escaped(name)}: {count} files removed")
    _tell_servers(redis_url)


@contextmanager
def _opened(url: str, endpoint_url: str | None) -> Iterator[ObjectStore]:
    from lipwire.config.storesettings import is_store_url
    from lipwire.domain import InvalidInput
    from lipwire.domain.wording import shown
    from lipwire.stores.objects import ObjectStore

    if not is_store_url(url):
        raise InvalidInput(
            f"the store is {shown(url)}; allowed is a URL as s3://BUCKET/FOLDER or file:///FOLDER"
        )
    yield ObjectStore(url, endpoint_url=endpoint_url)


def _tell_servers(redis_url: str | None) -> None:
    """Have servers look now, where a Redis server is named. What was done stays done where it
    cannot be told."""
    import os

    from lipwire.config import load_compositing_config
    from lipwire.domain import LipwireError
    from lipwire.domain.wording import escaped
    from lipwire.wiring.sharing import tell_of_versions

    if redis_url is None:
        return
    prefix = "LIPWIRE_REDIS__"
    given = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
    try:
        config = load_compositing_config(None, {**given, f"{prefix}URL": redis_url})
        count = tell_of_versions(config.redis)
    except LipwireError as error:
        typer.echo(f"servers notice within store.poll_seconds: {escaped(str(error))}", err=True)
    else:
        typer.echo(f"told {count} processes of servers to look", err=True)


def _state(version: str, now: Published | None) -> str:
    if now is None:
        return ""
    if version == now.version:
        return "published"
    if now.canary is not None and version == now.canary.version:
        return f"canary, {_percent(now.canary.share)}"
    return "published before" if version in now.before else ""


def _say(name: str, now: Published) -> None:
    from lipwire.avatars.store.pushing import SHORT_DIGITS
    from lipwire.domain.wording import escaped

    shown = f"{escaped(name)}: {now.version[:SHORT_DIGITS]} is shown"
    if now.canary is not None:
        share = _percent(now.canary.share)
        shown += f", and {now.canary.version[:SHORT_DIGITS]} to {share} of those who use it"
    typer.echo(shown)


def _share(text: str) -> float:
    """A share of one, of a text as 5%."""
    from lipwire.domain import InvalidInput
    from lipwire.domain.wording import shown

    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0
    if not (text.endswith("%") and _LEAST_PERCENT <= percent <= 100):
        raise InvalidInput(f"--share is {shown(text)}; allowed are {_LEAST_PERCENT:g}% to 100%")
    return percent / 100


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
