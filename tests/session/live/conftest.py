import pytest
from tests.support.liveparts import LiveTime


@pytest.fixture
def time() -> LiveTime:
    return LiveTime()
