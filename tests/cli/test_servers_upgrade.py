"""Servers of an earlier version and of this one side by side, as in a rolling restart: real
processes of both, and every frame is compared.

The earlier version is a commit of the project's history, which has to be there."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import WAIT_S, Served, Serving, serving_in
from tests.support.ownports import own_port
from tests.support.spoken import spoken
from tests.support.waiting import until

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.requests import requests_of_audio
from lipwire.session.live import GoingAway, SessionSettings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EARLIER = "4c5a45128302fdb7ec72d6f9827a669fa618d8ac"
"""Before servers told numbers, and before the compiled form of frames changed."""
SPEECH = np.random.default_rng(4).integers(-9000, 9000, 16_000).astype(np.int16)
FRAMES = 25
"""Of SPEECH."""
EXACT = SessionSettings(gate=False, crossfade_frames=0, paced=False)
ORDERS = ["inference servers first", "compositing server first"]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which Python imports the earlier version."""
    folder = tmp_path_factory.mktemp("earlier")
    try:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", EARLIER, "src"], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"commit {EARLIER[:7]} is not in the history that is here")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    # What the tests set for servers it does not know; an empty variable counts as not set.
    environment = {"PYTHONPATH": str(folder / "src"), "LIPWIRE_ONNX__PRECISION": ""}
    code = "import lipwire; print(lipwire.__file__)"
    imported = run_python(environment, "-c", code).stdout.strip()
    assert imported == str(folder / "src" / "lipwire" / "__init__.py")
    return environment


def run_python(environment: dict[str, str], *arguments: object) -> Any:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory, make_package: Any) -> Path:
    """A folder with the avatar ``a``, which nobody has compiled."""
    root = tmp_path_factory.mktemp("models")
    make_package(root / "a")
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with ExitStack() as stack:
        yield serving_in(stack, tmp_path_factory.mktemp("servers"))


@dataclass
class Servers:
    """Starts servers of either version; ``versions`` has each one's environment."""

    start: Serving
    avatars: Path
    versions: dict[str, dict[str, str]]
    folder: Path
    started: list[Served] = field(default_factory=list)
    at: dict[int, Served] = field(default_factory=dict)
    """The inference server at each port."""

    def inference(self, version: str, port: int | None = None) -> int:
        """Start an inference server, at ``port`` or one of its own, and return its port when it
        listens."""
        port = port or own_port()
        at = ["--models-root", self.avatars, "--port", port]
        self.at[port] = self._started("inference-server", *at, version=version)
        self.at[port].wait_for(rf"Inference server listening on port :?{port}\b")
        return port

    def compositing(self, version: str, *ports: int) -> Served:
        """Start a compositing server over the inference servers at ``ports``."""
        config = self.folder / f"{'-'.join(map(str, ports))}.yaml"
        urls = ", ".join(f"'127.0.0.1:{port}'" for port in ports)
        config.write_text(f"inference_server: {{url: [{urls}], timeout_seconds: 120}}\n")
        at = ["-c", config, "--models-root", self.avatars, "--port", 0]
        served = self._started("compositing-server", *at, version=version)
        assert served.port
        return served

    def close(self) -> None:
        for served in self.started:
            if served.process.poll() is None:
                served.process.kill()

    def _started(self, *arguments: object, version: str) -> Served:
        self.started.append(self.start(*arguments, **self.versions[version]))
        return self.started[-1]


@pytest.fixture
def servers(
    start: Serving, avatars: Path, earlier: dict[str, str], tmp_path: Path
) -> Iterator[Servers]:
    now = {"PYTHONPATH": str(ROOT / "src")}
    servers = Servers(start, avatars, {"earlier": earlier, "now": now}, tmp_path)
    yield servers
    servers.close()


def in_both_forms(address: str, start_frame: int = 0) -> list[bytes]:
    """Frames of SPEECH, and of pictures in the guide's form with audio windows."""
    pcm = SPEECH.astype(np.float32) / np.float32(32768)
    random = np.random.default_rng(2)
    guides = CompositeBatchRequest(
        model_id="a",
        visual_frames=random.random((3, 6, 320, 320), np.float32).tobytes(),
        audio_features=random.normal(0, 1, (3, 32, 16, 16)).astype("<f4").tobytes(),
        batch_size=3,
        start_frame_idx=start_frame,
    )
    with CompositingConnection(address) as connection:
        return [
            frame
            for request in (*requests_of_audio("a", pcm, 24, start_frame), guides)
            for frame in connection.composite(request, WAIT_S).frames
        ]


def spoken_at(address: str) -> list[bytes]:
    with AvatarConnection(address) as client, client.converse("a", EXACT) as session:
        return spoken(session, SPEECH)


def test_old_and_new_servers_make_the_same_frames(servers: Servers) -> None:
    ports = {version: servers.inference(version) for version in ("earlier", "now")}
    wanted: list[bytes] = []
    for compositing in ("earlier", "now"):
        for inference in ("earlier", "now"):
            served = servers.compositing(compositing, ports[inference])
            frames = in_both_forms(served.address)
            assert len(set(frames)) == FRAMES + 3
            wanted = wanted or frames
            assert frames == wanted, f"{compositing} over {inference}"
            assert spoken_at(served.address) == wanted[:FRAMES], f"{compositing} over {inference}"
            assert served.end() == 0


def test_clients_of_the_earlier_version_are_served(servers: Servers, speech: Path) -> None:
    served = servers.compositing("now", servers.inference("now"))
    saved = {}
    for version, environment in servers.versions.items():
        folder = servers.folder / version
        at = ["--address", served.address, "--save", folder]
        run_python(environment, "-m", "lipwire", "client", "a", speech, *at)
        saved[version] = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert len(saved["now"]) == 55
    assert saved["earlier"] == saved["now"]


class Client:
    """Asks for the same frames all the while, and compares them."""

    def __init__(self, address: str, wanted: list[bytes]) -> None:
        self.address, self._wanted = address, wanted
        self.done = 0
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if in_both_forms(self.address) != self._wanted:
                    self.errors.append("another picture than before")
            except Exception as error:
                self.errors.append(repr(error))
            self.done += 1
            self._stop.wait(0.1)  # servers start meanwhile

    def go_on(self) -> None:
        """Until two more were answered, the second of which was asked for by now."""
        target = self.done + 2
        until(lambda: self.done >= target, timeout_s=WAIT_S, seen=lambda: self.errors)
        assert self.errors == []

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("order", ORDERS)
def test_a_rolling_restart_costs_nobody_an_error_or_a_frame(servers: Servers, order: str) -> None:
    ports = [servers.inference("earlier"), servers.inference("earlier")]
    old = new = servers.compositing("earlier", *ports)
    wanted = [in_both_forms(old.address, FRAMES * times) for times in range(4)]
    said = iter(wanted)
    with ExitStack() as stack:
        client = Client(old.address, wanted[0])
        stack.callback(client.close)
        session = stack.enter_context(
            stack.enter_context(AvatarConnection(old.address)).converse("a", EXACT)
        )
        assert spoken(session, SPEECH) == next(said)[:FRAMES]

        def renew_inference() -> None:
            for port in ports:
                assert servers.at[port].end() == 0
                client.go_on()
                servers.inference("now", port)
                new.wait_for(rf"127.0.0.1:{port} is back")
                client.go_on()
                if order == ORDERS[0]:
                    assert spoken(session, SPEECH) == next(said)[:FRAMES]

        if order == ORDERS[0]:
            renew_inference()
        new = servers.compositing("now", *ports)
        client.address = new.address
        client.go_on()
        old.process.send_signal(signal.SIGTERM)
        assert any(isinstance(received, GoingAway) for received in session)
        session.close()
        assert old.wait() == 0
        assert spoken_at(new.address) == wanted[0][:FRAMES]
        if order == ORDERS[1]:
            renew_inference()
            assert spoken_at(new.address) == wanted[0][:FRAMES]
        client.go_on()


def test_what_the_earlier_version_compiled_is_left_and_compiled_anew(
    servers: Servers, tmp_path: Path, make_package: Any
) -> None:
    servers.avatars = tmp_path / "apart"
    package = make_package(servers.avatars / "a")

    def parts() -> set[str]:
        return {path.name for path in (package / ".lipwire").glob("*-*-*")}

    old = servers.compositing("earlier", servers.inference("earlier"))
    wanted = in_both_forms(old.address)
    before = parts()
    new = servers.compositing("now", servers.inference("now"))
    assert in_both_forms(new.address) == wanted
    both = parts()
    assert before < both, "the earlier version's are there still"
    made = {name.split("-")[0] for name in both - before}
    assert made == {"model", "patches", "jpeg"}
    assert in_both_forms(old.address) == wanted
    again = servers.compositing("earlier", servers.inference("earlier"))
    assert in_both_forms(again.address) == wanted
    assert parts() == both, "going back compiles nothing"


@pytest.mark.parametrize("kind", ["inference", "compositing"])
def test_files_of_the_earlier_version_are_read(
    kind: str, earlier: dict[str, str], tmp_path: Path
) -> None:
    """With every key that there was, each at its default."""
    schema = ["-m", "lipwire", "config", "schema", "--kind", kind, "--yaml"]
    file = tmp_path / "config.yaml"
    file.write_text(run_python(earlier, *schema).stdout)
    assert file.read_text().count(":") > 20
    config: Any = (load_inference_config if kind == "inference" else load_compositing_config)(
        file, {}
    )
    assert config.server.max_message_size_mb == 100
