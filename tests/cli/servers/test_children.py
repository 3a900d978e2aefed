"""Worker processes, as their parent sees them."""

from typing import Any

from lipwire.cli.servers.children import supervise


class Worker:
    """A worker that never ends by itself, and says how long it was given to."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.graces_s: list[float] = []

    def wait_ready(self, stopping: object) -> int:
        return 1

    def ask_to_end(self) -> None:
        pass

    def close(self, grace_s: float) -> int:
        self.graces_s.append(grace_s)
        return 0


class Asked:
    """This process was asked to end."""

    asked = True

    def wait(self, timeout_s: float | None = None) -> bool:
        return True


def test_workers_have_as_long_to_drain_as_is_said() -> None:
    workers = [Worker(), Worker()]
    start: Any = workers.__getitem__
    stopping: Any = Asked()
    told: list[str] = []
    supervise(
        2,
        start,
        stopping,
        lambda: told.append("ready"),
        lambda: told.append("end"),
        grace_s=3600.0,
    )
    assert told == ["ready", "end"]
    assert all(3000 < worker.graces_s[0] <= 3600 for worker in workers)
