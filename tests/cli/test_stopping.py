import os
import signal
from collections.abc import Iterator

import pytest

from lipwire.cli.stopping import Terminated, end_if_asked, listen


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    listen()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_that_got_lost_is_raised_again(
    number: signal.Signals, error: type[BaseException]
) -> None:
    listen()
    end_if_asked()  # nothing came yet
    with pytest.raises(error):
        os.kill(os.getpid(), number)
    with pytest.raises(error):
        end_if_asked()


def test_ctrl_c_stays_ignored_in_the_background() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listen()
    os.kill(os.getpid(), signal.SIGINT)
    end_if_asked()
