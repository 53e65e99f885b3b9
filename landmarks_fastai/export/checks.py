"""Comparing an exported file with torch: the deviation of its outputs, and the change of the NME."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.evaluation.report import evaluate_dataset
from landmarks_fastai.export.job import FP16, FP32, INT8, Images
from landmarks_fastai.geometry import Crop, extract_input
from landmarks_fastai.inference.backends import Backend
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader

CHECKED_IMAGES = 64
"""Number of faces, and of random images, on which a file is compared with torch."""

BATCH_SIZES = (1, 3, 60)
"""Sizes of the batches of them; their sum is `CHECKED_IMAGES`."""

MIN_DRAWN_SIDE = 32
"""Synthetic faces are drawn at this side or larger."""


@dataclass(frozen=True)
class Bounds:
    """Largest accepted differences between an exported file and torch.

    Parameters
    ----------
    faces, random
        Largest difference on faces and on random images, in pixels of the input and in percent of
        visibility.
    nme
        Largest increase of the NME, as a fraction of that of torch.
    """

    faces: float
    random: float
    nme: float


BOUNDS = {
    FP32: Bounds(faces=0.02, random=0.05, nme=0.001),
    FP16: Bounds(faces=0.1, random=0.5, nme=0.01),
    INT8: Bounds(faces=2.0, random=5.0, nme=0.05),
}
"""The bounds of each precision.

A network that was trained for a few iterations magnifies the rounding of float32 to 0.015 px on random
images; errors of landmarks are at least ten times as large as the bounds of fp32. With 8-bit integers, the
outputs of the released model differ by up to 0.94 px on faces and 1.2 px on random images
(benchmarks/export.md).
"""


@dataclass(frozen=True)
class Deviation:
    """Differences of the outputs of an exported file from those of torch, over some images.

    In pixels of the input; a difference of 1 % in the probability of visibility counts as 1.

    Parameters
    ----------
    images
        Number of images.
    mean
        Mean absolute difference of the coordinates of the points.
    max
        Largest difference of any output; NaN if an output of torch is not finite.
    """

    images: int
    mean: float
    max: float


@dataclass(frozen=True)
class NmeChange:
    """NME of torch and of an exported file on labeled images, as fractions.

    Parameters
    ----------
    source
        The data set.
    rows
        Number of rows that were evaluated.
    torch, exported
        Mean NME.
    """

    source: str
    rows: int
    torch: float
    exported: float

    @property
    def change(self) -> float:
        """Increase of the NME as a fraction of that of torch."""
        return self.exported / self.torch - 1

    def to_dict(self) -> dict[str, float | int | str]:
        """Return JSON-serializable values."""
        return {**asdict(self), "change": self.change}


def face_inputs(header: ModelHeader, count: int, seed: int = 0) -> Images:
    """Draw (N, S, S, C) uint8 synthetic faces as they are fed to the network of a header."""
    side = max(header.image_size or header.input_size, MIN_DRAWN_SIDE)
    faces = draw_synthetic_faces(count, seed, size=side, color=header.channels == 3)
    return resize_inputs(faces.images, header)


def resize_inputs(images: ImageArray | Images, header: ModelHeader) -> Images:
    """Resize square images as a prediction does: (N, S, S, C) uint8 inputs of the network of a header."""
    return np.stack(
        [
            extract_input(
                image, Crop(0, 0, image.shape[1]), header.input_size, header.channels, header.image_size
            )
            for image in images
        ]
    )


def random_inputs(header: ModelHeader) -> Images:
    """Return `CHECKED_IMAGES` (N, S, S, C) uint8 images of uniform noise."""
    shape = (CHECKED_IMAGES, header.input_size, header.input_size, header.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def run_batches(backend: Backend, images: Images) -> list[NDArray[np.float32]]:
    """Return the outputs for (N, S, S, C) images, run in batches of different sizes."""
    splits = [batch for batch in np.split(images, np.cumsum(BATCH_SIZES)[:-1]) if len(batch)]
    batches = [backend(np.ascontiguousarray(batch)) for batch in splits]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def compare_outputs(
    expected: Sequence[NDArray[np.float32]], actual: Sequence[NDArray[np.float32]], header: ModelHeader
) -> Deviation:
    """Return the differences of two lists of outputs (points, scales, visibility)."""
    differences = [np.abs(one - other) for one, other in zip(expected, actual, strict=True)]
    if header.predicts_visibility:
        differences[-1] = differences[-1] * 100
    largest = float(np.max([difference.max() for difference in differences]))  # np.max keeps NaN
    return Deviation(len(expected[0]), float(differences[0].mean()), largest)


def exceeds(value: float, bound: float) -> bool:
    """Return True if a value is above a bound, or NaN."""
    return not value <= bound


def measure_nme(
    header: ModelHeader, torch_backend: Backend, backend: Backend, rows: LandmarkDataset
) -> NmeChange:
    """Evaluate two backends on labeled rows."""
    scores = [evaluated_nme(Predictor(header, one), rows) for one in (torch_backend, backend)]
    return NmeChange(rows.source, len(rows), *scores)


def evaluated_nme(predictor: Predictor, rows: LandmarkDataset) -> float:
    """Return the mean NME of a model on labeled rows, as a fraction; NaN if none can be normalized."""
    predicted = predictor.predict_batch(rows.images).select(rows.schema)
    return evaluate_dataset(predicted, rows).overall.nme
