"""Exporting a network to a file that is kept only if its outputs match those of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import LandmarksError, RunError
from landmarks_fastai.export.checks import (
    BOUNDS,
    CHECKED_IMAGES,
    Bounds,
    NmeChange,
    compare_outputs,
    exceeds,
    face_inputs,
    measure_nme,
    random_inputs,
    run_batches,
)
from landmarks_fastai.export.job import FP32, INT8, ExportJob, Images, NotRunnableError
from landmarks_fastai.export.record import ExportRecord, installed_versions
from landmarks_fastai.export.targets import Exporter, Target, check_precision
from landmarks_fastai.export.writing import replaced_on_success
from landmarks_fastai.inference.backends import Backend, pixel_network_of, torch_backend
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.utils.files import report_write_errors
from landmarks_fastai.utils.text import shorten

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

CALIBRATION_IMAGES = 128
"""Number of images from which the ranges of 8-bit integers are found."""

CALIBRATION_SEED = 1
"""Seed of the synthetic ones, which are other faces than those of the check."""


@dataclass(frozen=True, eq=False)
class ExportOptions:
    """How a network is exported and checked.

    Parameters
    ----------
    precision
        fp32, fp16 or int8.
    faces
        (N, S, S, C) uint8 inputs of the network on which the file is compared with torch; None: synthetic
        faces.
    calibration
        (N, S, S, C) uint8 inputs of the network from which the ranges of 8-bit integers are found, and where
        they come from; None: synthetic faces.
    rows
        Labeled rows on which the NME of torch and of the file are compared; None: it is not measured.
    unchecked
        Keep a file that this machine cannot run, and that is therefore not compared.
    bounds
        Largest accepted differences; None: those of the precision.
    """

    precision: str = FP32
    faces: Images | None = None
    calibration: tuple[Images, str] | None = None
    rows: LandmarkDataset | None = None
    unchecked: bool = False
    bounds: Bounds | None = None


def export_network(
    network: nn.Module, header: ModelHeader, path: Path, target: Target, options: ExportOptions | None = None
) -> ExportRecord:
    """Write a network in the format of a target, and keep the file only if its outputs match those of torch.

    The file contains, in its metadata, the header and the record that is returned.

    Parameters
    ----------
    network
        Maps normalized images to the output of the head; it is not modified.
    header
        The model's header.
    path
        The file; its folder is created if needed.
    target
        The format.
    options
        Precision and checks; `ExportOptions` if None.

    Raises
    ------
    UserError
        If a package is not installed, or the target does not support the precision.
    RunError
        If the conversion fails, an output differs from that of torch by more than the bounds, the NME
        increases by more than the bounds, this machine cannot run the file (unless `unchecked`), or the file
        cannot be written. An existing file is then unchanged.
    """
    options = options or ExportOptions()
    check_precision(target, options.precision, str(path))
    exporter = target.exporter()
    network = copy.deepcopy(network).cpu().float().eval()
    calibration, about = _calibration_images(header, options)
    job = ExportJob(pixel_network_of(copy.deepcopy(network), header), header, options.precision, calibration)
    record = ExportRecord(options.precision, calibration=about, packages=installed_versions(target.packages))
    with replaced_on_success(path, target.companions) as partial:
        writer = _run_library(path, lambda: exporter.convert(job))
        _run_library(path, lambda: writer(partial, record.metadata(header)))
        record = _checked_record(path, partial, exporter, network, header, options, record)
        _run_library(path, lambda: writer(partial, record.metadata(header)))
        if dict(exporter.read_metadata(partial)) != record.metadata(header):
            raise RunError(f"{path}: not written, because its metadata cannot be read again")
    return record


def _checked_record(
    path: Path,
    partial: Path,
    exporter: Exporter,
    network: nn.Module,
    header: ModelHeader,
    options: ExportOptions,
    record: ExportRecord,
) -> ExportRecord:
    """Compare a written file with torch, and return the record with the deviations.

    Raises
    ------
    RunError
        If it differs too much, or cannot be run and `ExportOptions.unchecked` is not set.
    """
    reference = torch_backend(network, header, "cpu")
    faces = face_inputs(header, CHECKED_IMAGES) if options.faces is None else options.faces
    noise = random_inputs(header)
    expected = {"faces": run_batches(reference, faces), "random images": run_batches(reference, noise)}
    if not all(np.isfinite(output).all() for outputs in expected.values() for output in outputs):
        raise RunError(f"{path}: not written, because an output of the network is not a number; train again")
    try:
        backend = _run_library(path, lambda: exporter.open_backend(partial, header))
    except NotRunnableError as error:
        if options.unchecked:
            return record
        raise RunError(
            f"{path}: not written, because it cannot be compared with torch: {error}; export it there, or use"
            " --unchecked to write it without a comparison"
        ) from error
    actual = _run_library(
        path, lambda: {"faces": run_batches(backend, faces), "random images": run_batches(backend, noise)}
    )
    deviations = {name: compare_outputs(expected[name], actual[name], header) for name in expected}
    bounds = options.bounds or BOUNDS[options.precision]
    for name, bound in (("faces", bounds.faces), ("random images", bounds.random)):
        if exceeds(deviations[name].max, bound):
            raise RunError(
                f"{path}: not written, because an output differs by {deviations[name].max:.3g} px from that"
                f" of torch on {name} (at most {bound:g} px are accepted); {_advice(options.precision)}"
            )
    record = replace(record, faces=deviations["faces"], random=deviations["random images"])
    if options.rows is None:
        return record
    return replace(record, nme=_checked_nme(path, header, (reference, backend), options, bounds))


def _checked_nme(
    path: Path, header: ModelHeader, backends: tuple[Backend, Backend], options: ExportOptions, bounds: Bounds
) -> NmeChange:
    """Measure the NME of torch and of a file; RunError if it increases by more than the bounds."""
    assert options.rows is not None
    nme = measure_nme(header, *backends, options.rows)
    if exceeds(nme.change, bounds.nme):
        raise RunError(
            f"{path}: not written, because the NME rises from {nme.torch:.3%} to {nme.exported:.3%}, by"
            f" {nme.change:.1%} (at most {bounds.nme:.1%} are accepted); {_advice(options.precision)}"
        )
    return nme


def _calibration_images(header: ModelHeader, options: ExportOptions) -> tuple[Images | None, str | None]:
    """Return the images for the ranges of 8-bit integers and where they come from; None for floats."""
    if options.precision != INT8:
        return None, None
    if options.calibration is not None:
        return options.calibration
    images = face_inputs(header, CALIBRATION_IMAGES, seed=CALIBRATION_SEED)
    return images, f"{CALIBRATION_IMAGES} synthetic faces"


def _advice(precision: str) -> str:
    """Return what to do if an exported file differs from torch."""
    if precision == INT8:
        return "use --precision fp16, or calibrate with faces of your own (--data)"
    return "use another precision" if precision != FP32 else "use another format, such as .safetensors"


def _run_library(path: Path, step: Callable[[], T]) -> T:
    """Run a step of a library, and turn what it raises into one line.

    Raises
    ------
    RunError
        If it raises something else than an error of this package; also if the disk is full.
    """
    try:
        with report_write_errors(path):
            return step()
    except LandmarksError:
        raise
    except Exception as error:  # every library raises various types for what it cannot convert
        raise RunError(
            f"{path}: cannot be exported in this format: {shorten(' '.join(str(error).split()), 200)}"
        ) from error
