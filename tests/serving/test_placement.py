"""Which device a model gets: any order of claims, loads, unloads and losses keeps the rules."""

from collections import Counter
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from tests.support.examples import examples

from lipwire.domain import InvalidInput, Unavailable
from lipwire.serving.placement import Home, Placement

DEVICES = (0, 1, 3)
MOST = 3
NAMES = st.sampled_from("abcdefgh")


def place(placement: Placement, name: str, held_bytes: int | None = None) -> int:
    """Load a model; where it went."""
    home = placement.opened(name)
    if held_bytes is not None:
        placement.measured(home, held_bytes)
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


def test_what_is_unloaded_takes_no_room_any_more() -> None:
    placement = Placement("least-loaded", (0, 1), most=10)
    old = placement.opened("a")
    placement.measured(old, 100)
    assert place(placement, "b", 50) == 1
    placement.closed(old)
    placement.closed(old)
    assert place(placement, "c", 10) == 0


def test_of_two_homes_the_newer_is_where_a_model_is() -> None:
    placement = Placement("round-robin", (0, 1), most=10)
    old, new = placement.opened("a"), placement.opened("a")
    assert placement.home_of("a") is new
    placement.closed(old)
    assert placement.home_of("a") is new
    placement.closed(new)
    assert placement.home_of("a") is None


def test_a_full_device_is_passed_over_while_another_has_room() -> None:
    placement = Placement("round-robin", (0, 1), most=2)
    homes = {name: placement.opened(name) for name in "abcd"}
    placement.closed(homes["b"])
    placement.closed(homes["d"])
    # Device 0 is full and its turn it is.
    assert [place(placement, name) for name in "ef"] == [1, 1]
    assert place(placement, "g") in (0, 1)  # none has room


def test_a_lost_device_has_no_models_and_gets_none() -> None:
    placement = Placement("round-robin", (0, 1), most=10)
    home = placement.opened("a")
    assert home.device == 0
    placement.lose(0)
    placement.lose(0)
    assert placement.devices == (1,)
    assert placement.home_of("a") is None
    placement.measured(home, 100)  # too late to matter
    placement.closed(home)
    assert [place(placement, name) for name in "ab"] == [1, 1]
    placement.lose(1)
    with pytest.raises(Unavailable, match="no GPU is left"):
        placement.opened("a")


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
    """Loads, evictions and losses in any order; the model is a plain list."""

    loads = Bundle("loads")
    strategy: Literal["round-robin", "least-loaded"]

    def __init__(self) -> None:
        super().__init__()
        self.placement = Placement(self.strategy, DEVICES, most=MOST)
        self.left = set(DEVICES)
        self.open: list[Home] = []
        """The oldest first."""

    def on(self, device: int) -> list[Home]:
        return [home for home in self.open if home.device == device]

    @rule(target=loads, name=NAMES, held_bytes=st.none() | st.integers(0, 1000))
    def load(self, name: str, held_bytes: int | None) -> Home | None:
        if not self.left:
            with pytest.raises(Unavailable):
                self.placement.opened(name)
            return None
        room = any(len(self.on(device)) < MOST for device in self.left)
        home = self.placement.opened(name)
        assert home.device in self.left
        assert not room or len(self.on(home.device)) < MOST
        if held_bytes is not None:
            self.placement.measured(home, held_bytes)
        self.open.append(home)
        return home

    @rule(home=consumes(loads))
    def close(self, home: Home | None) -> None:
        if home is not None:
            self.open.remove(home)
            self.placement.closed(home)

    @rule(device=st.sampled_from(DEVICES))
    def lose(self, device: int) -> None:
        if len(self.left) > 1 or device not in self.left:
            self.left.discard(device)
            self.placement.lose(device)

    @invariant()
    def the_newest_home_is_where_a_model_is(self) -> None:
        assert set(self.placement.devices) == self.left
        newest = {home.model_id: home for home in self.open if home.device in self.left}
        for name in "abcdefgh":
            assert self.placement.home_of(name) is newest.get(name)

    @invariant()
    def nothing_is_counted_twice_or_forgotten(self) -> None:
        for device in self.left:
            sizes = [h.held_bytes for h in self.on(device) if h.held_bytes is not None]
            tally = self.placement._tallies[device]
            assert (tally.homes, tally.measured) == (len(self.on(device)), len(sizes))
            assert tally.held_bytes == sum(sizes)


class RoundRobin(Rules):
    strategy = "round-robin"


class LeastLoaded(Rules):
    strategy = "least-loaded"


for machine in (RoundRobin, LeastLoaded):
    machine.TestCase.settings = settings(
        max_examples=examples(60), stateful_step_count=40, deadline=None
    )
TestRoundRobin = pytest.mark.slow(RoundRobin.TestCase)
TestLeastLoaded = pytest.mark.slow(LeastLoaded.TestCase)
