"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from landmarks_fastai.cli.options import DataOption, DeviceOption, ModelsArgument, TrustOption


def evaluate(
    models: ModelsArgument,
    data: DataOption = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out",
            help="Folder for the report. Default: evaluation, in the folder of the model.",
            metavar="FOLDER",
        ),
    ] = None,
    rows: Annotated[
        str,
        typer.Option(
            "--rows", help="auto (only rows that the model was not trained on) or all.", metavar="ROWS"
        ),
    ] = "auto",
    flip: Annotated[
        bool, typer.Option("--flip", help="Average with the prediction on the mirrored image.")
    ] = False,
    device: DeviceOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Evaluate a model on labeled data.

    Prints metrics, errors by landmark and the calibration, and saves plots and the 16 worst rows.

    Without --data, the data set of the run is used. On this data, only rows that the model was not trained on
    are evaluated. Several models are evaluated as an ensemble, on rows that none of them was trained on.

    For example:

      landmarks-fastai evaluate runs/default

      landmarks-fastai evaluate runs/default/model.onnx --data my_landmarks.csv --out report

      landmarks-fastai evaluate runs/default runs/default-2 --out report
    """
    from landmarks_fastai.cli.progress import download_progress
    from landmarks_fastai.cli.tables import print_report
    from landmarks_fastai.commands import evaluate as command

    with download_progress() as progress:
        result = command.evaluate(
            models,
            data,
            out=out,
            rows=rows,
            flip=flip,
            device=device,
            trust_pickle=trust_pickle,
            progress=progress,
        )
    for note in result.notes:
        typer.echo(note)
    print_report(result.report)
    typer.echo(f"written to {result.folder}: {', '.join(result.files)}")
