"""Surfaces out of formulas, and the character's parts that are made of them."""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from studio.meshes import clothes, eyes, mouth
from studio.meshes.face import build_grid, deform
from studio.meshes.hair import hair
from studio.meshes.head import CENTRE, head_distance, on_head
from studio.meshes.shapes import (
    Array,
    Mesh,
    joined,
    sheet,
    smoothstep,
    superellipsoid,
    tube,
    turn_y,
    unit_sphere,
)
from studio.meshes.skin import LIP, face_tint


def edge_uses(mesh: Mesh) -> Counter[tuple[int, int]]:
    edges: Counter[tuple[int, int]] = Counter()
    for quad in mesh.faces.tolist():
        for a, b in pairwise([*quad, quad[0]]):
            edges[min(a, b), max(a, b)] += 1
    return edges


def test_a_sheet_has_a_quad_between_any_four_neighbours() -> None:
    assert len(sheet(4, 5, closed=False)) == 3 * 4
    assert len(sheet(4, 5, closed=True)) == 3 * 5
    assert sheet(2, 2, closed=False).tolist() == [[0, 1, 3, 2]]


def test_an_ellipsoid_obeys_its_equation() -> None:
    mesh = superellipsoid((1, 2, 3), (0.5, 2.0, 0.25))
    q = (mesh.vertices - [1, 2, 3]) / [0.5, 2.0, 0.25]
    np.testing.assert_allclose((q**2).sum(axis=-1), 1, atol=1e-9)


def test_a_low_power_makes_a_box() -> None:
    box = superellipsoid((0, 0, 0), (1, 1, 1), 0.12)
    assert np.abs(box.vertices).max() <= 1
    assert np.median(np.abs(box.vertices).max(axis=1)) > 0.9


def test_the_sphere_is_round() -> None:
    np.testing.assert_allclose(np.linalg.norm(unit_sphere().vertices, axis=1), 1, atol=1e-12)


def test_a_tube_keeps_its_radius() -> None:
    path = np.stack([np.zeros(9), np.linspace(0, 2, 9), np.zeros(9)], axis=-1)
    mesh = tube(path, np.linspace(0.1, 0.3, 9), sides=12)
    from_axis = np.linalg.norm(mesh.vertices[:, [0, 2]], axis=1).reshape(9, 12)
    np.testing.assert_allclose(from_axis, np.linspace(0.1, 0.3, 9)[:, None] * np.ones(12))


def test_a_flat_tube_is_thin_along_its_normal() -> None:
    path = np.stack([np.zeros(9), np.linspace(0, 2, 9), np.zeros(9)], axis=-1)
    mesh = tube(path, np.full(9, 0.2), flat=0.5, sides=12)
    assert np.abs(mesh.vertices[:, 0]).max() == pytest.approx(0.2)
    assert np.abs(mesh.vertices[:, 2]).max() == pytest.approx(0.1)


def test_joined_meshes_keep_their_quads() -> None:
    a, b = superellipsoid((0, 0, 0), (1, 1, 1)), unit_sphere(5, 6)
    both = joined([a, b, a])
    last = both.faces[-len(a.faces) :]
    np.testing.assert_array_equal(both.vertices[last], a.vertices[a.faces])
    assert len(both.vertices) == 2 * len(a.vertices) + len(b.vertices)


def test_turning_keeps_lengths_and_takes_z_to_x() -> None:
    turned = turn_y(np.array([[0.0, 3.0, 1.0]]), math.pi / 2)
    np.testing.assert_allclose(turned, [[1, 3, 0]], atol=1e-12)


def test_smoothstep_works_either_way() -> None:
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(smoothstep(0, 1, x), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(1, 0, x), [1, 1, 0.5, 0, 0])


grid = cache(build_grid)
built_hair = cache(hair)

PARTS: dict[str, Callable[[], Mesh]] = {
    "hair": built_hair,
    "brows": eyes.brows,
    "neck": clothes.neck,
    "sweater": clothes.sweater,
    "collar": lambda: joined(clothes.collar()),
    "tongue": mouth.tongue,
    "upper teeth": lambda: mouth.teeth(mouth.UPPER_TEETH, grid().mouth),
    "lower gum": lambda: mouth.gum(mouth.LOWER_TEETH, grid().mouth),
    "lid": lambda: eyes.lid(eyes.UPPER_LID, 1),
    "lash": lambda: eyes.lash(-1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_parts_are_sound(name: str) -> None:
    mesh = PARTS[name]()
    assert np.isfinite(mesh.vertices).all()
    assert np.abs(mesh.vertices).max() < 5
    assert mesh.faces.min() >= 0
    assert mesh.faces.max() < len(mesh.vertices)
    assert max(edge_uses(mesh).values()) == 2


@pytest.mark.slow
def test_the_hair_is_always_the_same() -> None:
    np.testing.assert_array_equal(hair().vertices, built_hair().vertices)


@pytest.mark.slow
def test_the_hair_leaves_the_face_free() -> None:
    """Nothing of it is before the mouth, where the crop rectangle would see it."""
    x, y, z = built_hair().vertices.T
    assert not ((np.abs(x) < 0.45) & (y < 0.0) & (y > -0.9) & (z > 0.3)).any()


def test_points_are_laid_on_the_head() -> None:
    scattered = CENTRE + np.random.default_rng(0).normal(size=(50, 3))
    assert np.abs(head_distance(on_head(scattered, 0.0))).max() < 0.01


def lower_edge(side: int) -> Array:
    return eyes.lid(eyes.UPPER_LID, side).vertices.reshape(26, 60, 3)[0]


def test_the_two_eyes_mirror_each_other() -> None:
    np.testing.assert_allclose(lower_edge(-1)[::-1] * [-1, 1, 1], lower_edge(1), atol=1e-12)


def test_lids_lie_on_the_eye() -> None:
    for shape in (eyes.UPPER_LID, eyes.LOWER_LID):
        radius = np.linalg.norm(eyes.lid(shape, 1).vertices, axis=1)
        assert radius.min() >= eyes.EYE_RADIUS
        assert radius.max() < eyes.EYE_RADIUS + 0.02


@pytest.mark.slow
def test_teeth_stay_behind_closed_lips() -> None:
    lips = deform(grid(), np.zeros(6))[grid().cavity_vertices :].reshape(grid().neutral.shape)[
        0, :, 2
    ]
    for row in (mouth.UPPER_TEETH, mouth.LOWER_TEETH):
        assert mouth.teeth(row, grid().mouth).vertices[:, 2].max() < lips.max()


@pytest.mark.slow
def test_lips_are_redder_than_cheeks_and_glossy() -> None:
    tint = face_tint(grid())
    assert tint.shape == (grid().cavity_vertices + grid().neutral[..., 0].size, 4)
    assert tint.min() >= 0
    assert tint.max() <= 1
    skin = tint[grid().cavity_vertices :].reshape(*grid().mu.shape, 4)
    on_lip = (grid().lip > 0.5) & (grid().lip < 0.8)
    np.testing.assert_allclose(skin[on_lip][:, :3].mean(axis=0), LIP, atol=0.02)
    assert skin[on_lip][:, 3].min() > 0.5
    assert skin[grid().lip > 1.2][:, 3].max() == 0
