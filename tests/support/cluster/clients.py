"""Clients of a cluster, as the documentation says they are to be: batches that are asked for again
where that can help, and requests of avatars that no server has in memory."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.support.cluster.cast import Cast
from tests.support.cluster.record import Flow, Record

from lipwire.bench.chaos.cast import Question, Role
from lipwire.domain import LipwireError
from lipwire.domain.closing import Closing
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.credentials import ClientSecurity

PATIENT_S: Final = 120.0
"""How long a request is asked for again before it counts as lost."""
_CALL_S: Final = 30.0
_LARGEST: Final = 4
_PAUSE_S: Final = 0.5
_AGAIN_S: Final = 0.1

Connect = Callable[[str], tuple[str, ClientSecurity]]
"""The address and the credentials for a tenant."""


class Threads(Closing):
    """Threads that do one thing after the other, from ``start`` to ``stop``."""

    def __init__(self, record: Record) -> None:
        self.record: Final = record
        self.stopped: Final = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, name: str, work: Callable[[], None]) -> None:
        """Have a thread do ``work``; what it raises is noted as lost."""

        def run() -> None:
            try:
                work()
            except Exception as error:
                self.record.is_lost(f"{name} has ended: {error!r}")

        self._threads.append(threading.Thread(target=run, name=name, daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End each after what it is doing."""
        self.stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()


class Asking:
    """One tenant's requests for batches, and the look at the answers. For one thread."""

    def __init__(self, connect: Connect, cast: Cast, tenant: str, record: Record) -> None:
        self._address, self._security = connect(tenant)
        self._foreign = cast.foreign(tenant)
        self._tenant = tenant
        self._record = record

    def connection(self) -> CompositingConnection:
        return CompositingConnection(self._address, security=self._security)

    def until_answered(self, connection: CompositingConnection, question: Question) -> bool:
        """Ask until there is an answer, and look at it. False where the request is lost."""
        name = question.request.model_id
        until_s = time.monotonic() + PATIENT_S
        while True:
            try:
                answer = connection.composite(question.request, _CALL_S)
                break
            except LipwireError as error:
                pause_s = getattr(error, "retry_after_s", None) or _AGAIN_S
                if not error.retryable or time.monotonic() + pause_s > until_s:
                    self._record.is_lost(f"{name}: {type(error).__name__}: {error}")
                    return False
                self._record.count(f"again: {type(error).__name__}")
                time.sleep(pause_s)
        self.look(name, question, answer.frames)
        return True

    def look(self, name: str, question: Question, frames: Sequence[bytes]) -> None:
        """Compare frames that came for the avatar ``name`` with what they have to be."""
        self._record.count("frames", len(frames))
        if not self._foreign.isdisjoint(frames):
            self._record.is_foreign(f"{self._tenant} got another tenant's frames for {name}")
        if tuple(frames) in question.answers:
            self._record.count("batches")
            return
        wanted = question.answers[0]
        differ = sum(frame != right for frame, right in zip(frames, wanted, strict=False))
        self._record.is_wrong(
            f"{name}: {len(frames)} frames, wanted were {len(wanted)}; {differ} are others"
        )


class BatchClients(Threads):
    """Clients that ask for one batch after the other, each about its tenant's avatars."""

    def __init__(
        self, connect: Connect, cast: Cast, record: Record, *, count: int, seed: int
    ) -> None:
        """``count`` clients of each tenant ask for what is drawn from ``seed``."""
        super().__init__(record)
        for tenant, roles in cast.roles.items():
            for number in range(count):
                name = f"batches of {tenant}, {number}"
                asking = Asking(connect, cast, tenant, record)
                chance = random.Random(f"{seed} {name}")
                flow = record.flow(name)
                self.add(name, self._working(asking, cast, roles, chance, flow))

    def _working(
        self,
        asking: Asking,
        cast: Cast,
        roles: Sequence[Role],
        chance: random.Random,
        flow: Flow,
    ) -> Callable[[], None]:
        def work() -> None:
            with asking.connection() as connection:
                while not self.stopped.wait(_PAUSE_S * chance.random()):
                    question = chance.choice(roles).ask(chance, cast.speeches, largest=_LARGEST)
                    if asking.until_answered(connection, question):
                        flow.came()

        return work


class ColdRequests(Closing):
    """Requests for avatars that no server has, while something happens: they may be refused as long
    as it lasts, and are answered soon after. The tenants take turns."""

    def __init__(self, connect: Connect, cast: Cast, record: Record) -> None:
        self._cast = cast
        self._connect = connect
        self._record = record
        every = zip(*cast.cold.values(), strict=True)
        self._left = iter([role for roles in every for role in roles])
        self._turns = itertools.cycle(cast.tenants)
        self._threads: list[threading.Thread] = []
        self._answered_s: list[float] = []

    def begin(self) -> None:
        """Ask for the next one."""
        self._answered_s = []
        asked = (next(self._turns), next(self._left))
        self._threads = [threading.Thread(target=self._ask, args=asked, daemon=True)]
        for thread in self._threads:
            thread.start()

    def end(self) -> float:
        """Wait for the answers, and return when the last came, in the record's seconds."""
        self.close()
        return max(self._answered_s, default=float("inf"))

    def close(self) -> None:
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _ask(self, tenant: str, role: Role) -> None:
        asking = Asking(self._connect, self._cast, tenant, self._record)
        with asking.connection() as connection:
            if asking.until_answered(connection, role.whole(_LARGEST)):
                self._record.count("cold avatars")
            self._answered_s.append(self._record.clock())
