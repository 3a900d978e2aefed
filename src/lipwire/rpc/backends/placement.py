"""Which device a model belongs to. No sockets, no devices: names and numbers.

A model has a home from the first request for it until nobody waits for it and nothing of it is
loaded any more; while it has one, every request goes there. So a model is on one device at a time,
however many ask for it, and moves only when it was unloaded or evicted, or its device was lost.

    claim ──▶ its home, the one it has or a new one ──▶ opened: its load begins ──▶ closed
      └─────▶ release, when the request is over
"""

import threading
from collections.abc import Collection, Sequence
from typing import Final, Literal

from lipwire.domain import InvalidInput, Unavailable

Strategy = Literal["round-robin", "least-loaded"]


class Home:
    """A model's place on a device."""

    __slots__ = ("device", "held_bytes", "model_id", "uses")

    def __init__(self, model_id: str, device: int) -> None:
        self.model_id: Final = model_id
        self.device: Final = device
        # What follows is the placement's lock's.
        self.uses = 0
        """Requests under way, and what is loaded or being loaded."""
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
    """The homes of a server's models. Thread-safe."""

    def __init__(self, strategy: Strategy, devices: Sequence[int], *, most: int) -> None:
        """``devices`` are their numbers, in the order in which they are filled; ``most`` models
        fit on each. Raises InvalidInput.
        """
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
        self._most: Final = most
        self._tallies = {device: _Tally() for device in devices}
        self._turns = list(devices)
        """Whose turn it is comes first."""
        self._homes: dict[str, Home] = {}
        self._lock = threading.Lock()

    @property
    def devices(self) -> tuple[int, ...]:
        """Those that are left."""
        with self._lock:
            return tuple(self._tallies)

    def models_on(self, device: int) -> frozenset[str]:
        """The models that are at home on ``device``."""
        with self._lock:
            return frozenset(name for name, home in self._homes.items() if home.device == device)

    def claim(self, model_id: str, *, avoiding: Collection[int] = ()) -> Home:
        """The home of ``model_id`` for one request, which is to ``release`` it.

        A model without one gets one, and so does a model at home where it is to be avoided. Full
        devices are passed over while another has room. Raises Unavailable where none is left.
        """
        with self._lock:
            home = self._homes.get(model_id)
            if home is None or home.device in avoiding:
                new = Home(model_id, self._choose(avoiding))
                if home is not None:
                    self._remove(home)
                self._add(new)
                home = new
            home.uses += 1
            return home

    def release(self, home: Home) -> None:
        """A request is over."""
        with self._lock:
            self._let_go(home)

    def opened(self, model_id: str, device: int) -> Home:
        """The model's load on ``device`` begins; what is returned is for ``closed``."""
        with self._lock:
            at_home = self._homes.get(model_id)
            if at_home is not None and at_home.device == device:
                home = at_home
            else:
                # Whoever asked for it has gone, or has moved on: it takes room all the same, and is
                # at home here where it is not elsewhere.
                home = Home(model_id, device)
                if at_home is None and device in self._tallies:
                    self._add(home)
            home.uses += 1
            return home

    def measured(self, home: Home, held_bytes: int) -> None:
        """What was ``opened`` is loaded, and takes ``held_bytes``."""
        with self._lock:
            at_home = self._homes.get(home.model_id) is home
            if at_home:
                self._tallies[home.device].count(home, -1)
            home.held_bytes = held_bytes
            if at_home:
                self._tallies[home.device].count(home, 1)

    def closed(self, home: Home) -> None:
        """What was ``opened`` is unloaded, or could not be loaded."""
        with self._lock:
            self._let_go(home)

    def lose(self, device: int) -> None:
        """``device`` has gone: its models have no home any more."""
        with self._lock:
            if self._tallies.pop(device, None) is None:
                return
            self._turns.remove(device)
            for name in [name for name, home in self._homes.items() if home.device == device]:
                del self._homes[name]

    def _add(self, home: Home) -> None:
        self._homes[home.model_id] = home
        self._tallies[home.device].count(home, 1)

    def _remove(self, home: Home) -> None:
        del self._homes[home.model_id]
        self._tallies[home.device].count(home, -1)

    def _let_go(self, home: Home) -> None:
        home.uses -= 1
        if home.uses == 0 and self._homes.get(home.model_id) is home:
            self._remove(home)

    def _choose(self, avoiding: Collection[int]) -> int:
        allowed = [device for device in self._turns if device not in avoiding]
        if not allowed:
            raise Unavailable("no GPU is left to run networks on")
        allowed = [d for d in allowed if self._tallies[d].homes < self._most] or allowed
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
