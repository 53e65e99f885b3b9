"""Objects in front of synthetic faces: flags that agree with the pixels, and unchanged faces."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.data.annotations import OCCLUDED, VISIBLE
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces, random_face
from landmarks_fastai.data.synthetic.head_model import View
from landmarks_fastai.data.synthetic.occluders import OCCLUDERS, covered_points, draw_occluder
from landmarks_fastai.data.synthetic.rendering import OVERSAMPLE, Brush
from landmarks_fastai.errors import UserError


def test_occlusion_changes_only_pixels_of_the_covered_faces() -> None:
    plain, half = (draw_synthetic_faces(24, seed=3, occlusion=part) for part in (0.0, 0.5))
    assert plain.visibility is None
    assert half.visibility is not None
    np.testing.assert_array_equal(plain.points, half.points)
    changed = np.array([(a != b).any() for a, b in zip(plain.images, half.images, strict=True)])
    assert 6 <= changed.sum() <= 18
    assert (half.visibility[~changed] == VISIBLE).all()
    covered = (half.visibility == OCCLUDED).any(axis=1)
    assert covered.sum() >= 0.8 * changed.sum()


def test_occlusion_of_one_covers_every_face() -> None:
    faces = draw_synthetic_faces(12, seed=1, occlusion=1.0)
    assert faces.visibility is not None
    assert ((faces.visibility == OCCLUDED).sum(axis=1) >= 1).sum() >= 10
    assert (faces.visibility == VISIBLE).any()


def test_flags_agree_with_pixels_that_differ() -> None:
    """At a visible landmark far from any object, the image is that without objects; at a covered one not."""
    plain, covered = (draw_synthetic_faces(40, seed=6, size=192, occlusion=part) for part in (0.0, 1.0))
    difference = np.abs(plain.images[:].astype(int) - covered.images[:])[..., 0]
    x, y = np.rint(plain.points).astype(int).transpose(2, 0, 1)
    at_landmark = difference[np.arange(40)[:, None], y, x]
    assert covered.visibility is not None
    hidden = covered.visibility == OCCLUDED
    # a hand has nearly the color of the face, and blur reaches over the edges of objects
    assert (at_landmark[hidden] > 3).mean() > 0.9
    assert (at_landmark[~hidden] == 0).mean() > 0.8


def test_covered_points_are_those_on_opaque_pixels() -> None:
    layer = Image.new("RGBA", (20 * OVERSAMPLE, 10 * OVERSAMPLE))
    # pixels 5 to 7 of the image along x, 2 to 3 along y
    layer.paste((9, 9, 9, 255), (5 * OVERSAMPLE, 2 * OVERSAMPLE, 8 * OVERSAMPLE, 4 * OVERSAMPLE))
    points = np.array([[5, 2], [4.6, 2], [4.4, 2], [7.4, 3.4], [7.6, 3], [6, 3.6], [-3, 2], [6, 40]])
    expected = [True, True, False, True, False, False, False, False]
    assert covered_points(layer, points.astype(np.float64)).tolist() == expected


@pytest.mark.parametrize("draw", OCCLUDERS, ids=lambda draw: draw.__name__)
def test_every_object_is_opaque_and_covers_a_part_of_the_image(draw) -> None:  # type: ignore[no-untyped-def]
    areas = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        layer = Image.new("RGBA", (96 * OVERSAMPLE,) * 2)
        draw(random_face(rng), Brush(layer, View(np.eye(3), 40.0, (48.0, 48.0)), OVERSAMPLE), rng)
        alpha = np.asarray(layer.getchannel("A"))
        assert set(np.unique(alpha)) <= {0, 255}
        areas.append((alpha > 0).mean())
    assert 0.01 < np.mean(areas) < 0.4


def test_occluder_depends_on_seed_only() -> None:
    face = random_face(np.random.default_rng(0))
    view = View(np.eye(3), 40.0, (48.0, 48.0))
    first, again = (draw_occluder(face, view, (96, 96), np.random.default_rng(5)) for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("occlusion", [-0.1, 1.1])
def test_occlusion_outside_range_is_error(occlusion: float) -> None:
    with pytest.raises(UserError, match="occlusion"):
        draw_synthetic_faces(2, seed=0, occlusion=occlusion)
