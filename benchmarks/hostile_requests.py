"""Whether a server's memory grows with hostile requests: `python benchmarks/hostile_requests.py`.

    python benchmarks/hostile_requests.py [--requests 20000] [--only KIND ...] [--mib 24]

A real `lipwire serve` with a small avatar, in a process of its own, is sent each kind of request so
many times, from four threads over connections of loopback. Of each kind the memory that is the
server's own (RssAnon) is printed after each tenth, then its open files, its threads, and how much
it has logged. The exit status is 1 where the memory grows by more than ``--mib`` between the second
tenth and the end, or files stay open. Linux alone.
"""

import argparse
import base64
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TOKEN: Final = "a token for measuring only"
THREADS: Final = 4
OPEN: Final = 16
"""WebSockets that each thread leaves open, the oldest of which breaks off when there is another."""
ABORT: Final = struct.pack("ii", 1, 0)
MIB: Final = 1 << 20
HEAD: Final = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
WORDS: Final = ("{", '{"avatar": ', "[" * 3000, '"\\ud800', "9" * 5000, "\x00", "nul", "\xff")

Kind = Callable[[int, str, random.Random], str]
"""Makes one request to a port, for a session, and returns what came of it in a word."""


def connected(port: int) -> socket.socket:
    """A connection, which sends a reset when it is closed."""
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    return made


def answer(port: int, sent: bytes) -> str:
    """The status of what is answered to ``sent``."""
    with connected(port) as asking:
        asking.sendall(sent)
        return asking.recv(4096)[9:12].decode("latin-1") or "closed"


def bad_json(port: int, session: str, chance: random.Random) -> str:
    """Ask for a session in what is no JSON, or no request."""
    body = "".join(chance.choices(WORDS, k=3)).encode("latin-1")
    name = chance.choice(("/v1/sessions", f"/v1/sessions/{session}/speak", "/v1/tickets"))
    head = f"POST {name} HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\n"
    return answer(port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def aborted_upload(port: int, session: str, chance: random.Random) -> str:
    """Break off a body after half of it."""
    size = chance.choice((1000, 200_000, 2_000_000))
    head = f"POST /v1/sessions/{session}/speak HTTP/1.1\r\n{HEAD}Content-Type: audio/pcm\r\n"
    with connected(port) as asking:
        asking.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + bytes(size // 2))
    return "broken off"


def bad_upgrade(port: int, session: str, chance: random.Random) -> str:
    """Ask for a WebSocket in ways that are none."""
    key = base64.b64encode(chance.randbytes(16)).decode()
    lines = [
        "Connection: Upgrade",
        chance.choice(("Upgrade: websocket", "Upgrade: h2c", "Upgrade: \x01")),
        chance.choice((f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Key: short", "X: y")),
        chance.choice(("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 99", "Z: y")),
    ]
    path = chance.choice((f"/v1/sessions/{session}/socket", "/v1/socket", "/none", "/"))
    asked = "\r\n".join(lines)
    return answer(port, f"GET {path} HTTP/1.1\r\n{HEAD}{asked}\r\n\r\n".encode())


class HalfOpen:
    """Opens WebSockets, says half of something, and says nothing more."""

    def __init__(self) -> None:
        self._there = threading.local()

    def __call__(self, port: int, session: str, chance: random.Random) -> str:
        key = base64.b64encode(chance.randbytes(16)).decode()
        kept: deque[socket.socket] = self._there.__dict__.setdefault("kept", deque())
        asking = connected(port)
        asking.sendall(
            f"GET /v1/sessions/{session}/socket HTTP/1.1\r\n{HEAD}Connection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        said = "left at once"
        if chance.random() < 0.8:
            said = asking.recv(4096)[9:12].decode("latin-1")
            # A text of 60,000 bytes, of which few come; and messages that are nothing.
            part = b"\x81\xfe\xea\x60" + chance.randbytes(chance.randrange(4000))
            asking.sendall(chance.choice((part, b"\x81\x82\0\0\0\0{}", b"\x82\x81\0\0\0\0x", b"")))
        kept.append(asking)
        if len(kept) > OPEN:
            kept.popleft().close()
        return said


def damaged_messages(port: int, session: str, chance: random.Random) -> str:
    """Send a session's messages, damaged, over a WebSocket, and leave without a word."""
    from tests.fuzz.filetargets import JSON_WORDS
    from tests.fuzz.mutations import random_input
    from tests.fuzz.requesttargets import SOCKET
    from websockets.sync.client import connect

    own = {"Authorization": f"Bearer {TOKEN}"}
    address = f"ws://127.0.0.1:{port}/v1/sessions/{session}/socket"
    try:
        with connect(address, additional_headers=own, close_timeout=1) as opened:
            for line in random_input(chance, SOCKET, JSON_WORDS).split(b"\n")[:6]:
                opened.send(line if chance.random() < 0.5 else line.decode("utf-8", "replace"))
    except Exception as error:
        return type(error).__name__
    return "sent"


def slow_head(port: int, session: str, chance: random.Random) -> str:
    """Send half of a request's head, and leave."""
    with connected(port) as asking:
        asking.sendall(f"GET /v1/sessions HTTP/1.1\r\n{HEAD}X: {'y' * 3000}".encode())
    return "left"


KINDS: Final[dict[str, Callable[[], Kind]]] = {
    "bad JSON": lambda: bad_json,
    "aborted uploads": lambda: aborted_upload,
    "bad upgrades": lambda: bad_upgrade,
    "half-open websockets": HalfOpen,
    "half heads": lambda: slow_head,
    "damaged messages": lambda: damaged_messages,
}


class Server:
    """``lipwire serve`` in a process of its own, and the numbers that the system has of it."""

    def __init__(self, folder: Path) -> None:
        from tests.conftest import make_package_at

        make_package_at(folder / "avatars" / "anna", frames=4)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        environment = {
            **os.environ,
            "LIPWIRE_WEB__TOKEN": TOKEN,
            "LIPWIRE_SPEECH__VOICE": "none",
            "LIPWIRE_METRICS__ENABLED": "false",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        command = ["-m", "lipwire", "serve", "--models-root", str(folder / "avatars")]
        ports = ["--port", "0", "--web-port", str(self.port)]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, *ports], env=environment, stdout=log, stderr=log
            )
        for _ in range(300):
            with suppress(OSError):
                connected(self.port).close()
                return
            time.sleep(0.2)
        raise SystemExit(self.log.read_text())

    def session(self) -> str:
        """The id of a new session; the one before is ended."""
        body = json.dumps({"avatar": "anna"}).encode()
        head = f"POST /v1/sessions HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\n"
        with connected(self.port) as asking:
            asking.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            told = asking.recv(65536)
            while b"\r\n\r\n" not in told or not told.endswith(b"}"):
                told += asking.recv(65536)
        return str(json.loads(told.partition(b"\r\n\r\n")[2])["id"])

    def standing(self) -> tuple[int, int, int]:
        """Its own memory in bytes, open files, threads."""
        folder = Path("/proc", str(self.process.pid))
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        memory = int(status["RssAnon"].split()[0]) << 10
        return memory, len(list((folder / "fd").iterdir())), int(status["Threads"])


def tried(server: Server, name: str, count: int, most_bytes: int) -> bool:
    """Send ``count`` requests of one kind; whether memory, files and threads were flat."""
    session = server.session()
    seen: Counter[str] = Counter()
    standings = [server.standing()]

    def ask(first: int, kind: Kind) -> None:
        for number in range(first, first + count // 10 // THREADS):
            try:
                seen[kind(server.port, session, random.Random(f"{name}/{number}"))] += 1
            except OSError as error:
                seen[type(error).__name__] += 1

    logged = server.log.stat().st_size
    began_s = time.monotonic()
    for tenth in range(10):
        kind = KINDS[name]()
        threads = [
            threading.Thread(target=ask, args=(tenth * count + place * count, kind))
            for place in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        standings.append(server.standing())
    took_s = time.monotonic() - began_s
    memory = [each[0] for each in standings]
    time.sleep(3)  # what has broken off is noticed
    _, files, running = server.standing()
    print(
        f"{name}: {count} requests in {took_s:.0f} s; MiB"
        f" {' '.join(f'{each / MIB:.0f}' for each in memory)}; files {standings[0][1]} to {files},"
        f" threads {standings[0][2]} to {running}, {server.log.stat().st_size - logged:,} bytes of"
        f" log; {dict(seen.most_common())}",
        flush=True,
    )
    return memory[-1] - memory[2] <= most_bytes and files <= standings[0][1] + 8


def main() -> int:
    """Try the kinds that the arguments name, all without any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--only", action="append", choices=KINDS, default=[])
    parser.add_argument("--mib", type=float, default=24.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            most_bytes = int(asked.mib * MIB)
            failed = [
                name
                for name in asked.only or KINDS
                if not tried(server, name, asked.requests, most_bytes)
            ]
        finally:
            server.process.terminate()
            server.process.wait(30)
    if failed:
        print(f"grows: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
