"""A server's avatar as a render uses it."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import until

from lipwire.domain import Call, Cancelled, Overloaded, Revision, Unavailable
from lipwire.renders.served import ServedPerformer
from lipwire.session import Stopwatch

WINDOWS = np.zeros((2, 32, 16, 16), np.float32)


class Network:
    """Has no room for the first requests."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[int, Call]] = []
        self.revisions: list[str] = []

    def mouths(self, first: int, windows: Any, *, call: Call) -> Any:
        self.asked.append((first, call))
        if self.errors:
            raise self.errors.pop(0)
        made_by = self.revisions.pop(0) if self.revisions else ""
        pixels = np.full((len(windows), 320, 320, 3), first, np.uint8)
        return SimpleNamespace(revision=made_by, pixels=pixels)


def performer(network: Network, call: Call, own_revision: str = "") -> ServedPerformer:
    loaded: Any = SimpleNamespace(
        frames=object(), network=network, revision=Revision("frames", own_revision)
    )
    encoder: Any = None
    return ServedPerformer(loaded, encoder, call)


def test_mouths_are_asked_for_behind_live_sessions_until_there_is_room() -> None:
    call = Call(None, service="render", tenant="acme")
    full = Overloaded("the queue is full", retry_after_s=0.001)
    network = Network(full, full)
    mouths = performer(network, call).mouths(7, WINDOWS, Stopwatch())
    assert mouths.shape == (2, 320, 320, 3)
    assert (mouths == 7).all()
    assert [first for first, _ in network.asked] == [7, 7, 7]
    assert {(one.service, one.tenant) for _, one in network.asked} == {("render", "acme")}


@pytest.mark.parametrize(
    ("own", "told", "known"),
    [
        ("n1", ["", ""], "n1"),
        ("", ["n1", "n1"], "n1"),
        ("", ["n1", "n2"], ""),
        ("", ["n1", ""], ""),
        ("", ["", ""], ""),
    ],
)
def test_which_network_has_made_the_mouths_is_known_where_all_say_the_same(
    own: str, told: list[str], known: str
) -> None:
    network = Network()
    network.revisions = list(told)
    made = performer(network, Call(None), own)
    for _ in told:
        made.mouths(0, WINDOWS, Stopwatch())
    assert made.model_revision == known


def test_who_is_cancelled_waits_no_longer() -> None:
    call = Call(None, service="render")
    network = Network(*[Overloaded("full", retry_after_s=600) for _ in range(9)])
    raised: list[Exception] = []

    def ask() -> None:
        try:
            performer(network, call).mouths(0, WINDOWS, Stopwatch())
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: network.asked)
    call.end()
    thread.join()
    assert isinstance(raised[0], Cancelled)
    assert len(network.asked) == 1


def test_other_errors_are_the_renders() -> None:
    network = Network(Unavailable("the server is gone"))
    with pytest.raises(Unavailable):
        performer(network, Call(None)).mouths(0, WINDOWS, Stopwatch())
