"""A Redis server on loopback: Debian's redis-server."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest
from tests.support.waiting import until

PROGRAM: Final = shutil.which("redis-server")
needs_redis: Final = pytest.mark.skipif(PROGRAM is None, reason="needs redis-server")


class RedisServer:
    """A Redis server on a port of its own, without files unless it is asked to keep some. A context
    manager."""

    def __init__(self, folder: Path, *options: str, tls: Sequence[str] = ()) -> None:
        """``folder`` takes its files, ``options`` are added to its command line; ``tls`` are the
        options with which it has a port with TLS alone."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: Final = taken.getsockname()[1]
        self._folder = folder
        folder.mkdir(exist_ok=True)
        port = ("--port", "0", "--tls-port", str(self.port), *tls) if tls else ()
        self._command = [
            str(PROGRAM),
            *(port or ("--port", str(self.port))),
            *("--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        until(self._listens, seen=(self._folder / "log").read_text)

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Have it take connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str | int) -> Any:
        """The answer to a command, of somebody else than Lipwire."""
        import redis

        with redis.Redis(port=self.port, protocol=2, decode_responses=True) as client:
            return client.execute_command(*command)

    def names(self, pattern: str = "*") -> list[str]:
        found: list[str] = self.ask("KEYS", pattern)
        return sorted(found)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
