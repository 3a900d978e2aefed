"""Events of a session as JSON."""

from typing import Any

from lipwire.session.live import (
    Caption,
    Event,
    FramesDropped,
    GoingAway,
    SpeechBegan,
    SpeechEnded,
    StateChanged,
)


def event_json(event: Event) -> dict[str, Any]:
    """Return ``event`` as a JSON object: its ``type`` in snake case ("speech_began"), ``at_ms`` (ms
    of the session's clock) and its other fields by their names."""
    match event:
        case StateChanged():
            return {
                "type": "state_changed",
                "at_ms": event.at_ms,
                "state": event.state.value,
                "speech": event.speech,
            }
        case SpeechBegan():
            return {"type": "speech_began", "at_ms": event.at_ms, "speech": event.speech}
        case SpeechEnded():
            return {
                "type": "speech_ended",
                "at_ms": event.at_ms,
                "speech": event.speech,
                "spoken_ms": event.spoken_ms,
                "interrupted": event.interrupted,
                "left_ms": event.left_ms,
            }
        case Caption():
            return {
                "type": "caption",
                "at_ms": event.at_ms,
                "speech": event.speech,
                "text": event.text,
            }
        case FramesDropped():
            return {
                "type": "frames_dropped",
                "at_ms": event.at_ms,
                "count": event.count,
                "reason": event.reason,
            }
        case GoingAway():
            return {
                "type": "going_away",
                "at_ms": event.at_ms,
                "reason": event.reason,
                "left_s": event.left_s,
            }
