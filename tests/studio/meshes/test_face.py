"""The skin under the mouth controls."""

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.training.visemes import BITE, CONTROLS, OPEN, PRESS, ROUND, WIDE
from studio.meshes.face import (
    REST,
    SEGMENTS,
    SLIT_HALF_WIDTH,
    FaceGrid,
    build_grid,
    deform,
    moving_window,
)
from studio.meshes.head import CENTRE, head_distance, surface_radius
from studio.meshes.shapes import Array

pytestmark = pytest.mark.slow

TOP = SEGMENTS // 4
BOTTOM = 3 * SEGMENTS // 4
RIGHT_CORNER = 0
LEFT_CORNER = SEGMENTS // 2


built_grid = cache(build_grid)


@pytest.fixture
def grid() -> FaceGrid:
    return built_grid()


def skin(grid: FaceGrid, **controls: float) -> Array:
    """(rings, segments, 3) without the cavity."""
    row = REST.copy()
    for name, value in controls.items():
        row[CONTROLS.index(name)] = value
    return deform(grid, row)[grid.cavity_vertices :].reshape(grid.neutral.shape)


def opening(p: Array) -> float:
    return float(p[0, TOP, 1] - p[0, BOTTOM, 1])


def width(p: Array) -> float:
    return float(p[0, RIGHT_CORNER, 0] - p[0, LEFT_CORNER, 0])


def protrusion(p: Array) -> float:
    return float(p[0, [TOP, BOTTOM], 2].mean())


def test_the_skin_lies_on_the_head(grid: FaceGrid) -> None:
    assert np.abs(head_distance(grid.neutral)).max() < 0.01


def test_rays_hit_a_sphere_of_known_radius_on_top() -> None:
    """The cranium is an ellipsoid of half axis 0.82 round y = 0.30, the highest part."""
    up = surface_radius(np.array([[0.0, 1.0, 0.0]]))
    assert up[0] == pytest.approx(0.30 + 0.82 - CENTRE[1], abs=0.03)


def test_the_grid_is_symmetric(grid: FaceGrid) -> None:
    mirror = (SEGMENTS // 2 - np.arange(SEGMENTS)) % SEGMENTS
    np.testing.assert_allclose(grid.neutral[:, mirror] * [-1, 1, 1], grid.neutral, atol=1e-6)


def test_two_quads_share_every_edge_inside(grid: FaceGrid) -> None:
    edges: Counter[tuple[int, int]] = Counter()
    for quad in grid.faces.tolist():
        for a, b in pairwise([*quad, quad[0]]):
            edges[min(a, b), max(a, b)] += 1
    vertices = len(deform(grid, REST))
    ends = {n for n in range(vertices) if n < SEGMENTS or n >= vertices - SEGMENTS}
    open_edges = {edge for edge, quads in edges.items() if quads == 1}
    assert all(a in ends and b in ends for a, b in open_edges)  # the throat, behind the head
    assert len(open_edges) == 2 * SEGMENTS
    assert max(edges.values()) == 2
    assert set(grid.faces.ravel().tolist()) == set(range(vertices))


def test_the_rest_mouth_is_closed(grid: FaceGrid) -> None:
    assert abs(opening(skin(grid))) < 0.02
    assert width(skin(grid)) == pytest.approx(2 * SLIT_HALF_WIDTH, rel=0.2)


def test_rest_controls_change_nothing(grid: FaceGrid) -> None:
    np.testing.assert_array_equal(deform(grid, np.zeros(6)), deform(grid, REST))
    outside = moving_window(grid) == 0
    far = np.abs(skin(grid) - grid.neutral).max(axis=-1) > 0.05
    assert not (far & outside).any()


@pytest.mark.parametrize("opened", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("other", [{}, {"round": 1.0}, {"wide": 1.0}])
def test_pressed_lips_meet(grid: FaceGrid, opened: float, other: dict[str, float]) -> None:
    p = skin(grid, open=opened, press=1.0, **other)
    middle = np.arange(TOP - SEGMENTS // 16, TOP + SEGMENTS // 16 + 1)
    gap = np.linalg.norm(p[0, middle] - p[0, -middle % SEGMENTS], axis=-1)
    assert gap.max() < 0.02


def test_the_opening_grows_with_open(grid: FaceGrid) -> None:
    openings = [opening(skin(grid, open=o)) for o in np.linspace(0, 1, 11)]
    assert all(b > a + 0.005 for a, b in pairwise(openings))
    assert openings[-1] > 0.2


def test_press_closes_by_degrees(grid: FaceGrid) -> None:
    openings = [opening(skin(grid, open=0.7, press=p)) for p in np.linspace(0, 1, 6)]
    assert all(b < a for a, b in pairwise(openings))


def test_round_narrows_and_protrudes(grid: FaceGrid) -> None:
    rest, rounded = skin(grid), skin(grid, round=1.0)
    assert width(rounded) < 0.7 * width(rest)
    assert protrusion(rounded) > protrusion(rest) + 0.05


def test_wide_widens(grid: FaceGrid) -> None:
    rest, wide = skin(grid), skin(grid, wide=1.0)
    assert width(wide) > 1.1 * width(rest)


def test_bite_brings_the_lower_lip_up_and_back(grid: FaceGrid) -> None:
    opened, bitten = skin(grid, open=0.4), skin(grid, open=0.4, bite=1.0)
    moved = bitten[0, BOTTOM] - opened[0, BOTTOM]
    assert moved[1] > 0.04
    assert moved[2] < -0.03
    assert bitten[0, TOP, 1] > opened[0, TOP, 1]


def test_the_tongue_moves_no_skin(grid: FaceGrid) -> None:
    np.testing.assert_array_equal(skin(grid, tongue=1.0), skin(grid))


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_nothing_moves_outside_the_window(controls: list[float]) -> None:
    grid = built_grid()
    rest, moved = deform(grid, REST), deform(grid, np.array(controls))
    assert np.isfinite(moved).all()
    still = np.concatenate([np.zeros(grid.cavity_vertices, bool), moving_window(grid).ravel() == 0])
    np.testing.assert_array_equal(moved[still], rest[still])
    assert np.abs(moved - rest).max() < 0.5


def test_the_window_is_the_lower_face(grid: FaceGrid) -> None:
    moving = grid.neutral[moving_window(grid) > 0]
    assert np.abs(moving[:, 0]).max() <= 0.56
    assert moving[:, 1].max() <= -0.09
    assert moving[:, 2].min() > -0.4
    assert (moving_window(grid)[0] == 1).all()  # all of the rim


def test_the_indices_are_those_of_the_visemes() -> None:
    assert CONTROLS[:5] == ("open", "wide", "round", "press", "bite")
    assert (OPEN, WIDE, ROUND, PRESS, BITE) == (0, 1, 2, 3, 4)
    assert len(REST) == len(CONTROLS)
