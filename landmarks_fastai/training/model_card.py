"""The model card of a run: a Markdown summary of the model, its data and its scores."""

from __future__ import annotations

from typing import Any

from landmarks_fastai.evaluation.calibration import Calibration
from landmarks_fastai.evaluation.report import Report
from landmarks_fastai.evaluation.visibility import VisibilityReport
from landmarks_fastai.model_files.header import ModelHeader


def model_card(header: ModelHeader, report: Report, data: dict[str, Any], epochs: int) -> str:
    """Return the text of the model card.

    Parameters
    ----------
    header
        Header of the model file.
    report
        Scores on the validation rows.
    data
        Content of data.json (`describe_data`).
    epochs
        Number of epochs that were completed.
    """
    return (
        "\n".join([*_overview(header, data, epochs), "", *_scores(report, header.scale_factor), "", USAGE])
        + "\n"
    )


USAGE = (
    "Train again with `landmarks-fastai train --config config.yaml`. Opening `model.safetensors` executes no"
    " code; `model.pkl` is a fastai export and can execute code, so open it only if you trust its author."
)


def _overview(header: ModelHeader, data: dict[str, Any], epochs: int) -> list[str]:
    """Return the title, and the lines about training, data and input."""
    config, split = header.config, data["split"]
    init_from, planned = config["model"]["init_from"], config["training"]["epochs"]
    of_planned = "" if epochs == planned else f" of {planned:,}"
    return [
        f"# {header.arch} with a {header.head['name']} head, {len(header.landmark_schema)} landmarks",
        "",
        f"Trained on {header.created} with landmarks-fastai {header.package_version}"
        f" for {epochs:,}{of_planned} epochs, seed {config['seed']}.",
        "",
        f"- **Data:** {data['source']}, {data['rows']:,} rows (SHA-256 {data['sha256']}).",
        f"- **Split:** {split['kind']}; {split['rows']['train']:,} training rows,"
        f" {split['rows']['valid']:,} validation rows.",
        *([] if init_from is None else [f"- **Initialized from:** the weights of {init_from}."]),
        f"- **Input:** {header.input_size} px crop, {'gray' if header.channels == 1 else 'RGB'}.",
    ]


def _scores(report: Report, scale_factor: float) -> list[str]:
    """Return the scores overall and by landmark, and the paragraph about calibration."""
    overall = report.overall
    return [
        f"Scores on the validation rows, in pixels of {report.image_size} x {report.image_size} images."
        " The weights are those of the best epoch on these rows, so scores on unseen identities are"
        " slightly worse.",
        "",
        "| rows | RMSE px | L1 px | NME | failures at 8 % | AUC at 8 % |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| {overall.faces:,} | {overall.rmse:.3f} | {overall.l1:.3f} |"
        f" {_percent(report.mean_nme(overall))} | {_percent(overall.failure_rate_8)} | {overall.auc_8:.3f} |",
        "",
        f"NME is normalized by the {report.normalizer_name}.",
        "",
        _calibration(report.calibration, scale_factor),
        "",
        *_visibility(report.visibility),
        "| landmark | labeled | mean error px | 95th percentile px |",
        "| --- | --- | --- | --- |",
        *(
            f"| {scores.name} | {scores.labeled:,} | {scores.mean_distance:.2f} | {scores.p95:.2f} |"
            for scores in report.landmarks
        ),
    ]


def _calibration(calibration: Calibration | None, scale_factor: float) -> str:
    """Return the paragraph about the model's confidence."""
    if calibration is None:
        return "The model does not estimate confidence, so there is no calibration."
    mean, observed = _percent(calibration.mean_confidence), _percent(calibration.observed)
    return (
        f"Confidence is the predicted probability that a landmark lies within {calibration.radius:.2g} px of"
        f" its true position along x and along y: {mean} on average, observed {observed}. The expected"
        f" calibration error is {_percent(calibration.ece)}, the rank correlation of confidence and accuracy"
        f" {calibration.rank_correlation:.2f}. The network's scales are multiplied by {scale_factor:.2f}, a"
        " factor fitted to these rows."
    )


def _visibility(report: VisibilityReport | None) -> list[str]:
    """Return the paragraph about visibility; nothing if the labels do not distinguish it."""
    if report is None:
        return []
    lines = [
        f"The mean error is {report.visible.mean_distance:.2f} px for visible landmarks and"
        f" {report.occluded.mean_distance:.2f} px for occluded ones."
    ]
    if report.prediction is not None:
        scores = report.prediction.occluded
        lines.append(
            " The model predicts the probability that a landmark is visible: it finds occluded landmarks with"
            f" an average precision of {scores.average_precision:.3f} (precision {scores.precision:.3f},"
            f" recall {scores.recall:.3f} at a probability of {report.prediction.threshold:g}), with an"
            f" expected calibration error of {_percent(report.prediction.ece)}."
        )
    return ["".join(lines), ""]


def _percent(fraction: float) -> str:
    return f"{fraction:.2%}"
