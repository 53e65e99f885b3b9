"""What the benchmarks share: people held out, training for so many epochs, and a result file.

People are held out by whole near-duplicate groups (`find_groups`), found on the pixels of all faces.
Scores are those of the last weights: no epoch is chosen by the faces that judge.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.torch_core import set_seed
from numpy.typing import ArrayLike, NDArray
from torch import nn

from landmarks_fastai.config import Recipe
from landmarks_fastai.data.source import default_cache, load_faces
from landmarks_fastai.data.split import Split, find_groups
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.evaluation import Report, evaluate_points
from landmarks_fastai.inference.modelfile import ModelHeader
from landmarks_fastai.inference.predictor import Landmarks, Predictor, torch_run
from landmarks_fastai.training.callbacks import EpochLog, weights_to_keep
from landmarks_fastai.training.learner import augmentation, build_learner, choose_precision

HERE = Path(__file__).resolve().parent
CPU = torch.device("cpu")


def load(data: str) -> tuple[FaceTable, NDArray[np.int64]]:
    """Load faces, and the group of each."""
    table = load_faces(data, default_cache())
    return table, find_groups(table)


def hold_out(
    groups: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (rows to train, rows held out), whole groups at a time."""
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    sizes = np.array([(groups == group).sum() for group in order])
    taken = order[np.cumsum(sizes) <= share * len(groups)]
    out = np.isin(groups, taken)
    return np.flatnonzero(~out), np.flatnonzero(out)


class Quiet:
    """Says an epoch a line."""

    def note(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        """Keep still."""

    def epoch(self, row: dict[str, float]) -> None:
        """Print the numbers that matter."""
        print(f"  epoch {row['epoch']:.0f}: valid rmse {row['rmse']:.3f}, {row['seconds']:.0f} s", flush=True)


def train_on(
    recipe: Recipe, table: FaceTable, train: NDArray[np.int64], valid: NDArray[np.int64]
) -> tuple[Predictor, nn.Module, float]:
    """Train on some rows.

    Returns
    -------
    tuple[Predictor, nn.Module, float]
        The model with its last weights, its network, and the seconds that training took.
    """
    set_seed(recipe.seed, reproducible=True)
    parts = Split(train, valid, np.arange(len(table)), "grouped", recipe.seed)
    learn = build_learner(recipe, table, parts, HERE)
    begun = time.perf_counter()
    with learn.no_logging():
        learn.fit(recipe.training.epochs, cbs=[EpochLog(Quiet())])
    seconds = time.perf_counter() - begun
    learn.model.load_state_dict(weights_to_keep(learn))
    network = learn.model.cpu().eval().to(memory_format=torch.contiguous_format)
    shift = augmentation(learn.dls).label_shift
    header = ModelHeader.from_dict({**learn.header, "label_shift": shift}, HERE)
    return Predictor(header, torch_run(network, header, "cpu")), network, seconds


def judge(predictor: Predictor, table: FaceTable, rows: NDArray[np.int64], flip: bool = False) -> Report:
    """Score a model on some rows."""
    faces = table.rows(rows)
    return score(predictor.predict_crops(faces.images, flip=flip), faces)


def score(found: Landmarks, faces: FaceTable) -> Report:
    """Score what was found of all faces of a table."""
    return evaluate_points(found.points, faces.points, faces.schema, faces.complete, faces.size, found.scales)


def over_people(
    sums: NDArray[np.float64], groups: NDArray[np.int64], counts: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return a mean over (n,) faces, as it would be for 1,000 draws of people: bootstrap (Efron 1979).

    Whole groups are drawn, with replacement. Of a face with several values `sums` holds their sum, and
    `counts` how many they are.
    """
    of = np.unique(groups, return_inverse=True)[1]
    totals = np.stack([np.bincount(of, sums), np.bincount(of, counts)])
    draws = np.random.default_rng(0).integers(0, totals.shape[1], (1000, totals.shape[1]))
    above, below = totals[:, draws].sum(axis=2)
    return np.asarray(above / below)


def mean_and_spread(values: ArrayLike, form: str = ".3f") -> str:
    """Write the mean, signed if `form` says so, ± the sample's standard deviation; of one value no spread."""
    each = np.asarray(values, np.float64)
    mean = format(float(each.mean()), form)
    return mean if len(each) < 2 else f"{mean} ± {format(float(each.std(ddof=1)), form.lstrip('+'))}"


def machine(device: torch.device = CPU) -> str:
    """Say what it ran on, without saying where, and the type that recipes train in there."""
    versions = f"torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"
    dtype = choose_precision("auto", device) or torch.float32
    with_what = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    return f"{with_what}, {versions}, {str(dtype).removeprefix('torch.')}"


def read_results(name: str) -> dict[str, Any]:
    """Return what an earlier, perhaps interrupted, run of a benchmark has measured."""
    path = HERE / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def write_results(name: str, results: dict[str, Any]) -> None:
    """Keep what was measured so far."""
    (HERE / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
