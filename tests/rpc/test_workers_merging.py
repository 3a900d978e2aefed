"""Answers of several processes made into one: messages in, messages out."""

from typing import Any

import pytest

from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    LipwireError,
    NotFound,
    Overloaded,
    Unavailable,
)
from lipwire.rpc.generated import compositing_pb2 as frames
from lipwire.rpc.generated import inference_pb2 as networks
from lipwire.rpc.generated import management_pb2 as pb
from lipwire.rpc.workers.merging import one_effect, one_health, one_list, one_sum


def loaded(ms: float = 1.0) -> pb.LoadModelResponse:
    return pb.LoadModelResponse(success=True, load_time_ms=ms)


def refused(text: str = "there is no avatar zoe") -> pb.LoadModelResponse:
    return pb.LoadModelResponse(error=text, error_code="NOT_FOUND")


def test_what_all_have_done_is_done_and_took_as_long_as_the_slowest() -> None:
    answer = one_effect(0, loaded(5.0), {1: loaded(9.0), 2: loaded(7.0)})
    assert (answer.success, answer.load_time_ms, answer.detail) == (True, 9.0, "")


def test_who_is_not_there_is_named_and_does_not_fail_the_others() -> None:
    others = {0: loaded(), 1: Unavailable("refused"), 3: Unavailable("gone")}
    answer = one_effect(2, loaded(), others)
    assert answer.success
    assert answer.detail == "worker 1 is not there; worker 3 is not there"


def test_what_one_process_could_not_do_is_an_error_that_says_how_far_it_came() -> None:
    answer = one_effect(0, loaded(), {1: refused(), 2: Unavailable("gone")})
    assert (answer.success, answer.error_code) == (False, "NOT_FOUND")
    wanted = "worker 1: there is no avatar zoe; it is done in 1 of 2 processes"
    assert answer.error == wanted
    answer = one_effect(0, refused(), {1: loaded()})
    assert answer.error == wanted.replace("worker 1", "worker 0")


def test_what_no_process_can_do_is_told_as_by_one() -> None:
    answer = one_effect(0, refused(), {1: refused(), 2: Unavailable("gone")})
    assert (answer.success, answer.error) == (False, "there is no avatar zoe")


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("no answer within 9 s"),
        Overloaded("8 loads are in hand", retry_after_s=0.75),
        LipwireError("INTERNAL: internal error; the server's log has it under 1a2b"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_errors_that_are_statuses_stay_of_their_kind(error: LipwireError, own: bool) -> None:
    good = loaded()
    with pytest.raises(type(error)) as caught:
        one_effect(0, error if own else good, {1: good if own else error})
    number = 0 if own else 1
    assert str(caught.value) == f"worker {number}: {error}; it is done in 1 of 2 processes"
    assert getattr(caught.value, "retry_after_s", None) == getattr(error, "retry_after_s", None)


def test_an_own_error_is_told_where_nobody_else_is_there() -> None:
    with pytest.raises(Unavailable, match=r"^no inference server answers$"):
        one_effect(0, Unavailable("no inference server answers"), {1: Unavailable("gone")})


def test_errors_without_any_answer_are_raised() -> None:
    with pytest.raises(AvatarInvalid, match=r"^no network$"):
        one_effect(0, AvatarInvalid("no network"), {1: AvatarInvalid("no network")})


def test_it_was_unloaded_where_any_process_had_it() -> None:
    def said(unloaded: bool) -> pb.UnloadModelResponse:
        return pb.UnloadModelResponse(success=True, unloaded=unloaded)

    assert one_effect(0, said(False), {1: said(True)}).unloaded
    assert one_effect(0, said(True), {1: said(False)}).unloaded
    assert not one_effect(0, said(False), {1: said(False)}).unloaded


def test_the_row_of_a_loaded_network_is_of_all_processes() -> None:
    def said(uses: int) -> pb.LoadModelResponse:
        row = pb.ModelStats(model_id="a", memory_bytes=100, uses=uses, loaded_in=1)
        return pb.LoadModelResponse(success=True, model=row)

    row = one_effect(0, said(1), {1: said(4)}).model
    assert (row.memory_bytes, row.uses, row.loaded_in) == (200, 5, 2)


def test_where_nobody_tells_of_a_loaded_network_the_answer_has_no_row() -> None:
    assert not one_effect(0, loaded(), {1: loaded()}).HasField("model")


def test_a_list_says_how_many_processes_hold_an_avatar() -> None:
    def said(*held: str, detail: str = "") -> pb.ListModelsResponse:
        rows = [
            pb.ModelInfo(model_id=name, loaded=name in held, loaded_in=int(name in held))
            for name in "abc"
        ]
        return pb.ListModelsResponse(
            models=rows, next_page_token="c", total=9, workers=1, detail=detail
        )

    late = DeadlineExceeded("no answer within 2 s")
    answer = one_list(said("a"), {1: said("a", "b"), 2: late, 3: Unavailable("gone")})
    rows = [(row.model_id, row.loaded, row.loaded_in) for row in answer.models]
    assert rows == [("a", True, 2), ("b", True, 1), ("c", False, 0)]
    assert (answer.next_page_token, answer.total, answer.workers) == ("c", 9, 2)
    assert answer.detail == "worker 3 is not there; worker 2: no answer within 2 s"


def test_a_page_that_differs_in_another_process_adds_no_rows() -> None:
    row = pb.ModelInfo(model_id="b", loaded=True, loaded_in=1)
    other = pb.ListModelsResponse(models=[row], workers=1)
    own = pb.ListModelsResponse(models=[pb.ModelInfo(model_id="a")], workers=1)
    assert [row.model_id for row in one_list(own, {1: other}).models] == ["a"]


@pytest.mark.parametrize(("other", "told"), [("n1", "n1"), ("n2", ""), ("", "")])
def test_a_network_that_processes_have_in_two_revisions_is_of_none(other: str, told: str) -> None:
    def said(revision: str) -> frames.GetModelStatsResponse:
        row = pb.ModelStats(model_id="a", revision=revision)
        return frames.GetModelStatsResponse(models=[row])

    assert one_sum(said("n1"), {1: said(other)}).models[0].revision == told
    one, two = (
        pb.LoadModelResponse(success=True, model=pb.ModelStats(model_id="a", revision=revision))
        for revision in ("n1", other)
    )
    assert one_effect(0, one, {1: two}).model.revision == told


def test_statistics_are_sums() -> None:
    def said(name: str, n: int, **more: Any) -> frames.GetModelStatsResponse:
        row = pb.ModelStats(
            model_id=name, memory_bytes=10 * n, uses=n, idle_s=n, in_use=n, loaded_in=1
        )
        return frames.GetModelStatsResponse(
            models=[row],
            loaded_models=n,
            max_models=100,
            memory_bytes=1000 * n,
            hits=2 * n,
            misses=3 * n,
            evictions=4 * n,
            failures=5 * n,
            workers=1,
            **more,
        )

    answer = one_sum(
        said("a", 1, loaded_networks=7, network_memory_bytes=70),
        {
            1: said("a", 2, loaded_networks=1, network_memory_bytes=5),
            2: said("b", 4),
            3: LipwireError("INTERNAL: x"),
        },
    )
    a, b = answer.models
    assert (a.model_id, a.memory_bytes, a.uses, a.in_use) == ("a", 30, 3, 3)
    assert (a.idle_s, a.loaded_in) == (1, 2)
    assert (b.model_id, b.uses, b.loaded_in) == ("b", 4, 1)
    assert (answer.loaded_models, answer.max_models, answer.memory_bytes) == (7, 300, 7000)
    assert (answer.hits, answer.misses, answer.evictions, answer.failures) == (14, 21, 28, 35)
    assert (answer.loaded_networks, answer.network_memory_bytes) == (8, 75)
    assert (answer.workers, answer.detail) == (3, "worker 3: INTERNAL: x")


def test_networks_that_nobody_told_of_stay_untold() -> None:
    answer = one_sum(
        frames.GetModelStatsResponse(workers=1), {1: frames.GetModelStatsResponse(workers=1)}
    )
    assert not answer.HasField("loaded_networks")


def test_networks_on_two_devices_are_two_rows() -> None:
    def said(gpu_id: int) -> networks.GetModelStatsResponse:
        row = pb.ModelStats(model_id="a", gpu_id=gpu_id, uses=1, loaded_in=1)
        return networks.GetModelStatsResponse(models=[row], loaded_models=1, workers=1)

    answer = one_sum(said(0), {1: said(1), 2: said(1)})
    rows = [(row.gpu_id, row.uses, row.loaded_in) for row in answer.models]
    assert rows == [(0, 1, 1), (1, 2, 2)]


def health(healthy: bool = True, detail: str = "", *gpus: Any) -> networks.HealthResponse:
    return networks.HealthResponse(
        healthy=healthy,
        gpu_count=len(gpus),
        loaded_models=2,
        max_models=10,
        version="1",
        detail=detail,
        gpus=gpus,
        workers=1,
    )


def test_a_server_is_well_where_all_its_processes_are() -> None:
    answer = one_health(0, health(), {1: health(), 2: Unavailable("gone")})
    assert (answer.healthy, answer.loaded_models, answer.max_models) == (True, 4, 20)
    assert (answer.workers, answer.detail) == (2, "worker 2 is not there")
    answer = one_health(0, health(), {1: health(False, "the disk is gone")})
    assert (answer.healthy, answer.detail) == (False, "worker 1: the disk is gone")
    answer = one_health(0, health(False, "no GPU"), {1: health(False, "no GPU")})
    assert (answer.healthy, answer.detail) == (False, "no GPU")


def test_live_sessions_are_those_of_all_processes() -> None:
    def said(sessions: int, capacity: int) -> frames.HealthResponse:
        return frames.HealthResponse(live_sessions=sessions, live_capacity=capacity, workers=1)

    answer = one_health(0, said(2, 3), {1: said(1, 4), 2: Unavailable("gone")})
    assert (answer.live_sessions, answer.live_capacity) == (3, 7)


def test_frames_are_served_where_every_process_reaches_an_inference_server() -> None:
    def said(well: bool) -> frames.HealthResponse:
        return frames.HealthResponse(healthy=well, inference_server_healthy=well, workers=1)

    answer = one_health(0, said(True), {1: said(False)})
    assert (answer.healthy, answer.inference_server_healthy) == (False, False)


def test_processes_share_their_gpus() -> None:
    def gpu(index: int, used: int, lost: str = "") -> networks.GpuStatus:
        return networks.GpuStatus(
            index=index,
            name="NVIDIA H200",
            loaded_models=3,
            memory_bytes=100,
            used_bytes=used,
            utilisation=used / 100,
            lost=lost,
        )

    answer = one_health(
        0,
        health(True, "GPU 0 is out: Xid 31", gpu(0, 10, "Xid 31"), gpu(1, 10, "fell off")),
        {1: health(True, "", gpu(0, 20), gpu(1, 5, "fell off"), gpu(2, 5))},
    )
    assert answer.gpu_count == 2
    first, second, third = answer.gpus
    assert (first.index, first.loaded_models, first.memory_bytes) == (0, 6, 100)
    assert (first.used_bytes, first.utilisation) == (20, pytest.approx(0.2))
    assert (first.lost, second.lost, third.index) == ("", "fell off", 2)
    assert answer.detail == "worker 0: GPU 0 is out: Xid 31"


def test_what_was_said_is_left_as_it_is() -> None:
    own, other = loaded(1.0), loaded(2.0)
    one_effect(0, own, {1: other})
    assert (own.load_time_ms, other.load_time_ms) == (1.0, 2.0)


def test_not_found_is_an_answer_and_not_a_status() -> None:
    answer = one_effect(0, loaded(), {1: NotFound("there is no avatar zoe")})
    assert (answer.success, answer.error_code) == (False, "NOT_FOUND")
