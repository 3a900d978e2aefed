"""Live sessions of servers as their configurations build them."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.spoken import spoken
from tests.support.waiting import WAIT_S, until
from tests.wiring.servers.asking import Serve

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import Overloaded
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.requests import requests_of_audio
from lipwire.session.live import SessionSettings
from lipwire.wiring.servers import open_compositing_server, open_inference_server

SPEECH = np.random.default_rng(4).integers(-9000, 9000, 16_000).astype(np.int16)
EXACT = SessionSettings(gate=False, crossfade_frames=0, paced=False)


def batch(connection: CompositingConnection, name: str, start_frame: int = 0) -> list[bytes]:
    """The frames of SPEECH, by the guide's messages."""
    pcm = SPEECH.astype(np.float32) / np.float32(32768)
    requests = requests_of_audio(name, pcm, 24, start_frame)
    return [f for request in requests for f in connection.composite(request, WAIT_S).frames]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["jpeg", "raw"])
def test_a_live_session_shows_the_frames_that_a_batch_has(serve: Serve, output: str) -> None:
    connection = serve(f"output: {{format: {output}}}")
    with AvatarConnection(connection.address) as client, client.converse("a", EXACT) as session:
        assert spoken(session, SPEECH) == batch(connection, "a")


@pytest.mark.slow
def test_a_live_session_shows_jpeg_where_batches_are_h264(serve: Serve) -> None:
    wanted = batch(serve("output: {format: jpeg}"), "a")
    connection = serve("output: {format: h264}\nweb: {enabled: false}")
    with AvatarConnection(connection.address) as client, client.converse("a", EXACT) as session:
        assert session.frame_format == "jpeg"
        assert spoken(session, SPEECH) == wanted


def test_live_sessions_have_the_limits_of_the_configuration(serve: Serve) -> None:
    connection = serve("live: {max_sessions: 1}")
    with (
        AvatarConnection(connection.address) as client,
        client.converse("a", EXACT),
        pytest.raises(Overloaded, match="1 live sessions run; allowed are 1"),
    ):
        client.converse("b", EXACT)


@pytest.fixture
def apart(root: Path, tmp_path: Path) -> Iterator[CompositingConnection]:
    """The two servers, each with a look of its own at the packages."""
    with ExitStack() as stack:
        here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
        (tmp_path / "i.yaml").write_text(f"models_root: {root}\n")
        networks = stack.enter_context(
            open_inference_server(
                load_inference_config(tmp_path / "i.yaml", here), tell=lambda *_: None
            )
        )
        (tmp_path / "c.yaml").write_text(
            f"models_root: {root}\ninference_server: {{url: '127.0.0.1:{networks.port}'}}\n"
        )
        frames = stack.enter_context(
            open_compositing_server(
                load_compositing_config(tmp_path / "c.yaml", here), tell=lambda *_: None
            )
        )
        yield stack.enter_context(CompositingConnection(f"127.0.0.1:{frames.port}"))


@pytest.mark.slow
def test_a_session_goes_on_where_its_avatars_package_is_replaced(
    apart: CompositingConnection, root: Path, make_package: Any
) -> None:
    with AvatarConnection(apart.address) as client, client.converse("a", EXACT) as session:
        before = spoken(session, SPEECH)
        assert before == batch(apart, "a")
        new = make_package(root.parent / "new", seed=9)
        shutil.rmtree(root / "a")
        new.rename(root / "a")
        shown = len(before)
        after: list[bytes] = []

        def is_the_new_one() -> bool:
            nonlocal shown, after
            after = spoken(session, SPEECH)
            same = after == batch(apart, "a", shown)
            shown += len(after)
            return same and after != before

        until(is_the_new_one)  # once the servers have looked at the package again
