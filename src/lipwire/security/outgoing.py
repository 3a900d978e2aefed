"""Requests to URLs that come from outside: they reach what was meant, and nothing inside.

A host's address is looked up once, judged, and that very address is connected to: a name that leads
elsewhere a moment later (DNS rebinding) leads nowhere. Whoever runs the server may name any host of
a private network in its configuration. Nobody else may lead there: neither a redirect, nor a URL
that a tenant gave. Proxies that the environment names are not used, since it would be the proxy
that looks the address up.
"""

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
GivenBy = Literal["operator", "others"]
"""Whose the URL is: of whoever runs the server, in its configuration; or of anybody else."""

MAX_REDIRECTS: Final = 3
MAX_URL_CHARACTERS: Final = 2000
_MOST_LOOKUPS: Final = 16
"""Names that are looked up at a time, those that nobody waits for any more among them."""
_LOOKUPS: Final = threading.BoundedSemaphore(_MOST_LOOKUPS)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses within IPv6 (RFC 6052)."""
_FROM_IPV4: Final = ipaddress.ip_network("::/96")


class RefusedUrlError(OSError):
    """Raised for a URL that may not be reached; its text says why."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long a request to a URL may take, in seconds: ``each_s`` for connecting and for each wait
    for more of the answer, ``all_s`` for everything until the answer's last byte."""

    each_s: float
    """Connecting, and each wait for more of the answer."""
    all_s: float
    """From the beginning to the answer's last byte."""


@contextmanager
def requested(
    url: str,
    *,
    given_by: GivenBy,
    times: Times,
    method: Literal["GET", "POST"] = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[HTTPResponse]:
    """Send a request to ``url`` and give the ``with`` block the answer, whose body is still to be
    read; the connection is closed afterwards. A context manager. ``given_by`` says whose the URL
    is: "operator" for a URL of the configuration, or "others", whose URLs may only lead to public
    addresses. ``method`` is "GET" or "POST", ``body`` what a POST sends, and ``headers`` are sent
    with it. The block gets an answer of any status, errors too.

    A GET follows three redirects at most, each to a public address alone, and from https only to
    https; ``headers`` are sent to the first host alone. A POST follows none. Connecting and each
    wait for more of the answer may take ``times.each_s`` seconds, the whole request
    ``times.all_s``, by ``clock``. Raises RefusedUrlError for a URL that may not be reached,
    TimeoutError where that is not enough, also while the body is read, other OSErrors and
    ``http.client.HTTPException`` where the connection or the answer fails.
    """
    until_s = clock() + times.all_s
    sent = dict(headers or {})
    for redirects in range(MAX_REDIRECTS + 1):
        parts = urlsplit(_checked(url))
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        kind = _Secure if secure else _Plain
        reach = Reach(given_by, times.each_s, until_s, clock)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        with closing(kind(parts.hostname, parts.port, reach)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            target = answer.headers.get("Location")
            if method != "GET" or answer.status not in _REDIRECTS or target is None:
                yield answer
                return
        if redirects == MAX_REDIRECTS:
            break
        url = urljoin(url, target)
        if secure and not url.lower().startswith("https:"):
            raise RefusedUrlError(f"{parts.hostname} redirects to a URL without encryption")
        # Wherever it leads now was said by that server.
        given_by, sent = "others", {}
    raise RefusedUrlError(f"it redirects more than {MAX_REDIRECTS} times")


def fetched(
    url: str,
    *,
    given_by: GivenBy,
    times: Times,
    max_bytes: int,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """Return the body of the answer to a GET of ``url``, ``max_bytes`` at most. ``given_by`` says
    whose the URL is: "operator" (of the configuration), or "others", whose URLs may only lead to
    public addresses. Connecting and each wait for more of the answer may take ``times.each_s``
    seconds, everything ``times.all_s``, by ``clock``. Raises RefusedUrlError for a URL that may not
    be reached, TimeoutError where that is not enough, and OSError or ``http.client.HTTPException``
    where the request fails, and where the answer is longer than ``max_bytes`` or has another status
    than 200."""
    with requested(url, given_by=given_by, times=times, clock=clock) as answer:
        if answer.status != 200:
            raise HTTPException(f"status {answer.status}; allowed is 200")
        data = answer.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise HTTPException(f"more than {max_bytes} bytes, which are allowed")
    return data


def why_not(address: str, given_by: GivenBy) -> str | None:
    """Return in a few words why no connection may be made to the IP address ``address``; None where
    one may be made. Raises ValueError where it is no IP address.

    Where the URL was given by others (``given_by`` is "others") the address has to be public. Where
    the operator gave it ("operator") it may be private or this machine's own, but not link-local,
    where clouds answer with secrets of the machine; ``Reach`` allows even a link-local address
    where the operator's URL contains it in place of a host name.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = [found, *_within(found)]
    if any(each.is_multicast or each.is_unspecified for each in inner):
        return "an address of no single host"
    if any(each.is_link_local for each in inner):
        return "a link-local address"
    if given_by == "others" and not all(each.is_global for each in inner):
        return "a private address"
    return None


@dataclass(frozen=True, slots=True)
class Reach:
    """Makes the connections of one request. ``given_by`` says who gave the URL, "operator" or
    "others"; connections are made only to addresses that such a URL may lead to (``why_not``). Each
    wait lasts ``each_s`` seconds at most, and no wait lasts beyond ``until_s``, a time in seconds
    of ``clock``."""

    given_by: GivenBy
    each_s: float
    until_s: float
    clock: Callable[[], float]

    def left_s(self) -> float:
        """Return for how many seconds the next wait may last, ``each_s`` at most. Raises
        TimeoutError where no time is left."""
        left = self.until_s - self.clock()
        if left <= 0:
            raise TimeoutError("the request takes too long")
        return min(self.each_s, left)

    def connect(self, host: str, port: int) -> socket.socket:
        """Return a TCP connection to the first address of ``host``, a name or an IP address, that
        may be reached and answers at ``port``. The caller closes it. Raises RefusedUrlError where
        no address may be reached, TimeoutError where the time is over, another OSError where none
        answers."""
        literal = _is_address(host)
        refused: str | None = None
        failed: OSError | None = None
        for family, kind, protocol, _, place in self._addresses(host, port):
            address = str(place[0])
            reason = why_not(address, self.given_by)
            if reason is not None and not (literal and self.given_by == "operator"):
                leads = reason if literal else f"{address}, {reason}"
                refused = f"{host} is {leads}, which may not be reached from here"
                continue
            connecting = socket.socket(family, kind, protocol)
            try:
                connecting.settimeout(self.left_s())
                connecting.connect(place)
                return connecting
            except OSError as error:
                connecting.close()
                failed = error
        if failed is not None:
            raise failed
        raise RefusedUrlError(refused or f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[Any]:
        """What ``socket.getaddrinfo`` returns. That waits for as long as the machine's resolver
        likes, so it has a thread of its own, which ends when the resolver does."""
        if _is_address(host):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found: Future[list[Any]] = Future()

        def look_up() -> None:
            try:
                found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except BaseException as error:
                found.set_exception(error)
            finally:
                _LOOKUPS.release()

        if not _LOOKUPS.acquire(timeout=self.left_s()):
            raise TimeoutError(f"{_MOST_LOOKUPS} names are being looked up, which takes too long")
        try:
            threading.Thread(target=look_up, name="lipwire-lookup", daemon=True).start()
        except BaseException:
            _LOOKUPS.release()
            raise
        try:
            return found.result(self.left_s())
        except TimeoutError:
            raise TimeoutError(f"the address of {host} is not found in time") from None


class _Plain(HTTPConnection):
    """A connection that ``Reach`` makes, whose every wait has its end."""

    def __init__(self, host: str, port: int | None, reach: Reach) -> None:
        super().__init__(host, port)
        self._reach = reach

    def connect(self) -> None:
        self.sock: Any = _Waiting(self._reach.connect(self.host, self.port), self._reach)


class _Secure(HTTPSConnection):
    def __init__(self, host: str, port: int | None, reach: Reach) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, context=self._tls)
        self._reach = reach

    def connect(self) -> None:
        plain = self._reach.connect(self.host, self.port)
        try:
            plain.settimeout(self._reach.left_s())
            encrypted = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
        self.sock: Any = _Waiting(encrypted, self._reach)


class _Waiting:
    """A socket as ``http.client`` uses it. Before each wait it is told how long that may last: one
    byte in time would else be enough to go on for ever."""

    def __init__(self, inner: socket.socket, reach: Reach) -> None:
        self._inner = inner
        self._reach = reach

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(self._reach.left_s())
        self._inner.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Received(self._inner, self._reach))

    def close(self) -> None:
        self._inner.close()


class _Received(io.RawIOBase):
    def __init__(self, inner: socket.socket, reach: Reach) -> None:
        super().__init__()
        self._inner = inner
        # It keeps the socket open when the connection is closed before the answer was read.
        self._stream = inner.makefile("rb", buffering=0)
        self._reach = reach

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._inner.settimeout(self._reach.left_s())
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _checked(url: str) -> str:
    """``url``, if it can be one. Raises RefusedUrlError."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or len(url) > MAX_URL_CHARACTERS or not (url.isascii() and url.isprintable()):
        raise RefusedUrlError("the URL is none of http or https")
    if parts.username is not None or parts.password is not None or " " in url:
        raise RefusedUrlError("the URL has a user, a password or a blank in it")
    return url


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _within(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found += address.teredo
    if address in _NAT64 or (address in _FROM_IPV4 and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
