"""What is sent to one viewer, and what is left out."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from tests.support.waiting import WAIT_S

from lipwire.compose.livevideo import EncodedPicture, EncodedSound
from lipwire.domain import InvalidInput, LipwireError, Unavailable
from lipwire.web.ice import IceServers
from lipwire.web.peers import NoCommonCodec, Peer, check_offer
from lipwire.web.trickle import parse_fragment


def with_peer(look: Callable[[Peer, list[str]], None]) -> None:
    """Look at a peer that nothing takes packets from."""

    async def main() -> None:
        told: list[str] = []
        peer = Peer(
            IceServers(),
            on_key_wanted=lambda: told.append("key"),
            on_bit_rate=lambda bits: told.append(f"{bits} bits"),
            on_gone=lambda: told.append("gone"),
        )
        look(peer, told)
        await peer.close()
        await peer.close()
        assert told.count("gone") == 1

    asyncio.run(main())


def picture(frame: int, *, key: bool = False) -> EncodedPicture:
    return EncodedPicture(frame, b"\0\0\0\1" + bytes([frame]), key)


def frames(peer: Peer) -> list[int]:
    """What waits to be sent."""
    return [packet.pts // 3600 for packet in peer._video._packets]


def test_pictures_begin_with_a_key_frame() -> None:
    def look(peer: Peer, told: list[str]) -> None:
        peer._deliver([picture(0)])
        peer._deliver([picture(1, key=True), picture(2)])
        assert frames(peer) == [1, 2]
        assert not told

    with_peer(look)


def test_a_slow_viewer_goes_on_with_a_key_frame() -> None:
    def look(peer: Peer, told: list[str]) -> None:
        peer._deliver([picture(0, key=True)])
        for frame in range(1, 53):
            peer._deliver([picture(frame)])
        assert not frames(peer)
        assert told == ["key"]
        peer._deliver([picture(53, key=True)])
        peer._deliver([picture(54)])
        assert frames(peer) == [53, 54]

    with_peer(look)


def test_a_key_frame_takes_the_place_of_what_waits() -> None:
    def look(peer: Peer, told: list[str]) -> None:
        peer._deliver([picture(0, key=True)])
        for frame in range(1, 50):
            peer._deliver([picture(frame)])
        peer._deliver([picture(50, key=True)])
        assert frames(peer) == [50]
        assert not told

    with_peer(look)


def test_the_oldest_sound_goes_where_too_much_waits() -> None:
    def look(peer: Peer, told: list[str]) -> None:
        peer._deliver([EncodedSound(960 * index, b"x") for index in range(150)])
        assert [packet.pts // 960 for packet in peer._sound._packets] == list(range(50, 150))

    with_peer(look)


def test_sound_of_one_frame_is_sent_in_two_turns_and_in_order() -> None:
    async def main() -> None:
        peer = Peer(
            IceServers(),
            on_key_wanted=lambda: None,
            on_bit_rate=lambda bits: None,
            on_gone=lambda: None,
        )

        def sent() -> list[int]:
            return [packet.pts // 960 for packet in peer._sound._packets]

        peer._deliver([EncodedSound(0, b"x"), EncodedSound(960, b"x")])
        assert sent() == [0]
        peer._deliver(
            [EncodedSound(1920, b"x"), EncodedSound(2880, b"x")]
        )  # before 20 ms have gone
        assert sent() == [0, 1, 2]
        while len(sent()) < 4:
            await asyncio.sleep(0.001)
        assert sent() == [0, 1, 2, 3]
        await peer.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_offers_are_looked_at_before_anything_is_done() -> None:
    for bad in ("", "hello", "v=0\r\nm=", "v=0\r\nm=video x y z", "v=0\r\na=group"):
        with pytest.raises(LipwireError):
            check_offer(bad)
    with pytest.raises(NoCommonCodec):
        check_offer("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n")
    chance = random.Random(3)
    for _ in range(1000):
        bad = "v=0\r\n" + "".join(chance.choices("amvco=:/ 019\r\n", k=60))
        with pytest.raises(InvalidInput):
            check_offer(bad)


@asynccontextmanager
async def answered(told: list[str], **more: Any) -> AsyncIterator[tuple[Peer, RTCPeerConnection]]:
    """A peer that has answered the offer of a viewer, who has not taken the answer."""
    viewer = RTCPeerConnection()
    viewer.addTransceiver("video", direction="recvonly")
    viewer.addTransceiver("audio", direction="recvonly")
    peer = Peer(
        IceServers(),
        on_key_wanted=lambda: None,
        on_bit_rate=lambda bits: None,
        on_gone=lambda: told.append("gone"),
        **more,
    )
    try:
        await viewer.setLocalDescription(await viewer.createOffer())
        sdp = await peer.answer(viewer.localDescription.sdp)
        told.append(sdp)
        yield peer, viewer
    finally:
        await peer.close()
        await viewer.close()


def test_who_never_connects_is_gone_after_a_while() -> None:
    async def main() -> None:
        told: list[str] = []
        async with answered(told, connect_within_s=0):
            while "gone" not in told:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_who_has_connected_or_gone_is_not_waited_for() -> None:
    async def main() -> None:
        told: list[str] = []
        async with answered(told, connect_within_s=3600) as (peer, viewer):
            waiting = peer._connecting
            assert waiting is not None
            await viewer.setRemoteDescription(RTCSessionDescription(told[0], "answer"))
            while peer._connection.connectionState != "connected":
                await asyncio.sleep(0.001)
            assert waiting.cancelled()
        async with answered(told) as (peer, _):
            waiting = peer._connecting
            assert waiting is not None
            await peer.close()
            assert waiting.cancelled()

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_candidates_are_taken_up_to_a_number() -> None:
    async def main() -> None:
        told: list[str] = []
        async with answered(told) as (peer, _):
            one = "a=candidate:1 1 udp 1 192.0.2.1 {} typ host"
            parts = [range(1000, 1050), range(1050, 1100)]
            for ports in parts:
                await peer.trickle(parse_fragment("\n".join(map(one.format, ports))))
            with pytest.raises(InvalidInput, match="101 candidates; allowed are 100"):
                await peer.trickle(parse_fragment(one.format(1100)))
            transport = peer._connection.getTransceivers()[0].sender.transport.transport
            assert len(transport.getRemoteCandidates()) <= 100 + told[0].count("a=candidate")
            await peer.trickle(parse_fragment("a=end-of-candidates"))

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_an_offer_of_too_many_candidates_is_refused() -> None:
    offer = "v=0\r\n" + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 301
    with pytest.raises(InvalidInput, match="301 candidates; allowed are 300"):
        check_offer(offer)


@pytest.mark.parametrize("relay_only", [False, True])
def test_with_relay_only_no_address_of_this_machine_is_told(relay_only: bool) -> None:
    async def told() -> str:
        viewer = RTCPeerConnection()
        viewer.addTransceiver("video", direction="recvonly")
        viewer.addTransceiver("audio", direction="recvonly")
        peer = Peer(
            IceServers(relay_only=relay_only),
            on_key_wanted=lambda: None,
            on_bit_rate=lambda bits: None,
            on_gone=lambda: None,
        )
        try:
            await viewer.setLocalDescription(await viewer.createOffer())
            return await peer.answer(viewer.localDescription.sdp)
        finally:
            await peer.close()
            await viewer.close()

    if relay_only:  # and there is no relay
        with pytest.raises(Unavailable, match="no address"):
            asyncio.run(told())
    else:
        assert "a=candidate" in asyncio.run(told())
