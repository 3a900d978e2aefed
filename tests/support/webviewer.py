"""A viewer over WebRTC that is no browser: aiortc, in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.codecs import is_rtx
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RTCP_PSFB_PLI, RtcpPsfbPacket, RtcpSrPacket
from tests.support.lossynetwork import LossyNetwork
from tests.support.webparts import Answer, Asked

SDP: Final = {"Content-Type": "application/sdp"}
FRAGMENT: Final = {"Content-Type": "application/trickle-ice-sdpfrag"}


def selected_pair(connection: RTCPeerConnection) -> tuple[str, str]:
    """Kinds of the candidates, the connection's own first, that media goes between."""
    (ice,) = {
        id(one.receiver.transport): one.receiver.transport.transport
        for one in connection.getTransceivers()
    }.values()
    (pair,) = ice._connection._nominated.values()
    return pair.local_candidate.type, pair.remote_candidate.type


class WebViewer:
    """One viewer, connected or not. A context manager."""

    def __init__(self, house: Asked, configuration: RTCConfiguration | None = None) -> None:
        """``configuration`` has ICE servers."""
        self._house = house
        self._configuration = configuration or RTCConfiguration([])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="viewer")
        self._thread.start()
        self._tasks: list[asyncio.Task[None]] = []
        self.pictures: list[Any] = []
        """Video frames, decoded."""
        self.sounds: list[Any] = []
        """Audio frames, decoded."""
        self.units: list[int] = []
        """Kinds of the NAL units of H.264, as packets bring them."""
        self.reports: dict[str, list[tuple[int, int]]] = {"audio": [], "video": []}
        """Sender reports: time (NTP, 1/2^32 s), and time stamp (RTP)."""
        self.missed: set[int] = set()
        """Sequence numbers of packets of video that were asked for again (RFC 4585, NACK)."""
        self.resent: set[int] = set()
        """Those that came again (RFC 4588)."""
        self.answer: Answer | None = None
        self._connection: RTCPeerConnection = self._wait(self._made())

    @property
    def state(self) -> str:
        return self._connection.connectionState

    @property
    def pair(self) -> tuple[str, str]:
        """Kinds of the two candidates, its own first, that media goes between."""
        return selected_pair(self._connection)

    @property
    def location(self) -> str:
        assert self.answer is not None
        return self.answer.headers["location"]

    def offer(self, codec: str | None = None) -> str:
        """Return an offer; ``codec`` is the only one for video."""
        sdp: str = self._wait(self._offered(codec))
        return sdp

    def view(self, path: str = "/whep/anna", network: LossyNetwork | None = None) -> None:
        """Have the house's server send, over ``network`` where there is one."""
        self.post(self.offer() if network is None else network.offered(self.offer()), path, network)

    def post(
        self, offer: str, path: str = "/whep/anna", network: LossyNetwork | None = None
    ) -> None:
        """Have the house's server answer ``offer``, made of this viewer's own."""
        self.answer = self._house.ask("POST", path, offer, SDP)
        assert self.answer.status == 201, self.answer
        answer = self.answer.body.decode()
        self._wait(self._accepted(answer if network is None else network.answered(answer)))

    def want_key(self) -> None:
        """Say that a picture was lost (RFC 4585, picture loss indication)."""
        self._wait(self._pli())

    def close(self) -> None:
        """End the connection without telling anybody over HTTP."""
        if self._thread.is_alive():
            self._wait(self._closed())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wait(self, wanted: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(wanted, self._loop).result(60)

    async def _made(self) -> RTCPeerConnection:
        connection = RTCPeerConnection(self._configuration)
        connection.on("track", self._tracked)
        return connection

    async def _offered(self, codec: str | None) -> str:
        connection = self._connection
        video = connection.addTransceiver("video", direction="recvonly")
        audio = connection.addTransceiver("audio", direction="recvonly")
        for one in (video, audio):
            self._report(one.receiver, self.reports[one.kind])
        if codec is not None:
            codecs = RTCRtpSender.getCapabilities("video").codecs
            video.setCodecPreferences([one for one in codecs if one.mimeType == codec])
        receiver = video.receiver
        handle = receiver._handle_rtp_packet

        async def asked(media_ssrc: int, lost: list[int]) -> None:
            self.missed.update(lost)
            await ask_again(media_ssrc, lost)

        async def watched(packet: Any, arrival_time_ms: int) -> None:
            if len(packet.payload) > 2 and is_rtx(codecs_of(packet.payload_type)):
                self.resent.add(int.from_bytes(packet.payload[:2]))
                await handle(packet, arrival_time_ms=arrival_time_ms)
                return
            kind = packet.payload[0] & 31
            if kind == 24:  # several in one packet (RFC 6184, STAP-A)
                kind = packet.payload[3] & 31
            elif kind == 28:  # a part of one (FU-A)
                kind = packet.payload[1] & 31
            self.units.append(kind)
            await handle(packet, arrival_time_ms=arrival_time_ms)

        def codecs_of(payload_type: int) -> Any:
            return receiver._RTCRtpReceiver__codecs[payload_type]  # type: ignore[attr-defined]

        ask_again = receiver._send_rtcp_nack
        receiver._send_rtcp_nack = asked  # type: ignore[method-assign]
        receiver._handle_rtp_packet = watched  # type: ignore[method-assign]
        await connection.setLocalDescription(await connection.createOffer())
        return str(connection.localDescription.sdp)

    def _report(self, receiver: RTCRtpReceiver, reports: list[tuple[int, int]]) -> None:
        handle = receiver._handle_rtcp_packet

        async def watched(packet: Any) -> None:
            if isinstance(packet, RtcpSrPacket):
                told = packet.sender_info
                reports.append((told.ntp_timestamp, told.rtp_timestamp))
            await handle(packet)

        receiver._handle_rtcp_packet = watched  # type: ignore[method-assign]

    def rtp_origin(self, kind: str) -> int:
        """The time stamp (RTP) of what has ``pts`` 0."""
        (receiver,) = (one for one in self._connection.getReceivers() if one.track.kind == kind)
        origin: int = receiver._RTCRtpReceiver__timestamp_mapper._origin  # type: ignore[attr-defined]
        return origin

    async def _accepted(self, sdp: str) -> None:
        await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def _pli(self) -> None:
        (receiver,) = (one for one in self._connection.getReceivers() if one.track.kind == "video")
        source = next(iter(receiver._RTCRtpReceiver__remote_streams))  # type: ignore[attr-defined]
        packet = RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=0, media_ssrc=source)
        await receiver.transport._send_rtp(bytes(packet))

    async def _closed(self) -> None:
        await self._connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tracked(self, track: Any) -> None:
        taken = self.pictures if track.kind == "video" else self.sounds

        async def take() -> None:
            try:
                while True:
                    taken.append(await track.recv())
            except MediaStreamError:
                return

        self._tasks.append(self._loop.create_task(take()))
