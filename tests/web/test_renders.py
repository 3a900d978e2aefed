"""Finished videos over HTTP."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.renderparts import Maker, ended, opened_renders, running
from tests.support.waiting import Clock, until
from tests.support.webparts import TOKEN, Answer, WebHouse

from lipwire.domain import Operation
from lipwire.renders import RenderRules, Renders, SignedLinks, WebhookRules
from lipwire.renders.told import Telling
from lipwire.security import AccessControl, AuditLog, KeyFile
from lipwire.web.openapi import document

PCM = {"Content-Type": "audio/pcm"}
VIDEO = b"Hello" * 1000
SOUND = bytes(3200)


class Studio:
    """A server that makes videos, which are texts."""

    def __init__(self, stack: ExitStack, folder: Path, **more: Any) -> None:
        self.clock = Clock()
        self.maker = Maker(folder)
        self.links = SignedLinks("a secret of tests", lasts_s=60, now=self.clock)
        self.renders: Renders = stack.enter_context(
            opened_renders(
                folder / "renders",
                self.maker,
                more.pop("rules", None),
                telling=Telling(self.links, more.pop("public_url", "")),
                webhooks=more.pop("webhooks", None),
            )
        )
        self.house = stack.enter_context(
            WebHouse(
                renders=self.renders,
                links=self.links,
                speak=lambda session, text: None,
                **more,
            )
        )
        self.ask = self.house.ask

    def order(self, text: str = "Hello", **headers: str) -> Answer:
        return self.ask("POST", "/v1/render", {"avatar": "anna", "text": text}, headers)

    def done(self, text: str = "Hello") -> Any:
        """A render that is done, as the server tells of it."""
        render = self.order(text).json["id"]
        ended(self.renders, self.renders.find(render))
        return self.ask("GET", f"/v1/renders/{render}").json


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def studio(stack: ExitStack, tmp_path: Path) -> Studio:
    return Studio(stack, tmp_path)


@pytest.mark.slow
def test_an_order_is_taken_in_and_told_of_until_its_end(studio: Studio) -> None:
    studio.maker.held.set()
    answer = studio.order()
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/renders/{answer.json['id']}"
    job = studio.renders.find(answer.json["id"])
    running(studio.renders, job)
    until(lambda: studio.renders.find(job.id).frames == 4)
    told = studio.ask("GET", answer.headers["location"])
    assert (told.json["state"], told.json["progress"], told.json["frames"]) == ("running", 0.25, 4)
    assert told.headers["cache-control"] == "no-store"
    assert studio.ask("GET", f"/v1/renders/{job.id}/video.mp4").status == 404
    studio.maker.held.clear()
    ended(studio.renders, job)
    told = studio.ask("GET", answer.headers["location"])
    assert (told.json["state"], told.json["progress"]) == ("done", 1.0)
    assert told.json["video"]["url"] == f"/v1/renders/{job.id}/video.mp4"
    assert told.json["video"]["bytes"] == len(VIDEO)
    assert studio.ask("GET", told.json["video"]["url"]).body == VIDEO


def test_audio_is_taken_as_sessions_take_it(studio: Studio) -> None:
    def sent(query: str, body: bytes = SOUND, kind: str = "audio/pcm") -> int:
        return studio.ask("POST", f"/v1/render?{query}", body, {"Content-Type": kind}).status

    assert sent("avatar=anna&rate=48000&channels=2") == 202
    assert sent("avatar=anna", kind="audio/l16") == 202
    assert sent("avatar=anna", kind="text/plain") == 415
    assert sent("avatar=anna", body=b"\0") == 400
    assert sent("avatar=anna", body=b"") == 400
    assert sent("avatar=anna&rate=7") == 400
    assert sent("avatar=anna&channels=0") == 400
    assert sent("avatar=anna&format=avi") == 400
    assert sent("avatar=anna&start_frame=-1") == 400
    assert sent("avatar=nobody") == 404
    assert sent("") == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"avatar": "anna"}, 400),
        ({"text": "Hello"}, 400),
        ({"avatar": "anna", "text": " "}, 400),
        ({"avatar": "anna", "text": 5}, 400),
        ({"avatar": "anna", "text": "x" * 10_001}, 400),
        ({"avatar": "carl", "text": "Hello"}, 404),
        ({"avatar": "anna", "text": "Hello", "format": "gif"}, 400),
        ({"avatar": "anna", "text": "Hello", "format": ["mp4"]}, 400),
        ({"avatar": "anna", "text": "Hello", "start_frame": True}, 400),
        ({"avatar": "anna", "text": "Hello", "start_frame": 1.5}, 400),
        ({"avatar": "anna", "text": "Hello", "webhook": "https://example.org"}, 400),
        ({"avatar": "anna", "text": "Hello", "start_frame": 7, "format": "hls"}, 202),
    ],
)
def test_a_wrong_order_gets_one_clear_error(studio: Studio, body: Any, status: int) -> None:
    answer = studio.ask("POST", "/v1/render", body)
    assert answer.status == status, answer
    if status != 202:
        assert answer.media_type == "application/problem+json"
        assert studio.renders.every() == []


@pytest.mark.slow
@pytest.mark.parametrize("url", ["ftp://example.org/", "example.org", 5, "https://" + "x" * 3000])
def test_a_webhook_is_a_url(stack: ExitStack, tmp_path: Path, url: object) -> None:
    studio = Studio(stack, tmp_path, webhooks=WebhookRules("a secret", of_orders=True))
    order = {"avatar": "anna", "text": "Hello", "webhook": url}
    assert studio.ask("POST", "/v1/render", order).status == 400
    order["webhook"] = "https://example.org/hook"
    assert studio.ask("POST", "/v1/render", order).status == 202


def test_one_key_is_one_render(studio: Studio) -> None:
    first = studio.order(**{"Idempotency-Key": "one"})
    again = studio.order(**{"Idempotency-Key": '"one"'})
    assert (first.status, again.status) == (202, 202)
    assert first.json["id"] == again.json["id"]
    other = studio.order("Good bye", **{"Idempotency-Key": "one"})
    assert (other.status, other.media_type) == (422, "application/problem+json")
    for key in ("", '""', "two words", "x" * 256):
        assert studio.order(**{"Idempotency-Key": key}).status == 400


def test_a_full_queue_tells_how_many_wait(stack: ExitStack, tmp_path: Path) -> None:
    studio = Studio(stack, tmp_path, rules=RenderRules(max_queued=1))
    studio.maker.held.set()
    running(studio.renders, studio.renders.find(studio.order().json["id"]))
    assert studio.order().status == 202
    refused = studio.order()
    assert (refused.status, refused.json["waiting"]) == (429, 1)
    assert int(refused.headers["retry-after"]) >= 1


def test_a_full_disk_is_said(stack: ExitStack, tmp_path: Path) -> None:
    studio = Studio(stack, tmp_path, rules=RenderRules(disk_budget_bytes=1000))
    refused = studio.ask("POST", "/v1/render?avatar=anna", SOUND, PCM)
    assert refused.status == 507
    assert "renders.disk_budget_mb" in refused.json["detail"]


def test_parts_of_a_video_are_its_bytes(studio: Studio) -> None:
    url = studio.done()["video"]["url"]
    whole = studio.ask("GET", url)
    etag = whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes"
    for given, first, last in (
        ("bytes=0-99", 0, 99),
        ("bytes=4990-9999", 4990, 4999),
        ("bytes=-7", 4993, 4999),
        ("bytes=100-", 100, 4999),
    ):
        part = studio.ask("GET", url, headers={"Range": given, "If-Range": etag})
        assert (part.status, part.body) == (206, VIDEO[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(VIDEO)}"
        assert part.headers["etag"] == etag
    several = studio.ask("GET", url, headers={"Range": "bytes=0-4,10-14"})
    assert (several.status, several.media_type) == (206, "multipart/byteranges")
    assert several.body.count(b"Hello") == 2


def test_a_part_that_is_not_there_is_refused(studio: Studio) -> None:
    url = studio.done()["video"]["url"]
    answer = studio.ask("GET", url, headers={"Range": "bytes=5000-"})
    assert (answer.status, answer.media_type) == (416, "application/problem+json")
    assert answer.headers["content-range"] == f"bytes */{len(VIDEO)}"


def test_who_resumes_another_video_gets_all_of_this_one(studio: Studio) -> None:
    url = studio.done()["video"]["url"]
    headers = {"Range": "bytes=0-99", "If-Range": '"another"'}
    answer = studio.ask("GET", url, headers=headers)
    assert (answer.status, answer.body) == (200, VIDEO)


def test_who_has_the_video_is_not_sent_it(studio: Studio) -> None:
    told = studio.done()["video"]
    etag = f'"{told["sha256"]}"'
    answer = studio.ask("GET", told["url"], headers={"If-None-Match": etag})
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    assert studio.ask("GET", told["url"], headers={"If-None-Match": '"x"'}).status == 200


def test_heads_are_those_of_the_whole(studio: Studio) -> None:
    url = studio.done()["video"]["url"]
    head, whole = studio.ask("HEAD", url), studio.ask("GET", url)
    assert (head.status, head.body) == (200, b"")
    for name in ("content-length", "etag", "content-type", "cache-control", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


def test_a_signed_link_needs_no_token_until_it_expires(stack: ExitStack, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys")
    with AccessControl(keys=keys) as control:
        studio = Studio(stack, tmp_path, control=control, public_url="https://cdn.example.org/")
        told = studio.done()
        assert told["video"]["url"].startswith("https://cdn.example.org/v1/renders/")
        signed = told["video"]["signed_url"].removeprefix("https://cdn.example.org")
        for method, body in (("GET", VIDEO), ("HEAD", b"")):
            answer = studio.ask(method, signed, token=None)
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["cache-control"] == "public, max-age=60"
        part = studio.ask("GET", signed, headers={"Range": "bytes=5-9"}, token=None)
        assert (part.status, part.body) == (206, b"Hello")
        plain = signed.partition("?")[0]
        assert studio.ask("GET", plain, token=None).status == 401
        private = studio.ask("GET", plain)
        assert private.headers["cache-control"].startswith("private")
        query = signed.partition("?")[2]
        elsewhere = f"/v1/renders/{told['id']}?{query}"
        assert studio.ask("GET", elsewhere, token=None).status == 401
        assert studio.ask("DELETE", elsewhere, token=None).status == 401
        other = studio.done("Other")["id"]
        assert studio.ask("GET", f"/v1/renders/{other}/video.mp4?{query}", token=None).status == 403
        studio.clock.now += 60
        expired = studio.ask("GET", signed, token=None)
        assert (expired.status, "expired" in expired.json["detail"]) == (403, True)


def test_tenants_see_their_own_alone_and_are_recorded(stack: ExitStack, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys")
    made: tuple[tuple[str, str, Sequence[Operation]], ...] = (
        ("one", "a", ("deliver",)),
        ("two", "b", ("deliver",)),
        ("viewer", "a", ("live", "render", "read")),
        ("every", "", ("deliver",)),
    )
    one, two, viewer, every = (
        keys.create(name, tenant=tenant, operations=operations) for name, tenant, operations in made
    )
    audit = AuditLog(tmp_path / "audit")
    with AccessControl(keys=keys, audit=audit) as control:
        studio = Studio(stack, tmp_path, control=control)

        def ask(key: str, method: str, path: str, body: Any = None) -> Answer:
            return studio.ask(method, path, body, token=key)

        order = {"avatar": "anna", "text": "Hello"}
        assert ask(viewer, "POST", "/v1/render", order).status == 403
        render = ask(one, "POST", "/v1/render", order).json["id"]
        ended(studio.renders, studio.renders.find(render))
        for method, path in (
            ("GET", f"/v1/renders/{render}"),
            ("GET", f"/v1/renders/{render}/video.mp4"),
            ("DELETE", f"/v1/renders/{render}"),
            ("GET", f"/v1/renders?before={render}"),
        ):
            refused = ask(two, method, path)
            assert refused.status == 404, path
            assert refused.json["detail"] == "there is no such render"
        assert ask(two, "GET", "/v1/renders").json["renders"] == []
        assert [each["id"] for each in ask(one, "GET", "/v1/renders").json["renders"]] == [render]
        assert len(ask(every, "GET", "/v1/renders").json["renders"]) == 1
        assert ask(two, "DELETE", "/v1/renders?tenant=a").json == {"removed": 0}
        assert ask(every, "DELETE", "/v1/renders").status == 400
        assert ask(every, "DELETE", "/v1/renders?tenant=a").json == {"removed": 1}
        assert ask(one, "GET", f"/v1/renders/{render}").status == 404
    rows = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert {row["operation"] for row in rows} == {"deliver"}
    assert rows[1]["tenant"] == "a"
    assert rows[1]["call"] == "POST /v1/render"
    assert render not in (tmp_path / "audit").read_text()


def test_an_id_is_told_to_nobody_without_a_token(studio: Studio) -> None:
    studio.order()
    assert studio.ask("GET", "/v1/renders", token=None).status == 403
    assert (
        studio.ask("POST", "/v1/render", {"avatar": "anna", "text": "x"}, token=None).status == 403
    )
    assert studio.ask("GET", "/v1/renders", token=TOKEN).status == 200


def test_deleting_cancels_what_goes_on_and_removes_what_has_ended(studio: Studio) -> None:
    studio.maker.held.set()
    path = studio.order().headers["location"]
    assert studio.ask("DELETE", path).status == 204
    assert studio.ask("GET", path).json["state"] == "cancelled"
    assert studio.ask("DELETE", path).status == 204
    assert studio.ask("GET", path).status == 404
    assert studio.ask("DELETE", path).status == 404


def test_a_server_without_a_folder_says_so() -> None:
    with WebHouse() as house:
        for method, path in (("POST", "/v1/render"), ("GET", "/v1/renders")):
            answer = house.ask(method, path, {"avatar": "anna"} if method == "POST" else None)
            assert answer.status == 404
            assert "renders.folder" in answer.json["detail"]


@pytest.mark.parametrize("most", [0, 1001, "x"])
def test_lists_have_a_length(studio: Studio, most: object) -> None:
    assert studio.ask("GET", f"/v1/renders?most={most}").status == 400
    assert studio.ask("GET", "/v1/renders?most=1").status == 200


def test_answers_are_as_the_document_says(studio: Studio) -> None:
    told = studio.done()
    answers = {
        ("post", "/v1/render"): studio.order(),
        ("get", "/v1/renders"): studio.ask("GET", "/v1/renders"),
        ("get", "/v1/renders/{render}"): studio.ask("GET", f"/v1/renders/{told['id']}"),
        ("get", "/v1/renders/{render}/video.mp4"): studio.ask("GET", told["video"]["url"]),
    }
    paths = document()["paths"]
    for (method, path), answer in answers.items():
        described = paths[path][method]["responses"][str(answer.status)]["content"]
        assert answer.media_type in described
