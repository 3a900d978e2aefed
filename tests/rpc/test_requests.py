from pathlib import Path

import numpy as np
import pytest
from tests.audio.soundfiles import encoded
from tests.support.quickfirst import quick_first

from lipwire.audio import AudioEncoder, decode_audio, extract_windows
from lipwire.avatars import Avatar, read_package
from lipwire.domain import Float32Array
from lipwire.engine import Engine
from lipwire.rpc.requests import (
    requests_of_audio,
    requests_of_frames,
    requests_of_windows,
    visual_frames,
)
from lipwire.serving import RawAudio, windows_from_raw


@pytest.fixture(scope="module")
def encoder(package_template: Path) -> AudioEncoder:
    path = read_package(package_template).encoder_path
    assert path is not None
    return AudioEncoder.open(path)


@pytest.fixture(scope="module")
def pcm() -> Float32Array:
    """4.3 seconds of noise, in steps of 16-bit PCM."""
    noise = np.random.default_rng(1).integers(-9000, 9000, 68_801)
    return (noise / 32768).astype(np.float32)


def test_windows_are_sent_in_batches(encoder: AudioEncoder, pcm: Float32Array) -> None:
    windows = extract_windows(pcm, encoder)
    requests = list(requests_of_windows("anna", windows, 24, start_frame=3))
    assert [request.batch_size for request in requests] == [24, 24, 24, 24, 12]
    assert [request.start_frame_idx for request in requests] == [3, 27, 51, 75, 99]
    sent = np.frombuffer(b"".join(r.audio_features for r in requests), "<f4")
    np.testing.assert_array_equal(sent.reshape(windows.shape), windows)


@pytest.mark.parametrize("batch_size", quick_first([24, 1, 7, 50]))
def test_pieces_of_audio_hold_all_that_their_windows_hear(
    encoder: AudioEncoder, pcm: Float32Array, batch_size: int
) -> None:
    whole = extract_windows(pcm, encoder)
    for request in requests_of_audio("anna", pcm, batch_size):
        piece = (np.frombuffer(request.raw_audio, "<i2") / 32768).astype(np.float32)
        heard = extract_windows(piece, encoder)[request.audio_start_frame :][: request.batch_size]
        np.testing.assert_array_equal(heard, whole[request.start_frame_idx :][: len(heard)])
        assert len(heard) == request.batch_size


@pytest.mark.parametrize(
    ("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("matroska", "pcm_s16le")]
)
def test_audio_of_16_khz_and_16_bits_gives_the_windows_of_the_recording(
    encoder: AudioEncoder, container: str, codec: str
) -> None:
    """To the loudest samples that there are."""
    noise = np.random.default_rng(2).integers(-32_768, 32_768, 40_000) / 32_768
    pcm = decode_audio(encoded(container, codec, noise.astype(np.float32), 16_000))
    whole = extract_windows(pcm, encoder)
    for request in requests_of_audio("anna", pcm, 24):
        samples = np.frombuffer(request.raw_audio, "<i2")[:, None]
        audio = RawAudio(samples, request.sample_rate, request.audio_start_frame)
        first = request.start_frame_idx
        heard = windows_from_raw(audio, request.batch_size, encoder)
        np.testing.assert_array_equal(heard, whole[first : first + request.batch_size])


@pytest.mark.slow
def test_frames_are_what_the_network_would_see_of_the_avatar(
    avatar_package: Path, encoder: AudioEncoder, pcm: Float32Array
) -> None:
    windows = extract_windows(pcm, encoder)[:5]
    with Avatar.open(avatar_package) as avatar, Engine(threads=1) as engine:
        model = engine.load(avatar.model_path)
        (request,) = requests_of_frames("anna", avatar, windows, 24, start_frame=2)
        visual = np.frombuffer(request.visual_frames, "<f4").reshape(5, 6, 320, 320)
        crops = np.stack([avatar.crop(2 + i) for i in range(5)])
        np.testing.assert_array_equal(visual, visual_frames(crops))
        asked = engine.infer_float(model, visual, windows)
        own = engine.infer(model, crops, windows)
        np.testing.assert_array_equal(np.rint(asked.transpose(0, 2, 3, 1) * 255), own)
