"""What the snippets of the documentation are tried with: small avatars, a recording, a server.

Python runs. A line of shell that calls ``lipwire`` has its arguments parsed as the program does,
and runs where it is one of those that end by themselves on what is here; of ``make`` the target has
to be there, and what ``curl`` asks for has to be in the HTTP API. YAML is checked as a server's
configuration, JSON as crop rectangles.
"""

import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sybil.example import Example
from tests.conftest import make_package_at
from typer.testing import CliRunner

from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.rectangles import parse_rectangles
from lipwire.cli.app import app
from lipwire.config import check_config, load_compositing_config, load_inference_config
from lipwire.security.devcerts import make_certificates
from lipwire.web.openapi import ROUTES
from lipwire.wiring.servers import open_serve

ROOT = Path(__file__).resolve().parents[2]
_RUN = frozenset({"render", "avatar", "config"})
"""Commands that end by themselves and need no server; of ``bench`` there are tests of its own."""
_PROTOS = ("compositing.proto", "management.proto")


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, made the current one, in which the documentation's names mean something."""
    for name in ("demo", "anna"):
        make_package_at(tmp_path / "known" / name)
    (tmp_path / "anna").symlink_to(tmp_path / "known" / "anna")
    monkeypatch.setenv("LIPWIRE_AVATARS", str(tmp_path / "known"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for name in ("speech.wav", "speech.mp3", "my.wav"):  # what a file holds, its name need not say
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(bytes(2 * 8_000))
    (tmp_path / "frames").mkdir()
    now = datetime.datetime.now(datetime.UTC)
    shutil.copy(make_certificates(tmp_path / "made", ["localhost"], now=now)[0], "ca.crt")
    return tmp_path


def run_python(example: Example) -> None:
    """Run Python; what it connects to is a server that has the avatars."""
    text = str(example.parsed)
    if "localhost:50052" not in text:
        exec(compile(text, f"{example.path}:{example.line}", "exec"), {})
        return
    # In a process of its own, as the modules that protoc makes are in this one already.
    asserted = "assert answer.success" if "answer" in text else ""
    arguments = ["-I", str(ROOT / "proto"), "--python_out=.", "--grpc_python_out=."]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", *arguments, *_PROTOS]
    subprocess.run(protoc, check=True)
    with _serving(Path("known")) as port:
        text = text.replace("localhost:50052", f"127.0.0.1:{port}")
        Path("snippet.py").write_text(f"pcm = bytes(32_000)\n{text}\n{asserted}\n")
        subprocess.run([sys.executable, "snippet.py"], check=True)


@contextmanager
def _serving(avatars: Path) -> Iterator[int]:
    """A server over a folder of avatars; gives its port."""
    here = {
        "LIPWIRE_SERVER__HOST": "127.0.0.1",
        "LIPWIRE_SERVER__PORT": "0",
        "LIPWIRE_MODELS_ROOT": str(avatars),
    }
    config, networks = load_compositing_config(None, here), load_inference_config(None, {})
    with open_serve(config, networks, tell=lambda *_: None) as server:
        yield server.port


def _check_curl(words: list[str]) -> None:
    """What is asked of the server, ``$API``, is in its API."""
    url = next(word for word in words if word.startswith("$API"))
    path = url.removeprefix("$API").partition("?")[0].replace("$ID", "{session}")
    path = path.replace("$RENDER", "{render}")
    method = "POST" if {"-d", "--data-binary"} & set(words) else "GET"
    if "-X" in words:
        method = words[words.index("-X") + 1]
    assert (method, path) in {(route.method, route.path) for route in ROUTES}, words


def run_shell(example: Example) -> None:
    """Try each line; see above. Of a pipeline only Lipwire's part is looked at."""
    for line in str(example.parsed).replace("\\\n", " ").splitlines():
        parts = re.split(r"\s\|\s", line)
        for part in parts:
            command, _, target = part.partition(" > ")
            words = shlex.split(command, comments=True)
            if words[:1] == ["make"]:
                known = (ROOT / "Makefile").read_text()
                assert all(f"\n{target}:" in known for target in words[1:]), line
            elif words and Path(words[0]).name == "lipwire":
                _check(words[1:])
                if words[1] in _RUN and len(parts) == 1:
                    _run(words[1:], target.strip())
            elif words[:1] == ["curl"]:
                _check_curl(words[1:])
            elif not (words and re.match(r"[A-Z]+=", words[0])):
                assert not words or len(parts) > 1, f"nobody tries this: {line}"


def _check(arguments: list[str]) -> None:
    """Arguments are read before help is given, so unknown ones are refused."""
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0, (arguments, result.output)


def _run(arguments: list[str], target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lipwire", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "LIPWIRE_DEBUG": "0"},
    )
    assert done.returncode == 0, (arguments, done.stderr)
    if target:
        Path(target).write_text(done.stdout)


def check_yaml(example: Example) -> None:
    """A part of a server's configuration."""
    Path("snippet.yaml").write_text(str(example.parsed))
    found: list[Any] = [
        check_config(Path("snippet.yaml"), {}, kind).problems
        for kind in ("inference", "compositing")
    ]
    assert [] in [list(problems) for problems in found], found


def check_json(example: Example) -> None:
    """Crop rectangles, a file on each line."""
    for line in str(example.parsed).splitlines():
        findings = Findings()
        assert json.loads(line)
        assert parse_rectangles(line.encode(), findings, first_frame=None), findings.problems
