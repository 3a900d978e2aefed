"""Ports and addresses, in the forms in which people write them."""

import re
from typing import Final

LOWEST_PORT: Final = 0
"""Any free port: the system chooses."""
HIGHEST_PORT: Final = 65535

_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})"
_BRACKETED: Final = r"\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]"
_WITH_HOST: Final = re.compile(rf"({_HOST}|{_BRACKETED}):([0-9]{{1,5}})")
_TARGET: Final = re.compile(rf"(?:dns:///)?(?:{_HOST}|{_BRACKETED}):([0-9]{{1,5}})")
_BIND_HOST: Final = re.compile(rf"{_HOST}|\[?[0-9A-Fa-f:.]{{2,45}}(?:%[A-Za-z0-9._-]{{1,32}})?\]?")

MAX_TARGETS: Final = 1000


def split_listen_address(text: str) -> tuple[str | None, int]:
    """Host and port of ":50051", "50051" or "127.0.0.1:50051". Raises ValueError."""
    text = text.strip()
    if found := _WITH_HOST.fullmatch(text):
        host, digits = found[1], found[2]
    elif (digits := text.removeprefix(":")).isascii() and digits.isdigit() and len(digits) <= 5:
        host = None
    else:
        raise ValueError("neither a port nor an address")
    port = int(digits)
    if port > HIGHEST_PORT:
        raise ValueError("no such port")
    return host, port


def bind_host(text: str) -> str:
    """A host to listen on, IPv6 without brackets. Raises ValueError."""
    if not _BIND_HOST.fullmatch(text):
        raise ValueError("no host")
    return text.removeprefix("[").removesuffix("]")


def join_address(host: str, port: int) -> str:
    """ "0.0.0.0:50051", "[::]:50051"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_targets(value: object) -> tuple[str, ...]:
    """Addresses to connect to: from one text, with commas between several, or a list of texts.

    Each is host:port, IPv6 in brackets, with or without gRPC's ``dns:///``. Raises ValueError.
    """
    texts = value if isinstance(value, (list, tuple)) else [value]
    targets: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise ValueError("an address is a text")
        for part in (part.strip() for part in text.split(",")):
            found = _TARGET.fullmatch(part)
            if found is None or not 1 <= int(found[1]) <= HIGHEST_PORT:
                raise ValueError("no address")
            if part in targets:
                raise ValueError("an address is there twice")
            targets.append(part)
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise ValueError("no address, or too many")
    return tuple(targets)
