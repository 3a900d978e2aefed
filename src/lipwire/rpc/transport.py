"""How gRPC is set up here: the options of every channel and of every server.

Names and meanings: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html. gRPC takes a name
that it does not know without a word.
"""

from collections.abc import Sequence
from typing import Final

import grpc

from lipwire.rpc.credentials import (
    PLAIN,
    ClientSecurity,
    channel_credentials,
    check_token_is_safe,
    with_token,
)

Option = tuple[str, int | str]

UNLIMITED_BYTES: Final = -1
_HANDSHAKE_MS: Final = 15_000
"""gRPC's own are two minutes, for which who connects and says nothing would hold a connection."""


def open_channel(
    address: str,
    *,
    max_message_bytes: int,
    use_proxy: bool = False,
    security: ClientSecurity = PLAIN,
    options: Sequence[Option] = (),
) -> grpc.Channel:
    """Return a channel to ``address`` (HOST:PORT, or unix:PATH); it connects when it is first used,
    and whoever gets it closes it. Whether there can be such an address is not checked
    (``check_address``).

    ``max_message_bytes`` limits one message, sent or received; -1 is no limit. With ``use_proxy``
    the variables ``grpc_proxy``, ``https_proxy``, ``http_proxy`` and ``no_proxy`` count, else none
    of them. ``security`` says how it is encrypted, and what is sent to show who asks. ``options``
    are gRPC channel options, (name, value), added to those that every channel has. Raises
    InvalidInput where a file of ``security`` cannot be read, or where its token would go to another
    machine without encryption.
    """
    tls, token = security.tls, security.token
    if token:
        check_token_is_safe(address, encrypted=tls is not None)
    chosen = (
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC's own default is to obey the variables, which are set for browsers and pip; a proxy
        # made for those seldom lets gRPC through, and never leads to this machine's loopback.
        ("grpc.enable_http_proxy", int(use_proxy)),
        # A server that comes back is noticed in a second, not in up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        *options,
    )
    if tls is None:
        channel = grpc.insecure_channel(address, options=chosen)
    else:
        named = (
            () if tls.server_name is None else (("grpc.ssl_target_name_override", tls.server_name),)
        )
        channel = grpc.secure_channel(address, channel_credentials(tls), options=(*chosen, *named))
    return with_token(channel, token) if token else channel


def connecting_within(seconds: float) -> Option:
    """Return the gRPC channel option that ends each attempt to connect after ``seconds``."""
    # The name misleads; gRPC's default is 20 seconds.
    return ("grpc.min_reconnect_backoff_ms", round(seconds * 1000))


def server_options(
    *, max_message_bytes: int, share_port: bool, keepalive_s: float
) -> tuple[Option, ...]:
    """Return gRPC channel options, (name, value), for a server: for messages of up to
    ``max_message_bytes``, sent or received, and with the port shared between processes
    (SO_REUSEPORT) where ``share_port`` is true. On an idle connection a sign of life is asked for
    every ``keepalive_s`` seconds; the connection is closed where none arrives within 20 s."""
    return (
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.keepalive_time_ms", round(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Within which a new connection has to say that it is one of gRPC, encrypted or not.
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        # Also: clients may ask for a sign of life when no call is under way.
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients ask every 10 s, in a call and out of one. This is far below, so that no delay
        # makes it look like too often: the third ping that comes sooner after the one before, with
        # nothing sent to the client meanwhile, ends the connection.
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    )
