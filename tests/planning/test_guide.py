"""The guide's own arithmetic gives the guide's own numbers."""

import pytest

from lipwire.planning.guide import USER_MB, guides_plan


def test_a_thousand_users_are_the_guides() -> None:
    plan = guides_plan(1000, talking=8, fps=40)
    # "1000 models x 500 MB = 500 GB (20+ GPUs with 24GB each)"
    assert plan.gpus_for_memory == 21
    assert 500 / 24 > 20
    assert plan.gpus_for_speed == 1
    # "2.6 TB (with preload)", "400 GB (with LRU cache)"
    assert (plan.memory_gb, plan.cached_memory_gb) == (2600, 400)
    assert USER_MB == 2600


@pytest.mark.parametrize(("gpus", "clients"), [(1, 8), (2, 16), (4, 32)])
def test_gpus_carry_the_guides_clients(gpus: int, clients: int) -> None:
    # "4 RTX 4090: 1280 FPS (32 clients x 40 FPS)"
    assert guides_plan(1, talking=clients, fps=40).gpus_for_speed == gpus
    assert guides_plan(1, talking=clients + 1, fps=40).gpus == gpus + 1
