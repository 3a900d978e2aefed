"""What is asked of a server's parts for its numbers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.numbers import Read
from tests.support.renderparts import Maker, ended, opened_renders, order
from tests.support.waiting import Clock, until

from lipwire.avatars.catalog import Catalog
from lipwire.avatars.store.packagecache import Downloads, PackageCache
from lipwire.avatars.store.storedavatars import StoredAvatars
from lipwire.domain.versions import Chosen
from lipwire.engine import HotStats
from lipwire.observe.metrics import ServerMetrics
from lipwire.registry import Registry
from lipwire.registry.items import RegistryTotals
from lipwire.renders.cache import RenderCache
from lipwire.renders.job import ENDED
from lipwire.scheduling.dispatcher import Dispatcher
from lipwire.security import AccessControl, AuditLog
from lipwire.serving import Backend, BackendHealth, Devices, FrameCost
from lipwire.serving.backend import GpuStatus
from lipwire.serving.networkfacts import Running
from lipwire.session.live import LiveSessions, SessionsStats
from lipwire.stores import RedisConnection, RedisStats
from lipwire.stores.objects import ObjectStore
from lipwire.wiring.measuring import (
    MeasuredSessions,
    measure_audit,
    measure_backend,
    measure_networks,
    measure_redis,
    measure_registry,
    measure_render_cache,
    measure_renders,
    measure_schedulers,
    measure_sessions,
    measure_store,
    recent_health,
)


class Asked:
    """A backend that counts how often it is asked for its health."""

    def __init__(self) -> None:
        self.times = 0

    def health(self, *, call: object = None) -> BackendHealth:
        self.times += 1
        return BackendHealth(True, 0, self.times, 10, "1")


def test_a_backend_is_asked_once_a_second_however_much_wants_to_know() -> None:
    asked, clock = Asked(), Clock()
    health = recent_health(cast("Backend", asked), clock)
    assert [health().loaded_models for _ in range(3)] == [1, 1, 1]
    clock.now += 0.5
    assert health().loaded_models == 1
    clock.now += 0.5
    assert [health().loaded_models for _ in range(2)] == [2, 2]


def test_what_happens_in_sessions_is_told() -> None:
    metrics = ServerMetrics()
    assert Read(metrics.read()).has("lipwire_frame_deadline_missed_total", reason="late")
    cost = FrameCost()
    sessions = MeasuredSessions(metrics, cost)
    sessions.left_out("late", 2)
    for _ in range(30):
        sessions.composed(0.003)
    assert cost.frame_s == pytest.approx(0.003)
    found = Read(metrics.read())
    assert found("lipwire_frame_deadline_missed_total", reason="late") == 2
    assert found("lipwire_frame_deadline_missed_total") == 2


def test_what_sessions_leave_out_is_told_by_version_where_an_avatar_has_a_canary() -> None:
    metrics = ServerMetrics()
    sessions = MeasuredSessions(metrics, FrameCost())
    for count, chosen in (
        (1, Chosen("anna", "3")),
        (2, Chosen("anna", "3", "published")),
        (4, Chosen("anna", "4", "canary")),
        (8, Chosen("anna", "4", "canary")),
    ):
        sessions.of(chosen).left_out("late", count)
    found = Read(metrics.read())
    name = "lipwire_version_frames_missed_total"
    assert found(name, version="published") == 2
    assert found(name, version="canary") == 12
    assert found("lipwire_frame_deadline_missed_total", reason="late") == 15


def test_renders_are_told(tmp_path: Path) -> None:
    metrics, others, maker = ServerMetrics(), ServerMetrics(), Maker(tmp_path)
    with opened_renders(tmp_path / "renders", maker) as renders:
        measure_renders(metrics, renders, shared=True)
        measure_renders(others, renders, shared=False)
        assert Read(metrics.read())("lipwire_renders_total", state="done") == 0
        done = ended(renders, renders.submit(order(), None, 0))
        maker.held.set()
        for _ in range(3):
            last = renders.submit(order(), None, 0)
        until(lambda: renders.counts().running == 1)
        for _ in range(2):
            renders.cancel(last.id)
        found = Read(metrics.read())
        ends = {state: found("lipwire_renders_total", state=state) for state in ENDED}
        assert ends == {"done": 1, "failed": 0, "cancelled": 1}
        assert found("lipwire_renders_pending", state="queued") == 1
        assert found("lipwire_renders_pending", state="running") == 1
        assert found("lipwire_renders_disk_bytes") == renders.file(done).stat().st_size
        assert not Read(others.read()).has("lipwire_renders_pending", state="queued")


def test_what_came_of_the_cache_of_renders_is_told() -> None:
    metrics = ServerMetrics()
    results = {"hit": 3, "miss": 2, "away": 1}
    measure_render_cache(metrics, cast("RenderCache", SimpleNamespace(results=lambda: results)))
    found = Read(metrics.read())
    assert {each: found("lipwire_renders_cache_total", result=each) for each in results} == results


def test_a_redis_that_is_away_is_told() -> None:
    metrics = ServerMetrics()
    stats = RedisStats(up=False, outages=2, commands=10, seconds=0.5, missed=3)
    measure_redis(metrics, cast("RedisConnection", SimpleNamespace(stats=lambda: stats)))
    found = Read(metrics.read())
    assert found("lipwire_redis_away") == 1
    assert found("lipwire_redis_outages_total") == 2
    assert found("lipwire_redis_commands_total") == 10
    assert found("lipwire_redis_seconds_total") == 0.5
    assert found("lipwire_redis_missed_total") == 3
    stats = replace(stats, up=True)
    assert Read(metrics.read())("lipwire_redis_away") == 0


def test_a_store_and_its_cache_are_told(tmp_path: Path) -> None:
    metrics = ServerMetrics()
    cache = PackageCache(tmp_path / "cache", 1000)
    store = ObjectStore(f"file://{tmp_path}/store")
    with StoredAvatars(store, cache, Catalog(None, {})) as stored:
        measure_store(metrics, stored)
        cache.index.pin("packages/anna/1", "anna", "1", 400)
        found = Read(metrics.read())
        assert found("lipwire_store_away") == 0
        assert found("lipwire_store_cache_bytes") == 400
        assert found("lipwire_store_cache_max_bytes") == 1000
        cache._done = Downloads(packages=1, bytes=2, failures=3, mended=4)
        found = Read(metrics.read())
        names = ("downloads", "downloaded_bytes", "failures", "damaged")
        assert [found(f"lipwire_store_{name}_total") for name in names] == [1, 2, 3, 4]


def test_each_number_of_a_registry_has_its_name() -> None:
    metrics = ServerMetrics()
    totals = RegistryTotals(
        items=1,
        bytes=2,
        max_items=3,
        hits=4,
        misses=5,
        loads=6,
        evictions=7,
        expirations=8,
        swaps=9,
        failures=10,
        refusals=11,
    )
    registry = SimpleNamespace(totals=lambda: totals)
    measure_registry(metrics, "avatars", cast("Registry[Any]", registry))
    found = Read(metrics.read())
    told = {
        "resident": 1,
        "resident_bytes": 2,
        "resident_limit": 3,
        "cache_hits_total": 4,
        "cache_misses_total": 5,
        "loads_total": 6,
        "cache_evictions_total": 7,
        "cache_expirations_total": 8,
        "load_failures_total": 10,
        "load_refusals_total": 11,
    }
    assert {name: found(f"lipwire_{name}", cache="avatars") for name in told} == told


def test_each_number_of_live_sessions_has_its_name() -> None:
    metrics = ServerMetrics()
    stats = SessionsStats(1, 2, None, 3, 4, {"closed": 5, "max_idle": 6})
    sessions = SimpleNamespace(stats=lambda: stats)
    measure_sessions(metrics, cast("LiveSessions", sessions), lambda: 7)
    found = Read(metrics.read())
    told = {"active": 1, "waiting": 2, "total": 3, "refused_total": 4, "capacity": 7}
    assert {name: found(f"lipwire_sessions_{name}") for name in told} == told
    assert found("lipwire_sessions_ended_total", reason="max_idle") == 6


def test_what_a_queue_refuses_and_who_is_busy_is_told() -> None:
    metrics = ServerMetrics()
    dispatcher: Dispatcher[str] = Dispatcher(workers=2, queue_size=3, max_run_frames=8)
    counts = dispatcher.counts.of
    counts["live"].refused_full, counts["batch"].refused_deadline = 4, 5
    dispatcher._ends_s[0] = 1.0
    measure_schedulers(metrics, {"cpu": dispatcher.stats})
    found = Read(metrics.read())
    assert found("lipwire_workers_busy", device="cpu") == 1
    assert found("lipwire_workers", device="cpu") == 2
    assert found("lipwire_queue_limit", device="cpu") == 3
    refusals = "lipwire_queue_refusals_total"
    assert found(refusals, service="live", reason="full") == 4
    assert found(refusals, service="batch", reason="deadline") == 5
    assert found(refusals) == 9


def test_records_that_could_not_be_written_are_told(tmp_path: Path) -> None:
    metrics = ServerMetrics()
    with AccessControl(audit=AuditLog(tmp_path / "audit")) as control:
        measure_audit(metrics, control)
        assert Read(metrics.read())("lipwire_audit_lost_total") == 0
        assert control.audit is not None
        control.audit.lost = 3
        assert Read(metrics.read())("lipwire_audit_lost_total") == 3


def test_networks_are_told_by_what_runs_them() -> None:
    metrics = ServerMetrics()
    running = {Running("cpu", "float32"): 7, Running("openvino", "bfloat16"): 2}
    hot = HotStats(networks=2, memory_bytes=5000, specialised=3, evicted=1)
    devices = SimpleNamespace(loaded=lambda: {"cpu": running}, hot=lambda: hot)
    measure_networks(metrics, cast("Devices", devices))
    found = Read(metrics.read())
    assert found("lipwire_networks", runner="cpu", precision="float32") == 7
    assert found("lipwire_networks", runner="openvino", precision="bfloat16") == 2
    assert found("lipwire_specialised_bytes") == 5000
    assert found("lipwire_specialisations_total", what="loaded") == 3
    assert found("lipwire_specialisations_total", what="evicted") == 1


def test_gpus_are_told_those_that_were_lost_too() -> None:
    metrics = ServerMetrics()
    gpus = (GpuStatus(0, "a", 2, 100, 60, 0.75), GpuStatus(1, "b", 0, 100, 0, 0.0, lost="gone"))
    measure_backend(metrics, lambda: BackendHealth(True, 1, 2, 10, "1", gpus=gpus))
    found = Read(metrics.read())
    assert found("lipwire_gpu_utilization_ratio", gpu="0") == 0.75
    assert found("lipwire_gpu_memory_used_bytes", gpu="0") == 60
    assert found("lipwire_gpu_memory_bytes", gpu="0") == 100
    assert (found("lipwire_gpu_lost", gpu="0"), found("lipwire_gpu_lost", gpu="1")) == (0, 1)
    assert found("lipwire_healthy") == 1
