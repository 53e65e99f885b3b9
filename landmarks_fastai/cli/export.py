"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from landmarks_fastai.cli.options import DataOption, OverwriteOption

if TYPE_CHECKING:
    from landmarks_fastai.commands.export import ExportResult


def export(
    model: Annotated[
        Path, typer.Argument(help="Run folder, .safetensors file or released model.", metavar="MODEL")
    ],
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out",
            help="File to write; its suffix says the format. Default: the name of the model, in the working"
            " directory.",
            metavar="FILE",
        ),
    ] = None,
    target: Annotated[
        Optional[str],
        typer.Option(
            "--format",
            help="safetensors, onnx, openvino, torchscript, executorch, coreml, litert or tensorrt.",
            metavar="FORMAT",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="fp32, fp16 (half the size) or int8 (a quarter of the size, faster, less accurate).",
            metavar="PRECISION",
        ),
    ] = "fp32",
    data: DataOption = None,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked", help="Write a file that this machine cannot run, and therefore not compare."
        ),
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model as a single file for distribution, in the format of a runtime.

    Before the file is kept, its outputs are compared with those of the model on 64 synthetic faces and 64
    random images; with --data, the NME is compared, too. The differences are stored in the file.

    For example:

      landmarks-fastai export runs/default --precision fp16 --out small.safetensors

      landmarks-fastai export runs/default --out model.onnx

      landmarks-fastai export resnet18 --format onnx --precision int8 --data faces.zip
    """
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.commands.export import export_model

    with data_progress() as progress:
        result = export_model(
            model,
            out,
            target,
            precision,
            data=data,
            overwrite=overwrite,
            unchecked=unchecked,
            progress=progress,
        )
    _print_result(result)


def _print_result(result: ExportResult) -> None:
    """Print the size of a file and its deviation from torch."""
    record = result.record
    for note in result.notes:
        typer.echo(note)
    if record.calibration is not None:
        typer.echo(f"ranges of 8-bit integers from {record.calibration}")
    size = f"{result.path}: {result.size / 1e6:.1f} MB, {record.precision}"
    if record.faces is None or record.random is None:
        typer.echo(f"{size}; not compared with torch, because this machine cannot run it")
        return
    typer.echo(
        f"{size}; outputs differ from torch by at most {record.faces.max:.2g} px on faces"
        f" (mean {record.faces.mean:.2g} px), {record.random.max:.2g} px on random images"
    )
    if record.nme is not None:
        typer.echo(
            f"NME on {record.nme.rows:,} rows: {record.nme.torch:.3%} with torch,"
            f" {record.nme.exported:.3%} exported ({record.nme.change:+.2%})"
        )
