"""The results of a run: evaluating the learner, and writing scores, plots, models and the model card."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from numpy.typing import NDArray
from torch import Tensor

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.evaluation.calibration import (
    calibrate_visibility,
    confidence_from_scale,
    fit_scale_factor,
    fit_visibility_calibration,
)
from landmarks_fastai.evaluation.report import Report, evaluate_dataset
from landmarks_fastai.export.checks import CHECKED_IMAGES, resize_inputs
from landmarks_fastai.export.onnx import export_onnx
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.graphs import open_graph
from landmarks_fastai.model_files.header import MODEL_NAME, ModelHeader
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.model_files.weights import read_contents
from landmarks_fastai.networks.coordinates import denormalize_points
from landmarks_fastai.networks.outputs import split_output
from landmarks_fastai.training.dataloaders import scored_rows
from landmarks_fastai.training.learner import get_augmentation
from landmarks_fastai.training.model_card import model_card
from landmarks_fastai.training.run_folder import (
    CARD_NAME,
    CURVES_NAME,
    METRICS_NAME,
    ONNX_NAME,
    PICKLE_NAME,
    SAMPLES_NAME,
    describe_data,
)
from landmarks_fastai.utils.files import atomic_write, write_json, write_text
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.sheets import evaluation_sheet
from landmarks_fastai.visualization.training_plots import plot_history

SAMPLES_SHOWN = 16
"""Number of validation rows in samples.png."""


def write_results(
    learn: Learner, dataset: LandmarkDataset, split: Split, folder: Path, history: list[dict[str, float]]
) -> Report:
    """Evaluate a learner on the validation rows and write the results to its run folder.

    Parameters
    ----------
    learn
        The learner with the weights to evaluate; its model is moved to the CPU.
    dataset, split
        The data set, and its validation rows, of which `scored_rows` are evaluated.
    folder
        The run folder.
    history
        Rows of the `EpochLog`.

    Returns
    -------
    Report
        Scores on the validation rows.

    Raises
    ------
    UserError
        If the model has diverged, so that a prediction is NaN.
    RunError
        If a file cannot be written, or the ONNX export fails.
    """
    two_protocols = bool(learn.header["head"].get("two_protocols", False))
    valid = dataset.subset(scored_rows(dataset, split, two_protocols))
    predicted = predict_validation(learn, dataset)
    # the scales are learned from training rows and too small for unseen identities
    factor = fit_scale_factor(predicted.points, valid.points, predicted.scales)
    visibility = fit_visibility_calibration(predicted.visibility, valid.landmarks.visibility)
    predicted = _calibrate(predicted, factor, dataset.size, visibility)
    report = evaluate_dataset(predicted, valid)
    metrics = report.to_dict()
    write_json(folder / METRICS_NAME, {"faces": "validation", **metrics})
    if history:
        save_png(folder / CURVES_NAME, plot_history(pd.DataFrame(history)))
    shown = np.linspace(0, len(valid) - 1, min(SAMPLES_SHOWN, len(valid))).astype(np.int64)
    save_png(folder / SAMPLES_NAME, evaluation_sheet(valid, predicted, report.nme, shown))
    learn.header = {
        **learn.header,
        "metrics": {"image_size": report.image_size, **metrics["overall"]},
        "scale_factor": factor,
        "visibility_calibration": visibility,
        "label_bias": round(get_augmentation(learn.dls).label_bias, 6),
    }
    header = ModelHeader.from_dict(learn.header, folder / MODEL_NAME)
    faces = resize_inputs(valid.images[:CHECKED_IMAGES], header)
    write_models(learn, header, folder, faces)
    write_text(folder / CARD_NAME, model_card(header, report, describe_data(dataset, split), len(history)))
    return report


def predict_validation(learn: Learner, dataset: LandmarkDataset) -> Landmarks:
    """Return the landmarks of the scored validation rows, in pixels of the data set.

    Scales and visibility are not calibrated.
    """
    normalized, _ = learn.get_preds(ds_idx=1)
    visibility = bool(learn.header["head"].get("visibility", False))
    output = split_output(normalized.as_subclass(Tensor).float(), visibility)
    predicted = Landmarks.from_points(denormalize_points(output.points, dataset.size).numpy(), dataset.schema)
    if output.log_scales.shape[-1]:
        scales = output.log_scales[..., 0].exp().numpy() * np.float32(dataset.size)
        predicted = replace(predicted, scales=scales)
    if output.visibility is not None:
        predicted = replace(predicted, visibility=output.visibility.sigmoid().numpy())
    return predicted


def _calibrate(predicted: Landmarks, factor: float, size: int, visibility: tuple[float, float]) -> Landmarks:
    """Calibrate scales and visibility, and compute the confidence from the scales."""
    scales = factor * predicted.scales
    return replace(
        predicted,
        scales=scales,
        confidence=confidence_from_scale(scales, size).astype(np.float32),
        visibility=calibrate_visibility(predicted.visibility, visibility).astype(np.float32),
    )


def write_models(learn: Learner, header: ModelHeader, folder: Path, faces: NDArray[np.uint8]) -> None:
    """Write the model as safetensors, fastai export and ONNX, which is compared with torch on `faces`."""
    learn.model.cpu().eval().to(memory_format=torch.contiguous_format)
    save_model(folder / MODEL_NAME, learn.model.state_dict(), header)
    for metric in learn.metrics:  # so that the exported learner does not include the validation points
        metric.reset()
    with atomic_write(folder / PICKLE_NAME) as partial:
        learn.export(partial.absolute())
    export_onnx(learn.model, header, folder / ONNX_NAME, faces)
    with suppress(LandmarksError):  # `predict` tries again, and reports it
        open_graph(read_contents(folder / MODEL_NAME))  # cached, so that `predict` starts without torch
