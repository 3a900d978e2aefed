"""How a process of a server listens: on the port, and for the server's other processes where it has
any."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from lipwire.rpc.server.server import RpcServer, ServerOptions, Service
from lipwire.rpc.workers import SharingInterceptor, Siblings, WorkerPlace
from lipwire.security import OPEN


@contextmanager
def listening(
    services: Sequence[Service],
    options: ServerOptions,
    *,
    healthy: Callable[[], bool],
    on_drain: Callable[[float], object] | None = None,
    place: WorkerPlace | None,
    part: Service,
) -> Iterator[RpcServer]:
    """Start a gRPC server with ``services`` as ``options`` say, give it to the block, and stop it
    afterwards.

    ``healthy`` is asked every second for what gRPC health checking says. ``on_drain`` is as for
    ``RpcServer``. ``place`` is that of this
    process among those of the server; None where it is the only one. At a ``place`` it shares the
    port with the others, passes calls about the whole server on to them, and answers their calls
    with ``part``: what this process alone has to say. Raises Unavailable where the address is
    taken, InvalidInput where it is no address of this machine.
    """
    with ExitStack() as stack:
        sharing: list[SharingInterceptor] = []
        if place is not None:
            # With threads of its own: however busy the port is, the others get their answers.
            among = dataclasses.replace(
                options,
                socket=place.socket(),
                # A file that only this user can reach: who asks was found out on the port.
                control=OPEN,
                credentials=None,
                max_requests=1,
                max_loads=options.max_loads * max(1, len(place.others)),
            )
            stack.enter_context(RpcServer([part], among))
            options = dataclasses.replace(options, share_port=True)
            sharing.append(SharingInterceptor(Siblings(place)))
        yield stack.enter_context(
            RpcServer(services, options, healthy=healthy, on_drain=on_drain, interceptors=sharing)
        )
