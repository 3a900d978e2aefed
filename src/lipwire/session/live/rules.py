"""How many live sessions there may be, and for how long."""

from dataclasses import dataclass

from lipwire.domain import InvalidInput


@dataclass(frozen=True, slots=True)
class SessionRules:
    """Limits of the live sessions of a process. None means no limit. Raises InvalidInput for
    numbers out of range.

    ``max_sessions_of_tenant`` is how many sessions one tenant (customer) may have at a time in this
    process, or at all servers that share their count, ``max_sessions`` how many all processes of
    the server may have. A session ends after ``max_duration_s``, after ``max_idle_s`` in which
    nothing is said and no ``keep_alive`` comes, where no client comes within
    ``nobody_joined_timeout_s``, and where its last client has gone for ``reconnect_grace_s``; all
    in seconds.
    """

    max_sessions_of_tenant: int | None = None
    """Sessions of one tenant at a time, in one process, and at all servers that share their count;
    None is no limit."""
    max_sessions: int | None = None
    """Sessions of all processes of a server at a time; None where only the machine's speed
    counts."""
    max_duration_s: float | None = None
    """How long a session lasts at most."""
    max_idle_s: float | None = 900.0
    """How long a session lasts in which nothing is said, and no ``keep_alive`` comes."""
    nobody_joined_timeout_s: float = 30.0
    """How long a session waits for its first client."""
    reconnect_grace_s: float = 30.0
    """How long a session goes on when its client has gone without closing it: a client that comes
    back meanwhile finds it as it is."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("max_sessions_of_tenant", self.max_sessions_of_tenant, 1),
            ("max_sessions", self.max_sessions, 1),
            ("max_duration", self.max_duration_s, 1),
            ("max_idle", self.max_idle_s, 1),
            ("nobody_joined_timeout", self.nobody_joined_timeout_s, 1),
            ("reconnect_grace", self.reconnect_grace_s, 0),
        ):
            if value is not None and value < least:
                raise InvalidInput(f"{name} is {value:g}; allowed are {least} and above")
