"""Working on a package of somebody else's in a process of its own, which ends at a deadline.

What a file makes a decoder or ONNX Runtime do (use all memory, never end, crash) happens to that
process. It is the same user's, and reads and writes what that user may: it holds against files that
use up the machine, not against code that a fault in a library lets them run.
"""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lipwire.avatars.checks.problems import Problem
from lipwire.avatars.compiled.storage import exclusive, writable_home
from lipwire.avatars.sandbox.limits import SandboxLimits, thread_counts
from lipwire.avatars.sandbox.messages import (
    ERRORS,
    MAX_LINE_BYTES,
    files_as_json,
    read_message,
    tells_of_no_memory,
)
from lipwire.avatars.sandbox.timelimit import TimeLimit
from lipwire.config.folders import cache_folders
from lipwire.config.links import VARIABLE
from lipwire.domain import (
    AvatarFiles,
    AvatarInvalid,
    CompileProgress,
    LipwireError,
    NotFound,
    StorageFailed,
    Unavailable,
)
from lipwire.domain.callbacks import WAITING
from lipwire.domain.pythonprocess import python_command

_CHILD: Final = "lipwire.avatars.sandbox.child"
_STEP_S: Final = 0.2
_KEPT: Final = frozenset(
    {
        *("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("SYSTEMROOT", "SYSTEMDRIVE", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "PATHEXT"),
        *("ORT_DISABLE_TELEMETRY", VARIABLE),
    }
)
_KEPT_BEGINNINGS: Final = ("PYTHON", "XDG_", "LC_", "OMP_", "COVERAGE_")
"""Of the environment. The rest may hold secrets: tokens, passwords of databases."""

_logger = logging.getLogger("lipwire.avatars")


class Sandbox:
    """Compiles and validates packages of strangers, each in a process of its own, with limits of
    memory and time, so that a package which makes a library crash or take all memory does no harm
    to this process. Thread-safe: each call starts a process, which has ended when the call returns.
    """

    def __init__(
        self,
        limits: SandboxLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``limits`` are those of each process; None for 4 GiB, 10 minutes and 4 cores
        (``SandboxLimits()``). ``clock`` returns seconds, with which a process's time is
        measured."""
        self.limits = limits or SandboxLimits()
        self._clock = clock

    def compile(
        self,
        files: AvatarFiles,
        need: frozenset[str],
        parts: frozenset[str],
        quality: int,
        progress: CompileProgress,
    ) -> None:
        """Compile what is missing of ``parts`` of the avatar whose files are ``files``, and wait
        for it. The result lies in ``files.compiled``, or in the user's caches where that is None;
        a compiled form that came with the package is not used.

        ``parts`` are "model" (the network), "gpu" (the network for GPUs), "patches" and "jpeg" (of
        the frames); "planes" and "pixels" ask for "patches". ``need`` are the halves that have to
        be there, of ``model`` (the network) and ``frames``. ``quality`` is that of JPEG, 1 to 100.
        ``progress(done, total, what)`` is called in this thread meanwhile; what it raises ends the
        process and is passed on.

        Raises NotFound where nothing is there, InvalidInput for unknown parts or another quality,
        StorageFailed where the result cannot be written; AvatarInvalid where the package is broken,
        takes more memory or time than is allowed, or makes the process crash; Unavailable where the
        process cannot be started or is killed by somebody else, or where another process has been
        compiling the avatar for longer than this one may take. Whatever is raised, only complete
        parts are left behind.
        """
        asked: dict[str, Any] = {"work": "compile", "need": sorted(need), "parts": sorted(parts)}
        asked |= {"files": files_as_json(files), "quality": quality}
        asked["caches"] = [str(folder) for folder in cache_folders()]
        label = f"{_folder_name(files.folders[0])}: compiling it"
        try:
            self._ask(asked, label, progress, lambda message: None)
        except BaseException:
            _clean(files)
            raise

    def validate(self, path: Path, progress: CompileProgress) -> list[Problem]:
        """Check the avatar package in the folder ``path`` in a process of its own, wait until that
        has ended, and return all problems, errors and warnings, in the order in which they were
        found; empty where everything is in order. Every frame is decoded, and the network is run,
        so that this may take minutes. Taking more memory or time than is allowed, and a crash, are
        errors in the list.

        ``progress(done, total, what)`` is called in this thread meanwhile: ``done`` of ``total``
        frames are finished in the task ``what``, a text; ``total`` is 0 where it is not known. What
        it raises ends the process, and is passed on unless it is a LipwireError, which becomes an
        error in the list.

        Raises NotFound where nothing is there, Unavailable where the process cannot be started or
        is killed by somebody else.
        """
        problems: list[Problem] = []
        label = f"{_folder_name(path)}: checking it"

        def met(message: dict[str, Any]) -> None:
            text = message["message"]
            if message["severity"] == "warning":
                problems.append(Problem("warning", text))
            elif tells_of_no_memory(text):
                problems.append(Problem("error", str(self._too_much_memory(label))))
            else:
                problems.append(Problem("error", text))

        asked = {"work": "validate", "files": files_as_json(AvatarFiles(folder=path))}
        try:
            self._ask(asked, label, progress, met)
        except (NotFound, Unavailable):
            raise
        except LipwireError as error:
            problems.append(Problem("error", str(error)))
        return problems

    def _ask(
        self,
        asked: dict[str, Any],
        label: str,
        progress: CompileProgress,
        met: Callable[[dict[str, Any]], None],
    ) -> None:
        asked["limits"] = asdict(self.limits)
        with tempfile.TemporaryDirectory(prefix="lipwire-sandbox-") as scratch:
            try:
                process = subprocess.Popen(
                    python_command("-m", _CHILD),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=_environment(scratch, self.limits.cores),
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable(
                    f"{label} needs a process of its own, which cannot be started:"
                    f" {error.strerror or error}"
                ) from None
            said: queue.Queue[bytes | None] = queue.Queue(maxsize=256)
            reader = threading.Thread(
                target=_read, args=(process, said), name="lipwire-sandbox", daemon=True
            )
            reader.start()
            complaints = _Complaints(process)
            try:
                assert process.stdin is not None
                with suppress(OSError):  # it may have ended; how is seen below
                    process.stdin.write(json.dumps(asked).encode() + b"\n")
                    process.stdin.flush()
                self._listen(process, said, complaints, label, progress, met)
            finally:
                _kill(process)
                _drain(said, reader)
                complaints.end()
                for stream in (process.stdin, process.stdout, process.stderr):
                    if stream is not None:
                        with suppress(OSError):  # it writes what is left of the line
                            stream.close()

    def _listen(
        self,
        process: "subprocess.Popen[bytes]",
        said: "queue.Queue[bytes | None]",
        complaints: "_Complaints",
        label: str,
        progress: CompileProgress,
        met: Callable[[dict[str, Any]], None],
    ) -> None:
        """Until it is done. Raises the error that it ends with."""
        limit = TimeLimit(self.limits.time_s, self._clock)
        step = (0, 0, "starting a process for it")
        while True:
            left_s = limit.left_s
            if not left_s:
                raise self._too_long(label, waiting=limit.waiting)
            try:
                line = said.get(timeout=min(_STEP_S, left_s))
            except queue.Empty:
                progress(*step)  # may raise to give up
                continue
            if line is None:
                raise self._ended(process, complaints, limit, label)
            message = read_message(line, label)
            match message["said"]:
                case "done":
                    return
                case "waiting":
                    limit.waits()
                    step = 0, 0, WAITING
                    progress(*step)
                case "progress":
                    limit.works()
                    done, total, what = message["step"]
                    step = done, total, what[:200]
                    progress(*step)
                case "problem":
                    met(message)
                case "memory":
                    raise self._too_much_memory(label)
                case "error":
                    raise self._error(message, label)
                case _:
                    if tells_of_no_memory(message["reason"]):
                        raise self._too_much_memory(label)
                    _logger.error("%s ended with a fault: %s", label, message["message"])
                    raise AvatarInvalid(
                        f"{label} ended with {message['kind'][:60]}; allowed is a sound package"
                    )

    def _error(self, message: dict[str, Any], label: str) -> LipwireError:
        text = message["message"]
        if tells_of_no_memory(text):
            return self._too_much_memory(label)
        return ERRORS.get(message["kind"], AvatarInvalid)(text)

    def _too_long(self, label: str, *, waiting: bool) -> LipwireError:
        if waiting:
            return Unavailable(
                f"{label} has to wait for another process that does it, for longer than"
                f" {self.limits.time_s:g} s, which are allowed; try again"
            )
        return AvatarInvalid(
            f"{label} takes longer than {self.limits.time_s:g} s, which are allowed"
        )

    def _too_much_memory(self, label: str) -> LipwireError:
        allowed_mb = self.limits.memory_bytes >> 20
        return AvatarInvalid(
            f"{label} needs more than {allowed_mb} MiB of memory, which are allowed"
        )

    def _ended(
        self,
        process: "subprocess.Popen[bytes]",
        complaints: "_Complaints",
        limit: TimeLimit,
        label: str,
    ) -> LipwireError:
        """The error for a process that ended without an answer, or that cannot give one."""
        try:
            status = process.wait(limit.left_s)
        except subprocess.TimeoutExpired:
            return self._too_long(label, waiting=limit.waiting)
        if status >= 0:
            return AvatarInvalid(f"{label} ended with status {status} and without an answer")
        number = -status
        if number == getattr(signal, "SIGXCPU", None):
            return AvatarInvalid(
                f"{label} takes more processor time than {self.limits.time_s:g} s of every core,"
                " which are allowed"
            )
        known = {each.value: each.name for each in signal.Signals}
        name = known.get(number, f"signal {number}")
        if name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"):
            # The system kills so where its memory is full, which others may have filled.
            return Unavailable(f"{label} was ended from outside ({name}); try again")
        _kill(process)  # and what it started, which would keep its standard error open
        if tells_of_no_memory(complaints.end()):
            return self._too_much_memory(label)
        return AvatarInvalid(f"{label} crashed ({name}); allowed is a sound package")


def _folder_name(folder: Path) -> str:
    """The name of ``folder``, by which messages call the avatar in it; also of "."."""
    return Path(os.path.realpath(folder)).name


def _environment(scratch: str, cores: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in _KEPT or name.upper().startswith(_KEPT_BEGINNINGS)
    }
    # Arenas of memory are reserved for each thread, and would count as used.
    kept |= {"TMPDIR": scratch, "TEMP": scratch, "TMP": scratch, "MALLOC_ARENA_MAX": "2"}
    return kept | thread_counts(kept, cores)


class _Complaints:
    """The end of what a process writes to its standard error. A thread reads all of it: the process
    would stop at a pipe that is full."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._pieces: deque[bytes] = deque(maxlen=4)
        self._thread = threading.Thread(
            target=self._read, args=(process,), name="lipwire-sandbox-stderr", daemon=True
        )
        self._thread.start()

    def end(self) -> str:
        """Wait until the process has ended, and return up to 16 kB of the last that it wrote."""
        self._thread.join()
        return b"".join(self._pieces).decode("utf-8", "replace")

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stderr is not None
        while piece := os.read(process.stderr.fileno(), 4096):
            self._pieces.append(piece)


def _read(process: "subprocess.Popen[bytes]", said: "queue.Queue[bytes | None]") -> None:
    assert process.stdout is not None
    while line := process.stdout.readline(MAX_LINE_BYTES):
        said.put(line)
    said.put(None)


def _drain(said: "queue.Queue[bytes | None]", reader: threading.Thread) -> None:
    """Take what the reader has, which then ends."""
    while reader.is_alive():
        try:
            said.get(timeout=0.01)
        except queue.Empty:
            continue
    reader.join()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and what it started, and wait for its end."""
    if sys.platform == "win32":
        process.kill()
    else:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
    process.wait()


def _clean(files: AvatarFiles) -> None:
    """Remove what the process had not finished: whoever has the lock does that."""
    try:
        root, *others = files.folders
        first, own = Path(os.path.realpath(root)), files.compiled
        home = writable_home(first, files.key, foreign=True, others=others, own=own)
        with exclusive(home, _give_up):
            pass
    except (NotFound, StorageFailed, _LockedError):
        pass  # who has the lock has removed it


class _LockedError(Exception):
    """Another process has the lock."""


def _give_up() -> None:
    raise _LockedError
