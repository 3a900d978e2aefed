import itertools

import pytest

from lipwire.domain import InvalidInput
from lipwire.session.live.states import TRANSITIONS, State, Trigger, after

PAIRS = list(itertools.product(State, Trigger))


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_each_pair_is_in_the_table_or_refused(state: State, trigger: Trigger) -> None:
    if trigger in TRANSITIONS[state]:
        assert after(state, trigger) is TRANSITIONS[state][trigger]
    else:
        with pytest.raises(InvalidInput, match=f"{state} was told: {trigger}"):
            after(state, trigger)


def test_closed_is_final() -> None:
    assert TRANSITIONS[State.CLOSED] == {Trigger.CLOSE: State.CLOSED}


def test_every_open_state_can_be_interrupted_and_closed() -> None:
    for state in State:
        if state is not State.CLOSED:
            assert after(state, Trigger.CLOSE) is State.CLOSED
            assert after(state, Trigger.INTERRUPT) is not State.SPEAKING


def test_every_state_can_be_reached_from_idle() -> None:
    reached = {State.IDLE}
    for _ in State:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
    assert reached == set(State)
