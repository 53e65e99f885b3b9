"""Random `Annotations` with image files on disk, and their comparison, for round trips through a format."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.data.annotations import NOT_LABELED, OCCLUDED, VISIBLE, Annotations, ImageSource
from landmarks_fastai.schemas import schema_from_names

NAMES = ("left_eye", "right_eye", "nose tip", "left_mouth", "right_mouth", "chin")
SIZES = {"a.png": (40, 30), "b.jpg": (31, 57), "c d.png": (64, 64), "é.png": (200, 120)}
"""Width and height of the image files."""

_FOLDER = tempfile.TemporaryDirectory(prefix="annotation_cases_")


@cache
def case_images() -> tuple[Path, ...]:
    """Return image files with the names and sizes `SIZES`, which exist until the end of the tests."""
    paths = tuple(Path(_FOLDER.name) / name for name in SIZES)
    for seed, path in enumerate(paths):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize(SIZES[path.name]).save(path)
    return paths


@st.composite
def annotation_cases(
    draw,
    *,
    visibility=False,
    boxes=False,
    groups=False,
    columns=False,
    several=True,
    empty_rows=False,
):
    """Draw `Annotations` of 1 to 4 images in the order of their names, and their rows in the order of images.

    Parameters
    ----------
    visibility
        With visibility; some landmarks are occluded.
    boxes
        With a box inside the image for every row.
    groups
        With groups.
    columns
        With the columns "pose" and "session 2".
    several
        Up to three rows an image, else one.
    empty_rows
        Some rows may have no labeled landmark. Otherwise each has at least one, and each landmark is labeled
        in the first row.
    """
    paths = draw(st.lists(st.sampled_from(case_images()), min_size=1, max_size=4, unique=True).map(sorted))
    rows = [i for i in range(len(paths)) for _ in range(draw(st.integers(1, 3)) if several else 1)]
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    n, k = len(rows), len(names)
    sizes = np.array([SIZES[paths[row].name] for row in rows], float)
    points = draw(unit_arrays(n, k * 2)).reshape(n, k, 2) * (sizes - 1)[:, None]
    labeled = draw(masks(n, k))
    if not empty_rows:
        labeled[np.arange(n), draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))] = True
        labeled[0] = True
    points[~labeled] = np.nan
    occluded = draw(masks(n, k))
    corners = draw(unit_arrays(n, 4)).reshape(n, 2, 2)
    low, high = corners.min(axis=1) * (sizes - 2), corners.max(axis=1) * (sizes - 2) + 2
    texts = st.lists(st.sampled_from(["frontal", "Ann", "é 1"]), min_size=n, max_size=n).map(tuple)
    return Annotations(
        schema=schema_from_names("case", names),
        images=tuple(ImageSource(path) for path in paths),
        rows=np.array(rows, np.int64),
        points=points,
        names=tuple(f"row {i}" for i in range(n)),
        source="case",
        visibility=(
            np.where(labeled, np.where(occluded, OCCLUDED, VISIBLE), NOT_LABELED).astype(np.uint8)
            if visibility
            else None
        ),
        boxes=np.concatenate([low, high], axis=1) if boxes else None,
        groups=draw(texts) if groups else None,
        columns={"pose": draw(texts), "session 2": draw(texts)} if columns else {},
    )


def unit_arrays(n, k):
    """Return a strategy of (n, k) numbers from 0 to 1, both included."""
    numbers = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1))
    return st.lists(numbers, min_size=n * k, max_size=n * k).map(
        lambda values: np.array(values).reshape(n, k)
    )


def masks(n, k):
    """Return a strategy of (n, k) masks."""
    return st.lists(st.booleans(), min_size=n * k, max_size=n * k).map(
        lambda values: np.array(values).reshape(n, k)
    )


def assert_same_annotations(
    found, expected, *, visibility=True, boxes=True, groups=True, columns=True, atol=1e-3
):
    """Compare what both have recorded; the images by their names, without their folders.

    Parameters
    ----------
    found, expected
        The `Annotations`.
    visibility, boxes, groups, columns
        Compare them; False for a format that cannot hold them.
    atol
        Largest difference of coordinates in pixels.
    """
    assert not found.bad_rows
    assert found.schema.names == expected.schema.names
    assert set(found.schema.flip_pairs) == set(expected.schema.flip_pairs)
    assert [found.images[row].name for row in found.rows] == [
        expected.images[row].name for row in expected.rows
    ]
    np.testing.assert_allclose(found.points, expected.points, rtol=0, atol=atol)
    if visibility:
        assert_equal_arrays(found.visibility, expected.visibility, 0)
    if boxes:
        assert_equal_arrays(found.boxes, expected.boxes, atol)
    if groups:
        assert found.groups == expected.groups
    if columns:
        assert dict(found.columns) == dict(expected.columns)


def image_names(annotations):
    """Return the file name of the image of each row."""
    return [annotations.images[row].name for row in annotations.rows]


def assert_equal_arrays(found, expected, atol):
    """Compare arrays of which both or neither are None."""
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
