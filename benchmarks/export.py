"""Measure the deviation, accuracy, speed and size of the released ResNet18 in every export format.

    python benchmarks/export.py --data facial-keypoints-detection.zip

Formats whose packages are not installed are left out; run it again in an environment that has them, and the
JSON file keeps both. The NME is that of the validation rows of the model's own split, 8-bit ranges come from
its training rows. The time is a ratio to that of ONNX Runtime in float32, measured in turn. If onnxscript is
installed, both ONNX exporters of torch are compared. Writes export.json and export.md.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import Measurement, ResultFiles, Results, run_missing

from landmarks_fastai.commands.export import file_size
from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import split_from_config
from landmarks_fastai.export.checks import Bounds, face_inputs, resize_inputs
from landmarks_fastai.export.exporting import CALIBRATION_IMAGES, ExportOptions, export_network
from landmarks_fastai.export.job import ExportJob
from landmarks_fastai.export.onnx import onnx_graph
from landmarks_fastai.export.targets import TARGETS
from landmarks_fastai.inference.backends import Backend, pixel_network_of
from landmarks_fastai.model_files.loading import LoadedModel, open_model

MODEL = "resnet18"
ROUNDS, CALLS, BATCH = 7, 10, 32
SKIPPED = ("coreml", "tensorrt")
"""Formats that need macOS or a GPU."""

UNBOUNDED = Bounds(faces=np.inf, random=np.inf, nme=np.inf)
EXPORTERS = {"TorchScript-based (used)": False, "torch.export (dynamo=True)": True}


def export_to(
    model: LoadedModel,
    name: str,
    precision: str,
    folder: Path,
    rows: LandmarkDataset,
    training: LandmarkDataset,
) -> tuple[Path, Results]:
    """Export the model, and return the file with its record and size."""
    assert model.network is not None
    target = TARGETS[name]
    path = folder / f"{name}-{precision}{target.suffix}"
    images = resize_inputs(training.images[:CALIBRATION_IMAGES], model.header)
    options = ExportOptions(precision, calibration=(images, "training rows"), rows=rows, bounds=UNBOUNDED)
    start = time.perf_counter()
    record = export_network(model.network, model.header, path, target, options).to_dict()
    record["export seconds"] = round(time.perf_counter() - start, 1)
    record["bytes"] = sum(file_size(path.with_suffix(part)) for part in (target.suffix, *target.companions))
    return path, record


def seconds_of(backend: Backend, images: np.ndarray[Any, Any], calls: int) -> list[float]:
    """Return the seconds of some calls."""
    result = []
    for _ in range(calls):
        start = time.perf_counter()
        backend(images)
        result.append(time.perf_counter() - start)
    return result


def compare_speed(model: LoadedModel, name: str, path: Path, reference: Path) -> Results:
    """Return the times of a file, and their ratios to those of the reference, measured in turn."""
    load, faces = [], face_inputs(model.header, BATCH)
    exporter = TARGETS[name].exporter()
    for _ in range(3):
        start = time.perf_counter()
        backend = exporter.open_backend(path, model.header)
        backend(faces[:1])
        load.append(time.perf_counter() - start)
    pair = {"file": backend, "onnx": TARGETS["onnx"].exporter().open_backend(reference, model.header)}
    single: dict[str, list[float]] = {key: [] for key in pair}
    batch: dict[str, list[float]] = {key: [] for key in pair}
    for _ in range(ROUNDS):
        for key, one in pair.items():
            single[key] += seconds_of(one, faces[:1], CALLS)
            batch[key] += seconds_of(one, faces, 1)
    return {
        "load seconds": median(load),
        "ms": 1000 * median(single["file"]),
        "ratio": median(single["file"]) / median(single["onnx"]),
        "faces per second": BATCH / median(batch["file"]),
        "batch ratio": median(batch["file"]) / median(batch["onnx"]),
    }


def compare_exporter(model: LoadedModel, dynamo: bool) -> Results:
    """Return the seconds of the first and second export, and the paths of source files in the result."""
    import torch

    assert model.network is not None
    job = ExportJob(pixel_network_of(model.network, model.header), model.header)
    seconds, content = [], b""
    for _ in range(2):
        start = time.perf_counter()
        if dynamo:
            file = BytesIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    job.network,
                    (job.example(2),),
                    file,
                    dynamo=True,
                    verbose=False,
                    external_data=False,
                    input_names=["image"],
                    output_names=job.output_names(),
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                )
            content = file.getvalue()
        else:
            content = onnx_graph(job)
        seconds.append(round(time.perf_counter() - start, 2))
    paths = content.count(str(Path(torch.__file__).parents[1]).encode())
    return {"seconds": seconds, "bytes": len(content), "paths": paths}


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    rows = []
    for name, precisions in results["formats"].items():
        for precision, result in precisions.items():
            nme = result["nme"]
            rows.append(
                [
                    name,
                    precision,
                    *(
                        f"{result[kind]['mean']:.2g} ({result[kind]['max']:.2g})"
                        for kind in ("faces", "random")
                    ),
                    f"{nme['exported']:.3%} ({nme['change']:+.2%})",
                    f"{result['ratio']:.2f}",
                    f"{result['batch ratio']:.2f}",
                    f"{result['bytes'] / 1e6:.1f}",
                    f"{result['load seconds']:.2f}",
                    f"{result['export seconds']:.0f}",
                ]
            )
    blocks = [
        f"`python benchmarks/export.py`: the released {MODEL} on {setting['rows']:,} validation rows of its"
        f" own split; {setting['machine']}.",
        markdown_table(
            [
                "format",
                "precision",
                "px on faces: mean (max)",
                "px on random images: mean (max)",
                "NME (change)",
                "time, one face",
                f"time, {BATCH} faces",
                "MB",
                "load s",
                "export s",
            ],
            rows,
        ),
        "px: absolute difference from torch in pixels of the 96 px input. Times are ratios to that of"
        " ONNX Runtime in float32 in the same process, in turn, medians of"
        f" {ROUNDS * CALLS} calls with one face and {ROUNDS} with a batch. Export includes all comparisons"
        " with torch and the NME. Not measured: Core ML (runs on macOS only) and TensorRT (needs a GPU).",
    ]
    if "exporters" in results:
        table = [
            [
                name,
                *(f"{value:.1f}" for value in one["seconds"]),
                f"{one['bytes'] / 1e6:.1f}",
                str(one["paths"]),
            ]
            for name, one in results["exporters"].items()
        ]
        blocks += [
            "## The ONNX exporters of torch",
            markdown_table(
                [
                    "exporter",
                    "first export, s",
                    "second export, s",
                    "MB",
                    "paths of source files in the file",
                ],
                table,
            ),
            "`train` writes `model.onnx` at its end. It keeps the TorchScript-based exporter: the other one"
            " takes longer, needs the package onnxscript, and stores paths of the user's installation in the"
            " file.",
        ]
    return markdown_page("Export formats and precisions", *blocks)


FILES = ResultFiles("export", render)


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_argument("--format", action="append", choices=list(TARGETS), help="repeatable")
    options, files = parser.parse()
    model = open_model(MODEL)
    config = validate_config(model.header.config, MODEL)
    dataset = load_dataset(config.data.model_copy(update={"source": options.data}), seed=config.seed)
    split = split_from_config(dataset, config.data, config.seed)
    rows, training = dataset.subset(split.valid), dataset.subset(split.train)
    formats = [
        name
        for name in options.format or TARGETS
        if name not in SKIPPED and not TARGETS[name].missing_packages()
    ]
    with tempfile.TemporaryDirectory() as folder:
        reference: list[Path] = []

        def measure(name: str, precision: str) -> Results:
            if not reference:
                reference.append(export_to(model, "onnx", "fp32", Path(folder), rows, training)[0])
            path, record = export_to(model, name, precision, Path(folder), rows, training)
            return {**record, **compare_speed(model, name, path, reference[0])}

        measurements: list[Measurement] = [
            (("formats", name, precision), lambda name=name, precision=precision: measure(name, precision))
            for name in formats
            for precision in TARGETS[name].precisions
        ]
        if find_spec("onnxscript") is not None and options.format is None:
            measurements += [
                (("exporters", name), lambda dynamo=dynamo: compare_exporter(model, dynamo))
                for name, dynamo in EXPORTERS.items()
            ]
        run_missing(files, {"machine": describe_machine(), "rows": len(rows)}, measurements)


if __name__ == "__main__":
    sys.exit(main())
