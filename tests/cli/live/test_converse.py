"""`lipwire converse` against a server whose avatars cost nothing."""

import io
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from tests.cli.conftest import Lipwire
from tests.rpc.liveserver import HEIGHT, WIDTH, LiveServer, live_server, noise

from lipwire.audio import AudioEncoder
from lipwire.bench.randomnetworks import write_tiny_audio_encoder
from lipwire.session.live import SessionRules


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> AudioEncoder:
    path = tmp_path_factory.mktemp("encoder") / "audio_encoder.onnx"
    write_tiny_audio_encoder(path, 0)
    return AudioEncoder.open(path)


@pytest.fixture
def live(encoder: AudioEncoder) -> Iterator[LiveServer]:
    with live_server(encoder, frame_format="raw") as running:
        yield running


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """0.4 seconds."""
    path = tmp_path / "short.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(noise(0.4).tobytes())
    return path


@pytest.mark.slow
def test_what_is_seen_and_heard_is_kept(
    live: LiveServer, lipwire: Lipwire, short: Path, tmp_path: Path
) -> None:
    video, folder = tmp_path / "talk.mp4", tmp_path / "frames"
    at = ["-a", live.address, "--no-gate", "-o", video, "--save", folder]
    done = lipwire("converse", "anna", short, *at)
    assert done.code == 0, done.err
    for text in ("speech 1 begins", "speech 1 ends, 0.40 s spoken", "without a gap"):
        assert text in done.out
    frames = sorted(path.name for path in folder.glob("frame_*.jpg"))
    assert frames[0] == "frame_00000000.jpg"
    assert f"{len(frames)} frames, sound.wav" in done.out
    with wave.open(str(folder / "sound.wav")) as file:
        assert (file.getframerate(), file.getnchannels()) == (48_000, 1)
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    ticks, rest = divmod(len(sound), 1920)
    assert rest == 0
    assert np.count_nonzero(sound) > 0.39 * 48_000
    with av.open(str(video)) as container:
        (pictures,) = container.streams.video
        assert (pictures.width, pictures.height) == (WIDTH, HEIGHT)
        assert sum(1 for _ in container.decode(pictures)) == ticks
    # Nothing of it is replaced without being asked to.
    for again in (["-o", video], ["--save", folder]):
        refused = lipwire("converse", "anna", short, "-a", live.address, *again)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "--force" in refused.err


@pytest.mark.slow
def test_speech_is_interrupted(live: LiveServer, lipwire: Lipwire, tmp_path: Path) -> None:
    path = tmp_path / "long.raw"
    path.write_bytes(noise(20.0).tobytes())
    at = ["-a", live.address, "--no-gate", "--rate", 16_000, "--interrupt-after", 0.2]
    done = lipwire("converse", "anna", path, *at)
    assert done.code == 0, done.err
    assert "interrupted with" in done.out


@pytest.mark.slow
def test_bare_samples_come_through_a_pipe(
    live: LiveServer, lipwire: Lipwire, monkeypatch: pytest.MonkeyPatch
) -> None:
    stereo = np.repeat(noise(0.2), 2).tobytes() + b"\0"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stereo)))
    at = ["-a", live.address, "--no-gate", "--rate", 16_000, "--channels", 2, "--pace", "live"]
    done = lipwire("converse", "anna", "-", *at)
    assert done.code == 0, done.err
    assert "speech 1 ends, 0.20 s spoken" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["carl"], 2, "there is no avatar 'carl'"),
        (["anna", "missing.wav"], 2, "missing.wav"),
        (["anna", "missing.raw", "--rate", 16_000], 2, "missing.raw cannot be read"),
        (["anna", "--lookahead-ms", 1000], 2, "lookahead_ms is 1000; allowed: 0 to 452.5"),
        (["anna", "-o", "talk.avi"], 2, "talk.avi"),
        (["anna", "-a", "127.0.0.1:1"], 1, "connection refused"),
    ],
    ids=["avatar", "recording", "samples", "look-ahead", "video", "address"],
)
def test_what_cannot_be_done_is_one_line(
    live: LiveServer, lipwire: Lipwire, arguments: list[object], code: int, said: str
) -> None:
    at = [] if "-a" in arguments else ["-a", live.address]
    done = lipwire("converse", *arguments, *at)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert said in done.err


@pytest.mark.slow
def test_a_session_that_ends_too_early_is_an_error(
    encoder: AudioEncoder, lipwire: Lipwire, tmp_path: Path
) -> None:
    path = tmp_path / "long.raw"
    path.write_bytes(noise(20.0).tobytes())
    with live_server(encoder, rules=SessionRules(max_duration_s=1)) as live:
        done = lipwire("converse", "anna", path, "-a", live.address, "--rate", 16_000)
    assert done.code == 1
    assert "the session ended before all was said: max_duration" in done.err
