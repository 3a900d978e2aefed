"""What the commands of the servers share: one process or several, from start to drain."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from lipwire.cli.servers.announce import Announcer
    from lipwire.cli.servers.lifecycle import Stopping
    from lipwire.config import CompositingConfig, InferenceConfig
    from lipwire.config.compositing import WebSettings
    from lipwire.config.settings import ServerConfig, ServerSettings
    from lipwire.domain import Tell
    from lipwire.rpc.server.server import RpcServer
    from lipwire.rpc.workers import WorkerPlace

_SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that opens an avatar may keep those waiting that serve frames. Python's own 5
ms add up, as a request takes the interpreter's lock a dozen times."""
_OF_THE_PARENT: Final = ("--ready-fd", "--port", "--web-port")
"""Options that a worker process gets by the parent's decision: those it was started with, or 0,
would be another port."""
CONFIG_NAME: Final = "config.yaml"

_logger = logging.getLogger("lipwire.cli")

C = TypeVar("C", "InferenceConfig", "CompositingConfig")


@dataclass(frozen=True, slots=True)
class Overrides:
    """Options of the command line that override the configuration, and what a parent process
    passes."""

    models_root: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    json_logs: bool = False
    ready_fd: int | None = None
    worker: Path | None = None
    """The socket of this process, where it is one of several."""

    def environ(self) -> dict[str, str]:
        """Return the environment variables with which the configuration is to be read: this
        process's, and ``LIPWIRE_MODELS_ROOT`` where ``models_root`` is given, because entries
        without a path of their own are looked up there. Raises NotFound where that is no folder."""
        from lipwire.domain import NotFound

        if self.models_root is None:
            return dict(os.environ)
        if not self.models_root.is_dir():
            raise NotFound(f"no folder of avatars at {self.models_root}")
        return {**os.environ, "LIPWIRE_MODELS_ROOT": str(self.models_root.absolute())}

    def apply(self, config: C) -> C:
        """Return a copy of ``config`` with the host, port, workers and log format that were given
        in place of its own."""
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
    """Return the configuration file to load: ``given``, or else config.yaml of the current folder.

    None where there is neither.
    """
    if given is not None:
        return given
    here = Path(CONFIG_NAME)
    return here if here.is_file() else None


def run_server(
    title: str,
    config: InferenceConfig | CompositingConfig,
    overrides: Overrides,
    summary: Mapping[str, object],
    open_server: Callable[[Tell, WorkerPlace | None], AbstractContextManager[RpcServer]],
    web: WebSettings | None = None,
) -> None:
    """Serve until this process is asked to end, in this process or in ``server.workers`` processes
    that share the port, then drain.

    ``title`` names the server and ``summary`` facts about its configuration, for what is printed at
    the start. ``overrides`` are the options of the command line, which ``config`` has taken in
    already. ``open_server(tell, place)`` returns a context manager with the server of this process,
    listening; ``tell(heading, facts)`` prints, and ``place`` is that among the other processes,
    None where there are none. ``web`` is the page's part of the configuration, None where the
    server has no page.
    """
    from lipwire.cli.servers.allocator import keep_few_arenas
    from lipwire.cli.servers.announce import Announcer
    from lipwire.cli.servers.lifecycle import Stopping
    from lipwire.observe import configure_logging
    from lipwire.rpc.workers import WorkerPlace

    server = config.server
    place = None
    if overrides.worker is not None:
        place = WorkerPlace.of_socket(overrides.worker, server.workers)
    keep_few_arenas()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    as_json = config.logging.format == "json"
    configure_logging(config.logging.level, as_json=as_json)
    announcer = Announcer(title, as_json=as_json, quiet=place is not None)
    with Stopping(with_stdin=overrides.ready_fd is not None) as stopping:
        announcer.begin()
        announcer.section("Configuration", {**summary, **_numbered(config.notes())})
        if place is None and server.workers > 1:
            _run_workers(config, server, web, announcer, stopping, overrides)
            return
        with _tidied(place), open_server(announcer.section, place) as running:
            announcer.ready(running.port)
            tell_parent(overrides.ready_fd, running.port)
            stopping.wait()
            _logger.info("draining: %d requests in hand", running.in_hand)
            done = running.drain(config.drain_timeout_s)
        _logger.info("stopped" if done else "stopped; requests in hand were cut off")


def tell_parent(ready_fd: int | None, port: int) -> None:
    """Write ``port``, on which this process listens, and a line end to the pipe ``ready_fd`` of its
    parent, and close it; nothing where that is None."""
    if ready_fd is not None:
        os.write(ready_fd, f"{port}\n".encode())
        os.close(ready_fd)


def _run_workers(
    config: ServerConfig,
    server: ServerSettings,
    web: WebSettings | None,
    announcer: Announcer,
    stopping: Stopping,
    overrides: Overrides,
) -> None:
    from lipwire.cli.servers.children import Child, supervise
    from lipwire.rpc.server.ports import held_port
    from lipwire.rpc.workers import WorkerPlace, socket_folder

    count = server.workers
    with ExitStack() as stack:
        shared = stack.enter_context(held_port(server.host, server.port))
        folder = stack.enter_context(socket_folder())
        environ: dict[str, str] = {}
        if web is not None:
            from lipwire.wiring.web import shared_web

            environ = stack.enter_context(
                shared_web(
                    web,
                    tell=announcer.section,
                    closed=config.closed(server),
                    encrypted=server.tls.enabled,
                )
            )

        def start(index: int) -> Child:
            place = WorkerPlace(folder, index, count)
            arguments = worker_arguments(sys.argv[1:], place, shared)
            return Child(f"worker {index}", arguments, environ)

        def ready() -> None:
            announcer.section(f"Listening on port {shared}", {"Worker processes": count})
            announcer.ready(shared)
            tell_parent(overrides.ready_fd, shared)

        supervise(count, start, stopping, ready)
        _logger.info("stopped")


@contextmanager
def _tidied(place: WorkerPlace | None) -> Iterator[None]:
    """Remove the folder of the sockets after the block, where the parent was killed: it is the
    parent's to remove."""
    parent = os.getppid()
    try:
        yield
    finally:
        if place is not None and os.getppid() != parent:
            shutil.rmtree(place.folder, ignore_errors=True)


def worker_arguments(arguments: Sequence[str], place: WorkerPlace, port: int) -> list[str]:
    """Return the command line for a worker process: this process's, with the port and number of
    workers.

    These are passed because the configuration may have changed by the time that it starts. The
    port of the page is in the environment (``shared_web``).
    """
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in _OF_THE_PARENT:
            skip = True
        elif argument.partition("=")[0] not in _OF_THE_PARENT:
            kept.append(argument)
    workers = ["--workers", str(place.count), "--worker", str(place.socket())]
    return [*kept, "--port", str(port), *workers]


def _numbered(notes: Sequence[str]) -> dict[str, str]:
    return {f"Note {number}": note for number, note in enumerate(notes, 1)}
