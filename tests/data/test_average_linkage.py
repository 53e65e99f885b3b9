"""Average linkage clusters are those of scipy, which needs a matrix of all distances."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from landmarks_fastai.data import average_linkage
from landmarks_fastai.data.average_linkage import cluster_by_mean_cosine


def random_rows(seed: int, n: int, size: int, people: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(people, size))[rng.integers(0, people, n)] + noise * rng.normal(size=(n, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def expected_clusters(rows: np.ndarray, min_cosine: float) -> np.ndarray:
    distances = pdist(rows.astype(np.float64), "cosine")
    clusters = fcluster(linkage(distances, "average"), 1 - min_cosine, "distance")
    _, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 150),
    people=st.integers(1, 30),
    noise=st.sampled_from([0.3, 1.0, 2.0]),
    min_cosine=st.sampled_from([-0.5, 0.0, 0.16, 0.33, 0.8]),
)
def test_cluster_by_mean_cosine_equals_scipy(seed, n, people, noise, min_cosine):
    rows = random_rows(seed, n, 24, people, noise)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(average_linkage, "BLOCK", 16)
        clusters = cluster_by_mean_cosine(rows, min_cosine)
    np.testing.assert_array_equal(clusters, expected_clusters(rows, min_cosine))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    kinds=st.integers(1, 6),
    n=st.integers(1, 40),
)
def test_cluster_by_mean_cosine_groups_equal_rows(seed, kinds, n):
    """Equal cosines, rounded differently, must not leave clusters without a mutual neighbor forever."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, n)
    rows = np.linalg.qr(rng.normal(size=(24, 24)))[0].astype(np.float32)[kind]
    clusters = cluster_by_mean_cosine(rows, 0.5)
    assert len(np.unique(np.stack([clusters, kind]), axis=1).T) == len(np.unique(kind)) == clusters.max() + 1


def test_mutual_pairs_of_a_cycle_returns_nearest_pair():
    neighbors, cosines = np.array([1, 2, 0]), np.array([0.5, 0.7, 0.6], np.float32)
    first, second = average_linkage._mutual_pairs(np.arange(3), neighbors, cosines)
    assert (first.tolist(), second.tolist()) == ([1], [2])


def test_cluster_by_mean_cosine_takes_linear_memory(monkeypatch):
    """A matrix of distances would take 16 MB as float32."""
    monkeypatch.setattr(average_linkage, "BLOCK", 64)
    rows = random_rows(0, 2000, 40, 20, 1.0)
    cluster_by_mean_cosine(rows[:10], 0.3)  # imports scipy
    tracemalloc.start()
    try:
        cluster_by_mean_cosine(rows, 0.3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6
