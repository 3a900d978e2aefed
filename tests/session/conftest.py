"""A performer made from the small package."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lipwire.domain import Float32Array
from lipwire.session import Performer
from lipwire.wiring import open_performer


@pytest.fixture
def performer(avatar_package: Path) -> Iterator[Performer]:
    with open_performer(avatar_package, parts=frozenset({"planes", "jpeg"})) as opened:
        yield opened


@pytest.fixture
def speech() -> Float32Array:
    """1.3 s at 16 kHz, so that the last frame is filled partly: a voice-like buzz that swells."""
    times_s = np.arange(20_900) / 16_000
    buzz = sum(np.sin(2 * np.pi * 140 * k * times_s) / k for k in range(1, 12))
    return (0.2 * buzz * np.sin(2 * np.pi * 2.5 * times_s) ** 2).astype(np.float32)
