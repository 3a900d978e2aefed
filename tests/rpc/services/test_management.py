"""The calls about models that both services answer alike."""

import pytest

from lipwire.domain import EVERYTHING, Access, InvalidInput, NotFound, Unavailable
from lipwire.rpc.generated import management_pb2 as pb
from lipwire.rpc.services.management import list_models, load_model, page_of, unload_model

NAMES = [f"user_{i:05d}" for i in range(2500)]


@pytest.mark.parametrize(("size", "pages"), [(1, 2500), (999, 3), (1250, 2), (0, 3), (10_000, 1)])
def test_pages_are_the_whole_list_in_order(size: int, pages: int) -> None:
    found: list[str] = []
    token, count = "", 0
    while count == 0 or token:
        page, token = page_of(NAMES, size, token)
        found += page
        count += 1
    assert found == NAMES
    assert count == pages


def test_names_that_go_in_between_move_no_others() -> None:
    _, token = page_of(NAMES, 10, "")
    page, _ = page_of([name for name in NAMES if name != token], 2, token)
    assert page == NAMES[10:12]


def test_nothing_is_one_empty_page() -> None:
    assert page_of([], 5, "") == ([], "")


@pytest.mark.parametrize("size", [-1, 10_001])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match=f"page_size is {size}; allowed are 1 to 10000"):
        page_of(NAMES, size, "")


def test_a_list_says_which_of_its_models_are_loaded() -> None:
    answer = list_models(
        pb.ListModelsRequest(page_size=2), ["anna", "bert", "carl"], {"bert"}, EVERYTHING
    )
    rows = [(row.model_id, row.loaded, row.loaded_in) for row in answer.models]
    assert rows == [("anna", False, 0), ("bert", True, 1)]
    assert (answer.next_page_token, answer.total, answer.workers) == ("bert", 3, 1)


def test_a_list_has_only_what_its_caller_sees() -> None:
    access = Access("key", avatars=("anna", "c*"))
    names = ["anna", "bert", "carl", "cora"]
    answer = list_models(pb.ListModelsRequest(page_size=2), names, {"bert", "cora"}, access)
    assert [row.model_id for row in answer.models] == ["anna", "carl"]
    assert (answer.next_page_token, answer.total) == ("carl", 3)


def test_what_its_caller_does_not_see_is_not_there() -> None:
    access = Access("key", avatars=("anna",))
    loaded = load_model(pb.LoadModelRequest(model_id="bert"), pytest.fail, lambda: 0.0, access)
    assert (loaded.error, loaded.error_code) == ("no avatar named bert", "NOT_FOUND")
    unloaded = unload_model(pb.UnloadModelRequest(model_id="bert"), pytest.fail, access)
    assert (unloaded.error, unloaded.error_code) == ("no avatar named bert", "NOT_FOUND")


def test_a_model_is_loaded_under_its_canonical_name_and_timed() -> None:
    clock = iter([10.0, 10.25])
    names: list[str] = []

    def load(model_id: str) -> pb.ModelStats:
        names.append(model_id)
        return pb.ModelStats(uses=3)

    answer = load_model(
        pb.LoadModelRequest(model_id="Zoe\u0308"), load, lambda: next(clock), EVERYTHING
    )
    assert names == ["Zo\u00eb"]
    assert (answer.success, answer.load_time_ms, answer.model.uses) == (True, 250.0, 3)


def test_without_statistics_a_loaded_model_has_none_in_the_answer() -> None:
    answer = load_model(
        pb.LoadModelRequest(model_id="anna"), lambda _: None, lambda: 0.0, EVERYTHING
    )
    assert answer.SerializeToString() == pb.LoadModelResponse(success=True).SerializeToString()


@pytest.mark.parametrize("unloaded", [True, False])
def test_an_answer_says_whether_the_model_was_loaded(unloaded: bool) -> None:
    answer = unload_model(pb.UnloadModelRequest(model_id="anna"), lambda _: unloaded, EVERYTHING)
    assert (answer.success, answer.unloaded) == (True, unloaded)


def test_what_is_wrong_with_a_request_is_an_answer() -> None:
    def missing(model_id: str) -> bool:
        raise NotFound(f"there is no avatar {model_id}")

    answer = unload_model(pb.UnloadModelRequest(model_id="zoe"), missing, EVERYTHING)
    assert not answer.success
    assert (answer.error, answer.error_code) == ("there is no avatar zoe", "NOT_FOUND")
    unnamed = load_model(pb.LoadModelRequest(), lambda _: None, lambda: 0.0, EVERYTHING)
    assert (unnamed.error, unnamed.error_code) == (
        "model_id is empty; name an avatar",
        "INVALID_ARGUMENT",
    )


def test_what_is_wrong_with_the_server_is_raised() -> None:
    def down(model_id: str) -> bool:
        raise Unavailable("no inference server answers")

    with pytest.raises(Unavailable):
        unload_model(pb.UnloadModelRequest(model_id="anna"), down, EVERYTHING)
