"""Files of a package: found without leaving its folder, and read only so far."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.packagesettings import SETTINGS_NAME
from lipwire.config.links import HOW, links_may_lead_out
from lipwire.domain.wording import shown

MISSING: Final = "is missing"


def required_file(
    root: Path,
    name: str,
    findings: Findings,
    *,
    key: str | None = None,
    hint: Callable[[Path], str] = lambda root: "",
) -> Path | None:
    """Return the path of the file ``name``, which is relative to the package's folder ``root``;
    links in ``root`` are already resolved. Return None, and put an error into ``findings``, where
    the file is missing, is not a file, or lies outside of the package.

    ``key`` is the key of ``avatar.yaml`` that names the file, for the message; None where it has
    its usual name. ``hint`` is called with ``root`` where nothing is there, and returns the end of
    the message, which says what is there instead; the default returns an empty text.
    """
    label = f"{SETTINGS_NAME}: {key} {shown(name)}" if key else name
    path = contained(root, name, label, findings)
    if path is None:
        return None
    lack = what_is_wrong(root / name)
    if lack is None:
        return path
    instead = hint(root) if lack == MISSING else ""
    findings.error(f"{label} {lack}; the package needs it{instead}")
    return None


def what_is_wrong(path: Path) -> str | None:
    """Return why ``path`` is not a file, as the end of a message; None where it is one. Where
    nothing is at ``path``, the constant MISSING is returned."""
    try:
        if path.is_file():
            return None
        if path.exists():
            return "is not a file"
        return "is a link to something that is not there" if path.is_symlink() else MISSING
    except OSError as error:
        return f"cannot be read: {reason_of(error)}"


def named_file(path: Path, findings: Findings) -> Path | None:
    """Return ``path``, a file whose path was given on its own and not as part of a package, with
    its links resolved. Return None, and put an error into ``findings``, where it is not a file.

    Links may lead anywhere, because whoever gave the path chose it.
    """
    try:
        resolved = path.resolve()
        if resolved.is_file():
            return resolved
        seen = "is not a file" if resolved.exists() else "is not there"
    except (OSError, RuntimeError, ValueError) as error:
        seen = f"cannot be followed; {reason_of(error)}"
    findings.error(f"{path} {seen}")
    return None


def contained(root: Path, name: str, label: str, findings: Findings) -> Path | None:
    """Return the path ``name`` below the package's folder ``root``, with symbolic links resolved,
    whether something is there or not. Return None, and put an error into ``findings``, where it may
    not be used. The links of ``root`` itself have to be resolved already.

    It may not be used where ``name`` has "..", begins at a root or a drive, or leads over a link
    that cannot be followed or that leads out of ``root``. Where the environment variable
    LIPWIRE_ALLOW_LINKS_OUTSIDE allows links that lead out, a path over one is returned without
    resolving its links. ``label`` names the path in the message.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    leaves = posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root
    if leaves or ".." in posix.parts or ".." in windows.parts:
        findings.error(f"{label} leads out of the package; paths are relative to its folder")
        return None
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL in the name
        findings.error(f"{label} cannot be followed; {reason_of(error)}")
        return None
    if path.is_relative_to(root):
        return path
    if links_may_lead_out():
        return root / name  # which messages and records can name
    findings.error(f"{label} is a link that leads out of the package; {HOW}")
    return None


def read_file(path: Path, label: str, max_bytes: int, findings: Findings) -> bytes | None:
    """Return all bytes of the file ``path``; None where it is missing, no plain file, cannot be
    read or has over ``max_bytes`` bytes, which is put into ``findings`` as an error. ``label``
    names the file in the message."""
    try:
        size_bytes = path.stat().st_size
        if path.is_file() and size_bytes <= max_bytes:
            return path.read_bytes()
    except OSError as error:
        findings.error(f"{label} cannot be read; {reason_of(error)}")
        return None
    if not path.is_file():  # reading a pipe would wait for ever
        findings.error(f"{label} is not a file")
    else:
        findings.error(f"{label} has {size_bytes} bytes; at most {max_bytes} are read")
    return None


def holds(folder: Path, *names: str) -> bool:
    """Return whether a file or folder of at least one of ``names`` is in ``folder``; False also
    where ``folder`` cannot be read."""
    try:
        return any((folder / name).exists() for name in names)
    except OSError:
        return False


def folder_with(name: str, folders: list[Path]) -> Path:
    """Return the first of ``folders``, one or more, that has a file or folder called ``name``; the
    first of all where none has."""
    return next((folder for folder in folders if holds(folder, name)), folders[0])


def reason_of(error: Exception) -> str:
    """Return why something failed with ``error``, in a few words: what the operating system says
    for an OSError, else the error's message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
