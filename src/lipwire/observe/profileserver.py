"""Profiles of a running server over HTTP, for this machine alone.

The addresses are those of Go's net/http/pprof, as far as there is something like it here. What is
answered is text.
"""

from __future__ import annotations

import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from lipwire.domain import InvalidInput, Overloaded, Unavailable
from lipwire.domain.closing import Closing
from lipwire.observe import heap, sampling

_HOST: Final = "127.0.0.1"
_ROOT: Final = "/debug/pprof/"
_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST_S: Final = 600.0
_DEFAULT_S: Final = 30.0
_MOST_REQUESTS: Final = 8
_IDLE_S: Final = 10.0
"""How long a client may take to send its request."""
_LEAVE_S: Final = 5.0
_INDEX: Final = f"""profiles of this process

{_ROOT}profile?seconds=30
    Where processor time goes, in the folded form of flamegraph.pl and speedscope. The stacks of all
    Python threads are looked at {sampling.SAMPLES_PER_SECOND} times a second, and each is given the
    processor time that its thread had since the last look, in microseconds. Time in a library
    (networks, JPEG, video) counts for the line of Python that called it. Threads of libraries
    without any Python have a line with their name. Where the system does not tell the time of
    threads, samples are counted, as with mode=wall.
{_ROOT}profile?seconds=30&mode=wall
    Where threads are, whether they work or wait: each sample counts as one.
{_ROOT}heap?seconds=30
    Which lines of Python allocated, in that time, what is still held. Python is slower meanwhile.
    Memory of libraries does not count.
{_ROOT}threads
    Where each thread is now.

seconds is 1 to {_LONGEST_S:.0f}; one profile and one heap at a time.
"""
_logger = logging.getLogger("lipwire.observe")


class ProfileServer(Closing):
    """Answers HTTP requests on 127.0.0.1 for profiles of this process: where its processor time
    goes, what Python allocates, where its threads are. The answer at ``/`` lists the addresses. A
    context manager; closing ends profiles under way.

    At most 8 requests are answered at a time. One with another host than this machine in its header
    ``Host`` is refused, so that a web page cannot read profiles by a name of its own.
    """

    def __init__(self, port: int) -> None:
        """Listens on ``port``; 0 is any free one. Raises Unavailable where it is taken or not
        allowed."""
        try:
            self._server = _Server(port)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise Unavailable(
                f"profiles at {_HOST}:{port} (server.profile_port): {reason}"
            ) from None
        self.port: Final[int] = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="lipwire-profiles", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and wait up to 5 s for the thread that listens; profiles under way end
        early, in threads of their own."""
        self._server.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_LEAVE_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        self.ended: Final = threading.Event()
        self.profiling: Final = threading.Lock()
        self.counting: Final = threading.Lock()
        self._room = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__((_HOST, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _logger.debug("a request for a profile broke", exc_info=True)  # its client has gone


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "lipwire"
    sys_version = ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        try:
            status, text = 200, self._text()
        except InvalidInput as error:
            status, text = 400, f"{error}\n"
        except LookupError:
            status, text = 404, f"there is nothing at {self.path[:200]!r}; see {_ROOT}\n"
        except Overloaded as error:
            status, text = 429, f"{error}\n"
        except PermissionError:
            status, text = 403, "profiles are for this machine: ask localhost\n"
        data = text.encode(errors="backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        _logger.debug(format, *args)

    def _text(self) -> str:
        """Raises LookupError for another address, PermissionError for another host, InvalidInput
        and Overloaded."""
        try:
            host = urlsplit(f"//{self.headers.get('Host') or 'localhost'}").hostname
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, max_num_fields=10)
        except ValueError as error:
            raise InvalidInput(f"the request cannot be read: {error}") from None
        if host not in _NAMES:
            raise PermissionError(host)
        if parts.path in ("/", _ROOT, _ROOT.rstrip("/")):
            return _INDEX
        if parts.path == f"{_ROOT}threads":
            return sampling.stacks()
        if parts.path == f"{_ROOT}profile":
            wall = _mode(query)
            with _Alone(self.server.profiling, "profile"):
                ended = self.server.ended
                return sampling.profile(_seconds(query), wall=wall, ended=ended).folded()
        if parts.path == f"{_ROOT}heap":
            with _Alone(self.server.counting, "heap"):
                return heap.heap(_seconds(query), self.server.ended)
        raise LookupError(parts.path)


class _Alone:
    """One at a time. A context manager; raises Overloaded where there is another one."""

    def __init__(self, lock: threading.Lock, what: str) -> None:
        self._lock = lock
        self._what = what

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise Overloaded(f"a {self._what} is being made; one is made at a time")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _seconds(query: dict[str, list[str]]) -> float:
    text = query.get("seconds", [str(_DEFAULT_S)])[-1]
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 1 <= seconds <= _LONGEST_S:
        raise InvalidInput(f"seconds is {text[:40]!r}; allowed is 1 to {_LONGEST_S:.0f}")
    return seconds


def _mode(query: dict[str, list[str]]) -> bool:
    """Whether samples are counted and not processor time."""
    mode = query.get("mode", ["cpu"])[-1]
    if mode not in ("cpu", "wall"):
        raise InvalidInput(f"mode is {mode[:40]!r}; allowed is cpu or wall")
    return mode == "wall"
