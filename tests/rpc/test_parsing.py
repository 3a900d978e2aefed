"""Large messages, parsed without copies."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.rpc.parsing import ViewedMessage, parser_of, with_array

PARSE = parser_of(pb.CompositeBatchRequest, ("visual_frames",))
LARGE = bytes(range(256)) * 8192  # 2 MB
REQUEST = pb.CompositeBatchRequest(
    model_id="anna",
    visual_frames=LARGE,
    audio_features=b"speech",
    batch_size=7,
    start_frame_idx=-3,
    sample_rate=48_000,
)


def test_a_large_field_is_a_view_of_the_message_and_the_rest_is_as_parsed() -> None:
    data = REQUEST.SerializeToString()
    parsed = PARSE(data)
    assert isinstance(parsed, ViewedMessage)
    assert parsed.visual_frames == LARGE
    assert parsed.visual_frames.obj is data
    for name in ("model_id", "audio_features", "batch_size", "start_frame_idx", "sample_rate"):
        assert getattr(parsed, name) == getattr(REQUEST, name)
    assert len(np.frombuffer(parsed.visual_frames, "<f4")) == len(LARGE) // 4


def test_absent_fields_are_empty() -> None:
    absent = pb.CompositeBatchRequest(model_id="bert", audio_features=LARGE)
    assert PARSE(absent.SerializeToString()).visual_frames == b""
    assert PARSE(b"").visual_frames == b""


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    second = pb.CompositeBatchRequest(visual_frames=b"second", batch_size=9)
    data = REQUEST.SerializeToString() + second.SerializeToString()
    parsed = PARSE(data)
    assert parsed.visual_frames == b"second"
    assert (parsed.batch_size, parsed.model_id) == (9, "anna")


def test_many_fields_are_left_to_protobuf() -> None:
    data = b"\x20\x01" * 500_000 + REQUEST.SerializeToString()
    parsed = PARSE(data)
    assert isinstance(parsed, pb.CompositeBatchRequest)
    assert parsed == REQUEST


@pytest.mark.slow
def test_damaged_messages_are_judged_as_protobuf_judges_them() -> None:
    """Bytes flipped in what is not payload, ends cut off, lengths that lie."""
    random = np.random.default_rng(3)
    whole = REQUEST.SerializeToString()
    edges = [*range(20), *range(len(whole) - 20, len(whole))]
    judged = {True: 0, False: 0}
    for _ in range(300):
        damaged = bytearray(whole)
        for index in random.choice(edges, random.integers(1, 4)):
            damaged[index] = random.integers(0, 256)
        data = bytes(damaged[: len(whole) - int(random.integers(0, 3))])
        try:
            wanted = pb.CompositeBatchRequest.FromString(data)
        except DecodeError:
            judged[False] += 1
            with pytest.raises(DecodeError):
                PARSE(data)
            continue
        judged[True] += 1
        parsed = PARSE(data)
        for field in wanted.DESCRIPTOR.fields:
            assert getattr(parsed, field.name) == getattr(wanted, field.name)
    assert min(judged.values()) > 10


def test_an_answer_with_an_array_is_the_message_with_its_bytes() -> None:
    pixels = np.arange(2 * 320 * 320 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 320, 320, 3)
    answer = mouths_pb2.MouthsResponse(gpu_id=3, inference_time_ms=1.5)
    field = mouths_pb2.MouthsResponse.PIXELS_FIELD_NUMBER
    for array in (pixels, pixels[:, ::2]):
        sent = mouths_pb2.MouthsResponse.FromString(
            with_array(answer, field, array).SerializeToString()
        )
        wanted = mouths_pb2.MouthsResponse(gpu_id=3, inference_time_ms=1.5, pixels=array.tobytes())
        assert sent == wanted
