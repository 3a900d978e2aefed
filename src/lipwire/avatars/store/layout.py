"""Where things lie in a store, and what its two kinds of JSON files say.

    published/NAME.json                  which version of an avatar is shown: the only file that is
                                         ever replaced
    avatars/NAME/versions/VERSION.json   a manifest: paths, sizes and hashes of a version's files
    avatars/NAME/compiled/VERSION/PART.json   a manifest of what was compiled of a version
    avatars/NAME/files/SHA256            a file, by the hash of its content

A version's name is the SHA-256 of its manifest, so that a manifest proves itself, and its files
with it. Every avatar has its files to itself: removing a folder forgets a person. NAME is written
with percent signs for whatever a key or a file's name may not have.

Everything that is read from a store may be from a stranger: paths that lead out of a package,
sizes beyond all measure and hashes that are none are refused here. Links cannot be said.
"""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final
from urllib.parse import quote, unquote

from lipwire.domain import AvatarInvalid
from lipwire.domain.names import canonical_name, is_name
from lipwire.domain.wording import shown

FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 32 * 1024 * 1024
MAX_POINTER_BYTES: Final = 64 * 1024
MAX_FILES: Final = 100_000
MAX_PACKAGE_BYTES: Final = 32 * 1024**3
_MAX_PATH: Final = 512
_MAX_PART_BYTES: Final = 200
_MOST_BEFORE: Final = 20
_VERSION: Final = re.compile(r"[0-9a-f]{64}")

PUBLISHED: Final = "published"
"""The folder of the files that say which version is published."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a version: its path in the package, with forward slashes, how many bytes it has,
    and the SHA-256 of them, 64 hexadecimal digits."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one version of an avatar, in the order of their paths."""

    avatar: str
    files: tuple[StoredFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(each.size_bytes for each in self.files)

    def to_bytes(self) -> bytes:
        """Return the manifest as it is stored: JSON, the same bytes for the same files."""
        files = [[each.path, each.size_bytes, each.sha256] for each in self.files]
        facts = {"lipwire": FORMAT, "avatar": self.avatar, "files": files}
        return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def version(self) -> str:
        """The version's name: the SHA-256 of ``to_bytes``, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Canary:
    """A ``version`` that is shown to a ``share`` of those who use the avatar, above 0 and below
    1."""

    version: str
    share: float


@dataclass(frozen=True, slots=True)
class Published:
    """Which ``version`` of an avatar is shown, and which were before it, the latest first; and the
    ``canary`` that some are shown in its place, None where there is none."""

    version: str
    before: tuple[str, ...] = ()
    canary: Canary | None = None

    def to_bytes(self) -> bytes:
        """Return this object as it is stored: JSON."""
        facts: dict[str, Any] = {"lipwire": FORMAT, "version": self.version, "before": self.before}
        if self.canary is not None:
            facts["canary"] = {"version": self.canary.version, "share": self.canary.share}
        return json.dumps(facts, indent=1).encode()

    def then(self, version: str) -> "Published":
        """Return what is published once ``version`` has been published for all: ``version`` is
        shown, the version shown until now comes first in ``before``, and there is no canary. Where
        ``version`` is shown already, only the canary ends."""
        if version == self.version:
            return Published(version, self.before)
        earlier = [each for each in (self.version, *self.before) if each != version]
        return Published(version, tuple(earlier[:_MOST_BEFORE]))


def pointer_key(name: str) -> str:
    """Return the key, in an ``ObjectStore``, of the file that says which version of the avatar
    ``name`` is published (its pointer)."""
    return f"{PUBLISHED}/{written(name)}.json"


def manifest_key(name: str, version: str) -> str:
    """Return the key, in an ``ObjectStore``, of the manifest of ``version`` (its whole name) of the
    avatar ``name``."""
    return f"{versions_folder(name)}/{version}.json"


def versions_folder(name: str) -> str:
    """Return the key, in an ``ObjectStore``, of the folder of manifests of the avatar ``name``."""
    return f"avatars/{written(name)}/versions"


def files_folder(name: str) -> str:
    """Return the key, in an ``ObjectStore``, of the folder of the files of all versions of the
    avatar ``name``."""
    return f"avatars/{written(name)}/files"


def file_key(name: str, sha256: str) -> str:
    """Return the key, in an ``ObjectStore``, of the file of the avatar ``name`` whose content has
    the SHA-256 ``sha256``, 64 hexadecimal digits."""
    return f"{files_folder(name)}/{sha256}"


def compiled_folder(name: str, version: str) -> str:
    """Return the key, in an ``ObjectStore``, of the folder of what was compiled of ``version`` (its
    whole name) of the avatar ``name``."""
    return f"avatars/{written(name)}/compiled/{version}"


def written(name: str) -> str:
    """Return the avatar's ``name`` as it is written in keys of a store: letters and digits of
    ASCII, blanks and a few signs as they are, anything else with percent signs, as in a URL."""
    return quote(name, safe=" ")


def name_of(pointer: str) -> str | None:
    """Return the name of the avatar whose pointer, the file that says which version of it is
    published, is called ``pointer``, such as ``anna.json``; None where Lipwire would write no
    pointer of that name."""
    text, _, suffix = pointer.rpartition(".")
    if suffix != "json":
        return None
    try:
        name = unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None
    return name if is_name(name) and written(name) == text else None


def is_version(text: object) -> bool:
    """Return whether ``text`` has the form of a version's name: 64 hexadecimal digits."""
    return isinstance(text, str) and _VERSION.fullmatch(text) is not None


def parse_published(data: bytes, name: str) -> Published:
    """Return what ``data`` says: the content of the file (the pointer) by which a store says which
    version of the avatar ``name`` is published. Raises AvatarInvalid where it is not JSON of this
    format."""
    facts = _parsed(data, f"what the store says of avatar {name}")
    version, before = facts.get("version"), facts.get("before", [])
    if not is_version(version) or not isinstance(before, list) or len(before) > 1000:
        raise AvatarInvalid(f"what the store says of avatar {name} names no version")
    if not all(map(is_version, before)):
        raise AvatarInvalid(f"what the store says of avatar {name} names versions that are none")
    canary = _canary(facts.get("canary"), name)
    return Published(str(version), tuple(before[:_MOST_BEFORE]), canary)


def parse_manifest(data: bytes, name: str, version: str) -> Manifest:
    """Return the manifest of ``version`` of the avatar ``name``, whose bytes are ``data``.

    Raises AvatarInvalid where they are not those that the version is named by, and where the
    manifest asks for what no package has: a path that leads out of it or is there twice, more than
    100,000 files or 32 GiB, a hash that is none.
    """
    label = f"version {version[:12]} of avatar {name}"
    if hashlib.sha256(data).hexdigest() != version:
        raise AvatarInvalid(f"{label}: its manifest in the store is not the one it is named by")
    return parse_files(data, name, label)


def parse_files(data: bytes, name: str, label: str) -> Manifest:
    """Return the manifest of files of the avatar ``name`` whose bytes are ``data``; ``label`` names
    it in messages. Raises AvatarInvalid where it is not JSON of this format, is of another avatar,
    or asks for what no package has: no files or more than 100,000, more than 32 GiB, a path that
    leads out of the package or is there twice, a hash that is none."""
    facts = _parsed(data, label)
    files = facts.get("files")
    if facts.get("avatar") != name or not isinstance(files, list):
        raise AvatarInvalid(f"{label}: its manifest is of something else")
    if not 0 < len(files) <= MAX_FILES:
        raise AvatarInvalid(f"{label} has {len(files)} files; allowed are 1 to {MAX_FILES}")
    manifest = Manifest(name, tuple(_file(each, label) for each in files))
    if manifest.size_bytes > MAX_PACKAGE_BYTES:
        raise AvatarInvalid(
            f"{label} has {manifest.size_bytes} bytes; allowed are {MAX_PACKAGE_BYTES}"
        )
    _check_paths(manifest, label)
    return manifest


def _canary(fact: object, name: str) -> Canary | None:
    match fact:
        case None:
            return None
        case {"version": version, "share": int() | float() as share} if is_version(version):
            if 0 < share < 1:
                return Canary(str(version), float(share))
    raise AvatarInvalid(f"what the store says of avatar {name} has a canary that is none")


def _parsed(data: bytes, label: str) -> dict[str, Any]:
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        raise AvatarInvalid(f"{label} is no JSON") from None
    if not isinstance(facts, dict):
        raise AvatarInvalid(f"{label} is not of a form that is known")
    if facts.get("lipwire") != FORMAT:
        seen = shown(str(facts.get("lipwire")))
        raise AvatarInvalid(f"{label} is of format {seen}; known is {FORMAT}")
    return facts


def _file(entry: object, label: str) -> StoredFile:
    match entry:
        case [str() as path, int() as size, str() as sha256] if not isinstance(size, bool):
            pass
        case _:
            raise AvatarInvalid(f"{label}: its manifest has an entry that is no file")
    if not is_version(sha256):
        raise AvatarInvalid(f"{label}: {shown(path)} has no SHA-256")
    if not 0 <= size <= MAX_PACKAGE_BYTES:
        raise AvatarInvalid(f"{label}: {shown(path)} has {size} bytes")
    if (reason := why_not_a_path(path)) is not None:
        raise AvatarInvalid(f"{label}: the path {shown(path)} {reason}")
    return StoredFile(path, size, sha256)


def why_not_a_path(path: str) -> str | None:
    """Return why ``path`` cannot be a file's in a package, as the end of a message; None where it
    can: a relative path with forward slashes, none of whose parts begins with a dot."""
    if not path or len(path) > _MAX_PATH:
        return f"is empty or has more than {_MAX_PATH} characters"
    windows = PureWindowsPath(path)
    if path.startswith("/") or windows.drive or windows.root or "\\" in path or ":" in path:
        return "leads out of the package"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        return "has characters that no path has"
    for part in path.split("/"):
        if not part or part.startswith(".") or part.endswith((" ", ".")):
            return "leads out of the package, is hidden, or is not the same everywhere"
        if len(part.encode()) > _MAX_PART_BYTES:
            return f"has a part of more than {_MAX_PART_BYTES} bytes"
    return None


def _check_paths(manifest: Manifest, label: str) -> None:
    """No file twice, also where a disk does not tell capitals from small letters, and none that is
    another one's folder."""
    seen: set[str] = set()
    folders: set[str] = set()
    for each in manifest.files:
        path = PurePosixPath(canonical_name(each.path).casefold())
        if str(path) in seen:
            raise AvatarInvalid(f"{label}: the path {shown(each.path)} is there twice")
        seen.add(str(path))
        folders.update(str(above) for above in path.parents)
    if twice := seen & folders:
        raise AvatarInvalid(f"{label}: {shown(min(twice))} is a file and a folder")
