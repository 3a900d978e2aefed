"""The inference servers as one: a call goes to the right one, and to the next when it fails.

1. The servers that are up are put in the order of rendezvous hashing on the model's name, so that a
   model's calls go where its weights are (``affinity``, ``fleet``). One that is more than a server
   carries is asked of several (``replicas``).
2. The first is asked, with what is left of the deadline and ``x-model-id`` in the metadata.
3. What fails and may be repeated goes to the next, or again to the first after a pause
   (``retries``). A server that failed is out until its health checks say otherwise.

With one address nothing is hashed or watched: it may be a load balancer, whose answer to a health
check says nothing about the server that gets the next call.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final, TypeVar

import grpc

from lipwire.domain import (
    Call,
    Cancelled,
    DeadlineExceeded,
    LipwireError,
    Overloaded,
    Unavailable,
)
from lipwire.domain.tracing import span
from lipwire.rpc.backends.channels import Caller, Connection, Pending
from lipwire.rpc.backends.fleet import Fleet, FleetPolicy, Verdict
from lipwire.rpc.backends.replicas import ReplicaPolicy, Replicas
from lipwire.rpc.backends.retries import RetryPolicy, Tries
from lipwire.rpc.backends.statuses import error_of_call, reason_of_call
from lipwire.rpc.backends.transfer import metadata_of
from lipwire.rpc.credentials import ClientSecurity
from lipwire.rpc.routing import Metadata

_SETTLING_S: Final = 0.25
"""In their first moments calls wait for the first health check of every server, but never for more
than a quarter of their time."""

_CHECK_TIMEOUT_S: Final = 1.0

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
Send = Callable[[Connection, float, Metadata], Pending[_Answer]]
"""Sends a request to a server, given the seconds left and the metadata."""


@dataclass(slots=True)
class _Fared:
    """How a call fared: how many seconds its server has worked on it."""

    worked_s: float = 0.0


class InferenceServers:
    """Connections to inference servers, and which of the servers are up; servers are named by their
    addresses, HOST:PORT. Thread-safe; its owner closes it.

    A server is up from its first good health check or answered call until a check or a call finds
    it unreachable or not serving; then a good check has to bring it back. One that was not asked
    yet is not up. With one address nothing is watched, and that server counts as up.

    Requests are sent by functions that callers bring, ``send(connection, left_s, metadata)``: each
    sends its request over that connection, with ``left_s`` seconds to be answered and that gRPC
    metadata, and returns the call under way at once, as the ``future`` method of a stub does.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        retries: RetryPolicy,
        fleet: FleetPolicy,
        replicas: ReplicaPolicy,
        max_message_bytes: int,
        use_proxy: bool,
        security: ClientSecurity,
        check_every_s: float,
    ) -> None:
        """``urls`` are HOST:PORT, each once. With several servers each gets a health check every
        ``check_every_s`` seconds, and ``fleet`` says when one counts as unreachable; ``retries``
        says how often a call is tried, and ``replicas`` when a model is asked of several servers. A
        message has at most ``max_message_bytes``; ``use_proxy`` says whether the environment's
        proxy variables count, and ``security`` how connections are encrypted and what token is sent
        (see ``open_channel``). All arguments have been checked. Connects in the background."""
        self._policy = retries
        self._random = Random()
        self._clock = time.monotonic
        self._check_every_s = check_every_s
        self._closing = threading.Event()
        self.fleet: Final = Fleet(urls, clock=self._clock, policy=fleet)
        self.replicas: Final = Replicas(clock=self._clock, policy=replicas)
        self._connections = {
            url: Connection(
                url,
                max_message_bytes=max_message_bytes,
                use_proxy=use_proxy,
                security=security,
            )
            for url in urls
        }
        self._watched = len(urls) > 1
        self._silent = False
        """Where nothing is watched: whether the log has it that the one address is out."""
        self._settled_by = self._clock() + _SETTLING_S
        self._watcher = threading.Thread(target=self._watch, name="inference-health", daemon=True)
        if self._watched:
            self._watcher.start()

    def expected(self) -> frozenset[str]:
        """Return the addresses of the servers that are up; where there is one server alone, always
        its address, because it is not watched."""
        return frozenset(self.fleet.up() if self._watched else self._connections)

    def close(self) -> None:
        """Close all connections, and stop watching the servers: calls under way and later ones
        raise Unavailable.

        Closing twice is allowed.
        """
        self._closing.set()
        self.fleet.end_waiting()
        for connection in self._connections.values():
            connection.close()
        if self._watched and self._watcher is not threading.current_thread():
            self._watcher.join()

    def ask(
        self,
        model_id: str,
        send: Send[_Answer],
        budget_s: float,
        call: Call | None,
        retries: RetryPolicy | None = None,
        *,
        worked_s: Callable[[_Answer], float] | None = None,
    ) -> _Answer:
        """Make one call, with retries on this and other servers, wait for it, and return the
        answer.

        ``model_id`` decides the order in which servers are asked. ``send(connection, left_s,
        metadata)`` sends the request of one attempt, which has ``left_s`` seconds, and returns the
        call under way; all attempts together have ``budget_s`` seconds. ``call`` is the request
        that this is done for: when it ends, so does the attempt under way; None: there is none.
        ``retries`` takes the place of the policy that this object was made with; None: that policy
        counts. ``worked_s(answer)`` returns how many seconds a server has worked on the call. With
        it, the call counts as load of the model, and goes to the server with the fewest of the
        model's calls among those that are asked for the model (``Replicas``); without it, to the
        first server that is up. Where none is up, all are tried. Raises the error that the server
        sent, DeadlineExceeded when the time is over, Unavailable where no server can be reached or
        this is closed, and Cancelled where ``call`` ends first.
        """
        deadline = self._clock() + budget_s
        tries = Tries(retries or self._policy, deadline, self._random)
        caller = Caller(call, self.fleet.recheck)
        live = call is not None and call.service == "live"
        if self._watched and (settling := self._settled_by - self._clock()) > 0:
            self.fleet.wait_known(min(settling, budget_s / 4))
        while True:
            order = self.fleet.order(model_id)
            if worked_s is not None:
                order = self.replicas.order(model_id, order, live=live)
            server = tries.choose(order)
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise _late(budget_s)
            if caller.gone:
                raise Cancelled("the caller has gone")
            try:
                with span("inference", "client", **{"server.address": server}):
                    metadata = metadata_of(model_id)
                    connection = self._connections[server]
                    if worked_s is None:
                        return self._try(connection, send, left_s, metadata, caller)
                    with self._counting(model_id, server, live) as fared:
                        answer = self._try(connection, send, left_s, metadata, caller)
                        fared.worked_s = worked_s(answer)
                        return answer
            except Unavailable as error:
                failed: LipwireError = error
            except DeadlineExceeded as error:
                # The server's own words where it refused; else it is our time that is up.
                raise (error if self._clock() < deadline else _late(budget_s)) from None
            except LipwireError as error:
                failed = error
            order = self.fleet.order(model_id)
            pause_s = tries.pause_after(failed, order=order, now=self._clock())
            if pause_s is None or self._closing.is_set():
                raise failed
            if pause_s:
                self.fleet.rest(pause_s, lambda: caller.gone)

    def tell_next(self, model_id: str, after: str, send: Send[object], timeout_s: float) -> None:
        """Send one request about ``model_id``, without waiting for its answer, which nobody gets,
        to the server that would be asked for that model if the one at the address ``after`` were
        out; does nothing where no other is up. ``send(connection, timeout_s, metadata)`` sends it,
        to be answered within ``timeout_s`` seconds, and returns the call under way. Raises nothing
        where it fails."""
        expected = self.expected() - {after}
        address = next((one for one in self.fleet.order(model_id) if one in expected), None)
        if address is not None:
            self.tell(model_id, address, send, timeout_s)

    def tell(self, model_id: str, address: str, send: Send[object], timeout_s: float) -> None:
        """Send one request about ``model_id`` to the server at ``address``, one of these, whether
        it is up or not, without waiting for its answer, which nobody gets. ``send(connection,
        timeout_s, metadata)`` sends it, to be answered within ``timeout_s`` seconds, and returns
        the call under way. Does nothing once this object is closed; raises nothing where the
        request fails."""
        server = self._connections[address]
        try:
            pending = send(server, timeout_s, metadata_of(model_id))
        except ValueError:
            return  # closed
        server.keep(pending)
        pending.add_done_callback(lambda _: server.done(pending))

    def tell_all(
        self, send: Send[_Answer], timeout_s: float, model_id: str | None = None
    ) -> dict[str, _Answer | LipwireError]:
        """Send a request to every server at once, without retries, wait for all, and return each
        one's answer or error by its address.

        ``send(connection, timeout_s, metadata)`` sends it to one server, which has ``timeout_s``
        seconds to answer, and returns the call under way. ``model_id`` is the model that it is
        about; None for none. Servers that are not up get a second at most, and one that cannot be
        reached counts as out from then on. Raises Unavailable once closed, and nothing else.
        """
        if self._closing.is_set():
            raise self._closed()
        asked_at, expected = self._clock(), self.expected()
        short_s = min(timeout_s, _CHECK_TIMEOUT_S)
        metadata = metadata_of(model_id)
        answers: dict[str, _Answer | LipwireError] = {}
        try:
            sent = {
                address: send(server, timeout_s if address in expected else short_s, metadata)
                for address, server in self._connections.items()
            }
        except ValueError:
            raise self._closed() from None
        for address, pending in sent.items():
            try:
                answers[address] = pending.result()
                self._heard(address)
            except grpc.FutureCancelledError:
                answers[address] = self._closed()
            except grpc.RpcError as failed:
                answers[address] = error = error_of_call(failed)
                if address in expected and isinstance(error, Unavailable):
                    self._lost(self._connections[address], failed, asked_at)
        return answers

    @contextmanager
    def _counting(self, model_id: str, server: str, live: bool) -> Iterator["_Fared"]:
        """Count the call of the block as load of ``model_id``."""
        fared = _Fared()
        began_s = self._clock()
        self.replicas.began(model_id, server, live=live)
        late: bool | None = None
        try:
            yield fared
            late = self.replicas.is_late(self._clock() - began_s, fared.worked_s)
        except Overloaded:
            late = True
            raise
        finally:
            if self.replicas.ended(model_id, server, live=live, late=late):
                count = self.replicas.servers(model_id)
                _log.info("%s is more than one server carries: %d are asked", model_id, count)

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
                self._lost(server, failed, asked_at)
            elif not isinstance(error, DeadlineExceeded):
                self._answered(server)
            raise error from None
        finally:
            server.done(pending)
            caller.hold(None)
        self._answered(server)
        return answer

    def _answered(self, server: Connection) -> None:
        self.fleet.answered(server.address)
        self._heard(server.address)

    def _heard(self, address: str) -> None:
        if self._silent:
            self._silent = False
            _log.info("inference server %s is back", address)

    def _lost(self, server: Connection, failed: object, asked_at: float) -> None:
        reason = reason_of_call(failed, server.peer)
        if self._watched:
            out = self.fleet.lost(server.address, reason, asked_at=asked_at)
        else:
            out, self._silent = not self._silent, True
        if out:
            _log.warning("inference server %s is out: %s", server.address, reason)

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
            if verdict != "silent":
                return
            up = self.fleet.up()
            if address in up:
                # Whether it hangs is known after a few such checks: not one pause each later.
                self._check(connection)
            elif up:
                connection.cancel_all()  # to be tried elsewhere, while there is time

        connection.check(_CHECK_TIMEOUT_S, tell)


def _late(budget_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"no answer of an inference server within {budget_s:.3g} s")
