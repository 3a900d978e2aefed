"""Recordings made of pieces, with holes and several tracks: both forms on one clock."""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which

import av
import numpy as np
import pytest
from tests.audio.soundfiles import ape, both_forms, encoded, id3v2, loud, mp3, several_tracks, tone

from lipwire.audio import FileRecording, StreamResampler, decode_audio
from lipwire.domain import Float32Array, InvalidInput

FAULTS = Path(__file__).resolve().parents[4] / "shared" / "reference" / "faults"


TAGS = {
    "ID3v2": id3v2(b"\xff\xfb\x90\x00" * 5000),
    "ID3v1": b"TAG" + b"title".ljust(125, b"\0"),
    "APE": ape(),
    "all of them": ape() + b"TAG" + bytes(125) + id3v2(b"x") + id3v2(b"y" * 300),
    "a tag and zeros": b"TAG" + bytes(125) + bytes(2000),
    "junk": np.random.default_rng(0).bytes(3000),
    "zeros": bytes(3000),
    "nothing": b"",
}


def of_eight_channels(seconds: float, keep: Callable[[float], bool]) -> bytes:
    """AAC of 48 kHz in 7.1."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("aac", rate=48_000, layout="7.1")
        samples = (9000 * tone(seconds, 48_000)).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate, frame.pts = 48_000, 0
        resampler = av.AudioResampler("fltp", "7.1", 48_000, 1024)
        frames = [*resampler.resample(frame), *resampler.resample(None), None]
        for packet in (packet for each in frames for packet in stream.encode(each)):
            if keep(float((packet.pts or 0) * packet.time_base)):
                output.mux(packet)
    return file.getvalue()


def test_eight_channels_are_heard_and_a_hole_in_them_is_silence() -> None:
    """PyAV's own conversion reads past eight planes, and ends the process."""
    heard, sound = both_forms(of_eight_channels(3.0, lambda time_s: not 1.0 <= time_s < 2.0))
    assert sound.shape[1] == 2
    assert len(heard) > 40_000
    # The hole is somewhere in the middle, and there is sound on both sides of it.
    assert heard.std() > 0.001
    assert np.abs(heard[22_000:26_000]).max() < np.abs(heard).max() / 10


@pytest.mark.slow
@pytest.mark.parametrize("between", TAGS.values(), ids=TAGS.keys())
@pytest.mark.parametrize(("rate_hz", "layout"), [(44_100, "mono"), (22_050, "stereo")])
def test_mp3_files_put_together_are_heard_to_their_end(
    between: bytes, rate_hz: int, layout: str
) -> None:
    heard, sound = both_forms(mp3(1.5) + between + mp3(2.0, rate_hz, layout))
    assert len(heard) / 16_000 == pytest.approx(3.5, abs=0.2)
    for form, form_hz in ((heard, 16_000), (sound, 44_100)):
        assert loud(form, 0.2, 1.3, form_hz)
        assert loud(form, 1.9, 3.3, form_hz)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("container", "codec"),
    [("adts", "aac"), ("ogg", "libopus"), ("ogg", "flac"), ("flac", "flac")],
)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((24_000, "mono"), (48_000, "stereo")),
        ((48_000, "stereo"), (24_000, "mono")),
        ((48_000, "mono"), (48_000, "mono")),
        ((16_000, "mono"), (8_000, "mono")),
    ],
)
def test_a_stream_may_change_its_rate_and_channels(
    container: str, codec: str, first: tuple[int, str], second: tuple[int, str]
) -> None:
    content = b"".join(
        encoded(container, codec, tone(seconds, rate_hz), rate_hz, layout)
        for seconds, (rate_hz, layout) in ((1.0, first), (1.5, second))
    )
    heard, sound = both_forms(content)
    rate_hz = 48_000 if codec == "libopus" else max(first[0], second[0])
    assert len(heard) / 16_000 == pytest.approx(2.5, abs=0.3)  # AAC's frames
    assert sound.shape[1] == (2 if "stereo" in (first[1], second[1]) else 1)
    for form, form_hz in ((heard, 16_000), (sound, rate_hz)):
        assert loud(form, 0.1, 0.9, form_hz)
        assert loud(form, 1.2, 2.3, form_hz)


@pytest.mark.slow
@pytest.mark.skipif(which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize(
    ("first_hz", "second_hz"), [(24_000, 48_000), (44_100, 8_000), (16_000, 16_000)]
)
def test_chained_vorbis_of_two_rates_is_one_recording(first_hz: int, second_hz: int) -> None:
    links = [
        subprocess.run(
            f"ffmpeg -v error -f lavfi -i sine=440:duration=1.5,volume=4 -ar {rate_hz}"
            " -c:a libvorbis -f ogg -".split(),
            check=True,
            capture_output=True,
        ).stdout
        for rate_hz in (first_hz, second_hz)
    ]
    heard, _ = both_forms(b"".join(links))
    assert len(heard) / 16_000 == pytest.approx(3.0, abs=0.01)
    assert loud(heard, 0.1, 1.4)
    assert loud(heard, 1.6, 2.9)


CONTAINERS: list[tuple[str, str, dict[str, str]]] = [
    ("webm", "libopus", {}),
    ("matroska", "aac", {}),
    ("matroska", "flac", {}),
    ("mp4", "aac", {}),
    ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
    ("mpegts", "aac", {}),
    ("flv", "aac", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec", "options"), CONTAINERS)
def test_a_pause_in_the_time_stamps_is_silence(
    container: str, codec: str, options: dict[str, str]
) -> None:
    rate_hz = 44_100 if codec == "aac" else 48_000
    content = encoded(
        container,
        codec,
        tone(3.0, rate_hz),
        rate_hz,
        move_s=lambda time_s: 2.0 if time_s > 1.0 else 0.0,
        options=options,
    )
    heard, sound = both_forms(content)
    assert len(heard) / 16_000 == pytest.approx(5.0, abs=0.1)
    for form, form_hz in ((heard, 16_000), (sound, rate_hz)):
        assert loud(form, 0.1, 0.95, form_hz)
        assert not loud(form, 1.2, 2.9, form_hz)
        assert loud(form, 3.2, 4.9, form_hz)


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec", "options"), CONTAINERS[:5])
def test_lost_packets_are_silence_in_their_place(
    container: str, codec: str, options: dict[str, str]
) -> None:
    content = encoded(
        container,
        codec,
        tone(4.0, 48_000),
        48_000,
        keep=lambda time_s: not (1.0 <= time_s < 1.5 or 2.0 <= time_s < 2.25),
        options=options,
    )
    heard, _ = both_forms(content)
    assert len(heard) / 16_000 == pytest.approx(4.0, abs=0.1)
    loudness = [loud(heard, at, at + 0.1) for at in (0.8, 1.1, 1.3, 1.6, 1.8, 2.08, 2.4, 3.8)]
    assert loudness == [True, False, False, True, True, False, True, True]


@pytest.mark.parametrize("container", ["webm", "matroska"])
def test_single_packets_that_were_lost_keep_the_rest_in_its_place(container: str) -> None:
    """Every fifth packet of 20 ms."""
    content = encoded(
        container,
        "libopus",
        tone(4.0, 48_000),
        48_000,
        keep=lambda time_s: round(time_s / 0.02) % 5 != 4,
    )
    heard, _ = both_forms(content)
    assert len(heard) / 16_000 == pytest.approx(4.0, abs=0.03)


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_a_time_stamp_of_another_hour_makes_no_hours_of_silence(container: str) -> None:
    content = encoded(
        container,
        "aac",
        tone(3.0, 48_000),
        48_000,
        move_s=lambda time_s: 10_000.0 if time_s > 1.0 else 0.0,
    )
    with FileRecording(content) as recording:
        assert recording.samples / 16_000 == pytest.approx(3.0, abs=0.1)
        (warning,) = recording.warnings
    assert "a time stamp jumps by 10000 s, 1.0" in warning


def test_mpeg_ts_files_put_together_follow_one_another() -> None:
    part = encoded("mpegts", "aac", tone(1.5, 48_000), 48_000)
    heard, _ = both_forms(part * 3)
    assert len(heard) / 16_000 == pytest.approx(4.5, abs=0.2)


@pytest.mark.skipif(which("ffmpeg") is None, reason="needs ffmpeg")
def test_holes_are_where_ffmpeg_fills_them(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(
        encoded(
            "matroska",
            "flac",
            tone(3.0, 48_000),
            48_000,
            move_s=lambda time_s: 0.7 * (time_s > 0.9) + 1.3 * (time_s > 2.0),
        )
    )
    filled = subprocess.run(
        f"ffmpeg -v error -i {path} -af aresample=async=1:first_pts=0 -f f32le -".split(),
        check=True,
        capture_output=True,
    ).stdout
    expected = np.frombuffer(filled, np.float32)
    _, sound = both_forms(path)
    assert len(sound) == pytest.approx(len(expected), abs=100)
    levels = [
        np.sqrt(np.square(form[: 48_000 * 5 - 4800].reshape(-1, 480)).mean(axis=1))
        for form in (sound[:, 0], expected)
    ]
    assert np.count_nonzero(np.abs(levels[0] - levels[1]) > 0.05) <= 4  # of 490, at the edges


@pytest.mark.parametrize(("late_s", "length_s"), [(0.0, 2.0), (0.05, 2.0), (1.0, 3.0)])
def test_sound_that_begins_after_the_pictures_is_heard_after_them(
    tmp_path: Path, late_s: float, length_s: float
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        audio = output.add_stream("pcm_s16le", rate=48_000, layout="mono")
        output.start_encoding()
        for _ in range(75):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        samples = (tone(2.0, 48_000) * 32767).astype(np.int16)
        for start in range(0, len(samples), 4800):
            piece = av.AudioFrame.from_ndarray(samples[None, start : start + 4800], "s16", "mono")
            piece.sample_rate, piece.pts = 48_000, start + round(late_s * 48_000)
            output.mux(audio.encode(piece))
        output.mux(audio.encode(None))
    heard, _ = both_forms(path)
    assert len(heard) / 16_000 == pytest.approx(length_s, abs=0.01)
    assert loud(heard, length_s - 2.0, length_s)
    assert late_s < 1 or not loud(heard, 0.0, 0.99)


@pytest.mark.slow
@pytest.mark.parametrize("container", ["matroska", "mp4"])
@pytest.mark.parametrize("default", [0, 1, 2])
def test_the_default_track_is_heard(container: str, default: int) -> None:
    sounds = [tone(1.0 + index, 48_000) for index in range(3)]
    content = several_tracks(
        sounds, default=default, languages=("ger", "eng", "fre"), container=container
    )
    heard, _ = both_forms(content)
    assert len(heard) / 16_000 == pytest.approx(1.0 + default, abs=0.05)
    for number in (1, 2, 3):
        heard, _ = both_forms(content, track=number)
        assert len(heard) / 16_000 == pytest.approx(number, abs=0.05)


@pytest.mark.parametrize("number", [0, 4])
def test_a_track_that_is_not_there_lists_those_that_are(number: int) -> None:
    content = several_tracks([tone(0.5, 48_000)] * 3, default=1, languages=("ger", "eng", "fre"))
    with pytest.raises(InvalidInput, match=f"no audio track {number}") as caught:
        decode_audio(content, track=number)
    assert "1 is flac, 48000 Hz, mono, language ger, title 'track of ger';" in str(caught.value)
    assert "2 is flac, 48000 Hz, mono, language eng, title 'track of eng', the default;" in str(
        caught.value
    )


def channels_of(*gains: float) -> Float32Array:
    """(channels, samples): one tone in each channel, louder or softer, or inverted."""
    return np.stack([np.float32(gain) * tone(2.0, 48_000) for gain in gains])


@pytest.mark.parametrize(
    ("gains", "layout", "level"),
    [
        ((1.0, -1.0), "stereo", 1.0),
        ((0.5, -0.6), "stereo", 0.6),
        ((1.0, 1.0), "stereo", 1.0),
        ((1.0, 0.0), "stereo", 0.5),
        ((1.0, -0.3), "stereo", 0.35),
        ((0.0, 0.0, 1.0, 0.0, 0.0, 0.0), "5.1", 1 / 6),
        ((1.0, -1.0, 0.0, 0.0, 0.0, 0.0), "5.1", 1.0),
    ],
)
def test_channels_that_cancel_out_are_heard(
    gains: tuple[float, ...], layout: str, level: float
) -> None:
    content = encoded("wav", "pcm_f32le", channels_of(*gains), 48_000, layout)
    heard, _ = both_forms(content)
    np.testing.assert_array_equal(heard, decode_audio(content))
    rms = float(np.sqrt(np.mean(np.square(heard))))
    assert rms == pytest.approx(0.4 / np.sqrt(2) * level, rel=0.02)


def test_wide_stereo_is_averaged_as_ever(make_speech: Callable[..., Float32Array]) -> None:
    """Speech in the middle, and something else, as loud, that is inverted on one side."""
    middle, side = make_speech(1.0, 48_000, 1), make_speech(1.0, 48_000, 2)
    stereo = np.stack([middle + side, middle - side]) * np.float32(0.5)
    content = encoded("wav", "pcm_f32le", stereo, 48_000, "stereo")
    resampler = StreamResampler(48_000, 2)
    columns = np.ascontiguousarray(stereo.T)
    expected = np.concatenate([resampler.push(columns), resampler.flush()])
    np.testing.assert_array_equal(decode_audio(content), expected)


@pytest.mark.parametrize(
    ("name", "length_s", "loud_s"),
    [
        ("joined.mp3", 2.4, [(0.1, 0.4), (1.3, 1.6)]),
        ("joined_24k_mono_48k_stereo.aac", 2.5, [(0.1, 0.4), (1.4, 1.7)]),
        ("chained_24k_48k.ogg", 2.4, [(0.1, 0.4), (1.3, 1.6)]),
        ("gap.webm", 3.2, [(0.1, 0.4), (2.8, 3.0)]),
        ("stereo_inverted.flac", 1.2, [(0.1, 0.4)]),
        ("second_track_is_default.mp4", 1.2, [(0.1, 0.4)]),
    ],
)
def test_the_collected_recordings_are_heard(
    name: str, length_s: float, loud_s: list[tuple[float, float]]
) -> None:
    if not (FAULTS / name).is_file():
        pytest.skip("only where the collected recordings lie beside the repository")
    heard, _ = both_forms(FAULTS / name)
    assert len(heard) / 16_000 == pytest.approx(length_s, abs=0.1)
    for start_s, end_s in loud_s:
        part = heard[round(start_s * 16_000) : round(end_s * 16_000)]
        assert np.sqrt(np.mean(np.square(part))) > 0.02
