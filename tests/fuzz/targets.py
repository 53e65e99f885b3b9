"""The table of what is fuzzed: readers and their seeds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import yaml

from fuzz import seeds
from fuzz.mutator import Files
from fuzz.runner import Target
from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.annotation_checks import check_annotations
from landmarks_fastai.data.annotation_files import find_format, read_annotations
from landmarks_fastai.data.annotations import VISIBLE
from landmarks_fastai.data.box_files import assign_boxes, read_boxes
from landmarks_fastai.data.corrections import apply_corrections
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.formats import ANNOTATION_FORMATS, kaggle
from landmarks_fastai.data.schema_matching import with_schema
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import HEADER_KEY, read_header
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.schemas.files import read_schema
from landmarks_fastai.utils.image_formats import HAS_AVIF
from landmarks_fastai.utils.images import read_image
from landmarks_fastai.video.frame_folder import FrameFolderReader
from landmarks_fastai.video.reader import VideoReader

MAX_FRAMES = 50
"""Frames that are decoded of a video."""


@cache
def all_targets() -> dict[str, Target]:
    """Return the targets by name."""
    targets = (*_label_targets(), *_kaggle_targets(), *_image_targets(), *_text_targets(), *_model_targets())
    return {target.name: target for target in (*targets, _video_target())}


# --- labels --------------------------------------------------------------------------------------


def _label_targets() -> list[Target]:
    """Return a target of each format of labels, and one of the recognition of the format."""
    written = {name: partial(seeds.written, name, out) for name, out, _ in WRITTEN}
    targets = [_labels(name, out, main, written[name]) for name, out, main in WRITTEN]
    targets += [
        _labels("csv", "labels.csv", "labels.csv", seeds.csv_labels),
        _labels("wflw", "list_test.txt", "list_test.txt", seeds.wflw_labels),
        _labels("imglab", "faces.xml", "faces.xml", seeds.imglab_labels),
        _labels("cvat", "annotations.xml", "annotations.xml", seeds.cvat_labels),
    ]
    table = "labels/labeled-data/group 0/CollectedData_landmarks-fastai"
    for suffix in (".csv", ".h5"):
        make = partial(seeds.deeplabcut_labels, suffix)
        targets.append(_labels("deeplabcut", "labels", table + suffix, make, f"deeplabcut ({suffix[1:]})"))
    recognized = ("labels.csv", "faces.xml", "labels.json")
    return [
        *targets,
        Target(
            "recognition of the format",
            lambda folder: find_format(folder / "labels"),
            lambda: [
                {"labels": files[name]}
                for files in (*seeds.csv_labels(), *seeds.imglab_labels(), *written["coco"]())
                for name in recognized
                if name in files
            ],
            "labels",
        ),
    ]


WRITTEN = (
    ("parquet", "labels.parquet", "labels.parquet"),
    ("coco", "labels.json", "labels.json"),
    ("yolo", "labels", "labels/data.yaml"),
    ("pts", "labels", "labels/a.pts"),
    ("labelme", "labels", "labels/a.json"),
    ("label-studio", "labels.json", "labels.json"),
    ("lightning-pose", "labels", "labels/CollectedData.csv"),
    ("sleap", "labels.slp", "labels.slp"),
)
"""Formats whose seeds this package writes: name, what is written, and the main file in it."""

SLOW_FORMATS = ("sleap", "deeplabcut (h5)")


def _labels(
    name: str, out: str, main: str, make: Callable[[], Sequence[Files]], title: str | None = None
) -> Target:
    """Return the target of a format: the labels and what is checked before they are used."""

    def read(folder: Path) -> None:
        path = folder / out
        ANNOTATION_FORMATS[name].recognizes(path)
        check_annotations(with_schema(read_annotations(path, name), None))

    return Target(f"labels: {title or name}", read, make, main, expensive=(title or name) in SLOW_FORMATS)


# --- Kaggle --------------------------------------------------------------------------------------


def _kaggle_targets() -> list[Target]:
    readers: dict[str, Callable[[Path], object]] = {
        "training": kaggle.read_training,
        "test": kaggle.read_test,
        "IdLookupTable": kaggle.read_lookup,
    }
    targets = [
        Target(
            f"kaggle: {stem}.csv",
            lambda folder, stem=stem: readers[stem](folder / "kaggle.csv"),
            seeds.texts("kaggle.csv", seeds.kaggle_table(stem)),
            "kaggle.csv",
        )
        for stem in readers
    ]
    content = seeds.kaggle_table("training").encode()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    archives = [seeds.zipped("training.csv", content, method) for method in methods]
    archives.append(seeds.zipped("training.zip", archives[1]))
    return [
        *targets,
        Target(
            "kaggle: zip",
            lambda folder: kaggle.read_training(folder / "faces.zip"),
            lambda: [{"faces.zip": archive} for archive in archives],
            "faces.zip",
        ),
        Target(
            "kaggle: rows in a zip",
            lambda folder: kaggle.read_training(folder / "faces.zip"),
            lambda: [{"faces.zip": content}],
            "faces.zip",
            pack=partial(seeds.zipped, "training.csv"),
        ),
    ]


# --- images and videos ---------------------------------------------------------------------------

IMAGE_SUFFIXES = ("png", "jpg", "webp", "gif", "bmp", "tif", "ppm", *(("avif",) if HAS_AVIF else ()))


def _image_targets() -> list[Target]:
    return [
        Target(
            f"image: {suffix}",
            lambda folder, suffix=suffix: read_image(folder / f"image.{suffix}"),
            partial(seeds.images, suffix),
            f"image.{suffix}",
        )
        for suffix in IMAGE_SUFFIXES
    ]


def _video_target() -> Target:
    def read(folder: Path) -> None:
        with VideoReader(folder / "clip.video") as video:
            for _ in islice(video, MAX_FRAMES):
                pass

    return Target("video", read, seeds.videos, "clip.video", expensive=True)


# --- text files ----------------------------------------------------------------------------------


def _text_targets() -> list[Target]:
    def corrections(folder: Path) -> None:
        apply_corrections(_dataset(), folder / "corrections.csv")

    def boxes(name: str) -> Callable[[Path], object]:
        return lambda folder: assign_boxes(read_boxes(folder / name), [folder / "a.png", folder / "b/c.png"])

    schema = seeds.texts("schema.yaml", seeds.SCHEMA_YAML)
    schema_json = seeds.texts("schema.json", json.dumps(yaml.safe_load(seeds.SCHEMA_YAML)))
    table = seeds.texts("corrections.csv", seeds.CORRECTIONS)
    return [
        Target(
            "config",
            lambda folder: load_config(str(folder / "config.yaml")),
            seeds.texts("config.yaml", seeds.CONFIG, 'augment: none\ntraining: {"loss": {name: wing}}\n'),
            "config.yaml",
        ),
        Target("--set option", _read_setting, seeds.texts("setting.txt", *seeds.SETTINGS), "setting.txt"),
        Target("schema: yaml", lambda folder: read_schema(folder / "schema.yaml"), schema, "schema.yaml"),
        Target(
            "schema: json", lambda folder: read_schema(folder / "schema.json"), schema_json, "schema.json"
        ),
        Target("corrections", corrections, table, "corrections.csv"),
        Target("boxes: csv", boxes("boxes.csv"), seeds.boxes_csv, "boxes.csv"),
        Target("boxes: coco", boxes("boxes.json"), seeds.boxes_coco, "boxes.json"),
        Target("times.csv", lambda folder: FrameFolderReader(folder), seeds.frame_folder, "times.csv"),
    ]


@cache
def _dataset() -> LandmarkDataset:
    dataset = draw_synthetic_faces(6, seed=0, size=96)
    return replace(dataset, visibility=np.full(dataset.points.shape[:2], VISIBLE, np.uint8))


def _read_setting(folder: Path) -> TrainConfig:
    text = (folder / "setting.txt").read_bytes().decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise UserError("an argument of a command contains no NUL")
    return load_config("quick", settings=[text])


# --- models --------------------------------------------------------------------------------------


def _model_targets() -> list[Target]:
    def header(folder: Path) -> None:
        path = folder / "header.json"
        read_header({HEADER_KEY: path.read_bytes().decode("utf-8", "surrogateescape")}, path)

    def open_file(name: str) -> Callable[[Path], object]:
        return lambda folder: open_model(folder / name)

    def predict(folder: Path) -> None:
        predictor = Predictor.open(folder / "model.onnx", device="cpu")
        image = np.full((40, 50, 3), 90, np.uint8)
        predictor.predict(image)

    def renamed(name: str) -> Callable[[], Sequence[Files]]:
        return lambda: [{name: files["header.json"]} for files in seeds.headers()]

    return [
        Target("model: header", header, seeds.headers, "header.json"),
        Target(
            "model: safetensors",
            open_file("model.safetensors"),
            renamed("model.safetensors"),
            "model.safetensors",
            pack=seeds.safetensors_file,
            expensive=True,
        ),
        Target(
            "model: onnx", predict, renamed("model.onnx"), "model.onnx", pack=seeds.onnx_file, expensive=True
        ),
    ]
