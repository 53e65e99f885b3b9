"""Groups of similar rows are those of comparing all pairs, in memory linear in the rows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from landmarks_fastai.data import similar_pairs
from landmarks_fastai.data.aligned_patches import unit_rows
from landmarks_fastai.data.similar_pairs import DisjointSets, group_similar
from landmarks_fastai.utils import processors

MIN_COSINE = 0.88


def random_patches(
    rng: np.random.Generator, people: int, frames: int, noise: float, size: int = 24, dtype: type = np.float32
) -> np.ndarray:
    """Return (people · frames, 2, size) patches in random order, on the borderline of being similar."""
    faces = rng.normal(size=(people, 1, 2, size)) * np.geomspace(3, 0.3, size)
    patches = (faces + noise * rng.normal(size=(people, frames, 2, size))).reshape(-1, 2, size)
    patches = rng.permutation(patches / abs(patches).max(axis=2, keepdims=True))
    return np.rint(127 * patches).astype(np.int8) if dtype is np.int8 else patches.astype(dtype)


def all_pairs(patches: np.ndarray) -> np.ndarray:
    """Return the connected components of all similar pairs, numbered by first appearance."""
    rows = unit_rows(patches).astype(np.float64)
    components = connected_components(coo_array(rows @ rows.T >= MIN_COSINE))[1]
    _, first, inverse = np.unique(components, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    people=st.integers(1, 40),
    frames=st.integers(1, 8),
    noise=st.sampled_from([0.0, 0.3, 0.45, 0.6]),
    dense=st.sampled_from([0.0, 1 / 64, 1.0]),
    dtype=st.sampled_from([np.float32, np.int8]),
)
@example(seed=0, people=1, frames=1, noise=0.0, dense=0.0, dtype=np.float32)
def test_group_similar_equals_comparison_of_all_pairs(seed, people, frames, noise, dense, dtype):
    """With sketches of 5 of 48 dimensions and small blocks, so that all ways of comparing are used."""
    patches = random_patches(np.random.default_rng(seed), people, frames, noise, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BLOCK": 16, "SKETCH": 5, "SAMPLE": 30, "DENSE": dense, "CHUNK": 7}.items():
            patch.setattr(similar_pairs, name, value)
        groups = group_similar(patches, MIN_COSINE)
    np.testing.assert_array_equal(groups, all_pairs(patches))


def test_group_similar_examples_have_groups_of_several_rows_and_single_rows():
    """Otherwise the test above would show nothing."""
    sizes = np.bincount(all_pairs(random_patches(np.random.default_rng(3), 40, 8, 0.45)))
    assert (sizes == 1).any()
    assert (sizes > 4).any()


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_sketch_cosines_are_upper_bounds(monkeypatch, dtype):
    patches = random_patches(np.random.default_rng(5), 30, 4, 0.3, dtype=dtype)
    monkeypatch.setattr(similar_pairs, "SAMPLE", 50)
    for size in (1, 5, 20, 47):
        monkeypatch.setattr(similar_pairs, "SKETCH", size)
        sketches = similar_pairs._sketch(patches)
        assert sketches.shape == (120, size + 1)
        np.testing.assert_allclose(np.linalg.norm(sketches, axis=1), 1, atol=1e-5)
        rows = unit_rows(patches)
        excess = sketches @ sketches.T - rows @ rows.T
        assert excess.min() > -similar_pairs.TOLERANCE / 50
        # tight enough to be of use: with 47 of 48 dimensions, nothing is lost
        assert np.median(excess) < {1: 1.2, 5: 0.5, 20: 0.1, 47: 1e-2}[size]


def test_group_similar_of_many_frames_of_one_face_takes_linear_memory(monkeypatch):
    """All 8 million pairs are similar; a list of them would take 128 MB, their cosines 64 MB."""
    monkeypatch.setattr(processors, "available_processors", lambda: 2)
    monkeypatch.setattr(similar_pairs, "BLOCK", 512)
    patches = random_patches(np.random.default_rng(0), 1, 4000, 0.05, size=4)
    group_similar(patches[:10], MIN_COSINE)  # imports scipy
    tracemalloc.start()
    try:
        groups = group_similar(patches, MIN_COSINE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not groups.any()
    # the sketches, and what each thread needs for two blocks
    assert peak < 4 * patches.nbytes + 2 * 64 * similar_pairs.BLOCK**2


@settings(max_examples=50)
@given(n=st.integers(1, 30), data=st.data())
def test_disjoint_sets_equal_connected_components(n, data):
    rows = st.integers(0, n - 1)
    sets = DisjointSets(n)
    graph = np.eye(n, dtype=bool)
    for pairs in data.draw(st.lists(st.lists(st.tuples(rows, rows), max_size=8), max_size=5)):
        first, second = np.array(pairs, np.int64).reshape(-1, 2).T
        sets.join(first, second)
        graph[first, second] = True
        count, components = connected_components(graph, directed=False)
        labels = sets.labels()
        assert labels.max() + 1 == count
        assert len(np.unique(np.stack([labels, components]), axis=1).T) == count
        lowest = np.unique(labels, return_index=True)[1]
        np.testing.assert_array_equal(lowest, np.unique(sets.find(np.arange(n))))
