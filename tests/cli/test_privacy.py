"""Nothing is looked up, connected to or written that nobody asked for: every command, with an empty
home and a watch on the network (``networkwatch/watch.cpp``).
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import typer.main
from tests.support.bfloat16 import needs_bfloat16
from tests.support.waiting import until

from lipwire.avatars.store.pushing import publish, push, versions
from lipwire.cli.app import app
from lipwire.security import KeyFile
from lipwire.stores.objects import ObjectStore

WATCH = Path(__file__).with_name("networkwatch") / "watch.cpp"
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTPS_PROXY")
TELEMETRY = "name mobile.events.data.microsoft.com"
WAIT_S = 300.0
"""For what takes seconds, unless the machine is busy with something else."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the watch is for Linux")


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that watches."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    library = tmp_path_factory.mktemp("watch") / "watch.so"
    options = ["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, "-o", library, WATCH, "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Home:
    """An empty home folder, and what the processes that have it do on the network."""

    watch: Path
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def seen(self) -> list[str]:
        """Lines of the watch, but for those about processes."""
        return [line for line in self._lines() if not line.startswith("process ")]

    @property
    def processes(self) -> int:
        """How many have been watched."""
        return len(self._lines()) - len(self.seen)

    @property
    def written(self) -> list[str]:
        """What there is in the home folder."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))

    def start(self, *arguments: object, **environ: str) -> "subprocess.Popen[str]":
        """``python ARGUMENTS``, with proxies that nobody may ask, and nothing of this process's
        environment but the path: neither what CI sets nor any folder."""
        self.home.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "LD_PRELOAD": str(self.watch),
                "NETWORK_WATCH": str(self.folder / "seen.txt"),
                **dict.fromkeys(PROXIES, "http://proxy.invalid:3128"),
                **environ,
            },
        )

    def _lines(self) -> list[str]:
        seen = self.folder / "seen.txt"
        return seen.read_text().splitlines() if seen.exists() else []


NewHome = Callable[[], Home]


@pytest.fixture(scope="module")
def new_home(watch: Path, tmp_path_factory: pytest.TempPathFactory) -> NewHome:
    return lambda: Home(watch, tmp_path_factory.mktemp("someone"))


@pytest.fixture(scope="module")
def place(
    package_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """``place("speech.wav")``: what commands are given, by name."""
    folder = tmp_path_factory.mktemp("given")
    shutil.copytree(package_template, folder / "avatars" / "anna")
    shutil.copytree(package_template, folder / "erased" / "anna")
    for name in ("stored", "forgotten"):
        store = ObjectStore(f"file://{folder}/{name}")
        for line in ("description: first\n", "description: second\n"):
            (folder / "erased" / "anna" / "avatar.yaml").write_text(line)
            version = push(store, "anna", folder / "erased" / "anna").version
            publish(store, "anna", version)
    (folder / "config.yaml").write_text("server: {port: 0}\n")
    KeyFile(folder / "keys.json").create("old")
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.zeros(16_000, "<i2").tobytes())
    (folder / "jobs.csv").write_text("avatar,audio,out\n./avatars/anna,speech.wav,anna.mp4\n")
    return lambda name: folder / name


def line_of(process: "subprocess.Popen[str]", start: str) -> str:
    """The rest of the next line of output that begins with ``start``."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(start):
            return line.removeprefix(start).strip()
    raise AssertionError(said)


def ended(
    process: "subprocess.Popen[str]", number: int | None = None, *, well: tuple[int, ...] = (0,)
) -> None:
    """Wait until it has ended with a code that is ``well``, after signal ``number`` if any."""
    if number is not None:
        process.send_signal(number)
    said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode in well, said


@pytest.fixture(scope="module")
def served(new_home: NewHome, place: Callable[[str], Path]) -> Iterator[tuple[Home, str]]:
    """A server's home, and its address."""
    home = new_home()
    process = home.start(
        *("-u", "-m", "lipwire", "serve", "--host", "127.0.0.1", "--port", 0),
        *("--models-root", place("avatars")),
    )
    with process:
        port = line_of(process, "Compositing server listening on port")
        line_of(process, "Ready")
        yield home, f"127.0.0.1:{port}"
        ended(process, signal.SIGTERM)


COMMANDS = {
    "render": "{avatars/anna} {speech.wav} -o talking.mp4",
    "render-many": "{jobs.csv} --ledger done --workers 1",
    "say": "{avatars/anna} Xyzanna. -o talking.mp4",
    "avatar list": "",
    "avatar info": "{avatars/anna}",
    "avatar validate": "{avatars/anna}",
    "avatar compile": "{avatars/anna}",
    "avatar import": "{avatars/anna} --name zoe --to avatars",
    "avatar erase": "{erased/anna} --yes",
    "avatar push": "zoe --from {avatars/anna} --store file://{stored} --publish",
    "avatar pull": "anna --store file://{stored} --into pulled",
    "avatar publish": "anna VERSION --store file://{stored}",
    "avatar rollback": "anna --store file://{stored}",
    "avatar versions": "anna --store file://{stored}",
    "avatar forget": "anna --store file://{forgotten} --yes",
    "avatar evaluate": "{avatars/anna} --audio {speech.wav} -o evaluation",
    "serve": "--host 127.0.0.1 --port 0 --models-root {avatars}",
    "inference-server": "--host 127.0.0.1 --port 0 --models-root {avatars}",
    "compositing-server": "--host 127.0.0.1 --port 0 --models-root {avatars}",
    "up": "anna {speech.wav} --models-root {avatars} --inference-port 0 --port 0 --no-stay",
    "client": "anna {speech.wav} --address ADDRESS --save frames",
    "converse": "anna {speech.wav} --address ADDRESS --save frames",
    "health": "ADDRESS",
    "models list": "--address ADDRESS",
    "models load": "anna --address ADDRESS",
    "models unload": "anna --address ADDRESS",
    "models stats": "--address ADDRESS",
    "models erase": "anna --dry-run --address ADDRESS",
    "keys create": "phone --file made.json",
    "keys list": "--file {keys.json}",
    "keys revoke": "old --file {keys.json}",
    "certs dev": "certs",
    "embed": "demo --server https://avatars.example.org",
    "service print": "inference",
    "service install": "serve --dry-run --user",
    "service uninstall": "serve --dry-run --user",
    "config check": "{config.yaml} --kind inference",
    "config schema": "--kind compositing",
    "doctor": "{config.yaml} --quick",
    "top": "ADDRESS --once",
    "bench": "audio --rounds 1",
    "plan": "--users 100",
    "version": "",
}
"""Every command, with something for it to do; {NAME} is a file of ``place``."""
NOT_DONE = {"avatar evaluate": (0, 1), "doctor": (0, 1), "service uninstall": (2,)}
"""Exit codes where not 0: a tiny network is no good, a port may be taken, there is no service."""
SERVE = ("serve", "inference-server", "compositing-server")
QUICK = ("version", "keys create")


def all_commands(command: Any, name: str = "") -> Iterator[str]:
    for below, found in getattr(command, "commands", {}).items():
        yield from all_commands(found, f"{name} {below}".strip())
    if not hasattr(command, "commands"):
        yield name


def test_every_command_is_tried_here() -> None:
    assert sorted(all_commands(typer.main.get_command(app))) == sorted(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow, id=name)
        for name in COMMANDS
    ],
)
def test_a_command_keeps_to_itself(
    command: str, new_home: NewHome, place: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    home = new_home()
    arguments = COMMANDS[command]
    if "ADDRESS" in arguments:
        _, address = request.getfixturevalue("served")
        arguments = arguments.replace("ADDRESS", address)
    if "VERSION" in arguments:
        first = versions(ObjectStore(f"file://{place('stored')}"), "anna")[0]
        arguments = arguments.replace("VERSION", first)
    given = [
        re.sub(r"\{(.+)\}", lambda found: str(place(found[1])), word) for word in arguments.split()
    ]
    with home.start("-u", "-m", "lipwire", *command.split(), *given) as process:
        if command in SERVE:
            line_of(process, "Ready")
            ended(process, signal.SIGTERM)
        else:
            ended(process, well=NOT_DONE.get(command, (0,)))
    assert home.processes >= (3 if command == "up" else 1)
    assert home.seen == []
    assert home.written == []


@needs_bfloat16
@pytest.mark.slow
def test_a_long_render_keeps_to_itself(new_home: NewHome) -> None:
    """It is in bfloat16, by OpenVINO; what is kept of that lies in the cache."""
    home = new_home()
    with wave.open(str(home.folder / "long.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((3000 * np.sin(np.arange(160_000) / 20)).astype("<i2").tobytes())
    cache = home.folder / "cache"
    command = ("-m", "lipwire", "render", "demo", "long.wav", "-o", "out.mp4")
    with home.start(*command, XDG_CACHE_HOME=str(cache)) as process:
        said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert "bfloat16" in said
    assert home.processes >= 2
    assert home.seen == []
    assert home.written == []
    assert [path.name for path in cache.iterdir()] == ["lipwire"]


HELP = """
import sys
from lipwire.cli.main import main
for command in sys.argv[1:]:
    try:
        main([*command.split(), "--help"])
    except SystemExit as ended:
        assert not ended.code, command
"""


@pytest.mark.slow
def test_help_keeps_to_itself(new_home: NewHome) -> None:
    home = new_home()
    with home.start("-c", HELP, "", *COMMANDS) as process:
        ended(process)
    assert home.processes == 1
    assert home.seen == []
    assert home.written == []


@pytest.mark.slow
def test_only_the_name_that_is_given_is_looked_up(new_home: NewHome) -> None:
    home = new_home()
    with home.start("-m", "lipwire", "models", "list", "-a", "gpu1.invalid:50052") as process:
        said, _ = process.communicate(timeout=WAIT_S)
    assert "gpu1.invalid:50052 cannot be asked" in said
    assert home.seen
    # gRPC may ask a name server by itself.
    assert all(line == "name gpu1.invalid" or line.endswith(" 53") for line in home.seen)


PLAIN = "import onnxruntime, sys; sys.stdin.read()"


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 29),
    reason="this ONNX Runtime has no telemetry",
)
def test_the_watch_sees_what_onnx_runtime_does_by_itself_and_a_server_does_not(
    new_home: NewHome, served: tuple[Home, str], place: Callable[[str], Path]
) -> None:
    """The server is older, and has run networks: what ONNX Runtime does by itself after a while, it
    would have done as well."""
    home, address = served
    client = new_home()
    arguments = ("client", "anna", place("speech.wav"), "--address", address)
    with client.start("-m", "lipwire", *arguments) as process:
        ended(process)
    plain = new_home()
    with plain.start("-c", PLAIN, **dict.fromkeys(PROXIES, "")) as process:
        until(lambda: TELEMETRY in plain.seen, timeout_s=WAIT_S, seen=lambda: plain.seen)
        process.kill()
    assert any("Microsoft" in name for name in plain.written)
    assert home.seen == []
    assert home.written == []


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "kept"), [(None, "1"), ("0", "0"), ("", "1"), ("1", "1")])
def test_who_has_chosen_keeps_the_choice(
    chosen: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    if chosen is not None:
        environ["ORT_DISABLE_TELEMETRY"] = chosen
    tell = "import lipwire.domain, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    said = subprocess.run(
        [sys.executable, "-c", tell], env=environ, capture_output=True, text=True, check=True
    )
    assert said.stdout == f"{kept}\n"


@pytest.mark.parametrize(
    ("chosen", "calls"),
    [({}, 1), ({"ORT_DISABLE_TELEMETRY": ""}, 1), ({"ORT_DISABLE_TELEMETRY": "0"}, 0)],
)
def test_an_onnx_runtime_that_is_there_already_is_told(chosen: dict[str, str], calls: int) -> None:
    program = (
        "import sys, types\n"
        "calls = []\n"
        "there = sys.modules['onnxruntime'] = types.ModuleType('onnxruntime')\n"
        "there.disable_telemetry_events = lambda: calls.append(1)\n"
        "import lipwire\n"
        "print(len(calls))\n"
    )
    environ = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    said = subprocess.run(
        [sys.executable, "-c", program],
        env=environ | chosen,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{calls}\n"
