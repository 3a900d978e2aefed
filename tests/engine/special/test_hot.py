"""Which networks run specialised, in a server."""

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import Clock, until

from lipwire.domain import StorageFailed
from lipwire.engine.special import hot
from lipwire.engine.special.hot import HOT_FRAMES, HotStats, HotTier, Samples
from lipwire.engine.special.openvino import BROKEN, OpenVinoFailed
from lipwire.engine.special.specialtrial import Verdict

MIB = 2**20
CROPS = np.zeros((8, 320, 320, 3), np.uint8)
WINDOWS = np.ones((8, 32, 16, 16), np.float32)
windows_so_far = itertools.count(1)


class Network:
    def __init__(self, name: str = "a", source: Path | None = Path("unet.onnx")) -> None:
        self.source = source
        self.source_sha256 = name
        self.special: Any = None
        self.samples: Samples | None = None
        self.frames = self.counted = 0
        self.expected = self.unloaded = False


class Special:
    closed = False

    def close(self) -> None:
        self.closed = True


class Store:
    """In place of the one on the disk: all that was tried passes and takes ``memory_bytes``."""

    def __init__(self) -> None:
        self.trial = Verdict("", 2.0, 0.05, 0.9999, 60.0, 40 * MIB)
        self.kept: set[str] = set()
        self.damaged: set[str] = set()
        self.meanwhile: Callable[[], object] = lambda: None
        self.made: list[str] = []
        self.error: Exception | None = None

    def verdict(self, sha256: str, lanes: int) -> Verdict | None:
        return self.trial if sha256 in self.kept else None

    def network(self, sha256: str, lanes: int) -> bytes | None:
        if sha256 in self.damaged:
            self.kept.discard(sha256)
            self.damaged.discard(sha256)
            return None
        return b"blob"

    def make(self, source: Path, sha256: str, crops: Any, windows: Any, *_: Any) -> Verdict:
        assert crops.shape == (8, 320, 320, 3)
        assert windows.shape == (8, 32, 16, 16)
        self.made.append(sha256)
        self.meanwhile()
        if self.error is not None:
            raise self.error
        return self.trial


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def networks() -> list[Network]:
    """Those that are loaded."""
    return [Network(name) for name in "abc"]


@pytest.fixture
def tier(clock: Clock, store: Store) -> Iterator[HotTier]:
    with HotTier(
        100 * MIB,
        2,
        store=store,  # type: ignore[arg-type]
        clock=clock,
        problem=lambda: None,
        load=lambda _blob, _lanes: Special(),  # type: ignore[arg-type, return-value]
    ) as tier:
        yield tier


def use(network: Network, frames: float = HOT_FRAMES, windows: Any = None) -> None:
    """Have ``network`` asked for so many frames, as the processor does: each with another window,
    or all with ``windows``."""
    for _ in range(round(frames / len(CROPS)) + 1):
        network.frames += len(CROPS)
        if network.samples is not None:
            heard = next(windows_so_far) * WINDOWS if windows is None else windows
            network.samples.add(CROPS, heard)


def make_hot(tier: HotTier, networks: list[Network], network: Network, frames: float) -> None:
    """Have it used so much, in two parts: frames to try it with are kept from the second on."""
    use(network, frames - 100)
    tier.look(networks)
    use(network, 100)
    tier.look(networks)


def sampled(network: Network) -> bool:
    """Whether frames of it are kept to try it with."""
    return network.samples is not None


def test_a_network_that_is_used_much_is_specialised(
    tier: HotTier, store: Store, networks: list[Network]
) -> None:
    network = networks[0]
    use(network, HOT_FRAMES - 20)
    tier.look(networks)
    assert not sampled(network)
    use(network, 20)
    tier.look(networks)
    assert sampled(network)
    assert store.made == []
    use(network, 48)
    tier.look(networks)
    assert store.made == []  # too few frames to try it with
    use(network, 8)
    tier.look(networks)
    assert store.made == ["a"]
    assert isinstance(network.special, Special)
    assert not sampled(network)
    assert tier.stats == HotStats(1, 40 * MIB, 1, 0)
    assert [one.special for one in networks[1:]] == [None, None]


def test_uses_of_long_ago_count_less(tier: HotTier, clock: Clock, networks: list[Network]) -> None:
    for _ in range(20):
        use(networks[0], HOT_FRAMES / 4)
        tier.look(networks)
        clock.now += 120
    assert networks[0].samples is None


def test_what_is_not_used_any_more_is_forgotten(
    tier: HotTier, clock: Clock, networks: list[Network]
) -> None:
    use(networks[0], 100)
    tier.look(networks)
    assert len(tier._uses) == 1
    clock.now += 600
    tier.look(networks)
    assert len(tier._uses) == 0
    use(networks[0], 8)
    tier.look(networks)
    assert tier._uses[networks[0]].score == 16


def test_a_session_makes_its_network_hot_as_soon_as_there_are_frames(
    tier: HotTier, networks: list[Network]
) -> None:
    networks[0].expected = True
    tier.look(networks)
    assert not networks[0].expected
    use(networks[0], 64)
    tier.look(networks)
    assert networks[0].special is not None


def test_runs_with_nothing_are_no_frames_to_try_it_with(
    tier: HotTier, networks: list[Network]
) -> None:
    networks[0].expected = True
    tier.look(networks)
    use(networks[0], HOT_FRAMES, np.zeros_like(WINDOWS))
    tier.look(networks)
    assert networks[0].special is None


def test_what_was_tried_before_is_not_tried_again(
    tier: HotTier, store: Store, networks: list[Network]
) -> None:
    store.kept.add("a")
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    assert networks[0].special is not None
    assert store.made == []


def test_what_was_tried_before_needs_no_frames(
    tier: HotTier, store: Store, networks: list[Network]
) -> None:
    store.kept.add("a")
    networks[0].expected = True
    tier.look(networks)
    assert networks[0].special is not None


def test_where_that_is_damaged_it_is_tried_anew(
    tier: HotTier, store: Store, networks: list[Network]
) -> None:
    store.kept.add("a")
    store.damaged.add("a")
    networks[0].expected = True
    for _ in range(2):
        tier.look(networks)
    assert store.made == []
    use(networks[0], 64)
    tier.look(networks)
    assert networks[0].special is not None
    assert store.made == ["a"]


def test_a_mouth_at_rest_is_one_frame_to_try_it_with(
    tier: HotTier, networks: list[Network]
) -> None:
    """The windows of silence are all the same, and a trial with shut mouths alone says little."""
    networks[0].expected = True
    tier.look(networks)
    use(networks[0], 2 * HOT_FRAMES, WINDOWS)
    tier.look(networks)
    assert networks[0].special is None
    use(networks[0], 64)
    tier.look(networks)
    assert networks[0].special is not None


def test_samples_are_no_more_than_are_needed_however_many_threads_add() -> None:
    samples = Samples()

    def add() -> None:
        for _ in range(50):
            samples.add(CROPS, next(windows_so_far) * WINDOWS)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples.enough
    crops, windows = samples.all()
    assert len(crops) == len(windows) == 8


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_network_that_is_unloaded_is_not_specialised(
    tier: HotTier, store: Store, networks: list[Network], when: str
) -> None:
    def unload() -> None:
        networks[0].unloaded = True
        tier.forget(networks[0])

    if when == "meanwhile":
        store.meanwhile = unload
    else:
        unload()
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    assert networks[0].special is None
    assert tier.stats == HotStats()
    make_hot(tier, networks, networks[1], HOT_FRAMES + 200)
    assert networks[1].special is not None


def test_a_look_that_fails_is_not_the_last(
    clock: Clock,
    store: Store,
    networks: list[Network],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(hot, "_LOOK_S", 0.001)
    broken = iter([PermissionError("the cache"), KeyError("a network")])

    def listed() -> list[Network]:
        for error in broken:
            raise error
        return networks

    with HotTier(
        100 * MIB,
        1,
        store=store,  # type: ignore[arg-type]
        clock=clock,
        problem=lambda: None,
        load=lambda _blob, _lanes: Special(),  # type: ignore[arg-type, return-value]
    ) as tier:
        tier.watch(listed)
        store.kept.add("a")
        networks[0].expected = True
        until(lambda: networks[0].special is not None)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "looking for networks to specialise"
    ] * 2


def test_a_network_that_does_not_pass_stays_where_it_was(
    tier: HotTier, store: Store, networks: list[Network]
) -> None:
    store.trial = Verdict("it is slow")
    for _ in range(3):
        make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    assert networks[0].special is None
    assert networks[0].samples is None
    assert store.made == ["a"]  # once


@pytest.mark.parametrize("way", ["verdict", "disk"])
def test_what_passes_is_tried_again_later(
    tier: HotTier, store: Store, clock: Clock, networks: list[Network], way: str
) -> None:
    if way == "disk":
        store.error = StorageFailed("the disk is full")
    else:
        store.trial = Verdict("its file is being written", lasting=False)
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    store.error, store.trial = None, Verdict("", 2.0, memory_bytes=MIB)
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    assert store.made == ["a"]
    clock.now += 601
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    assert tier.stats.networks == 1
    assert store.made == ["a", "a"]


@pytest.mark.parametrize("error", [OpenVinoFailed("no"), RuntimeError("unforeseen")])
def test_a_trial_that_fails_leaves_the_others_alone(
    tier: HotTier, store: Store, networks: list[Network], error: Exception
) -> None:
    store.error = error
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    store.error = None
    make_hot(tier, networks, networks[1], HOT_FRAMES + 200)
    assert networks[0].special is None
    assert networks[1].special is not None


def test_without_its_source_nothing_is_done(tier: HotTier) -> None:
    network = Network(source=None)
    network.expected = True
    make_hot(tier, [network], network, 2 * HOT_FRAMES)
    assert network.samples is None
    assert network.special is None


def test_the_budget_holds_and_the_busiest_stay(
    tier: HotTier, clock: Clock, networks: list[Network]
) -> None:
    for frames, network in zip((4000, 1000, 1100), networks, strict=True):
        make_hot(tier, networks, network, frames)
    specials = [network.special for network in networks]
    assert [special is not None for special in specials] == [True, True, False]
    assert tier.stats.memory_bytes == 80 * MIB
    make_hot(tier, networks, networks[2], 1000)
    assert networks[2].special is None  # it was refused less than a minute ago
    clock.now += 61
    make_hot(tier, networks, networks[2], 1000)
    assert [network.special is not None for network in networks] == [True, False, True]
    assert specials[1].closed
    assert tier.stats == HotStats(2, 80 * MIB, 3, 1)


def test_a_network_that_is_larger_than_the_budget_is_not_loaded(
    tier: HotTier, store: Store, networks: list[Network]
) -> None:
    store.trial = Verdict("", 2.0, memory_bytes=101 * MIB)
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    assert networks[0].special is None
    assert tier.stats == HotStats()


def test_what_is_unloaded_frees_its_memory(tier: HotTier, networks: list[Network]) -> None:
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    tier.forget(networks[0])
    assert networks[0].special is None
    assert tier.stats.memory_bytes == 0
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    assert networks[0].special is not None


def test_what_has_failed_is_not_specialised_again(tier: HotTier, networks: list[Network]) -> None:
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    tier.forget(networks[0], refuse=True)
    make_hot(tier, networks, networks[0], 4 * HOT_FRAMES)
    assert networks[0].special is None
    assert tier.stats.memory_bytes == 0


def test_what_nobody_refers_to_any_more_is_forgotten(
    tier: HotTier, networks: list[Network]
) -> None:
    make_hot(tier, networks, networks[0], HOT_FRAMES + 200)
    networks.clear()
    gc.collect()
    assert tier.stats == HotStats(0, 0, 1, 0)


def test_a_machine_that_cannot_is_asked_once(
    clock: Clock, store: Store, networks: list[Network]
) -> None:
    asked = []

    def problem() -> str:
        asked.append(1)
        return "no units"

    with HotTier(MIB, 1, store=store, clock=clock, problem=problem) as tier:  # type: ignore[arg-type]
        assert tier.look(networks)  # nobody has wanted it yet
        assert asked == []
        use(networks[0], 2 * HOT_FRAMES)
        for _ in range(3):
            assert not tier.look(networks)
        assert asked == [1]
        assert networks[0].samples is None


@pytest.mark.parametrize(
    ("problem", "level"), [("no units", "INFO"), (f"{BROKEN}: no library", "WARNING")]
)
def test_what_could_be_mended_is_a_warning(
    clock: Clock,
    store: Store,
    networks: list[Network],
    caplog: pytest.LogCaptureFixture,
    problem: str,
    level: str,
) -> None:
    use(networks[0], 2 * HOT_FRAMES)
    with (
        caplog.at_level("INFO"),
        HotTier(MIB, 1, store=store, clock=clock, problem=lambda: problem) as tier,  # type: ignore[arg-type]
    ):
        for _ in range(3):
            tier.look(networks)
    (record,) = caplog.records
    assert record.levelname == level
    assert record.message == f"networks run in float32 on the processor: {problem}"


def test_a_thread_looks_until_it_is_closed(
    clock: Clock, store: Store, networks: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "_LOOK_S", 0.001)
    before = threading.active_count()
    with HotTier(MIB, 1, store=store, clock=clock, problem=lambda: "no units") as tier:  # type: ignore[arg-type]
        for _ in range(2):
            tier.watch(lambda: networks)
        assert threading.active_count() == before + 1
        use(networks[0], 2 * HOT_FRAMES)
        until(lambda: threading.active_count() == before)  # there is nothing to look for
    with HotTier(MIB, 1, store=store, clock=clock, problem=lambda: None) as tier:  # type: ignore[arg-type]
        tier.watch(lambda: networks)
    assert threading.active_count() == before
    tier.watch(lambda: networks)
    assert threading.active_count() == before
