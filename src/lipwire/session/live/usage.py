"""Numbers of the live sessions of a process, and of one that has ended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionsStats:
    """Numbers of the live sessions of one process since it began: how many run now (``active``, of
    which ``opening`` are still being opened), were ``opened``, were ``refused`` because there was
    no room, and have ``ended``, by the reason (the name of the ``SessionRules`` limit that ended
    them, such as "max_idle"; "closed" by the client, "error", "made_room", ...). ``most`` is how
    many the server's processes may have together; None for no limit."""

    active: int
    opening: int
    """Those of them that wait for their avatar, or for room."""
    most: int | None
    """Sessions that ``max_sessions`` allows, in all processes together; None where only the
    machine's speed counts."""
    opened: int
    refused: int
    ended: dict[str, int]
    """Sessions that have ended, by the reason."""


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """What one live session has used, reported when it has ended: whose it was (``tenant``), the
    name of the ``avatar`` that it showed last, how many seconds it lasted (``lasted_s``) and spoke
    (``spoken_s``), how many ``frames`` were composed and ``mouths`` made for it, and the ``reason``
    why it ended ("closed", "max_idle", ...; see ``SessionsStats``)."""

    tenant: str
    avatar: str
    """The one that it showed last."""
    lasted_s: float
    spoken_s: float
    frames: int
    """Frames that were composed."""
    mouths: int
    """Mouths that the network made for it."""
    reason: str
    """Why it has ended."""
