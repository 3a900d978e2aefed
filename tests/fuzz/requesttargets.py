"""Parsers of requests: HTTP, WebSocket, SDP, tokens, keys of tokens, raw audio."""

import asyncio
import functools
import itertools
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import jwt
from aiortc import RTCPeerConnection
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.fuzz.filetargets import JSON_WORDS
from tests.fuzz.target import Target, Try, check_clear, target, tried
from tests.support.liveparts import FakeAvatar, LiveTime
from tests.support.webparts import TOKEN

from lipwire.domain import Access, NotFound
from lipwire.rpc.services.messages import raw_audio_of
from lipwire.security import Ticket, Tickets, TokenRules, Tokens, jwks
from lipwire.security.jwks import JwksKeys
from lipwire.security.tickets import MOST_SECONDS, ticket_of, ticket_text
from lipwire.session.live import LiveAvatar, LiveSessions, SessionRules
from lipwire.web.app import web_app
from lipwire.web.hub import Hub
from lipwire.web.ice import IceServers
from lipwire.web.peers import Peer, check_offer
from lipwire.web.trickle import parse_fragment

FRAGMENT = (
    b"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=video 9 RTP/AVP 0\r\na=mid:0\r\n"
    b"a=candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host\r\na=end-of-candidates\r\n"
)
ISSUER = "https://id.example.org"
CLAIMS = {
    "iss": ISSUER,
    "aud": "lipwire",
    "exp": 4_000_000_000,
    "nbf": 1,
    "sub": "someone",
    "tenant": "acme",
    "scope": "live read",
    "avatars": ["acme-*"],
}
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TICKETS = (
    Ticket(Access("key phone", "acme", frozenset({"live"}), ("anna",)), "https://x", 1.7e9, 300.0),
    Ticket(Access("secret", "", frozenset({"live"}), ("*",)), "http://localhost", 2e9, 60.0),
)
OTHER_WEB = frozenset({499, 501, 503})


@contextmanager
def _tokens(folder: Path) -> Iterator[Tokens]:
    path = folder / "key.pem"
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    yield Tokens(TokenRules(("RS256", "ES256", "EdDSA"), ISSUER, "lipwire"), key_file=path)


@contextmanager
def _whole_tokens(folder: Path) -> Iterator[Try]:
    with _tokens(folder) as tokens:
        yield lambda data: tried(lambda: tokens.access(data.decode("latin-1")))


@contextmanager
def _signed_claims(folder: Path) -> Iterator[Try]:
    """Whatever stands in a token that is signed well: an identity provider may be odd."""
    with _tokens(folder) as tokens:

        def run(data: bytes) -> str:
            token = jwt.api_jws.encode(data, KEY, algorithm="EdDSA")
            return tried(lambda: tokens.access(token))

        yield run


@contextmanager
def _jwks(folder: Path) -> Iterator[Try]:
    given = b""
    with patch.object(jwks, "fetched", lambda url, **options: given):

        def run(data: bytes) -> str:
            nonlocal given
            given = data
            return tried(lambda: JwksKeys(ISSUER, 0.0).key("one"))

        yield run


def _key_set() -> bytes:
    key = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(KEY.public_key()))
    curve = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "two"}
    modulus = {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "three", "use": "sig"}
    return json.dumps({"keys": [{**key, "kid": "one"}, curve, modulus]}).encode()


def _raw_audio(data: bytes) -> None:
    rate, channels, first = struct.unpack("<iiq", data[:16].ljust(16, b"\0"))
    raw_audio_of(data[16:], sample_rate=rate, channels=channels, first_frame=first)


@functools.cache
def offer() -> bytes:
    """What a browser offers, from aiortc."""

    async def made() -> str:
        connection = RTCPeerConnection()
        connection.addTransceiver("video", direction="recvonly")
        connection.addTransceiver("audio", direction="recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        sdp: str = connection.localDescription.sdp
        await connection.close()
        return sdp

    return asyncio.run(made()).encode()


SDP_WORDS = (
    *(b"a=group:BUNDLE 0 1\r\n", b"a=setup:actpass", b"a=mid:9", b"m=video 9 UDP/TLS/RTP/SAVPF"),
    *(b"a=rtpmap:96 H264/90000\r\n", b"a=fmtp:96 x\r\n", b"a=candidate:", b"a=ssrc:1 cname:x\r\n"),
    *(b"c=IN IP4 0.0.0.0\r\n", b"a=ice-ufrag:", b"a=extmap:1 urn:x\r\n", b"9" * 5000, b"\0"),
)


@contextmanager
def _answers(folder: Path) -> Iterator[Try]:
    """The whole answer to an offer, as WHEP gives it."""
    loop = asyncio.new_event_loop()

    async def answered(sdp: str) -> None:
        check_offer(sdp)
        peer = Peer(
            IceServers(),
            on_key_wanted=lambda: None,
            on_bit_rate=lambda bits: None,
            on_gone=lambda: None,
        )
        try:
            await peer.answer(sdp)
        finally:
            await peer.close()

    def run(data: bytes) -> str:
        text = data.decode("utf-8", "replace")
        return tried(lambda: loop.run_until_complete(answered(text)))

    try:
        yield run
    finally:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


HTTP = (
    b'POST /v1/sessions\ncontent-type: application/json\n\n{"avatar": "anna"}',
    b"GET /v1/sessions/SESSION\n\n",
    b"GET /v1/sessions\nauthorization: Bearer x\n\n",
    b"DELETE /v1/sessions/nobody\n\n",
    b'POST /v1/sessions/SESSION/speak\ncontent-type: application/json\n\n{"text": "Good day."}',
    b"POST /v1/sessions/SESSION/speak?rate=16000&channels=2&end=1\ncontent-type: audio/pcm\n\n"
    + bytes(64),
    b"POST /v1/sessions/SESSION/interrupt\n\n",
    b"POST /whep/anna?session=SESSION\ncontent-type: application/sdp\n\nv=0\r\n",
    b"OPTIONS /whep/anna\norigin: http://elsewhere.example\n\n",
    b"PATCH /whep/anna/viewer/SESSION\nif-match: *\n\n",
    b"POST /v1/tickets\ncontent-type: application/json\n\n"
    b'{"avatar": "anna", "origin": "https://x", "seconds": 30, "minutes": 5.5}',
    b"GET /v1/avatars\nhost: x\nx-api-key: lipwire_a_b\n\n",
    b"GET /style.css\nrange: bytes=0-5\nif-none-match: x\naccept-encoding: gzip\n\n",
    b"GET /../../etc/passwd\n\n",
    b"GET /%2e%2e/%00/\xff\n\n",
)
HTTP_WORDS = (
    *JSON_WORDS,
    *(b"?rate=", b"&channels=", b"end=9e9", b"content-length: -1\n", b"%00", b"%ff", b"..%2f"),
    *(b'"origin": "http://[::1]:9"', b'"seconds": 1e999', b'"minutes": -1', b"https://", b'"anna"'),
    *(b"content-type: ", b"authorization: Bearer ", b"SESSION", b"/", b"\n\n", b"token=", b"GET "),
)
SOCKET = (
    b'{"type": "input_audio_buffer.append", "audio": "AAAA", "rate": 16000, "channels": 1}',
    b'{"type": "end_of_speech"}\n{"type": "response.cancel"}',
    b'{"type": "listening", "listening": true}\n{"type": "keep_alive"}',
    b'{"type": "say", "text": "Good day."}',
    b"B" + bytes(64) + b'\n{"type": "input_audio_buffer.commit"}',
)


class _Web:
    """The app in an event loop of its own, without a socket."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.time = LiveTime()
        self.sessions = LiveSessions(
            self._avatar, self.time.threads, rules=SessionRules(), clock=self.time.clock
        )

        async def made() -> Any:
            self.hub = Hub(self.sessions, IceServers(), clock=self.time.clock)
            return web_app(
                self.hub,
                lambda: ["anna"],
                healthy=lambda: True,
                hosts=["x"],
                token=TOKEN,
                speak=lambda session, text: None,
                # Each has expired when the next is asked for: there is always room for one.
                tickets=Tickets(now=partial(next, itertools.count(1.7e9, 2 * MOST_SECONDS))),
            )

        self.app = self.loop.run_until_complete(made())
        self.session = self._opened()

    def _avatar(self, name: str, call: object) -> LiveAvatar:
        if name != "anna":
            raise NotFound(f"there is no avatar {name[:60]!r}")
        return FakeAvatar().live()

    def _opened(self) -> str:
        return str(self.loop.run_until_complete(self.hub.open("anna")).id)

    def renewed(self) -> bytes:
        """The id of a session that is there; others are ended."""
        for one in list(self.sessions.every("")):
            if one.id != self.session:
                self.sessions.end(one)
        if not any(one.id == self.session for one in self.sessions.every("")):
            self.session = self._opened()
        return self.session.encode()

    def call(self, scope: dict[str, Any], incoming: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the app sends for ``scope``; the client leaves after ``incoming``."""
        sent: list[dict[str, Any]] = []
        left = asyncio.Event()
        leaves = {"http": "http.disconnect", "websocket": "websocket.disconnect"}[scope["type"]]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop(0)
            # Whoever streams goes on until the client has left.
            if not left.is_set():
                left.set()
                await asyncio.sleep(0)
            return {"type": leaves, "code": 1000}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        whole = {
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 5000),
            "root_path": "",
            "extensions": {},
            **scope,
        }
        self.loop.run_until_complete(asyncio.wait_for(self.app(whole, receive, send), 30))
        return sent

    def close(self) -> None:
        self.sessions.close()
        self.loop.run_until_complete(self.hub.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


def _scope(kind: str, target_: bytes, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    raw, _, query = target_.partition(b"?")
    path = raw if raw.startswith(b"/") else b"/" + raw

    return {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "headers": [(b"host", b"x"), (b"authorization", f"Bearer {TOKEN}".encode()), *headers],
    }


@contextmanager
def _http(folder: Path) -> Iterator[Try]:
    web = _Web()

    def run(data: bytes) -> str:
        data = data.replace(b"SESSION", web.renewed())
        head, _, body = data.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        method, _, path = first.partition(b" ")
        headers = [
            (name.strip().lower(), value.strip())
            for name, _, value in (line.partition(b":") for line in lines)
        ]
        if any(path.split(b"?")[0].endswith(end) for end in (b"/events", b"/mjpeg")):
            return "a stream"  # it lasts as long as its client
        scope = _scope("http", path, headers) | {"method": method.decode("latin-1").upper()}
        sent = web.call(scope, [{"type": "http.request", "body": body, "more_body": False}])
        status = int(sent[0]["status"])
        content = b"".join(message.get("body", b"") for message in sent[1:])
        if status >= 400:
            assert status < 500 or status in OTHER_WEB, (status, content)
            kinds = [value for name, value in sent[0]["headers"] if name == b"content-type"]
            # Starlette's own answer to a range that is none is text.
            if scope["method"] != "HEAD" and kinds != [b"text/plain; charset=utf-8"]:
                check_clear(json.loads(content)["detail"], escaped=True)
        return str(status)

    try:
        yield run
    finally:
        web.close()


@contextmanager
def _socket(folder: Path) -> Iterator[Try]:
    web = _Web()

    def run(data: bytes) -> str:
        web.renewed()
        incoming: list[dict[str, Any]] = [{"type": "websocket.connect"}]
        for line in data.split(b"\n"):
            if line.startswith(b"B"):
                incoming.append({"type": "websocket.receive", "bytes": line[1:]})
            else:
                text = line.decode("utf-8", "replace")
                incoming.append({"type": "websocket.receive", "text": text})
        path = f"/v1/sessions/{web.session}/socket".encode()
        scope = _scope("websocket", path, []) | {"subprotocols": []}
        seen = "taken"
        for message in web.call(scope, incoming):
            if "text" not in message:
                continue
            told = json.loads(message["text"])
            if told["type"] == "error":
                assert told["code"] != "INTERNAL", told
                check_clear(told["message"], escaped=True)
                seen = told["code"]
        return seen

    try:
        yield run
    finally:
        web.close()


def request_targets() -> list[Target]:
    """All of them."""
    token = jwt.encode(CLAIMS, KEY, algorithm="EdDSA", headers={"kid": "one"}).encode()
    bare = {name: CLAIMS[name] for name in ("iss", "aud", "exp")}
    tokens = (token, jwt.encode(bare, KEY, algorithm="EdDSA").encode())
    claims = (json.dumps(CLAIMS).encode(), json.dumps(bare).encode())
    return [
        Target("jwt", tokens, (b".", b"..", b"=", b"eyJ", b"e30", *JSON_WORDS), _whole_tokens),
        Target("jwt-claims", claims, JSON_WORDS, _signed_claims),
        Target("jwks", (_key_set(),), JSON_WORDS, _jwks),
        target(
            "ticket",
            tuple(map(str.encode, map(ticket_text, TICKETS))),
            lambda data: ticket_of(data.decode("utf-8", "replace")),
            *JSON_WORDS,
        ),
        target("raw-audio", (struct.pack("<iiq", 16_000, 2, 5) + bytes(64),), _raw_audio, b"RIFF"),
        target(
            "sdp",
            (offer(),),
            lambda data: check_offer(data.decode("utf-8", "replace")),
            *SDP_WORDS,
        ),
        Target("whep", (offer(),), SDP_WORDS, _answers),
        target(
            "trickle",
            (FRAGMENT,),
            lambda data: parse_fragment(data.decode("utf-8", "replace")),
            *SDP_WORDS,
        ),
        Target("http", HTTP, HTTP_WORDS, _http),
        Target("websocket", SOCKET, JSON_WORDS, _socket),
    ]
