"""lipwire.v1.AvatarService: live sessions over gRPC, one stream each."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import grpc
import numpy as np

from lipwire.avatars.erasing import Kept
from lipwire.domain import (
    Call,
    Cancelled,
    DeadlineExceeded,
    DependencyMissing,
    InvalidInput,
    LipwireError,
    NotFound,
    Unavailable,
)
from lipwire.rpc.calls import call_of
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2 as pb
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2_grpc
from lipwire.rpc.routing import REFUSED, routing
from lipwire.rpc.services.livemessages import interrupt_number, message_of, refused_of, settings_of
from lipwire.rpc.services.livestreams import LiveStream, LiveStreams, Refusal
from lipwire.rpc.services.messages import model_id_of, raw_audio_of
from lipwire.serving import PictureFormat
from lipwire.session.live import LiveSession, LiveSessions
from lipwire.session.live.hearing import STEP_S, Pcm
from lipwire.session.live.sessions import NO_SESSION

_log: Final = logging.getLogger("lipwire.rpc")
_WIRE_NAMES: Final[dict[PictureFormat, str]] = {"jpeg": "jpeg", "raw": "bgr24"}
_LOOK_EVERY_S: Final = 0.5
"""How often a stream looks whether its client is still there, while there is nothing to do."""
_OPEN_TIMEOUT_S: Final = 60.0
"""How long opening an avatar may take: one that was never compiled takes many seconds."""
_BEFORE_STOP_S: Final = 1.0
"""So long before a drained server stops, sessions that are left are ended, which their clients are
told."""
_REFUSED_WITHIN_S: Final = 0.5
"""How long a client that is refused may take to end its side, before it is told why."""
_MOST_REFUSED: Final = 8
"""Streams that wait for that at a time; others are told at once."""
_REPLACED: Final = "resumed by another stream"

Speak = Callable[[LiveSession, str], None]
"""Has a session say a text, and does not wait for it."""
Erase = Callable[[str, bool], Sequence[Kept]]
"""Removes all that is kept of the avatar of that name, and returns what that was; only returns it
where the second argument is true."""


class ConversingServicer(avatar_pb2_grpc.AvatarServiceServicer):
    """Answers gRPC's AvatarService with the live sessions of one ``LiveSessions``. gRPC calls its
    methods, each with a request message and its ``context``, which carries the ``Call``
    (``call_of``): who asks, and until when. Errors are raised, and ``ErrorInterceptor`` makes
    statuses of them."""

    def __init__(
        self,
        sessions: LiveSessions,
        frame_format: PictureFormat,
        *,
        speak: Speak | None = None,
        erase: Erase | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``frame_format`` is that of the pictures that ``sessions`` make: "jpeg" or "raw" (height
        x width x 3 bytes). ``speak(session, text)`` has a session say a text, without waiting for
        that; None where there is no voice. ``erase(model_id, dry_run)`` removes all that is kept of
        an avatar and returns what that was, or, where ``dry_run`` is true, only returns it; None
        where nobody may erase. ``clock`` gives seconds."""
        self._sessions = sessions
        self._frame_format: Final = frame_format
        self._speak = speak
        self._erase = erase
        self._clock = clock
        self._streams = LiveStreams(sessions)
        self._ends_s = math.inf
        self._refusing = threading.Semaphore(_MOST_REFUSED)

    def drain(self, left_s: float) -> None:
        """Begin no more sessions, and tell the clients of those that run that they have ``left_s``
        seconds to leave; sessions that still run one second before that are ended then. Returns at
        once."""
        self._ends_s = self._clock() + max(0.0, left_s - _BEFORE_STOP_S)
        self._sessions.drain(left_s)

    def Converse(  # noqa: N802
        self, request_iterator: Iterator[pb.ConverseRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ConverseResponse]:
        """Begin the session that the first message of ``request_iterator``, a ``start``, asks for,
        or, where it has the id of a session that runs, go on with that. Yield the session's frames,
        sound and events, waiting for each, until it ends. Another thread acts on the client's
        further messages meanwhile; a message that cannot be followed is answered with a refusal.
        Raises InvalidInput where the first message is not ``start`` or a setting in it is out of
        range, NotFound where there is no such avatar or session, Overloaded where there are too
        many sessions, MinutesUsedUp where the tenant has had its minutes of the month,
        AvatarInvalid where the avatar's files are damaged, StorageFailed where its compiled files
        cannot be written, Unavailable while the server stops or where nothing can run the network,
        DeadlineExceeded where the avatar cannot be loaded within 60 s, and at the end the error
        that the session has ended with, if any."""
        call = call_of(context)
        try:
            session, resumed = self._begin(next(request_iterator, None), call)
        except LipwireError:
            self._refuse(request_iterator, context)
            raise
        # Before the first message: what is between learns here which server has the session.
        try:
            context.send_initial_metadata(routing(session_id=session.id))
        except grpc.RpcError:
            if not resumed:  # its client has gone, and nobody else knows its id
                self._sessions.end(session)
            raise
        with self._streams.open(session, call) as stream:
            yield self._started(session, resumed)
            threading.Thread(
                target=self._follow,
                args=(stream, request_iterator),
                name="lipwire-converse",
                daemon=True,
            ).start()
            while not call.ended:
                items = stream.take(_LOOK_EVERY_S)
                for refusal in stream.refusals():
                    yield refused_of(refusal)
                if stream.replaced:
                    yield _ended(_REPLACED)
                    return
                if items is None:
                    yield self._last(session)
                    return
                with session.observed.working():  # gRPC sends what is yielded in this thread
                    for item in items:
                        yield message_of(item)
                if self._clock() >= self._ends_s:
                    self._sessions.end(session)

    def InterruptSession(  # noqa: N802
        self, request: pb.InterruptSessionRequest, context: grpc.ServicerContext
    ) -> pb.InterruptSessionResponse:
        """Drop all speech of the session that ``request`` names, and answer. Raises NotFound where
        the caller's tenant has no such session, InvalidInput where the request's ``number``, how
        many interrupts its client has sent, is below 0."""
        number = interrupt_number(request.number)
        session = self._sessions.find(request.session_id, call_of(context).tenant)
        try:
            session.interrupt(number)
        except Cancelled:
            raise NotFound(NO_SESSION) from None  # it has ended since
        return pb.InterruptSessionResponse()

    def EraseAvatar(  # noqa: N802
        self, request: pb.EraseAvatarRequest, context: grpc.ServicerContext
    ) -> pb.EraseAvatarResponse:
        """Remove all that is kept of the avatar that ``request`` names, and return what that was,
        folder by folder; where ``request`` is a dry run, remove nothing, and return what would be
        removed. Waits until that is done. Raises NotFound where there is none, InvalidInput where
        it cannot be removed or this server erases none, and StorageFailed where the disk
        refuses."""
        if self._erase is None:
            raise InvalidInput("this server erases no avatars")
        model_id = model_id_of(request.model_id, call_of(context).access)
        return pb.EraseAvatarResponse(
            folders=[
                pb.ErasedFolder(what=each.what, files=each.files, size_bytes=each.size_bytes)
                for each in self._erase(model_id, request.dry_run)
            ]
        )

    def _begin(self, message: pb.ConverseRequest | None, call: Call) -> tuple[LiveSession, bool]:
        """The session that the first message asks for, and whether it was there before."""
        if message is None or message.WhichOneof("message") != "start":
            raise InvalidInput("the first message has to be start")
        start = message.start
        if start.session_id:
            return self._sessions.find(start.session_id, call.tenant), True
        settings = settings_of(start)
        model_id = model_id_of(start.model_id, call.access)
        opening = Call(_OPEN_TIMEOUT_S, service="live", tenant=call.tenant, client=call.client)
        call.on_end(opening.end)
        try:
            session = self._sessions.open(model_id, settings, tenant=call.tenant, call=opening)
        finally:
            opening.end()
        return session, False

    def _refuse(
        self, messages: Iterator[pb.ConverseRequest], context: grpc.ServicerContext
    ) -> None:
        """Tell the client that it is refused, and give it a moment to end its side."""
        if not self._refusing.acquire(blocking=False):
            return
        try:
            context.send_initial_metadata(((REFUSED, "1"),))
            ended = threading.Event()

            def read() -> None:
                with suppress(Exception):  # gRPC raises its own when a stream breaks off
                    for _ in messages:
                        pass
                ended.set()

            threading.Thread(target=read, name="lipwire-refused", daemon=True).start()
            ended.wait(_REFUSED_WITHIN_S)
        finally:
            self._refusing.release()

    def _started(self, session: LiveSession, resumed: bool) -> pb.ConverseResponse:
        avatar = session.avatar
        return pb.ConverseResponse(
            started=pb.SessionStarted(
                session_id=session.id,
                width=avatar.width,
                height=avatar.height,
                frame_format=_WIRE_NAMES[self._frame_format],
                sound_rate=session.settings.sound_rate_hz,
                resumed=resumed,
                state=session.state.value,
            )
        )

    def _last(self, session: LiveSession) -> pb.ConverseResponse:
        """What a session that has ended says last. Raises what it has ended with."""
        if session.error is not None:
            raise session.error
        if self._clock() >= self._ends_s:
            raise Unavailable("the server is shutting down; begin a session on another one")
        return _ended(session.ended_because or "closed")

    def _follow(self, stream: LiveStream, messages: Iterator[pb.ConverseRequest]) -> None:
        """Do what the client says until it says no more. A wrong message is refused, and the next
        one read."""
        counts: Counter[str] = Counter()
        try:
            while not stream.over:
                kind = ""  # as long as it cannot be read
                try:
                    message = next(messages)
                    kind = message.WhichOneof("message") or ""
                    counts[kind] += 1
                    self._do(stream, message)
                except (StopIteration, Cancelled):
                    return
                except LipwireError as error:
                    stream.refuse(Refusal(error, kind, counts[kind]))
        except grpc.RpcError:
            return  # the connection is gone
        except Exception:  # gRPC raises its own when a stream breaks off while it is read
            _log.debug("a live session's stream broke off", exc_info=True)

    def _do(self, stream: LiveStream, message: pb.ConverseRequest) -> None:
        session = stream.session
        match message.WhichOneof("message"):
            case "audio":
                _hear(stream, message.audio)
            case "end_of_speech":
                session.end_of_speech()
            case "interrupt":
                session.interrupt(interrupt_number(message.interrupt.number))
            case "listening":
                session.listen(message.listening.listening)
            case "change_avatar":
                model_id = model_id_of(message.change_avatar.model_id, stream.access)
                opening = Call(_OPEN_TIMEOUT_S, service="live", tenant=session.tenant)
                try:
                    self._sessions.change_avatar(session, model_id, opening)
                finally:
                    opening.end()
            case "say":
                self._say(session, message.say)
            case "keep_alive":
                self._sessions.keep_alive(session)
            case "close":
                self._sessions.end(session)
            case "start":
                raise InvalidInput("the session was started already")
            case _:
                raise InvalidInput("the message is none that this server knows")

    def _say(self, session: LiveSession, message: pb.SayText) -> None:
        if self._speak is None:
            raise DependencyMissing(
                "this server has no voice; it needs lipwire[speech], or audio in place of text"
            )
        if message.HasField("after_interrupts") and message.after_interrupts < session.interrupts:
            return
        self._speak(session, message.text)


def _hear(stream: LiveStream, audio: pb.SpeechAudio) -> None:
    """Hand speech to the session. Audio that is refused counts as much as any: the next one is the
    next. Raises InvalidInput where it is no audio, or not the next."""
    sequence = audio.sequence if audio.HasField("sequence") else None
    interrupts = audio.after_interrupts if audio.HasField("after_interrupts") else None
    samples: Pcm = np.empty(0, np.int16)
    rate_hz, refused = 16_000, None
    try:
        raw = raw_audio_of(
            audio.samples,
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            first_frame=0,
            field="samples",
        )
        if raw is not None:
            samples, rate_hz = raw.samples, raw.sample_rate_hz
    except InvalidInput as error:
        refused = error
    step = max(1, round(rate_hz * STEP_S))
    for first in range(0, max(1, len(samples)), step):
        _push(
            stream,
            samples[first : first + step],
            rate_hz,
            None if first else sequence,
            interrupts,
        )
    if refused is not None:
        raise refused


def _push(
    stream: LiveStream, pcm: Pcm, rate_hz: int, sequence: int | None, interrupts: int | None
) -> None:
    """Wait until the session has room for ``pcm``, and add it. Raises Cancelled where the client
    has gone meanwhile: what a client said that comes back is for its new stream to say."""
    while not stream.over:
        try:
            stream.session.push(
                pcm,
                rate_hz,
                sequence=sequence,
                after_interrupts=interrupts,
                timeout_s=_LOOK_EVERY_S,
            )
        except DeadlineExceeded:
            continue
        return
    raise Cancelled("the client has gone")


def _ended(reason: str) -> pb.ConverseResponse:
    return pb.ConverseResponse(ended=pb.SessionEnded(reason=reason))
