"""Tables of the command line about visibility."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console

from landmarks_fastai.cli.tables import make_table

if TYPE_CHECKING:
    from landmarks_fastai.evaluation.visibility import VisibilityReport


def print_visibility(report: VisibilityReport | None) -> None:
    """Print errors by visibility, and the scores of the predicted visibility; nothing without a report."""
    if report is None:
        return
    console = Console(highlight=False)
    console.print("")
    table = make_table("visibility", "labeled", "mean px", "RMSE px", "precision", "recall", "AP")
    prediction = report.prediction
    for name, errors in (("visible", report.visible), ("occluded", report.occluded)):
        cells = [f"{errors.mean_distance:.2f}", f"{errors.rmse:.2f}"]
        if prediction is not None:
            scores = prediction.visible if name == "visible" else prediction.occluded
            numbers = (scores.precision, scores.recall, scores.average_precision)
            cells += ["–" if math.isnan(number) else f"{number:.3f}" for number in numbers]
        table.add_row(name, f"{errors.landmarks:,}", *cells)
    console.print(table)
    if prediction is None:
        console.print("this model does not predict visibility")
        return
    console.print(
        f"probability that a landmark is visible: {prediction.mean_predicted:.1%} on average, observed"
        f" {prediction.observed:.1%} of {prediction.landmarks:,} landmarks; expected calibration error"
        f" {prediction.ece:.1%}",
        soft_wrap=True,
    )
