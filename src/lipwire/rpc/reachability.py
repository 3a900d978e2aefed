"""Why a server is not reached, in words: what its address should be, the cause as gRPC has it, and
what to do about it.

gRPC's status is UNAVAILABLE for all of them; only its text tells them apart.
"""

import os
import re
from dataclasses import dataclass
from typing import Final, Literal

import grpc

from lipwire.domain import InvalidInput

Kind = Literal["compositing server", "inference server"]

_PORTS: Final[dict[Kind, int]] = {"inference server": 50051, "compositing server": 50052}
"""Where each listens unless it is told otherwise."""
_OTHER: Final[dict[Kind, Kind]] = {
    "compositing server": "inference server",
    "inference server": "compositing server",
}
_OBEYED: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables of proxies that gRPC reads, the first that is set counts."""
_KNOWN: Final = (*_OBEYED, "all_proxy")

_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Peer:
    """The server that a client calls: its address, its kind ("inference server" for example), and
    whether the environment's proxy variables count."""

    address: str
    kind: Kind
    use_proxy: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a call did not reach its server: ``text``, without addresses, and ``hint``, for whoever
    looks after the server, which may contain addresses or be empty. ``lasting`` says whether
    waiting does not help, because something else answers at the address."""

    text: str
    """Without addresses, so that it may be told to a client of the one that asked."""
    hint: str
    """A question or a remark for whoever looks after it, who may see addresses; may be empty."""
    lasting: bool
    """Whether something is there and is not what is wanted, so that waiting does not help."""

    def __str__(self) -> str:
        return f"{self.text}; {self.hint}" if self.hint else self.text


@dataclass(frozen=True, slots=True)
class _Sign:
    """What a cause looks like in gRPC's text."""

    pattern: re.Pattern[str]
    text: str
    hint: str = ""
    lasting: bool = False
    beyond: bool = False
    """Whether a proxy could lead there."""


_CONNECTING: Final = re.compile(
    r"failed to connect to all addresses|connections to all backends failing"
    r"|errors resolving|DNS resolution failed|lookup failed"
)
"""In the texts of gRPC's own UNAVAILABLE for a connection that was not made."""
_SIGNS: Final = (
    _Sign(re.compile(r"HTTP proxy returned response code (\d+)"), r"the proxy answered HTTP \1"),
    _Sign(
        re.compile(r"Connection refused"),
        "connection refused",
        "is it running, and is the port right?",
    ),
    _Sign(
        re.compile(r"errors resolving|DNS resolution failed|lookup failed"),
        "the name is not known",
        "is it spelled as it should be?",
        beyond=True,
    ),
    _Sign(
        re.compile(r"unreachable|No route to host", re.IGNORECASE),
        "the network does not lead there",
        beyond=True,
    ),
    _Sign(
        re.compile(r"timed out"),
        "timed out while connecting",
        "is the port right, is it a gRPC server, and does a firewall let it through?",
        beyond=True,
    ),
    _Sign(
        re.compile(r"Expected SETTINGS frame|http1\.x|HTTP/1"),
        "what answers there does not speak gRPC",
        "is the port right? It may be a web server's.",
        lasting=True,
    ),
    _Sign(
        re.compile(r"WRONG_VERSION_NUMBER"),
        "what answers there does not speak TLS",
        "connect without credentials, or have the server use TLS.",
        lasting=True,
    ),
    _Sign(
        re.compile(r"CERTIFICATE_VERIFY_FAILED|[Vv]erification [Cc]heck failed"),
        "the server's certificate is not accepted",
        "is it made for this name, and by an authority that is trusted here?",
        lasting=True,
    ),
    _Sign(
        re.compile(r"Socket closed|reset by peer|EOF|Broken pipe"),
        "the connection was closed at once",
        "a server that wants TLS does so, as this connection has none; so do servers that are not"
        " for gRPC.",
    ),
    _Sign(re.compile(r"No such file or directory"), "there is no such socket"),
)


def cause_of(
    failed: grpc.RpcError | grpc.Call, kind: Kind, *, use_proxy: bool = False
) -> Cause | None:
    """Return why the gRPC call ``failed`` did not reach a server of that ``kind`` ("compositing
    server" or "inference server"), with a hint; None where it did reach one. ``use_proxy`` says
    whether the call minded the environment's proxy variables, for the hint."""
    text = failed.details() or ""
    if failed.code() is grpc.StatusCode.UNIMPLEMENTED:
        hint = (
            f"is it the {_OTHER[kind]}? The port of the {kind} is {_PORTS[kind]} unless it was"
            " given another."
        )
        return Cause("what answers there does not know this call", hint, lasting=True)
    if failed.code() is not grpc.StatusCode.UNAVAILABLE or not _CONNECTING.search(text):
        return None
    for sign in _SIGNS:
        if found := sign.pattern.search(text):
            hints = (sign.hint, _proxy_hint(use_proxy, sign.beyond))
            hint = " ".join(hint for hint in hints if hint)
            return Cause(found.expand(sign.text), hint, sign.lasting)
    hint = f"gRPC says: {' '.join(text.split())[:_LONGEST]} {_proxy_hint(use_proxy, False)}"
    return Cause("the connection was not made", hint.rstrip(), lasting=False)


def _proxy_hint(use_proxy: bool, beyond: bool) -> str:
    """What there is to say about variables of proxies. Their values may hold passwords."""
    if use_proxy:
        name = next((name for name in _OBEYED if os.environ.get(name)), None)
        return f"{name} is in force: the proxy may be the cause." if name else ""
    cases = (case for name in _KNOWN for case in (name, name.upper()))
    name = next((name for name in cases if os.environ.get(name)), None)
    return f"{name} is set, and counts only with use_proxy." if beyond and name else ""


def check_address(address: str, kind: Kind) -> None:
    """Raise InvalidInput, with a hint, where ``address`` cannot be that of a gRPC server.

    HOST:PORT can, with IPv6 in brackets, and so can what begins with ``unix:``, ``ipv4:``,
    ``ipv6:`` or ``dns:``, as in gRPC. ``kind`` names the server in the message.
    """
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return
    if hint := _address_hint(address, _PORTS[kind]):
        raise InvalidInput(
            f"{kind} address is {address!r}, wanted is HOST:PORT without a scheme: {hint}"
        )


def _address_hint(address: str, port: int) -> str:
    """What is wrong with an address; empty where nothing is."""
    scheme, separator, _ = address.partition("://")
    if separator:
        return f"leave out {scheme}://"
    if not address or address != "".join(address.split()):
        return "it may not be empty or hold spaces"
    if "/" in address:
        return f"leave out /{address.partition('/')[2]}"
    host, colon, digits = address.rpartition(":")
    if address.count(":") > 1 and not (address.startswith("[") and "]" in address):
        return f"IPv6 goes into brackets, as in [::1]:{port}"
    if not colon or address.endswith("]"):
        return f"the port is missing, as in {address}:{port}"
    if not host:
        return f"the host is missing, as in localhost{address}"
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        return f"the port is {digits!r}, allowed are 1 to 65535"
    return ""
