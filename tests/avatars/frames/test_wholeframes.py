"""Whole frames out of a source that is watched: what is decoded when, and how often."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.avatars.frames.framecache import FrameCache
from lipwire.avatars.frames.wholeframes import Form, WholeFrames
from lipwire.compose import bgr_to_i420
from lipwire.domain import AvatarInvalid, InvalidInput, UInt8Array

WIDTH, HEIGHT = 32, 16
FRAME_BYTES = WIDTH * HEIGHT * 3


@cache
def picture(number: int) -> UInt8Array:
    made = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    made.flags.writeable = False
    return made


class Film:
    """A source with a key frame now and then, which counts how many frames it decoded."""

    def __init__(self, count: int, gop: int = 1, workers: int = 1) -> None:
        self.count = count
        self.gop = gop
        self.workers = workers
        self.decoded = 0
        self.asked: list[list[int]] = []
        self.closings = 0
        self.broken: set[int] = set()
        self.open = threading.Event()
        self.open.set()
        self._next = 0
        self.reading = 0

    def begin_of(self, number: int) -> int:
        return number // self.gop * self.gop

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, UInt8Array]]:
        self.reading += 1
        assert self.reading <= self.workers, "more threads than the source bears"
        assert list(numbers) == sorted(numbers)
        self.asked.append(list(numbers))
        try:
            for number in numbers:
                assert self.open.wait(WAIT_S)
                if not self.begin_of(number) <= self._next <= number:
                    self._next = self.begin_of(number)
                self.decoded += number + 1 - self._next
                self._next = number + 1
                if number in self.broken:
                    raise AvatarInvalid(f"frame {number} is broken")
                yield number, picture(number)
        finally:
            self.reading -= 1

    def close(self) -> None:
        self.closings += 1


def opened(film: Film, budget_frames: float = 1000) -> WholeFrames:
    cache = FrameCache(int(budget_frames * FRAME_BYTES))
    return WholeFrames(film, film.count, WIDTH * HEIGHT, cache, "film", "anna")


def walk(frames: WholeFrames, count: int, steps: int, form: Form = "pixels") -> None:
    """Back and forth over ``count`` frames, each compared."""
    period = 2 * count - 2
    for index in range(steps):
        place = index % period
        number, step = (place, 1) if place < count - 1 else (period - place, -1)
        expected = picture(number) if form == "pixels" else bgr_to_i420(picture(number))
        assert np.array_equal(frames.frame(form, number, step), expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pixels", "planes"])
@pytest.mark.parametrize(("gop", "workers"), [(1, 1), (7, 1), (60, 1), (1, 3)])
@pytest.mark.parametrize("budget_frames", [5, 0, 1000, 0.5, 1, 20, 70])
def test_every_frame_is_the_right_one(
    form: Form, gop: int, budget_frames: float, workers: int
) -> None:
    film = Film(60, gop=gop, workers=workers)
    frames = opened(film, budget_frames)
    walk(frames, 60, 200, form)
    frames.close()
    assert film.closings == 1


def test_with_room_for_all_each_frame_is_decoded_once() -> None:
    film = Film(60, gop=20)
    frames = opened(film)
    walk(frames, 60, 300)
    frames.close()
    assert film.decoded == 60


def test_backward_a_video_is_not_decoded_from_its_key_frame_for_each_frame() -> None:
    """250 frames and one key frame: plainly that were 250 * 250 / 2 frames for each way back."""
    film = Film(250, gop=250)
    frames = opened(film, budget_frames=100)
    walk(frames, 250, 249 * 2)
    frames.close()
    assert film.decoded < 250 * 5


def test_the_first_frame_waits_for_no_other_ones() -> None:
    """They are decoded on the way, and not made pixels of and kept."""
    film = Film(250, gop=250)
    frames = opened(film, budget_frames=1000)
    frames.frame("pixels", 200, 1)
    assert film.asked == [[200]]
    frames.close()


@pytest.mark.parametrize(("number", "step"), [(210, 1), (199, -1)])
def test_a_second_jump_and_a_walk_back_keep_what_is_met(number: int, step: int) -> None:
    film = Film(250, gop=250)
    frames = opened(film, budget_frames=1000)
    frames.frame("pixels", 200, 1)
    frames.frame("pixels", number, step)
    until(lambda: film.decoded >= 201 + number)
    for met in (180, 150, 3, 77):
        frames.frame("pixels", met, 1)
    frames.close()
    assert film.decoded <= 201 + number + 17


def test_a_jump_keeps_what_is_met_on_the_way() -> None:
    film = Film(250, gop=250)
    frames = opened(film, budget_frames=1000)
    frames.frame("pixels", 0, 1)
    frames.frame("pixels", 200, 1)
    decoded = film.decoded
    for number in (180, 150, 3, 77):
        frames.frame("pixels", number, 1)
    assert film.decoded == decoded == 201
    frames.close()


def test_on_a_walk_frames_are_decoded_ahead() -> None:
    film = Film(60, gop=20)
    frames = opened(film)
    frames.frame("pixels", 0, 1)
    frames.frame("pixels", 1, 1)
    until(lambda: film.decoded > 10)
    film.open.clear()
    for number in range(2, 9):
        frames.frame("pixels", number, 1)  # nothing has to be decoded for these
    film.open.set()
    frames.close()
    assert film.decoded <= 40


def test_one_frame_alone_has_none_decoded_ahead() -> None:
    film = Film(60, gop=1)
    frames = opened(film)
    frames.frame("pixels", 30, 1)
    frames.close()
    assert film.asked == [[30]]


def test_the_threads_end_when_there_is_nothing_to_decode(
    own_threads: Callable[[], list[str]],
) -> None:
    film = Film(60, gop=20)
    frames = opened(film)
    film.open.clear()
    asking = threading.Thread(target=frames.frame, args=("pixels", 0, 1))
    asking.start()
    until(lambda: own_threads() == ["lipwire-decoding"])
    film.open.set()
    asking.join(WAIT_S)
    until(lambda: own_threads() == [])
    frames.close()


def test_many_threads_get_their_frames() -> None:
    film = Film(40, gop=10)
    frames = opened(film, budget_frames=12)
    wrong: list[int] = []

    def look(seed: int) -> None:
        numbers = np.random.default_rng(seed).integers(0, 40, 60).tolist()
        wrong.extend(
            number
            for number in numbers
            if not np.array_equal(frames.frame("pixels", number, 1), picture(number))
        )

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    frames.close()
    assert wrong == []


def test_a_frame_that_cannot_be_decoded_is_said_to_who_asked() -> None:
    film = Film(60, gop=1)
    film.broken = {30}
    frames = opened(film)
    frames.frame("pixels", 29, 1)
    for _ in range(2):
        with pytest.raises(AvatarInvalid, match="frame 30 is broken"):
            frames.frame("pixels", 30, 1)
    assert np.array_equal(frames.frame("pixels", 31, 1), picture(31))
    frames.close()


def test_closing_tells_those_who_wait(own_threads: Callable[[], list[str]]) -> None:
    film = Film(60, gop=1)
    frames = opened(film)
    film.open.clear()
    errors: list[str] = []

    def ask() -> None:
        with pytest.raises(InvalidInput) as caught:
            frames.frame("pixels", 5, 1)
        errors.append(str(caught.value))

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: film.reading == 1)
    closing = threading.Thread(target=frames.close)
    closing.start()
    asking.join(WAIT_S)
    assert film.closings == 0, "it is closed while a thread decodes"
    film.open.set()
    closing.join(WAIT_S)
    assert errors == ["avatar anna is closed; open it again"]
    assert film.closings == 1
    assert own_threads() == []
    with pytest.raises(InvalidInput, match="closed"):
        frames.frame("pixels", 5, 1)
    frames.close()


def test_closing_gives_the_memory_back() -> None:
    cache = FrameCache(10**9)
    films = [Film(10), Film(10)]
    first, second = (WholeFrames(film, 10, WIDTH * HEIGHT, cache, "film", "anna") for film in films)
    first.frame("pixels", 3, 1)
    assert np.array_equal(second.frame("pixels", 3, 1), picture(3))
    assert films[1].decoded == 0, "one avatar opened twice has its frames once"
    first.close()
    assert cache.held_bytes > 0
    second.close()
    assert cache.held_bytes == 0


def test_preloading_stops_where_the_cache_is_full() -> None:
    film = Film(60, gop=20)
    frames = opened(film, budget_frames=25)
    frames.preload("pixels", 60)
    assert film.decoded < 45
    frames.close()


def test_what_is_handed_out_cannot_be_written_to() -> None:
    frames = opened(Film(3))
    for form in ("pixels", "planes"):
        assert not frames.frame(form, 1, 1).flags.writeable
    frames.close()
