import pytest

from lipwire.domain import InvalidInput
from lipwire.session.live import SessionRules


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("max_sessions", "max_sessions", 0),
        ("max_duration", "max_duration_s", 0.5),
        ("max_idle", "max_idle_s", 0),
        ("nobody_joined_timeout", "nobody_joined_timeout_s", 0),
        ("reconnect_grace", "reconnect_grace_s", -1),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, key: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is {value:g}; allowed"):
        SessionRules(**{key: value})  # type: ignore[arg-type]


def test_none_is_no_limit() -> None:
    SessionRules(max_sessions=None, max_duration_s=None, max_idle_s=None)
