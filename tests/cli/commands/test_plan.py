"""`lipwire plan`, as whoever calls it sees it."""

import json

import pytest
from tests.cli.conftest import Lipwire


def test_a_plan_is_printed_beside_the_guides(lipwire: Lipwire) -> None:
    plan = lipwire("plan", "--users", 1000, "--concurrent", "1%", "--gpus", 1, "--sessions", 200)
    assert plan.code == 0, plan.err
    assert "1,000 users, 1,000 avatars, 10 talk at once, 25 fps" in plan.out
    assert "21 (21 for memory, 1 for speed)" in plan.out
    assert "2,600.0 GB" in plan.out
    assert "What decides is speed" in plan.out
    assert "320 fps of an RTX 4090" in plan.out
    assert "simulated, seed 1" in plan.out


def test_json_has_everything(lipwire: Lipwire) -> None:
    plan = lipwire(
        "plan", "--users", 300, "--concurrent", 5, "--sessions", 200, "--surge", 2,
        "--scaling", "keda", "--target", 0.2, "--frame-ms", 20, "--json",
    )  # fmt: skip
    assert (plan.code, plan.err) == (0, "")
    document = json.loads(plan.out)
    assert document["demand"]["talking"] == 5
    assert document["figures"]["frame_ms"] == {
        "value": 20.0,
        "unit": "ms",
        "kind": "given",
        "why": "",
    }
    assert document["guide"]["gpus"] == 7
    assert document["plan"]["machines"] == document["simulated"][0]["machines"]
    (surge,) = document["surges"]
    assert surge["scaling"] == "keda"


@pytest.mark.parametrize("share", ["1%", "0.01", "10"])
def test_people_at_once_are_a_number_or_a_share(lipwire: Lipwire, share: str) -> None:
    plan = lipwire("plan", "--users", 1000, "--concurrent", share, "--sessions", 0, "--json")
    assert json.loads(plan.out)["demand"]["talking"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--concurrent", "many"], "--concurrent is 'many'; allowed are"),
        (["--concurrent", "101%"], "--concurrent is 101%; allowed is"),
        (["--concurrent", "-5"], "--concurrent is '-5'; allowed are"),
        (["--concurrent", "5000"], "--concurrent is 5000 people"),
        (["--frame-ms", "0"], "--frame-ms is 0; allowed is"),
        (["--fps", "0"], "--fps is 0; allowed is"),
        (["--gpus", "-1"], "--gpus is -1; allowed are"),
        (["--zipf", "9"], "exponent of Zipf's law is 9; allowed are"),
        (["--surge", "0"], "--surge is 0; allowed are"),
        (["--target", "0"], "target is 0; allowed is"),
        (["--density", "none.json"], "none.json cannot be read"),
        (["--cores", "0.5"], "holds no session"),
    ],
)
def test_bad_input_is_one_line(lipwire: Lipwire, arguments: list[str], says: str) -> None:
    plan = lipwire("plan", "--users", 1000, *arguments)
    assert plan.code == 2
    assert says in plan.err
    assert plan.err.count("\n") == 1
    assert plan.out == ""
