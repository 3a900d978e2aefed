"""What is pinned stays; what is not goes in the order of its worth."""

from lipwire.registry.eviction import NEVER_USED, PinnedItems


class Thing:
    def __init__(self) -> None:
        self.worth = NEVER_USED
        self.pins = 0


def _held(count: int) -> tuple[PinnedItems[Thing], list[Thing]]:
    """Things used one after another."""
    items: PinnedItems[Thing] = PinnedItems("lru")
    things = [Thing() for _ in range(count)]
    for thing in things:
        items.use(thing)
        items.add(thing)
    return items, things


def test_the_least_worthy_without_pins_is_the_victim() -> None:
    items, (first, second, third) = _held(3)
    assert items.victim() is first
    items.pin(first)
    assert items.victim() is second
    items.unpin(first)
    assert items.victim() is second  # the first was used since
    items.discard(second)
    assert items.victim() is third
    assert items.victim(below=third.worth) is None
    assert (len(items), items.pins) == (2, 0)


def test_no_victims_where_all_that_may_go_are_not_enough() -> None:
    items, things = _held(3)
    items.pin(things[0])
    assert items.victims(lambda thing: thing is things[2]) == things[1:]
    assert items.victims(lambda thing: False) is None
    assert items.victims(lambda thing: True, lambda thing: thing is things[0]) is None
    assert list(items) == things


def test_what_is_removed_is_given_once_when_nobody_uses_it() -> None:
    items, (used, idle) = _held(2)
    items.pin(used)
    items.remove_later(used)
    items.remove_later(idle)
    assert items.removed() == [idle]
    assert items.removed() == []
    items.unpin(used)
    assert items.removed() == [used]


def test_pins_of_what_is_not_held_count_too() -> None:
    items: PinnedItems[Thing] = PinnedItems("lfu")
    thing = Thing()
    items.pin(thing)
    assert (items.pins, len(items), items.victim()) == (1, 0, None)
    items.add(thing)
    assert items.victim() is None
    items.unpin(thing)
    assert items.victim() is thing


def test_what_is_pinned_twice_stays_until_both_have_gone() -> None:
    items, (first, second) = _held(2)
    items.pin(first)
    items.pin(first)
    items.pin(second)
    assert items.pins == 3
    items.unpin(first)
    assert (items.pins, items.victim()) == (2, None)
    items.unpin(first)
    assert (items.pins, items.victim()) == (1, first)


def test_the_policy_says_which_is_the_victim() -> None:
    victims = {}
    for policy in ("lru", "lfu"):
        items: PinnedItems[Thing] = PinnedItems(policy)
        often, late = Thing(), Thing()
        for thing in (often, often, often, often, late):
            items.use(thing)
            items.add(thing)
        victims[policy] = "often" if items.victim() is often else "late"
    assert victims == {"lru": "often", "lfu": "late"}
