"""Jobs taken in, made, kept and removed."""

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.support.renderparts import Maker, Opened, ended, opened_renders, order, running
from tests.support.waiting import Clock, until

from lipwire.domain import (
    InvalidInput,
    NotFound,
    Overloaded,
    StorageFailed,
    Unavailable,
)
from lipwire.renders import KeyTaken, RenderRules
from lipwire.renders.database import Database
from lipwire.renders.files import RenderFiles
from lipwire.renders.joblist import MOST_STARTS, JobList
from lipwire.renders.renders import MOST_TRIES

SOUND = np.zeros((1600, 1), np.int16)


def test_a_job_is_made_and_its_video_kept_under_its_hash(opened: Opened, maker: Maker) -> None:
    renders = opened()
    job = ended(renders, renders.submit(order("Hello"), None, 0))
    assert (job.state, job.progress, job.frames) == ("done", 1.0, 4)
    assert job.video is not None
    path = renders.file(job)
    assert path.read_bytes() == b"Hello" * 1000
    assert path.stem == job.video.sha256
    assert maker.calls[0].service == "render"


def test_the_recording_is_kept_until_the_job_has_ended(
    opened: Opened, maker: Maker, folder: Path
) -> None:
    renders = opened()
    maker.held.set()
    job = renders.submit(order(None), SOUND, 16_000)
    running(renders, job)
    assert [path.stem for path in (folder / "inputs").iterdir()] == [job.id]
    maker.held.clear()
    assert ended(renders, job).state == "done"
    until(lambda: not list((folder / "inputs").iterdir()))


def test_one_key_is_one_job(opened: Opened, maker: Maker, folder: Path) -> None:
    renders = opened()
    maker.held.set()
    first = renders.submit(order("Hello", key="k"), None, 0)
    assert renders.submit(order("Hello", key="k"), None, 0).id == first.id
    with pytest.raises(KeyTaken, match="Idempotency-Key"):
        renders.submit(order("Good bye", key="k"), None, 0)
    with pytest.raises(KeyTaken):
        renders.submit(order("Hello", key="k", avatar="bert"), None, 0)
    assert renders.submit(order("Hello", "other tenant", key="k"), None, 0).id != first.id
    sound = renders.submit(order(None, key="s"), SOUND, 16_000)
    assert renders.submit(order(None, key="s"), SOUND, 16_000).id == sound.id
    with pytest.raises(KeyTaken):
        renders.submit(order(None, key="s"), SOUND + 1, 16_000)
    assert len(list((folder / "inputs").iterdir())) == 1


def test_orders_of_one_key_at_one_time_are_one_job(opened: Opened, maker: Maker) -> None:
    renders = opened()
    maker.held.set()
    ids: set[str] = set()
    begin = threading.Barrier(8)

    def submit() -> None:
        begin.wait()
        ids.add(renders.submit(order(None, key="k"), SOUND, 16_000).id)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 1
    assert len(renders.every()) == 1


def test_a_full_queue_says_when_to_come_back(opened: Opened, maker: Maker) -> None:
    renders = opened(RenderRules(max_queued=2))
    maker.held.set()
    running(renders, renders.submit(order(), None, 0))
    waiting = [renders.submit(order(), None, 0) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 renders wait; allowed are 2") as refused:
        renders.submit(order(), None, 0)
    assert refused.value.retry_after_s is not None
    renders.cancel(waiting[0].id)
    renders.submit(order(), None, 0)


def test_a_tenant_has_its_own_limit(opened: Opened, maker: Maker) -> None:
    renders = opened(RenderRules(max_queued_of_tenant=1))
    maker.held.set()
    running(renders, renders.submit(order(tenant="a"), None, 0))
    renders.submit(order(tenant="a"), None, 0)
    with pytest.raises(Overloaded, match="1 renders of this tenant wait; allowed are 1"):
        renders.submit(order(tenant="a"), None, 0)
    renders.submit(order(tenant="b"), None, 0)


def test_tenants_take_turns(opened: Opened, maker: Maker) -> None:
    renders = opened()
    maker.held.set()
    first = renders.submit(order("a1", "a"), None, 0)
    running(renders, first)
    jobs = [first]
    for text, tenant in (("a2", "a"), ("a3", "a"), ("b1", "b"), ("a4", "a"), ("b2", "b")):
        jobs.append(renders.submit(order(text, tenant), None, 0))
    maker.held.clear()
    for job in jobs:
        ended(renders, job)
    assert maker.made == ["a1", "b1", "a2", "b2", "a3", "a4"]


def test_what_is_cancelled_stops(opened: Opened, maker: Maker, folder: Path) -> None:
    renders = opened()
    maker.held.set()
    job = renders.submit(order(None), SOUND, 16_000)
    running(renders, job)
    assert renders.cancel(job.id).state == "cancelled"
    until(lambda: maker.calls[0].ended)
    assert not list((folder / "inputs").iterdir())
    other = renders.submit(order("next"), None, 0)
    maker.held.clear()
    assert ended(renders, other).state == "done"
    assert renders.find(job.id).state == "cancelled"
    assert renders.cancel(other.id).state == "done", "it has ended"


def test_what_another_process_cancels_stops_too(
    opened: Opened, maker: Maker, folder: Path, tmp_path: Path
) -> None:
    maker.held.set()
    with opened_renders(folder, maker, RenderRules(workers=1)) as renders:
        job = renders.submit(order(), None, 0)
        running(renders, job)
        with opened_renders(folder, Maker(tmp_path), RenderRules(workers=1)) as other:
            assert other.find(job.id).state == "running", "it is not taken from who makes it"
            other.remove(job.id)
            until(lambda: maker.calls[0].ended)


def test_a_job_is_its_tenants_alone(opened: Opened) -> None:
    renders = opened()
    job = ended(renders, renders.submit(order(tenant="a"), None, 0))
    assert renders.find(job.id, "a") == job == renders.find(job.id)
    for use in (renders.find, renders.cancel, renders.remove):
        with pytest.raises(NotFound, match="there is no such render"):
            use(job.id, "b")
    assert renders.every("b") == []
    assert renders.every("a") == [job]


def test_the_list_goes_on_behind_a_job(opened: Opened, maker: Maker) -> None:
    renders = opened()
    maker.held.set()
    jobs = [renders.submit(order(), None, 0) for _ in range(5)]
    ids = [job.id for job in reversed(jobs)]
    assert [job.id for job in renders.every(most=2)] == ids[:2]
    assert [job.id for job in renders.every(before=ids[1], most=2)] == ids[2:4]
    with pytest.raises(NotFound):
        renders.every(before="none")


def test_equal_videos_are_kept_once_and_go_with_the_last(opened: Opened, folder: Path) -> None:
    renders = opened()
    one, two = (ended(renders, renders.submit(order("same"), None, 0)) for _ in range(2))
    path = renders.file(one)
    assert path == renders.file(two)
    size = path.stat().st_size
    assert renders.counts().bytes == size
    renders.remove(one.id)
    assert path.exists()
    renders.remove(two.id)
    assert not path.exists()
    assert renders.counts().bytes == 0


def test_what_has_been_kept_for_long_enough_goes(opened: Opened, maker: Maker) -> None:
    clock = Clock()
    renders = opened(RenderRules(retention_s=100), now=clock)
    job = ended(renders, renders.submit(order(), None, 0))
    path = renders.file(job)
    clock.now += 100
    renders.sweep()
    assert path.exists()
    clock.now += 1
    renders.sweep()
    assert not path.exists()
    with pytest.raises(NotFound):
        renders.find(job.id)


def test_all_of_a_tenant_or_of_an_avatar_can_be_removed(
    opened: Opened, maker: Maker, folder: Path
) -> None:
    renders = opened()
    for tenant, avatar in (("a", "anna"), ("a", "bert"), ("b", "anna"), ("b", "bert")):
        ended(renders, renders.submit(order(f"{tenant} {avatar}", tenant, avatar=avatar), None, 0))
    maker.held.set()
    running(renders, renders.submit(order("at work", "a", avatar="anna"), None, 0))
    assert renders.held("anna").renders == 3
    assert renders.remove_all(tenant="a") == 3
    until(lambda: maker.calls[-1].ended)
    assert {job.order.tenant for job in renders.every()} == {"b"}
    assert renders.remove_all(avatar="anna") == 1
    assert [job.order.avatar for job in renders.every()] == ["bert"]
    assert len(list((folder / "videos").glob("*/*"))) == 1


def test_the_disk_budget_refuses_and_removes_nothing(opened: Opened, maker: Maker) -> None:
    renders = opened(RenderRules(disk_budget_bytes=7000))
    kept = ended(renders, renders.submit(order("four"), None, 0))  # 4000 bytes
    with pytest.raises(StorageFailed, match="allowed are"):
        renders.submit(order(None), np.zeros((3200, 1), np.int16), 16_000)
    too_large = renders.submit(order("five."), None, 0)  # known when it is made
    until(lambda: renders.find(too_large.id).tries == 1)
    assert renders.find(too_large.id).state == "queued"
    assert renders.file(kept).exists()
    assert renders.counts().bytes == 4000
    same = ended(renders, renders.submit(order("four"), None, 0))
    assert same.state == "done", "its video is there already"


def test_what_may_succeed_later_is_tried_again(opened: Opened, maker: Maker) -> None:
    clock = Clock()
    maker.fails = [StorageFailed("the disk is full")]
    renders = opened(now=clock)
    job = renders.submit(order(), None, 0)
    until(lambda: renders.find(job.id).tries == 1)
    assert renders.find(job.id).state == "queued"
    clock.now += 5
    assert ended(renders, job).state == "done"


@pytest.mark.slow
def test_what_goes_on_failing_fails(opened: Opened, maker: Maker) -> None:
    clock = Clock()
    maker.fails = [Unavailable("no server answers") for _ in range(MOST_TRIES)]
    renders = opened(now=clock)
    job = renders.submit(order(), None, 0)
    for tries in range(1, MOST_TRIES):
        until(lambda tries=tries: renders.find(job.id).tries == tries)  # type: ignore[misc]
        clock.now += 300
    failed = ended(renders, job)
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.detail) == ("UNAVAILABLE", "no server answers")
    assert len(maker.made) == MOST_TRIES


def test_what_can_never_succeed_fails_at_once(opened: Opened, maker: Maker) -> None:
    maker.fails = [InvalidInput("it is no speech"), ZeroDivisionError("a secret place")]
    renders = opened()
    wrong, broken = (ended(renders, renders.submit(order(), None, 0)) for _ in range(2))
    assert wrong.failure is not None
    assert wrong.failure.detail == "it is no speech"
    assert broken.failure is not None
    assert broken.failure.code == "INTERNAL"
    assert "a secret place" not in broken.failure.detail


@pytest.mark.slow
def test_no_path_of_the_server_is_told(opened: Opened, maker: Maker, folder: Path) -> None:
    clock = Clock()
    full = StorageFailed(f"cannot write {folder}/work/x.mp4: No space left on device")
    maker.fails = [InvalidInput(f"{folder}/inputs/x.wav is no audio"), *[full] * MOST_TRIES]
    renders = opened(now=clock)
    jobs = [ended(renders, renders.submit(order(), None, 0))]
    jobs.append(renders.submit(order(), None, 0))
    for tries in range(1, MOST_TRIES):
        until(lambda tries=tries: renders.find(jobs[1].id).tries == tries)  # type: ignore[misc]
        clock.now += 300
    for job in jobs:
        failure = ended(renders, job).failure
        assert failure is not None
        assert str(folder) not in failure.detail
        assert "disk" in failure.detail


def test_a_stopped_server_goes_on_where_it_was(maker: Maker, folder: Path) -> None:
    maker.held.set()
    with opened_renders(folder, maker) as renders:
        begun, waiting = renders.submit(order("1"), None, 0), renders.submit(order("2"), None, 0)
        running(renders, begun)
    maker.held.clear()
    with opened_renders(folder, maker) as renders:
        for job in (begun, waiting):
            assert ended(renders, job).state == "done"
    assert maker.made == ["1", "1", "2"]


def taken_by_a_dead_process(folder: Path) -> None:
    """As after SIGKILL: a job is running, and nobody holds its owner's lock."""
    files = RenderFiles(folder)
    with Database(files.database) as database:
        assert JobList(database, max_queued=1).claim(files.owner) is not None
    files._lock.release()


def test_what_a_killed_process_had_begun_is_made_again(maker: Maker, folder: Path) -> None:
    with opened_renders(folder, maker, RenderRules(workers=0)) as renders:
        job = renders.submit(order(), None, 0)
    taken_by_a_dead_process(folder)
    with opened_renders(folder, maker) as renders:
        assert ended(renders, job).state == "done"
    assert not [path for path in (folder / "work").iterdir() if any(path.iterdir())]


def test_what_ends_the_server_each_time_is_given_up(maker: Maker, folder: Path) -> None:
    with opened_renders(folder, maker, RenderRules(workers=0)) as renders:
        job = renders.submit(order(), None, 0)
    for _ in range(MOST_STARTS):
        taken_by_a_dead_process(folder)
        with opened_renders(folder, maker, RenderRules(workers=0)) as renders:
            found = renders.find(job.id)
    assert found.state == "failed"
    assert found.failure is not None
    assert "3 times" in found.failure.detail
    assert maker.made == []


def test_what_a_killed_process_left_is_removed(maker: Maker, folder: Path) -> None:
    with opened_renders(folder, maker, RenderRules(workers=0)) as renders:
        job = renders.submit(order("kept"), None, 0)
    with opened_renders(folder, maker) as renders:
        kept = renders.file(ended(renders, job))
    orphan = folder / "videos" / "ab" / f"{'ab' * 32}.mp4"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"renamed, and never written down")
    with opened_renders(folder, maker) as renders:
        assert not orphan.exists()
        assert kept.exists()


def test_a_full_disk_at_the_end_loses_nothing(
    opened: Opened, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come of a job is written down when there is room again."""
    maker.fails = [InvalidInput("it is no speech")]
    full = threading.Event()
    full.set()
    tried = threading.Event()
    changing = Database.changing

    def fails(self: Database) -> object:
        if full.is_set() and maker.made:
            tried.set()
            raise StorageFailed("database or disk is full")
        return changing(self)

    monkeypatch.setattr(Database, "changing", fails)
    renders = opened()
    job = renders.submit(order(), None, 0)
    assert tried.wait(60)
    assert renders.find(job.id).state == "running"
    full.clear()
    assert ended(renders, job).state == "failed"


def test_a_database_that_is_full_refuses_clearly(opened: Opened) -> None:
    renders = opened()
    kept = ended(renders, renders.submit(order(), None, 0))
    connection = renders._jobs._database._connection
    connection.execute("PRAGMA max_page_count = 1")

    def fill() -> None:
        for _ in range(1000):
            renders.submit(order("x" * 9000), None, 0)

    with pytest.raises(StorageFailed, match="full"):
        fill()
    connection.execute("PRAGMA max_page_count = 100000")
    assert renders.file(kept).exists()
    renders.submit(order(), None, 0)


def test_a_database_of_another_version_is_left_alone(maker: Maker, folder: Path) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / "renders.sqlite3") as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageFailed, match="version 99"), opened_renders(folder, maker):
        pass


@pytest.mark.parametrize(("samples", "said"), [(0, "0 samples"), (16_001, "it lasts 1.0 s")])
def test_recordings_have_a_length(opened: Opened, samples: int, said: str) -> None:
    renders = opened(RenderRules(max_duration_s=1))
    with pytest.raises(InvalidInput, match=said):
        renders.submit(order(None), np.zeros((samples, 1), np.int16), 16_000)


def test_two_processes_share_the_work(maker: Maker, folder: Path, tmp_path: Path) -> None:
    other_maker = Maker(tmp_path)
    maker.held.set()
    other_maker.held.set()
    with (
        opened_renders(folder, maker) as renders,
        opened_renders(folder, other_maker) as other,
    ):
        jobs = [renders.submit(order(str(number)), None, 0) for number in range(2)]
        for job in jobs:
            running(renders, job)
        maker.held.clear()
        other_maker.held.clear()
        for job in jobs:
            assert ended(other, job).state == "done"
    assert len(maker.made) == len(other_maker.made) == 1
