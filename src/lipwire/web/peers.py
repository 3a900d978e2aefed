"""A viewer over WebRTC, by aiortc. Everything here runs in the event loop."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Final

import av
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCRtpCodecCapability,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.clock import current_ntp_time
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RtcpPsfbPacket,
    unpack_remb_fci,
)
from aiortc.sdp import SessionDescription

from lipwire.compose.livevideo import (
    OPUS_DELAY_S,
    OPUS_FRAME_SAMPLES,
    OPUS_RATE_HZ,
    VIDEO_RATE_HZ,
    EncodedPicture,
    EncodedSound,
)
from lipwire.domain import FPS, InvalidInput, LipwireError, Unavailable
from lipwire.session.live.broadcast import Media
from lipwire.web.ice import IceServers
from lipwire.web.trickle import Fragment, IceRestart, users_of

Packet = Any  # av.Packet, whose stream's type does not count here

_LOG: Final = logging.getLogger(__name__)
_MOST_PICTURES: Final = 50
"""Pictures that wait to be sent to one viewer; with more of them the viewer waits for a key
frame."""
_MOST_SOUNDS: Final = 100
_SOUND_S: Final = OPUS_FRAME_SAMPLES / OPUS_RATE_HZ
_PROFILE: Final = "42e01f"
"""Constrained baseline, level 3.1: what every browser decodes."""
CONNECT_WITHIN_S: Final = 30.0
"""Within which a viewer that was answered has to be connected: ICE gives up sooner, where there is
a candidate to try."""
_CLOSES_WITHIN_S: Final = 5.0
"""aiortc waits for ever for tasks of a connection that was closed while it was being made."""
MOST_CANDIDATES: Final = 100
"""Of one viewer, in all its messages: a machine with many networks has some thirty."""
MOST_OFFERED: Final = 300
"""Candidates in an offer, which repeats them for each of its media."""


class NoCommonCodec(InvalidInput):
    """Raised where a viewer's browser cannot receive what is sent: H.264 in packetization mode 1,
    and Opus."""


class _Track(MediaStreamTrack):
    """Hands encoded packets to the sender, as they come."""

    def __init__(self, kind: str, most: int) -> None:
        super().__init__()
        self.kind = kind
        self._packets: deque[Packet] = deque(maxlen=most)
        self.taken_s: float | None = None
        """Time on the session's clock of the packet that was taken last."""
        self._there = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether the sender does not keep up."""
        return len(self._packets) == self._packets.maxlen

    def clear(self) -> None:
        """Drop all that waits."""
        self._packets.clear()

    def push(self, packet: Packet) -> None:
        """Add a packet; the oldest is dropped where it is full."""
        self._packets.append(packet)
        self._there.set()

    async def recv(self) -> Packet:
        """Return the next packet."""
        while not self._packets:
            if self.readyState != "live":
                raise MediaStreamError
            self._there.clear()
            await self._there.wait()
        packet = self._packets.popleft()
        self.taken_s = packet.pts / packet.time_base.denominator
        return packet

    def stop(self) -> None:
        """End the track."""
        super().stop()
        self._there.set()


class Peer:
    """The WebRTC connection to one viewer of a session. Made and used in one event loop;
    ``deliver`` may be called in any thread."""

    def __init__(
        self,
        ice: IceServers,
        *,
        on_key_wanted: Callable[[], None],
        on_bit_rate: Callable[[int], None],
        on_gone: Callable[[], None],
        connect_within_s: float = CONNECT_WITHIN_S,
    ) -> None:
        """``ice`` are the STUN and TURN servers. ``on_key_wanted()`` is called when the viewer
        needs a key frame, ``on_bit_rate(bits_a_second)`` with what it can receive, and
        ``on_gone()`` once when the connection is lost or closed, or was not made within
        ``connect_within_s`` seconds of the answer."""
        self._loop = asyncio.get_running_loop()
        self._on_key_wanted = on_key_wanted
        self._on_bit_rate = on_bit_rate
        self._on_gone: Callable[[], None] | None = on_gone
        self._connect_within_s = connect_within_s
        self._connecting: asyncio.TimerHandle | None = None
        """Ends the connection unless it is made in time; None before the answer, and once it
        is."""
        self._candidates = 0
        """That have come since the offer."""
        servers = [
            RTCIceServer(urls=[url], username=ice.username, credential=ice.credential)
            for url in ice.urls
        ]
        self._relay_only = ice.relay_only
        policy = RTCIceTransportPolicy.RELAY if ice.relay_only else RTCIceTransportPolicy.ALL
        self._connection = RTCPeerConnection(RTCConfiguration(servers, policy))
        self._video = _Track("video", _MOST_PICTURES)
        self._sound = _Track("audio", _MOST_SOUNDS)
        self._skipping = True
        """Until a key frame comes."""
        self._began_ntp: int | None = None
        """When the session's clock was 0, in units of 2^-32 s since 1900."""
        self._held: tuple[Packet, asyncio.TimerHandle] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._users: frozenset[str] = frozenset()
        """Of the viewer's ICE agent, as its offer has them."""
        self._connection.on("connectionstatechange", self._state_changed)

    async def answer(self, offer: str) -> str:
        """Accept ``offer``, the viewer's SDP, and return the SDP to answer with. Call it once. The
        connection is made once the viewer has the answer; where it is not made in time, ``on_gone``
        is called.

        Raises NoCommonCodec where the viewer lacks H.264 or Opus, InvalidInput where ``offer`` is
        no SDP that can be answered, and Unavailable where all media has to go over a TURN server
        that gives no address. After an error, too, ``close`` has to be called.
        """
        sdp = await self._answered(offer)
        if self._on_gone is not None and self._connection.connectionState != "connected":
            self._connecting = self._loop.call_later(self._connect_within_s, self._gone)
        return sdp

    async def _answered(self, offer: str) -> str:
        connection = self._connection
        self._users = users_of(offer)
        try:
            offered = RTCSessionDescription(offer, "offer")
            video = connection.addTransceiver(self._video, direction="sendonly")
            video.setCodecPreferences(_h264())
            sound = connection.addTransceiver(self._sound, direction="sendonly")
            self._watch(video.sender)
            self._time(video.sender, self._video)
            self._time(sound.sender, self._sound, OPUS_DELAY_S)
            await connection.setRemoteDescription(offered)
            if "a=setup:actpass" in offer:
                # aiortc's certificate is ECDSA, and as a DTLS client it refuses others: GStreamer's
                # is RSA. As a server it presents its own.
                for transceiver in (video, sound):
                    transceiver.sender.transport._set_role("server")
            await connection.setLocalDescription(await connection.createAnswer())
        except OperationError as error:
            raise NoCommonCodec(
                "the viewer does not take H.264 (packetization mode 1) and Opus"
            ) from error
        except LipwireError:
            raise
        except Exception as error:  # aiortc raises whatever its parsers stumble over
            _LOG.debug("an offer was refused", exc_info=True)
            raise InvalidInput("the offer is no SDP that can be answered") from error
        sdp: str = connection.localDescription.sdp
        if "H264/90000" not in sdp:
            raise NoCommonCodec("the viewer does not take H.264 (packetization mode 1)")
        if self._relay_only and "a=candidate" not in sdp:
            raise Unavailable("the TURN server gives no address; the viewer cannot be reached")
        return sdp

    async def trickle(self, fragment: Fragment) -> None:
        """Add further ICE candidates of the viewer: ``fragment`` is what ``parse_fragment``
        returned. Raises IceRestart where they belong to another ICE session than the offer does,
        and InvalidInput where a candidate cannot be used, or where the viewer has sent more than
        100 in all."""
        if fragment.user and fragment.user not in self._users:
            raise IceRestart("an ICE restart needs a new offer: post one, with ?session=ID")
        count = self._candidates + len(fragment.candidates)
        if count > MOST_CANDIDATES:
            raise InvalidInput(
                f"the viewer has sent {count} candidates; allowed are {MOST_CANDIDATES}"
            )
        self._candidates = count
        try:
            for candidate in fragment.candidates:
                await self._connection.addIceCandidate(candidate)
            if fragment.ended:
                await self._connection.addIceCandidate(None)
        except Exception as error:  # aiortc's and aioice's, of addresses that are none
            _LOG.debug("a candidate was refused", exc_info=True)
            raise InvalidInput("a candidate cannot be used") from error

    def deliver(self, media: Sequence[Media]) -> None:
        """Send ``media``, the encoded pictures and sound that the session's encoder has produced at
        one moment, to the viewer; events in it are passed over. Pictures before the first key frame
        are left out. In any thread; returns at once."""
        with contextlib.suppress(RuntimeError):  # where the loop has ended
            self._loop.call_soon_threadsafe(self._deliver, media)

    async def close(self) -> None:
        """End the connection, and wait until it has ended; closing twice is allowed. Calls
        ``on_gone``, unless it was called before."""
        if self._ending is None:
            self._gone()
            self._release()
            self._video.stop()
            self._sound.stop()
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        try:
            await asyncio.wait_for(self._connection.close(), _CLOSES_WITHIN_S)
        except Exception:  # aiortc's, of a connection that a bad offer left half made; TimeoutError
            _LOG.debug("a viewer's connection was closed badly", exc_info=True)
            await self._stop_transports()

    async def _stop_transports(self) -> None:
        """Close the sockets, where aiortc did not come to that."""
        for transceiver in self._connection.getTransceivers():
            dtls = transceiver.receiver.transport
            for transport in filter(None, (dtls, getattr(dtls, "transport", None))):
                with contextlib.suppress(Exception):  # and TimeoutError
                    await asyncio.wait_for(transport.stop(), _CLOSES_WITHIN_S)

    async def statistics(self) -> dict[str, Any]:
        """Return aiortc's statistics of the connection: reports by their ids."""
        return dict(await self._connection.getStats())

    def _deliver(self, media: Sequence[Media]) -> None:
        if self._began_ntp is None:
            self._begin(media)
        sounds = [item for item in media if isinstance(item, EncodedSound)]
        if sounds:
            self._release()
        for item in media:
            if isinstance(item, EncodedPicture):
                self._picture(item)
            elif isinstance(item, EncodedSound):
                packet = av.Packet(item.data)
                packet.pts = packet.dts = item.sample
                packet.time_base = Fraction(1, OPUS_RATE_HZ)
                if len(sounds) == 2 and item is sounds[1]:
                    # Even distances: two at once have browsers buffer for 20 ms more.
                    self._held = packet, self._loop.call_later(_SOUND_S, self._release)
                else:
                    self._sound.push(packet)

    def _release(self) -> None:
        """Send the sound that is held back, if any."""
        held, self._held = self._held, None
        if held is not None:
            held[1].cancel()
            self._sound.push(held[0])

    def _begin(self, media: Sequence[Media]) -> None:
        """Learn what time it is on the session's clock, of what has just left."""
        for item in reversed(media):
            if isinstance(item, EncodedPicture):
                self._began_ntp = current_ntp_time() - (item.frame << 32) // FPS
                return

    def _picture(self, picture: EncodedPicture) -> None:
        if self._skipping and not picture.key:
            return
        self._skipping = False
        if self._video.full:
            self._video.clear()
            if not picture.key:
                self._skipping = True
                self._on_key_wanted()
                return
        packet = av.Packet(picture.data)
        packet.pts = packet.dts = picture.frame * (VIDEO_RATE_HZ // FPS)
        packet.time_base = Fraction(1, VIDEO_RATE_HZ)
        self._video.push(packet)

    def _time(self, sender: RTCRtpSender, track: _Track, delay_s: float = 0.0) -> None:
        """Have sender reports map time stamps to the session's clock, the same for both tracks:
        that is how viewers know which sound belongs to which picture. aiortc tells the times at
        which packets were sent, which differ by how long each took to be made. ``delay_s`` is how
        late the track's content is."""
        next_frame = sender._next_encoded_frame

        async def timed(codec: Any) -> Any:
            # All of the packet before has been sent now.
            if track.taken_s is not None and self._began_ntp is not None:
                since = round((track.taken_s - delay_s) * 2**32)
                sender._RTCRtpSender__ntp_timestamp = self._began_ntp + since  # type: ignore[attr-defined]
            return await next_frame(codec)

        sender._next_encoded_frame = timed  # type: ignore[method-assign]

    def _watch(self, sender: RTCRtpSender) -> None:
        """Hear of what the viewer reports. aiortc offers no way to; this is its private method."""
        handle = sender._handle_rtcp_packet

        async def watched(packet: Any) -> None:
            if isinstance(packet, RtcpPsfbPacket):
                if packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
                    self._on_key_wanted()
                elif packet.fmt == RTCP_PSFB_APP:
                    try:
                        bits_a_second, _ = unpack_remb_fci(packet.fci)
                    except ValueError:
                        pass
                    else:
                        self._on_bit_rate(bits_a_second)
            await handle(packet)

        sender._handle_rtcp_packet = watched  # type: ignore[method-assign]

    def _state_changed(self) -> None:
        match self._connection.connectionState:
            case "connected":
                self._stop_waiting()
            case "failed" | "closed":
                self._gone()

    def _stop_waiting(self) -> None:
        """Let the connection be, however long it takes."""
        waiting, self._connecting = self._connecting, None
        if waiting is not None:
            waiting.cancel()

    def _gone(self) -> None:
        self._stop_waiting()
        told, self._on_gone = self._on_gone, None
        if told is not None:
            told()


def _h264() -> list[RTCRtpCodecCapability]:
    codecs = RTCRtpSender.getCapabilities("video").codecs
    wanted = [
        codec
        for codec in codecs
        if codec.mimeType == "video/H264"
        and codec.parameters.get("packetization-mode") == "1"
        and codec.parameters.get("profile-level-id") == _PROFILE
    ]
    return wanted + [codec for codec in codecs if codec.mimeType == "video/rtx"]


def check_offer(offer: str) -> None:
    """Raise InvalidInput where ``offer`` is not SDP or has more than 300 candidates, and
    NoCommonCodec where it does not name H.264. To be called before a connection is made for the
    offer."""
    count = offer.count("a=candidate:")
    if count > MOST_OFFERED:
        raise InvalidInput(f"the offer has {count} candidates; allowed are {MOST_OFFERED}")
    try:
        if not offer.startswith("v=0"):
            raise ValueError
        SessionDescription.parse(offer)
    except Exception as error:  # the parser raises whatever it stumbles over
        raise InvalidInput("the offer is no SDP that can be answered") from error
    if "H264/90000" not in offer:
        raise NoCommonCodec("the viewer does not take H.264 (packetization mode 1) and Opus")
