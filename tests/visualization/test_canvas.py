"""Drawing primitives: strokes match their formula."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.visualization.canvas import Layer, draw_stroke, draw_strokes


@given(st.lists(st.floats(-80, 260), min_size=4, max_size=4), st.floats(0.3, 12))
@settings(max_examples=60, deadline=None)
def test_stroke_equals_distance_formula_across_slabs(ends: list[float], radius: float) -> None:
    start, end = np.array(ends[:2]), np.array(ends[2:])
    canvas = np.zeros((150, 190, 3), np.uint8)
    draw_stroke(canvas, start, end, radius, "#FFFFFF")
    y, x = np.mgrid[:150, :190]
    direction = end - start
    along = (x - start[0]) * direction[0] + (y - start[1]) * direction[1]
    along = np.clip(along / max(direction @ direction, 1e-12), 0, 1)
    distance = np.hypot(x - start[0] - along * direction[0], y - start[1] - along * direction[1])
    expected = 255 * np.clip(radius + 0.5 - distance, 0, 1)
    assert np.abs(canvas[..., 0] - expected).max() <= 0.51


@given(
    st.lists(st.lists(st.floats(-20, 60), min_size=4, max_size=4), min_size=1, max_size=6),
    st.floats(0.3, 6),
    st.floats(0.1, 1),
)
@settings(max_examples=60, deadline=None)
def test_strokes_of_a_layer_equal_strokes_painted_one_after_the_other(
    ends: list[list[float]], radius: float, opacity: float
) -> None:
    points = np.array(ends)
    colors = ["#FF0000", "#00FF00", "#0000FF", "#FFFFFF", "#000000", "#808080"][: len(points)]
    inner = np.where(np.arange(len(points)) % 2, radius / 2, 0.0)
    together, single = (np.full((37, 41, 3), 90, np.uint8) for _ in range(2))
    outline = Layer(radius + 1, ["#101418"] * len(points), opacity)
    draw_strokes(together, points[:, :2], points[:, 2:], [outline, Layer(radius, colors, inner=inner)])
    for point in points:
        draw_stroke(single, point[:2], point[2:], radius + 1, "#101418", opacity)
    for point, color, hole in zip(points, colors, inner.tolist(), strict=True):
        draw_stroke(single, point[:2], point[2:], radius, color, inner=hole)
    assert np.abs(together.astype(int) - single).max() <= 1  # rounding


def test_stroke_on_a_part_of_an_image_changes_only_that_part() -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    draw_stroke(image[5:20, 10:30], np.array([-3.0, 7.0]), np.array([25.0, 7.0]), 2.0, "#FFFFFF")
    expected = np.zeros((30, 40), bool)
    expected[11:14, 10:30] = True
    np.testing.assert_array_equal((image == 255).all(axis=2), expected)
    assert (image[~expected] < 255).all()


def test_stroke_with_unknown_or_huge_coordinates_is_clipped_or_left_out() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    starts = np.array([[np.nan, 1.0], [np.inf, 2.0], [1e30, 1e30]])
    draw_strokes(image, starts, starts[::-1], [Layer(2.0, ["#FFFFFF"] * 3)])
    assert not image.any()
    draw_strokes(image, np.array([[-1e5, 4.0]]), np.array([[1e5, 4.0]]), [Layer(1.0, ["#FFFFFF"])])
    assert (image[4] == 255).all()
