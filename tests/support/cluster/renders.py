"""Orders for videos: what was acknowledged is made, whatever happens, and is the right video."""

import itertools
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import grpc
from tests.support.cluster.cast import Cast
from tests.support.cluster.clients import PATIENT_S, Connect, Threads
from tests.support.cluster.record import Record

from lipwire.api import render
from lipwire.audio import to_int16
from lipwire.bench.chaos.cast import Role
from lipwire.domain import LipwireError, Overloaded, Unavailable
from lipwire.domain.closing import Closing
from lipwire.rpc.backends.statuses import error_of_call
from lipwire.rpc.credentials import ClientSecurity
from lipwire.rpc.generated.lipwire.v1 import renders_pb2 as pb
from lipwire.rpc.generated.lipwire.v1.renders_pb2_grpc import RenderServiceStub
from lipwire.rpc.transport import open_channel

_CALL_S: Final = 10.0
_EVERY_S: Final = 4.0
_SAMPLES: Final = 8_000
_AGAIN_S: Final = 0.2
_DONE_S: Final = 120.0
_MESSAGE_BYTES: Final = 2**24


class RenderConnection(Closing):
    """A connection to the RenderService at ``address``. Methods raise what the server says."""

    def __init__(self, address: str, security: ClientSecurity) -> None:
        self._channel = open_channel(address, max_message_bytes=_MESSAGE_BYTES, security=security)
        self._stub: Any = RenderServiceStub(self._channel)

    def submit(self, request: pb.SubmitRenderRequest) -> str:
        """Order a video, and return its id."""
        answer: pb.SubmitRenderResponse = self._called(self._stub.Submit, request)
        return answer.render.id

    def get(self, render_id: str) -> pb.Render:
        answer: pb.GetRenderResponse = self._called(
            self._stub.Get, pb.GetRenderRequest(id=render_id)
        )
        return answer.render

    def listed(self) -> list[str]:
        """The ids of the tenant's videos."""
        answer: pb.ListRendersResponse = self._called(self._stub.List, pb.ListRendersRequest())
        return [each.id for each in answer.renders]

    def close(self) -> None:
        self._channel.close()

    def _called(self, method: Any, request: object) -> Any:
        try:
            return method(request, timeout=_CALL_S)
        except grpc.RpcError as failure:
            raise error_of_call(failure) from None


class RenderClients(Threads):
    """One client of each tenant that orders a video every few seconds."""

    def __init__(self, connect: Connect, cast: Cast, record: Record, folder: Path) -> None:
        """``folder`` takes the videos that they have to be equal to."""
        super().__init__(record)
        self._connect = connect
        self.latest: dict[str, str] = {}
        """The id of a video of each tenant, the latest."""
        self._acknowledged: list[tuple[str, str, str]] = []
        self._lock = threading.Lock()
        said = to_int16(cast.speeches[0][:_SAMPLES])
        self._pcm = said.astype("<i2").tobytes()
        folder.mkdir()
        for tenant, roles in cast.roles.items():
            role = roles[0]
            path = folder / f"{role.name}.mp4"
            render(role.looks[0].package, said, path)
            wanted = sha256(path.read_bytes()).hexdigest()
            self.add(f"videos of {tenant}", self._working(tenant, role, wanted))

    def look(self) -> None:
        """Wait until all that was acknowledged is made, and look at it."""
        until_s = time.monotonic() + _DONE_S
        for tenant, render_id, wanted in self._acknowledged:
            with RenderConnection(*self._connect(tenant)) as connection:
                found = self._until_ended(connection, render_id, until_s)
            if found is None or found.state != pb.RENDER_STATE_DONE:
                why = "gone" if found is None else f"{found.state} {found.error}"
                self.record.is_lost(f"a video of {tenant} that was acknowledged is {why}")
            elif found.video.sha256 != wanted:
                self.record.is_wrong(f"a video of {tenant} is not what it has to be")
            else:
                self.record.count("videos")

    def _until_ended(
        self, connection: RenderConnection, render_id: str, until_s: float
    ) -> pb.Render | None:
        found: pb.Render | None = None
        while time.monotonic() < until_s:
            try:
                found = connection.get(render_id)
            except (Unavailable, Overloaded):
                pass
            except LipwireError:
                return None
            if found is not None and found.state not in (
                pb.RENDER_STATE_QUEUED,
                pb.RENDER_STATE_RUNNING,
            ):
                break
            time.sleep(_AGAIN_S)
        return found

    def _working(self, tenant: str, role: Role, wanted: str) -> Callable[[], None]:
        def work() -> None:
            with RenderConnection(*self._connect(tenant)) as connection:
                for number in itertools.count():
                    order = pb.SubmitRenderRequest(
                        model_id=role.name, pcm=self._pcm, idempotency_key=f"order-{number}"
                    )
                    if (render_id := self._until_acknowledged(connection, tenant, order)) is None:
                        return
                    self.latest[tenant] = render_id
                    with self._lock:
                        self._acknowledged.append((tenant, render_id, wanted))
                    if self.stopped.wait(_EVERY_S):
                        return

        return work

    def _until_acknowledged(
        self, connection: RenderConnection, tenant: str, order: pb.SubmitRenderRequest
    ) -> str | None:
        until_s = time.monotonic() + PATIENT_S
        while True:
            try:
                return connection.submit(order)
            except LipwireError as error:
                self.record.count(f"video refused: {type(error).__name__}")
                if time.monotonic() > until_s:
                    self.record.is_lost(f"an order of {tenant}: {error}")
                    return None
                if self.stopped.wait(_AGAIN_S):
                    return None
