"""A session over one WebSocket: audio and commands come in, events go out.

Messages are JSON objects with a ``type``; binary ones are audio, 16-bit little-endian samples at
the socket's ``?rate=`` and ``?channels=``:

    input_audio_buffer.append {audio, rate?, channels?}    audio, in base64
    input_audio_buffer.commit, end_of_speech               what came is all of that speech
    response.cancel, output_audio_buffer.clear             break off all speech
    listening {listening}                                  whether somebody speaks to the avatar
    say {text}                                             a text
    keep_alive                                             the session is not idle

What goes out are the events of the server-sent events, and ``error`` {code, message} for a message
that was wrong; the socket goes on then. With ``?media=1`` pictures and sound go out, too, as binary
messages (``MediaTap``).
"""

import asyncio
import base64
import binascii
import contextlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from lipwire.domain import Cancelled, InvalidInput, LipwireError, Overloaded
from lipwire.session.live import LiveSession, LiveSessions
from lipwire.web.audio import NO_VOICE, AudioIn, Samples, check_format, check_text, samples_of
from lipwire.web.events import event_json
from lipwire.web.outputs import EventTap, MediaTap
from lipwire.web.problems import told_of

SUBPROTOCOL: Final = "lipwire.audio.v1"
"""What the page asks for; without one a socket is the same."""
_MOST_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Audio that waits for room in the session; what comes beyond is refused."""
_MOST_WAITING: Final = 4096
_EMPTY: Final = 64
"""What a piece without samples counts as, in bytes."""


@dataclass(frozen=True, slots=True)
class _Piece:
    pcm: Samples
    rate_hz: int
    ends: bool
    interrupts: int
    """How many interrupts had arrived before it."""

    @property
    def size(self) -> int:
        return self.pcm.nbytes + _EMPTY


class SessionSocket:
    """One client's WebSocket to one session, over which audio comes and events leave, and with
    ``media`` pictures and sound. Used once, in the event loop."""

    def __init__(
        self,
        socket: WebSocket,
        session: LiveSession,
        sessions: LiveSessions,
        audio: AudioIn,
        *,
        rate_hz: int,
        channels: int,
        speak: Callable[[LiveSession, str], None] | None,
        media: bool = False,
        upload: Callable[[int], object] = bool,
        hold: Callable[[int], object] = bool,
    ) -> None:
        """``session`` is one of ``sessions``, and ``audio`` pushes to it (see ``Hub.audio``).
        ``rate_hz`` and ``channels`` are those of audio whose message does not say them.
        ``speak(session, text)`` has the session say a text; None where there is no voice. ``media``
        says whether the client is sent pictures and sound. ``upload(size_bytes)`` is called for
        each message, and raises LimitExceeded for one that the client may not send now.
        ``hold(size_bytes)`` is called with the size of audio that begins to wait for room in the
        session, and with a negative number when audio waits no more; it raises Overloaded where
        the process holds too much. Raises InvalidInput where a session takes no audio of that
        form."""
        check_format(rate_hz, channels)
        self._socket = socket
        self._session = session
        self._sessions = sessions
        self._audio = audio
        self._rate_hz = rate_hz
        self._channels = channels
        self._speak = speak
        self._media = media
        self._upload = upload
        self._hold = hold
        self._sending = asyncio.Lock()
        self._pieces: deque[_Piece] = deque()
        self._waiting_bytes = 0
        self._there = asyncio.Event()
        self._left = False

    async def run(self, first: Mapping[str, Any]) -> bool:
        """Accept the WebSocket, send ``first``, a JSON object, as the first message, then serve the
        client until it has left or the session has ended. Returns True where ``first`` could be
        sent, False where the client had left before."""
        asked = self._socket.scope.get("subprotocols", [])
        try:
            await self._socket.accept(SUBPROTOCOL if SUBPROTOCOL in asked else None)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return False  # the client has left
        told = False
        tap = EventTap()
        self._session.add_output(tap)
        media = MediaTap() if self._media else None
        if media is not None:
            self._session.add_output(media)
        self._sessions.attach(self._session)
        showing: asyncio.Future[None] | None = None
        try:
            await self._send(first)
            told = True
            pushing = asyncio.ensure_future(self._push())
            if media is not None:
                showing = asyncio.ensure_future(self._show(media))
            telling = asyncio.ensure_future(self._tell(tap))
            reading = asyncio.ensure_future(self._read())
            try:
                await asyncio.wait((telling, reading), return_when=asyncio.FIRST_COMPLETED)
                if not telling.done() or telling.exception() is not None:
                    # The client has left, or is about to: what it had sent is still said.
                    telling.cancel()
                    await reading
                    self._left = True
                    self._there.set()
                    await pushing
            finally:
                for task in (pushing, telling, reading):
                    task.cancel()
                await asyncio.gather(pushing, telling, reading, return_exceptions=True)
        except (WebSocketDisconnect, RuntimeError):
            pass  # the client has left
        finally:
            if showing is not None:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
            if media is not None:
                self._session.remove_output(media)
            self._drop_waiting()
            self._session.remove_output(tap)
            self._sessions.detach(self._session)
        return told

    async def _send(self, told: Mapping[str, Any]) -> None:
        async with self._sending:
            await self._socket.send_text(json.dumps(told))

    async def _tell(self, tap: EventTap) -> None:
        while (event := await tap.events.get()) is not None:
            await self._send(event_json(event))
        await self._send({"type": "ended", "reason": self._session.ended_because})
        await self._socket.close()

    async def _show(self, media: MediaTap) -> None:
        while (message := await media.next()) is not None:
            async with self._sending:
                await self._socket.send_bytes(message)

    async def _fail(self, error: Exception) -> None:
        told = told_of(error, self._socket.url.path)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client has left
            await self._send({"type": "error", "code": told.code, "message": told.detail})

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                data = message.get("bytes")
                self._upload(len(message["text"].encode() if data is None else data))
                if data is not None:
                    self._put(data, self._rate_hz, self._channels)
                else:
                    await self._take(_parsed(message["text"]))
            except Exception as error:
                await self._fail(error)

    async def _take(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        match kind:
            case "input_audio_buffer.append":
                rate_hz = _whole(message, "rate", self._rate_hz)
                channels = _whole(message, "channels", self._channels)
                check_format(rate_hz, channels)
                self._put(_decoded(message.get("audio")), rate_hz, channels)
            case "input_audio_buffer.commit" | "end_of_speech":
                self._put(b"", self._rate_hz, 1, ends=True)
            case "response.cancel" | "output_audio_buffer.clear":
                self._drop_waiting()
                await asyncio.to_thread(self._session.interrupt)
            case "listening":
                listening = message.get("listening")
                if not isinstance(listening, bool):
                    raise InvalidInput('"listening" is missing; allowed are true and false')
                await asyncio.to_thread(self._session.listen, listening)
            case "say":
                text = check_text(message.get("text"))
                if self._speak is None:
                    raise InvalidInput(NO_VOICE)
                await asyncio.to_thread(self._speak, self._session, text)
            case "keep_alive":
                self._sessions.keep_alive(self._session)
            case _:
                raise InvalidInput(f"there is no message of type {str(kind)[:50]}")

    def _put(self, data: bytes, rate_hz: int, channels: int, *, ends: bool = False) -> None:
        piece = _Piece(samples_of(data, channels), rate_hz, ends, self._session.interrupts)
        full = self._waiting_bytes + piece.size > _MOST_WAITING_BYTES
        if full or len(self._pieces) >= _MOST_WAITING:
            raise Overloaded(
                f"{self._waiting_bytes:,} bytes of audio wait for room, in {len(self._pieces)}"
                f" pieces; allowed are {_MOST_WAITING_BYTES:,} and {_MOST_WAITING}"
            )
        self._hold(piece.size)
        self._pieces.append(piece)
        self._waiting_bytes += piece.size
        self._there.set()

    def _drop_waiting(self) -> None:
        self._hold(-self._waiting_bytes)
        self._pieces.clear()
        self._waiting_bytes = 0

    async def _push(self) -> None:
        """Have the session take what has come, as it has room."""
        while True:
            while not self._pieces:
                if self._left:
                    return
                self._there.clear()
                await self._there.wait()
            piece = self._pieces.popleft()
            self._waiting_bytes -= piece.size
            try:
                await self._audio.push_now(
                    piece.pcm, piece.rate_hz, ends=piece.ends, interrupts=piece.interrupts
                )
            except Cancelled:
                return  # the session has ended
            except LipwireError as error:
                await self._fail(error)
            finally:
                self._hold(-piece.size)


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the message is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("the message is no JSON object")
    return value


def _decoded(audio: object) -> bytes:
    if not isinstance(audio, str):
        raise InvalidInput('the message has no "audio"; it is base64')
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput('"audio" is no base64') from None


def _whole(message: Mapping[str, Any], name: str, default: int) -> int:
    value = message.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"{name} is {str(value)[:50]}; allowed are whole numbers")
    return value
