"""Reporting rows that cannot be used: all together, in one error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.files import write_text

BAD_ROWS_SHOWN = 20
BAD_ROWS_NAME = "bad-rows.txt"
"""File in the cache with the rows of the last data set that could not be used."""


def raise_bad_rows(annotations: Annotations, messages: Sequence[str], cache: Path) -> NoReturn:
    """Raise a UserError that lists the rows that cannot be used, and write the complete list to a file.

    Raises
    ------
    UserError
        With the message of the row, if there is one; with the first `BAD_ROWS_SHOWN` messages as details, if
        there are several.
    """
    remedy = "use --skip-bad to continue without"
    if len(messages) == 1:
        raise UserError(f"{messages[0]}; or {remedy} this row")
    total = len(annotations) + len(annotations.bad_rows)
    details = list(messages[:BAD_ROWS_SHOWN])
    if len(messages) > BAD_ROWS_SHOWN:
        path = cache / BAD_ROWS_NAME
        write_text(path, "\n".join(messages) + "\n")
        details.append(f"and {len(messages) - BAD_ROWS_SHOWN:,} more; {path} lists all")
    raise UserError(
        f"{annotations.source}: {len(messages):,} of {total:,} rows cannot be used; correct them, or {remedy}"
        " them",
        details,
    )
