"""The command `data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from landmarks_fastai.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    CorrectionsOption,
    DataOption,
    FormatOption,
    SchemaOption,
    SeedOption,
    SetOption,
    SkipBadOption,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from landmarks_fastai.config.options import TrainConfig


def data(
    source: DataOption = None,
    config_name: ConfigOption = DEFAULT_CONFIG,
    seed: SeedOption = None,
    settings: SetOption = None,
    label_format: FormatOption = None,
    skip_bad: SkipBadOption = False,
    schema: SchemaOption = None,
    schema_template: Annotated[
        Optional[Path],
        typer.Option(
            "--schema-template",
            help="Instead of the summary, write a schema file with the landmark names and the flip pairs"
            " found, to be corrected and passed to --schema.",
            metavar="FILE",
        ),
    ] = None,
    corrections: CorrectionsOption = None,
    audit: Annotated[
        Optional[Path],
        typer.Option(
            "--audit",
            help="Rank the rows of a cross-validation by how likely their labels are wrong. Can be"
            " combined with --out only.",
            metavar="RUN",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for samples.png, or for the audit.", metavar="FOLDER")
    ] = Path("data-report"),
) -> None:
    """Summarize and check a data set.

    Prints label counts, flip pairs, suspicious labels and near-duplicates, and draws random rows: unchanged,
    mirrored and augmented.

    With --audit, ranks the rows by how much their labels contradict the out-of-fold predictions of
    `train --folds`, and writes audit.csv and audit.png. Fill in the column action of audit.csv (drop, unlabel
    or move), and pass the file to --corrections.

    For example:

      landmarks-fastai data --data synthetic

      landmarks-fastai data --data my_landmarks.csv --config default --set augment=original

      landmarks-fastai data --data my_landmarks.csv --schema-template schema.yaml

      landmarks-fastai data --audit runs/folds
    """
    options = {
        "data.source": source,
        "data.format": label_format,
        "data.landmark_schema": schema,
        "data.skip_bad": skip_bad or None,
        "data.corrections": None if corrections is None else str(corrections),
        "seed": seed,
    }
    overrides = {key: value for key, value in options.items() if value is not None}
    if audit is not None:
        if overrides or settings or schema_template or config_name != DEFAULT_CONFIG:
            raise UserError("--audit uses the data of the run and takes no other option but --out")
        _audit(audit, out)
        return
    from landmarks_fastai.config.loading import load_config

    config = load_config(config_name, overrides, settings or [])
    if schema_template is not None:
        _write_template(config, schema_template)
        return
    _summarize(config, out)


def _write_template(config: TrainConfig, path: Path) -> None:
    """Write a schema file, and print what to do with it."""
    from landmarks_fastai.commands.schema_report import write_schema_template

    schema = write_schema_template(config.data, path)
    pairs = format_count(len(schema.flip_pairs), "flip pair")
    typer.echo(f"{format_count(len(schema), 'landmark')}, {pairs}: {path}")
    typer.echo("correct it, then pass it to --schema")


def _summarize(config: TrainConfig, out: Path) -> None:
    """Print the summary of a data set."""
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.cli.tables import print_summary
    from landmarks_fastai.commands.data import describe_data

    with data_progress() as progress:
        result = describe_data(config, out, progress=progress)
    print_summary(result.summary, result.source)
    for note in result.notes:
        typer.echo(note)
    typer.echo(
        f"near-duplicates: {result.summary.rows:,} rows in {result.groups:,} groups; the split keeps each"
        " group together"
    )
    typer.echo(f"samples: {result.samples}")


def _audit(run: Path, out: Path) -> None:
    """Rank the labels of a cross-validation and print what was written."""
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.commands.audit import audit

    with data_progress() as progress:
        result = audit(run, out, progress=progress)
    typer.echo(f"{len(result.label_errors):,} rows, the most likely label errors first: {result.table}")
    typer.echo(f"labels and predictions of the first {result.shown}: {result.sheet}")
    typer.echo("fill in the column action (drop, unlabel or move), then train with --corrections")
