"""A TURN server on loopback: Debian's coturn."""

import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.waiting import until

USER: Final = "lipwire"
CREDENTIAL: Final = 'a "long-term" credential'


class TurnServer:
    """Relays for who has ``USER`` and ``CREDENTIAL``, or credentials made with ``secret``; clients
    connect over TCP alone. A context manager."""

    def __init__(self, folder: Path, secret: str | None = None) -> None:
        """``folder`` takes its files."""
        program = shutil.which("turnserver")
        assert program is not None
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: Final = taken.getsockname()[1]
        options = {
            "listening-ip": "127.0.0.1",
            "relay-ip": "127.0.0.1",
            "listening-port": str(self.port),
            "realm": "lipwire.test",
            **(
                {"user": f"{USER}:{CREDENTIAL}"}
                if secret is None
                else {"static-auth-secret": secret}
            ),
            "userdb": str(folder / "users"),
            "pidfile": str(folder / "pid"),
            "log-file": "stdout",
        }
        mechanism = "lt-cred-mech" if secret is None else "use-auth-secret"
        switches = ("allow-loopback-peers", mechanism, "no-udp", "no-tls", "no-dtls", "no-cli")
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    "-n",
                    *(f"--{name}={value}" for name, value in options.items()),
                    *(f"--{name}" for name in switches),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    @property
    def url(self) -> str:
        return f"turn:127.0.0.1:{self.port}?transport=tcp"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        try:
            until(self._listens, seen=lambda: self.log)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait()
