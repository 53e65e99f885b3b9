"""Write a trained model as one file for distribution, in the format of a runtime and at a precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from landmarks_fastai.commands.evaluation_data import load_model_data, select_unseen
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.export.checks import Bounds, resize_inputs
from landmarks_fastai.export.exporting import CALIBRATION_IMAGES, ExportOptions, export_network
from landmarks_fastai.export.job import FP32, INT8, PRECISIONS, Images
from landmarks_fastai.export.record import ExportRecord
from landmarks_fastai.export.targets import TARGETS, Target, check_precision, find_target
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.discovery import resolve_model
from landmarks_fastai.model_files.header import MODEL_NAME
from landmarks_fastai.model_files.loading import LoadedModel, open_model
from landmarks_fastai.utils.files import remove_stale_partials
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import suggest

MAX_ROWS = 1000
"""Largest number of rows on which the NME is compared."""


@dataclass(frozen=True, eq=False)
class ExportResult:
    """An exported file.

    Parameters
    ----------
    path
        The file.
    size
        Its size in bytes, with the files that belong to it.
    record
        The deviation from torch, which is also in its metadata.
    notes
        Lines about the data and the calibration.
    """

    path: Path
    size: int
    record: ExportRecord
    notes: tuple[str, ...] = ()


def export_model(
    model: str | Path,
    out: str | Path | None = None,
    target: str | None = None,
    precision: str = FP32,
    *,
    data: str | Path | DataConfig | None = None,
    overwrite: bool = False,
    unchecked: bool = False,
    bounds: Bounds | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Write a model in the format of a runtime, and compare its outputs with those of torch.

    Paths in the model's config are reduced to their last part.

    Parameters
    ----------
    model
        A ``.safetensors`` file, run folder or name of a released model.
    out
        The file to write; None: the name of the model with the suffix of the target, in the working
        directory.
    target
        Name of the format (`TARGETS`); None: the one with the suffix of `out`.
    precision
        fp32, fp16 or int8.
    data
        Labeled data on which the NME is compared, and from which the images for the calibration of int8 are
        taken.
    overwrite
        Replace an existing file.
    unchecked
        Write a file that this machine cannot run.
    bounds
        Largest accepted differences; None: those of the precision.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.

    Raises
    ------
    UserError
        If the model has no torch weights, the file exists, the format or precision is not supported, or a
        package is not installed.
    RunError
        If an output differs too much; no file is written then, and an existing one is unchanged.
    """
    if out is None and target is None:
        raise UserError(f"the file or its format is missing; use --out FILE or --format {'|'.join(TARGETS)}")
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision}: no such precision; {suggest(precision, PRECISIONS)}")
    path = Path(out) if out is not None else _default_name(Path(model), target, precision)
    chosen = find_target(path, target)
    check_precision(chosen, precision, str(path))
    chosen.exporter()
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already exists; choose another name, or use --overwrite")
    files = [path.with_suffix(suffix) for suffix in (path.suffix, *chosen.companions)]
    remove_stale_partials(path.parent, [file.name for file in files])
    opened = open_model(model)
    if opened.network is None:
        raise UserError(f"{model}: an ONNX file cannot be converted; use the .safetensors file next to it")
    header = opened.header.model_copy(update={"config": _strip_folders(opened.header.config)})
    rows, calibration, notes = _labeled_rows(opened, data, precision, cache, progress)
    options = ExportOptions(precision, calibration=calibration, rows=rows, unchecked=unchecked, bounds=bounds)
    record = export_network(opened.network, header, path, chosen, options)
    return ExportResult(path, sum(map(file_size, files)), record, tuple(notes))


def file_size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _default_name(model: Path, target: str | None, precision: str) -> Path:
    """Return the name of the file if none is given, such as resnet18-int8.onnx, in the working directory."""
    found: Target = find_target(Path(f"model{TARGETS[target].suffix}" if target in TARGETS else ""), target)
    stem = model.resolve().parent.name if model.name == MODEL_NAME else model.stem
    return Path(f"{stem}{'' if precision == FP32 else f'-{precision}'}{found.suffix}")


def _labeled_rows(
    model: LoadedModel,
    data: str | Path | DataConfig | None,
    precision: str,
    cache: Path | None,
    progress: Progress | None,
) -> tuple[LandmarkDataset | None, tuple[Images, str] | None, Sequence[str]]:
    """Return the rows for the NME, other ones for the calibration of int8, and lines about both."""
    if data is None:
        return None, None, []
    dataset = load_model_data(model.header, data, cache=cache, progress=progress)
    Landmarks.empty(model.header.landmark_schema).select(dataset.schema)  # checked before the conversion
    chosen, about_rows = select_unseen(dataset, [resolve_model(model.path)], [model.header])
    notes = [*dataset.notes, *about_rows]
    shuffled = np.random.default_rng(0).permutation(chosen)
    calibration = None
    if precision == INT8 and len(shuffled) > 1:
        count = min(CALIBRATION_IMAGES, len(shuffled) // 2)
        images = resize_inputs(dataset.subset(shuffled[:count]).images, model.header)
        calibration = images, f"{count} rows of {dataset.source}"
        shuffled = shuffled[count:]
        notes.append(f"8-bit ranges from {count:,} rows, which the NME leaves out")
    if len(shuffled) > MAX_ROWS:
        notes.append(f"NME on {MAX_ROWS:,} of {len(shuffled):,} rows, chosen at random")
    return dataset.subset(np.sort(shuffled[:MAX_ROWS])), calibration, notes


def _strip_folders(config: dict[str, Any]) -> dict[str, Any]:
    """Reduce the paths in a config to their last part, so that a distributed file reveals no folders."""
    stripped = {group: dict(config.get(group, {})) for group in ("data", "model")}
    for group, key in (("data", "source"), ("data", "corrections"), ("model", "init_from")):
        path = stripped[group].get(key)
        if isinstance(path, str):
            stripped[group][key] = PurePath(path).name
    return {**config, **stripped}
