"""The part of the command `predict` that writes Parquet shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from landmarks_fastai.batch_inference.prediction import Job, ShardSummary
    from landmarks_fastai.commands.predict_shards import ShardTotals
    from landmarks_fastai.commands.prediction_folder import Existing
    from landmarks_fastai.inference.predictor import Predictor

DEFAULT_ENGINE = "local"
DEFAULT_FOLDER = Path("landmark-shards")

EngineOption = Annotated[
    Optional[str],
    typer.Option(
        "--engine",
        help="Write Parquet files, one per shard of the images, and no drawings: local (this process), or ray"
        " (a process per processor, or a cluster). Default: local, if a source is an archive, a list or a"
        " URL.",
        metavar="ENGINE",
    ),
]
ShardSizeOption = Annotated[
    Optional[int],
    typer.Option(
        "--shard-size", min=1, help="Images per shard, with --engine. Default: 1,000; a tar is one shard."
    ),
]
WorkersOption = Annotated[
    Optional[int],
    typer.Option("--workers", min=1, help="Processes of --engine ray. Default: all processors, or GPUs."),
]


@dataclass(frozen=True)
class ShardOptions:
    """Options of `predict` for Parquet shards.

    Parameters
    ----------
    engine, shard_size, workers
        As given; None if not.
    """

    engine: str | None
    shard_size: int | None
    workers: int | None

    def chosen(self, sources: Sequence[str]) -> bool:
        """Return whether shards are written: because of an option, or a source that is no image or folder."""
        from landmarks_fastai.batch_inference.sources import is_many

        return self != ShardOptions(None, None, None) or any(map(is_many, sources))

    def check(self) -> None:
        """Raise a UserError for options that cannot be used together."""
        from landmarks_fastai.batch_inference.engines.ray import import_ray
        from landmarks_fastai.commands.predict_shards import check_engine

        if self.engine is not None:
            check_engine(self.engine)
        if self.engine == "ray":
            import_ray()
        elif self.workers is not None:
            raise UserError("--workers has an effect with --engine ray only; remove it")


def predict_to_shards(
    sources: Sequence[str],
    out: Path | None,
    options: ShardOptions,
    existing: Existing,
    models: Sequence[Path] | None,
    device: str,
    trust_pickle: bool,
    backend: str,
    detector: str,
    refine: int | None,
    min_confidence: float | None,
) -> None:
    """Predict the images of sources, print what became of each shard, and the totals."""
    from landmarks_fastai.batch_inference.engines.base import Run
    from landmarks_fastai.batch_inference.results import check_parquet, done_shards
    from landmarks_fastai.batch_inference.sources import source_kind
    from landmarks_fastai.cli.models import choose_models, note_search, open_named_detector, warn_if_synthetic
    from landmarks_fastai.commands.predict_shards import (
        SHARD_SIZE,
        check_shards,
        open_shards,
        predict_shards,
    )
    from landmarks_fastai.inference.ensemble import open_predictors
    from landmarks_fastai.utils.files import file_sha256
    from landmarks_fastai.utils.interrupt import Interrupt

    options.check()
    places = [_absolute(source) for source in sources]
    for place in places:
        source_kind(place)
    folder = _choose_out(out, existing)
    check_parquet(folder)
    check_shards(folder, existing)
    files = choose_models(models)
    predictor = open_predictors(files, device, trust_pickle, backend, typer.echo)
    warn_if_synthetic(predictor)
    job = _job(folder, files, device, trust_pickle, backend, detector, refine, min_confidence, predictor)
    note_search(detector, job.detector, "use --detector none for the center crops")
    settings: dict[str, Any] = {
        "models": [file_sha256(path) for path in files],
        "detector": job.detector,
        "refine": job.refine,
        "min_confidence": job.min_confidence,
    }
    engine, size = options.engine or DEFAULT_ENGINE, options.shard_size or SHARD_SIZE
    opened = open_named_detector(job.detector, predictor)
    with (
        Interrupt() as interrupt,
        open_shards(folder, places, settings, existing, size, typer.echo) as plan,
    ):
        done = done_shards(folder)
        pending = [index for index in range(len(plan)) if index not in done]
        typer.echo(
            f"landmarks: {folder} ({format_count(len(plan), 'Parquet shard')}, engine {engine}, no drawings)"
        )
        if len(pending) < len(plan):
            typer.echo(f"{format_count(len(plan) - len(pending), 'shard')} done before, skipped")
        run = Run(job, plan, pending, lambda: interrupt.requested, options.workers, predictor, opened)
        totals = predict_shards(engine, run, lambda summary: _show(summary, len(plan)))
    _show_totals(folder, totals)
    if totals.done + totals.failed < len(pending):
        left = f"{len(plan) - len(done) - totals.done:,} of {format_count(len(plan), 'shard')}"
        raise RunError(f"{folder}: interrupted; {left} are left, go on with --resume")
    if totals.failed:
        raise RunError(
            f"{folder}: {format_count(totals.failed, 'shard')} could not be read (see above); when the cause"
            " is removed, go on with --resume"
        )
    if totals.unreadable:
        raise typer.Exit(UserError.exit_code)


def _absolute(source: str) -> str:
    """Return a source as a URL or an absolute path: other processes have another working folder."""
    from landmarks_fastai.batch_inference.storage import is_url

    return source if is_url(source) else str(Path(source).expanduser().absolute())


def _choose_out(out: Path | None, existing: Existing) -> str:
    """Return the folder of results; if the user names none, the first one without any."""
    from landmarks_fastai.batch_inference.storage import location_of
    from landmarks_fastai.commands.prediction_folder import Existing
    from landmarks_fastai.utils.unique_names import numbered_paths

    if out is not None:
        return _absolute(location_of(out))
    latest = DEFAULT_FOLDER
    for folder in numbered_paths(DEFAULT_FOLDER):
        if not folder.exists():
            return _absolute(str(folder if existing is Existing.REFUSE else latest))
        latest = folder
    raise AssertionError  # the numbers do not end


def _job(
    out: str,
    files: Sequence[Path],
    device: str,
    trust_pickle: bool,
    backend: str,
    detector: str,
    refine: int | None,
    min_confidence: float | None,
    predictor: Predictor,
) -> Job:
    """Return what is done with each shard, with the defaults of the model."""
    from landmarks_fastai.batch_inference.prediction import Job
    from landmarks_fastai.inference.face_detection import FACE_DETECTORS, choose_detector
    from landmarks_fastai.inference.rejection import choose_min_confidence

    chosen = choose_detector(detector, predictor.header)
    return Job(
        out,
        tuple(str(path.absolute()) for path in files),
        device,
        trust_pickle,
        backend,
        chosen,
        predictor.default_refine if refine is None else refine,
        choose_min_confidence(min_confidence, predictor, chosen in FACE_DETECTORS),
    )


def _show(summary: ShardSummary, count: int) -> None:
    """Print what became of a shard."""
    title = f"shard {summary.index + 1:,} of {count:,}"
    if summary.error:
        typer.echo(f"error: {title}: {' '.join(summary.error.split())}", err=True)
        return
    rate = summary.total / max(summary.seconds, 1e-9)
    typer.echo(f"{title}: {_describe(summary)}, {rate:.1f} images per second")


def _describe(counts: ShardSummary | ShardTotals) -> str:
    parts = [f"{format_count(counts.faces, 'face')} in {format_count(counts.images, 'image')}"]
    parts += [f"{counts.no_face:,} without a face"] if counts.no_face else []
    parts += [f"{counts.unreadable:,} unreadable"] if counts.unreadable else []
    parts += [f"{format_count(counts.others, 'other file')} skipped"] if counts.others else []
    return ", ".join(parts)


def _show_totals(out: str, totals: ShardTotals) -> None:
    """Print the totals, and where the images without landmarks are listed."""
    from landmarks_fastai.batch_inference.results import REJECTED
    from landmarks_fastai.batch_inference.storage import join

    if totals.done:
        typer.echo(f"{format_count(totals.done, 'shard')}: {_describe(totals)}")
    if totals.no_face or totals.unreadable:
        typer.echo(f"images without landmarks, with the reason: {join(out, REJECTED)}")
