"""Who is let in."""

import threading

import pytest

from lipwire.domain import InvalidInput, Overloaded, Unavailable
from lipwire.rpc.server.admission import Admission


def test_a_kind_is_refused_when_it_is_full_and_others_are_not() -> None:
    admission = Admission({"inference": 1, "loading": 2})
    with admission.admit("inference"):
        with pytest.raises(Overloaded, match="1 inference requests are in hand") as caught:
            admission.admit("inference").__enter__()
        assert caught.value.retry_after_s
        with admission.admit("loading"), admission.admit("loading"):
            assert admission.in_hand == 3
    with admission.admit("inference"):
        assert admission.in_hand == 1


def test_a_place_is_free_again_after_an_error() -> None:
    admission = Admission({"inference": 1})
    for _ in range(3):
        with pytest.raises(RuntimeError), admission.admit("inference"):
            raise RuntimeError
    assert admission.in_hand == 0


def test_requests_have_a_size_together() -> None:
    admission = Admission({"inference": 9, "loading": 9}, max_bytes=100)
    with admission.admit("inference", 60):
        with pytest.raises(
            Overloaded, match="60 bytes of requests are in hand and this one has 41"
        ):
            admission.admit("loading", 41).__enter__()
        with admission.admit("loading", 40):
            assert admission.in_hand == 2
    with admission.admit("inference", 100):
        assert admission.in_hand == 1


def test_draining_waits_for_what_is_in_hand_and_lets_nobody_in() -> None:
    admission = Admission({"inference": 2})
    held = admission.admit("inference")
    held.__enter__()
    assert not admission.drain(0.01)
    assert admission.draining
    with pytest.raises(Unavailable, match="shutting down"):
        admission.admit("inference").__enter__()
    threading.Timer(0.05, held.__exit__, (None, None, None)).start()
    assert admission.drain(60)
    assert admission.in_hand == 0


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="0 loading requests at a time"):
        Admission({"loading": 0})
