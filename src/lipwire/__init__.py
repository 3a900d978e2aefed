"""Lipwire: real-time lip-sync video, served.

Speech comes in, video of a person speaking it comes out. The Python API is in :mod:`lipwire.api`;
``connect`` is here as well.

Importing this package, or any module of it, turns ONNX Runtime's telemetry off, for this process
and for those that it starts: see ``_turn_telemetry_off``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lipwire.api.live import AvatarConnection, ClientSecurity

__version__ = "0.1.0"


def connect(
    address: str, *, use_proxy: bool = False, security: ClientSecurity | None = None
) -> AvatarConnection:
    """Return a connection to a server with live sessions; the same as ``lipwire.api.connect``.

    ``address`` is the server's host:port. With ``use_proxy`` the environment's proxy variables
    count. ``security`` says how the connection is encrypted and which API key or token is sent;
    with None nothing is encrypted and nothing sent. The caller closes it; it connects when the
    first session is begun. Raises InvalidInput where ``address`` cannot be an address, a file of
    ``security`` cannot be read, or its token would go to another machine without encryption.
    """
    from lipwire.api import connect as connect_to

    return connect_to(address, use_proxy=use_proxy, security=security)


def _turn_telemetry_off() -> None:
    """Have ONNX Runtime neither write a device id into the home folder nor connect to anybody.

    It reads ``ORT_DISABLE_TELEMETRY`` when it is imported; a value that is there already is left
    as it is. An empty one, which ONNX Runtime takes for consent, is none. Where it was imported
    before, its API stops what it would still have sent; what it did at its own import cannot be
    undone. Before 1.29 there was no telemetry but on Windows.
    Source: docs/Privacy.md of ONNX Runtime.
    """
    if os.environ.get("ORT_DISABLE_TELEMETRY"):
        return
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    disable = getattr(sys.modules.get("onnxruntime"), "disable_telemetry_events", None)
    if disable is not None:
        disable()


_turn_telemetry_off()
