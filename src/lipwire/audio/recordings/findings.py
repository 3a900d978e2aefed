"""What is noticed while a recording is decoded: damage, which may be allowed, and warnings."""

from typing import Final

from lipwire.domain import InvalidInput

MAX_WARNINGS: Final = 8
"""A file with more to say has a fault that repeats."""


class Findings:
    """Collects warnings about one recording while it is decoded, and refuses damage unless
    ``allow_damaged``. Not thread-safe.

    ``name`` is the recording's, with which messages begin. Whoever decodes keeps three attributes
    up to date: ``heard_s``, how many seconds of the recording were decoded so far; ``closed_up_s``,
    by how many seconds time stamps jumped ahead where no silence was put; and ``last_packet``, the
    offsets in bytes at which the last decoded packet begins and ends in the file at hand, 0 where
    they are not known.
    """

    def __init__(self, name: str, *, allow_damaged: bool = False) -> None:
        self.heard_s = 0.0  # how far the recording has been decoded
        self.closed_up_s = 0.0  # by how much time stamps jumped ahead where no silence was put
        # Where the last packet that was decoded begins and ends in the file at hand; 0: not known.
        self.last_packet = (0, 0)
        self._name = name
        self._allow_damaged = allow_damaged
        self._warnings: list[str] = []
        self._more = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """The first 8 warnings, one line each, and, where there are more, a line that counts the
        others."""
        if not self._more:
            return tuple(self._warnings)
        return (*self._warnings, f"{self._name}: {self._more} more of the same kinds")

    def note(self, what: str) -> None:
        """Add the warning "NAME: ``what``", one line, where NAME is the recording's. From the ninth
        on, warnings are only counted."""
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(f"{self._name}: {what}")
        else:
            self._more += 1

    def damage(
        self, what: str, silence_s: float = 0.0, *, cause: BaseException | None = None
    ) -> None:
        """Add a warning about damage, or raise InvalidInput where damage is not allowed.

        ``what`` continues "recording.wav is ...". ``silence_s`` is how many seconds of silence
        stand in for what is missing, which the warning says unless it is 0; the caller has to put
        the silence there. ``cause`` is the error that showed the damage; it becomes the cause of
        the InvalidInput.
        """
        if not self._allow_damaged:
            raise InvalidInput(
                f"{self._name} is {what}; allowed with --allow-damaged (allow_damaged)"
            ) from cause
        self.note(f"{what}; {silence_s:.2f} s of silence there" if silence_s else what)
