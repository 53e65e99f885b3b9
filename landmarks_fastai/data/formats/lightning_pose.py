"""Lightning Pose: a CSV in the project folder, with header rows scorer, bodyparts and coords.

Coordinates are pixel indices counted from 0, as in this package. The paths of images start at the folder of
the CSV. The column likelihood of predictions is ignored. The views of several cameras are not combined.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.deeplabcut import is_lightning_pose
from landmarks_fastai.data.formats.folders import copy_image
from landmarks_fastai.data.formats.scorer_annotations import check_no_frames, number_rows, to_annotations
from landmarks_fastai.data.formats.scorer_table import ScorerTable, read_scorer_csv, starts_as_scorer_table
from landmarks_fastai.data.formats.unwritten import BOXES, EMPTY_ROWS, OCCLUSION, SCHEMA_PARTS, written_losses
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.files import write_csv
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.utils.unique_names import UniqueNames

CSV_NAME = "CollectedData.csv"
LOST = (EMPTY_ROWS, OCCLUSION, BOXES, *SCHEMA_PARTS)
SCORER = "landmarks-fastai"


def recognizes(path: Path) -> bool:
    """Return True for a CSV of Lightning Pose, or a project folder."""
    try:
        tables = _tables(path) if path.is_dir() else [path]
        return bool(tables) and all(
            starts_as_scorer_table(each) and is_lightning_pose(read_scorer_csv(each)) for each in tables
        )
    except UserError:
        return False


def read(path: Path) -> Annotations:
    """Read a CSV, or that of a project folder.

    Raises
    ------
    UserError
        If there is no CSV or more than one, it cannot be read, or it has predictions of a video.
    """
    csv = _choose_table(path) if path.is_dir() else path
    table = read_scorer_csv(csv)
    if table.images and all(re.fullmatch(r"\d+", image) for image in table.images):
        raise UserError(f"{csv}: the rows are frames of a video, not labeled images; name the labels")
    ignored = sorted(set(table.headers["coords"]) - {"x", "y", ""})
    extra = [name for name in table.headers["scorer"] if name == "set"]
    notes = [f"{csv}: the columns {', '.join([*ignored, *extra[:1]])} are ignored"] if ignored else []
    return to_annotations([table], path, _image_folders, notes=notes)


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write CollectedData.csv and the images to a folder, one row per image.

    Raises
    ------
    UserError
        If rows are on frames of videos.
    """
    check_no_frames(annotations)
    numbers, losses = number_rows(annotations), written_losses(annotations, LOST)
    first = np.flatnonzero(numbers == 0)
    if len(first) < len(annotations):
        count = format_count(len(annotations) - len(first), "row")
        losses.append(f"{count} not written: the format holds one row per image")
    names = annotations.schema.names
    rows: list[list[object]] = [
        ["scorer", *[SCORER] * (2 * len(names))],
        ["bodyparts", *(name for name in names for _ in "xy")],
        ["coords", *["x", "y"] * len(names)],
    ]
    unique_name: dict[str, UniqueNames] = defaultdict(lambda: UniqueNames("_"))
    for row in first.tolist():
        source = annotations.images[annotations.rows[row]].path
        group = "images" if annotations.groups is None else re.sub(r"[^\w .-]", "_", annotations.groups[row])
        folder = out / "labeled-data" / group
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{unique_name[group](source.stem)}{source.suffix}"
        copy_image(source, folder / name)
        values = annotations.points[row].ravel().tolist()
        cells = ["" if np.isnan(value) else value for value in values]
        rows.append([f"labeled-data/{group}/{name}", *cells])
    write_csv(out / CSV_NAME, rows)
    return losses


FORMAT = AnnotationFormat("lightning-pose", "Lightning Pose labels", recognizes, read, write)


def _tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.csv") if starts_as_scorer_table(path))


def _choose_table(folder: Path) -> Path:
    tables = _tables(folder)
    if (folder / CSV_NAME) in tables:
        return folder / CSV_NAME
    if len(tables) != 1:
        what = "no table of labels" if not tables else "several tables of labels, which are not combined"
        raise UserError(f"{folder}: {what}; name the CSV itself")
    return tables[0]


def _image_folders(table: ScorerTable) -> Sequence[Path]:
    return [table.path.parent, table.path.parent.parent]
