import pytest

from lipwire.domain import InvalidInput
from lipwire.session.live import SessionSettings


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("sound rate", "sound_rate_hz", 7_999),
        ("sound rate", "sound_rate_hz", 96_050),
        ("sound rate", "sound_rate_hz", 16_001),
        ("start_frame", "start_frame", -1),
        ("lookahead_ms", "lookahead_ms", 452.6),
        ("crossfade_frames", "crossfade_frames", 13),
        ("end_of_speech_timeout", "end_of_speech_timeout_s", 0.05),
        ("max_buffered_speech", "max_buffered_speech_s", 0.5),
        ("max_buffered_speech", "max_buffered_speech_s", float("nan")),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, key: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"{name}.*allowed: "):
        SessionSettings(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("rate_hz", "piece"), [(8_000, 160), (44_100, 882), (48_000, 960)])
def test_sound_leaves_in_whole_samples(rate_hz: int, piece: int) -> None:
    settings = SessionSettings(sound_rate_hz=rate_hz)
    assert (settings.piece_samples, settings.frame_samples) == (piece, 2 * piece)
