"""Real processes that work on packages made to use up the machine."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.avatars.sandbox.hostilenetworks import (
    allocate_endlessly,
    loop_for_ever,
    run_for_minutes,
)
from tests.support.waiting import Clock, until

from lipwire.avatars import ALWAYS, Avatar, compile_avatar, read_package, validate_package
from lipwire.avatars.compiled.storage import exclusive, writable_home
from lipwire.avatars.sandbox import sandbox as sandbox_module
from lipwire.avatars.sandbox.limits import SandboxLimits
from lipwire.avatars.sandbox.sandbox import Sandbox
from lipwire.domain import AvatarInvalid, LipwireError, NotFound, StorageFailed, Unavailable
from lipwire.domain.callbacks import WAITING

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")

NARROW = Sandbox(SandboxLimits(memory_bytes=1 << 30, time_s=60))


@pytest.fixture
def package(package_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is not compiled yet; temporary folders are made beside it."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return shutil.copytree(package_template, tmp_path / "anna")


def network(package: Path) -> Path:
    return package / "checkpoint" / "model_best.onnx"


def children() -> list[int]:
    """The ids of this process's children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(status.parent.name))
    return found


def check_nothing_is_left(package: Path, before: list[int]) -> None:
    assert set(children()) <= set(before)
    for folder in (package, Path(os.environ["XDG_CACHE_HOME"])):
        assert not list(folder.rglob("*.tmp-*"))
        assert not list(folder.rglob("optimising-*"))
    assert not (package / ".lipwire").exists()
    assert not list((package.parent / "scratch").iterdir())


def refusal(package: Path, sandbox: Sandbox, kind: type[LipwireError] = AvatarInvalid) -> str:
    before = children()
    with pytest.raises(kind) as caught:
        compile_avatar(read_package(package), parts=ALWAYS | {"jpeg"}, sandbox=sandbox)
    check_nothing_is_left(package, before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_a_sound_package_becomes_what_it_becomes_without(
    package: Path, compiled_template: Path
) -> None:
    steps: list[str] = []
    before = children()
    compile_avatar(
        read_package(package),
        parts=ALWAYS | {"jpeg"},
        progress=lambda done, total, what: steps.append(what),
        sandbox=NARROW,
    )
    check_nothing_is_left(package, before)
    assert {"optimising the network", "compiling frames"} <= set(steps)
    with (
        Avatar.open(package, parts=frozenset({"jpeg"})) as made,
        Avatar.open(compiled_template, parts=frozenset({"jpeg"})) as wanted,
    ):
        assert made.revision == wanted.revision
        assert made.jpeg(3, None) == wanted.jpeg(3, None)
        for name in ("weights.bin", "pixels.onnx"):
            made_file, wanted_file = (each.model_path / name for each in (made, wanted))
            assert made_file.read_bytes() == wanted_file.read_bytes()


def test_what_is_compiled_needs_no_process(
    avatar_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: object, **options: object) -> None:
        pytest.fail("a process was started")

    compile_avatar(read_package(avatar_package), parts=ALWAYS | {"jpeg"}, foreign=True)
    monkeypatch.setattr(subprocess, "Popen", started)
    Avatar.open(avatar_package, parts=frozenset({"jpeg"}), sandbox=NARROW).close()


@pytest.mark.slow
def test_a_compiled_form_that_came_with_the_package_is_not_used(avatar_package: Path) -> None:
    """It would be run as it is: nothing in it is checked again."""
    before = files_of(avatar_package)
    compiled = compile_avatar(read_package(avatar_package), sandbox=NARROW)
    assert not compiled.network.is_relative_to(avatar_package)
    assert compiled.patches is not None
    assert compiled.network.is_relative_to(os.environ["XDG_CACHE_HOME"])
    assert files_of(avatar_package) == before
    # Of one's own it is, as ever.
    own = compile_avatar(read_package(avatar_package))
    assert own.network.is_relative_to(avatar_package)


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_network_that_allocates_endlessly(package: Path) -> None:
    allocate_endlessly(network(package))
    assert refusal(package, NARROW) == (
        "anna: compiling it needs more than 1024 MiB of memory, which are allowed"
    )


@pytest.mark.slow
def test_a_network_that_runs_for_minutes(package: Path) -> None:
    run_for_minutes(network(package))
    began_s = time.monotonic()
    hasty = Sandbox(SandboxLimits(memory_bytes=2 << 30, time_s=4))
    assert refusal(package, hasty) == (
        "anna: compiling it takes longer than 4 s, which are allowed"
    )
    assert time.monotonic() - began_s < 30


@pytest.mark.slow
def test_a_network_with_a_loop(package: Path) -> None:
    loop_for_ever(network(package))
    assert refusal(package, NARROW) == (
        "model_best.onnx: operator 'Loop', allowed are networks without loops"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (signal.SIGKILL, Unavailable, "was ended from outside (SIGKILL); try again"),
        (signal.SIGSEGV, AvatarInvalid, "crashed (SIGSEGV); allowed is a sound package"),
        (signal.SIGXCPU, AvatarInvalid, "takes more processor time than 60 s of every core"),
    ],
)
def test_a_child_that_is_killed(
    package: Path, number: int, kind: type[LipwireError], says: str
) -> None:
    before = children()

    def kill(done: int, total: int, what: str) -> None:
        if what == "compiling frames":
            (child,) = set(children()) - set(before)
            os.kill(child, number)

    with pytest.raises(kind) as caught:
        compile_avatar(
            read_package(package), parts=ALWAYS | {"jpeg"}, progress=kill, sandbox=NARROW
        )
    assert str(caught.value).startswith(f"anna: compiling it {says}")
    check_nothing_is_left(package, before)
    # What was complete is kept, and the rest is made when it is asked for again.
    steps: list[str] = []
    compile_avatar(
        read_package(package),
        parts=ALWAYS | {"jpeg"},
        progress=lambda done, total, what: steps.append(what),
        sandbox=NARROW,
    )
    assert "compiling frames" in steps
    assert "optimising the network" not in steps


@pytest.mark.slow
def test_giving_up_ends_the_process(package: Path) -> None:
    before = children()

    def give_up(done: int, total: int, what: str) -> None:
        if what == "compiling frames":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_avatar(
            read_package(package), parts=ALWAYS | {"jpeg"}, progress=give_up, sandbox=NARROW
        )
    check_nothing_is_left(package, before)


STRANDED = """
import sys
from lipwire.avatars import compile_avatar, read_package
from lipwire.avatars.sandbox.sandbox import Sandbox

def step(done, total, what):
    print(what, flush=True)

compile_avatar(read_package(sys.argv[1]), progress=step, sandbox=Sandbox())
"""


@pytest.mark.slow
def test_the_process_ends_with_its_parent(package: Path) -> None:
    run_for_minutes(network(package))
    command = [sys.executable, "-c", STRANDED, str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        while parent.stdout.readline() != "optimising the network\n":
            assert parent.poll() is None
        tasks = Path(f"/proc/{parent.pid}/task").glob("*/children")
        (child,) = (int(word) for task in tasks for word in task.read_text().split())
        parent.kill()

    def ended() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    until(ended)


@pytest.mark.slow
def test_the_process_sees_nothing_of_the_environment(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPWIRE_TOKEN", "lipwire_secret")
    before = children()
    seen: list[bytes] = []

    def look(done: int, total: int, what: str) -> None:
        if (done, what) == (0, "optimising the network"):
            (child,) = set(children()) - set(before)
            seen.append(Path(f"/proc/{child}/environ").read_bytes())

    compile_avatar(read_package(package), progress=look, sandbox=NARROW)
    assert seen
    assert not any(b"lipwire_secret" in environment for environment in seen)


@pytest.mark.slow
def test_errors_are_those_that_there_are_without(package: Path) -> None:
    network(package).write_bytes(b"no network")
    assert refusal(package, NARROW) == refusal_without(package)
    os.truncate(package / "frames" / "frame_0003.png", 100)
    assert refusal(package, NARROW) == refusal_without(package)


def refusal_without(package: Path) -> str:
    with pytest.raises(AvatarInvalid) as caught:
        compile_avatar(read_package(package), parts=ALWAYS | {"jpeg"}, foreign=True)
    return str(caught.value)


@pytest.mark.slow
def test_validating_finds_the_same(package: Path) -> None:
    os.truncate(package / "frames" / "frame_0003.png", 100)
    (package / "checkpoint" / "audio_encoder.onnx").unlink()
    found = validate_package(package, sandbox=NARROW)
    assert len(found) == 2
    assert found == validate_package(package)
    with pytest.raises(NotFound):
        validate_package(package / "nobody", sandbox=NARROW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (allocate_endlessly, "anna: checking it needs more than 1024 MiB of memory"),
        (loop_for_ever, "model_best.onnx: operator 'Loop'"),
    ],
)
def test_validating_what_uses_up_the_machine(
    package: Path, change: Callable[[Path], None], says: str
) -> None:
    change(network(package))
    before = children()
    (problem,) = validate_package(package, sandbox=NARROW)
    assert problem.severity == "error"
    assert problem.message.startswith(says)
    check_nothing_is_left(package, before)


def test_the_current_folder_is_called_by_its_name(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(package)
    monkeypatch.setattr(sys, "executable", "no-python")
    with pytest.raises(Unavailable, match=r"^anna: checking it needs a process"):
        validate_package(Path(), sandbox=NARROW)
    with pytest.raises(Unavailable, match=r"^anna: compiling it needs a process"):
        compile_avatar(read_package(Path()), sandbox=NARROW)


def test_no_process_can_be_started(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(package / "no-python"))
    assert refusal(package, NARROW, Unavailable) == (
        "anna: compiling it needs a process of its own, which cannot be started: No such file or"
        " directory"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('hello')", "ended with what is no answer (6 bytes)"),
        ("import sys; sys.exit(3)", "ended with status 3 and without an answer"),
        ("print('[' * 100_000)", "ended with what is no answer (100001 bytes)"),
        ('print(\'{"said": "progress"}\')', "ended with what is no answer (21 bytes)"),
        ("print('{\"said\": 5}')", "ended with what is no answer (12 bytes)"),
    ],
)
def test_a_process_that_answers_nonsense(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    instead(tmp_path, monkeypatch, program)
    assert refusal(package, NARROW) == f"anna: compiling it {says}"


DEAD = "import os, sys; print({said!r}, file=sys.stderr, flush=True); os.abort()"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("terminate called after throwing 'std::bad_alloc'", "needs more than 1024 MiB of memory"),
        ("x" * 300_000, "crashed (SIGABRT); allowed is a sound package"),
    ],
)
def test_a_crash_for_want_of_memory_is_called_so(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, says: str
) -> None:
    instead(tmp_path, monkeypatch, DEAD.format(said=said))
    assert refusal(package, NARROW).startswith(f"anna: compiling it {says}")


class EndedAtOnce(subprocess.Popen[bytes]):
    """A process that has ended before its parent says anything to it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.wait()


def test_a_process_that_ends_before_it_is_asked_is_told_of(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(tmp_path, monkeypatch, DEAD.format(said="no"))
    monkeypatch.setattr("subprocess.Popen", EndedAtOnce)
    says = "crashed (SIGABRT); allowed is a sound package"
    assert refusal(package, NARROW) == f"anna: compiling it {says}"


STARVED = """
from lipwire.avatars.sandbox import child

def compile_avatar(*arguments, **options):
    raise {error}

child.compile_avatar = compile_avatar
child.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "says"),
    [
        ('RuntimeError("can\'t start new thread")', "needs more than 1024 MiB of memory"),
        ("MemoryError", "needs more than 1024 MiB of memory"),
        ("RuntimeError('another')", "ended with RuntimeError; allowed is a sound package"),
    ],
)
def test_a_thread_that_has_no_memory_is_no_fault(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, says: str
) -> None:
    instead(tmp_path, monkeypatch, STARVED.format(error=error))
    assert refusal(package, NARROW).startswith(f"anna: compiling it {says}")


def instead(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have ``program`` run in the place of the child."""
    (folder / "instead.py").write_text(program)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr(sandbox_module, "_CHILD", "instead")


@pytest.mark.slow
def test_a_process_that_closes_its_output_and_goes_on_is_ended(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(tmp_path, monkeypatch, "import os, threading; os.close(1); threading.Event().wait()")
    hasty = Sandbox(SandboxLimits(memory_bytes=1 << 30, time_s=1))
    assert refusal(package, hasty) == "anna: compiling it takes longer than 1 s, which are allowed"


@pytest.mark.slow
def test_no_code_of_the_current_folder_is_run(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "numpy.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(package)
    compile_avatar(read_package(package), sandbox=NARROW)
    assert not (package / "ran").exists()


@pytest.mark.slow
def test_without_a_home_the_cache_is_that_of_this_process(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies among the temporary files then, of which the process has its own."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    compiled = compile_avatar(read_package(package), sandbox=NARROW)
    caches = tmp_path / "scratch" / f"lipwire-{os.getuid()}"
    assert compiled.network.is_relative_to(caches)
    assert list((tmp_path / "scratch").iterdir()) == [caches]


@pytest.mark.slow
def test_another_process_that_compiles_it_is_waited_for(package: Path) -> None:
    steps: list[str] = []
    with ExitStack() as held:
        held.enter_context(exclusive(writable_home(package, foreign=True), pytest.fail))

        def release(done: int, total: int, what: str) -> None:
            steps.append(what)
            if steps.count(WAITING) == 2:
                held.close()

        compile_avatar(read_package(package), progress=release, sandbox=NARROW)
    assert steps.index(WAITING) < steps.index("optimising the network")


@pytest.mark.slow
def test_another_process_is_not_waited_for_for_ever(package: Path) -> None:
    """Its time is none that the package takes: it is no error of the package."""
    clock = Clock()
    sandbox = Sandbox(SandboxLimits(memory_bytes=1 << 30, time_s=60), clock=clock)
    steps: list[str] = []

    def wait(done: int, total: int, what: str) -> None:
        steps.append(what)
        if what == WAITING:
            clock.now += 25

    with (
        exclusive(writable_home(package, foreign=True), pytest.fail),
        pytest.raises(Unavailable) as caught,
    ):
        compile_avatar(read_package(package), progress=wait, sandbox=sandbox)
    assert str(caught.value) == (
        "anna: compiling it has to wait for another process that does it, for longer than 60 s,"
        " which are allowed; try again"
    )
    assert steps.count(WAITING) == 3


@pytest.mark.slow
def test_a_file_beyond_the_limit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit itself is 16 GiB; the program is told another one.
    program = (
        "from lipwire.avatars.sandbox import child, limits\n"
        "limits.MAX_FILE_BYTES = 500_000\n"
        "child.main()\n"
    )
    instead(package.parent, monkeypatch, program)
    # ONNX Runtime writes the first such file, and says that it cannot in words of its own.
    assert refusal(package, NARROW, StorageFailed).startswith("model_best.onnx: cannot be compiled")
