"""Inference servers and a compositing server over them, as processes that may be killed."""

import json
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lipwire.domain.pythonprocess import python_command

_START_S: Final = 120.0
_END_S: Final = 60.0
_PATIENT_S: Final = 60.0
"""How long the compositing server waits for mouths: a busy machine is no error."""
_GRACE_S: Final = 2.0
"""How long live sessions outlast clients that vanish."""
_TRIES: Final = 5
_BETWEEN_S: Final = 1.0
_GIVE_BACK: Final = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576"}
"""glibc keeps much of what is freed, a few hundred megabytes after a while of large messages. With
these it gives them back to the system at once, so that what is never freed shows."""


class Process:
    """``lipwire ARGUMENTS`` as a process with its log in a file. After its end it can be started
    again on the same port; each start begins another life, with a log of its own. ``unclean`` has a
    line for each end that was not as it should be, such as a crash.

    Methods may be called from any thread, but only one thread at a time may start and end the
    process.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        arguments: list[str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        within: Sequence[str] = (),
        **environ: str,
    ) -> None:
        """``name`` is what messages call the process, ``folder`` is where its logs are written,
        ``arguments`` are those of the command line, and ``environ`` are additional environment
        variables. The process listens at ``host`` and ``port``; with port 0 the first start chooses
        a free one, which later starts use again. ``within`` is a command, such as nsenter with its
        arguments, to which the command line is appended; it has to replace itself with that
        program, not start a child."""
        self.name: Final = name
        self.host: Final = host
        self.port = port
        self.life = 0
        """How many times it was started."""
        self.unclean: list[str] = []
        """Ends that should have been another."""
        self._folder = folder
        self._within = within
        self._arguments = arguments
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The operating system's process id; None while the process does not run."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Start the process, and wait until it listens. Call it only where the process does not
        run. Raises RuntimeError where it does not listen in time."""
        self.life += 1
        ready, telling = os.pipe()
        try:
            with self._log().open("wb") as log, self._words().open("wb") as words:
                self._process = subprocess.Popen(
                    [
                        *self._within,
                        *python_command(
                            *("-m", "lipwire", *self._arguments),
                            *("--host", self.host, "--port", str(self.port)),
                            *("--json-logs", "--ready-fd", str(telling)),
                        ),
                    ],
                    stdin=subprocess.PIPE,  # it drains when this process dies
                    stdout=log,
                    stderr=words,
                    pass_fds=(telling,),
                    env={**os.environ, "PYTHONFAULTHANDLER": "1", **_GIVE_BACK, **self._environ},
                )
            os.close(telling)
            telling = -1
            said = os.read(ready, 64) if select.select([ready], [], [], _START_S)[0] else b""
        finally:
            os.close(ready)
            if telling >= 0:
                os.close(telling)
        if not said:
            raise RuntimeError(f"{self.name} did not start: {self._last_words()}")
        self.port = int(said)

    def start_again(self) -> None:
        """Start the process after its end, and wait until it listens. Tries a few times, with a
        pause in between, because its port may have been given to another program's connection
        meanwhile. Raises RuntimeError where the last attempt fails."""
        for left in range(_TRIES - 1, -1, -1):
            try:
                return self.start()
            except RuntimeError:
                if not left:
                    raise
                self.close()
                time.sleep(_BETWEEN_S)

    def kill(self) -> None:
        """Kill the process with SIGKILL, and wait for its end. Does nothing where it was not
        started. Where it has ended by itself before, ``unclean`` gets a line about its exit code.
        """
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def drain(self) -> None:
        """End the process with SIGTERM, which lets requests under way finish, and wait for its end.
        Does nothing where it was not started. ``unclean`` gets a line where the exit code is not 0,
        or where the process does not end in time; in the latter case it is ended with SIGABRT."""
        self._end(signal.SIGTERM, 0)

    def pause(self, seconds: float) -> None:
        """Stop the process with SIGSTOP, wait ``seconds``, and let it continue: meanwhile its
        connections stay open, and nothing is answered. Where the process was not started, this only
        waits."""
        self.stop()
        time.sleep(seconds)
        self.go_on()

    def stop(self) -> None:
        """Stop the process with SIGSTOP, until ``go_on``. Does nothing where it was not started."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process continue after ``stop``, with SIGCONT. Does nothing where the process was
        not started."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def troubles(self) -> list[str]:
        """Return a line for each error in the logs of all its lives, for each crash in their
        standard error, and for each end that was not as it should be (``unclean``). Empty where all
        was well."""
        found = list(self.unclean)
        for life in range(1, self.life + 1):
            where = f"{self.name}, life {life}"
            for line in self._log(life).read_text(errors="replace").splitlines():
                with suppress(ValueError):
                    entry = json.loads(line)
                    if entry["level"] == "error":
                        found.append(f"{where}: {entry['message']} {entry.get('error', '')}")
            words = self._words(life).read_text(errors="replace")
            if "Traceback" in words or "Fatal" in words:
                found.append(f"{where}: {words[-1000:]}")
        return found

    def close(self) -> None:
        """Kill the process if it runs, and wait for its end. This adds nothing to ``unclean``."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.communicate()

    def _end(self, number: signal.Signals, wanted: int) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        try:
            code = process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler writes every thread's stack
            process.wait()
            code = None
        finally:
            if process.stdin is not None:
                process.stdin.close()
        if code is None:
            self.unclean.append(f"{self.name} did not end within {_END_S:.0f} s")
        elif code != wanted:
            self.unclean.append(f"{self.name} ended with {code}, wanted was {wanted}")
        self._process = None

    def _log(self, life: int | None = None) -> Path:
        return self._folder / f"{self.name}-{life or self.life}.log"

    def _words(self, life: int | None = None) -> Path:
        return self._folder / f"{self.name}-{life or self.life}.err"

    def _last_words(self) -> str:
        return (self._log().read_text() + self._words().read_text())[-500:]


class Farm:
    """A compositing server and the inference servers that it asks, all processes. A context
    manager: they run and listen during the ``with`` block, and are killed at its end, unless
    ``end`` has ended them.

    ``inference`` are the inference servers, ``compositing`` is the compositing server. Do not kill
    the first inference server: clients are promised an answer as long as one runs, and its memory
    is watched from the beginning to the end.
    """

    def __init__(self, models_root: Path, folder: Path, *, inference: int, most: int) -> None:
        """The servers serve the avatars in the folder ``models_root`` and write their logs into
        ``folder``/logs, which is made. ``inference`` is the number of inference servers; each
        server keeps at most ``most`` avatars open."""
        logs = folder / "logs"
        logs.mkdir()
        root = ["--models-root", str(models_root)]
        self.inference: Final = [
            Process(
                f"inference-{number}",
                logs,
                ["inference-server", *root],
                LIPWIRE_CAPACITY__MAX_MODELS_PER_GPU=str(most),
                LIPWIRE_ONNX__PRECISION="float32",  # each frame has one right answer
            )
            for number in range(inference)
        ]
        self._most = most
        self._folder = folder
        self._root = root
        self._logs = logs
        self._stack = ExitStack()
        self.compositing: Process

    @property
    def processes(self) -> list[Process]:
        """All server processes; the compositing server is the last. Only once the ``with`` block
        has begun."""
        return [*self.inference, self.compositing]

    def living(self, chance: random.Random) -> Process | None:
        """Return one of the inference servers whose process exists at this moment, drawn with
        ``chance``; a paused one counts. None where there is none."""
        there = [process for process in self.inference if process.pid is not None]
        return chance.choice(there) if there else None

    def end(self) -> None:
        """Drain all servers (``Process.drain``), the compositing server first, and wait for their
        ends. ``Process.troubles`` tells of exit codes other than 0."""
        for process in reversed(self.processes):
            process.drain()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for process in self.inference:
                stack.callback(process.close)
                process.start()
            config = self._folder / "compositing.yaml"
            urls = ", ".join(f'"127.0.0.1:{process.port}"' for process in self.inference)
            config.write_text(
                f"inference_server: {{url: [{urls}], timeout_seconds: {_PATIENT_S:.0f}}}\n"
                f"capacity: {{max_models: {self._most}}}\n"
                "logging: {log_compositing_times: false}\n"
                f"live: {{reconnect_grace: {_GRACE_S:g}, drain_timeout: 0}}\n"
            )
            self.compositing = Process(
                "compositing", self._logs, ["compositing-server", "-c", str(config), *self._root]
            )
            stack.callback(self.compositing.close)
            self.compositing.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
