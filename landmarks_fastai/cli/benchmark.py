"""The command `benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from landmarks_fastai.cli.options import DataOption

FILE_WIDTH = 200
"""Width of the table in characters if it is written to a file or another program."""


def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(help="Run folders, model files or released models (resnet18).", metavar="MODEL"),
    ],
    formats: Annotated[
        Optional[list[str]],
        typer.Option(
            "--format",
            help="safetensors (torch), onnx, openvino, torchscript, executorch, coreml, litert or tensorrt."
            " Repeatable. Default: all that are installed.",
            metavar="FORMAT",
        ),
    ] = None,
    precisions: Annotated[
        Optional[list[str]],
        typer.Option(
            "--precision", help="fp32, fp16 or int8. Repeatable. Default: fp32.", metavar="PRECISION"
        ),
    ] = None,
    data: DataOption = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", help="CSV to write the table to.", metavar="CSV")
    ] = None,
) -> None:
    """Compare the runtimes that are installed: deviation from torch, accuracy, speed, size and load time.

    Each model is exported to a temporary file for each runtime, and measured on the CPU. The runtimes take
    turns, and medians are printed. The deviation is the largest difference on 64 synthetic faces, in pixels
    of the input (px); ms is the time of one face, faces/s the rate of a batch.

    For example:

      landmarks-fastai benchmark resnet18

      landmarks-fastai benchmark runs/default --format onnx --precision fp32 --precision int8 --out speed.csv
    """
    from rich.console import Console
    from rich.text import Text

    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.cli.tables import make_table
    from landmarks_fastai.commands.benchmark import benchmark as measure

    with data_progress() as progress:
        result = measure(
            models,
            formats=formats,
            precisions=precisions or ("fp32",),
            data=data,
            out=out,
            progress=progress,
            note=typer.echo,
        )
    for line in result.notes:
        typer.echo(line)
    table = make_table("model", "runtime", "precision", "px", "NME", "ms", "faces/s", "MB", "load s")
    for row in result.rows:
        table.add_row(*map(Text, row.cells()))
    Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH).print(table)
    if out is not None:
        typer.echo(f"written to {out}")
