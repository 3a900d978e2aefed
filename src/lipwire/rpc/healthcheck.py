"""Asking a server how it is, by gRPC health checking v1."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lipwire.domain import Unavailable
from lipwire.rpc.backends.statuses import error_of_call
from lipwire.rpc.credentials import PLAIN, ClientSecurity
from lipwire.rpc.reachability import Kind, Peer, check_address
from lipwire.rpc.transport import connecting_within, open_channel

_MAX_MESSAGE_BYTES = 64 * 1024


def is_serving(
    address: str,
    *,
    service: str = "",
    timeout_s: float,
    use_proxy: bool = False,
    security: ClientSecurity = PLAIN,
) -> bool:
    """Return whether the server at ``address`` (HOST:PORT, or unix:PATH) says that ``service``
    serves; empty is the server as a whole.

    Waits at most ``timeout_s`` seconds. ``use_proxy`` says whether the environment's proxy
    variables count, and ``security`` how the connection is encrypted and what token is sent. Raises
    Unavailable or DeadlineExceeded where no answer comes, NotFound where the server knows no such
    service, and InvalidInput where ``address`` or a file of ``security`` is not usable, or its
    token would go to another machine without encryption.
    """
    kind: Kind = "inference server" if address.endswith(":50051") else "compositing server"
    peer = Peer(address, kind, use_proxy)
    if not address.startswith("unix:"):
        check_address(address, peer.kind)
    request = health_pb2.HealthCheckRequest(service=service)
    with open_channel(
        address,
        max_message_bytes=_MAX_MESSAGE_BYTES,
        use_proxy=use_proxy,
        security=security,
        options=[connecting_within(timeout_s)],
    ) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(request, timeout=timeout_s)
        except grpc.RpcError as failure:
            raise error_of_call(failure, peer) from None
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def check_serving(
    address: str,
    *,
    service: str = "",
    timeout_s: float,
    use_proxy: bool = False,
    security: ClientSecurity = PLAIN,
) -> None:
    """Ask the server at ``address`` (HOST:PORT, or unix:PATH) whether ``service`` serves (empty:
    the server as a whole), waiting at most ``timeout_s`` seconds. Returns None where the server
    says that it does, and raises Unavailable where it says that it does not. ``use_proxy`` says
    whether the environment's proxy variables count, and ``security`` how the connection is
    encrypted and what token is sent. Raises also Unavailable or DeadlineExceeded where no answer
    comes, NotFound where the server knows no such service, and InvalidInput where ``address`` or a
    file of ``security`` is not usable, or its token would go to another machine without
    encryption."""
    if not is_serving(
        address, service=service, timeout_s=timeout_s, use_proxy=use_proxy, security=security
    ):
        what = f"says that {service} is not serving" if service else "does not serve now"
        raise Unavailable(f"the server at {address} answers, and {what}")
