"""What the commands that ask servers get, from real processes on ports of the loopback."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from unicodedata import normalize

import pytest
from tests.cli.conftest import Lipwire, Served, Serving, frames_of

from lipwire.audio import decode_audio
from lipwire.domain import Float32Array
from lipwire.rpc.requests import requests_of_audio, requests_of_windows


@pytest.mark.slow
def test_one_process_two_servers_and_a_render_give_the_same_bytes(
    one: Served,
    two: Served,
    windows: Float32Array,
    lipwire: Lipwire,
    models_root: Path,
    speech: Path,
    tmp_path: Path,
) -> None:
    together = frames_of(one.address, requests_of_windows("sanders", windows, 24))
    apart = frames_of(two.address, requests_of_windows("sanders", windows, 24))
    heard = frames_of(two.address, requests_of_audio("sanders", decode_audio(speech), 24))
    rendered = lipwire(
        "render", models_root / "sanders", speech, "--frames", tmp_path / "r", "--quality", 75
    )
    assert rendered.code == 0
    files = [path.read_bytes() for path in sorted((tmp_path / "r").iterdir())]
    assert len(files) == 55
    assert together == files
    assert apart == files
    assert heard == files


@pytest.mark.slow
def test_the_client_saves_frames_and_says_where_the_time_went(
    one: Served, lipwire: Lipwire, models_root: Path, speech: Path, tmp_path: Path
) -> None:
    at = ["--address", one.address, "--save", tmp_path / "f", "--batch", 24]
    outcome = lipwire("client", models_root / "sanders", speech, *at)
    assert outcome.code == 0
    assert "55 frames in 3 requests" in outcome.out
    for row in ("inference", "compositing", "gRPC and waiting", "total"):
        assert row in outcome.out
    assert len(list((tmp_path / "f").glob("frame_*.jpg"))) == 55
    again = lipwire("client", models_root / "sanders", speech, *at)
    assert (again.code, again.err.count("\n")) == (2, 1)


@pytest.mark.slow
def test_frames_sent_by_the_client_give_what_the_servers_own_give(
    two: Served, lipwire: Lipwire, models_root: Path, speech: Path, tmp_path: Path
) -> None:
    folders = {}
    for form in ("windows", "frames", "audio"):
        folders[form] = tmp_path / form
        at = ["-a", two.address, "--save", folders[form], "--batches", 1, "--batch", 5]
        outcome = lipwire("client", models_root / "sanders", speech, *at, "--form", form)
        assert outcome.code == 0, outcome.err
    files = {f: [p.read_bytes() for p in sorted(d.iterdir())] for f, d in folders.items()}
    assert files["frames"] == files["windows"] == files["audio"]
    assert len(files["frames"]) == 5


@pytest.mark.slow
def test_models_are_loaded_listed_and_unloaded_on_both_servers(
    two: Served, lipwire: Lipwire
) -> None:
    at = ("-a", two.address)
    assert lipwire("models", "load", "sanders", *at).out.startswith("sanders: loaded in ")
    assert lipwire("models", "list", *at).out == "sanders  (loaded)\n"
    stats = json.loads(lipwire("models", "stats", *at, "--json").out)
    assert [model["model_id"] for model in stats["models"]] == ["sanders"]
    assert lipwire("models", "unload", "sanders", *at).out == "sanders: unloaded\n"
    assert lipwire("models", "unload", "sanders", *at).out == "sanders: was not loaded\n"
    assert lipwire("models", "list", *at).out == "sanders\n"
    unknown = lipwire("models", "load", "sandars", *at)
    assert unknown.code == 2
    assert re.fullmatch(
        r"error: no avatar named sandars; the nearest known is sanders \(request [0-9a-f]{32}\)\n",
        unknown.err,
    )


@pytest.mark.slow
def test_nobody_there_is_one_line(lipwire: Lipwire, speech: Path) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = lipwire("client", "sanders", speech, "-a", address, "--timeout", "0.3")
    assert outcome.code == 1
    assert outcome.err.startswith(
        f"error: no compositing server at {address} within 0.3 s: connection refused; "
    )
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_a_proxy_counts_where_it_is_asked_for(
    lipwire: Lipwire, one: Served, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    client = ("client", "sanders", str(speech), "--batches", "1", "-a", one.address)
    models = ("models", "list", "-a", one.address)
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{taken.getsockname()[1]}")
        for command in (client, models):
            assert lipwire(*command).code == 0
            outcome = lipwire(*command, "--use-proxy", "--timeout", "0.5")
            assert outcome.code == 1
            assert one.address in outcome.err
            assert "grpc_proxy is in force: the proxy may be the cause" in outcome.err
            assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_names_of_any_language_are_served(
    lipwire: Lipwire, serving: Serving, avatar_package: Path, tmp_path: Path
) -> None:
    root = tmp_path / "avatars"
    name = "Zo\u00eb \u00c5ngstr\u00f6m"
    shutil.copytree(avatar_package, root / normalize("NFD", name))  # as on a Mac's disk
    shutil.copytree(avatar_package, root / "\u5b89\u5a1c (2)")
    shutil.copytree(avatar_package, root / ".hidden")
    ports = ("--inference-port", 0, "--port", 0)
    served = serving(
        "up", name, "--models-root", root, *ports, "--no-stay", PYTHONIOENCODING="utf-8"
    )
    assert served.wait() == 0, served.text
    assert served.text.count("the folder '.hidden' in") == 2  # one of each server
    served = serving("serve", "--models-root", root, "--port", 0, PYTHONIOENCODING="utf-8")
    at = ("--address", served.address)
    assert json.loads(lipwire("models", "list", *at, "--json").out) == [
        {"model_id": each, "loaded": False, "loaded_in": 0} for each in (name, "\u5b89\u5a1c (2)")
    ]
    for given in (name, normalize("NFD", name), "\u5b89\u5a1c (2)"):
        assert lipwire("client", given, *at, "--batches", 1, "--form", "audio").code == 0
        assert lipwire("models", "stats", given, *at).code == 0
    rows = json.loads(lipwire("models", "list", *at, "--loaded", "--json").out)
    assert [row["model_id"] for row in rows] == [name, "\u5b89\u5a1c (2)"]
    assert served.end() == 0
    assert "the folder '.hidden' in" in served.text
