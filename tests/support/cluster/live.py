"""Live sessions of a cluster's tenants: their clients come back to a session whose connection
breaks, begin another one where it is gone, and look at every frame."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support.cluster.cast import Cast
from tests.support.cluster.clients import PATIENT_S, Connect, Threads
from tests.support.cluster.record import Flow, Record

from lipwire.bench.chaos.cast import Role
from lipwire.bench.chaos.comparison import Comparison, Renderer
from lipwire.domain import (
    SAMPLE_RATE_HZ,
    LipwireError,
    NotFound,
)
from lipwire.rpc.conversing import AvatarConnection, ConverseStream
from lipwire.session.live import (
    FramesDropped,
    LiveFrame,
    SessionSettings,
    Sound,
    SpeechEnded,
    State,
)

_SETTINGS: Final = SessionSettings(
    SAMPLE_RATE_HZ, gate=False, crossfade_frames=0, end_of_speech_timeout_s=60
)
_AGAIN_S: Final = 0.1
_REST_MS: Final = 2_000
"""For which a session rests when its speech has ended."""
_KEPT: Final = 1_000
"""Mouths of each avatar: making them twice would take the time that the servers need."""


class _Broken(Exception):
    """The stream has ended before the speech did."""


class LiveClients(Threads):
    """Clients that begin one session after the other and let the avatar speak."""

    def __init__(
        self, connect: Connect, cast: Cast, record: Record, *, count: int, seed: int
    ) -> None:
        """``count`` clients of each tenant begin sessions as drawn from ``seed``."""
        super().__init__(record)
        self._connect = connect
        self._cast = cast
        self._renderers: dict[Path, Renderer] = {}
        self._lock = threading.Lock()
        self.sessions: dict[str, str] = {}
        """The id of a session of each tenant, the latest."""
        for tenant in cast.tenants:
            for number in range(count):
                name = f"live of {tenant}, {number}"
                chance = random.Random(f"{seed} {name}")
                self.add(name, self._working(tenant, chance, record.flow(name)))

    def close(self) -> None:
        super().close()
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _working(self, tenant: str, chance: random.Random, flow: Flow) -> Callable[[], None]:
        def work() -> None:
            address, security = self._connect(tenant)
            with AvatarConnection(address, security=security) as server:
                while not self.stopped.is_set():
                    role = self._cast.roles[tenant][0]
                    number = chance.randrange(len(self._cast.speeches))
                    self._converse(server, tenant, role, number, flow)

        return work

    def _converse(
        self, server: AvatarConnection, tenant: str, role: Role, number: int, flow: Flow
    ) -> None:
        """One session, from its beginning to the end of its speech, or to its loss."""
        samples = self._cast.speeches[number]
        comparison = Comparison(self._renderer(role), number, samples)
        session = self._until_begun(server, role)
        if session is None:
            return
        self.sessions[tenant] = session.id
        pushed = False
        while True:
            try:
                if not pushed:
                    session.push(samples, SAMPLE_RATE_HZ)
                    session.end_of_speech()
                    pushed = True
                self._listen(session, tenant, role, comparison, flow)
                session.close()
                self.record.count("sessions")
                break
            except (_Broken, LipwireError) as error:
                session.leave()
                self.record.count(f"session broke: {type(error).__name__}")
                if not pushed:
                    break  # how much of the speech has arrived is not known
                again = self._until_resumed(server, session.id)
                if again is None:
                    break
                session = again
                comparison.resumed()
                if session.state is not State.SPEAKING:  # it ended while nobody listened
                    session.close()
                    break
        self.record.count("frames", comparison.right + comparison.held + len(comparison.wrong))
        self.record.count("live frames right", comparison.right)
        self.record.count("live frames held", comparison.held)
        self.record.count("live frames left out", comparison.dropped)
        for line in comparison.wrong:
            self.record.is_wrong(f"{role.name}, a live session: {line}")

    def _until_begun(self, server: AvatarConnection, role: Role) -> ConverseStream | None:
        until_s = time.monotonic() + PATIENT_S
        while not self.stopped.is_set():
            try:
                return server.converse(role.name, _SETTINGS)
            except LipwireError as error:
                self.record.count(f"session refused: {type(error).__name__}")
                pause_s = getattr(error, "retry_after_s", None) or _AGAIN_S
                if not error.retryable or time.monotonic() + pause_s > until_s:
                    why = f"{type(error).__name__}: {error}"
                    self.record.is_lost(f"a session of {role.name}: {why}")
                    return None
                self.stopped.wait(pause_s)
        return None

    def _until_resumed(self, server: AvatarConnection, session_id: str) -> ConverseStream | None:
        """The session again; None where it is gone."""
        while not self.stopped.is_set():
            try:
                found = server.resume(session_id)
            except NotFound:
                self.record.count("sessions gone")
                return None
            except LipwireError:
                self.stopped.wait(_AGAIN_S)
            else:
                self.record.count("sessions resumed")
                return found
        return None

    def _listen(
        self,
        session: ConverseStream,
        tenant: str,
        role: Role,
        comparison: Comparison,
        flow: Flow,
    ) -> None:
        """Until some time after the speech has ended. Raises _Broken."""
        ended: SpeechEnded | None = None
        for received in session:
            if isinstance(received, LiveFrame):
                right, wrong = comparison.right, len(comparison.wrong)
                comparison.frame(received)
                if comparison.right > right:
                    flow.came()
                if len(comparison.wrong) > wrong:
                    self._look_for_owner(tenant, role, received)
                if ended is not None and received.at_ms >= ended.at_ms + _REST_MS:
                    return
            elif isinstance(received, Sound):
                comparison.sound(received)
            elif isinstance(received, FramesDropped):
                comparison.left_out(received)
            elif isinstance(received, SpeechEnded):
                ended = received
                comparison.ended(received.interrupted)
            if self.stopped.is_set():
                return
        raise _Broken

    def _look_for_owner(self, tenant: str, role: Role, frame: LiveFrame) -> None:
        """Whether a wrong frame shows another tenant's avatar."""
        for other in self._cast.others(tenant):
            renderer = self._renderer(other)
            shown = [renderer.resting(frame.position), renderer.filmed(frame.position)]
            for speech in range(len(self._cast.speeches)):
                shown += (
                    renderer.spoken(frame.position, speech, number)
                    for number in range(renderer.length(speech))
                )
            if frame.data in shown:
                self.record.is_foreign(f"{tenant} got {other.name} in a session of {role.name}")
                return

    def _renderer(self, role: Role) -> Renderer:
        package = role.looks[0].package
        with self._lock:
            if package not in self._renderers:
                self._renderers[package] = Renderer(package, role.windows, kept=_KEPT)
            return self._renderers[package]
