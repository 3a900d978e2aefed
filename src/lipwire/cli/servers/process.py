"""What the commands of the servers share: one process or several, from start to drain."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from lipwire.cli.servers.announce import Announcer
    from lipwire.cli.servers.lifecycle import Stopping
    from lipwire.cli.servers.sdnotify import ServiceNotifier
    from lipwire.config import CompositingConfig, InferenceConfig
    from lipwire.config.compositing import WebSettings
    from lipwire.config.settings import ServerConfig, ServerSettings
    from lipwire.domain import Tell
    from lipwire.observe.metrics import ServerMetrics
    from lipwire.rpc.server.server import RpcServer
    from lipwire.rpc.workers import WorkerPlace

_SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that opens an avatar may keep those waiting that serve frames. Python's own 5
ms add up, as a request takes the interpreter's lock a dozen times."""
_OF_THE_PARENT: Final = ("--ready-fd", "--port", "--web-port")
"""Options that a worker process gets by the parent's decision: those it was started with, or 0,
would be another port."""
_AFTER_DRAINING_S: Final = 15.0
"""How long a worker process may take to end when it has drained, until it is killed."""
_LOOK_EVERY_S: Final = 0.2
"""How often a worker process that waits looks whether its parent is there."""
CONFIG_NAME: Final = "config.yaml"

_logger = logging.getLogger("lipwire.cli")

OpenServer: TypeAlias = (
    "Callable[[Tell, WorkerPlace | None, ServerMetrics, Path | None],"
    " AbstractContextManager[RpcServer]]"
)
C = TypeVar("C", "InferenceConfig", "CompositingConfig")


@dataclass(frozen=True, slots=True)
class Overrides:
    """Options of the command line that override a server's configuration (None: not given), and
    options that a parent process passes: ``ready_fd`` is the descriptor of a pipe to which the port
    is written, and ``worker`` the Unix socket of this process where it is one of several workers.
    ``json_logs`` makes the log lines of JSON."""

    models_root: str | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    json_logs: bool = False
    ready_fd: int | None = None
    worker: Path | None = None
    """The socket of this process, where it is one of several."""

    def environ(self) -> dict[str, str]:
        """Return the environment variables, value by name, with which the configuration has to be
        read: this process's, and ``LIPWIRE_MODELS_ROOT`` where ``models_root`` is given, because
        avatars in the configuration without a path of their own are looked up there. Raises
        NotFound where ``models_root`` is neither a folder nor a store's URL."""
        from lipwire.config.storesettings import is_store_url
        from lipwire.domain import NotFound

        if self.models_root is None:
            return dict(os.environ)
        root = self.models_root
        if not is_store_url(root):
            if not Path(root).is_dir():
                raise NotFound(f"no folder of avatars at {root}")
            root = str(Path(root).absolute())
        return {**os.environ, "LIPWIRE_MODELS_ROOT": root}

    def apply(self, config: C) -> C:
        """Return a copy of ``config`` in which the host, the port, the number of workers and the
        log format are replaced by those that were given."""
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
    """Return the path of the configuration file to load: ``given``, or with None config.yaml in the
    current folder, or None where there is no such file."""
    if given is not None:
        return given
    here = Path(CONFIG_NAME)
    return here if here.is_file() else None


def run_server(
    title: str,
    config: InferenceConfig | CompositingConfig,
    overrides: Overrides,
    summary: Mapping[str, object],
    open_server: OpenServer,
    web: WebSettings | None = None,
) -> None:
    """Serve until this process is asked to end, in this process or in ``server.workers`` processes
    that share the port; then finish the requests in hand, for at most ``config.drain_timeout_s``
    seconds, and return. Call it in the main thread.

    ``title`` names the server, and ``summary`` has facts about its configuration, value by name, to
    print at the start. ``overrides`` are the options of the command line; ``config`` contains them
    already, and worker processes are given them. ``web`` is the web page's part of the
    configuration, None where the server has no page.

    ``open_server(tell, place, metrics, own_socket)`` returns a context manager that gives the
    ``RpcServer`` of this process, listening. ``tell(heading, facts)`` prints; ``place`` is this
    process's ``WorkerPlace`` among several workers (None where it is the only one); ``metrics`` is
    a ``ServerMetrics``, to be updated; and ``own_socket`` is the path of a Unix socket to listen on
    in addition (None: none).

    A service manager that started this process is told when the server is ready, that it works, and
    when it stops (``ServiceNotifier``). An error that ``open_server`` raises in this process is
    passed on. Raises Unavailable where a port is taken or a worker process does not start.
    """
    from lipwire.cli.servers.allocator import keep_few_arenas
    from lipwire.cli.servers.announce import Announcer
    from lipwire.cli.servers.exposure import exposure
    from lipwire.cli.servers.lifecycle import Stopping
    from lipwire.cli.servers.openfiles import raise_file_limit
    from lipwire.cli.servers.sdnotify import ServiceNotifier
    from lipwire.observe import configure_logging
    from lipwire.observe.metrics import ServerMetrics
    from lipwire.rpc.workers import WorkerPlace
    from lipwire.wiring.tracing import recording_spans

    server = config.server
    parent = os.getppid()
    place = None
    if overrides.worker is not None:
        place = WorkerPlace.of_socket(overrides.worker, server.workers)
    keep_few_arenas()
    raise_file_limit()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    as_json = config.logging.format == "json"
    log_file = configure_logging(config.logging.level, as_json=as_json, file=config.logging.file)
    # Worker processes find by themselves that their file was moved.
    on_hangup = None if log_file is None else log_file.reopen
    announcer = Announcer(title, as_json=as_json, quiet=place is not None)
    with (
        ServiceNotifier.take(os.environ) as notifier,
        Stopping(with_stdin=overrides.ready_fd is not None, on_hangup=on_hangup) as stopping,
    ):
        announcer.begin()
        announcer.section("Configuration", {**summary, **_numbered(config.notes())})
        announcer.section("Security", exposure(config, server, web))
        if place is None and server.workers > 1:
            _run_workers(config, server, web, announcer, stopping, notifier, overrides)
            return
        metrics = ServerMetrics()
        with (
            _tidied(place),
            _profiles(server, place),
            recording_spans(config, tell=announcer.section),
            _own_socket(notifier) as own_socket,
            open_server(announcer.section, place, metrics, own_socket) as running,
            _numbers_told(config, server, place, metrics, lambda: running.ready, announcer.section),
        ):
            announcer.ready(running.port)
            tell_parent(overrides.ready_fd, running.port)
            notifier.ready(f"listening on port {running.port}")
            if own_socket is not None:
                notifier.watch(_any_works([own_socket]))
            stopping.wait()
            notifier.stopping("finishing what is in hand")
            running.withdraw()
            if server.drain_delay:
                _logger.info("not ready any more; draining in %g s", server.drain_delay)
                _delay(server.drain_delay, parent if place is not None else None)
            _logger.info("draining: %d requests in hand", running.in_hand)
            done = running.drain(config.drain_timeout_s)
        _logger.info("stopped" if done else "stopped; requests in hand were cut off")


def _delay(seconds: float, parent: int | None) -> None:
    """Wait; no longer than ``parent``, the process that started this one, lives, where that is
    given. A second signal ends this process all the same."""
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        if parent is not None and os.getppid() != parent:
            return
        time.sleep(min(left_s, _LOOK_EVERY_S))


def tell_parent(ready_fd: int | None, port: int) -> None:
    """Tell the parent process on which ``port`` this one listens: write the number and a line end
    to the pipe ``ready_fd``, and close the pipe. Does nothing where ``ready_fd`` is None."""
    if ready_fd is not None:
        os.write(ready_fd, f"{port}\n".encode())
        os.close(ready_fd)


def _run_workers(
    config: ServerConfig,
    server: ServerSettings,
    web: WebSettings | None,
    announcer: Announcer,
    stopping: Stopping,
    notifier: ServiceNotifier,
    overrides: Overrides,
) -> None:
    from lipwire.cli.servers.children import Child, supervise
    from lipwire.observe.workers import WorkersMetrics
    from lipwire.rpc.server.ports import held_port
    from lipwire.rpc.workers import WorkerPlace, socket_folder
    from lipwire.wiring.metricsport import metrics_port

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

        sockets = [WorkerPlace(folder, index, count).metrics_socket() for index in range(count)]
        numbers = WorkersMetrics(sockets)
        started = threading.Event()
        stack.enter_context(
            metrics_port(
                config.metrics,
                server,
                config.security,
                read=numbers.read,
                ready=lambda: started.is_set() and not stopping.asked and numbers.any_healthy(),
                tell=announcer.section,
            )
        )

        def start(index: int) -> Child:
            place = WorkerPlace(folder, index, count)
            arguments = worker_arguments(sys.argv[1:], place, shared)
            return Child(f"worker {index}", arguments, environ)

        def ready() -> None:
            started.set()
            announcer.section(f"Listening on port {shared}", {"Worker processes": count})
            announcer.ready(shared)
            tell_parent(overrides.ready_fd, shared)
            notifier.ready(f"{count} processes listening on port {shared}")
            notifier.watch(
                _any_works([WorkerPlace(folder, i, count).socket() for i in range(count)])
            )

        supervise(
            count,
            start,
            stopping,
            ready,
            on_end=lambda: notifier.stopping("finishing what is in hand"),
            grace_s=server.drain_delay + config.drain_timeout_s + _AFTER_DRAINING_S,
        )
        _logger.info("stopped")


@contextmanager
def _numbers_told(
    config: ServerConfig,
    server: ServerSettings,
    place: WorkerPlace | None,
    metrics: ServerMetrics,
    ready: Callable[[], bool],
    tell: Tell,
) -> Iterator[None]:
    """Let others read the numbers of this process during the block: Prometheus on the port for
    them, or the parent, who has that port, where this is one of several."""
    from lipwire.observe.workers import AnsweringSocket
    from lipwire.wiring.metricsport import metrics_port

    with ExitStack() as stack:
        if place is None:
            port = metrics_port(
                config.metrics, server, config.security, read=metrics.read, ready=ready, tell=tell
            )
            stack.enter_context(port)
        elif config.metrics.enabled:
            stack.enter_context(AnsweringSocket(place.metrics_socket(), metrics.read))
        yield


@contextmanager
def _profiles(server: ServerSettings, place: WorkerPlace | None) -> Iterator[None]:
    """Answer requests for profiles of this process during the block, where ``server`` says so. Of
    several processes each has a port of its own. Raises Unavailable where that is taken."""
    if server.profile_port is None:
        yield
        return
    from lipwire.observe.profileserver import ProfileServer

    index = 0 if place is None else place.index
    with ProfileServer(server.profile_port and server.profile_port + index) as profiles:
        _logger.info(
            "profiles of this process at http://127.0.0.1:%d/debug/pprof/",
            profiles.port,
            extra={"profile_port": profiles.port},
        )
        yield


@contextmanager
def _own_socket(notifier: ServiceNotifier) -> Iterator[Path | None]:
    """Where this process is to ask itself how it is; None where nobody wants to know."""
    from lipwire.rpc.workers import socket_folder

    if not notifier.watchdog:
        yield None
        return
    with socket_folder() as folder:
        yield folder / "own.sock"


def _any_works(sockets: Sequence[Path]) -> Callable[[float], bool]:
    """Return a function that asks the server's processes at ``sockets``, within a number of seconds
    altogether, whether they work, and returns whether one does. It raises what the last one
    failed with where none answers."""
    from lipwire.domain import LipwireError
    from lipwire.rpc.healthcheck import is_serving
    from lipwire.rpc.server.health import LIVENESS
    from lipwire.rpc.workers.place import address_of

    def works(timeout_s: float) -> bool:
        failure: LipwireError | None = None
        for path in sockets:
            within_s = timeout_s / len(sockets)
            try:
                if is_serving(address_of(path), service=LIVENESS, timeout_s=within_s):
                    return True
            except LipwireError as error:
                failure = error
        if failure is not None:
            raise failure
        return False

    return works


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
    """Return the arguments for the command line of a worker process: ``arguments``, those of this
    process, without the options that the parent decides (ports, ``--ready-fd``); then ``port``, the
    port to listen on, and from ``place`` the number of workers and the path of the worker's own
    socket, whose name says which of them it is.

    The port and the number are passed because the configuration file may have changed by the time
    that the worker starts. The port of the web page is not among them: workers get it from an
    environment variable.
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
