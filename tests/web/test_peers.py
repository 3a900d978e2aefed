"""What is sent to one viewer, and what is left out."""

import asyncio
import random
from collections.abc import Callable

import pytest
from aiortc import RTCPeerConnection

from lipwire.compose.livevideo import EncodedPicture, EncodedSound
from lipwire.domain import InvalidInput, LipwireError, Unavailable
from lipwire.web.peers import IceServers, NoCommonCodec, Peer, check_offer


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


@pytest.mark.parametrize("relay_only", [False, True])
def test_with_relay_only_no_address_of_this_machine_is_told(relay_only: bool) -> None:
    async def answered() -> str:
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
            asyncio.run(answered())
    else:
        assert "a=candidate" in asyncio.run(answered())


def test_what_viewers_are_told_of_ice_servers() -> None:
    ice = IceServers(("stun:one", "turn:two:443?transport=tcp"), 'an "id"', "back\\slash")
    assert ice.links() == [
        '<stun:one>; rel="ice-server"',
        '<turn:two:443?transport=tcp>; rel="ice-server"; username="an \\"id\\""'
        '; credential="back\\\\slash"; credential-type="password"',
    ]
