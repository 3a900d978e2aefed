"""What the commands of the servers share: one process or several, from start to drain."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from lipwire.cli.announce import Announcer
    from lipwire.cli.lifecycle import Stopping
    from lipwire.config import CompositingConfig, InferenceConfig
    from lipwire.rpc.serving import RpcServer

DRAIN_TIMEOUT_S: Final = 30.0
"""Orchestrators kill after 30 s (Kubernetes' terminationGracePeriodSeconds); no batch takes
that."""
_SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that opens an avatar may keep those waiting that serve frames. Python's own 5
ms add up, as a request takes the interpreter's lock a dozen times."""
CONFIG_NAME: Final = "config.yaml"

_logger = logging.getLogger("lipwire.cli")

C = TypeVar("C", "InferenceConfig", "CompositingConfig")
Tell = Callable[[str, Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Overrides:
    """Options of the command line that go before the configuration, and what a parent says."""

    models_root: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    json_logs: bool = False
    ready_fd: int | None = None
    worker: int | None = None

    def environ(self) -> dict[str, str]:
        """The environment to read the configuration with: ``--models-root`` is part of it, because
        entries without a path of their own are looked up there.

        Raises NotFound where it is no folder.
        """
        from lipwire.domain import NotFound

        if self.models_root is None:
            return dict(os.environ)
        if not self.models_root.is_dir():
            raise NotFound(f"no folder of avatars at {self.models_root}")
        return {**os.environ, "LIPWIRE_MODELS_ROOT": str(self.models_root.absolute())}

    def apply(self, config: C) -> C:
        """``config`` with what the other options say."""
        server = {"host": self.host, "port": self.port, "workers": self.workers}
        # Checked by the command line already, as strictly as the configuration would.
        changes: dict[str, object] = {
            "server": config.server.model_copy(
                update={key: value for key, value in server.items() if value is not None}
            )
        }
        if self.json_logs:
            changes["logging"] = config.logging.model_copy(update={"format": "json"})
        return config.model_copy(update=changes)


def config_path(given: Path | None) -> Path | None:
    """The file to load: the one named, else config.yaml of this folder where there is one."""
    if given is not None:
        return given
    here = Path(CONFIG_NAME)
    return here if here.is_file() else None


def run_server(
    title: str,
    config: InferenceConfig | CompositingConfig,
    overrides: Overrides,
    summary: Mapping[str, object],
    open_server: Callable[[Tell, bool], AbstractContextManager[RpcServer]],
) -> None:
    """Serve until asked to end: in this process, or in ``server.workers`` that share the port.

    ``open_server(tell, share_port)`` builds the server of this process.
    """
    from lipwire.cli.announce import Announcer
    from lipwire.cli.lifecycle import Stopping
    from lipwire.cli.memory import keep_few_arenas
    from lipwire.observe import configure_logging

    keep_few_arenas()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    as_json = config.logging.format == "json"
    configure_logging(config.logging.level, as_json=as_json)
    announcer = Announcer(title, as_json=as_json, quiet=overrides.worker is not None)
    server = config.server
    with Stopping(with_stdin=overrides.ready_fd is not None) as stopping:
        announcer.begin()
        announcer.section("Configuration", {**summary, **_numbered(config.notes())})
        if overrides.worker is None and server.workers > 1:
            _run_workers(server.host, server.port, server.workers, announcer, stopping, overrides)
            return
        with open_server(announcer.section, overrides.worker is not None) as running:
            announcer.ready(running.port)
            tell_parent(overrides.ready_fd, running.port)
            stopping.wait()
            _logger.info("draining: %d requests in hand", running.in_hand)
            done = running.drain(DRAIN_TIMEOUT_S)
        _logger.info("stopped" if done else "stopped; requests in hand were cut off")


def tell_parent(ready_fd: int | None, port: int) -> None:
    """Say on the parent's pipe which port is listened on."""
    if ready_fd is not None:
        os.write(ready_fd, f"{port}\n".encode())
        os.close(ready_fd)


def _run_workers(
    host: str,
    port: int,
    count: int,
    announcer: Announcer,
    stopping: Stopping,
    overrides: Overrides,
) -> None:
    from lipwire.cli.children import Child, supervise
    from lipwire.rpc.ports import held_port

    with held_port(host, port) as shared:

        def start(index: int) -> Child:
            return Child(f"worker {index}", worker_arguments(sys.argv[1:], index, shared))

        def ready() -> None:
            announcer.section(f"Listening on port {shared}", {"Worker processes": count})
            announcer.ready(shared)
            tell_parent(overrides.ready_fd, shared)

        supervise(count, start, stopping, ready)
        _logger.info("stopped")


def worker_arguments(arguments: Sequence[str], index: int, port: int) -> list[str]:
    """The command line of a worker: this process's, with the port that was chosen."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--ready-fd", "--port"):
            skip = True
        elif not argument.startswith(("--ready-fd=", "--port=")):
            kept.append(argument)
    return [*kept, "--port", str(port), "--worker", str(index)]


def _numbered(notes: Sequence[str]) -> dict[str, str]:
    return {f"Note {number}": note for number, note in enumerate(notes, 1)}
