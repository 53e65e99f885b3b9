"""DeepLabCut: ``CollectedData_SCORER.csv`` or ``.h5`` of a video's folder, or the project.

Coordinates are pixel indices counted from 0, as in this package. One row per image and individual; the folder
of a video is the group of its rows. A CSV is preferred to the .h5 beside it. Written is a project with
``config.yaml`` and, for each group, the images, the CSV and, if PyTables is installed, the .h5.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.deeplabcut_writing import write
from landmarks_fastai.data.formats.scorer_annotations import to_annotations
from landmarks_fastai.data.formats.scorer_table import ScorerTable, read_scorer_csv, starts_as_scorer_table
from landmarks_fastai.data.formats.scorer_table_hdf import SIGNATURE, read_scorer_hdf
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.yaml_reader import read_yaml

LABELS = "labeled-data"
MAX_AGE_DIFFERENCE = 60
"""Seconds between the changes of a CSV and of the .h5 beside it from which they may differ."""


def recognizes(path: Path) -> bool:
    """Return True for a table of DeepLabCut, a folder with one, or a project."""
    try:
        if path.is_dir():
            return bool(_tables(path)[0])
        if path.suffix.lower() == ".h5":
            with path.open("rb") as stream:
                return stream.read(len(SIGNATURE)) == SIGNATURE
        return starts_as_scorer_table(path) and not is_lightning_pose(read_scorer_csv(path))
    except (OSError, UserError):
        return False


def read(path: Path) -> Annotations:
    """Read a table, or all tables of a project or of a video's folder.

    Raises
    ------
    UserError
        If there is no table, a table cannot be read, or it has labels of several scorers.
    """
    paths, notes = _tables(path) if path.is_dir() else ([path], [])
    if not paths:
        raise UserError(f"{path}: no CollectedData_*.csv or .h5 in this folder or in its {LABELS}")
    tables = [
        read_scorer_hdf(each) if each.suffix.lower() == ".h5" else read_scorer_csv(each) for each in paths
    ]
    scorer, edges = _read_config(path)
    return to_annotations(tables, path, _image_folders, scorer=scorer, edges=edges, notes=notes)


def is_lightning_pose(table: ScorerTable) -> bool:
    """Return True if a table is of Lightning Pose and not of DeepLabCut.

    Its paths start at the folder of the CSV, which is the project, or it has other columns than x and y.
    """
    if "individuals" in table.headers or table.path_columns > 1:
        return False
    extra = set(table.headers["coords"]) - {"x", "y"}
    first = table.images[0] if table.images else ""
    return bool(extra) or ("/" in first and os.path.isfile(table.path.parent / first))


FORMAT = AnnotationFormat("deeplabcut", "DeepLabCut labels", recognizes, read, write)


def _tables(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the tables of a project or of a video's folder, and lines for the user."""
    found, notes = [], []
    for parent in sorted({folder, *folder.glob(f"{LABELS}/*")}):
        csvs, hdfs = sorted(parent.glob("CollectedData_*.csv")), sorted(parent.glob("CollectedData_*.h5"))
        if len(csvs) > 1 or (not csvs and len(hdfs) > 1):
            raise UserError(f"{parent}: several tables CollectedData_*; name one of them")
        found += csvs or hdfs
        hdf = csvs[0].with_suffix(".h5") if csvs else None
        if hdf is not None and hdf.is_file():
            difference = abs(csvs[0].stat().st_mtime - hdf.stat().st_mtime)
            if difference > MAX_AGE_DIFFERENCE:
                notes.append(f"{csvs[0]}: read instead of {hdf.name}, which was changed at another time")
    return found, notes


def _image_folders(table: ScorerTable) -> Sequence[Path]:
    """Return where the images of a table are: from the project, or beside the table."""
    folder = table.path.parent
    return [folder.parent.parent, folder.parent, folder]


def _read_config(path: Path) -> tuple[str | None, list[tuple[str, str]]]:
    """Return the scorer and the skeleton of a project's config.yaml, if there is one."""
    for folder in (path, *path.absolute().parents[:3]):
        config = folder / "config.yaml"
        if config.is_file():
            entries = read_yaml(config)
            if not isinstance(entries, dict):
                return None, []
            scorer, skeleton = entries.get("scorer"), entries.get("skeleton")
            edges = [
                (str(edge[0]), str(edge[1]))
                for edge in (skeleton if isinstance(skeleton, list) else [])
                if isinstance(edge, list) and len(edge) == 2
            ]
            return (str(scorer) if scorer is not None else None), edges
    return None, []
