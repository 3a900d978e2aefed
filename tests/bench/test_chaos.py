"""The chaos run: it goes through, and it sees what it is there to see."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lipwire.bench.chaos import Plan, run_chaos
from lipwire.bench.chaos.cast import Cast, Look, Question, Role
from lipwire.bench.chaos.clients import Tally
from lipwire.bench.chaos.run import REQUESTS_AN_HOUR, Chaos
from lipwire.bench.chaos.servers import Process
from lipwire.bench.chaos.watch import Held
from lipwire.bench.footprint import Growth
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest, CompositeBatchResponse

linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at Linux's /proc")
OLD = tuple(f"old {index}".encode() for index in range(4))
NEW = tuple(f"new {index}".encode() for index in range(4))
HELD = Held("compositing", 300.0, 200.0, {"threads": Growth(20.0, 24.0, 0.5)})
FOUND = Chaos(60.0, REQUESTS_AN_HOUR // 2, 45_000, {"right": 1875}, [HELD], [], [], [])


@linux
@pytest.mark.slow
def test_servers_that_die_and_change_give_no_wrong_frame() -> None:
    plan = Plan(
        minutes=0.2,
        clients=2,
        rate=20,
        inference_servers=2,
        replace_packages=True,
        kill_every_s=3.0,
        replace_every_s=1.0,
    )
    found = run_chaos(plan)
    assert found.problems == []
    assert found.requests > 5
    assert found.frames > found.requests
    assert {"right", "killed", "unload", "replaced"} <= set(found.counts)
    assert [held.server for held in found.held] == ["compositing", "inference-0"]
    assert all(held.resident_mb > 50 for held in found.held)


@pytest.fixture
def tally(compiled_template: Path, tmp_path: Path) -> Tally:
    looks = [Look(tmp_path / "old", (OLD,)), Look(tmp_path / "new", (NEW,))]
    shutil.copytree(compiled_template, looks[0].package)
    return Tally(Cast(tmp_path, (Role(tmp_path / "anna", looks, []),), ()))


@pytest.mark.parametrize(
    ("frames", "wrong"),
    [
        (OLD[:3], None),
        (NEW[:3], None),
        ((*OLD[:2], NEW[2]), "frame 2 of 3 is new, speech 0, frame 2; wanted was old, speech 0"),
        ((*OLD[:2], OLD[3]), "frame 2 of 3 is old, speech 0, frame 3; wanted was old, speech 0"),
        ((*OLD[:2], b"x"), "frame 2 of 3 is of no avatar as a whole"),
        (OLD[:2], "2 frames, asked for were 3"),
    ],
)
def test_frames_have_to_be_wholly_those_of_one_package(
    tally: Tally, frames: tuple[bytes, ...], wrong: str | None
) -> None:
    request = CompositeBatchRequest(model_id="anna", batch_size=3)
    answer = CompositeBatchResponse(success=True, composited_frames=frames)
    tally.look_at(Question(request, (OLD[:3], NEW[:3])), answer)
    assert (tally.answered, tally.frames) == (1, len(frames))
    if wrong is None:
        assert tally.counts["right"] == 1
        assert tally.wrong == []
    else:
        assert tally.counts["wrong"] == 1
        (said,) = tally.wrong
        assert wrong in said


def test_a_refusal_is_an_error(tally: Tally) -> None:
    request = CompositeBatchRequest(model_id="anna", batch_size=3)
    tally.look_at(Question(request, (OLD[:3],)), CompositeBatchResponse(error="no such thing"))
    assert tally.errors == ["anna: no such thing"]
    assert tally.answered == 0


def test_a_role_shows_the_next_package_when_it_is_replaced(
    tmp_path: Path, compiled_template: Path
) -> None:
    package = shutil.copytree(compiled_template, tmp_path / "old")
    looks = [Look(package, (OLD,)), Look(tmp_path, (NEW,))]
    role = Role(tmp_path / "anna", looks, [])
    assert (tmp_path / "anna").resolve() == package.resolve()
    role.replace()
    assert (tmp_path / "anna").resolve() == tmp_path.resolve()
    assert role.shown is looks[1]
    role.replace()
    assert (tmp_path / "anna").resolve() == package.resolve()


def test_growth_beyond_what_comes_and_goes_is_a_leak() -> None:
    assert HELD.leaks == []
    leaking = replace(HELD, growths={"threads": Growth(20.0, 27.0, 9.0)})
    assert leaking.leaks == ["compositing: threads went from 20 to 27; allowed is 6 more"]
    found = replace(FOUND, held=[leaking], wrong=["a"], errors=["b"], unclean=["c"])
    assert len(found.problems) == 4
    assert FOUND.problems == []
    assert FOUND.hours == 0.5
    assert replace(FOUND, requests=0).problems == ["no request was answered"]


def test_an_end_with_another_code_and_errors_in_the_log_are_troubles(tmp_path: Path) -> None:
    process = Process("a", tmp_path, [])
    process.life = 1
    (tmp_path / "a-1.log").write_text(
        '{"level": "info", "message": "fine"}\nnoise\n{"level": "error", "message": "broken"}\n'
    )
    (tmp_path / "a-1.err").write_text("Traceback (most recent call last)\n")
    process._process = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; sys.exit(3)"], stdin=subprocess.PIPE
    )
    process._process.wait(20)
    process.drain()
    ended, broken, words = process.troubles()
    assert ended == "a ended with 3, wanted was 0"
    assert "broken" in broken
    assert "Traceback" in words
    assert process.pid is None
