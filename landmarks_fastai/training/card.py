"""The model card of a run, as Markdown: made of what was measured. Writes nothing."""

from __future__ import annotations

from typing import Any

from landmarks_fastai.calibration import Calibration
from landmarks_fastai.evaluation import Report


def model_card(header: dict[str, Any], report: Report, data: dict[str, Any]) -> str:
    """Return the card's text.

    Parameters
    ----------
    header
        The model file's header.
    report
        Scores on the validation faces.
    data
        What data.json holds.
    """
    recipe = header["recipe"]
    overall = report.overall
    kind = data["split"]["kind"]
    lines = [
        f"# {header['arch']} with a {header['head']['name']} head, {len(header['schema']['points'])} points",
        "",
        f"Trained {header['created']} by landmarks-fastai {header['package_version']}"
        f" for {recipe['training']['epochs']} epochs, seed {recipe['seed']}.",
        "",
        f"- **Data:** {data['source']}, {data['rows']:,} faces (SHA-256 {data['sha256']}).",
        f"- **Split:** {kind}; {data['split']['rows']['train']:,} faces to train,"
        f" {data['split']['rows']['valid']:,} to validate.",
        *([f"- **Began with:** the weights of {start}."] if (start := recipe["model"]["start"]) else []),
        f"- **Input:** {header['input_size']} px square, {'gray' if header['channels'] == 1 else 'RGB'}.",
        "",
        f"Scores on the validation faces (px of {report.image_size} px images; the kept epoch was chosen by"
        " these same faces, so people who are in neither part are judged a little worse):",
        "",
        "| faces | RMSE px | L1 px | NME | failures at 8 % | AUC at 8 % |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| {overall.faces:,} | {overall.rmse:.3f} | {overall.l1:.3f} |"
        f" {_percent(report.mean_nme(overall))} |"
        f" {_percent(overall.failure_rate_8)} | {overall.auc_8:.3f} |",
        "",
        f"NME is divided by the {report.divided_by}.",
        "",
        *_calibration(report.calibration, header["scale_factor"]),
        "",
        "| point | labelled | mean error px | 95 % below px |",
        "| --- | --- | --- | --- |",
        *(f"| {p.name} | {p.labelled:,} | {p.mean_distance:.2f} | {p.p95:.2f} |" for p in report.points),
        "",
        "Repeat with `landmarks-fastai train --config config.yaml`. `model.safetensors` runs no code when"
        " opened; `model.pkl` is fastai's export and can, so open it only if you trust who made it.",
    ]
    return "\n".join(lines) + "\n"


def _calibration(calibration: Calibration | None, factor: float) -> list[str]:
    if calibration is None:
        return ["The model knows no confidence, so there is no calibration."]
    claimed, true, ece = (
        _percent(share) for share in (calibration.claimed, calibration.true, calibration.ece)
    )
    return [
        f"Confidence is the claimed chance that a point lies within {calibration.near:.2g} px of the truth,"
        f" along x and along y: {claimed} on average, where {true} do; expected calibration error {ece}, rank"
        f" correlation with nearness {calibration.rank_correlation:.2f}. For this the network's scales count"
        f" {factor:.2f} times, which was fitted to these same faces.",
    ]


def _percent(fraction: float) -> str:
    return f"{fraction:.2%}"
