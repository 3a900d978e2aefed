"""The other processes of a server: asked all at once, each by its own socket."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from lipwire.domain import DeadlineExceeded, LipwireError, Unavailable
from lipwire.rpc.backends.statuses import error_of_call
from lipwire.rpc.calls import current
from lipwire.rpc.workers.place import WorkerPlace, address_of

_ACCEPTED_WITHIN_S: Final = 20.0
"""One that is there and has not said a word by then hangs, however long the call may take."""
_HANGS: Final = "timed out"
"""In gRPC's text for a connection that was not made within that time, and not refused either."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # thousands of rows of a sibling's are fine
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)

_Answer = TypeVar("_Answer", bound=Message)
Outcomes = dict[int, _Answer | LipwireError]
"""What each process said, by its number. Unavailable: it is not there, or is ending."""


class Siblings:
    """The processes beside the one at ``place``. For many threads."""

    def __init__(self, place: WorkerPlace) -> None:
        self.place: Final = place

    @contextmanager
    def asking(
        self, method: str, request: Message, kind: type[_Answer], timeout_s: float
    ) -> Iterator[Callable[[], Outcomes[_Answer]]]:
        """Ask all of them ``method`` while the block runs; what is given waits for what they say.

        Each has ``timeout_s``, and less where the call that this thread works for ends first. A
        connection is made for each call: it takes a millisecond, and tells who is there now, where
        one that is kept would remember who was not a moment ago.
        """
        call = current()
        with ExitStack() as stack:
            pending: dict[int, Any] = {}
            for index in self.place.others:
                address = address_of(self.place.socket(index))
                # The name misleads: it is also how long one attempt to connect may take.
                patience = ("grpc.min_reconnect_backoff_ms", round(_ACCEPTED_WITHIN_S * 1000))
                channel = stack.enter_context(
                    grpc.insecure_channel(address, options=(*_OPTIONS, patience))
                )
                ask: Any = channel.unary_unary(
                    method,
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=kind.FromString,
                )
                pending[index] = ask.future(request, timeout=timeout_s)
                if call is not None:
                    call.on_end(pending[index].cancel)
            yield lambda: {index: _outcome(asked, timeout_s) for index, asked in pending.items()}


def _outcome(pending: Any, timeout_s: float) -> Any:
    try:
        return pending.result()
    except grpc.FutureCancelledError:
        return Unavailable("the caller has gone")
    except grpc.RpcError as failed:
        error = error_of_call(failed)
        if isinstance(error, DeadlineExceeded):
            return DeadlineExceeded(f"no answer within {timeout_s:.3g} s")
        if isinstance(error, Unavailable) and _HANGS in str(pending.details()):
            return DeadlineExceeded(f"no sign of life within {_ACCEPTED_WITHIN_S:g} s")
        if type(error) is LipwireError:  # a defect there: its log has it, under this
            return LipwireError(f"{pending.code().name}: {pending.details()}")
        return error
