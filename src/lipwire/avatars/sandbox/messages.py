"""What the process in the sandbox is told and says: a line of JSON for each message.

asked     {"work": "compile" | "validate", "limits": {...}, "caches": [...], "files": {...},
           "need": [...], "parts": [...], "quality": 75}
progress  {"said": "progress", "step": [done, total, what]}
waiting   {"said": "waiting"}, now and then while another process compiles the same avatar
problem   {"said": "problem", "severity": "error", "message": "..."}
an error  {"said": "error", "kind": "AvatarInvalid", "message": "..."}
no room   {"said": "memory"}
a fault   {"said": "fault", "kind": "TypeError", "reason": "...", "message": "...traceback"}
the end   {"said": "done"}
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from lipwire.domain import (
    AvatarFiles,
    AvatarInvalid,
    DependencyMissing,
    InvalidInput,
    LipwireError,
    NotFound,
    StorageFailed,
)

MAX_LINE_BYTES: Final = 1024 * 1024
"""Of one message. A longer one is none of the child's."""
ERRORS: Final[Mapping[str, type[LipwireError]]] = {
    kind.__name__: kind
    for kind in (AvatarInvalid, DependencyMissing, InvalidInput, NotFound, StorageFailed)
}
"""Errors that are raised in the parent as they are in the child."""
_NO_MEMORY: Final = re.compile(
    r"MemoryError|bad.?alloc|AllocateRaw|failed to allocate|cannot allocate|insufficient memory"
    r"|out of memory|can't start new thread|pthread_create|PosixThread::PosixThread"
    r"|resource temporarily unavailable",
    re.IGNORECASE,
)
"""How libraries say that there is none, also for a thread, whose stack takes some. ONNX Runtime
begins with the name of the function (PosixThread), and what it says may be cut behind that."""


def tells_of_no_memory(text: str) -> bool:
    """Return whether ``text``, the message of a library's error, says that there is no memory
    left."""
    return _NO_MEMORY.search(text) is not None


def read_message(line: bytes, label: str) -> dict[str, Any]:
    """Return the message in ``line``, a line from the sandbox's process: a JSON object whose "said"
    is "progress", "waiting", "problem", "error", "memory", "fault" or "done", with what belongs to
    that. A harmful package may have made the process write anything: where the line is no such
    object, AvatarInvalid is raised, with a message that begins with ``label``."""
    try:
        message: dict[str, Any] = json.loads(line)
        match message["said"]:
            case "progress":
                done, total, what = message["step"]
                sound = all(isinstance(count, int) for count in (done, total))
                sound = sound and isinstance(what, str)
            case "problem":
                sound = _texts(message, "severity", "message")
            case "error":
                sound = _texts(message, "kind", "message")
            case "fault":
                sound = _texts(message, "kind", "reason", "message")
            case said:
                sound = said in ("done", "memory", "waiting")
        if sound:
            return message
    except (LookupError, RecursionError, TypeError, ValueError):
        pass
    raise AvatarInvalid(f"{label} ended with what is no answer ({len(line)} bytes)")


def _texts(message: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(message[name], str) for name in names)


def files_as_json(files: AvatarFiles) -> dict[str, str]:
    """Return the paths that ``files`` names as texts, by the names of the fields of AvatarFiles,
    for a message in JSON; what is None is left out."""
    return {name: str(path) for name, path in asdict(files).items() if path is not None}


def files_of_json(named: Mapping[str, Any]) -> AvatarFiles:
    """Return the AvatarFiles of which ``files_as_json`` made ``named``, paths by the names of
    fields; names that AvatarFiles does not have are left out."""
    known = {field.name for field in fields(AvatarFiles)}
    return AvatarFiles(**{name: Path(path) for name, path in named.items() if name in known})
