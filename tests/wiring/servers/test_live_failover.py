"""Live sessions over two inference servers, one of which goes while they speak: the mouths come
from the other one, and nobody notices."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.audio import AudioEncoder, extract_windows
from lipwire.avatars import Avatar
from lipwire.config import load_compositing_config, load_inference_config
from lipwire.domain import Float32Array
from lipwire.engine import Engine
from lipwire.rpc.backends.affinity import rendezvous
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.rpc.server.server import RpcServer
from lipwire.session.live import LiveFrame, SessionSettings, Sound, SpeechEnded
from lipwire.wiring.servers import open_compositing_server, open_inference_server

HERE = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
FRAMES = 100
SPEECH = (np.random.default_rng(1).normal(0, 0.1, FRAMES * 640).clip(-1, 1) * 32768).astype(
    np.int16
)
"""4 s at 16 kHz, as it is sent."""


class Farm:
    """Two inference servers, and a client of the compositing server over them. The session's
    avatar is asked of ``first``."""

    def __init__(self, first: RpcServer, second: RpcServer, compositing: RpcServer) -> None:
        self.first = first
        self.second = second
        self.address = f"127.0.0.1:{compositing.port}"


@pytest.fixture
def farm(avatar_package: Path) -> Iterator[Farm]:
    root = {"LIPWIRE_MODELS_ROOT": str(avatar_package.parent)}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                open_inference_server(
                    load_inference_config(None, HERE | root), tell=lambda _heading, _facts: None
                )
            )
            for _ in range(2)
        ]
        urls = {f"127.0.0.1:{server.port}": server for server in servers}
        order = rendezvous("anna", dict.fromkeys(urls, 1.0))
        there = {"LIPWIRE_INFERENCE_SERVER__URL": ",".join(urls)}
        compositing = stack.enter_context(
            open_compositing_server(
                load_compositing_config(None, HERE | root | there),
                tell=lambda _heading, _facts: None,
            )
        )
        yield Farm(urls[order[0]], urls[order[1]], compositing)


def right_frames(package: Path, begins: int) -> list[bytes]:
    """The frames of the speech where it begins at position ``begins``, made without servers."""
    speech: Float32Array = SPEECH.astype(np.float32) / np.float32(32768)
    with Avatar.open(package, parts=frozenset({"jpeg"})) as avatar, Engine(threads=1) as engine:
        assert avatar.encoder_path is not None
        windows = extract_windows(speech, AudioEncoder.open(avatar.encoder_path))
        model = engine.load(avatar.model_path)
        mouths = engine.infer(model, avatar.crops(begins, FRAMES), windows[:FRAMES])
        return [avatar.jpeg(begins + number, mouth) for number, mouth in enumerate(mouths)]


class Seen:
    """What a client received of one piece of speech."""

    def __init__(self) -> None:
        self.begins = -1
        """Position of the first frame."""
        self.frames: dict[int, bytes] = {}
        """By number in the speech."""
        self.sound: list[Float32Array] = []
        self.ended: SpeechEnded | None = None

    def listen(self, session: ConverseStream, after: int, then: Callable[[], None]) -> None:
        """Receive until the speech has ended, and call ``then`` when ``after`` frames of it have
        come."""
        for received in session:
            if isinstance(received, Sound) and received.speech:
                self.sound.append(received.samples)
            elif isinstance(received, LiveFrame) and received.speech:
                if self.begins < 0:
                    self.begins = received.position
                self.frames[received.position - self.begins] = received.data
                if len(self.frames) == after:
                    then()
            elif isinstance(received, SpeechEnded):
                self.ended = received
                return


def loaded_in_both(farm: Farm) -> bool:
    with CompositingConnection(farm.address) as connection:
        return connection.stats(timeout_s=WAIT_S).loaded_networks == 2


def speak(farm: Farm, *, paced: bool, then: Callable[[], None]) -> Seen:
    """Have a session say the speech, and call ``then`` in the middle of it."""
    # No rest mouth is mixed in, so that every frame can be compared.
    settings = SessionSettings(
        16_000, gate=False, crossfade_frames=0, paced=paced, end_of_speech_timeout_s=60
    )
    seen = Seen()
    with AvatarConnection(farm.address) as server, server.converse("anna", settings) as session:
        until(lambda: loaded_in_both(farm))
        session.push(SPEECH, 16_000)
        session.end_of_speech()
        seen.listen(session, 20, then)
    return seen


def check_sound(seen: Seen) -> None:
    assert seen.ended is not None
    assert not seen.ended.interrupted
    heard = np.concatenate(seen.sound)[: len(SPEECH)]
    np.testing.assert_array_equal(np.rint(heard * 32768).astype(np.int16), SPEECH)


def go(farm: Farm, way: str) -> None:
    if way == "killed":
        farm.first.stop()
    else:
        farm.first.drain(WAIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "drained"])
def test_frames_are_all_right_where_they_need_not_be_made_in_time(
    farm: Farm, avatar_package: Path, way: str
) -> None:
    seen = speak(farm, paced=False, then=lambda: go(farm, way))
    check_sound(seen)
    right = right_frames(avatar_package, seen.begins)
    assert [seen.frames[number] for number in range(FRAMES)] == right


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "drained"])
def test_a_conversation_goes_on_with_mouths_of_the_other_server(
    farm: Farm, avatar_package: Path, way: str
) -> None:
    seen = speak(farm, paced=True, then=lambda: go(farm, way))
    check_sound(seen)
    right = right_frames(avatar_package, seen.begins)
    assert any(seen.frames.get(number) == right[number] for number in range(50, FRAMES))


def test_a_session_is_admitted_where_one_of_two_servers_is_gone(farm: Farm) -> None:
    farm.first.stop()
    with AvatarConnection(farm.address) as server, server.converse("anna") as session:
        assert next(iter(session)) is not None
    with CompositingConnection(farm.address) as connection:
        until(lambda: connection.health(WAIT_S).live_sessions == 0)
