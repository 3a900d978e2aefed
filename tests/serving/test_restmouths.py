"""What is counted is how often the network is asked: each mouth is to be made once."""

import errno
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.avatars import Avatar
from lipwire.avatars.compiled.container import ContainerWriter
from lipwire.avatars.compiled.restpart import mouth_of, stored_form
from lipwire.avatars.compiled.storage import exclusive
from lipwire.domain import (
    AudioWindows,
    Call,
    DeadlineExceeded,
    InvalidInput,
    Mouths,
    StorageFailed,
    UInt8Array,
    Unavailable,
)
from lipwire.serving import RestMouths

SILENCE = np.ones((1, 32, 16, 16), np.float32)
COUNT = 8


def drawn(number: int) -> UInt8Array:
    rows = np.arange(320, dtype=np.uint16)[:, None, None]
    return np.broadcast_to(((rows + 20 * number) % 256).astype(np.uint8), (320, 320, 3)).copy()


def expected(number: int) -> UInt8Array:
    shown = mouth_of(stored_form(drawn(number)))
    assert shown is not None
    return shown


class Network:
    """Draws a mouth that depends on the frame; ``errors`` are raised first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.made: list[int] = []
        self.calls: list[Call | None] = []
        self.entered = threading.Event()
        self.going = threading.Event()
        self.going.set()

    def __call__(self, first: int, windows: AudioWindows, call: Call | None) -> Mouths:
        assert (windows == SILENCE).all()
        self.made += range(first, first + len(windows))
        self.calls.append(call)
        self.entered.set()
        assert self.going.wait(WAIT_S)
        if self.errors:
            raise self.errors.pop(0)
        return np.stack([drawn(first + index) for index in range(len(windows))])


@pytest.fixture
def frames(avatar_package: Path) -> Iterator[Avatar]:
    with Avatar.open(avatar_package) as avatar:
        yield avatar


def part_files(frames: Avatar) -> list[Path]:
    return list((frames.path / ".lipwire").glob("rest-*"))


def test_a_mouth_is_made_once_and_kept(frames: Avatar) -> None:
    network = Network()
    call = Call(None)
    with RestMouths(frames, network, SILENCE) as rest:
        for _ in range(3):
            np.testing.assert_array_equal(rest.mouth(2, call=call), expected(2))
        assert network.made == [2]
        assert network.calls == [call]
        assert rest.size_bytes == len(stored_form(drawn(2)))
        assert not rest.complete


def test_what_the_network_would_have_to_make_is_not_ready(frames: Avatar) -> None:
    network = Network()
    with RestMouths(frames, network, SILENCE) as rest:
        assert rest.ready(3) is None
        assert network.made == []
        rest.mouth(3)
        shown = rest.ready(3)
        assert shown is not None
        np.testing.assert_array_equal(shown, expected(3))


def test_numbers_run_back_and_forth(frames: Avatar) -> None:
    network = Network()
    with RestMouths(frames, network, SILENCE) as rest:
        np.testing.assert_array_equal(rest.mouth(COUNT), expected(COUNT - 2))
        assert rest.ready(COUNT - 2) is not None
        with pytest.raises(InvalidInput, match="-1; allowed are 0 and above"):
            rest.ready(-1)


@pytest.mark.parametrize("shape", [(32, 16, 16), (2, 32, 16, 16), (1, 16, 32, 16)])
def test_silence_of_another_shape_is_refused(frames: Avatar, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="silence"):
        RestMouths(frames, Network(), np.zeros(shape, np.float32))


def test_the_part_is_written_when_all_are_there_and_used_next_time(frames: Avatar) -> None:
    network = Network()
    with RestMouths(frames, network, SILENCE) as rest:
        for number in range(COUNT - 1):
            rest.mouth(number)
            assert part_files(frames) == []
        rest.mouth(COUNT - 1)
        (path,) = part_files(frames)
        assert rest.complete
        np.testing.assert_array_equal(rest.mouth(4), expected(4))
    again = Network(AssertionError("the part is there"))
    with RestMouths(frames, again, SILENCE) as rest:
        for number in range(COUNT):
            shown = rest.ready(number)
            assert shown is not None
            np.testing.assert_array_equal(shown, expected(number))
        assert 0 < rest.size_bytes <= path.stat().st_size


def test_a_part_of_other_silence_is_not_used(frames: Avatar) -> None:
    with RestMouths(frames, Network(), SILENCE) as rest:
        rest.fill()
    with RestMouths(frames, Network(), SILENCE * 2) as rest:
        assert rest.ready(0) is None


def test_a_package_that_was_replaced_has_its_mouths_made_anew(frames: Avatar) -> None:
    with RestMouths(frames, Network(), SILENCE) as rest:
        rest.fill()
    (old,) = part_files(frames)
    path = frames.path / "crop_rects.json"
    rects = json.loads(path.read_text())
    path.write_text(json.dumps([[x1 - 1, *others] for x1, *others in rects]))
    with Avatar.open(frames.path) as changed, RestMouths(changed, Network(), SILENCE) as rest:
        assert rest.ready(0) is None
        rest.fill()
        (new,) = part_files(frames)
        assert new != old


def test_fill_makes_what_is_missing_and_reports(frames: Avatar) -> None:
    network = Network()
    steps: list[tuple[int, int]] = []
    with RestMouths(frames, network, SILENCE) as rest:
        rest.mouth(3)
        rest.fill(lambda *step: steps.append(step))
        assert sorted(network.made) == list(range(COUNT))
        assert steps[-1] == (COUNT, COUNT)
        steps.clear()
        rest.fill(lambda *step: steps.append(step))
        assert steps == []
    assert len(part_files(frames)) == 1


def test_many_threads_have_each_mouth_made_once(frames: Avatar) -> None:
    network = Network()
    network.going.clear()
    with RestMouths(frames, network, SILENCE) as rest, ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(rest.mouth, index % 4) for index in range(12)]
        filling = threading.Thread(target=rest.fill)
        until(lambda: len(network.made) == 4, futures=asked)
        assert [rest.ready(number) for number in range(4)] == [None] * 4
        filling.start()
        until(lambda: len(network.made) == COUNT)
        network.going.set()
        for index, future in enumerate(asked):
            np.testing.assert_array_equal(future.result(WAIT_S), expected(index % 4))
        filling.join(WAIT_S)
        assert sorted(network.made) == list(range(COUNT))


def test_an_error_is_the_asking_threads_and_others_try_themselves(frames: Avatar) -> None:
    network = Network(Unavailable("gone"))
    network.going.clear()
    with RestMouths(frames, network, SILENCE) as rest, ThreadPoolExecutor(2) as pool:
        first = pool.submit(rest.mouth, 1)
        assert network.entered.wait(WAIT_S)
        second = pool.submit(rest.mouth, 1)
        network.going.set()
        with pytest.raises(Unavailable, match="gone"):
            first.result(WAIT_S)
        np.testing.assert_array_equal(second.result(WAIT_S), expected(1))
        assert network.made == [1, 1]


def test_who_waits_for_another_thread_waits_no_longer_than_the_deadline(frames: Avatar) -> None:
    network = Network()
    network.going.clear()
    with RestMouths(frames, network, SILENCE) as rest, ThreadPoolExecutor(1) as pool:
        first = pool.submit(rest.mouth, 1)
        assert network.entered.wait(WAIT_S)
        with pytest.raises(DeadlineExceeded):
            rest.mouth(1, call=Call(0.0))
        network.going.set()
        first.result(WAIT_S)


def test_a_full_disk_is_logged_once_and_mouths_are_served(
    frames: Avatar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(ContainerWriter, "append", full)
    network = Network()
    with caplog.at_level(logging.INFO), RestMouths(frames, network, SILENCE) as rest:
        for number in (*range(COUNT), *range(COUNT)):
            np.testing.assert_array_equal(rest.mouth(number), expected(number))
        assert sorted(network.made) == list(range(COUNT))
        (record,) = caplog.records
        assert "anna are kept in memory alone" in record.message
        assert "the disk is full" in record.message
        assert part_files(frames) == []
        with pytest.raises(StorageFailed, match="the disk is full"):
            rest.fill()


def test_nothing_is_kept_of_an_avatar_that_was_erased_meanwhile(
    frames: Avatar, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), RestMouths(frames, Network(), SILENCE) as rest:
        shutil.rmtree(frames.path)
        for number in range(COUNT):
            np.testing.assert_array_equal(rest.mouth(number), expected(number))
    assert not frames.path.exists()
    (record,) = caplog.records
    assert "anna are not kept: it is not there any more" in record.message


def test_another_process_that_writes_is_not_waited_for_by_a_mouth(
    frames: Avatar, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        exclusive(frames.path / ".lipwire", pytest.fail),
        RestMouths(frames, Network(), SILENCE) as rest,
    ):
        for number in range(COUNT):
            rest.mouth(number)
        np.testing.assert_array_equal(rest.mouth(5), expected(5))
        (record,) = caplog.records
        assert "another process writes its parts" in record.message
    assert part_files(frames) == []


def test_fill_waits_for_another_process_that_writes(frames: Avatar) -> None:
    waited = threading.Event()
    with RestMouths(frames, Network(), SILENCE) as rest, ThreadPoolExecutor(1) as pool:
        with exclusive(frames.path / ".lipwire", pytest.fail):
            filling = pool.submit(rest.fill, waiting=waited.set)
            until(waited.is_set, futures=[filling])
        filling.result(WAIT_S)
    assert len(part_files(frames)) == 1


def damaged(path: Path, number: int) -> None:
    """The stored mouth of frame ``number`` is overwritten; the file's tables stay as they are."""
    data = path.read_bytes()
    start = data.index(stored_form(drawn(number)))
    path.write_bytes(data[:start] + bytes(500) + data[start + 500 :])


def test_a_damaged_mouth_has_all_made_anew(
    frames: Avatar, caplog: pytest.LogCaptureFixture
) -> None:
    with RestMouths(frames, Network(), SILENCE) as rest:
        rest.fill()
    damaged(part_files(frames)[0], 6)
    network = Network()
    with RestMouths(frames, network, SILENCE) as rest:
        np.testing.assert_array_equal(rest.mouth(5), expected(5))
        assert rest.ready(6) is None
        np.testing.assert_array_equal(rest.mouth(6), expected(6))
        assert network.made == [6]
        for number in range(COUNT):
            rest.mouth(number)
    assert sum("is damaged and made anew" in record.message for record in caplog.records) == 1
    with RestMouths(frames, Network(AssertionError("all are there")), SILENCE) as rest:
        np.testing.assert_array_equal(rest.mouth(6), expected(6))


def test_a_closed_one_gives_nothing(frames: Avatar) -> None:
    rest = RestMouths(frames, Network(), SILENCE)
    given = rest.mouth(0)
    rest.close()
    rest.close()
    assert rest.size_bytes == 0
    for ask in (rest.mouth, rest.ready):
        with pytest.raises(InvalidInput, match="anna are closed"):
            ask(0)
    np.testing.assert_array_equal(given, expected(0))
