"""The client's end of a live session."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import numpy as np
import numpy.typing as npt

from lipwire.domain import Cancelled, Float32Array, LipwireError, Unavailable
from lipwire.domain.closing import Closing
from lipwire.domain.tracing import current_trace, new_trace
from lipwire.rpc.backends.statuses import error_of_request
from lipwire.rpc.credentials import PLAIN, ClientSecurity
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.generated.lipwire.v1.avatar_pb2_grpc import AvatarServiceStub
from lipwire.rpc.reachability import Peer, check_address
from lipwire.rpc.received import Received, int16_of, received_of
from lipwire.rpc.routing import REFUSED, routing
from lipwire.rpc.transport import Option, connecting_within, open_channel
from lipwire.session.live import SessionSettings, State

if TYPE_CHECKING:
    from lipwire.rpc.moving import MovingStream

_MAX_MESSAGE_BYTES: Final = 200 * 1024 * 1024
_CONNECTED_WITHIN_S: Final = 10.0
_KEEPALIVE: Final[tuple[Option, ...]] = (
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
"""A server that has gone without a word is noticed, though a session may be silent for long."""
_MOST_WAITING: Final = 32
"""Messages that wait to be sent; whoever says more waits while there are so many."""
_MOST_RECEIVED: Final = 8
"""Messages that were received and wait to be taken; no more are received while there are so many,
and the server notices that."""
_STEP_S: Final = 0.5
"""How much audio a message has at most."""
_QUICK_S: Final = 5.0
"""How long an interruption may take to be answered, and a session to end."""


class AvatarConnection(Closing):
    """A connection to a server with live sessions. A context manager, for use by many threads. It
    connects by itself, also anew, when something is asked; where the server cannot be reached,
    methods raise Unavailable with the address, the cause and a hint.

        with AvatarConnection("localhost:50052") as server, server.converse("demo") as session:
            session.push(speech, 24_000)
            session.end_of_speech()
            for received in session:
                ...
    """

    def __init__(
        self, address: str, *, use_proxy: bool = False, security: ClientSecurity = PLAIN
    ) -> None:
        """Does not connect yet.

        ``address`` is host:port. ``use_proxy`` says whether the environment's proxy variables
        count, and ``security`` how the connection is encrypted and what token is sent (see
        ``open_channel``). Raises InvalidInput where ``address`` cannot be an address, a file of
        ``security`` cannot be read, or its token would go to another machine without encryption.
        """
        self.address: Final = address
        self._peer: Final = Peer(address, "compositing server", use_proxy)
        check_address(address, self._peer.kind)
        self._channel = open_channel(
            address,
            max_message_bytes=_MAX_MESSAGE_BYTES,
            use_proxy=use_proxy,
            security=security,
            options=[connecting_within(_CONNECTED_WITHIN_S), *_KEEPALIVE],
        )
        self._stub: Any = AvatarServiceStub(self._channel)

    def erase(
        self, model_id: str, *, dry_run: bool = False, timeout_s: float | None = None
    ) -> Sequence[pb.ErasedFolder]:
        """Have the server remove all that it keeps of the avatar ``model_id``, for good, and return
        what was removed, folder by folder; with ``dry_run``, remove nothing, and return what would
        be removed. Waits at most ``timeout_s`` seconds (None: without limit). Raises the error that
        the server sent: NotFound where there is no such avatar, InvalidInput where it cannot be
        removed, StorageFailed where the disk refuses, Unavailable and others."""
        request = pb.EraseAvatarRequest(model_id=model_id, dry_run=dry_run)
        trace = current_trace() or new_trace()
        try:
            answer: pb.EraseAvatarResponse = self._stub.EraseAvatar(
                request,
                timeout=timeout_s,
                metadata=(*routing(model_id=model_id), *trace.headers()),
            )
        except grpc.RpcError as failure:
            raise error_of_request(failure, self._peer, trace) from None
        return answer.folders

    def converse(
        self, model_id: str, settings: SessionSettings | None = None, *, client_id: str = ""
    ) -> ConverseStream:
        """Begin a session with avatar ``model_id``, and return its stream once the server has begun
        it; waits for that without limit, because an avatar may have to be compiled first.
        ``settings`` say how the session is to behave; None: the defaults of ``SessionSettings``.
        ``client_id`` is any text that names this client: of an avatar that has two versions, all
        sessions with the same ``client_id`` show the same one. Empty: the client has no name.
        Raises the error with which the server refuses the session, such as NotFound, InvalidInput,
        Overloaded, MinutesUsedUp or Unavailable."""
        settings = settings or SessionSettings()
        start = pb.StartSession(
            model_id=model_id,
            sound_rate=settings.sound_rate_hz,
            start_frame=settings.start_frame,
            lookahead_ms=settings.lookahead_ms,
            gate=settings.gate,
            crossfade_frames=settings.crossfade_frames,
            end_of_speech_timeout=settings.end_of_speech_timeout_s,
            unpaced=not settings.paced,
        )
        return ConverseStream(self._stub, start, self._peer, client_id)

    def converse_anywhere(
        self, model_id: str, settings: SessionSettings | None = None
    ) -> MovingStream:
        """Begin a session with avatar ``model_id``, and return its stream once the server has begun
        it; waits for that without limit, because an avatar may have to be compiled first. The
        stream moves the session to another server when its own server says that it is about to
        stop. The other server is found at the same address, which has to be a load balancer's.
        ``settings`` say how the session is to behave; None: the defaults of ``SessionSettings``.
        Raises NotFound where the server has no such avatar, InvalidInput for settings that it does
        not take, Overloaded where it has no room for a session now, MinutesUsedUp where the
        tenant's minutes are, Unauthenticated and PermissionDenied for who may not, AvatarInvalid
        where the avatar is damaged, and Unavailable where the server cannot be reached."""
        from lipwire.rpc.moving import MovingStream

        begin = partial(self.converse, client_id=secrets.token_hex(8))
        return MovingStream(begin, model_id, settings or SessionSettings())

    def resume(self, session_id: str) -> ConverseStream:
        """Return a stream of the session ``session_id`` (``ConverseStream.id``), which went on when
        its connection broke; an earlier stream of the session that is still open ends. What was
        missed meanwhile is not sent again. Raises NotFound where the session has ended, Unavailable
        where the server cannot be reached."""
        return ConverseStream(self._stub, pb.StartSession(session_id=session_id), self._peer)

    def close(self) -> None:
        """Close the connection: its streams break off. Sessions that were not ended go on for the
        time in which the server lets a client come back (30 s by default), and end then. Closing
        twice is allowed."""
        self._channel.close()


class ConverseStream(Closing):
    """The client's side of a live session. A context manager, which ends the session; iterating
    gives what the server sends, in order: ``LiveFrame``, ``Sound``, events, ``Refused``, and
    ``Ended`` at last.

    One thread iterates, while others may call the methods. Those that tell the server something
    send it and do not wait for its effect, but wait while 32 messages are still to be sent; an
    error of the server comes as ``Refused``. Messages are received in a thread of its own, so that
    Ctrl-C does not interrupt gRPC's own code. Where the program iterates too slowly, the server
    leaves out pictures.
    """

    def __init__(self, stub: Any, start: pb.StartSession, peer: Peer, client_id: str = "") -> None:
        """Open a stream with the message ``start`` and wait for the session's first answer.
        ``stub`` is gRPC's of AvatarService, ``peer`` names the server in errors, and ``client_id``
        is what the client calls itself. Made by ``AvatarConnection.converse`` and ``resume``.
        Raises the error with which the server refuses the session."""
        self._stub = stub
        self._peer = peer
        self._changed = threading.Condition()
        self._waiting: deque[pb.ConverseRequest] = deque()
        self._sending_ends = self._closed = False
        self._audio = self._interrupts = 0
        # How many messages of an earlier stream have arrived is not known.
        self._counting = not start.session_id
        self._waiting.append(pb.ConverseRequest(start=start))
        self._received: deque[pb.ConverseResponse] = deque()
        self._over = self._gone = False
        self._error: LipwireError | None = None
        self._trace = current_trace() or new_trace()
        about = routing(model_id=start.model_id, session_id=start.session_id, client_id=client_id)
        self._stream = stub.Converse(self._messages(), metadata=(*about, *self._trace.headers()))
        self._stream.add_callback(self._go)
        self._receiver = threading.Thread(
            target=self._receive, name="lipwire-receiving", daemon=True
        )
        self._receiver.start()
        try:
            first = self._next()
            if first is None or first.WhichOneof("message") != "started":
                raise Unavailable("the server began the session without saying so")
        except BaseException:
            self.leave()
            raise
        started = first.started
        self.id: Final[str] = started.session_id
        """Resumes the session when its connection breaks. It is secret."""
        self.width: Final[int] = started.width
        self.height: Final[int] = started.height
        self.frame_format: Final[str] = started.frame_format
        """"jpeg", or "bgr24": height x width x 3 bytes."""
        self.sound_rate_hz: Final[int] = started.sound_rate
        self.resumed: Final[bool] = started.resumed
        self.state: Final = State(started.state or State.IDLE)
        """What the session did when the stream began."""

    def push(self, pcm: Float32Array | npt.NDArray[np.int16], rate_hz: int) -> None:
        """Send ``pcm``, audio to be spoken, of any length: (n,) or (n, channels), int16 or float32
        in [-1, 1], at ``rate_hz``. It continues the piece of speech before it, unless that was
        ended.

        Waits while the server takes no more; what was not sent when ``interrupt`` is called is
        dropped. Raises InvalidInput where ``pcm`` is not such audio or holds NaN or infinity,
        Cancelled once the session has ended. Where the server does not accept the rate or the
        number of channels, a ``Refused`` comes when iterating.
        """
        samples = int16_of(pcm)
        with self._changed:
            interrupts = self._interrupts
        step = max(1, round(rate_hz * _STEP_S))
        for first in range(0, len(samples), step):
            piece = samples[first : first + step]
            audio = pb.SpeechAudio(
                samples=piece.tobytes(), sample_rate=rate_hz, channels=samples.shape[1]
            )
            with self._changed:
                self._wait_for_room(interrupts)
                if self._interrupts != interrupts:
                    return
                if self._counting:
                    audio.sequence = self._audio
                    audio.after_interrupts = interrupts
                    self._audio += 1
                self._add(pb.ConverseRequest(audio=audio))

    def end_of_speech(self) -> None:
        """Tell the server that all audio of this piece of speech was sent: it is spoken to its end,
        and audio that follows begins another. Raises Cancelled once the session has ended."""
        self._say(pb.ConverseRequest(end_of_speech=pb.EndOfSpeech()))

    def say(self, text: str) -> None:
        """Have the server's voice say ``text``, after the texts before it. What is being said comes
        as ``Caption`` when iterating; where it cannot be said, a ``Refused`` comes. Raises
        Cancelled once the session has ended."""
        with self._changed:
            self._wait_for_room()
            said = pb.SayText(text=text)
            if self._counting:
                said.after_interrupts = self._interrupts
            self._add(pb.ConverseRequest(say=said))

    def interrupt(self) -> None:
        """Drop all speech and texts that were sent, also what is being said. Waits until the server
        has done so, 5 s at most. Raises Cancelled once the session has ended, DeadlineExceeded
        where it takes longer, NotFound where the server has no such session any more, Overloaded
        where it is too busy, Unavailable where it cannot be reached or is stopping, and
        Unauthenticated or PermissionDenied where it does not allow the caller to do so."""
        with self._changed:
            if self._sending_ends:
                raise Cancelled("the session has ended")
            self._interrupts += 1
            number = self._interrupts if self._counting else 0
            # What was not sent yet needs no sending; its numbers would be missing else.
            self._audio -= sum(message.HasField("audio") for message in self._waiting)
            self._waiting = deque(
                message
                for message in self._waiting
                if message.WhichOneof("message") not in ("audio", "say")
            )
            self._add(pb.ConverseRequest(interrupt=pb.Interrupt(number=number)))
        # Beside the stream as well: there it may wait behind audio that the server has no room for.
        request = pb.InterruptSessionRequest(session_id=self.id, number=number)
        metadata = (*routing(session_id=self.id), *self._trace.headers())
        try:
            self._stub.InterruptSession(request, timeout=_QUICK_S, metadata=metadata)
        except grpc.RpcError as failure:
            raise error_of_request(failure, self._peer, self._trace) from None

    def listen(self, listening: bool) -> None:
        """Tell the server whether somebody speaks to the avatar now (``listening``); the session's
        state shows it, and nothing else. Raises Cancelled once the session has ended."""
        self._say(pb.ConverseRequest(listening=pb.Listening(listening=listening)))

    def change_avatar(self, model_id: str) -> None:
        """Ask the server to show the avatar ``model_id`` as soon as nobody speaks. Where it cannot,
        a ``Refused`` comes when iterating. Raises Cancelled once the session has ended."""
        self._say(pb.ConverseRequest(change_avatar=pb.ChangeAvatar(model_id=model_id)))

    def keep_alive(self) -> None:
        """Tell the server that the session is wanted though nothing is said, so that it does not
        end as idle. Raises Cancelled once the session has ended."""
        self._say(pb.ConverseRequest(keep_alive=pb.KeepAlive()))

    def end(self) -> None:
        """Ask the server to end the session and drop its speech, waiting 5 s at most for the speech
        to be dropped. What the server sends until the end can still be received by iterating. Does
        nothing where the session has ended. Raises nothing."""
        with suppress(LipwireError):  # it has ended, or will where the connection has
            self.interrupt()  # or it would wait until the server has room for the audio before it
        with self._changed:
            if not self._sending_ends:
                self._add(pb.ConverseRequest(close=pb.CloseSession()))
                self._sending_ends = True

    def __iter__(self) -> Iterator[Received]:
        """Yield what the server sends, waiting for each, until the session ends. Raises the error
        that the session ends with, if any, and Unavailable where the connection breaks."""
        while (message := self._next()) is not None:
            received = received_of(message)
            if received is not None:
                yield received

    def close(self) -> None:
        """End the session, waiting for that, some seconds at most, and receive nothing more;
        iteration ends. Closing twice is allowed. Raises nothing."""
        if self._closed:
            return
        self._closed = True
        self.end()
        with self._changed:
            self._gone = True  # nobody takes what still comes
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over, _QUICK_S)
        self._stream.cancel()
        self._receiver.join()

    def leave(self) -> None:
        """Close this stream without ending the session: ``AvatarConnection.resume`` takes it up
        again while the server keeps it (30 s by default). Afterwards nothing can be sent or
        received here."""
        self._closed = True
        self._stop_sending()
        self._stream.cancel()
        self._receiver.join()

    def _receive(self) -> None:
        error: LipwireError | None = LipwireError("receiving from the server failed")
        ended = False
        try:
            if any(name == REFUSED for name, _ in self._stream.initial_metadata()):
                self._stop_sending()
            for message in self._stream:
                ended = message.WhichOneof("message") == "ended"
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._gone or len(self._received) < _MOST_RECEIVED
                    )
                    if not self._closed:
                        self._received.append(message)
                        self._changed.notify_all()
            error = None
        except grpc.RpcError as failure:
            # Once the session has ended, how the stream does says nothing: a balancer may break it.
            error = None if ended else error_of_request(failure, self._peer, self._trace)
        finally:
            self._stop_sending()
            with self._changed:
                self._error = error
                self._over = True
                self._changed.notify_all()

    def _go(self) -> None:
        """The call has ended: what was received waits for nobody."""
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _next(self) -> pb.ConverseResponse | None:
        with self._changed:
            self._changed.wait_for(lambda: self._received or self._over)
            if self._received:
                message = self._received.popleft()
                self._changed.notify_all()
                return message
            if self._error is not None:
                raise self._error
            return None

    def _stop_sending(self) -> None:
        with self._changed:
            self._sending_ends = True
            self._waiting.clear()
            self._changed.notify_all()

    def _say(self, message: pb.ConverseRequest) -> None:
        with self._changed:
            self._wait_for_room()
            self._add(message)

    def _wait_for_room(self, interrupts: int | None = None) -> None:
        """Wait while many messages wait, or until there were other than so many interrupts. Raises
        Cancelled once the session has ended."""
        self._changed.wait_for(
            lambda: (
                self._sending_ends
                or len(self._waiting) < _MOST_WAITING
                or interrupts not in (None, self._interrupts)
            )
        )
        if self._sending_ends:
            raise Cancelled("the session has ended")

    def _add(self, message: pb.ConverseRequest) -> None:
        self._waiting.append(message)
        self._changed.notify_all()

    def _messages(self) -> Iterator[pb.ConverseRequest]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._sending_ends or self._waiting)
                if not self._waiting:
                    return
                message = self._waiting.popleft()
                self._changed.notify_all()
            yield message
