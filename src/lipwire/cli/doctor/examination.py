"""All checks together, in the order in which they are printed."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lipwire.cli.doctor.checks import Check, Group, fault, ok, warning

if TYPE_CHECKING:
    from lipwire.config import Kind, ServerConfig
    from lipwire.rpc.credentials import ClientSecurity

_ASK_S: Final = 5.0


def examine(
    paths: Sequence[Path | None],
    servers: Sequence[str],
    security: ClientSecurity,
    *,
    with_speed: bool,
    timeout_s: float = _ASK_S,
) -> list[Group]:
    """Return all checks in groups: one group for this machine, one for each configuration file in
    ``paths`` (None: the defaults of the compositing server), and one for each running server in
    ``servers`` (HOST:PORT). ``security`` says how these servers are asked. With ``with_speed``,
    frames are made to see how fast this machine is. Each call of a server waits at most
    ``timeout_s`` seconds. A file that cannot be read, or a server that does not answer, is a check
    with the outcome FAULT, and raises nothing."""
    groups: list[Group] = []
    configs: list[ServerConfig] = []
    avatars = preloaded_bytes = 0
    for path in paths:
        config, checks = _read(path)
        if config is not None:
            configs.append(config)
            number, preloaded, more = _of_config(config, timeout_s)
            avatars += number
            preloaded_bytes += preloaded
            checks += more
        groups.append(Group(_subject(path), tuple(checks)))
    machine = _of_machine(configs, avatars, preloaded_bytes, with_speed=with_speed)
    groups.insert(0, Group("this machine", tuple(machine)))
    groups += (_of_server(address, security, timeout_s) for address in servers)
    return groups


def _subject(path: Path | None) -> str:
    return "defaults of the compositing server" if path is None else str(path)


def _read(path: Path | None) -> tuple[ServerConfig | None, list[Check]]:
    from lipwire.config import check_config
    from lipwire.domain import LipwireError

    name, wanted = "configuration", "no errors"
    try:
        kind = _kind(path)
        checked = check_config(path, os.environ, kind)
    except LipwireError as error:
        return None, [fault(name, str(error), wanted, "name another file, or allow it")]
    if checked.config is None:
        action = f"lipwire config check {path} --kind {kind}"
        return None, [fault(name, str(each), wanted, action) for each in checked.problems]
    notes = [*checked.doubts, *checked.config.notes()]
    return checked.config, [
        ok(name, f"is read, for the {kind} server", wanted),
        *(warning(name, note, "no such key or path", "change or remove it") for note in notes),
    ]


def _kind(path: Path | None) -> Kind:
    """Which server's it is; where the keys do not tell, the one that ``lipwire serve`` reads.
    Raises NotFound and InvalidInput for a file that cannot be read."""
    from lipwire.config import detect_kind

    return "compositing" if path is None else detect_kind(path) or "compositing"


def _of_config(config: ServerConfig, timeout_s: float) -> tuple[int, int, list[Check]]:
    """(avatars that can be read, bytes that are preloaded, checks)."""
    from lipwire.cli.doctor.access import access
    from lipwire.cli.doctor.certificates import certificates
    from lipwire.cli.doctor.ports import ports
    from lipwire.cli.doctor.running import inference_servers
    from lipwire.cli.doctor.sharing import redis, renders
    from lipwire.cli.doctor.storage import avatars, written_files
    from lipwire.cli.terminal import progress_bar
    from lipwire.config import CompositingConfig

    with progress_bar("avatars", "packages") as progress:
        found = avatars(config, progress)
    checks = [
        *found.checks,
        *written_files(config),
        *ports(config),
        *access(config),
        *certificates(config, datetime.datetime.now(datetime.UTC)),
    ]
    if isinstance(config, CompositingConfig):
        checks += [redis(config), *renders(config)]
    # `lipwire serve` asks no inference server; whoever names some has them.
    if isinstance(config, CompositingConfig) and "inference_server" in config.model_fields_set:
        checks += inference_servers(config, timeout_s)
    return found.readable, found.preloaded_bytes, checks


def _of_machine(
    configs: Sequence[ServerConfig], avatars: int, preloaded_bytes: int, *, with_speed: bool
) -> Iterator[Check]:
    from lipwire.cli.doctor.libraries import ffmpeg, gpus, telemetry
    from lipwire.cli.doctor.machine import clock, cores, memory, open_files
    from lipwire.cli.doctor.speed import speed
    from lipwire.cli.doctor.storage import cache
    from lipwire.cli.servers.openfiles import file_limit
    from lipwire.config import usable_cores, usable_memory_bytes
    from lipwire.config.folders import cache_folders
    from lipwire.config.machine import quota_cores
    from lipwire.domain import LipwireError

    yield cores(configs, usable_cores(), quota_cores())
    yield memory(configs, usable_memory_bytes(), preloaded_bytes)
    yield open_files(configs, avatars, file_limit())
    try:
        yield cache(cache_folders()[-1])
    except LipwireError as error:
        yield fault("cache folder", str(error), "a folder of this user", "set XDG_CACHE_HOME")
    yield clock()
    yield from gpus(configs)
    yield ffmpeg()
    yield telemetry()
    if with_speed:
        yield speed()


def _of_server(address: str, security: ClientSecurity, timeout_s: float) -> Group:
    from lipwire.cli.doctor.running import running

    return Group(f"server {address}", tuple(running(address, security, timeout_s)))
