"""The command `submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landmarks_fastai.cli.options import (
    BackendOption,
    DeviceOption,
    ModelsArgument,
    OverwriteOption,
    TrustOption,
)


def submit(
    models: ModelsArgument,
    data: Annotated[
        str,
        typer.Option("--data", help="kaggle, Kaggle's zip, or a folder with its files.", metavar="SOURCE"),
    ] = "kaggle",
    out: Annotated[Path, typer.Option("--out", help="CSV to write.", metavar="CSV")] = Path("submission.csv"),
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Write a submission for Kaggle.

    Predicts the test images of the Facial Keypoints Detection competition.

    For example:

      landmarks-fastai submit runs/default

      landmarks-fastai submit runs/default --data facial-keypoints-detection.zip --out submission.csv

      landmarks-fastai submit runs/default runs/default-2
    """
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.commands import submit as command

    with data_progress() as progress:
        rows = command.submit(
            models,
            out,
            data,
            overwrite=overwrite,
            device=device,
            backend=backend,
            trust_pickle=trust_pickle,
            progress=progress,
        )
    typer.echo(f"{rows:,} rows written to {out}")
