"""Markdown pages, tables, and numbers as mean ± standard deviation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def markdown_page(title: str, *blocks: str) -> str:
    """Return a page of paragraphs, tables and lists, separated by empty lines."""
    return "\n\n".join([f"# {title}", *(block.strip() for block in blocks)]) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; short rows are padded with empty cells."""
    lines = [header, ["---"] * len(header)]
    lines += [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_std(values: ArrayLike, form: str = ".3f") -> str:
    """Return "mean ± sample standard deviation", the mean alone for a single value.

    Parameters
    ----------
    values
        (n,) one value per run.
    form
        Format of both numbers; its "+" applies to the mean only.
    """
    runs = np.asarray(values, np.float64)
    mean = format(float(runs.mean()), form)
    return mean if len(runs) < 2 else f"{mean} ± {format(float(runs.std(ddof=1)), form.lstrip('+'))}"
