"""Scorer tables in HDF5, as DeepLabCut saves them with pandas.

The file is read with h5py: pandas would unpickle parts of a prepared file, and so run code from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from landmarks_fastai.data.formats.scorer_table import HEADERS, ScorerTable, check_headers
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.hdf5_check import check_hdf5

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_CELLS = 1 << 28


def read_scorer_hdf(path: Path) -> ScorerTable:
    """Read a scorer table from HDF5 in the "fixed" layout of pandas.

    Raises
    ------
    UserError
        If h5py is not installed, or the file cannot be read or has another layout.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path}: HDF5 files need h5py: pip install 'landmarks-fastai[deeplabcut]'; or name the CSV"
        ) from None
    check_hdf5(path)
    try:
        with h5py.File(path, "r") as file:
            groups = [group for group in file.values() if isinstance(group, h5py.Group)]
            if len(groups) != 1 or "block0_values" not in groups[0]:
                raise UserError(
                    f"{path}: not in the layout in which DeepLabCut saves labels; name the CSV beside it"
                )
            return _read_group(path, groups[0])
    except UserError:
        raise
    except Exception as error:  # damaged files make h5py raise many types of exception
        raise UserError(f"{path}: damaged or not a table of labels; name the CSV beside it") from error


def _read_group(path: Path, group: Any) -> ScorerTable:
    names = [_text(group[f"axis0_level{i}"].attrs["name"]) for i in range(_levels(group, "axis0"))]
    cells = [_labels(group, "axis0", i) for i in range(len(names))]
    headers = dict(zip(names, map(tuple, cells), strict=True))
    check_headers(path, {name: headers[name] for name in HEADERS if name in headers} | headers)
    n_path = _levels(group, "axis1")
    if n_path:
        parts = [_labels(group, "axis1", i) for i in range(n_path)]
        images = ["/".join(row) for row in zip(*parts, strict=True)]
    else:
        images = [_text(value) for value in group["axis1"][()]]
    if len(images) * len(cells[0]) > MAX_CELLS:
        raise UserError(f"{path}: more than {MAX_CELLS:,} cells; split it")
    columns = {column: index for index, column in enumerate(zip(*cells, strict=True))}
    values = np.full((len(images), len(columns)), np.nan)
    for block in sorted(name for name in group if name.startswith("block") and name.endswith("_values")):
        items = block.replace("_values", "_items")  # pandas keeps columns of one data type together
        labels = zip(*(_labels(group, items, i) for i in range(len(names))), strict=True)
        values[:, [columns[label] for label in labels]] = group[block][()]
    is_coordinate = np.isin(headers["coords"], ("x", "y"))
    values[:, ~is_coordinate] = np.nan
    values[np.isinf(values)] = np.nan
    return ScorerTable(
        path=path,
        headers=headers,
        images=tuple(image.replace("\\", "/") for image in images),
        values=values,
        locations=tuple(f"{path}, row {i}" for i in range(1, len(images) + 1)),
        path_columns=max(n_path, 1),
    )


def _levels(group: Any, axis: str) -> int:
    return sum(name.startswith(f"{axis}_level") for name in group)


def _labels(group: Any, axis: str, level: int) -> list[str]:
    """Return the labels of one level of a pandas MultiIndex."""
    texts = [_text(value) for value in group[f"{axis}_level{level}"][()]]
    return [texts[code] if code >= 0 else "" for code in group[f"{axis}_label{level}"][()].tolist()]


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
