"""Valid inputs of every kind, drawn and written in code."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.mutator import Files
from landmarks_fastai.data.annotation_files import write_annotations
from landmarks_fastai.data.annotations import NOT_LABELED, OCCLUDED, VISIBLE, Annotations, ImageSource
from landmarks_fastai.data.formats import kaggle
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader
from landmarks_fastai.schemas import KAGGLE15, schema_from_names

NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
SIZES = {"a.png": (40, 30), "b.jpg": (31, 57), "c d.png": (64, 64)}


# --- images --------------------------------------------------------------------------------------


def picture(size: tuple[int, int] = (24, 18), mode: str = "RGB") -> Image.Image:
    """Return a picture of a gradient and a rectangle."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([5 * x % 256, 7 * y % 256, 3 * (x + y) % 256], axis=2).astype(np.uint8)
    pixels[3:9, 4:12] = 200
    return Image.fromarray(pixels).convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Return a picture as the content of a file."""
    stream = io.BytesIO()
    picture(mode=mode).save(stream, kind, **options)
    return stream.getvalue()


def images(suffix: str) -> list[Files]:
    """Return pictures in the format of a suffix."""
    exif = Image.Exif()
    exif[274] = 6
    variants: dict[str, list[bytes]] = {
        "png": [encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "I;16"), encoded("PNG", exif=exif)],
        "jpg": [encoded("JPEG", exif=exif), encoded("JPEG", "CMYK"), encoded("JPEG", progressive=True)],
        "webp": [encoded("WEBP"), encoded("WEBP", lossless=True)],
        "gif": [encoded("GIF", "P")],
        "bmp": [encoded("BMP"), encoded("BMP", "P")],
        "tif": [encoded("TIFF"), encoded("TIFF", compression="tiff_lzw"), encoded("TIFF", "I;16")],
        "ppm": [encoded("PPM"), encoded("PPM", "L")],
    }
    if suffix == "avif":  # not every Pillow has its encoder
        variants["avif"] = [encoded("AVIF")]
    return [{f"image.{suffix}": content} for content in variants[suffix]]


# --- labels --------------------------------------------------------------------------------------


def labels(folder: Path, *, several: bool = True) -> Annotations:
    """Return labels of images that are written to a folder, with visibility, boxes and groups."""
    paths = [folder / name for name in SIZES]
    for path in paths:
        picture(SIZES[path.name]).save(path)
    rows = np.array([0, 0, 1, 2] if several else [0, 1, 2])
    rng = np.random.default_rng(0)
    sizes = np.array([SIZES[paths[row].name] for row in rows], float)
    points = (rng.random((len(rows), len(NAMES), 2)) * (sizes[:, None] - 1)).round(2)
    points[1:, 2] = np.nan
    visibility = np.where(np.isnan(points).any(axis=2), NOT_LABELED, VISIBLE)
    visibility[0, 1] = OCCLUDED
    return Annotations(
        schema=schema_from_names("case", NAMES),
        images=tuple(map(ImageSource, paths)),
        rows=rows,
        points=points,
        names=tuple(f"row {row}" for row in range(len(rows))),
        source="case",
        visibility=visibility.astype(np.uint8),
        boxes=np.concatenate([np.full((len(rows), 2), 1.5), sizes - 2], axis=1),
        groups=tuple(f"group {row % 2}" for row in range(len(rows))),
        columns={"pose": tuple("frontal" for _ in rows)},
    )


def written(name: str, out: str) -> list[Files]:
    """Return labels as the format `name` writes them to the file or folder `out`."""
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(temporary)
        write_annotations(labels(folder, several=name not in ("lightning-pose", "pts")), folder / out, name)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return [{path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}]


def deeplabcut_labels(suffix: str) -> list[Files]:
    """Return a project of DeepLabCut with its tables in the format of a suffix only."""
    files = written("deeplabcut", "labels")[0]
    other = ".csv" if suffix == ".h5" else ".h5"
    return [{name: content for name, content in files.items() if not name.endswith(other)}]


def with_image(files: dict[str, str], image: str, size: tuple[int, int] = (40, 30)) -> Files:
    """Return text files and one image."""
    stream = io.BytesIO()
    picture(size).save(stream, "JPEG" if image.endswith(".jpg") else "PNG")
    return {**{name: text.encode() for name, text in files.items()}, image: stream.getvalue()}


def csv_labels() -> list[Files]:
    """Return tables as this package writes them, with semicolons, and of predictions."""
    semicolons = "image;left_eye_x;left_eye_y;nose_x;nose_y\na.png;1,5;2,25;;\na.png;3;4;5,0;6\n"
    predictions = (
        "image,face,confidence,box_x0,box_y0,box_x1,box_y1,left_eye_x,left_eye_y,left_eye_sigma\n"
        "a.png,0,0.98,1,2,30,28,10.25,11.5,0.4\n"
    )
    schema = json.dumps({"name": "two", "names": ["left_eye", "nose"], "midline": ["nose"]})
    return [
        *written("csv", "labels.csv"),
        with_image({"labels.csv": semicolons, "schema.json": schema}, "a.png"),
        with_image({"labels.csv": predictions}, "a.png"),
    ]


def wflw_labels() -> list[Files]:
    """Return a list of WFLW."""
    points = " ".join(f"{k / 4 + 0.5} {k / 5}" for k in range(98))
    line = f"{points} 1 2 30 28 0 1 0 0 1 0 x/a.png\n"
    return [with_image({"list_test.txt": line + line}, "WFLW_images/x/a.png")]


def imglab_labels() -> list[Files]:
    """Return an XML file of imglab."""
    parts = "<part name='00' x='12' y='21'/><part name='01' x='14.5' y='23'/>"
    box = f"<box top='2' left='10' width='30' height='25'><label>cat</label>{parts}</box>"
    text = (
        "<?xml version='1.0' encoding='ISO-8859-1'?>\n<dataset><name>x</name><images>"
        f"<image file='a.png'>{box}{box}</image></images></dataset>"
    )
    return [with_image({"faces.xml": text}, "a.png")]


def cvat_labels() -> list[Files]:
    """Return an XML file of CVAT with a skeleton, points and a box."""
    svg = '<line data-node-from="1" data-node-to="3"/><circle data-node-id="1" data-label-name="eye"/>'
    meta = (
        f"<labels><label><name>face</name><type>skeleton</type><svg>{escape(svg)}</svg></label>"
        "<label><name>eye</name><type>points</type><parent>face</parent></label>"
        "<label><name>nose</name><type>points</type><parent>face</parent></label></labels>"
    )
    skeleton = (
        '<skeleton label="face" source="manual" z_order="0" group_id="4">'
        '<points label="nose" outside="0" occluded="1" points="0.50,0.50"/>'
        '<points label="eye" outside="0" occluded="0" points="10.25,20.00"/></skeleton>'
        '<box label="face" occluded="0" xtl="1.5" ytl="2" xbr="30" ybr="25.25" group_id="4"/>'
    )
    text = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><job>{meta}</job>'
        f'</meta><image id="0" name="a.png" width="40" height="30">{skeleton}</image></annotations>'
    )
    return [with_image({"annotations.xml": text}, "images/a.png")]


def boxes_csv() -> list[Files]:
    """Return tables of boxes."""
    return [
        {"boxes.csv": b"image,x0,y0,x1,y1\na.png,1,2,30.5,28\nb/c.png,0,0,5,5\n"},
        {"boxes.csv": b"image,box_x0,box_y0,box_x1,box_y1\na.png,1,2,30.5,28\nb.png,,,,\n"},
    ]


def boxes_coco() -> list[Files]:
    """Return boxes of COCO: annotations and detections."""
    box = {"image_id": 7, "bbox": [1, 2.5, 30, 20], "category_id": 1, "iscrowd": 0}
    full = {"images": [{"id": 7, "file_name": "a.png"}], "annotations": [box, {**box, "iscrowd": 1}]}
    return [{"boxes.json": json.dumps(content).encode()} for content in (full, [{**box, "score": 0.9}])]


# --- Kaggle --------------------------------------------------------------------------------------


def kaggle_table(stem: str) -> str:
    """Return training.csv or test.csv with two rows, or the lookup table."""
    pixels = " ".join(str(i * 7 % 256) for i in range(kaggle.SIDE**2))
    if stem == "training":
        cells = [str(20 + i / 2) for i in range(len(kaggle.COLUMNS))]
        gaps = ["" if i in (4, 5) else cell for i, cell in enumerate(cells)]
        rows = [",".join([*row, pixels]) for row in (cells, gaps)]
        return "\n".join([",".join([*kaggle.COLUMNS, "Image"]), *rows]) + "\n"
    if stem == "test":
        return f"ImageId,Image\n1,{pixels}\n2,{pixels}\n"
    return "RowId,ImageId,FeatureName,Location\n1,1,left_eye_center_x,\n2,1,left_eye_center_y,\n"


def zipped(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip with one file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, method)
    return stream.getvalue()


# --- models --------------------------------------------------------------------------------------


def model_header(**fields: object) -> str:
    """Return the header of a small model."""
    entries = {
        "arch": "resnet18",
        "head": {"name": "lin-relu-lin", "hidden": 16},
        "channels": 3,
        "input_size": 32,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "schema": KAGGLE15,
        "mean_shape": [[0.3, 0.4]] * len(KAGGLE15),
        "config": {"data": {"source": "synthetic"}, "seed": 3},
        "metrics": {"rmse": 1.5},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return json.dumps(ModelHeader.model_validate({**entries, **fields}).to_dict())


def headers() -> list[Files]:
    """Return headers of models."""
    two = schema_from_names("two", NAMES).to_dict()
    other = model_header(
        channels=1, mean=[0.5], std=[0.2], schema=two, mean_shape=None, head={"name": "simcc", "width": 8}
    )
    return [{"header.json": model_header().encode()}, {"header.json": other.encode()}]


def safetensors_file(header: bytes) -> bytes:
    """Return a safetensors file with a header of this package and two tensors."""
    tensors = {
        "__metadata__": {HEADER_KEY: header.decode("utf-8", "surrogateescape")},
        "conv1.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "bn1.num_batches_tracked": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
    }
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + np.arange(8, dtype=np.float32).tobytes()


@cache
def _onnx_graph() -> bytes:
    """Return a network that returns the mean of the image as the position of all landmarks."""
    from onnx import TensorProto, checker, helper

    floats = TensorProto.FLOAT
    k = len(KAGGLE15)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "one"], ["flat"]),
        helper.make_node("Mul", ["flat", "ones"], ["points"]),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [3], [-1, 1, 1]),
        helper.make_tensor("ones", floats, [1, k, 2], [1.0] * (2 * k)),
    ]
    image = helper.make_tensor_value_info("image", floats, ["n", 3, 32, 32])
    points = helper.make_tensor_value_info("points", floats, ["n", k, 2])
    graph = helper.make_graph(nodes, "mean", [image], [points], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def onnx_file(header: bytes) -> bytes:
    """Return an ONNX file with a header of this package."""
    # metadata_props is field 14 of a model, and a key and a value are the fields 1 and 2 of its entries
    entry = _field(1, HEADER_KEY.encode()) + _field(2, header)
    return _onnx_graph() + _field(14, entry)


def _field(number: int, content: bytes) -> bytes:
    """Return a field of bytes of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


# --- configs, schemas, corrections ---------------------------------------------------------------

CONFIG = """# a config
seed: 3
model: {arch: resnet18, head: {name: simcc, width: 16}, input_size: 64, init_from: null}
data:
  source: "faces.csv"
  limit: 100
  valid_fraction: 0.25
augment: {name: standard, rotate: 12.5, flip: 0}
training:
  epochs: 3
  loss: laplace
  optimizer: {name: adamw, weight_decay: 1e-4}
  schedule: {name: one_cycle, max_lr: 1e-3}
  ema: 0.99
"""

SETTINGS = (
    "training.epochs=5",
    "training.schedule={name: one_cycle, max_lr: 1e-3}",
    "model.head=linear",
    "data.source=faces.csv",
    "augment.name=none",
    "model.head.width=3",
    "seed=0x10",
    "data.corrections=null",
)

SCHEMA_YAML = """name: five
names: [left_eye, right_eye, nose, left_mouth, right_mouth]
flip_pairs:
  - [left_eye, right_eye]
  - [left_mouth, right_mouth]
midline: []
skeleton: [[left_mouth, right_mouth]]
eyes: [left_eye, right_eye]
normalizer: [[left_eye], [nose, right_mouth]]
"""

CORRECTIONS = (
    "face,landmark,action,x,y,note\n"
    "synthetic face 1,left_eye_center,move,40.5,30,far\n"
    "synthetic face 2,,drop,,,\n"
    "synthetic face 3,nose_tip,unlabel,,,\n"
    "synthetic face 4,,,,,looks right\n"
)


def texts(name: str, *contents: str) -> Callable[[], Sequence[Files]]:
    """Return a function that returns inputs of one text file."""
    return lambda: [{name: content.encode()} for content in contents]


def frame_folder() -> list[Files]:
    """Return frames with their times."""
    frames = {f"frame_{number:06d}.png": encoded("PNG") for number in (1, 2, 3)}
    rows = "".join(f"{name},{index / 25}\n" for index, name in enumerate(frames))
    return [{"times.csv": f"name,seconds\n{rows}".encode(), **frames}]


# --- videos --------------------------------------------------------------------------------------


def videos() -> list[Files]:
    """Return clips of six frames in several containers, all under the same name."""
    from helpers.clips import quadrant_frame, write_clip

    frames = [np.roll(quadrant_frame(), 4 * index, axis=1) for index in range(6)]
    kinds = (
        ("mp4", "libx264", "aac"),
        ("matroska", "libx264", "libopus"),
        ("mov", "mpeg4", None),
        ("avi", "mpeg4", "mp3"),
        ("webm", "libvpx", None),
        ("gif", "gif", None),
        ("mpegts", "mpeg2video", "mp2"),
    )
    found: list[Files] = []
    with tempfile.TemporaryDirectory() as temporary:
        for container, codec, audio in kinds:
            path = Path(temporary) / "clip.video"
            with suppress(Exception):  # an encoder that this build of FFmpeg lacks
                write_clip(path, frames, codec=codec, audio_codec=audio, container=container)
                found.append({"clip.video": path.read_bytes()})
    return found
