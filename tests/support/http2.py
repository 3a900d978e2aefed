"""HTTP/2 by hand: what clients do that gRPC's own cannot be made to do (RFC 9113, RFC 7541)."""

import socket
from typing import Final

HEADERS: Final = 1
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA: Final = 0
_END_OF_HEADERS: Final = 4
_END_OF_STREAM: Final = 1
_INITIAL_WINDOW_SIZE: Final = 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def grpc_call(method: str, message: bytes, *, stream: int = 1, ended: bool = True) -> bytes:
    """A gRPC call with one message: the frames that a client sends. ``ended`` says that no further
    message comes."""

    def header(name: bytes, text: bytes) -> bytes:  # a literal without a table, RFC 7541, 6.2.2
        return bytes([0, len(name)]) + name + bytes([len(text)]) + text

    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    head = b"".join(header(name.encode(), text.encode()) for name, text in fields.items())
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return frame(HEADERS, head, flags=_END_OF_HEADERS, stream=stream) + frame(
        _DATA, body, flags=_END_OF_STREAM if ended else 0, stream=stream
    )


def takes_nothing(port: int, timeout_s: float) -> socket.socket:
    """A connection to ``port`` of this machine whose client takes no byte of any answer."""
    opened = socket.create_connection(("127.0.0.1", port), timeout_s)
    window = _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + bytes(4)
    opened.sendall(PREFACE + frame(SETTINGS, window))
    return opened
