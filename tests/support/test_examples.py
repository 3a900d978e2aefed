from collections.abc import Iterator

import pytest
from hypothesis import settings
from tests.support.examples import USUAL, examples


@pytest.fixture
def profile() -> Iterator[None]:
    before = settings.get_current_profile_name()
    yield
    settings.load_profile(before)


@pytest.mark.parametrize(
    ("name", "counts"), [("ci", [1, 60, 300]), ("default", [1, 60, 300]), ("fast", [1, 12, 60])]
)
@pytest.mark.usefixtures("profile")
def test_a_quick_profile_has_less_of_every_number(name: str, counts: list[int]) -> None:
    settings.load_profile(name)
    assert [examples(count) for count in (1, 60, 300)] == counts


def test_what_is_usual_is_what_hypothesis_has() -> None:
    assert settings.get_profile("ci").max_examples == USUAL
