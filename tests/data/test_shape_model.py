"""The usual shape: it is that of the good rows, even if most rows are bad."""

from __future__ import annotations

import numpy as np
import pytest

from landmarks_fastai.data.shape_model import ShapeModel, fit_shape_model
from landmarks_fastai.geometry import to_complex

ROWS, LANDMARKS = 120, 8
NO_PAIRS = list(range(LANDMARKS))
PAIRS = [1, 0, 3, 2, 4, 5, 6, 7]
RNG = np.random.default_rng(4)
# symmetric about the y axis, with the pairs 0 and 1, 2 and 3
SHAPE = np.array([-1 - 1j, 1 - 1j, -0.6 + 0.8j, 0.6 + 0.8j, 0, 1.2j, -1.4j, 0.5j])
SHAPE = (SHAPE - SHAPE.mean()) / np.sqrt((abs(SHAPE - SHAPE.mean()) ** 2).mean())
ALL = np.ones((ROWS, LANDMARKS), bool)


def draw_rows(noise: float = 0.02) -> np.ndarray:
    """Return the shape at random positions, sizes and rotations, in pixels."""
    rng = np.random.default_rng(5)
    transform = rng.uniform(10, 40, ROWS) * np.exp(1j * rng.uniform(-3, 3, ROWS))
    deviations = rng.normal(0, noise, (ROWS, LANDMARKS, 2))
    centers = to_complex(rng.uniform(0, 500, (ROWS, 2)))
    return (SHAPE + to_complex(deviations)) * transform[:, None] + centers[:, None]


def distance_from_shape(model: ShapeModel) -> float:
    """Return the root mean square distance of the model's shape from the true one, after alignment."""
    rotation = (model.shape * SHAPE.conj()).sum()
    return float(np.sqrt((abs(model.shape * (abs(rotation) / rotation) - SHAPE) ** 2).mean()))


def test_fit_shape_model_finds_the_shape_and_its_spread():
    model = fit_shape_model(draw_rows(0.05), ALL, NO_PAIRS)
    assert model is not None
    assert distance_from_shape(model) < 0.02
    assert np.sqrt((abs(model.shape) ** 2).mean()) == pytest.approx(1)
    assert np.all((model.spread > 0.02) & (model.spread < 0.06))


@pytest.mark.parametrize("wrong", ["random", "collapsed", "far", "other shape"])
def test_fit_shape_model_ignores_seventy_percent_bad_rows(wrong):
    points = draw_rows()
    bad = np.random.default_rng(6).permutation(ROWS)[: round(0.7 * ROWS)]
    random = to_complex(np.random.default_rng(7).uniform(0, 500, (len(bad), LANDMARKS, 2)))
    if wrong == "random":
        points[bad] = random
    elif wrong == "collapsed":
        points[bad] = random[:, :1] + 0.01 * random
    elif wrong == "far":
        points[np.ix_(bad, range(5))] += 1e5 * random[:, :5]
    else:
        points[bad] = np.take_along_axis(
            points[bad], np.random.default_rng(8).permuted(np.tile(NO_PAIRS, (len(bad), 1)), axis=1), axis=1
        )
    model = fit_shape_model(points, ALL, NO_PAIRS)
    assert model is not None
    assert distance_from_shape(model) < 0.02
    good = np.setdiff1d(np.arange(ROWS), bad)
    scores = model.align(points, ALL).scores
    assert scores[good].max() < 6
    assert scores[bad].max(axis=1).min() > 6


def test_fit_shape_model_with_missing_landmarks_finds_all_positions():
    labeled = np.random.default_rng(9).random((ROWS, LANDMARKS)) < 0.6
    points = np.where(labeled, draw_rows(), 0)
    model = fit_shape_model(points, labeled, NO_PAIRS)
    assert model is not None
    assert distance_from_shape(model) < 0.03
    labeled[:, 3] = False
    model = fit_shape_model(points, labeled, NO_PAIRS)
    assert model is not None
    assert np.flatnonzero(np.isnan(model.shape)).tolist() == [3]
    assert not model.align(points, labeled).scores[:, 3].any()


def test_fit_shape_model_of_coinciding_landmarks_is_none():
    assert fit_shape_model(np.full((ROWS, LANDMARKS), 5 + 5j), ALL, NO_PAIRS) is None


def test_align_marks_rows_with_exchanged_pairs_and_scores_them_at_their_labels():
    points = draw_rows()
    swapped = np.arange(0, ROWS, 7)
    points[swapped] = points[swapped][:, PAIRS]
    model = fit_shape_model(points, ALL, PAIRS)
    assert model is not None
    aligned = model.align(points, ALL)
    assert np.flatnonzero(aligned.is_swapped).tolist() == swapped.tolist()
    assert not aligned.is_reflected.any()
    assert (aligned.scores[swapped][:, :4] > 6).all()
    assert (aligned.scores[swapped][:, 4:] < 6).all()
    other = model.exchanged().align(points, ALL)
    assert np.array_equal(other.is_swapped, ~aligned.is_swapped)


def test_align_marks_reflected_rows_of_a_shape_without_pairs():
    asymmetric = draw_rows() + 0  # a copy
    rows = np.arange(3, ROWS, 10)
    order = [0, 4, 1, 5, 2, 6, 3, 7]  # the names of the points make no pairs
    points = asymmetric[:, order]
    points[rows] = points[rows].conj()
    model = fit_shape_model(points, ALL, NO_PAIRS)
    assert model is not None
    aligned = model.align(points, ALL)
    assert np.flatnonzero(aligned.is_reflected).tolist() == rows.tolist()
    assert not aligned.is_swapped.any()
    assert (aligned.scores < 6).all()
