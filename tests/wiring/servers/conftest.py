"""A server that does everything, in this process."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.wiring.servers.asking import Serve

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.rpc.connection import CompositingConnection
from lipwire.wiring.servers import open_serve


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
def told() -> dict[str, Mapping[str, object]]:
    return {}


@pytest.fixture
def serve(root: Path, tmp_path: Path, told: dict[str, Mapping[str, object]]) -> Iterator[Serve]:
    """``serve("capacity: {max_models: 1}", inference="...")``: a connection to such a server."""
    with ExitStack() as stack:

        def start(yaml: str = "", inference: str = "") -> CompositingConnection:
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
                )
            )
            return stack.enter_context(CompositingConnection(f"127.0.0.1:{server.port}"))

        yield start
