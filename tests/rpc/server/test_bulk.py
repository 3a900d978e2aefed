"""The oracle is the protobuf library itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.rpc.generated.compositing_pb2 import CompositeBatchResponse
from lipwire.rpc.generated.inference_pb2 import InferBatchRequest, InferBatchResponse
from lipwire.rpc.server.bulk import MalformedError, split_fields, with_fields

OUTPUT = InferBatchResponse.OUTPUT_FIELD_NUMBER


@given(st.text(max_size=20), st.integers(-(2**31), 2**31 - 1), st.binary(max_size=300))
@settings(max_examples=examples(60), deadline=None)
def test_what_is_added_is_what_the_library_reads(name: str, size: int, large: bytes) -> None:
    message = InferBatchRequest(model_id=name, batch_size=size)
    fields = {2: np.frombuffer(large, np.uint8), 3: np.arange(4, dtype="<f4")}
    read = InferBatchRequest.FromString(with_fields(message.SerializeToString(), fields))
    assert (read.model_id, read.batch_size, read.visual_frames) == (name, size, large)
    assert read.audio_features == np.arange(4, dtype="<f4").tobytes()


@given(st.booleans(), st.text(max_size=20), st.floats(width=32), st.binary(max_size=300))
@settings(max_examples=examples(60), deadline=None)
def test_what_is_split_off_is_what_the_library_wrote(
    success: bool, error: str, took: float, large: bytes
) -> None:
    message = InferBatchResponse(
        success=success, error=error, gpu_id=-1, total_time_ms=took, output=large, error_code="X"
    )
    rest, found = split_fields(message.SerializeToString(), {OUTPUT})
    assert bytes(found.get(OUTPUT, b"")) == large
    message.ClearField("output")
    assert InferBatchResponse.FromString(rest).SerializeToString() == message.SerializeToString()


def test_arrays_are_taken_as_their_bytes_whatever_their_strides() -> None:
    array = np.arange(24, dtype="<f4").reshape(2, 3, 4).transpose(2, 0, 1)
    read = InferBatchRequest.FromString(with_fields(b"", {2: array}))
    assert read.visual_frames == array.tobytes()


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    twice = b"".join(InferBatchResponse(output=text).SerializeToString() for text in (b"a", b"bc"))
    rest, found = split_fields(twice, {OUTPUT})
    assert (rest, bytes(found[OUTPUT])) == (b"", b"bc")
    assert InferBatchResponse.FromString(twice).output == b"bc"


def test_a_field_that_is_not_there_is_not_found() -> None:
    assert split_fields(InferBatchResponse(gpu_id=3).SerializeToString(), {OUTPUT})[1] == {}


def test_several_fields_are_split_off_at_once() -> None:
    message = InferBatchRequest(model_id="anna", visual_frames=b"abc", audio_features=b"de")
    rest, found = split_fields(message.SerializeToString(), {2, 3})
    assert {number: bytes(view) for number, view in found.items()} == {2: b"abc", 3: b"de"}
    assert InferBatchRequest.FromString(rest) == InferBatchRequest(model_id="anna")


def test_the_field_is_not_copied() -> None:
    data = InferBatchResponse(success=True, output=bytes(1000)).SerializeToString()
    assert split_fields(data, {OUTPUT})[1][OUTPUT].obj is data


def test_every_truncation_is_noticed_or_is_a_shorter_message() -> None:
    data = CompositeBatchResponse(
        success=True, error="x", composited_frames=[b"abc", b""], total_time_ms=1.5, width=70000
    ).SerializeToString()
    for length in range(len(data)):
        try:
            rest, _ = split_fields(data[:length], {3})
        except MalformedError:
            continue
        CompositeBatchResponse.FromString(rest)


@given(st.binary(max_size=60))
@settings(max_examples=examples(300), deadline=None)
def test_noise_never_does_worse_than_being_refused(noise: bytes) -> None:
    try:
        rest, found = split_fields(noise, {OUTPUT})
    except MalformedError:
        return
    assert len(rest) + sum(map(len, found.values())) <= len(noise)


@pytest.mark.parametrize(
    "data", [b"\x80", b"\x80" * 11, b"\x1a\x05ab", b"\x1b", b"\x0d\x00", b"\x02\x01a"]
)
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        split_fields(data, {OUTPUT})
