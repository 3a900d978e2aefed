"""Recordings that are longer than what is read ahead of them."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from tests.audio.soundfiles import encoded, tone
from tests.support.decoding import Decoding

from lipwire.audio import FileRecording, decode_audio, heard_in_full, redone_if_changed
from lipwire.audio.recordings import passes
from lipwire.audio.recordings.passes import FormChanged
from lipwire.domain import Float32Array, InvalidInput

AHEAD_S = 1.0
Forms = tuple[Float32Array, Float32Array]


@pytest.fixture(autouse=True)
def little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "AHEAD_S", AHEAD_S)


def forms(recording: FileRecording) -> Forms:
    def gathered() -> Forms:
        pieces = list(recording.pieces())
        heard = np.concatenate([piece.heard for piece in pieces])
        return heard, np.concatenate([piece.sound for piece in pieces])

    return redone_if_changed(recording, gathered)


def known_from_the_start(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Forms:
    with monkeypatch.context() as patch:
        patch.setattr(passes, "AHEAD_S", 3600.0)
        with FileRecording(content) as recording:
            return forms(recording)


def same(one: Forms, other: Forms) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def inverted_from(start_s: float, level_before: float) -> bytes:
    """5 s of stereo: alike on both sides before ``start_s``, then one the inverse of the other."""
    left = tone(5.0, 48_000)
    left[: round(start_s * 48_000)] *= np.float32(level_before)
    right = left.copy()
    right[round(start_s * 48_000) :] *= np.float32(-1.02)
    return encoded("wav", "pcm_f32le", np.stack([left, right]), 48_000, "stereo")


def joined(container: str, codec: str, *parts: tuple[float, int, str]) -> bytes:
    return b"".join(
        encoded(container, codec, tone(seconds, rate_hz), rate_hz, layout)
        for seconds, rate_hz, layout in parts
    )


ONE_FORM: dict[str, Callable[[], bytes]] = {
    "wav": lambda: encoded("wav", "pcm_s16le", tone(5.0, 44_100), 44_100, "stereo"),
    "6 channels": lambda: encoded("wav", "pcm_f32le", tone(3.0, 48_000), 48_000, "5.1"),
    "flac": lambda: encoded("flac", "flac", tone(5.0, 22_050), 22_050),
    "mp3": lambda: encoded("mp3", "libmp3lame", tone(5.0, 44_100), 44_100),
    "m4a": lambda: encoded("mp4", "aac", tone(5.0, 48_000), 48_000, "stereo"),
    "aac": lambda: encoded("adts", "aac", tone(5.0, 48_000), 48_000, "stereo"),
    "opus": lambda: encoded("ogg", "libopus", tone(5.0, 48_000), 48_000),
    "webm": lambda: encoded("webm", "libopus", tone(5.0, 48_000), 48_000),
    "ts": lambda: encoded("mpegts", "aac", tone(5.0, 48_000), 48_000),
    "joined": lambda: joined("mp3", "libmp3lame", (3.0, 44_100, "mono"), (2.0, 44_100, "mono")),
    "with a hole": lambda: encoded(
        "matroska", "flac", tone(4.0, 48_000), 48_000, move_s=lambda at_s: 2.0 * (at_s > 2.5)
    ),
    "inverted": lambda: inverted_from(0.0, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_FORM)
def test_one_pass_decodes_each_packet_once_and_gives_both_forms(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = ONE_FORM[name]()
    expected = known_from_the_start(content, monkeypatch)
    with Decoding(monkeypatch) as decoding, FileRecording(content) as recording:
        ahead_s = recording.samples / 16_000
        assert same(forms(recording), expected)
        assert recording.samples == len(expected[0])
        assert ahead_s == pytest.approx(recording.samples / 16_000, abs=0.1)
    assert decoding.once(2 if name == "joined" else 1)


CHANGES: dict[str, Callable[[], bytes]] = {
    "a higher rate": lambda: joined("flac", "flac", (3.0, 16_000, "mono"), (2.0, 48_000, "mono")),
    "more channels": lambda: joined(
        "ogg", "libopus", (3.0, 48_000, "mono"), (2.0, 48_000, "stereo")
    ),
    "both": lambda: joined("adts", "aac", (3.0, 24_000, "mono"), (2.0, 48_000, "stereo")),
    "cancelled out at the end": lambda: inverted_from(3.0, 0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", CHANGES.values(), ids=CHANGES)
def test_a_change_behind_what_is_read_ahead_counts_from_the_beginning(
    make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = make()
    expected = known_from_the_start(content, monkeypatch)
    with FileRecording(content) as recording:
        with pytest.raises(FormChanged):
            list(recording.pieces())
        assert same(forms(recording), expected)
        assert expected[1].shape[1] == recording.channels
    np.testing.assert_array_equal(decode_audio(content), expected[0])
    with FileRecording(content) as recording:
        recording.examine()
        assert same(forms(recording), expected)


def test_what_changes_nothing_for_the_whole_is_no_change() -> None:
    down = joined("flac", "flac", (3.0, 48_000, "stereo"), (2.0, 16_000, "mono"))
    with FileRecording(down) as recording:
        assert sum(len(piece.heard) for piece in recording.pieces()) == 5 * 16_000


@pytest.mark.slow
@pytest.mark.parametrize("examined_first", [False, True])
def test_passes_follow_one_another(examined_first: bool) -> None:
    with FileRecording(ONE_FORM["m4a"]()) as recording:
        if examined_first:
            recording.examine()
        first = forms(recording)
        assert same(forms(recording), first)
        np.testing.assert_array_equal(heard_in_full(recording), first[0])
        recording.examine()
        assert same(forms(recording), first)


def test_a_closed_recording_is_not_examined() -> None:
    recording = FileRecording(damaged_at(0.6))
    recording.close()
    with pytest.raises(InvalidInput, match="the recording is closed"):
        recording.examine()


def test_a_pass_that_is_left_is_begun_anew() -> None:
    with FileRecording(ONE_FORM["flac"]()) as recording:
        for _ in range(2):
            for count, _ in enumerate(pieces := recording.pieces()):
                if count == 3:
                    break
            pieces.close()
        assert len(forms(recording)[0]) == 5 * 16_000


def damaged_at(share: float) -> bytes:
    content = bytearray(encoded("mp4", "aac", tone(6.0, 44_100), 44_100))
    at = int(len(content) * share)
    content[at : at + 500] = b"\xff" * 500
    return bytes(content)


def test_damage_is_told_where_it_is_met() -> None:
    with pytest.raises(InvalidInput, match=r"is damaged 0\.\d\d s after its beginning"):
        FileRecording(damaged_at(0.1))
    with FileRecording(damaged_at(0.6)) as recording:
        assert next(recording.pieces()) is not None
        with pytest.raises(InvalidInput, match=r"is damaged 3\.\d\d s after its beginning"):
            list(recording.heard())
        with pytest.raises(InvalidInput, match=r"is damaged 3\.\d\d s after its beginning"):
            recording.examine()


def test_allowed_damage_is_warned_about_once_it_was_met() -> None:
    with FileRecording(damaged_at(0.6), allow_damaged=True) as recording:
        assert not recording.warnings
        first = forms(recording)
        warned = recording.warnings
        assert ["s of silence there" in warning for warning in warned] == [True]
        assert same(forms(recording), first)
        assert recording.warnings == warned


def nan_at(time_s: float) -> bytes:
    content = encoded("wav", "pcm_f32le", np.zeros(16_000 * 4, np.float32), 16_000)
    at = len(content) - 4 * 16_000 * 4 + 4 * round(time_s * 16_000)
    return content[:at] + struct.pack("<f", np.nan) + content[at + 4 :]


def test_samples_that_are_no_sound_are_told_where_they_are_met() -> None:
    with pytest.raises(InvalidInput, match="size nan"):
        FileRecording(nan_at(0.5))
    with FileRecording(nan_at(3.0)) as recording, pytest.raises(InvalidInput, match="size nan"):
        forms(recording)


def index_in_front(content: bytes) -> bytes:
    """An MP4 file whose index, which comes last, is put in front of the sound."""
    boxes = {}
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        boxes[content[at + 4 : at + 8]] = content[at : at + size]
        at += size
    index = boxes.pop(b"moov")
    count_at = index.index(b"stco") + 8
    count = int.from_bytes(index[count_at : count_at + 4], "big")
    offsets = struct.unpack_from(f">{count}I", index, count_at + 4)
    moved = struct.pack(f">{count}I", *(offset + len(index) for offset in offsets))
    index = index[: count_at + 4] + moved + index[count_at + 4 + len(moved) :]
    return boxes.pop(b"ftyp") + index + b"".join(boxes.values())


@pytest.mark.parametrize(
    "content",
    [
        encoded("wav", "pcm_s16le", tone(6.0, 44_100), 44_100),
        encoded("flac", "flac", tone(6.0, 44_100), 44_100),
        encoded("aiff", "pcm_s16be", tone(6.0, 44_100), 44_100),
        encoded("matroska", "flac", tone(6.0, 44_100), 44_100),
        index_in_front(encoded("mp4", "aac", tone(6.0, 44_100), 44_100)),
    ],
    ids=["wav", "flac", "aiff", "matroska", "mp4"],
)
def test_a_file_that_is_cut_short_is_refused_at_once(content: bytes) -> None:
    with FileRecording(content) as recording:
        assert recording.warnings == ()
    with pytest.raises(InvalidInput, match="truncated"):
        FileRecording(content[: len(content) * 2 // 3])
    with FileRecording(content[: len(content) * 2 // 3], allow_damaged=True) as recording:
        assert len(recording.warnings) == 1
        assert recording.samples / 16_000 == pytest.approx(4.0, abs=0.3)


def test_too_long_a_recording_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MAX_AUDIO_S", 4)
    monkeypatch.setattr("lipwire.audio.recordings.recording.MAX_AUDIO_S", 4)
    with pytest.raises(InvalidInput, match="longer than 4 s, the most allowed"):
        FileRecording(ONE_FORM["m4a"]())


def test_the_loudness_is_that_of_the_whole() -> None:
    sound = tone(4.0, 16_000)
    sound[: 2 * 16_000] *= np.float32(0.1)
    with FileRecording(encoded("wav", "pcm_f32le", sound, 16_000)) as recording:
        assert recording.loudest_rms == pytest.approx(0.04 / np.sqrt(2), rel=0.01)
        list(recording.heard())
        assert recording.loudest_rms == pytest.approx(0.4 / np.sqrt(2), rel=0.01)
