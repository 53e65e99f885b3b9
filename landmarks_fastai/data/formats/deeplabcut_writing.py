"""Writing a DeepLabCut project: config.yaml, and images and tables of each video."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.folders import copy_image
from landmarks_fastai.data.formats.scorer_annotations import check_no_frames, number_rows
from landmarks_fastai.data.formats.unwritten import (
    BOXES,
    EMPTY_ROWS,
    EYES,
    FLIP_PAIRS,
    MIDLINE,
    NORMALIZER,
    OCCLUSION,
    written_losses,
)
from landmarks_fastai.utils.files import write_csv, write_text
from landmarks_fastai.utils.unique_names import UniqueNames

SCORER = "landmarks-fastai"
DEFAULT_VIDEO = "images"
LOST = (EMPTY_ROWS, OCCLUSION, BOXES, FLIP_PAIRS, EYES, NORMALIZER, MIDLINE)


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write a project to a folder, and return a line for each thing that it cannot hold.

    It has several animals if an image has several rows.

    Raises
    ------
    UserError
        If rows are on frames of videos.
    """
    check_no_frames(annotations)
    numbers = number_rows(annotations)
    losses = written_losses(annotations, LOST, columns=("individual",))
    schema = annotations.schema
    individuals = [f"individual{i + 1}" for i in range(int(numbers.max(initial=0)) + 1)]
    several = len(individuals) > 1
    by_video: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, image in enumerate(annotations.rows.tolist()):
        video = annotations.groups[row] if annotations.groups is not None else DEFAULT_VIDEO
        by_video[_folder_name(video)][image].append(row)
    for video, images in by_video.items():
        folder = out / "labeled-data" / video
        folder.mkdir(parents=True, exist_ok=True)
        unique_name = UniqueNames("_")
        paths, values = [], []
        for image, rows in images.items():
            source = annotations.images[image].path
            name = f"{unique_name(source.stem)}{source.suffix}"
            copy_image(source, folder / name)
            paths.append(("labeled-data", video, name))
            cells = np.full((len(individuals), len(schema), 2), np.nan)
            for row in rows:
                cells[numbers[row]] = annotations.points[row]
            values.append(cells.ravel())
        header = _header(individuals if several else None, schema.names)
        losses += _write_tables(folder / f"CollectedData_{SCORER}", header, paths, np.array(values))
    write_text(
        out / "config.yaml", yaml.safe_dump(_config(annotations, individuals, several, list(by_video)))
    )
    if not several and set(annotations.columns.get("individual", ())) - {""}:
        losses.append("the column individual is not written, because no image has several rows")
    return list(dict.fromkeys(losses))


def _folder_name(video: str) -> str:
    """Return the name of a group as the name of a folder."""
    return "".join("_" if character in '/\\:*?"<>|' else character for character in video).strip(". ") or "_"


def _header(individuals: list[str] | None, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the cells of each header row."""
    n = 1 if individuals is None else len(individuals)
    header = {"scorer": [SCORER] * (2 * n * len(names))}
    if individuals is not None:
        header["individuals"] = [name for name in individuals for _ in range(2 * len(names))]
    header["bodyparts"] = [name for _ in range(n) for name in names for _ in "xy"]
    header["coords"] = ["x", "y"] * (n * len(names))
    return header


def _write_tables(
    stem: Path, header: dict[str, list[str]], paths: list[tuple[str, str, str]], values: np.ndarray
) -> list[str]:
    """Write the CSV, and the .h5 if PyTables is installed."""
    rows: list[list[object]] = [[name, "", "", *cells] for name, cells in header.items()]
    for path, numbers in zip(paths, values.tolist(), strict=True):
        rows.append([*path, *("" if np.isnan(number) else number for number in numbers)])
    write_csv(stem.with_name(f"{stem.name}.csv"), rows)
    try:
        import pandas as pd
        import tables  # noqa: F401  # pandas needs it
    except ImportError:
        return ["only CSV files are written; for the .h5 files: pip install 'landmarks-fastai[deeplabcut]'"]
    columns = pd.MultiIndex.from_arrays(list(header.values()), names=list(header))
    frame = pd.DataFrame(values, index=pd.MultiIndex.from_tuples(paths), columns=columns)
    frame.to_hdf(stem.with_name(f"{stem.name}.h5"), key="df_with_missing", mode="w")
    return []


def _config(
    annotations: Annotations, individuals: list[str], several: bool, videos: list[str]
) -> dict[str, Any]:
    """Return the entries of config.yaml that describe the labels."""
    names = list(annotations.schema.names)
    edges = [[a, b] for chain in annotations.schema.skeleton for a, b in pairwise(chain)]
    config: dict[str, Any] = {
        "Task": "landmarks",
        "scorer": SCORER,
        "multianimalproject": several,
        "video_sets": {f"videos/{video}.mp4": {} for video in videos},
        "bodyparts": "MULTI!" if several else names,
        "skeleton": edges,
    }
    if several:
        config |= {"individuals": individuals, "uniquebodyparts": [], "multianimalbodyparts": names}
    return config
