"""What a service manager is told: on a datagram socket of the test's own, and by real servers."""

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.cli.conftest import WAIT_S, Serving, children_of, serving_in
from tests.support.waiting import until

from lipwire.cli.servers.sdnotify import ServiceNotifier
from lipwire.domain import Unavailable

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


class Manager:
    """A service manager's socket. ``told`` is what came until now, in order."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def count(self, message: str) -> int:
        return self.told.count(message)

    def wait_for(self, start: str, times: int = 1) -> None:
        until(
            lambda: sum(message.startswith(start) for message in self.told) >= times,
            timeout_s=WAIT_S,
            seen=lambda: self.told,
        )

    def close(self) -> None:
        """All that was sent before has been read then."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            address = self.address
            last.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            last.send(b"")
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self.told.append(message.decode())


@contextmanager
def managing(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    try:
        yield manager
    finally:
        manager.close()


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with managing(str(tmp_path_factory.mktemp("run") / "notify")) as manager:
        yield manager


@pytest.mark.parametrize(
    "kind",
    [
        "path",
        pytest.param(
            "abstract", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux has them")
        ),
    ],
)
def test_ready_and_stopping_are_told(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    address = f"@lipwire-test-{os.getpid()}"
    if kind == "path":
        address = str(tmp_path_factory.mktemp("run") / "notify")
    with managing(address) as manager:
        environ = {"NOTIFY_SOCKET": address, "HOME": "/root"}
        with ServiceNotifier.take(environ) as notifier:
            assert environ == {"HOME": "/root"}
            assert not notifier.watchdog
            notifier.ready("listening on port 1")
            notifier.watch(lambda timeout_s: True)
            notifier.stopping("finishing")
    assert manager.told == [
        "READY=1\nSTATUS=listening on port 1",
        "STOPPING=1\nSTATUS=finishing",
    ]


@pytest.mark.parametrize(
    ("environ", "watched"),
    [
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "30000000"}, True),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, False),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "0"}, False),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "soon"}, False),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "30000000"}, False),
        ({"WATCHDOG_USEC": "30000000"}, False),
        ({}, False),
    ],
)
def test_signs_of_life_are_wanted_of_this_process_alone(
    environ: dict[str, str], watched: bool
) -> None:
    assert ServiceNotifier.take(environ).watchdog is watched
    assert environ == {}


def test_a_sign_of_life_is_sent_each_time_that_the_server_works(manager: Manager) -> None:
    asked: list[float] = []
    answers: list[bool | Unavailable] = [True, False, Unavailable("no answer"), True]

    def works(timeout_s: float) -> bool:
        asked.append(timeout_s)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        if len(asked) > len(answers):
            ended.wait(WAIT_S)
            return False
        return answer

    ended = threading.Event()
    with ServiceNotifier(manager.address, watchdog_s=0.003) as notifier:
        notifier.watch(works)
        until(lambda: len(asked) > len(answers))
        ended.set()
    manager.wait_for("WATCHDOG=1", 2)
    assert manager.told == ["WATCHDOG=1"] * 2
    assert asked[0] == pytest.approx(0.001)


def test_a_manager_that_cannot_be_told_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = ServiceNotifier(str(tmp_path / "nobody"))
    notifier.ready("")
    notifier.stopping("")
    assert [record.message for record in caplog.records] == [
        "the service manager cannot be told: [Errno 2] No such file or directory"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "inference-server", "compositing-server"])
def test_a_server_tells_when_it_is_ready_that_it_works_and_when_it_stops(
    command: str, serving: Serving, models_root: Path, manager: Manager
) -> None:
    """The compositing server has no inference server, which is no reason to start it anew."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000"}
    options = ["--models-root", models_root, "--host", "127.0.0.1", "--port", 0]
    if command == "serve":
        options += ["--web-port", 0]
    served = serving(command, *options, **environ)
    manager.wait_for("WATCHDOG=1", 3)
    assert re.fullmatch(r"READY=1\nSTATUS=listening on port \d+", manager.told[0])
    assert set(manager.told[1:]) == {"WATCHDOG=1"}
    assert served.end(signal.SIGTERM) == 0
    manager.wait_for("STOPPING=1\nSTATUS=")
    assert sum(message.startswith(("READY", "STOPPING")) for message in manager.told) == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="several processes share a port there alone")
def test_several_processes_have_one_that_tells(
    serving: Serving, models_root: Path, manager: Manager
) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000"}
    options = ["--models-root", models_root, "--host", "127.0.0.1", "--port", 0, "--no-web"]
    served = serving("serve", *options, "--workers", 2, **environ)
    manager.wait_for("WATCHDOG=1", 2)
    assert manager.told[0].startswith("READY=1\nSTATUS=2 processes listening on port")
    for child in children_of(served.process.pid):
        names = Path(f"/proc/{child}/environ").read_text()
        assert "NOTIFY_SOCKET" not in names
        assert "WATCHDOG_USEC" not in names
    assert served.end(signal.SIGTERM) == 0
    manager.wait_for("STOPPING=1\nSTATUS=")
    assert sum(message.startswith("READY") for message in manager.told) == 1


# Health checks of this process are not answered while there is a file "held" in its folder.
HELD = """
import time
from pathlib import Path
from lipwire.cli.main import main
from lipwire.rpc.server.health import HealthServicer

check = HealthServicer.Check

def held(*arguments):
    while Path("held").exists():
        time.sleep(0.01)
    return check(*arguments)

HealthServicer.Check = held
main()
"""


@pytest.mark.slow
def test_a_server_that_does_not_answer_says_nothing(
    tmp_path: Path, models_root: Path, manager: Manager
) -> None:
    with ExitStack() as stack:
        start = serving_in(stack, tmp_path, ("-c", HELD))
        (tmp_path / "held").touch()
        served = start(
            *("inference-server", "--models-root", models_root, "--port", 0),
            NOTIFY_SOCKET=manager.address,
            WATCHDOG_USEC="300000",
        )
        served.wait_for("the server does not answer itself")
        assert manager.count("WATCHDOG=1") == 0
        (tmp_path / "held").unlink()
        manager.wait_for("WATCHDOG=1")
