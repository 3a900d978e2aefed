"""The other processes of a server: asked all at once, each by its own socket."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from lipwire.domain import Call, DeadlineExceeded, LipwireError, NotFound, Unavailable
from lipwire.domain.tracing import trace_headers
from lipwire.rpc.backends.statuses import error_of_call, says_why
from lipwire.rpc.credentials import FORWARDED
from lipwire.rpc.transport import UNLIMITED_BYTES, connecting_within, open_channel
from lipwire.rpc.workers.place import WorkerPlace, address_of
from lipwire.session.live.sessions import NO_SESSION

_ACCEPTED_WITHIN_S: Final = 20.0
"""One that is there and has not said a word by then hangs, however long the call may take."""
_HANGS: Final = "timed out"
"""In gRPC's text for a connection that was not made within that time, and not refused either."""
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    connecting_within(_ACCEPTED_WITHIN_S),
)

_Answer = TypeVar("_Answer", bound=Message)
Outcomes = dict[int, _Answer | LipwireError]
"""The answer or the error of each process, by its number. Unavailable: it is not there, or is
ending."""


class Siblings:
    """Asks the other processes of a server over their Unix sockets, from the process at ``place``.
    Processes have numbers, from 0 (``WorkerPlace``). Each call says who asks, and has the request's
    id. Thread-safe."""

    def __init__(self, place: WorkerPlace) -> None:
        self.place: Final = place

    @contextmanager
    def asking(
        self,
        method: str,
        request: Message,
        kind: type[_Answer],
        timeout_s: float,
        call: Call,
        *,
        who: Sequence[int] | None = None,
    ) -> Iterator[Callable[[], Outcomes[_Answer]]]:
        """Send ``request`` to the gRPC ``method`` (its full name, as "/package.Service/Method") of
        other processes, all at once, and give the ``with`` block a function that waits for them and
        returns each one's answer or error, by process number; an error is returned, not raised, and
        Unavailable says that the process is not there or is ending. A context manager: calls under
        way are cancelled at its end.

        ``who`` are the numbers of the processes to ask, None for all others. ``kind`` is the type
        of the answers. Each process has ``timeout_s`` seconds, and less where ``call``, the request
        that this is done for, ends first. A connection is made for each call, which takes a
        millisecond: one that was kept would not know that its process has been replaced.
        """
        with ExitStack() as stack:
            pending: dict[int, Any] = {}
            for index in self.place.others if who is None else who:
                channel = stack.enter_context(self._channel(index))
                ask: Any = channel.unary_unary(
                    method,
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=kind.FromString,
                )
                pending[index] = ask.future(request, timeout=timeout_s, metadata=_told(call))
                call.on_end(pending[index].cancel)
            yield lambda: {index: _outcome(asked, timeout_s) for index, asked in pending.items()}

    def streaming(
        self, index: int, method: str, messages: Iterator[bytes], call: Call
    ) -> Iterator[bytes]:
        """Send ``messages`` to the streaming gRPC ``method`` (its full name) of process number
        ``index``, which has the live session that the messages are about, and yield its answers,
        waiting for each. Messages and answers are serialised.

        ``call`` is the request that this is done for; the stream ends with it. Raises the error
        that the stream ends with; NotFound where the process is not there, because its sessions
        have ended with it, Unavailable where it ends meanwhile, DeadlineExceeded where it does not
        accept the call within 20 s, and Cancelled where ``call`` has ended.
        """
        with self._channel(index) as channel:
            unparsed: Any = channel.stream_stream(method)
            stream = unparsed(messages, timeout=call.remaining_s(), metadata=_told(call))
            call.on_end(stream.cancel)
            answered = False
            try:
                for data in stream:
                    answered = True
                    yield data
            except grpc.RpcError as failed:
                call.check()
                raise _stream_error(failed, answered) from None
            finally:
                stream.cancel()

    def _channel(self, index: int) -> grpc.Channel:
        # Thousands of rows of a sibling's are fine.
        return open_channel(
            address_of(self.place.socket(index)),
            max_message_bytes=UNLIMITED_BYTES,
            options=_OPTIONS,
        )


def _told(call: Call) -> tuple[tuple[str, str], ...]:
    """Who asks, and the request's id, as metadata."""
    return ((FORWARDED, call.access.told()), *trace_headers())


def _stream_error(failed: Any, answered: bool) -> LipwireError:
    error = error_of_call(failed)
    if says_why(failed) or not isinstance(error, Unavailable):
        return error
    if _HANGS in str(failed.details()):
        return DeadlineExceeded(f"no sign of life within {_ACCEPTED_WITHIN_S:g} s")
    if answered:
        return Unavailable("the process that had the session has ended; begin a new one")
    return NotFound(NO_SESSION)


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
