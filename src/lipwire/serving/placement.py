"""Which device each model is on. There are no sockets and no devices here, only names and numbers.

A model gets a device, its home, when its load begins, and keeps it until it is unloaded; it gets
another only when that device is lost.

    opened: a home is chosen, its load begins ──▶ measured: it is loaded ──▶ closed
"""

import threading
from collections.abc import Sequence
from typing import Final, Literal

from lipwire.domain import InvalidInput, Unavailable

Strategy = Literal["round-robin", "least-loaded"]


class Home:
    """The device that a model (an avatar's network) is on: the ``model_id``, the number of the
    ``device``, and how many bytes the model takes there (``held_bytes``; None until it is loaded).
    Made by ``Placement.opened``."""

    __slots__ = ("device", "held_bytes", "model_id", "open")

    def __init__(self, model_id: str, device: int) -> None:
        self.model_id: Final = model_id
        self.device: Final = device
        # What follows is the placement's lock's.
        self.open = True
        self.held_bytes: int | None = None
        """What it takes of the device, measured; None until it is loaded."""


class _Tally:
    """What is at home on one device."""

    __slots__ = ("held_bytes", "homes", "measured")

    def __init__(self) -> None:
        self.homes = self.measured = self.held_bytes = 0

    def count(self, home: Home, sign: Literal[1, -1]) -> None:
        self.homes += sign
        if home.held_bytes is not None:
            self.measured += sign
            self.held_bytes += sign * home.held_bytes


class Placement:
    """Chooses which device each model (an avatar's network) of a server is loaded on, and remembers
    it. It knows devices only by number. Thread-safe."""

    def __init__(self, strategy: Strategy, devices: Sequence[int], *, most: int) -> None:
        """``devices`` are the numbers of the devices, in the order in which they are filled;
        ``most`` models fit on each. Of ``strategy``, "round-robin" takes the devices in turns and
        "least-loaded" the one that holds the fewest bytes. Raises InvalidInput for another
        strategy, for no device or one that is named twice, and for ``most`` below 1."""
        if strategy not in ("round-robin", "least-loaded"):
            raise InvalidInput(
                f"assignment strategy is {strategy!r}; allowed are round-robin and least-loaded"
            )
        if not devices or len(set(devices)) < len(devices) or most < 1:
            raise InvalidInput(
                f"devices are {list(devices)} with {most} models on each; allowed are one device"
                " and above, each once, and 1 model and above"
            )
        self._strategy: Final = strategy
        self.most: Final = most
        """Models that fit on each device."""
        self._tallies = {device: _Tally() for device in devices}
        self._turns = list(devices)
        """Whose turn it is comes first."""
        self._homes: dict[str, list[Home]] = {}
        """By model, the newest last."""
        self._lock = threading.Lock()

    @property
    def devices(self) -> tuple[int, ...]:
        """The numbers of the devices that have not been lost."""
        with self._lock:
            return tuple(self._tallies)

    def home_of(self, model_id: str) -> Home | None:
        """Return the device that model ``model_id`` is on, or is being loaded onto, with how many
        bytes it takes there; of several the newest. None where it is on no device."""
        with self._lock:
            homes = self._homes.get(model_id)
            return homes[-1] if homes else None

    def models_on(self, device: int) -> frozenset[str]:
        """Return the names of the models that are on device number ``device``, or being loaded onto
        it. A model that is on several devices counts for the newest (``home_of``). Empty where that
        device is lost or not known."""
        with self._lock:
            return frozenset(
                name for name, homes in self._homes.items() if homes[-1].device == device
            )

    def opened(self, model_id: str) -> Home:
        """Choose a device for model ``model_id``, count the model as being on it from now on, and
        return that as its home; to be called before it is loaded.

        A device that has ``most`` models is chosen only where every device has that many. The
        caller passes what is returned to ``measured`` when the model is loaded, and to ``closed``
        when it is unloaded or could not be loaded. A model may be opened again before it is closed.
        Raises Unavailable where no device is left.
        """
        with self._lock:
            home = Home(model_id, self._choose())
            self._homes.setdefault(model_id, []).append(home)
            self._tallies[home.device].count(home, 1)
            return home

    def measured(self, home: Home, held_bytes: int) -> None:
        """Record that the model of ``home``, which ``opened`` returned, takes ``held_bytes`` bytes
        of its device; the strategy "least-loaded" chooses by these. To be called when the model has
        been loaded; until then it counts as the mean of all others."""
        with self._lock:
            tally = self._tallies.get(home.device) if home.open else None
            if tally is not None:
                tally.count(home, -1)
            home.held_bytes = held_bytes
            if tally is not None:
                tally.count(home, 1)

    def closed(self, home: Home) -> None:
        """Record that the model of ``home``, which ``opened`` returned, is not on its device any
        more: it was unloaded, or could not be loaded. Closing twice is allowed."""
        with self._lock:
            if not home.open:
                return
            home.open = False
            tally = self._tallies.get(home.device)
            if tally is not None:
                tally.count(home, -1)
                self._forget(home)

    def lose(self, device: int) -> None:
        """Use device number ``device`` no more: its models are on no device from now on, and none
        is loaded there again. Does nothing where the device is not known, or lost already."""
        with self._lock:
            if self._tallies.pop(device, None) is None:
                return
            self._turns.remove(device)
            for homes in list(self._homes.values()):
                for home in [home for home in homes if home.device == device]:
                    self._forget(home)

    def _forget(self, home: Home) -> None:
        homes = self._homes[home.model_id]
        homes.remove(home)
        if not homes:
            del self._homes[home.model_id]

    def _choose(self) -> int:
        if not self._turns:
            raise Unavailable("no GPU is left to run networks on")
        allowed = [d for d in self._turns if self._tallies[d].homes < self.most] or self._turns
        if self._strategy == "least-loaded":
            return min(allowed, key=self._load)
        chosen = allowed[0]
        self._turns.remove(chosen)
        self._turns.append(chosen)
        return chosen

    def _load(self, device: int) -> tuple[float, int]:
        """How much a device holds, what is being loaded counted as the mean of what is there."""
        tallies = self._tallies.values()
        measured = sum(tally.measured for tally in tallies)
        mean = sum(tally.held_bytes for tally in tallies) / measured if measured else 0.0
        tally = self._tallies[device]
        return tally.held_bytes + (tally.homes - tally.measured) * mean, tally.homes
