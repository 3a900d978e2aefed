import pytest

from lipwire.domain import Overloaded
from lipwire.session.live import OwnCount


def test_as_many_as_may_run_and_one_more_when_one_has_ended() -> None:
    count = OwnCount()
    count.begin(2)
    count.begin(2)
    with pytest.raises(Overloaded, match=r"^2 live sessions run; allowed are 2$") as refused:
        count.begin(2)
    assert refused.value.retry_after_s
    assert count.running == 2
    count.end()
    count.begin(2)
    count.begin(None)
    assert count.running == 3
