"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from landmarks_fastai.cli.options import OverwriteOption


def export(
    model: Annotated[
        Path, typer.Argument(help="Run folder, .safetensors file or released model.", metavar="MODEL")
    ],
    out: Annotated[Path, typer.Option("--out", help="File to write: .safetensors or .onnx.", metavar="FILE")],
    half: Annotated[
        bool,
        typer.Option(
            "--half", help="Store the weights at half precision, which halves the size (.safetensors only)."
        ),
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model as a single file for distribution.

    Before the file is kept, its predictions are compared with those of the model.

    For example:

      landmarks-fastai export runs/default --half --out small.safetensors

      landmarks-fastai export runs/default --out model.onnx
    """
    from landmarks_fastai.commands.export import export_model

    deviation = export_model(model, out, half=half, overwrite=overwrite)
    size = out.stat().st_size / 1e6
    typer.echo(f"{out}: {size:.1f} MB; predictions on synthetic faces differ by at most {deviation:.2g} px")
