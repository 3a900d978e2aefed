import threading
import time
from dataclasses import replace

import pytest

from lipwire.rpc.backends.fleet import Fleet, FleetPolicy, Verdict

SERVERS = ("a:1", "b:1", "c:1")
MODELS = tuple(f"user_{number}" for number in range(300))
POLICY = FleetPolicy(
    silent_checks=3,
    silence_s=2.0,
    first_hold_s=1.0,
    longest_hold_s=4.0,
    forgive_s=60.0,
    ramp_s=10.0,
)


class Scene:
    """A fleet on a clock that moves only when told."""

    def __init__(self, *, up: bool = True, policy: FleetPolicy = POLICY) -> None:
        self.now = 100.0
        self.fleet = Fleet(SERVERS, clock=lambda: self.now, policy=policy)
        if up:
            for server in SERVERS:
                self.serving(server)
        self.now += 1.0

    def serving(self, server: str) -> None:
        self.fleet.judge(server, "serving", asked_at=self.now)

    def lost(self, server: str) -> bool:
        return self.fleet.lost(server, "gone", asked_at=self.now)

    def share(self, server: str) -> float:
        return sum(self.fleet.order(model)[0] == server for model in MODELS) / len(MODELS)


def test_nobody_known_yet_means_everybody_is_asked() -> None:
    scene = Scene(up=False)
    assert sorted(scene.fleet.order("anna")) == sorted(SERVERS)
    assert not scene.fleet.wait_known(0)


def test_one_lost_call_puts_a_server_out_and_a_good_check_brings_it_back() -> None:
    scene = Scene()
    assert scene.lost("b:1")
    assert not scene.lost("b:1"), "it is out already"
    assert scene.fleet.up() == ["a:1", "c:1"]
    assert scene.fleet.reasons() == {"b:1": "gone"}
    assert "b:1" not in scene.fleet.order("anna")
    scene.now += 0.5
    assert scene.fleet.judge("b:1", "serving", asked_at=scene.now) == "back"
    assert scene.fleet.judge("b:1", "serving", asked_at=scene.now) is None
    assert scene.fleet.up() == list(SERVERS)


def test_a_server_that_says_it_does_not_serve_is_out_at_once() -> None:
    scene = Scene()
    assert scene.fleet.judge("a:1", "refused", asked_at=scene.now, reason="drains") == "out"
    assert scene.fleet.up() == ["b:1", "c:1"]


def test_a_server_that_is_back_gets_its_models_bit_by_bit() -> None:
    scene = Scene()
    before = scene.share("b:1")
    scene.lost("b:1")
    assert scene.share("b:1") == 0
    scene.now += 1
    scene.serving("b:1")
    assert scene.share("b:1") < 0.3 * before
    scene.now += 5
    assert 0.3 * before < scene.share("b:1") < before
    scene.now += 5
    assert scene.share("b:1") == before
    scene.now += 50
    assert scene.share("b:1") == before, "no more than it had"


def test_further_good_checks_do_not_change_how_its_models_come_back() -> None:
    scene = Scene()
    scene.lost("b:1")
    scene.serving("b:1")
    scene.now += 5
    half = scene.share("b:1")
    scene.serving("b:1")
    scene.fleet.answered("b:1")
    assert scene.share("b:1") == half < Scene().share("b:1")


@pytest.mark.parametrize(("ramp_s", "whole"), [(0.0, True), (1.0, False)])
def test_the_time_that_its_models_take_to_come_back_is_the_policys(
    ramp_s: float, whole: bool
) -> None:
    scene = Scene(policy=replace(POLICY, ramp_s=ramp_s))
    scene.lost("b:1")
    scene.serving("b:1")
    scene.now += 0.2
    assert (scene.share("b:1") == Scene().share("b:1")) == whole


def test_a_server_that_is_new_has_its_full_share() -> None:
    assert Scene().share("a:1") > 0.2


def test_a_server_lost_again_and_again_is_held_out_for_longer() -> None:
    scene = Scene()
    held: list[float] = []
    for _ in range(5):
        scene.now += 1
        scene.lost("c:1")
        out_at = scene.now
        while "c:1" not in scene.fleet.up():
            scene.serving("c:1")
            scene.now += 0.25
        held.append(scene.now - 0.25 - out_at)
    assert held == [0.0, 1.0, 2.0, 4.0, 4.0]
    scene.now += POLICY.forgive_s
    scene.lost("c:1")
    scene.serving("c:1")
    assert "c:1" in scene.fleet.up(), "long ago is forgiven"


def test_it_takes_several_checks_without_an_answer() -> None:
    scene = Scene()
    outcomes = []
    for _ in range(3):
        outcomes.append(scene.fleet.judge("a:1", "silent", asked_at=scene.now))
        scene.now += 1
    assert outcomes == [None, None, "out"]


def test_an_answer_in_between_makes_the_count_begin_again() -> None:
    scene = Scene()
    verdicts: list[Verdict] = ["silent", "silent", "serving", "silent", "silent", "silent"]
    outcomes = []
    for verdict in verdicts:
        scene.now += 1
        outcomes.append(scene.fleet.judge("a:1", verdict, asked_at=scene.now))
    assert outcomes == [None] * 5 + ["out"]


def test_a_check_without_an_answer_counts_when_the_last_call_was_long_enough_ago() -> None:
    scene = Scene()
    scene.fleet.answered("a:1")
    for _ in range(2):
        scene.fleet.judge("a:1", "silent", asked_at=scene.now)
    scene.now += POLICY.silence_s - 0.1
    assert scene.fleet.judge("a:1", "silent", asked_at=scene.now) is None
    scene.now = 101.0 + POLICY.silence_s
    assert scene.fleet.judge("a:1", "silent", asked_at=scene.now) == "out"


def test_an_answer_to_a_call_is_as_good_as_a_check_for_a_server_that_is_new_only() -> None:
    scene = Scene(up=False)
    assert scene.fleet.reasons() == dict.fromkeys(SERVERS, "not asked yet")
    scene.fleet.answered("b:1")
    assert scene.fleet.up() == ["b:1"]
    scene.lost("b:1")
    scene.fleet.answered("b:1")
    assert scene.fleet.up() == [], "it was answered before it was lost, as far as anybody knows"


def test_why_a_server_is_out_is_what_was_said_last() -> None:
    scene = Scene()
    assert scene.fleet.judge("a:1", "refused", asked_at=scene.now, reason="drains") == "out"
    assert scene.fleet.reasons() == {"a:1": "drains"}
    assert scene.fleet.judge("a:1", "silent", asked_at=scene.now) is None, "it was out already"
    assert scene.fleet.reasons() == {"a:1": ""}


def test_the_first_verdict_counts_whenever_it_was_asked_for() -> None:
    scene = Scene(up=False)
    scene.fleet.judge("a:1", "serving", asked_at=0.0)
    assert scene.fleet.up() == ["a:1"]


def test_a_check_from_before_a_server_refused_changes_nothing() -> None:
    scene = Scene()
    asked_at = scene.now - 0.5
    scene.fleet.judge("a:1", "refused", asked_at=scene.now)
    assert scene.fleet.judge("a:1", "serving", asked_at=asked_at) is None
    assert scene.fleet.judge("a:1", "serving", asked_at=scene.now) == "back"


def test_a_call_sent_in_the_moment_of_its_return_can_lose_a_server() -> None:
    scene = Scene()
    scene.lost("a:1")
    scene.now += 1
    scene.serving("a:1")
    assert scene.lost("a:1")


def test_losses_are_forgiven_after_exactly_so_long() -> None:
    scene = Scene()
    for _ in range(3):
        scene.lost("c:1")
        scene.now += POLICY.longest_hold_s
        scene.serving("c:1")
    scene.now += POLICY.forgive_s
    scene.lost("c:1")
    assert scene.fleet.judge("c:1", "serving", asked_at=scene.now) == "back"


def test_one_check_without_an_answer_is_enough_for_a_server_that_never_gave_one() -> None:
    scene = Scene(up=False)
    assert scene.fleet.judge("a:1", "silent", asked_at=scene.now) == "out"


def test_a_busy_server_that_answers_calls_stays() -> None:
    scene = Scene()
    for _ in range(10):
        scene.now += 1
        scene.fleet.answered("a:1")
        assert not scene.fleet.judge("a:1", "silent", asked_at=scene.now)
    assert "a:1" in scene.fleet.up()


def test_news_from_before_a_change_changes_nothing() -> None:
    scene = Scene()
    asked_at = scene.now
    scene.now += 1
    scene.lost("a:1")
    scene.fleet.judge("a:1", "serving", asked_at=asked_at)
    assert "a:1" not in scene.fleet.up(), "a check sent before the server was lost"
    sent_at = scene.now
    scene.now += 1
    scene.serving("a:1")
    assert not scene.fleet.lost("a:1", "gone", asked_at=sent_at), "a call sent before it was back"
    assert "a:1" in scene.fleet.up()


def test_when_all_are_out_all_are_asked() -> None:
    scene = Scene()
    for server in SERVERS:
        scene.lost(server)
    assert scene.fleet.up() == []
    assert sorted(scene.fleet.order("anna")) == sorted(SERVERS)


def test_a_rest_is_as_long_as_it_was_to_be() -> None:
    began_s = time.monotonic()
    Scene().fleet.rest(0.02, lambda: False)
    assert time.monotonic() - began_s >= 0.02


def test_nobody_waits_for_verdicts_once_waiting_has_ended() -> None:
    scene = Scene(up=False)
    scene.fleet.end_waiting()
    assert scene.fleet.wait_known(3600.0)


@pytest.mark.parametrize("how", ["up", "stop", "wake"])
def test_a_rest_ends_early_for_what_it_waits_for(how: str) -> None:
    scene = Scene()
    scene.lost("a:1")
    resting, stop = threading.Event(), threading.Event()

    def stopped() -> bool:
        resting.set()
        return stop.is_set()

    def act() -> None:
        assert resting.wait(60)
        if how == "up":
            scene.serving("a:1")
        elif how == "stop":
            stop.set()
            scene.fleet.recheck()
        else:
            scene.fleet.end_waiting()

    acting = threading.Thread(target=act)
    acting.start()
    began = time.monotonic()
    scene.fleet.rest(60.0, stopped)
    assert time.monotonic() - began < 50.0
    acting.join()
