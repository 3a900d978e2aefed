"""Leases: how many live sessions fit by measured speed, and for how long each holds its share."""

import threading

import pytest
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Call, DeadlineExceeded, InvalidInput, LipwireError, Overloaded
from lipwire.serving import LEASE_S, FrameCost, LeasesStats, Speed, SpeedLeases
from lipwire.serving.leases import SHARE

CALL = Call(None, service="live")


class Machine:
    """Networks with a speed each, known once it was measured."""

    def __init__(self, share: float = SHARE, **frame_ms: float) -> None:
        self.speeds = {
            name: Speed(0, milliseconds / 1000, 2) for name, milliseconds in frame_ms.items()
        }
        self.known: set[str] = set()
        self.measured: list[str] = []
        self.devices = [0]
        self.clock = Clock()
        self.expected: list[tuple[int, float]] = []
        """(device, seconds) of each time that live frames were announced."""
        self.leases = SpeedLeases(
            lambda name: self.speeds[name] if name in self.known else None,
            self._measure,
            lambda: self.devices,
            lambda device, for_s: self.expected.append((device, for_s)),
            share=share,
            clock=self.clock,
        )

    def _measure(self, name: str, call: Call) -> Speed:
        self.measured.append(name)
        self.known.add(name)
        return self.speeds[name]

    def fill(self, name: str) -> int:
        """Let sessions begin until one is refused; how many did."""
        for number in range(100):
            try:
                self.leases.acquire(f"{name}-{number}", name, CALL)
            except Overloaded:
                return number
        raise AssertionError("there is no end")


@pytest.mark.parametrize(
    ("frame_ms", "workers", "fit"),
    # 0.9 of the workers' time, divided by 25 frames of each session
    [(24, 2, 3), (18, 2, 4), (10, 2, 7), (36, 1, 1), (12, 1, 3), (1, 1, 36)],
)
def test_as_many_sessions_fit_as_the_speed_allows(frame_ms: float, workers: int, fit: int) -> None:
    machine = Machine()
    machine.speeds["anna"] = Speed(0, frame_ms / 1000, workers)
    assert machine.fill("anna") == fit


def test_a_device_may_get_live_frames_for_as_long_as_a_share_is_held() -> None:
    machine = Machine(anna=24, bert=24)
    machine.speeds["bert"] = Speed(1, 0.024, 2)
    machine.leases.acquire("one", "anna", CALL)
    machine.leases.acquire("two", "bert", CALL)
    assert machine.expected == [(0, LEASE_S), (1, LEASE_S)]
    machine.leases.acquire("one", "anna", CALL)  # renewed
    assert machine.expected[2:] == [(0, LEASE_S)]
    del machine.expected[:]
    machine.fill("anna")
    with pytest.raises(Overloaded):
        machine.leases.acquire("more", "anna", CALL)
    assert machine.expected == [(0, LEASE_S)] * 2


def test_whoever_is_refused_is_told_how_many_run_and_fit() -> None:
    machine = Machine(anna=24)
    machine.fill("anna")
    with pytest.raises(Overloaded) as caught:
        machine.leases.acquire("late", "anna", CALL)
    assert str(caught.value) == (
        "3 live sessions run here; 3 fit, as a frame of avatar anna takes 24 ms on 2 workers"
    )
    assert caught.value.retry_after_s


def test_a_network_is_measured_before_the_first_session_and_not_again() -> None:
    machine = Machine(anna=24)
    machine.leases.acquire("first", "anna", CALL)
    machine.leases.acquire("second", "anna", CALL)
    assert machine.measured == ["anna"]
    machine.known.clear()  # nothing was run for a minute
    machine.leases.acquire("third", "anna", CALL)
    assert machine.measured == ["anna", "anna"]


def test_one_session_runs_where_the_device_is_too_slow_for_any() -> None:
    assert Machine(anna=500).fill("anna") == 1


def test_each_session_counts_by_its_own_avatar() -> None:
    machine = Machine(slow=36, fast=9)  # 0.45 and 0.1125 of the device
    machine.leases.acquire("slow", "slow", CALL)
    assert machine.fill("fast") == 4


def test_each_device_has_its_own_share() -> None:
    machine = Machine(anna=24, bert=24)
    machine.speeds["bert"] = Speed(1, 0.024, 2)
    machine.devices = [0, 1]
    assert machine.fill("anna") == 3
    assert machine.fill("bert") == 3
    assert machine.leases.stats() == LeasesStats(6, 6)


def test_a_share_ends_by_itself_unless_it_is_renewed() -> None:
    machine = Machine(anna=36)
    for holder in ("renewed", "forgotten"):
        machine.leases.acquire(holder, "anna", CALL)
    machine.clock.now += LEASE_S / 2
    machine.leases.acquire("renewed", "anna", CALL)
    with pytest.raises(Overloaded):
        machine.leases.acquire("new", "anna", CALL)
    machine.clock.now += LEASE_S / 2
    machine.leases.acquire("new", "anna", CALL)
    with pytest.raises(Overloaded):
        machine.leases.acquire("forgotten", "anna", CALL)


def test_who_is_refused_comes_again_when_a_share_ends_that_is_not_renewed_in_time() -> None:
    machine = Machine(anna=36, bert=36)
    machine.speeds["bert"] = Speed(1, 0.036, 2)
    machine.devices = [0, 1]
    for holder in ("one", "two"):
        machine.leases.acquire(holder, "anna", CALL)
    machine.clock.now += LEASE_S / 2
    machine.fill("bert")  # of another device, and not renewed either
    machine.leases.acquire("one", "anna", CALL)

    def retry_after_s(model_id: str) -> float | None:
        with pytest.raises(Overloaded) as refused:
            machine.leases.acquire("new", model_id, CALL)
        return refused.value.retry_after_s

    assert retry_after_s("anna") == 5
    machine.clock.now += LEASE_S / 4
    assert retry_after_s("anna") == pytest.approx(LEASE_S / 4)
    assert retry_after_s("bert") == 5
    machine.clock.now += LEASE_S / 4 - 0.01
    assert retry_after_s("anna") == 0.25
    machine.clock.now += 0.01
    machine.leases.acquire("new", "anna", CALL)


def test_a_share_that_is_given_back_is_free_at_once() -> None:
    machine = Machine(anna=36)
    assert machine.fill("anna") == 2
    machine.leases.release("anna-0")
    machine.leases.release("nobody")
    machine.leases.acquire("new", "anna", CALL)


def test_who_holds_a_share_keeps_it_when_the_device_gets_slower_and_nobody_new_comes_in() -> None:
    machine = Machine(anna=12)
    assert machine.fill("anna") == 6
    machine.speeds["anna"] = Speed(0, 0.036, 2)
    for number in range(6):
        machine.leases.acquire(f"anna-{number}", "anna", CALL)
    with pytest.raises(Overloaded, match="6 live sessions run here; 2 fit"):
        machine.leases.acquire("new", "anna", CALL)


def test_another_avatar_of_the_same_session_takes_the_place_of_the_first() -> None:
    machine = Machine(anna=36, bert=18, slow=40)
    assert machine.fill("anna") == 2
    machine.leases.acquire("anna-0", "bert", CALL)
    with pytest.raises(Overloaded):  # 0.45 and 0.5
        machine.leases.acquire("anna-0", "slow", CALL)
    assert machine.leases.stats().held == 2
    machine.leases.acquire("bert-2", "bert", CALL)  # 0.45 and twice 0.225


def test_numbers_are_those_of_this_moment() -> None:
    machine = Machine(anna=24)
    assert machine.leases.stats() == LeasesStats(0, None)
    machine.leases.acquire("first", "anna", CALL)
    assert machine.leases.stats() == LeasesStats(1, 3)
    machine.clock.now += LEASE_S
    assert machine.leases.stats() == LeasesStats(0, 3)


def test_sessions_that_begin_together_get_no_more_than_fits() -> None:
    machine = Machine(anna=24)
    refused: list[LipwireError] = []

    def begin(number: int) -> None:
        try:
            machine.leases.acquire(f"anna-{number}", "anna", CALL)
        except Overloaded as error:
            refused.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(refused) == 9
    assert machine.measured == ["anna"]


def test_waiting_for_others_that_are_measured_ends_with_the_deadline() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def measure(name: str, call: Call) -> Speed:
        entered.set()
        assert go_on.wait(WAIT_S)
        return Speed(0, 0.01, 1)

    leases = SpeedLeases(lambda name: None, measure, lambda: [0], lambda device, for_s: None)
    first = threading.Thread(target=leases.acquire, args=("first", "anna", CALL))
    first.start()
    until(entered.is_set)
    with pytest.raises(DeadlineExceeded):
        leases.acquire("second", "bert", Call(0.0))
    go_on.set()
    first.join(WAIT_S)


@pytest.mark.parametrize("holder", ["", "x" * 201])
def test_holders_without_a_proper_name_are_refused(holder: str) -> None:
    with pytest.raises(InvalidInput, match=f"holder has {len(holder)} characters"):
        Machine(anna=24).leases.acquire(holder, "anna", CALL)


def test_a_share_may_be_more_than_there_is() -> None:
    machine = Machine(share=1000.0, anna=36)
    for number in range(100):
        machine.leases.acquire(f"session-{number}", "anna", CALL)
    assert machine.leases.stats().held == 100


def test_the_cost_of_a_frame_is_a_mean_of_the_latest() -> None:
    cost = FrameCost()
    for _ in range(25):
        cost.took(1.0)  # as libraries are loaded
    assert cost.frame_s == 0
    for frame_s in (0.002, 0.004, 0.006):
        cost.took(frame_s)
    assert cost.frame_s == pytest.approx(0.004)
    for _ in range(5000):
        cost.took(0.010)
    assert cost.frame_s == pytest.approx(0.010, rel=1e-3)
