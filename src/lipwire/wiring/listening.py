"""How a server's process listens: on the port, and where it is one of several, for the others."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from lipwire.rpc.serving import RpcServer, ServerOptions, Service
from lipwire.rpc.workers import SharingInterceptor, Siblings, WorkerPlace


@contextmanager
def listening(
    services: Sequence[Service],
    options: ServerOptions,
    *,
    healthy: Callable[[], bool],
    place: WorkerPlace | None,
    part: Service,
) -> Iterator[RpcServer]:
    """The server on the port; it is stopped with the block.

    At a ``place`` among others it shares the port with them, passes on to them what is about the
    server as a whole, and answers them with its ``part`` of that.
    """
    with ExitStack() as stack:
        sharing: list[SharingInterceptor] = []
        if place is not None:
            # With threads of its own: however busy the port is, the others get their answers.
            among = dataclasses.replace(
                options,
                socket=place.socket(),
                max_requests=1,
                max_loads=options.max_loads * max(1, len(place.others)),
            )
            stack.enter_context(RpcServer([part], among))
            options = dataclasses.replace(options, share_port=True)
            sharing.append(SharingInterceptor(Siblings(place)))
        yield stack.enter_context(
            RpcServer(services, options, healthy=healthy, interceptors=sharing)
        )
