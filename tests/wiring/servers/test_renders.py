"""Videos that a server makes: ordered over HTTP, made by its own workers, fetched."""

import json
import wave
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import numpy.typing as npt
import pytest
from tests.support.waiting import until
from tests.support.webparts import Answer, Asked
from tests.wiring.servers.asking import Serve
from tests.wiring.servers.everycall import Told
from tests.wiring.servers.test_texts import FakeVoice

from lipwire.api import open_avatar
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.credentials import ClientSecurity
from lipwire.rpc.generated.lipwire.v1 import renders_pb2 as pb
from lipwire.rpc.generated.lipwire.v1.renders_pb2_grpc import RenderServiceStub
from lipwire.rpc.transport import open_channel
from lipwire.security import KeyFile
from lipwire.wiring import speaking

TOKEN = "a-token-for-the-tests"
SECRET = "a secret of tests alone"
RATE_HZ = 16_000
Pcm = npt.NDArray[np.int16]


def buzz(seconds: float) -> Pcm:
    """A voice-like buzz that swells, at 16 kHz."""
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * 140 * k * times_s) / k for k in range(1, 12))
    return (6000 * sound * np.sin(2 * np.pi * 2.5 * times_s) ** 2).astype(np.int16)


class Site(Asked):
    """A server's HTTP API."""

    def __init__(self, port: int, connection: CompositingConnection) -> None:
        self.port = port
        self.connection = connection

    def order(self, pcm: Pcm, **query: object) -> str:
        """Order a video of avatar a, and return the render's id."""
        asked = "&".join(f"{name}={value}" for name, value in {"avatar": "a", **query}.items())
        answer = self.send("POST", f"/v1/render?{asked}", pcm.tobytes())
        assert answer.status == 202, answer
        return str(answer.json["id"])

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = {"Content-Type": "audio/pcm"} if isinstance(body, bytes) else {}
        return self.ask(method, path, body, {**sent, **(headers or {})}, token=TOKEN)

    def ended(self, render: str) -> Any:
        """What is told of a render when it has ended."""
        told: list[Any] = []

        def has() -> bool:
            told.append(self.send("GET", f"/v1/renders/{render}").json)
            return "ended" in told[-1]

        until(has, seen=lambda: told[-1:])
        return told[-1]


Open = Callable[..., Site]


@pytest.fixture
def site(serve: Serve, told: Told, tmp_path: Path) -> Open:
    def opened(more: str = "") -> Site:
        folder = tmp_path / "renders"
        yaml = (
            f"renders: {{folder: {folder}, url_secret: '{SECRET}'{more}}}\nweb: {{token: {TOKEN}}}"
        )
        connection = serve(yaml)
        return Site(int(str(told["Web"]["Page"]).rpartition(":")[2].strip("/")), connection)

    return opened


def frames_of(data: bytes, path: Path) -> list[npt.NDArray[Any]]:
    path.write_bytes(data)
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="yuv420p") for frame in file.decode(video=0)]


def sound_of(path: Path) -> npt.NDArray[Any]:
    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)


@pytest.mark.slow
def test_a_video_is_what_lipwire_render_makes_of_the_same_sound(
    site: Open, root: Path, tmp_path: Path
) -> None:
    server, pcm = site(), buzz(1.3)
    render = server.order(pcm, start_frame=3)
    told = server.ended(render)
    assert (told["state"], told["progress"], told["frames"]) == ("done", 1.0, 33)
    video = server.send("GET", f"/v1/renders/{render}/video.mp4")
    assert (video.status, video.media_type) == (200, "video/mp4")
    assert len(video.body) == told["video"]["bytes"]
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    with open_avatar(root / "a", precision="float32") as avatar:
        avatar.render(tmp_path / "speech.wav", tmp_path / "wanted.mp4", start_frame=3)
    made = frames_of(video.body, tmp_path / "made.mp4")
    wanted = frames_of((tmp_path / "wanted.mp4").read_bytes(), tmp_path / "wanted.mp4")
    assert len(made) == len(wanted) == 33
    for one, other in zip(made, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        sound_of(tmp_path / "made.mp4"), sound_of(tmp_path / "wanted.mp4")
    )


@pytest.mark.slow
def test_a_text_is_said_by_the_servers_voice(
    site: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speaking, "open_voice", lambda settings: FakeVoice())
    server = site()
    answer = server.send("POST", "/v1/render", {"avatar": "a", "text": "One. Two. Three."})
    assert answer.status == 202, answer
    assert answer.headers["location"] == f"/v1/renders/{answer.json['id']}"
    assert server.ended(answer.json["id"])["frames"] == 15


def test_without_a_voice_texts_are_refused(site: Open) -> None:
    answer = site().send("POST", "/v1/render", {"avatar": "a", "text": "One."})
    assert (answer.status, answer.media_type) == (501, "application/problem+json")


def test_a_signed_link_is_enough(site: Open) -> None:
    server = site()
    told = server.ended(server.order(buzz(0.2)))
    signed = told["video"]["signed_url"]
    video = server.ask("GET", signed, token=None)
    assert video.status == 200
    assert video.headers["cache-control"].startswith("public, max-age=")
    assert video.headers["etag"] == f'"{told["video"]["sha256"]}"'
    assert server.ask("GET", signed.replace("signature=", "signature=x"), token=None).status == 403


@pytest.mark.slow
def test_hls_plays_and_shows_the_same_frames(site: Open, tmp_path: Path) -> None:
    server, pcm = site(), buzz(0.6)
    plain = server.ended(server.order(pcm))
    render = server.order(pcm, format="hls")
    told = server.ended(render)
    signed = told["video"]["signed_url"]
    playlist = server.ask("GET", signed, token=None)
    assert playlist.media_type == "application/vnd.apple.mpegurl"
    port = server.port
    with av.open(f"http://127.0.0.1:{port}{signed}", options={"allowed_extensions": "ALL"}) as file:
        played = [frame.to_ndarray(format="yuv420p") for frame in file.decode(video=0)]
    whole = server.send("GET", plain["video"]["url"]).body
    wanted = frames_of(whole, tmp_path / "whole.mp4")
    assert len(played) == len(wanted) == 15
    np.testing.assert_array_equal(np.stack(played), np.stack(wanted))


@pytest.mark.slow
def test_a_render_that_is_cancelled_makes_room_for_the_next(site: Open, tmp_path: Path) -> None:
    server = site()
    long, short = server.order(buzz(600)), server.order(buzz(0.2))
    until(lambda: server.send("GET", f"/v1/renders/{long}").json["done_frames"] > 0)
    assert server.send("DELETE", f"/v1/renders/{long}").status == 204
    assert server.ended(short)["state"] == "done"
    told = server.ended(long)
    assert told["state"] == "cancelled"
    assert 0 < told["progress"] < 1
    folder = tmp_path / "renders"
    assert len(list(folder.glob("videos/*/*"))) == 1
    until(lambda: not list(folder.glob("work/*/*")) and not list(folder.glob("inputs/*")))


def test_an_erased_avatar_takes_its_renders_with_it(site: Open, tmp_path: Path) -> None:
    server = site()
    render = server.order(buzz(0.2))
    told = server.ended(render)
    videos = tmp_path / "renders" / "videos"
    assert len(list(videos.glob("*/*.mp4"))) == 1
    with AvatarConnection(server.connection.address) as client:
        dry = {each.what: each for each in client.erase("a", dry_run=True)}
        assert (dry["renders"].files, dry["renders"].size_bytes) == (1, told["video"]["bytes"])
        assert server.send("GET", f"/v1/renders/{render}").status == 200
        client.erase("a")
    assert server.send("GET", f"/v1/renders/{render}").status == 404
    assert list(videos.glob("*/*.mp4")) == []


@pytest.mark.slow
def test_what_a_render_used_is_recorded(site: Open, tmp_path: Path) -> None:
    usage = tmp_path / "usage.jsonl"
    server = site(f"}}\nsecurity: {{usage_file: {usage}")
    render = server.order(buzz(0.4))
    told = server.ended(render)
    until(usage.read_text)
    (line,) = (json.loads(line) for line in usage.read_text().splitlines())
    assert (line["render"], line["avatar"], line["reason"]) == (render, "a", "done")
    assert (line["frames"], line["video_s"]) == (10, 0.4)
    assert line["bytes"] == told["video"]["bytes"]


@pytest.mark.slow
def test_over_grpc_it_is_the_same(site: Open) -> None:
    server = site()
    over_http = server.ended(server.order(buzz(0.4)))
    with open_channel(server.connection.address, max_message_bytes=1 << 20) as channel:
        stub: Any = RenderServiceStub(channel)
        order = pb.SubmitRenderRequest(model_id="a", pcm=buzz(0.4).tobytes(), idempotency_key="one")
        render = stub.Submit(order).render
        assert stub.Submit(order).render.id == render.id
        server.ended(render.id)
        done = stub.Get(pb.GetRenderRequest(id=render.id)).render
        assert (done.state, done.progress, done.frames) == (pb.RENDER_STATE_DONE, 1.0, 10)
        assert done.video.sha256 == over_http["video"]["sha256"]
        assert server.ask("GET", done.video.signed_url, token=None).status == 200
        listed = stub.List(pb.ListRendersRequest(most=1)).renders
        assert [one.id for one in listed] == [render.id]
        stub.Cancel(pb.CancelRenderRequest(id=render.id))
        for call, request in (
            (stub.Get, pb.GetRenderRequest(id=render.id)),
            (stub.Cancel, pb.CancelRenderRequest(id=render.id)),
            (stub.Submit, pb.SubmitRenderRequest(model_id="nobody", pcm=bytes(320))),
        ):
            assert refusal_of(call, request) == grpc.StatusCode.NOT_FOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({}, "INVALID_ARGUMENT"),
        ({"pcm": b""}, "INVALID_ARGUMENT"),
        ({"pcm": b"\0"}, "INVALID_ARGUMENT"),
        ({"pcm": b"RIFF0000WAVEfmt "}, "INVALID_ARGUMENT"),
        ({"pcm": bytes(320), "sample_rate": 5}, "INVALID_ARGUMENT"),
        ({"pcm": bytes(320), "format": "gif"}, "INVALID_ARGUMENT"),
        ({"pcm": bytes(320), "start_frame": -1}, "INVALID_ARGUMENT"),
        ({"pcm": bytes(320), "webhook": "https://example.org/"}, "INVALID_ARGUMENT"),
        ({"pcm": bytes(320), "idempotency_key": "two words"}, "INVALID_ARGUMENT"),
        ({"text": " "}, "INVALID_ARGUMENT"),
        ({"text": "x" * 10_001}, "INVALID_ARGUMENT"),
        ({"text": "Hello"}, "UNAVAILABLE"),
    ],
)
def test_a_wrong_order_over_grpc_gets_one_clear_error(
    site: Open, order: dict[str, Any], code: str
) -> None:
    with open_channel(site().connection.address, max_message_bytes=1 << 20) as channel:
        stub: Any = RenderServiceStub(channel)
        request = pb.SubmitRenderRequest(model_id="a", **order)
        assert refusal_of(stub.Submit, request) == grpc.StatusCode[code]
        assert not stub.List(pb.ListRendersRequest()).renders
        assert refusal_of(stub.List, pb.ListRendersRequest(most=-1)) is not None


def refusal_of(call: Any, request: object) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call(request)
    code: grpc.StatusCode = refused.value.code()
    return code


def test_over_grpc_renders_are_their_tenants_alone(site: Open, keys: KeyFile) -> None:
    one = keys.create("one", tenant="a", operations=["deliver"])
    two = keys.create("two", tenant="b", operations=["deliver"])
    viewer = keys.create("viewer", tenant="a", operations=["live", "render", "read"])
    address = site(f"}}\nsecurity: {{keys_file: {keys.path}").connection.address
    order = pb.SubmitRenderRequest(model_id="a", pcm=buzz(0.2).tobytes())

    def stub_of(stack: ExitStack, key: str) -> Any:
        channel = open_channel(
            address, max_message_bytes=1 << 20, security=ClientSecurity(token=key)
        )
        return RenderServiceStub(stack.enter_context(channel))

    with ExitStack() as stack:
        assert refusal_of(stub_of(stack, "").Submit, order) == grpc.StatusCode.UNAUTHENTICATED
        assert refusal_of(stub_of(stack, viewer).Submit, order) == grpc.StatusCode.PERMISSION_DENIED
        mine, other = stub_of(stack, one), stub_of(stack, two)
        render = mine.Submit(order).render
        assert [each.id for each in mine.List(pb.ListRendersRequest()).renders] == [render.id]
        assert not other.List(pb.ListRendersRequest()).renders
        for call, request in (
            (other.Get, pb.GetRenderRequest(id=render.id)),
            (other.Cancel, pb.CancelRenderRequest(id=render.id)),
            (other.List, pb.ListRendersRequest(before=render.id)),
        ):
            assert refusal_of(call, request) == grpc.StatusCode.NOT_FOUND
        assert mine.Get(pb.GetRenderRequest(id=render.id)).render.id == render.id
