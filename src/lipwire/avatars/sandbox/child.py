"""The process in the sandbox: compiles or validates one package, within limits.

    python -m lipwire.avatars.sandbox.child

reads what to do, a line of JSON, from stdin, and says on stdout how it goes (``messages``). It ends
when stdin ends, so that none outlives its parent.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

from lipwire.avatars.checks.validation import validate_package
from lipwire.avatars.compiled.compiling import compile_avatar
from lipwire.avatars.package import read_package
from lipwire.avatars.sandbox.limits import SandboxLimits, confine
from lipwire.avatars.sandbox.messages import files_of_json
from lipwire.config.folders import use_cache_folders
from lipwire.domain import LipwireError
from lipwire.domain.callbacks import WAITING


def main() -> None:
    """Do the work of the process that a ``Sandbox`` starts; it is not to be called elsewhere. Read
    from stdin what is to be compiled or validated, a line of JSON, set the limits of this process,
    do it, and write progress and results to stdout, a line of JSON each, in the forms of the module
    ``sandbox.messages``. Ends the process, also when stdin is closed, and so never returns."""
    # Libraries write to stdout by themselves; what is said has a stream that they do not know.
    saying = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    confine(SandboxLimits(**asked["limits"]))
    try:
        _work(asked, saying)
    except MemoryError:
        _say(saying, said="memory")
    except LipwireError as error:
        _say(saying, said="error", kind=type(error).__name__, message=str(error))
    except Exception as error:
        told = "".join(traceback.format_exception(error))[-20_000:]
        _say(
            saying,
            said="fault",
            kind=type(error).__name__,
            reason=str(error)[:20_000],
            message=told,
        )
    else:
        _say(saying, said="done")
    saying.close()
    # Threads of a network that does not end would be waited for.
    os._exit(0)


def _work(asked: dict[str, Any], saying: IO[str]) -> None:
    def progress(done: int, total: int, what: str) -> None:
        if what == WAITING:
            _say(saying, said="waiting")
        else:
            _say(saying, said="progress", step=[done, total, what])

    files = files_of_json(asked["files"])
    if asked["work"] == "validate":
        assert files.folder is not None
        for problem in validate_package(files.folder, progress=progress):
            _say(saying, said="problem", severity=problem.severity, message=problem.message)
        return
    # By itself this process would look for them in its own folder for temporary files.
    use_cache_folders(tuple(Path(folder) for folder in asked["caches"]))
    package = read_package(files, frozenset(asked["need"]))
    parts = frozenset(asked["parts"])
    compile_avatar(package, parts=parts, quality=asked["quality"], progress=progress, foreign=True)


def _say(saying: IO[str], **message: Any) -> None:
    saying.write(json.dumps(message) + "\n")
    saying.flush()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
