"""Sigmas: files, repeated labels and residuals of the shape model recover known noise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.metrics import box_size
from landmarks_fastai.evaluation.sigmas import Sigmas, estimate_sigmas, read_sigmas, write_sigmas
from landmarks_fastai.schema import LandmarkSchema

NAMES = tuple("abcdef")
SCHEMA = LandmarkSchema("six", NAMES)
SHAPE = np.array([[30, 30], [66, 30], [48, 50], [34, 70], [62, 70], [48, 40]], float)


def make_dataset(points: np.ndarray, images: np.ndarray | None = None) -> LandmarkDataset:
    n = len(points)
    if images is None:
        images = np.random.default_rng(9).integers(0, 255, (n, 8, 8, 1)).astype(np.uint8)
    return LandmarkDataset(
        images, points.astype(np.float32), SCHEMA, tuple(f"row {i}" for i in range(n)), "test", "0" * 64
    )


def posed_shapes(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the shape, rotated, scaled, shifted and widened at random."""
    angles, scales = rng.normal(0, 0.3, n), rng.uniform(0.8, 1.2, n)
    widened = (SHAPE - 48) * np.stack([rng.uniform(0.8, 1.2, n), np.ones(n)], axis=1)[:, None]
    rotation = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], axis=1)
    turned = np.einsum("nij,nkj->nki", rotation.reshape(n, 2, 2), widened * scales[:, None, None])
    return turned + rng.uniform(40, 56, (n, 1, 2))


def test_sigmas_of_repeated_labels_recover_noise_along_both_axes() -> None:
    rng = np.random.default_rng(0)
    true = posed_shapes(300, rng)
    noise = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])  # sigma: both axes together
    scales = box_size(true)[:, None, None]
    labels = [
        true + scales * noise[None, :, None] / math.sqrt(2) * rng.normal(size=true.shape) for _ in range(3)
    ]
    images = np.tile(rng.integers(0, 255, (300, 8, 8, 1)).astype(np.uint8), (3, 1, 1, 1))
    sigmas = estimate_sigmas(make_dataset(np.concatenate(labels), images))
    np.testing.assert_allclose(sigmas.values, noise, rtol=0.12)
    assert sigmas.origin == "300 images that are labeled more than once"


def test_copied_rows_and_other_objects_in_one_image_are_no_repeated_labels() -> None:
    rng = np.random.default_rng(0)
    true = posed_shapes(80, rng)
    images = np.tile(rng.integers(0, 255, (80, 8, 8, 1)).astype(np.uint8), (2, 1, 1, 1))
    for others in (true, true + 60):
        sigmas = estimate_sigmas(make_dataset(np.concatenate([true, others]), images))
        assert sigmas.origin == "residuals of a linear shape model of 160 labeled rows"


def test_sigmas_of_residuals_follow_label_noise_and_ignore_wrong_labels() -> None:
    rng = np.random.default_rng(1)
    true = posed_shapes(600, rng)
    noise = np.array([0.005, 0.005, 0.005, 0.005, 0.005, 0.05])
    scales = box_size(true)[:, None, None]
    labels = true + scales * noise[None, :, None] / math.sqrt(2) * rng.normal(size=true.shape)
    labels[:30] = labels[:30, ::-1]  # wrong order
    labels[30:40, 0] += 40
    sigmas = estimate_sigmas(make_dataset(labels)).values
    # an upper bound: it also contains the noise of the neighbors
    assert (sigmas >= 0.9 * noise).all()
    assert sigmas[5] == pytest.approx(0.053, rel=0.1)
    assert (sigmas[:5] < 0.025).all()


def test_sigmas_do_not_depend_on_image_size() -> None:
    labels = posed_shapes(100, np.random.default_rng(2)) + np.random.default_rng(3).normal(size=(100, 6, 2))
    small, large = (estimate_sigmas(make_dataset(factor * labels)).values for factor in (1, 10))
    np.testing.assert_allclose(large, small, rtol=1e-3)


def test_sigma_of_rarely_labeled_landmark_and_of_few_rows_is_unknown() -> None:
    labels = posed_shapes(100, np.random.default_rng(2)) + np.random.default_rng(3).normal(size=(100, 6, 2))
    assert np.isnan(estimate_sigmas(make_dataset(labels[:40])).values).all()
    labels[10:, 5] = math.nan
    sigmas = estimate_sigmas(make_dataset(labels)).values
    assert np.isnan(sigmas).tolist() == [False] * 5 + [True]


def test_sigmas_of_coinciding_landmarks_are_unknown() -> None:
    assert np.isnan(estimate_sigmas(make_dataset(np.full((100, 6, 2), 5.0))).values).all()


def test_written_sigmas_are_read_back(tmp_path: Path) -> None:
    sigmas = Sigmas(np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.0623]), "somewhere")
    write_sigmas(tmp_path / "s.csv", sigmas, SCHEMA)
    found = read_sigmas(tmp_path / "s.csv", SCHEMA)
    np.testing.assert_allclose(found.values, sigmas.values)
    assert found.origin == f"file {tmp_path / 's.csv'}"
    # the order of lines and other columns do not matter
    lines = (tmp_path / "s.csv").read_text().splitlines()
    (tmp_path / "r.csv").write_text("\n".join(["note,sigma,landmark"]) + "\n")
    with (tmp_path / "r.csv").open("a") as file:
        file.writelines(f"x,{line.split(',')[1]},{line.split(',')[0]}\n" for line in reversed(lines[1:]))
    np.testing.assert_allclose(read_sigmas(tmp_path / "r.csv", SCHEMA).values, sigmas.values)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["landmark,sigma", "a,0.1"], r"no sigma for 'b' \(5 of 6 landmarks are missing\)"),
        (["landmark,sigma", "nose,0.1"], r"line 2: no landmark 'nose'"),
        (["landmark,sigma", "a,0.1", "a,0.2"], "line 3: 'a' occurs twice"),
        (["landmark,sigma", "a,0"], "line 2: sigma is '0'; enter a fraction"),
        (["landmark,sigma", "a,"], "line 2: sigma is ''; enter a fraction"),
        (["landmark,sigma", "a,x"], "line 2: sigma is 'x'"),
        (["landmark,sd", "a,1"], "no column 'sigma'"),
        ([], "the file is empty"),
    ],
)
def test_file_of_sigmas_with_error_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "s.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message) as error:
        read_sigmas(tmp_path / "s.csv", SCHEMA)
    assert "s.csv" in str(error.value)


def test_missing_file_of_sigmas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--sigmas .*none.csv: cannot be read \(No such file"):
        read_sigmas(tmp_path / "none.csv", SCHEMA)


def test_estimate_of_faces_uses_labels_alone(dataset: LandmarkDataset) -> None:
    sigmas = estimate_sigmas(dataset)
    other = replace(
        dataset, images=np.zeros_like(dataset.images[:]) + np.arange(60)[:, None, None, None].astype(np.uint8)
    )
    np.testing.assert_array_equal(estimate_sigmas(other).values, sigmas.values)
