"""The states of a live session, and what leads from one to another.

    idle          nobody speaks: the avatar rests
    listening     the same, while the client says that somebody speaks to the avatar
    speaking      speech is being shown and heard
    interrupted   speech was broken off a moment ago: the mouth closes
    closed        the session has ended

The client's calls and the session's own clock are *triggers*. Each pair of a state and a trigger
is in the table once, or is refused. Speech that is still being prepared is no state: it may come in
while older speech is spoken, and begins when that has ended. What the session returns to when it
has spoken, idle or listening, is the client's last word on that.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from lipwire.domain import InvalidInput


class State(StrEnum):
    """What a live session does at a moment: idle (nobody speaks), listening (the client says that
    somebody speaks to the avatar), speaking (the avatar speaks), interrupted (its speech was broken
    off and its mouth closes), or closed."""

    IDLE = "idle"
    LISTENING = "listening"
    SPEAKING = "speaking"
    INTERRUPTED = "interrupted"
    CLOSED = "closed"


class Trigger(StrEnum):
    """What may lead a live session from one state to another. From the client: listen, rest (the
    end of listening), interrupt; from the clock: speech begins, speech ends, mouth closed (nothing
    of interrupted speech is shown any more); from either side: close."""

    LISTEN = "listen"
    """The client: somebody speaks to the avatar now."""
    REST = "rest"
    """The client: nobody does any more."""
    SPEECH_BEGINS = "speech begins"
    """The clock: the first frame of a piece of speech."""
    SPEECH_ENDS = "speech ends"
    """The clock: the frame after its last one."""
    INTERRUPT = "interrupt"
    """The client: what is being said is not to be finished."""
    MOUTH_CLOSED = "mouth closed"
    """The clock: the frame in which nothing of the interrupted speech is left."""
    CLOSE = "close"
    """Either side: the session ends."""


TRANSITIONS: Final[Mapping[State, Mapping[Trigger, State]]] = {
    State.IDLE: {
        Trigger.LISTEN: State.LISTENING,
        Trigger.REST: State.IDLE,
        Trigger.SPEECH_BEGINS: State.SPEAKING,
        Trigger.INTERRUPT: State.IDLE,
        Trigger.CLOSE: State.CLOSED,
    },
    State.LISTENING: {
        Trigger.LISTEN: State.LISTENING,
        Trigger.REST: State.IDLE,
        Trigger.SPEECH_BEGINS: State.SPEAKING,
        Trigger.INTERRUPT: State.LISTENING,
        Trigger.CLOSE: State.CLOSED,
    },
    State.SPEAKING: {
        Trigger.LISTEN: State.SPEAKING,
        Trigger.REST: State.SPEAKING,
        Trigger.SPEECH_ENDS: State.IDLE,
        Trigger.INTERRUPT: State.INTERRUPTED,
        Trigger.CLOSE: State.CLOSED,
    },
    State.INTERRUPTED: {
        Trigger.LISTEN: State.INTERRUPTED,
        Trigger.REST: State.INTERRUPTED,
        Trigger.SPEECH_BEGINS: State.SPEAKING,
        Trigger.INTERRUPT: State.INTERRUPTED,
        Trigger.MOUTH_CLOSED: State.IDLE,
        Trigger.CLOSE: State.CLOSED,
    },
    State.CLOSED: {
        Trigger.CLOSE: State.CLOSED,
    },
}


def after(state: State, trigger: Trigger) -> State:
    """Return the state that a session is in after ``trigger`` in ``state``, by the table
    ``TRANSITIONS``; it may be the same. Raises InvalidInput where ``trigger`` is not allowed in
    that state: in ``State.CLOSED`` all but ``Trigger.CLOSE``, for example."""
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise InvalidInput(f"a session that is {state} was told: {trigger}") from None
