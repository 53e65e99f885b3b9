"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

RUNS = Path("runs")
"""Folder of the run folders."""

DEFAULT_CONFIG = "default"

ConfigOption = Annotated[
    str,
    typer.Option(
        "--config", "-c", help="Name of a built-in config (see `configs`), or YAML file.", metavar="NAME"
    ),
]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", help="Override a key of the config; the value is YAML. Repeatable.", metavar="KEY=VALUE"
    ),
]
DataOption = Annotated[
    Optional[str],
    typer.Option(
        "--data",
        help="kaggle, synthetic, or a path to labels: CSV, COCO, YOLO, LabelMe, CVAT, DeepLabCut, SLEAP …",
        metavar="SOURCE",
    ),
]
FormatOption = Annotated[
    Optional[str],
    typer.Option(
        "--format", help="Format of the labels. Default: recognized by their content.", metavar="FORMAT"
    ),
]
SkipBadOption = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out rows that cannot be used, instead of ending with an error."),
]
SchemaOption = Annotated[
    Optional[str],
    typer.Option(
        "--schema",
        help="Flip pairs, skeleton and eyes of the landmarks: a YAML or JSON file (`data --schema-template`"
        " writes one), or a built-in schema such as ibug68. Default: recognized by the landmark names.",
        metavar="SCHEMA",
    ),
]
CorrectionsOption = Annotated[
    Optional[Path],
    typer.Option(
        "--corrections", help="CSV of corrected labels; `data --audit` writes a template.", metavar="CSV"
    ),
]
SeedOption = Annotated[Optional[int], typer.Option("--seed", help="Random seed.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
BackendOption = Annotated[
    str,
    typer.Option("--backend", help="auto (torch on a GPU, else ONNX Runtime), onnx or torch."),
]
ModelOption = Annotated[
    Optional[Path],
    typer.Option(
        "--model",
        help="Run folder, model file or released model (resnet18). Default: newest run on real data, else"
        " resnet18.",
        metavar="MODEL",
    ),
]
ModelsOption = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--model",
        help="Run folder, model file or released model (resnet18). Default: newest run on real data, else"
        " resnet18. Repeatable: the predictions of several models are averaged.",
        metavar="MODEL",
    ),
]
ModelsArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Run folders, model files or released models (resnet18); several are averaged.",
        metavar="MODEL",
    ),
]
DetectorOption = Annotated[
    str,
    typer.Option(
        "--detector",
        help="Face detector: auto, centerface, dlib, yunet, search (the whole image is searched with the"
        " model, the default for landmarks that are not a face's), or none (the center crop).",
    ),
]
RefineOption = Annotated[
    Optional[int],
    typer.Option(
        "--refine",
        min=0,
        max=5,
        help="Number of refinement passes: the crop is re-estimated from the predicted landmarks, and the"
        " model runs again. Default: 1 for the faces for which it pays, or 0 for a model without a mean"
        " shape.",
    ),
]
MaxFacesOption = Annotated[
    Optional[int],
    typer.Option(
        "--max-faces",
        min=1,
        help="Only the largest faces of each image, at most this many; with few, CenterFace is faster.",
        metavar="N",
    ),
]
MinConfidenceOption = Annotated[
    Optional[float],
    typer.Option(
        "--min-confidence",
        min=0.0,
        max=1.0,
        help="Discard detected faces whose landmarks have a lower mean confidence, from 0 to 1. Default: 0.55"
        " times that of the model's mean error (0.50 for resnet18), but 0 without a face detector.",
    ),
]
NoSmoothOption = Annotated[bool, typer.Option("--no-smooth", help="Do not smooth the landmarks over time.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-pickle", help="Open .pkl files, which can execute arbitrary code.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
