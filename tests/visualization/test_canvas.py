"""Drawing primitives: strokes match their formula."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.visualization.canvas import draw_stroke


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
