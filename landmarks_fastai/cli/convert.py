"""The command `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from landmarks_fastai.cli.options import SkipBadOption


def convert(
    source: Annotated[Path, typer.Argument(help="File or folder of labels.", metavar="LABELS")],
    out: Annotated[Path, typer.Argument(help="File or folder to write; must not exist.", metavar="OUT")],
    to: Annotated[
        str,
        typer.Option(
            "--format",
            help="csv, parquet, coco, yolo, pts, labelme, label-studio, deeplabcut, lightning-pose or sleap.",
            metavar="FORMAT",
        ),
    ],
    source_format: Annotated[
        Optional[str],
        typer.Option(
            "--from", help="Format of LABELS. Default: recognized by their content.", metavar="FORMAT"
        ),
    ] = None,
    skip_bad: SkipBadOption = False,
) -> None:
    """Convert labels from one annotation format to another.

    Landmark names, flip pairs, visibility, boxes and groups are kept; one line says what the format cannot
    hold.

    For example:

      landmarks-fastai convert my_landmarks.csv labels.json --format coco

      landmarks-fastai convert labels.json yolo-data --format yolo
    """
    from landmarks_fastai.commands.convert import convert as command

    result = command(source, out, to, source_format=source_format, skip_bad=skip_bad)
    for note in result.notes:
        typer.echo(note)
    typer.echo(f"{result.out}: {result.title}, {result.rows:,} rows on {result.images:,} images")
