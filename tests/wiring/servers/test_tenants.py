"""What tenants may send and how long they may talk, over gRPC."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import WAIT_S

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import LimitExceeded, MinutesUsedUp
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.credentials import ClientSecurity
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.received import Ended, Refused
from lipwire.rpc.server.server import RpcServer
from lipwire.security import KeyFile
from lipwire.session.live import sessions
from lipwire.wiring.servers import open_serve

MIB = 1 << 20


@pytest.fixture
def security(tmp_path: Path) -> ClientSecurity:
    key = KeyFile(tmp_path / "keys.json").create("phone", tenant="acme", avatars=["a"])
    return ClientSecurity(token=key)


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Callable[[str], RpcServer]]:
    """``start("upload_mb_per_minute: 1")``: a server with these limits."""
    with ExitStack() as stack:

        def started(limits: str) -> RpcServer:
            file = tmp_path / "config.yaml"
            file.write_text(
                f"models_root: {root}\nsecurity: {{keys_file: {tmp_path / 'keys.json'},"
                f" limits: {{{limits}}}}}\n"
            )
            here = {
                "LIPWIRE_SERVER__PORT": "0",
                "LIPWIRE_WEB__PORT": "0",
                "LIPWIRE_SPEECH__VOICE": "none",
            }
            return stack.enter_context(
                open_serve(
                    load_compositing_config(file, here),
                    load_inference_config(None, {}),
                    tell=lambda heading, facts: None,
                    by_speed=False,
                )
            )

        yield started


def test_the_minutes_of_a_month_are_kept_and_what_is_more_is_refused(
    start: Callable[[str], RpcServer],
    security: ClientSecurity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "_EVERY_S", 0.1)
    file = tmp_path / "minutes.json"
    month = datetime.now(UTC).strftime("%Y-%m")
    file.write_text(f'{{"version": 1, "month": "{month}", "seconds": {{"acme": 59.9}}}}')
    address = f"127.0.0.1:{start(f'live_minutes_per_month: 1, minutes_file: {file}').port}"
    with AvatarConnection(address, security=security) as client:
        with client.converse("a") as session:
            *_, last = session
            assert last == Ended("minutes_used_up")
        with pytest.raises(MinutesUsedUp, match="tenant acme has used 1 minutes of live sessions"):
            client.converse("a")


def test_messages_that_are_too_much_together_are_refused_and_the_session_goes_on(
    start: Callable[[str], RpcServer], security: ClientSecurity
) -> None:
    address = f"127.0.0.1:{start('upload_mb_per_minute: 1').port}"
    silence = np.zeros(150_000, np.int16)
    with AvatarConnection(address, security=security) as client, client.converse("a") as session:
        for _ in range(4):
            session.push(silence, 48_000)
        refused = next(got for got in session if isinstance(got, Refused))
        assert refused.error_code == "RESOURCE_EXHAUSTED"
        assert "tenant acme asks for more than 1 MiB a minute" in refused.error
        assert next(iter(session)) is not None
        request = pb.CompositeBatchRequest(
            model_id="a", batch_size=8, audio_features=np.zeros((8, 32, 16, 16), "<f4").tobytes()
        )
        with CompositingConnection(address, security=security) as connection:
            with pytest.raises(LimitExceeded, match="more than 1 MiB a minute") as over:
                connection.composite(request, WAIT_S)
            assert over.value.retry_after_s
            connection.models(WAIT_S)
