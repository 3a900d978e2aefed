"""lipwire.v1.RenderService: finished videos, ordered, looked at, cancelled and removed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt

from lipwire.domain import FPS, InvalidInput, Unavailable
from lipwire.renders import Job, Renders, State
from lipwire.renders.ordering import listed, order_of
from lipwire.rpc.calls import call_of
from lipwire.rpc.generated.lipwire.v1 import renders_pb2 as pb
from lipwire.rpc.generated.lipwire.v1.renders_pb2_grpc import RenderServiceServicer
from lipwire.rpc.services.messages import model_id_of, samples_of

_STATES: Final[Mapping[State, pb.RenderState.ValueType]] = {
    "queued": pb.RENDER_STATE_QUEUED,
    "running": pb.RENDER_STATE_RUNNING,
    "done": pb.RENDER_STATE_DONE,
    "failed": pb.RENDER_STATE_FAILED,
    "cancelled": pb.RENDER_STATE_CANCELLED,
}
_LISTED: Final = 100


class RendersServicer(RenderServiceServicer):
    """Answers the calls of gRPC's RenderService; errors are raised, and ``ErrorInterceptor`` makes
    statuses of them. gRPC calls its methods, each with a request message and its ``context``, which
    carries the ``Call`` (``call_of``): who asks, and until when. A caller sees the renders of its
    own tenant alone."""

    def __init__(
        self, renders: Renders, names: Callable[[], Sequence[str]], *, speaks: bool
    ) -> None:
        """``renders`` are the server's, ``names()`` returns the avatars that there are, and
        ``speaks`` says whether there is a voice."""
        self._renders = renders
        self._names = names
        self._speaks = speaks

    def Submit(  # noqa: N802
        self, request: pb.SubmitRenderRequest, context: grpc.ServicerContext
    ) -> pb.SubmitRenderResponse:
        """Take in the order that ``request`` makes, and return its render, which is made later.
        Raises InvalidInput where a field is out of range or there is neither text nor audio,
        NotFound where there is no such avatar for the caller, KeyTaken where its idempotency key is
        another order's, Overloaded where too many wait, StorageFailed, and Unavailable where there
        is no voice for a text."""
        access = call_of(context).access
        pcm: npt.NDArray[np.int16] | None = None
        rate_hz = 0
        said = request.WhichOneof("speech")
        if said is None:
            raise InvalidInput("there is neither text nor pcm; give one of them")
        if said == "pcm":
            pcm, rate_hz = samples_of(
                request.pcm,
                sample_rate=request.sample_rate,
                channels=request.channels,
                field="pcm",
            )
        elif not request.text.strip():
            raise InvalidInput("text is empty; say what is to be said")
        order = order_of(
            access,
            self._names,
            avatar=model_id_of(request.model_id, access),
            text=request.text if said == "text" else None,
            video_format=request.format or "mp4",
            start_frame=request.start_frame,
            webhook=request.webhook or None,
            key=request.idempotency_key or None,
            takes_webhooks=self._renders.takes_webhooks,
        )
        if said == "text" and not self._speaks:
            raise Unavailable("this server has no voice; send pcm")
        return pb.SubmitRenderResponse(
            render=self._message(self._renders.submit(order, pcm, rate_hz))
        )

    def Get(  # noqa: N802
        self, request: pb.GetRenderRequest, context: grpc.ServicerContext
    ) -> pb.GetRenderResponse:
        """Return the render that ``request`` names, as it is now. Raises NotFound where the
        caller's tenant has none of that id."""
        job = self._renders.find(request.id, call_of(context).access.tenant)
        return pb.GetRenderResponse(render=self._message(job))

    def List(  # noqa: N802
        self, request: pb.ListRendersRequest, context: grpc.ServicerContext
    ) -> pb.ListRendersResponse:
        """Return the renders of the caller's tenant, newest first, as many as ``request`` asks for
        at most (``most``; 0: 100), and only those older than the render whose id it names
        (``before``), if any. Raises InvalidInput where ``most`` is not 0 to 1000, and NotFound
        where the tenant has no render of that id."""
        jobs = self._renders.every(
            call_of(context).access.tenant,
            before=request.before,
            most=listed(request.most or _LISTED),
        )
        return pb.ListRendersResponse(renders=[self._message(job) for job in jobs])

    def Cancel(  # noqa: N802
        self, request: pb.CancelRenderRequest, context: grpc.ServicerContext
    ) -> pb.CancelRenderResponse:
        """Cancel the render that ``request`` names where it has not ended, or remove one that has,
        with its video. Raises NotFound where the caller's tenant has none of that id."""
        tenant = call_of(context).access.tenant
        if self._renders.find(request.id, tenant).has_ended:
            self._renders.remove(request.id, tenant)
        else:
            self._renders.cancel(request.id, tenant)
        return pb.CancelRenderResponse()

    def _message(self, job: Job) -> pb.Render:
        message = pb.Render(
            id=job.id,
            state=_STATES[job.state],
            model_id=job.order.avatar,
            format=job.order.format,
            progress=job.progress,
            done_frames=job.done_frames,
            frames=job.frames,
            created_s=job.created_s,
            started_s=job.started_s or 0,
            ended_s=job.ended_s or 0,
            cached=job.cached,
        )
        if job.failure is not None:
            message.error_code, message.error = job.failure.code, job.failure.detail
        if job.video is not None:
            told = self._renders.telling.told(job)["video"]
            message.video.url = told["url"]
            message.video.signed_url = told.get("signed_url", "")
            message.video.size_bytes = job.video.size_bytes
            message.video.sha256 = job.video.sha256
            message.video.seconds = job.frames / FPS
        return message
