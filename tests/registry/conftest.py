"""What registries load in tests: a small world of values that come when they may."""

import threading
from collections.abc import Iterator

import pytest
from tests.support.waiting import WAIT_S, Clock

from lipwire.registry import Loaded, Registry, lookups


class Value:
    def __init__(self, name: str, version: object) -> None:
        self.name = name
        self.version = version
        self.closings = 0

    def closed(self) -> int:
        return self.closings


class World:
    """What there is to load, and what was done with it."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}
        self.versions: dict[str, object] = {}
        self.gates: dict[str, threading.Event] = {}
        self.begun: list[str] = []
        self.made: list[Value] = []
        self.lock = threading.Lock()

    def load(self, name: str) -> Loaded[Value]:
        version = self.versions.get(name)
        with self.lock:
            self.begun.append(name)
        gate = self.gates.get(name)
        if gate is not None:
            assert gate.wait(WAIT_S)
        if name in self.errors:
            raise self.errors[name]
        value = Value(name, version)
        with self.lock:
            self.made.append(value)

        def close() -> None:
            value.closings += 1

        return Loaded(value, self.sizes.get(name, 1), close)

    def version(self, name: str) -> object:
        version = self.versions.get(name, 0)
        if isinstance(version, Exception):
            raise version
        return version

    def closed(self) -> list[str]:
        return [value.name for value in self.made if value.closings]

    def gate(self, name: str) -> threading.Event:
        self.gates[name] = threading.Event()
        return self.gates[name]


@pytest.fixture(autouse=True)
def patient_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees a change waits for the new form here, however busy the machine is."""
    monkeypatch.setattr(lookups, "_SWAP_WAIT_S", WAIT_S)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for gate in made.gates.values():
        gate.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def held(registry: Registry[Value]) -> set[str]:
    return {item.name for item in registry.stats().items}


def ask(registry: Registry[Value], *names: str) -> None:
    for name in names:
        with registry.use(name) as value:
            assert value.name == name
            assert not value.closed()
