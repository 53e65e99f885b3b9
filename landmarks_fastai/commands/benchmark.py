"""Measure the deviation, accuracy, speed and size of models in every runtime that is installed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from landmarks_fastai.commands.evaluation_data import load_model_data, select_unseen
from landmarks_fastai.commands.export import MAX_ROWS, file_size
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import LandmarksError, RunError, UserError
from landmarks_fastai.export.checks import (
    CHECKED_IMAGES,
    Bounds,
    Deviation,
    compare_outputs,
    evaluated_nme,
    face_inputs,
    run_batches,
)
from landmarks_fastai.export.exporting import ExportOptions, export_network
from landmarks_fastai.export.job import FP32, PRECISIONS, Images
from landmarks_fastai.export.targets import TARGETS, Target
from landmarks_fastai.inference.backends import Backend, torch_backend
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.discovery import resolve_models
from landmarks_fastai.model_files.loading import LoadedModel, open_model
from landmarks_fastai.utils.files import write_csv
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import suggest

LOADS, ROUNDS = 3, 5
"""Number of times a file is opened, and of rounds in which the runtimes take turns; medians are given."""

SINGLE_CALLS = 10
"""Number of calls with one face in a round."""

BATCH = 32
"""Number of faces in the batch from which the faces per second follow."""

UNBOUNDED = Bounds(faces=np.inf, random=np.inf, nme=np.inf)

COLUMNS = (
    "model", "runtime", "precision", "deviation px", "NME", "ms per face", "faces per second", "MB", "load s"
)  # fmt: skip


@dataclass(frozen=True)
class RuntimeResult:
    """Measurements of one model in one runtime at one precision.

    Parameters
    ----------
    model, runtime, precision
        The file that was named, the name of the target (`TARGETS`), and the precision.
    deviation
        Deviation from torch on synthetic faces; None if the model has no torch weights.
    nme
        NME on the labeled rows as a fraction; None without data.
    milliseconds
        Time of a call with one face.
    faces_per_second
        In batches of `BATCH`.
    megabytes
        Size of the file.
    load_seconds
        Time to open the file and to run it once.
    """

    model: str
    runtime: str
    precision: str
    deviation: Deviation | None
    nme: float | None
    milliseconds: float
    faces_per_second: float
    megabytes: float
    load_seconds: float

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the `COLUMNS`; unknown values are empty."""
        return (
            self.model,
            self.runtime,
            self.precision,
            "" if self.deviation is None else f"{self.deviation.max:.2g}",
            "" if self.nme is None else f"{self.nme:.5f}",
            f"{self.milliseconds:.2f}",
            f"{self.faces_per_second:.1f}",
            f"{self.megabytes:.1f}",
            f"{self.load_seconds:.3f}",
        )


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """The measurements, and what could not be measured.

    Parameters
    ----------
    rows
        One for each model, runtime and precision.
    notes
        Lines about the data, about runtimes that are not installed, and about files that were not measured.
    """

    rows: tuple[RuntimeResult, ...]
    notes: tuple[str, ...]


@dataclass(eq=False)
class _Candidate:
    """A file to be measured."""

    model: LoadedModel
    name: str
    runtime: str
    precision: str
    path: Path
    size: int
    backend: Backend
    load_seconds: float
    single: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)


def benchmark(
    models: Sequence[str | Path],
    *,
    formats: Sequence[str] | None = None,
    precisions: Sequence[str] = (FP32,),
    data: str | Path | DataConfig | None = None,
    out: str | Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> BenchmarkResult:
    """Measure models in every installed runtime on the CPU.

    A model with torch weights is exported to a temporary file for each runtime and precision; an ``.onnx``
    file is measured as it is.

    Parameters
    ----------
    models
        Runs, model files or names of released models.
    formats
        Names of the targets; None for all whose packages are installed and that this machine can run.
    precisions
        Of fp32, fp16 and int8; a runtime without one of them is left out.
    data
        Labeled data, of which at most `MAX_ROWS` rows are evaluated; None: the NME is not measured.
    out
        CSV to be written; None for none.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.
    note
        Called with one line before a model is exported or measured.

    Raises
    ------
    UserError
        If a model, format, precision or the data cannot be used, or the package of a named format is not
        installed.
    RunError
        If nothing could be measured.
    """
    _check_names("--format", formats or (), TARGETS)
    _check_names("--precision", precisions, PRECISIONS)
    chosen, notes = _installed_targets(formats)
    tell = note or _ignore
    results: list[RuntimeResult] = []
    paths = resolve_models(list(models))
    with tempfile.TemporaryDirectory(prefix="landmarks-fastai-") as folder:
        for name, path in zip(map(str, models), paths, strict=False):
            model = open_model(path)
            rows, about = _labeled_rows(model, data, cache, progress)
            notes += [line for line in about if line not in notes]
            candidates = list(_candidates(model, name, chosen, precisions, Path(folder), notes, tell))
            results += _measure(candidates, rows, tell)
    if not results:
        raise RunError(f"no runtime could be measured: {'; '.join(notes)}")
    if out is not None:
        write_csv(Path(out), [COLUMNS, *(row.cells() for row in results)])
    return BenchmarkResult(tuple(results), tuple(notes))


def _ignore(_: str) -> None:
    """Print nothing."""


def _check_names(option: str, names: Sequence[str], known: Sequence[str] | dict[str, Target]) -> None:
    """Raise UserError if a name is not known."""
    for name in names:
        if name not in known:
            raise UserError(f"{option} {name}: not known; {suggest(name, known)}")


def _installed_targets(formats: Sequence[str] | None) -> tuple[dict[str, Target], list[str]]:
    """Return the targets to be measured, and a line for each whose package is not installed."""
    if formats:
        for name in formats:
            TARGETS[name].exporter()
        return {name: TARGETS[name] for name in dict.fromkeys(formats)}, []
    installed = {name: target for name, target in TARGETS.items() if not target.missing_packages()}
    notes = [
        f'{name}: not installed (pip install "landmarks-fastai[{target.extra}]")'
        for name, target in TARGETS.items()
        if name not in installed
    ]
    return installed, notes


def _labeled_rows(
    model: LoadedModel, data: str | Path | DataConfig | None, cache: Path | None, progress: Progress | None
) -> tuple[LandmarkDataset | None, list[str]]:
    """Return the rows for the NME, and lines about them."""
    if data is None:
        return None, []
    dataset = load_model_data(model.header, data, cache=cache, progress=progress)
    Landmarks.empty(model.header.landmark_schema).select(dataset.schema)  # checked before the measurements
    chosen, about = select_unseen(dataset, [model.path], [model.header])
    shuffled = np.random.default_rng(0).permutation(chosen)[:MAX_ROWS]
    notes = [*dataset.notes, *about]
    if len(shuffled) < len(chosen):
        notes.append(f"NME on {len(shuffled):,} of {len(chosen):,} rows, chosen at random")
    return dataset.subset(np.sort(shuffled)), notes


def _candidates(
    model: LoadedModel,
    name: str,
    targets: dict[str, Target],
    precisions: Sequence[str],
    folder: Path,
    notes: list[str],
    tell: Callable[[str], None],
) -> Iterator[_Candidate]:
    """Export a model for each runtime and precision, and open the files; what fails becomes a note."""
    if model.network is None:
        yield _open(model, name, "onnx", "as stored", model.path)
        return
    for runtime, target in targets.items():
        for precision in precisions:
            if precision not in target.precisions:
                continue
            tell(f"{name}: exporting to {runtime}, {precision}")
            path = folder / f"{len(list(folder.iterdir()))}-{precision}{target.suffix}"
            options = ExportOptions(precision, bounds=UNBOUNDED)
            try:
                export_network(model.network, model.header, path, target, options)
                yield _open(model, name, runtime, precision, path)
            except LandmarksError as error:
                notes.append(f"{runtime}, {precision}: {str(error).removeprefix(f'{path}: ')}")


def _open(model: LoadedModel, name: str, runtime: str, precision: str, path: Path) -> _Candidate:
    """Open a file several times, and return its backend with the median time."""
    target = TARGETS[runtime]
    exporter, seconds = target.exporter(), list[float]()
    image = face_inputs(model.header, 1)
    for _ in range(LOADS):
        start = time.perf_counter()
        backend = exporter.open_backend(path, model.header)
        backend(image)
        seconds.append(time.perf_counter() - start)
    size = sum(file_size(path.with_suffix(suffix)) for suffix in (path.suffix, *target.companions))
    return _Candidate(model, name, runtime, precision, path, size, backend, median(seconds))


def _measure(
    candidates: Sequence[_Candidate], rows: LandmarkDataset | None, tell: Callable[[str], None]
) -> Iterator[RuntimeResult]:
    """Time the runtimes in turn, so that other work on the machine affects all alike, and evaluate them."""
    if not candidates:
        return
    model = candidates[0].model
    tell(f"{candidates[0].name}: measuring")
    faces = face_inputs(model.header, CHECKED_IMAGES)
    for _ in range(ROUNDS):
        for candidate in candidates:
            candidate.single += [_seconds(candidate.backend, faces[:1]) for _ in range(SINGLE_CALLS)]
            candidate.batch.append(_seconds(candidate.backend, faces[:BATCH]))
    reference = None
    if model.network is not None:
        reference = run_batches(torch_backend(model.network, model.header, "cpu"), faces)
    for one in candidates:
        deviation = None
        if reference is not None:
            deviation = compare_outputs(reference, run_batches(one.backend, faces), model.header)
        yield RuntimeResult(
            one.name,
            one.runtime,
            one.precision,
            deviation,
            None if rows is None else evaluated_nme(Predictor(model.header, one.backend), rows),
            1000 * median(one.single),
            BATCH / median(one.batch),
            one.size / 1e6,
            one.load_seconds,
        )


def _seconds(backend: Backend, images: Images) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    backend(images)
    return time.perf_counter() - start
