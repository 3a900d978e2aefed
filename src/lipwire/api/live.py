"""Live sessions through a server: connections, and what a session sends."""

from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.rpc.credentials import PLAIN, ClientSecurity, ClientTls
from lipwire.rpc.received import Ended, Received, Refused
from lipwire.session.live import (
    Caption,
    FramesDropped,
    GoingAway,
    LiveFrame,
    SessionSettings,
    Sound,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)

__all__ = [
    "PLAIN",
    "AvatarConnection",
    "Caption",
    "ClientSecurity",
    "ClientTls",
    "ConverseStream",
    "Ended",
    "FramesDropped",
    "GoingAway",
    "LiveFrame",
    "Received",
    "Refused",
    "SessionSettings",
    "Sound",
    "SpeechBegan",
    "SpeechEnded",
    "State",
    "StateChanged",
]
