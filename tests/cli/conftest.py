"""The command line, run inside the test's process; and servers, which need one of their own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer.main
from tests.support.waiting import until

from lipwire.audio import AudioEncoder, decode_audio, extract_windows
from lipwire.avatars import read_package
from lipwire.cli.main import main
from lipwire.cli.stopping import SIGNALS
from lipwire.domain import Float32Array
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest

WAIT_S = 300.0
"""For what takes seconds, unless the machine is busy with something else."""


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str


Lipwire = Callable[..., Outcome]


@pytest.fixture(scope="session", autouse=True)
def commands_made_once() -> Iterator[None]:
    """The tree of commands, which a process of ``lipwire`` makes once, and tests in one process
    would make hundreds of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def lipwire(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lipwire]:
    """``lipwire("render", "anna", ...)`` gives the exit code and what was printed."""
    monkeypatch.setenv("LIPWIRE_DEBUG", "")
    monkeypatch.setenv("COLUMNS", "120")
    # On a busy machine more lines would say how far it is.
    monkeypatch.setattr("lipwire.cli.terminal.LOG_INTERVAL_S", 3600.0)
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments])
        printed = capsys.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Served:
    """A ``lipwire`` process that serves."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    """What it printed until now; all of it once it has ended."""
    reader: threading.Thread | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout_s: float = WAIT_S) -> str:
        """The first group of ``pattern`` as soon as it was printed."""
        until(
            lambda: re.search(pattern, self.text) or self.process.poll() is not None,
            timeout_s=timeout_s,
            seen=lambda: f"no {pattern!r} in:\n{self.text}",
        )
        if self.process.poll() is not None:
            self._read_all()
        found = re.search(pattern, self.text)
        assert found, f"it ended with {self.process.returncode}:\n{self.text}"
        return found[1] if found.groups() else found[0]

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Its exit code, when it has ended and all that it printed is there.

        Where it does not end, what its threads were doing is in the message.
        """
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints every thread's stack
            self.process.wait(WAIT_S)
            self._read_all()
            raise AssertionError(f"it did not end within {timeout_s} s:\n{self.text}") from None
        self._read_all()
        return code

    def _read_all(self) -> None:
        # Processes that it started may still have its output open: then what is there must do.
        if self.reader is not None:
            self.reader.join(5)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(
            self.wait_for(r"(?s)[Cc]ompositing server (?:listening on port|at 127.0.0.1:) ?(\d+)")
        )

    def end(self, number: int = signal.SIGTERM, timeout_s: float = WAIT_S) -> int:
        """Send it a signal, and ``wait``."""
        self.process.send_signal(number)
        return self.wait(timeout_s)


Serving = Callable[..., Served]


def serving_in(
    stack: ExitStack, folder: Path, program: Sequence[str] = ("-m", "lipwire")
) -> Serving:
    """``serving("serve", "--port", 0, ...)`` starts a process in ``folder``; it ends with
    ``stack``. ``program`` is what Python runs."""

    def start(*arguments: object, **environ: str) -> Served:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-u", *program, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
                env={
                    **os.environ,
                    "LIPWIRE_DEBUG": "",
                    "PYTHONFAULTHANDLER": "1",
                    **environ,
                },
            )
        )
        served = Served(process)

        def read() -> None:
            assert process.stdout is not None
            with suppress(ValueError):  # closed, when the test was over first
                for line in process.stdout:
                    served.lines.append(line.rstrip("\n"))

        served.reader = threading.Thread(target=read, daemon=True)
        served.reader.start()
        stack.callback(process.kill)
        return served

    return start


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Servers for one test."""
    with ExitStack() as stack:
        yield serving_in(stack, tmp_path)


# -- what servers serve --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def models_root(compiled_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the avatar ``sanders``."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(compiled_template, root / "sanders")
    return root


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.2 seconds: three batches of 24, the last one shorter."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    noise = np.random.default_rng(5).integers(-9000, 9000, 35_200).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(noise.tobytes())
    return path


@pytest.fixture(scope="session")
def windows(models_root: Path, speech: Path) -> Float32Array:
    encoder = read_package(models_root / "sanders").encoder_path
    assert encoder is not None
    return extract_windows(decode_audio(speech), AudioEncoder.open(encoder))


@pytest.fixture(scope="session")
def one(models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Both servers in one process, for the whole run: nobody changes them."""
    with ExitStack() as stack:
        start = serving_in(stack, tmp_path_factory.mktemp("one"))
        yield start("serve", "--models-root", models_root, "--host", "127.0.0.1", "--port", 0)


@pytest.fixture(scope="session")
def two(models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The servers apart, started by ``lipwire up``, for the whole run."""
    ports = ["--port", 0, "--inference-port", 0]
    patient = {"LIPWIRE_INFERENCE_SERVER__TIMEOUT_SECONDS": "300"}  # the machine may be busy
    with ExitStack() as stack:
        start = serving_in(stack, tmp_path_factory.mktemp("two"))
        yield start("up", "--models-root", models_root, *ports, "--no-test", **patient)


def frames_of(address: str, requests: Iterator[CompositeBatchRequest]) -> list[bytes]:
    with CompositingConnection(address) as connection:
        return [f for r in requests for f in connection.composite(r, WAIT_S).frames]


def children_of(parent: int) -> list[int]:
    """The processes that ``parent`` started and that have not ended."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split()]
