"""HAProxy with the configuration of deploy/haproxy, in front of servers of the test's own."""

import csv
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.ownports import own_port
from tests.support.waiting import until

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
NOBODY = "127.0.0.1:1"
SERVERS = ("COMPOSITING_1", "COMPOSITING_2", "INFERENCE_1", "INFERENCE_2", "INFERENCE_3")
WAIT_S = 300.0


def program() -> str:
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("needs haproxy")
    return found


def addresses(given: Mapping[str, str]) -> dict[str, str]:
    """Variables for the configuration: ``given``, and for servers that are not there an address at
    which nobody answers."""
    nobody = dict.fromkeys((*SERVERS, "WEB_1", "WEB_2"), NOBODY)
    ports = {f"{server}_HEALTH_PORT": "1" for server in SERVERS}
    return {**nobody, **ports, **given}


def tls_variables(folder: Path) -> dict[str, str]:
    """The variables with which the configuration speaks TLS, by the certificates in ``folder`` that
    ``make_certificates`` made for the name lipwire."""
    both = folder / "both.pem"
    both.write_text((folder / "server.crt").read_text() + (folder / "server.key").read_text())
    said = {
        name: value.split("    (")[0].strip()
        for name, value in re.findall(r"^#   ([A-Z_]+)  +(ssl .*)$", CONFIG.read_text(), re.M)
    }
    assert set(said) == {
        "CLIENTS_GRPC",
        "CLIENTS_HTTP",
        "SERVERS_GRPC",
        "SERVERS_HTTP",
        "CHECKS",
    }
    return {
        name: value.replace("/etc/haproxy/certs/", str(both)).replace(
            "/etc/haproxy/ca.crt", str(folder / "ca.crt")
        )
        for name, value in said.items()
    }


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, encrypted where there is a ``context``."""

    def __init__(self, path: Path, context: ssl.SSLContext | None = None) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path
        self._context = context

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(str(self._path))
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname="lipwire")


def exchanged(
    path: Path,
    method: str,
    url: str,
    body: object = None,
    *,
    token: str = "",
    context: ssl.SSLContext | None = None,
) -> tuple[int, dict[str, str], str]:
    """The status, fields and body of an answer over the socket at ``path``."""
    connection = UnixConnection(path, context)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, url, sent, {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


@dataclass
class Haproxy:
    """A HAProxy that runs. It listens on sockets in ``folder``: ``grpc``, ``http``, ``stats``, and
    ``inference`` unless that was given an address."""

    folder: Path
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    """Its log."""

    def numbers(self, backend: str, column: str) -> dict[str, str]:
        """A column of its statistics, by server."""
        _, _, text = exchanged(self.folder / "stats", "GET", "/;csv")
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return {
            row["svname"]: row[column]
            for row in rows
            if row["pxname"] == backend and row["svname"] not in ("BACKEND", "FRONTEND")
        }

    def requests(self, backend: str) -> dict[str, int]:
        """How many requests each server had, in all."""
        return {name: int(number) for name, number in self.numbers(backend, "stot").items()}

    def asked(self, backend: str) -> list[str]:
        """The servers of ``backend`` that were asked, by the log: one for each request that is
        over, in the order of their ends."""
        return re.findall(rf" {backend}/(\S+) ", "\n".join(self.lines))

    def until_up(self, backend: str, *servers: str) -> None:
        """Until ``servers`` are up and have their whole share; all that are there where none is
        named."""

        def up() -> bool:
            status = self.numbers(backend, "status")
            weight = self.numbers(backend, "weight")
            share = max(weight.values(), key=int)
            return all(status[name] == "UP" and weight[name] == share for name in servers or status)

        until(up, timeout_s=WAIT_S, seen=lambda: self.numbers(backend, "status"))

    def until_status(self, backend: str, server: str, status: str) -> None:
        """Until ``status`` begins what it says of a server: UP, DOWN, or NOLB: nothing new."""
        until(
            lambda: self.numbers(backend, "status")[server].startswith(status),
            timeout_s=WAIT_S,
            seen=lambda: self.numbers(backend, "status"),
        )

    def reload(self) -> None:
        """Have a new process take over from this one, with the same configuration."""
        before = self._process_id()
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: self._process_id() not in ("", before), timeout_s=WAIT_S)

    def _process_id(self) -> str:
        try:
            _, _, text = exchanged(self.folder / "stats", "GET", "/")
        except OSError:
            return ""
        found = re.search(r"<b>pid = </b> (\d+)", text)
        return "" if found is None else found[1]


@contextmanager
def haproxy(folder: Path, variables: Mapping[str, str]) -> Iterator[Haproxy]:
    """Run it with ``variables``; what it listens on is in ``folder``, unless they say where."""
    names = ("GRPC", "HTTP", "STATS", "INFERENCE")
    environ = {
        **os.environ,
        "MAXCONN": "200",
        "PEERS_BIND": f"127.0.0.1:{own_port()}",
        **{f"{name}_BIND": f"unix@{folder}/{name.lower()}" for name in names},
        **addresses(variables),
    }
    with subprocess.Popen(
        [program(), "-W", "-db", "-f", str(CONFIG)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        running = Haproxy(folder, process)

        def read() -> None:
            stdout: Any = process.stdout
            for line in stdout:
                running.lines.append(line.rstrip("\n"))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            until(
                lambda: (folder / "stats").exists() or process.poll() is not None,
                timeout_s=WAIT_S,
            )
            assert process.poll() is None, running.lines
            yield running
        finally:
            process.terminate()  # the master ends its workers, at once
            process.wait(WAIT_S)
            reader.join(WAIT_S)
