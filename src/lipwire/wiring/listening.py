"""How a process of a server listens: on the port, and for the server's other processes where it has
any."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from lipwire.rpc.server.server import RpcServer, ServerOptions, Service
from lipwire.rpc.workers import OwnerInterceptor, SharingInterceptor, Siblings, WorkerPlace
from lipwire.security import AccessControl, ForwardedControl
from lipwire.serving import BackendHealth

_log = logging.getLogger(__name__)


def telling_why_not(health: Callable[[], BackendHealth]) -> Callable[[], bool]:
    """Return a function without arguments that calls ``health`` and returns whether it is healthy.
    Where it is not, the reason (``detail``) is logged: each reason once, until it is healthy again.
    """
    told: set[str] = set()

    def healthy() -> bool:
        seen = health()
        if seen.healthy:
            told.clear()
        elif seen.detail not in told:
            told.add(seen.detail)
            _log.warning("no mouths can be made: %s", seen.detail or "no reason was given")
        return seen.healthy

    return healthy


@contextmanager
def listening(
    services: Sequence[Service],
    options: ServerOptions,
    *,
    healthy: Callable[[], bool],
    live: Callable[[], bool] = lambda: True,
    on_drain: Callable[[float], object] | None = None,
    place: WorkerPlace | None,
    parts: Sequence[Service],
    most_live: int | None = None,
) -> Iterator[RpcServer]:
    """Start a gRPC server with ``services`` and with the settings ``options``, give it to the
    ``with`` block, and stop it afterwards. A context manager.

    ``healthy()`` is called every second and returns what gRPC health checking reports. ``live()``
    returns whether the process works, and is called whenever that is checked. ``on_drain(left_s)``
    is called when the server is drained, with the seconds that are left, and must not wait.

    ``place`` is that of this process among the processes of the server; None where it is the only
    one. With a ``place`` the process shares the port with the others. It passes calls about the
    whole server on to them, and calls about one live session to the process that has the session.
    It answers their calls with ``parts``, services that report what this process alone has; without
    a ``place`` these are not used. ``most_live`` is how many live sessions all processes may have
    together; None is no limit. Raises Unavailable where the address is taken, InvalidInput where it
    is no address of this machine.
    """
    until_s = 0.0

    def draining(left_s: float) -> None:
        nonlocal until_s
        until_s = time.monotonic() + left_s
        if on_drain is not None:
            on_drain(left_s)

    with ExitStack() as stack:
        interceptors: list[SharingInterceptor | OwnerInterceptor] = []
        if place is not None:
            # With threads of its own: however busy the port is, the others get their answers.
            among = dataclasses.replace(
                options,
                socket=place.socket(),
                # A file that only this user can reach: who asks was found out on the port.
                control=ForwardedControl(
                    options.control.limits if isinstance(options.control, AccessControl) else None
                ),
                credentials=None,
                max_requests=1,
                max_loads=options.max_loads * max(1, len(place.others)),
            )
            inner = stack.enter_context(RpcServer(parts, among, live=live))
            # Clients of its sessions whose connections lead to other processes have time to leave.
            stack.callback(lambda: inner.drain(max(0.0, until_s - time.monotonic())))
            options = dataclasses.replace(options, share_port=True)
            siblings = Siblings(place)
            interceptors += [
                SharingInterceptor(siblings, most_live=most_live),
                OwnerInterceptor(siblings),
            ]
        yield stack.enter_context(
            RpcServer(
                services,
                options,
                healthy=healthy,
                live=live,
                on_drain=draining,
                interceptors=interceptors,
            )
        )
