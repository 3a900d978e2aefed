"""What the machine gives to the servers: open files, cores, memory, its clock."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from lipwire.cli.doctor.checks import Check, fault, not_applicable, ok, warning

if TYPE_CHECKING:
    from lipwire.config import CompositingConfig, InferenceConfig, ServerConfig

    Run = Callable[[Sequence[str]], str | None]

_FILES_OF_A_PROCESS: Final = 256
"""Libraries, sockets, connections of clients, the pipes between processes."""
_FILES_OF_AN_AVATAR: Final = 4
"""Mapped files, each of which keeps a descriptor: the frames, the weights, the mouths at rest."""
_FILES_OF_A_SESSION: Final = 8
"""A connection, and the sockets of WebRTC."""
_LARGEST_FRAME_CACHE_BYTES: Final = 768 * 1024 * 1024
"""``capacity.frame_cache_mb`` where it is not set, at most."""
_GIB: Final = 1024**3
_OFFSET_S: Final = 1.0
_PROGRAM_S: Final = 10.0


def open_files(configs: Sequence[ServerConfig], avatars: int, limit: int | None) -> Check:
    """Check that a process may open as many files as a server with one of ``configs``, the servers'
    configurations, may need.

    ``avatars`` is how many avatars there are. ``limit`` is how many files a server may have open
    (``ulimit -Hn``, the result of ``file_limit``); None where there is no limit.
    """
    name = "open files"
    needed = max((_files_needed(config, avatars) for config in configs), default=1024)
    wanted = f"{needed} or more"
    if limit is None or limit >= needed:
        return ok(name, "no limit" if limit is None else str(limit), wanted)
    return fault(
        name,
        str(limit),
        f"{wanted}: {_FILES_OF_A_PROCESS} for the process, {_FILES_OF_AN_AVATAR} for each avatar"
        f" in memory, {_FILES_OF_A_SESSION} for each live session",
        "raise the limit (LimitNOFILE= of systemd, ulimit -Hn), or lower capacity.max_models",
    )


def _files_needed(config: ServerConfig, avatars: int) -> int:
    from lipwire.config import CompositingConfig, InferenceConfig

    sessions, most = 0, avatars
    if isinstance(config, CompositingConfig):
        sessions, most = config.live.max_sessions, config.capacity.max_models
    elif isinstance(config, InferenceConfig):
        most = config.capacity.max_models or avatars
    loaded = min(avatars, most)
    return _FILES_OF_A_PROCESS + _FILES_OF_AN_AVATAR * loaded + _FILES_OF_A_SESSION * sessions


def cores(configs: Sequence[ServerConfig], usable: int, quota: float | None) -> Check:
    """Check that there are at least two cores, and as many as the servers have processes
    (``server.workers`` of all ``configs`` together).

    ``usable`` is how many cores this process may use. ``quota`` is the quota of its control group,
    in cores; None where there is none.
    """
    name = "cores"
    seen = str(usable) if quota is None else f"{usable} (quota of the control group: {quota:g})"
    processes = sum(_processes(config) for config in configs)
    wanted = f"2 or more, and no fewer than processes ({processes})"
    if processes > usable:
        return warning(
            name, seen, wanted, "lower server.workers: processes that share a core are not faster"
        )
    if usable < 2:
        return warning(
            name, seen, wanted, "give it 2 cores: networks and pictures are made side by side"
        )
    return ok(name, seen, wanted)


def memory(configs: Sequence[ServerConfig], usable_bytes: int, preloaded_bytes: int = 0) -> Check:
    """Check that memory is large enough for the most that servers with ``configs`` may hold:
    avatars, requests, decoded frames and preloaded frames, of all of them together.

    ``usable_bytes`` is the memory of the machine, or of its container. ``preloaded_bytes`` is the
    size of the frames that the setting ``preload_backgrounds`` reads into memory.
    """
    name = "memory"
    seen = f"{usable_bytes / _GIB:.1f} GiB"
    budgets = sum(config.capacity.max_memory_bytes or 0 for config in _of_servers(configs))
    if budgets > usable_bytes:
        return fault(
            name,
            seen,
            f"{budgets / _GIB:.1f} GiB: capacity.max_memory_mb",
            "lower capacity.max_memory_mb; what does not fit is killed, not evicted",
        )
    requests = sum(
        config.server.max_request_bytes * config.server.workers for config in _of_servers(configs)
    )
    frames = sum(_frame_cache_bytes(config, usable_bytes) for config in configs)
    needed = budgets + requests + frames + preloaded_bytes
    wanted = (
        f"{needed / _GIB:.1f} GiB at most: avatars {budgets / _GIB:.1f}"
        f"{'' if budgets else ' (capacity.max_memory_mb is not set)'},"
        f" requests {requests / _GIB:.1f}, decoded frames {frames / _GIB:.1f},"
        f" preloaded {preloaded_bytes / _GIB:.1f}"
    )
    if needed > usable_bytes:
        return warning(
            name,
            seen,
            wanted,
            "lower capacity.max_memory_mb, server.max_request_memory_mb or"
            " capacity.frame_cache_mb, or preload fewer backgrounds",
        )
    return ok(name, seen, wanted)


def _of_servers(
    configs: Sequence[ServerConfig],
) -> list[CompositingConfig | InferenceConfig]:
    from lipwire.config import CompositingConfig, InferenceConfig

    return [each for each in configs if isinstance(each, CompositingConfig | InferenceConfig)]


def _processes(config: ServerConfig) -> int:
    return sum(each.server.workers for each in _of_servers([config]))


def _frame_cache_bytes(config: ServerConfig, usable_bytes: int) -> int:
    from lipwire.config import CompositingConfig

    if not isinstance(config, CompositingConfig):
        return 0
    most = config.capacity.frame_cache_bytes
    if most is None:
        most = min(_LARGEST_FRAME_CACHE_BYTES, usable_bytes // 4)
    return most * config.server.workers


def clock(run: Run | None = None) -> Check:
    """Check that the machine's clock is set by a time server: chrony is asked, or systemd where
    chrony does not answer.

    ``run(words)`` runs the command line ``words`` and returns what it printed, or None where the
    program does not exist or fails; with ``run`` None, the programs of this machine are run.
    """
    name = "clock"
    run = run or _output_of
    wanted = f"set by a time server, off by less than {_OFFSET_S:g} s"
    action = "start chrony or systemd-timesyncd: tokens and certificates are good for a time"
    told = run(["chronyc", "-c", "tracking"])
    fields = next(csv.reader([told or ""]), [])
    # chronyc(1): with -c the fields are separated by commas; the fifth is how far the clock is off,
    # in seconds, the last the state of leap seconds.
    if len(fields) >= 14:
        if fields[-1] == "Not synchronised":
            return warning(name, "not set by a time server (chrony)", wanted, action)
        try:
            offset_s = abs(float(fields[4]))
        except ValueError:
            return not_applicable(name, "chrony's answer is not understood")
        seen = f"off by {offset_s:.3f} s (chrony)"
        if offset_s >= _OFFSET_S:
            return fault(name, seen, wanted, action)
        return ok(name, seen, wanted)
    told = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if told is None or told.strip() not in ("yes", "no"):
        return not_applicable(name, "neither chrony nor systemd says whether it is set")
    if told.strip() == "no":
        return warning(name, "not set by a time server (systemd)", wanted, action)
    return ok(name, "set by a time server (systemd)", wanted)


def _output_of(words: Sequence[str]) -> str | None:
    program = shutil.which(words[0])
    if program is None:
        return None
    try:
        ran = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_PROGRAM_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None
