"""Errors as callers see them."""

import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from lipwire.domain import (
    AvatarChanged,
    AvatarInvalid,
    CompiledFormGone,
    CropsNeeded,
    DeadlineExceeded,
    DependencyMissing,
    InvalidInput,
    LimitExceeded,
    LipwireError,
    MinutesUsedUp,
    NotFound,
    Overloaded,
    PermissionDenied,
    StorageFailed,
    Unauthenticated,
    Unavailable,
)
from lipwire.domain import errors as tree
from lipwire.domain.tracing import Trace, traced
from lipwire.rpc.errors import internal_status, is_answer, public_message, status_of

EVERY_KIND = sorted(
    (
        kind
        for kind in vars(tree).values()
        if isinstance(kind, type) and issubclass(kind, LipwireError)
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("batch_size is 0; allowed are 1 to 50", "batch_size is 0; allowed are 1 to 50"),
        ("/srv/models/anna/crop_rects.json has 7 entries", "crop_rects.json has 7 entries"),
        ("cannot read '/srv/models/anna': it is no folder", "cannot read 'anna': it is no folder"),
        ("the folder (/home/joe/x) is full", "the folder (x) is full"),
        (r"C:\models\anna\model.onnx is no ONNX file", "model.onnx is no ONNX file"),
        ("d:/Projects/models/anna/model.onnx is cut", "model.onnx is cut"),
        ("frames/frame_0001.png is 3 x 3", "frames/frame_0001.png is 3 x 3"),
        ("12/24 frames, 1/2 s", "12/24 frames, 1/2 s"),
        ("two\nlines\tof it", "two lines of it"),
        ("x" * 600, "x" * 499 + "…"),
        ("half a letter: \ud800", "half a letter: ?"),
    ],
)
def test_messages_are_one_line_without_folders(text: str, shown: str) -> None:
    assert public_message(InvalidInput(text)) == shown


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_error_is_a_status_of_its_code_with_details(kind: type[LipwireError]) -> None:
    status = status_of(kind("the value seen"))
    assert status.code.name == kind.code
    assert status.details == "the value seen"
    ((key, packed),) = status.trailing_metadata
    assert key == "grpc-status-details-bin"
    message = status_pb2.Status.FromString(packed)
    assert (message.code, message.message) == (status.code.value[0], "the value seen")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert message.details[0].Unpack(info)
    assert info.domain == "lipwire"
    assert info.reason.replace("_", "").lower() == kind.__name__.lower()
    # What the standard retry policies look for is there exactly where a retry can help.
    assert [detail.Unpack(retry) for detail in message.details[1:]] == [True] * kind.retryable


@pytest.mark.parametrize("after_s", [0.0, 0.25, 12.0005])
def test_when_to_come_back_is_passed_on(after_s: float) -> None:
    packed = status_of(Overloaded("full", retry_after_s=after_s)).trailing_metadata[0][1]
    retry = error_details_pb2.RetryInfo()
    assert status_pb2.Status.FromString(packed).details[1].Unpack(retry)
    delay_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    assert delay_s == pytest.approx(max(0.001, after_s), abs=0.001)


def test_answers_are_for_what_is_wrong_with_the_request_and_cannot_get_better() -> None:
    broken = {AvatarInvalid, CompiledFormGone}
    answers = {InvalidInput, NotFound, *broken, CropsNeeded, DependencyMissing}
    statuses = {
        AvatarChanged,
        StorageFailed,
        Overloaded,
        LimitExceeded,
        MinutesUsedUp,
        DeadlineExceeded,
        Unavailable,
        Unauthenticated,
        PermissionDenied,
        LipwireError,
    }
    assert {kind for kind in EVERY_KIND if is_answer(kind("x"))} == answers
    assert {kind for kind in EVERY_KIND if not is_answer(kind("x"))} == statuses


def test_a_status_has_the_id_of_its_request() -> None:
    with traced(Trace("mine-1", "0" * 32)):
        statuses = [status_of(Overloaded("full")), internal_status("ab12")]
    for status in statuses:
        info = error_details_pb2.RequestInfo()
        message = status_pb2.Status.FromString(status.trailing_metadata[0][1])
        assert message.details[-1].Unpack(info)
        assert info.request_id == "mine-1"
