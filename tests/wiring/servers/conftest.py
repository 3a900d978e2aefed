"""Servers in this process."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.wiring.servers.asking import Serve
from tests.wiring.servers.everycall import Start, Told

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.server.server import RpcServer
from lipwire.security import KeyFile
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve


@pytest.fixture(scope="module")
def template_root(compiled_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Avatars a, b and c, compiled for JPEG. Nobody writes to it."""
    root = tmp_path_factory.mktemp("template") / "root"
    for name in "abc":
        shutil.copytree(compiled_template, root / name)
    return root


@pytest.fixture
def root(template_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template_root, tmp_path / "root")


@pytest.fixture
def told() -> Told:
    return {}


@pytest.fixture
def serve(root: Path, tmp_path: Path, told: Told) -> Iterator[Serve]:
    """``serve("capacity: {max_models: 1}", inference="...")``: a connection to such a server.
    Without ``by_speed`` it admits live sessions on a machine that is too busy for them."""
    with ExitStack() as stack:

        def start(
            yaml: str = "", inference: str = "", *, by_speed: bool = True
        ) -> CompositingConnection:
            files = tmp_path / "compositing.yaml", tmp_path / "inference.yaml"
            files[0].write_text(f"models_root: {root}\n{yaml}\n")
            files[1].write_text(inference + "\n")
            here = {
                "LIPWIRE_SERVER__HOST": "127.0.0.1",
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__PORT": "0",
                "LIPWIRE_SPEECH__VOICE": "none",  # it would be loaded for nothing
            }
            server = stack.enter_context(
                open_serve(
                    load_compositing_config(files[0], here),
                    load_inference_config(files[1], {}),
                    tell=told.__setitem__,
                    by_speed=by_speed,
                )
            )
            return stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))

        yield start


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def start(root: Path, tmp_path: Path, told: Told) -> Iterator[Start]:
    """``start("serve", yaml)``, or inference or compositing, listening on loopback."""
    with ExitStack() as stack:

        def started(kind: str, yaml: str) -> RpcServer:
            file = tmp_path / f"{kind}.yaml"
            file.write_text(f"models_root: {root}\n{yaml}\n")
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__ENABLED": "false",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            tell = told.__setitem__
            if kind == "inference":
                config = load_inference_config(file, {"LIPWIRE_SERVER__PORT": "0"})
                return stack.enter_context(open_inference_server(config, tell=tell))
            compositing = load_compositing_config(file, here)
            if kind == "compositing":
                return stack.enter_context(open_compositing_server(compositing, tell=tell))
            return stack.enter_context(
                open_serve(compositing, load_inference_config(None, {}), tell=tell)
            )

        yield started
