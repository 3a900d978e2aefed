"""What the cluster's run sees: each of its checks fails where it should."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster import renders as renders_module
from tests.support.cluster.cast import Cast
from tests.support.cluster.clients import Asking
from tests.support.cluster.intruders import Intruders
from tests.support.cluster.live import LiveClients
from tests.support.cluster.record import Record
from tests.support.cluster.renders import RenderClients
from tests.support.cluster.run import WANTED, Found, Row
from tests.support.waiting import Clock

from lipwire.bench.chaos.cast import Look, Question, Role
from lipwire.domain import NotFound, Unavailable
from lipwire.rpc.credentials import PLAIN, ClientSecurity
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.generated.lipwire.v1 import renders_pb2 as pb
from lipwire.session.live import LiveFrame

NORTH = (b"north 0", b"north 1")
SOUTH = (b"south 0", b"south 1")


def connect(tenant: str) -> tuple[str, ClientSecurity]:
    return "127.0.0.1:1", PLAIN


@pytest.fixture
def cast(compiled_template: Path, tmp_path: Path) -> Cast:
    roles = {
        tenant: [Role(tmp_path / f"{tenant}-0", [Look(compiled_template, (frames,))], [])]
        for tenant, frames in (("north", NORTH), ("south", SOUTH))
    }
    return Cast(roles, {"north": [], "south": []}, ())


@pytest.mark.parametrize(
    ("frames", "wrong", "foreign"),
    [(NORTH, 0, 0), ((NORTH[0], b"x"), 1, 0), (NORTH[:1], 1, 0), ((NORTH[0], SOUTH[1]), 1, 1)],
)
def test_frames_that_are_wrong_or_another_tenants_are_told(
    cast: Cast, frames: tuple[bytes, ...], wrong: int, foreign: int
) -> None:
    record = Record()
    question = Question(CompositeBatchRequest(model_id="north-0", batch_size=2), (NORTH,))
    Asking(connect, cast, "north", record).look("north-0", question, frames)
    assert (len(record.wrong), len(record.foreign)) == (wrong, foreign)
    assert record.counts["batches"] == 1 - wrong


class Renderer:
    """Shows one picture, whatever is said."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def resting(self, position: int) -> bytes:
        return self._data

    filmed = resting

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("data", "foreign"), [(b"south", 1), (b"noise", 0)])
def test_a_wrong_picture_of_a_session_is_told_as_another_tenants(
    cast: Cast, data: bytes, foreign: int
) -> None:
    record = Record()
    live = LiveClients(connect, cast, record, count=1, seed=0)
    renderers: dict[Path, Any] = live._renderers
    renderers[cast.roles["south"][0].looks[0].package] = Renderer(b"south")
    live._look_for_owner("north", cast.roles["north"][0], LiveFrame(0, data, 320, 240, 0, 0))
    assert len(record.foreign) == foreign


def test_an_intruder_who_gets_something_is_told(cast: Cast) -> None:
    record = Record()
    intruders = Intruders(connect, cast, record, sessions={}, renders={})

    def refused() -> None:
        raise NotFound("no such session")

    def away() -> None:
        raise Unavailable("no server")

    for ask in (refused, away, list):
        intruders._refused("north", "a session", ask)
    assert record.foreign == ["north got a session of another tenant"]
    assert record.counts["intrusions refused"] == 1


class Lists:
    """A server that tells a tenant of these names and videos."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def models(self, timeout_s: float) -> list[Any]:
        return []

    def listed(self) -> list[str]:
        return list(self._names)


def test_a_list_with_anothers_video_is_told(cast: Cast) -> None:
    record = Record()
    videos = {"north": "a", "south": "b"}
    intruders = Intruders(connect, cast, record, sessions={}, renders=videos)
    for names in ((), ("a",), ("a", "b")):
        lists: Any = Lists(*names)
        intruders._look_at_lists("north", lists, lists)
    assert record.foreign == ["north is told of b"]


class Videos:
    """Has one video, with this state and hash."""

    def __init__(self, state: pb.RenderState.ValueType, sha256: str) -> None:
        self._render = pb.Render(state=state)
        self._render.video.sha256 = sha256

    def __call__(self, address: str, security: ClientSecurity) -> "Videos":
        return self

    def __enter__(self) -> "Videos":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def get(self, render_id: str) -> pb.Render:
        if render_id == "gone":
            raise NotFound("no such render")
        return self._render


@pytest.mark.parametrize(
    ("render_id", "state", "sha256", "lost", "wrong"),
    [
        ("a", pb.RENDER_STATE_DONE, "right", 0, 0),
        ("a", pb.RENDER_STATE_DONE, "other", 0, 1),
        ("a", pb.RENDER_STATE_FAILED, "right", 1, 0),
        ("gone", pb.RENDER_STATE_DONE, "right", 1, 0),
    ],
)
def test_an_acknowledged_video_that_is_gone_or_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch,
    render_id: str,
    state: pb.RenderState.ValueType,
    sha256: str,
    lost: int,
    wrong: int,
) -> None:
    record = Record()
    monkeypatch.setattr(renders_module, "RenderConnection", Videos(state, sha256))
    renders = RenderClients.__new__(RenderClients)
    renders.record, renders._connect = record, connect  # type: ignore[misc]
    renders._acknowledged = [("north", render_id, "right")]
    renders.look()
    assert (len(record.lost), len(record.wrong)) == (lost, wrong)


def test_the_longest_time_in_which_a_client_got_nothing_is_found() -> None:
    clock = Clock()
    record = Record(clock)
    steady, interrupted = record.flow("steady"), record.flow("interrupted")
    begun_s = clock.now
    for second in range(1, 21):
        clock.now = begun_s + second
        steady.came()
        if not 5 < second < 12:
            interrupted.came()
    assert record.longest_gap(begun_s, clock.now) == (7.0, begun_s + 5, "interrupted")
    assert record.longest_gap(begun_s + 8, clock.now)[0] == 4.0
    assert record.longest_gap(begun_s + 12, clock.now + 6)[0] == 6.0


def test_whatever_is_wrong_is_a_problem() -> None:
    record = Record()
    record.counts.update(dict.fromkeys(WANTED, 1))
    row = Row("kill -9, inference", 1, gap_s=4.9, back_s=4.0)
    assert Found([row], record, []).problems() == []
    row.back_s = 5.1
    record.is_wrong("a frame")
    record.is_lost("a request")
    record.is_foreign("an avatar")
    found = Found([row], record, ["a crash"])
    assert [problem.partition(":")[0] for problem in found.problems()] == [
        "wrong",
        "lost",
        "of another tenant",
        "unclean",
        "slow",
    ]
    assert len(found.table()) == 2
    record.counts["videos"] = 0
    assert "none: videos" in found.problems()
    assert isinstance(row.counts, Counter)
