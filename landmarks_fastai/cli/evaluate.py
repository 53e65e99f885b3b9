"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from landmarks_fastai.cli.options import (
    BackendOption,
    DataOption,
    DeviceOption,
    FormatOption,
    ModelsArgument,
    SchemaOption,
    SkipBadOption,
    TrustOption,
)
from landmarks_fastai.errors import UserError

if TYPE_CHECKING:
    from landmarks_fastai.config.options import DataConfig


def evaluate(
    models: ModelsArgument,
    data: DataOption = None,
    label_format: FormatOption = None,
    schema: SchemaOption = None,
    skip_bad: SkipBadOption = False,
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
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Compare two models with a paired test, instead of averaging their predictions."
        ),
    ] = False,
    slices: Annotated[
        Optional[list[str]],
        typer.Option(
            "--slice",
            help="roll, yaw, blur, size or a column of the data. Repeatable. Default: these four and every"
            " column with 2 to 12 different values.",
            metavar="NAME",
        ),
    ] = None,
    pck: Annotated[
        Optional[list[float]],
        typer.Option(
            "--pck",
            help="Threshold of the PCK as a fraction of the normalizing distance. Repeatable. Default: 0.05,"
            " 0.1 and 0.2.",
            metavar="FRACTION",
        ),
    ] = None,
    sigmas: Annotated[
        Optional[Path],
        typer.Option(
            "--sigmas",
            help="CSV with the columns landmark and sigma, for the OKS. Default: estimated from the labels.",
            metavar="CSV",
        ),
    ] = None,
    coco_ap: Annotated[
        bool, typer.Option("--coco-ap", help="Compute COCO's average precision (extra coco).")
    ] = False,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Evaluate a model on labeled data.

    Prints metrics with confidence intervals, errors by landmark and by slice, and the calibration, and saves
    plots and the 16 worst rows.

    Without --data, the data set of the run is used. On this data, only rows that the model was not trained on
    are evaluated. Several models are evaluated as an ensemble, on rows that none of them was trained on, or,
    with --compare, two models against each other.

    For example:

      landmarks-fastai evaluate runs/default

      landmarks-fastai evaluate runs/default/model.onnx --data my_landmarks.csv --out report

      landmarks-fastai evaluate runs/default runs/default-2 --out report

      landmarks-fastai evaluate runs/default runs/default-2 --compare
    """
    from landmarks_fastai.cli.evaluation_tables import print_analysis, print_comparison
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.cli.tables import print_report
    from landmarks_fastai.cli.visibility_tables import print_visibility
    from landmarks_fastai.commands.compare import ComparisonResult
    from landmarks_fastai.commands.compare import compare as compare_models
    from landmarks_fastai.commands.evaluate import AnalysisOptions
    from landmarks_fastai.commands.evaluate import evaluate as evaluate_models
    from landmarks_fastai.evaluation.pck import PCK_THRESHOLDS

    options = AnalysisOptions(
        sigmas=sigmas,
        slices=None if slices is None else tuple(slices),
        pck_thresholds=tuple(dict.fromkeys(pck)) if pck else PCK_THRESHOLDS,
        coco=coco_ap,
    )
    command = compare_models if compare else evaluate_models
    with data_progress() as progress:
        result = command(
            models,
            _data_options(data, label_format, schema, skip_bad),
            out=out,
            rows=rows,
            flip=flip,
            options=options,
            device=device,
            backend=backend,
            trust_pickle=trust_pickle,
            progress=progress,
        )
    for note in result.notes:
        typer.echo(note)
    if isinstance(result, ComparisonResult):
        print_comparison(result.comparison, result.analyses[0])
    else:
        print_report(result.report)
        print_visibility(result.report.visibility)
        print_analysis(result.analysis)
    typer.echo(f"written to {result.folder}: {', '.join(result.files)}")


def _data_options(
    data: str | None, label_format: str | None, schema: str | None, skip_bad: bool
) -> DataConfig | None:
    """Return the options of the data set; None without --data."""
    from landmarks_fastai.config.options import DataConfig

    if data is None:
        if label_format is not None or schema is not None or skip_bad:
            raise UserError("--format, --schema and --skip-bad have an effect with --data only; add --data")
        return None
    return DataConfig(
        source=data, format=label_format, landmark_schema=schema, skip_bad=True if skip_bad else None
    )
