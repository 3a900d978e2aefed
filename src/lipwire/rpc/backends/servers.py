"""The inference servers as one: a call goes to the right one, and to the next when it fails.

1. The servers that are up are put in the order of rendezvous hashing on the model's name, so that a
   model's calls go where its weights are (``affinity``, ``fleet``).
2. The first is asked, with what is left of the deadline and ``x-model-id`` in the metadata.
3. What fails and may be repeated goes to the next, or again to the first after a pause
   (``retries``). A server that failed is out until its health checks say otherwise.

With one address nothing is hashed or watched: it may be a load balancer, whose answer to a health
check says nothing about the server that gets the next call.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

import grpc

from lipwire.domain import DeadlineExceeded, LipwireError, Unavailable
from lipwire.rpc.backends.channels import Caller, Connection, Pending
from lipwire.rpc.backends.fleet import Fleet, FleetPolicy, Verdict
from lipwire.rpc.backends.retries import RetryPolicy, Tries
from lipwire.rpc.backends.statuses import error_of_call, reason_of_call
from lipwire.rpc.backends.transfer import Metadata, metadata_of
from lipwire.rpc.calls import Cancelled, current

_SETTLING_S: Final = 0.25
"""In their first moments calls wait for the first health check of every server, but never for more
than a quarter of their time."""

_CHECK_TIMEOUT_S: Final = 1.0

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
Send = Callable[[Connection, float, Metadata], Pending[_Answer]]
"""Sends a request to a server, given the seconds left and the metadata."""


class InferenceServers:
    """Connections to servers, and which of them are up. Closed by its owner; thread-safe."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        retries: RetryPolicy,
        fleet: FleetPolicy,
        max_message_bytes: int,
        credentials: grpc.ChannelCredentials | None,
        check_every_s: float,
    ) -> None:
        """What is passed has been checked. Connects in the background."""
        self._policy = retries
        self._random = Random()
        self._clock = time.monotonic
        self._check_every_s = check_every_s
        self._closing = threading.Event()
        self.fleet: Final = Fleet(urls, clock=self._clock, policy=fleet)
        self._connections = {
            url: Connection(url, max_message_bytes=max_message_bytes, credentials=credentials)
            for url in urls
        }
        self._watched = len(urls) > 1
        self._settled_by = self._clock() + _SETTLING_S
        self._watcher = threading.Thread(target=self._watch, name="inference-health", daemon=True)
        if self._watched:
            self._watcher.start()

    def expected(self) -> frozenset[str]:
        """Those that ought to answer: all that are up; where nothing is watched, the one."""
        return frozenset(self.fleet.up() if self._watched else self._connections)

    def close(self) -> None:
        """Calls under way and later ones raise Unavailable. Closing twice is fine."""
        self._closing.set()
        self.fleet.wake()
        for connection in self._connections.values():
            connection.close()
        if self._watched and self._watcher is not threading.current_thread():
            self._watcher.join()

    def ask(self, model_id: str, send: Send[_Answer], budget_s: float) -> _Answer:
        """One call with its retries, done in ``budget_s``; ``send`` is called for every try.

        Raises what the server meant, DeadlineExceeded, Unavailable, and Cancelled where the call
        that this thread works for ends first.
        """
        deadline = self._clock() + budget_s
        tries = Tries(self._policy, deadline, self._random)
        caller = Caller(current(), self.fleet.stir)
        metadata = metadata_of(model_id)
        asked: set[str] = set()
        if self._watched and (settling := self._settled_by - self._clock()) > 0:
            self.fleet.wait_known(min(settling, budget_s / 4))
        while True:
            order = self.fleet.order(model_id)
            server = next((name for name in order if name not in asked), None)
            if server is None:
                asked.clear()
                server = order[0]
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise _late(budget_s)
            if caller.gone:
                raise Cancelled("the caller has gone")
            try:
                return self._try(self._connections[server], send, left_s, metadata, caller)
            except Unavailable as error:
                failed: LipwireError = error
            except DeadlineExceeded as error:
                # The server's own words where it refused; else it is our time that is up.
                raise (error if self._clock() < deadline else _late(budget_s)) from None
            except LipwireError as error:
                failed = error
            asked.add(server)
            another = any(name not in asked for name in self.fleet.order(model_id))
            pause_s = tries.pause_after(failed, another=another, now=self._clock())
            if pause_s is None or self._closing.is_set():
                raise failed
            if pause_s:
                self.fleet.rest(pause_s, lambda: caller.gone)

    def tell_all(
        self, send: Callable[[Connection, float], Pending[_Answer]], timeout_s: float
    ) -> dict[str, _Answer | LipwireError]:
        """One call to every server at once, without retries; answer or error by address.

        Those that are not up get a second at most, and one that turns out to be gone is up no
        longer. Raises Unavailable when closed.
        """
        if self._closing.is_set():
            raise self._closed()
        asked_at, expected = self._clock(), self.expected()
        short_s = min(timeout_s, _CHECK_TIMEOUT_S)
        answers: dict[str, _Answer | LipwireError] = {}
        try:
            sent = {
                address: send(server, timeout_s if address in expected else short_s)
                for address, server in self._connections.items()
            }
        except ValueError:
            raise self._closed() from None
        for address, pending in sent.items():
            try:
                answers[address] = pending.result()
            except grpc.FutureCancelledError:
                answers[address] = self._closed()
            except grpc.RpcError as failed:
                answers[address] = error = error_of_call(failed)
                if address in expected and isinstance(error, Unavailable):
                    self._lost(address, reason_of_call(failed), asked_at)
        return answers

    def _try(
        self,
        server: Connection,
        send: Send[_Answer],
        left_s: float,
        metadata: Metadata,
        caller: Caller,
    ) -> _Answer:
        """One try on one server; what goes wrong is told to the fleet."""
        asked_at = self._clock()
        try:
            pending = send(server, left_s, metadata)
        except ValueError:
            raise self._closed() from None  # what gRPC raises for a call on a closed channel
        server.keep(pending)
        caller.hold(pending)
        try:
            answer = pending.result()
        except grpc.FutureCancelledError:
            if self._closing.is_set():
                raise self._closed() from None
            if caller.gone:
                raise Cancelled("the caller has gone") from None
            raise Unavailable("no inference server answers") from None
        except grpc.RpcError as failed:
            if self._closing.is_set():
                raise self._closed() from None
            error = error_of_call(failed)
            if isinstance(error, Unavailable):
                self._lost(server.address, reason_of_call(failed), asked_at)
            elif not isinstance(error, DeadlineExceeded):
                self.fleet.answered(server.address)
            raise error from None
        finally:
            server.done(pending)
            caller.hold(None)
        self.fleet.answered(server.address)
        return answer

    def _lost(self, address: str, reason: str, asked_at: float) -> None:
        if self._watched and self.fleet.lost(address, reason, asked_at=asked_at):
            _log.warning("inference server %s is out: %s", address, reason)

    def _closed(self) -> Unavailable:
        return Unavailable("the connection to the inference servers is closed")

    def _watch(self) -> None:
        """Check every server, again and again."""
        while True:
            for connection in self._connections.values():
                self._check(connection)
            if self._closing.wait(self._check_every_s):
                return

    def _check(self, connection: Connection) -> None:
        asked_at = self._clock()
        address = connection.address

        def tell(verdict: Verdict, reason: str) -> None:
            change = self.fleet.judge(address, verdict, asked_at=asked_at, reason=reason)
            if change == "out":
                _log.warning("inference server %s is out: %s", address, reason)
            elif change == "back":
                _log.info("inference server %s is back", address)
            if verdict == "silent" and (up := self.fleet.up()) and address not in up:
                connection.cancel_all()  # to be tried elsewhere, while there is time

        connection.check(_CHECK_TIMEOUT_S, tell)


def _late(budget_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"no answer of an inference server within {budget_s:.3g} s")
