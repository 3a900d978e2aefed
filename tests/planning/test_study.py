"""A plan and what simulations say of it."""

import pytest

from lipwire.domain import InvalidInput
from lipwire.planning.autoscaling import keda
from lipwire.planning.capacity import Demand
from lipwire.planning.figures import figures
from lipwire.planning.study import Study, SurgeWanted, make_study

pytestmark = pytest.mark.slow

DEMAND = Demand(users=500, avatars=500, talking=30.0, refused=0.02)


@pytest.fixture(scope="module")
def study() -> Study:
    wanted = SurgeWanted(2.0, (None, keda(target=0.25, start_s=30.0)))
    shares: list[float] = []
    made = make_study(
        DEMAND, figures({}, on_gpu=True), gpus=1, sessions=3000, surge=wanted, tell=shares.append
    )
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    return made


def test_the_simulation_refuses_about_what_the_plan_expects(study: Study) -> None:
    machines, outcome = study.tried[0]
    assert machines == study.plan.machines
    assert outcome.sessions == pytest.approx(3000, rel=0.1)
    assert outcome.refused_share == pytest.approx(study.plan.refused, abs=0.02)
    assert outcome.talking == pytest.approx(30.0, rel=0.1)


def test_a_machine_less_is_tried(study: Study) -> None:
    assert [machines for machines, _ in study.tried] == [
        study.plan.machines,
        study.plan.machines - 1,
    ]


def test_a_surge_costs_less_where_servers_are_added(study: Study) -> None:
    none, scaled = study.surges
    assert (none.scaling, scaled.scaling) == ("none", "keda")
    assert none.servers == none.servers_before == study.plan.servers
    assert scaled.servers > scaled.servers_before
    assert scaled.refused < none.refused
    assert none.came == pytest.approx(2 * 30.0 * 1800 / 60, rel=0.15)


def test_arithmetic_alone_takes_no_simulation() -> None:
    study = make_study(DEMAND, figures({}, on_gpu=False), gpus=0, sessions=0)
    assert (study.tried, study.surges) == ((), ())
    assert study.plan.machines >= 1


def test_the_simulated_server_holds_what_the_plan_says() -> None:
    """Cores besides mouths limit it, which leases do not know."""
    slow = figures({"besides_share": 8.0, "cores": 32.0}, on_gpu=True)
    study = make_study(DEMAND, slow, gpus=1, sessions=500)
    assert study.plan.places == 4
    assert study.tried[0][1].talking <= 4 * study.plan.servers


@pytest.mark.parametrize("factor", [0.5, 101.0])
def test_surges_out_of_range_are_refused(factor: float) -> None:
    with pytest.raises(InvalidInput, match="--surge is"):
        make_study(DEMAND, figures({}, on_gpu=True), gpus=1, surge=SurgeWanted(factor, ()))
    with pytest.raises(InvalidInput, match="--sessions is -1"):
        make_study(DEMAND, figures({}, on_gpu=True), gpus=1, sessions=-1)
