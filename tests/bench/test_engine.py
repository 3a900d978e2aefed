"""The engine's benchmark runs and says what it compared."""

import pytest

from lipwire.bench import engine
from lipwire.engine.special.openvino import why_not


@pytest.mark.slow
def test_both_forms_are_compared_at_both_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FULL_WIDTHS", (4, 8, 16, 32, 64))
    monkeypatch.setattr(engine, "MOBILE_WIDTHS", (2, 4, 8, 16, 32))
    comparisons = engine.run(rounds=1)
    specialised = 0 if why_not() else 3
    assert len({comparison.name for comparison in comparisons}) == 4 + specialised
    assert all(comparison.ratio > 0 for comparison in comparisons)
