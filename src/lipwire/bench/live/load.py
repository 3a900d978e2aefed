"""What else servers do while a live session is measured: clients that ask for batches.

They are a process of their own, which asks until its standard input is closed.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from lipwire.domain import AUDIO_WINDOW_SHAPE, Call, LipwireError, Overloaded
from lipwire.domain.pythonprocess import python_command
from lipwire.rpc.backends import RemoteBackend

FRAMES: Final = 24
_TIMEOUT_S: Final = 120.0
_PAUSE_S: Final = 1.0
"""After a refusal, where the server does not ask for more."""
_MAIN: Final = f"from {__name__} import main; main()"


@contextmanager
def asking(address: str, model_id: str, *, clients: int, tenant: str) -> Iterator[None]:
    """Put an inference server under load during the ``with`` block. A context manager. A process
    with ``clients`` threads asks the server at ``address`` (HOST:PORT) for 24 mouths of the avatar
    ``model_id`` again and again, for ``tenant`` (empty: none). The block begins when the first
    request was answered, and the process is killed at its end. Raises RuntimeError where no request
    is answered."""
    command = python_command("-c", _MAIN, address, model_id, str(clients), tenant)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None  # as asked for
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError("the clients that ask for batches did not begin")
            yield
        finally:
            process.kill()


def ask(address: str, model_id: str, clients: int, tenant: str, stop: threading.Event) -> None:
    """Ask the inference server at ``address`` (HOST:PORT) for 24 mouths of the avatar ``model_id``
    again and again, in ``clients`` threads and for ``tenant`` (empty: none); return when ``stop``
    is set. After an error a thread pauses and asks again. Prints ``asking`` when the first answer
    has arrived; prints nothing where none arrives within two minutes."""
    windows = np.zeros((FRAMES, *AUDIO_WINDOW_SHAPE), np.float32)
    began = threading.Event()

    def again(backend: RemoteBackend) -> None:
        while not stop.is_set():
            call = Call(_TIMEOUT_S, tenant=tenant)
            try:
                backend.mouths(model_id, 0, windows, call=call)
                began.set()
            except LipwireError as error:
                wanted_s = error.retry_after_s if isinstance(error, Overloaded) else None
                stop.wait(max(_PAUSE_S, wanted_s or 0.0))
            finally:
                call.end()

    with RemoteBackend([address], timeout_s=_TIMEOUT_S, max_retries=0) as backend:
        threads = [
            threading.Thread(target=again, args=(backend,), daemon=True) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        if began.wait(_TIMEOUT_S):
            print("asking", flush=True)
        stop.wait()


def main() -> None:
    """Call ``ask`` with the process's arguments, ADDRESS AVATAR CLIENTS TENANT, until its standard
    input is closed."""
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    address, model_id, clients, tenant = sys.argv[1:]
    ask(address, model_id, int(clients), tenant, stop)
