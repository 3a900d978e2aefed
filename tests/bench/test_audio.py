"""The benchmark of the audio part runs, and its pieces give the bits of the whole."""

import time
from functools import partial

import pytest

from lipwire.bench import audio, compare
from lipwire.bench.audio import run


@pytest.mark.slow
def test_pieces_are_compared_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the processor does for this process, and not how long it is kept waiting.
    monkeypatch.setattr(audio, "compare", partial(compare, clock_s=time.process_time))
    results = run(rounds=1)
    assert [result.name for result in results] == [
        "mel spectrogram",
        "audio windows",
        "48 kHz to 16 kHz",
    ]
    for result in results:
        assert "times real time" in result.notes
        # A second of speech takes far less than a second.
        assert result.median_a_ms < 4000
