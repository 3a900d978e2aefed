"""Live sessions: speech streams in, frames and sound stream out, and the avatar rests in between.

``LiveSessions`` holds all of a process. Each ``LiveSession`` drives a ``Conversation``, which knows
neither threads nor time.
"""

from lipwire.serving.leases import LEASE_S
from lipwire.session.live.counting import OwnCount, SessionCount
from lipwire.session.live.events import (
    Caption,
    Event,
    FramesDropped,
    GoingAway,
    Sound,
    SpeechBegan,
    SpeechEnded,
    StateChanged,
)
from lipwire.session.live.leasing import Leases
from lipwire.session.live.liveavatar import LiveAvatar, Rest
from lipwire.session.live.livesession import LiveSession
from lipwire.session.live.observer import SessionObserver
from lipwire.session.live.outbox import Item, LiveFrame, Outbox
from lipwire.session.live.outputs import Output, Shown
from lipwire.session.live.pacing import Pacer
from lipwire.session.live.rules import SessionRules
from lipwire.session.live.sessions import LiveSessions
from lipwire.session.live.settings import FRAME_MS, PIECE_MS, SessionSettings
from lipwire.session.live.states import State
from lipwire.session.live.threads import LiveCounts, LiveThreads
from lipwire.session.live.usage import SessionsStats, SessionUsage

__all__ = [
    "FRAME_MS",
    "LEASE_S",
    "PIECE_MS",
    "Caption",
    "Event",
    "FramesDropped",
    "GoingAway",
    "Item",
    "Leases",
    "LiveAvatar",
    "LiveCounts",
    "LiveFrame",
    "LiveSession",
    "LiveSessions",
    "LiveThreads",
    "Outbox",
    "Output",
    "OwnCount",
    "Pacer",
    "Rest",
    "SessionCount",
    "SessionObserver",
    "SessionRules",
    "SessionSettings",
    "SessionUsage",
    "SessionsStats",
    "Shown",
    "Sound",
    "SpeechBegan",
    "SpeechEnded",
    "State",
    "StateChanged",
]
