"""The types that values of a configuration have: ports, addresses, names and paths, in the forms in
which people write them."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from lipwire.domain.names import NAME_PATTERN, canonical_name, is_name

LOWEST_PORT: Final = 0  # any free one
HIGHEST_PORT: Final = 65535
MAX_TARGETS: Final = 1000
FILE_KEYS: Final = (
    "path", "model_path", "background_dir", "crop_rects_path", "audio_encoder_path",
)  # fmt: skip
"""The keys of a model that name its files."""

_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})"
_IPV6: Final = r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?"
_ICE_URL: Final = re.compile(
    rf"(stun|turn|turns):{_HOST}(?::([0-9]{{1,5}}))?(?:\?transport=(udp|tcp))?"
)
_WITH_HOST: Final = re.compile(rf"({_HOST}|\[{_IPV6}\]):([0-9]{{1,5}})")
_BIND_HOST: Final = re.compile(rf"{_HOST}|\[?{_IPV6}\]?")
_ORIGIN: Final = re.compile(rf"(https?)://({_HOST}|\[{_IPV6}\])(?::([0-9]{{1,5}}))?", re.IGNORECASE)
_OWN_PORTS: Final = {"http": 80, "https": 443}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE: Final = re.compile(r"[A-Za-z]:|\\\\")


def split_listen_address(text: str) -> tuple[str | None, int]:
    """Return (host, port) of ":50051", "50051" or "127.0.0.1:50051"; the host is None where the
    text has none. Raises ValueError for other texts and for ports above 65535."""
    text = text.strip()
    if found := _WITH_HOST.fullmatch(text):
        host, digits = found.groups()
    else:
        host, digits = None, text.removeprefix(":")
    if not re.fullmatch("[0-9]{1,5}", digits) or int(digits) > HIGHEST_PORT:
        raise ValueError("neither a port nor an address")
    return host, int(digits)


def bind_host(text: str) -> str:
    """Return ``text``, a host name or an address to listen on; an IPv6 address without its
    brackets. Raises ValueError where it can be neither. Nothing is looked up."""
    if not _BIND_HOST.fullmatch(text):
        raise ValueError("no host")
    return text.removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Return whether ``host``, an IP address (IPv6 also in brackets) or a host name, is reached
    from this machine alone: a loopback address, or "localhost". Any other name gives False; nothing
    is looked up."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def join_address(host: str, port: int) -> str:
    """Return ``host``, a name or an IP address, and ``port`` as one text: "0.0.0.0:50051",
    "[::]:50051"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_texts(value: object) -> object:
    """Return the parts of ``value``, a str with commas between them, as a tuple of str: without the
    blanks around each, and without empty ones. A value that is no str is returned unchanged."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def split_targets(value: object) -> tuple[str, ...]:
    """Return the addresses in ``value``, a str with commas between several, or a list or tuple of
    such.

    Each is "host:port", an IPv6 address in brackets, with or without gRPC's "dns:///" before it,
    and is returned as it was written. Raises ValueError for what is no such address, for port 0,
    for an address that is there twice, and where there are no addresses or more than 1000.
    """
    targets: list[str] = []
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(text, str):
            raise ValueError("an address is a text")
        targets += [part.strip() for part in text.split(",")]
    for target in targets:
        found = _WITH_HOST.fullmatch(target.removeprefix("dns:///"))
        if found is None or not 1 <= int(found[2]) <= HIGHEST_PORT:
            raise ValueError("no address")
    if not 1 <= len(set(targets)) == len(targets) <= MAX_TARGETS:
        raise ValueError("no address, one twice, or too many")
    return tuple(targets)


def http_url(text: str) -> str:
    """Return ``text`` unchanged, if it is a URL of http or https that names a server. Raises
    ValueError where it is none, or has a user name, a query or a fragment."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("no URL")
    if parts.username is not None or parts.query or parts.fragment or _CONTROL.search(text):
        raise ValueError("more than a URL has to have here")
    return text


def ice_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``urls`` unchanged, if all are addresses of STUN and TURN servers (RFC 7064, RFC
    7065). Raises ValueError where one is none, or has a transport that such a server does not have.
    """
    for url in urls:
        found = _ICE_URL.fullmatch(url)
        if found is None or (found[2] and not 1 <= int(found[2]) <= HIGHEST_PORT):
            raise ValueError("no address of a STUN or TURN server")
        if (found[1], found[3]) in {("stun", "udp"), ("stun", "tcp"), ("turns", "udp")}:
            raise ValueError("a transport that such a server has not")
    return urls


def web_origin(text: str) -> str:
    """Return ``text``, the origin of a web page ("https://app.example.org"), as browsers send it:
    in lower case, without the port that is usual for the scheme. "*", which stands for any origin,
    is returned unchanged. Raises ValueError where ``text`` is no origin of http or https."""
    if text == "*":
        return text
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise ValueError("no origin")
    scheme, host, port = found.groups()
    scheme = scheme.lower()
    if port is None or int(port) == _OWN_PORTS[scheme]:
        return f"{scheme}://{host.lower()}"
    if not 1 <= int(port) <= HIGHEST_PORT:
        raise ValueError("no port")
    return f"{scheme}://{host.lower()}:{int(port)}"


def _model_name(text: str) -> str:
    if not is_name(text):
        raise ValueError("no name")
    return canonical_name(text)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a configuration comes from: the context with which pydantic validates it.

    ``folder`` is the one in which relative paths start, ``root`` the value of ``models_root``; None
    where there is none. ``written_root`` is ``models_root`` as the file has it, also where a
    variable sets another one. ``notes`` are lines about keys of the file that have no effect.
    """

    folder: Path | None = None
    """Where its relative paths start."""
    root: Path | None = None
    """Its ``models_root``."""
    written_root: str | None = None
    """``models_root`` as the file has it, where a variable sets another one."""
    notes: tuple[str, ...] = ()
    """On keys of the file that have no effect."""

    @classmethod
    def of(cls, info: ValidationInfo) -> Origin:
        """Return the origin that a validation was given as its context, which pydantic passes in
        ``info``; an empty one where it was given none, as for values that come from no file."""
        return info.context if isinstance(info.context, cls) else cls()


def resolve(text: str, folder: Path | None) -> Path:
    """Return the path that ``text`` means in a configuration file in the folder ``folder``: a
    relative path begins there. Where ``folder`` is None it stays relative.

    ``~`` is the user's home. A Windows path with a drive is kept as it is, with slashes, on other
    systems, too. Backslashes are slashes, unless a file or folder has them in its name. Raises
    ValueError for a text that is blank, has control characters or more than 4096 characters, and
    for the home of a user who does not exist.
    """
    if not text.strip() or _CONTROL.search(text) or len(text) > 4096:
        raise ValueError("no path")
    if is_foreign(text):
        return Path(text.replace("\\", "/"))
    text = _with_slashes(text, folder)
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as error:  # ~nobody
        raise ValueError("no home folder") from error
    return path if folder is None else folder / path


def _with_slashes(text: str, folder: Path | None) -> str:
    """``text`` with slashes, unless what it names in ``folder`` is there with backslashes."""
    if "\\" not in text or is_foreign(text):
        return text
    try:
        there = (folder or Path()).joinpath(text).exists()
    except OSError:  # not for this user to see, or too long
        there = False
    return text if there else text.replace("\\", "/")


def is_foreign(path: str | Path) -> bool:
    """Return whether ``path`` is a Windows path with a drive ("C:") or a network share, while this
    system is not Windows."""
    return os.name != "nt" and _DRIVE.match(str(path)) is not None


def _resolved(value: object, info: ValidationInfo) -> object:
    return resolve(value, Origin.of(info).folder) if isinstance(value, str) else value


def _in_root(value: object, info: ValidationInfo) -> object:
    """A path of an avatar, which starts in ``models_root`` where it is there.

    A Windows path that begins with the file's own ``models_root`` leads on from the one in use, on
    a system that has no drives.
    """
    found, origin = _resolved(value, info), Origin.of(info)
    if not isinstance(value, str) or origin.root is None or Path(value).is_absolute():
        return found
    inside = origin.root / _with_slashes(value, origin.root)
    if origin.written_root is not None and is_foreign(value):
        whole = PureWindowsPath(value)
        if whole.is_relative_to(origin.written_root):
            inside = origin.root / whole.relative_to(origin.written_root).as_posix()
    try:
        return inside if inside.exists() else found
    except OSError:  # not for this user to see, or too long
        return found


Port = Annotated[
    int,
    Field(ge=LOWEST_PORT, le=HIGHEST_PORT),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": LOWEST_PORT, "maximum": HIGHEST_PORT},
                {"type": "string", "pattern": r"^(.*:)?\d{1,5}$"},
            ],
            "allowed": f'{LOWEST_PORT} to {HIGHEST_PORT}, as 50051, ":50051" or "127.0.0.1:50051"',
        }
    ),
]
PortNumber = Annotated[int, Field(ge=LOWEST_PORT, le=HIGHEST_PORT)]
Host = Annotated[
    str,
    AfterValidator(bind_host),
    Field(json_schema_extra={"allowed": "a host name or an IP address of this machine"}),
]
HttpUrl = Annotated[
    str,
    AfterValidator(http_url),
    Field(max_length=2000, json_schema_extra={"allowed": "a URL of http or https"}),
]
Language = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][A-Za-z0-9]{0,14}(-[A-Za-z0-9]{1,15}){0,4}$",
        json_schema_extra={"allowed": "a language's code, as en-us, de, cmn"},
    ),
]
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(split_texts),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "allowed": "a text, several with commas between them, or a list of them",
        }
    ),
]
IceUrls = Annotated[
    tuple[str, ...],
    BeforeValidator(split_texts),
    AfterValidator(ice_urls),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "allowed": "stun:HOST:PORT, turn:HOST:PORT?transport=udp or =tcp, turns:HOST:PORT;"
            " several with commas between them, or a list of them",
        }
    ),
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(web_origin)], ...],
    BeforeValidator(split_texts),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "allowed": "an origin as https://app.example.org, several, or `*`",
        }
    ),
]
Targets = Annotated[
    tuple[str, ...],
    BeforeValidator(split_targets),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ],
            "allowed": "host:port, several with commas between them, or a list of them; no http://",
        }
    ),
]
ModelName = Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(_model_name)]
ModelCount = Annotated[int, Field(ge=1, le=1_000_000)]
MemoryMb = Annotated[int, Field(ge=16, le=1 << 24)]
_PATH_SCHEMA: Final = WithJsonSchema({"type": "string", "allowed": "a path"})
FilePath = Annotated[Path, BeforeValidator(_resolved), _PATH_SCHEMA]
AvatarPath = Annotated[Path, BeforeValidator(_in_root), _PATH_SCHEMA]
