"""Which device a model gets: any order of claims, loads, unloads and losses keeps the rules."""

import threading
from collections import Counter
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from lipwire.domain import InvalidInput, Unavailable
from lipwire.rpc.backends.placement import Home, Placement

DEVICES = (0, 1, 3)
MOST = 3
NAMES = st.sampled_from("abcdefgh")


def place(placement: Placement, name: str, held_bytes: int | None = None) -> int:
    """Claim, load and release, as a request for a cold model does; where it went."""
    home = placement.claim(name)
    loaded = placement.opened(name, home.device)
    if held_bytes is not None:
        placement.measured(loaded, held_bytes)
    placement.release(home)
    return home.device


def test_round_robin_gives_each_device_its_turn() -> None:
    placement = Placement("round-robin", DEVICES, most=10)
    assert [place(placement, name, 10**9) for name in "abcdefg"] == [0, 1, 3, 0, 1, 3, 0]


def test_least_loaded_goes_to_the_device_that_holds_least() -> None:
    placement = Placement("least-loaded", (0, 1), most=10)
    assert place(placement, "big", 100) == 0
    assert [place(placement, name, 30) for name in "abcd"] == [1, 1, 1, 1]
    assert place(placement, "e", 30) == 0


def test_what_is_being_loaded_counts_before_it_is_measured() -> None:
    placement = Placement("least-loaded", (0, 1), most=100)
    first = Counter(place(placement, f"cold-{number}") for number in range(10))
    assert first == {0: 5, 1: 5}


def test_the_size_of_a_new_version_takes_the_place_of_the_old_one() -> None:
    placement = Placement("least-loaded", (0, 1), most=10)
    old = placement.opened("a", 0)
    placement.measured(old, 100)
    new = placement.opened("a", 0)
    placement.measured(new, 10)
    placement.closed(old)
    assert place(placement, "b", 50) == 1
    assert place(placement, "c", 50) == 0


@pytest.mark.parametrize("strategy", ["round-robin", "least-loaded"])
def test_a_model_stays_where_it_is_until_it_is_gone(
    strategy: Literal["round-robin", "least-loaded"],
) -> None:
    placement = Placement(strategy, (0, 1), most=10)
    first = placement.claim("a")
    held = placement.opened("a", first.device)
    placement.measured(held, 10**9)
    for _ in range(100):  # however much is asked of it
        assert placement.claim("a").device == first.device
    for _ in range(101):
        placement.release(first)
    assert placement.models_on(first.device) == {"a"}
    placement.closed(held)
    assert placement.models_on(first.device) == frozenset()


def test_a_full_device_is_passed_over_while_another_has_room() -> None:
    placement = Placement("round-robin", (0, 1), most=2)
    homes = [placement.opened(name, 0) for name in "ab"]
    assert [place(placement, name) for name in "cd"] == [1, 1]
    assert place(placement, "e") in (0, 1)  # one of them has to evict
    placement.closed(homes[0])
    placement.closed(homes[1])


def test_the_models_of_a_lost_device_get_homes_on_the_others() -> None:
    placement = Placement("round-robin", (0, 1), most=10)
    assert place(placement, "a") == 0
    under_way = placement.claim("a")
    placement.lose(0)
    placement.lose(0)
    assert placement.devices == (1,)
    assert placement.claim("a").device == 1
    placement.release(under_way)  # too late to matter
    assert placement.models_on(1) == {"a"}
    placement.opened("b", 0)
    assert placement.claim("b").device == 1, "a load that began before the loss is no home"
    placement.lose(1)
    with pytest.raises(Unavailable, match="no GPU is left"):
        placement.claim("a")


def test_a_home_that_is_to_be_avoided_is_given_up() -> None:
    placement = Placement("round-robin", (0, 1), most=10)
    first = placement.claim("a")
    second = placement.claim("a", avoiding={first.device})
    assert (first.device, second.device) == (0, 1)
    placement.release(first)
    assert placement.claim("a") is second
    with pytest.raises(Unavailable):
        placement.claim("b", avoiding={0, 1})


def test_who_asks_at_once_for_a_cold_model_gets_one_home() -> None:
    placement = Placement("round-robin", DEVICES, most=10)
    homes: list[Home] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        homes.append(placement.claim("a"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, homes))) == 1


@pytest.mark.parametrize(
    ("strategy", "devices", "most"),
    [("random", (0,), 1), ("round-robin", (), 1), ("round-robin", (1, 1), 1), ("lru", (0,), 0)],
)
def test_what_makes_no_sense_is_refused(
    strategy: Literal["round-robin"], devices: tuple[int, ...], most: int
) -> None:
    with pytest.raises(InvalidInput, match="allowed are"):
        Placement(strategy, devices, most=most)


class Rules(RuleBasedStateMachine):
    """Requests, loads, evictions and losses in any order; the model is plain sets and counters."""

    claims = Bundle("claims")
    loads = Bundle("loads")
    strategy: Literal["round-robin", "least-loaded"]

    def __init__(self) -> None:
        super().__init__()
        self.placement = Placement(self.strategy, DEVICES, most=MOST)
        self.left = set(DEVICES)
        self.holders: dict[str, list[Home]] = {}
        """Requests and loads that keep a model at home, by its name."""

    def kept(self, name: str) -> Home | None:
        return next((h for h in self.holders.get(name, []) if h.device in self.left), None)

    @rule(target=claims, name=NAMES)
    def claim(self, name: str) -> Home | None:
        if not self.left:
            with pytest.raises(Unavailable):
                self.placement.claim(name)
            return None
        before = {device: len(self.placement.models_on(device)) for device in self.left}
        stays = self.kept(name)
        home = self.placement.claim(name)
        assert home.device in self.left
        if stays is not None:
            assert home is stays
        elif any(count < MOST for count in before.values()):
            assert before[home.device] < MOST
        self.holders.setdefault(name, []).append(home)
        return home

    @rule(target=loads, home=claims, held_bytes=st.none() | st.integers(0, 1000))
    def open(self, home: Home | None, held_bytes: int | None) -> Home | None:
        if home is None or home not in self.holders.get(home.model_id, []):
            return None  # that request is over
        opened = self.placement.opened(home.model_id, home.device)
        if home.device in self.left:
            assert opened is home
        if held_bytes is not None:
            self.placement.measured(opened, held_bytes)
        self.holders[home.model_id].append(opened)
        return opened

    @rule(home=consumes(claims))
    def release(self, home: Home | None) -> None:
        if home is not None:
            self.holders[home.model_id].remove(home)
            self.placement.release(home)

    @rule(home=consumes(loads))
    def close(self, home: Home | None) -> None:
        if home is not None:
            self.holders[home.model_id].remove(home)
            self.placement.closed(home)

    @rule(device=st.sampled_from(DEVICES))
    def lose(self, device: int) -> None:
        if len(self.left) > 1 or device not in self.left:
            self.left.discard(device)
            self.placement.lose(device)

    @invariant()
    def who_is_at_home_is_who_is_kept(self) -> None:
        assert set(self.placement.devices) == self.left
        for device in DEVICES:
            kept = {
                name
                for name, homes in self.holders.items()
                if any(home.device == device for home in homes) and device in self.left
            }
            assert self.placement.models_on(device) == kept

    @invariant()
    def nothing_is_counted_twice_or_forgotten(self) -> None:
        for device in self.left:
            homes = {id(h): h for hs in self.holders.values() for h in hs if h.device == device}
            tally = self.placement._tallies[device]
            sizes = [h.held_bytes for h in homes.values() if h.held_bytes is not None]
            assert (tally.homes, tally.measured) == (len(homes), len(sizes))
            assert tally.held_bytes == sum(sizes)


class RoundRobin(Rules):
    strategy = "round-robin"


class LeastLoaded(Rules):
    strategy = "least-loaded"


for machine in (RoundRobin, LeastLoaded):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRoundRobin = RoundRobin.TestCase
TestLeastLoaded = LeastLoaded.TestCase
