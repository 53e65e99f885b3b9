"""Replacing the run in a folder: the earlier run is kept until the new one has a checkpoint.

The entries of the earlier run are moved into the hidden subfolder `ASIDE` of the same folder, so that the
lock of the folder covers them, and a symbolic link to the folder or a mount point stays what it is. A
process can be killed at any moment; run.json then tells whose entries are in the folder: that of the earlier
run is the first to be moved away and the last to be moved back, that of the new run the first to be written
and the last to be deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import RunError, WriteError
from landmarks_fastai.model_files.run_marker import RUN_FILE, fold_number
from landmarks_fastai.training.run_folder import (
    ASIDE,
    begin_run,
    check_available,
    foreign_entries,
    is_taken,
    last_checkpoint,
    run_entries,
)
from landmarks_fastai.utils.files import remove

Outcome = Literal["nothing", "deleted", "restored"]
"""What became of the earlier run."""

INTERRUPTED = "interrupted before the first checkpoint"


@contextmanager
def new_run(
    folder: Path, config: TrainConfig, overwrite: bool, note: Callable[[str], None]
) -> Iterator[None]:
    """Within the block, the folder is that of a new run; an earlier one is deleted or put back at the end.

    Parameters
    ----------
    folder
        The run folder, which the caller has locked.
    config
        Config of the new run.
    overwrite
        Whether the folder may contain an earlier run.
    note
        Called with a message if the earlier run is put back.

    Raises
    ------
    UserError
        See `check_available`.
    RunError
        If Ctrl-C or SIGTERM ended the new run before its first checkpoint, and there was an earlier one.
    WriteError
        If the folder cannot be written.
    """
    settle_replacement(folder)  # of a process that was killed
    check_available(folder, overwrite)
    try:
        if is_taken(folder):
            _move_aside(folder)
        begin_run(folder, config)
        yield
    except BaseException as error:
        if _settle(folder, note) and isinstance(error, KeyboardInterrupt):
            raise RunError(INTERRUPTED) from error
        raise
    if _settle(folder, note):
        raise RunError(INTERRUPTED)


def _settle(folder: Path, note: Callable[[str], None]) -> bool:
    """Settle the replacement; return True, and say so, if the earlier run was put back."""
    restored = settle_replacement(folder) == "restored"
    if restored:
        note(f"{folder}: the earlier run is kept, because the new one has no checkpoint")
    return restored


def has_earlier_run(folder: Path) -> bool:
    """Return True if the earlier run of the folder is still kept."""
    return (folder / ASIDE).is_dir()


def settle_replacement(folder: Path) -> Outcome:
    """Delete the earlier run if the new one has a checkpoint; otherwise delete the new one and put it back.

    Raises
    ------
    WriteError
        If a file cannot be moved or deleted.
    """
    aside = folder / ASIDE
    if not aside.is_dir():
        return "nothing"
    try:
        if _has_begun(folder):
            shutil.rmtree(aside)
            return "deleted"
        if (aside / RUN_FILE).exists():
            if (folder / RUN_FILE).exists():
                _delete(folder)
            for entry in sorted(run_entries(aside), key=_is_marker):
                os.replace(entry, folder / entry.name)
        aside.rmdir()
    except OSError as error:
        raise WriteError(aside, error.strerror or str(error), "move its content back yourself") from error
    return "restored"


def delete_run(folder: Path) -> None:
    """Delete the run in a folder, if there is one and the folder contains nothing else.

    Raises
    ------
    UserError
        See `check_available`.
    WriteError
        If a file cannot be deleted.
    """
    check_available(folder, overwrite=True)
    if not is_taken(folder):
        return
    try:
        _delete(folder)
    except OSError as error:
        raise WriteError(folder, error.strerror or str(error), "delete the folder yourself") from error


def _move_aside(folder: Path) -> None:
    """Move the entries of a run into its subfolder `ASIDE`, the marker first."""
    aside = folder / ASIDE
    entries = run_entries(folder)
    try:
        aside.mkdir()
        for entry in sorted(entries, key=_is_marker, reverse=True):
            os.replace(entry, aside / entry.name)
    except OSError as error:
        raise WriteError(aside, error.strerror or str(error), "choose another --out") from error


def _delete(folder: Path) -> None:
    """Delete the entries of a run, the marker last; of a symbolic link, only the link."""
    foreign = list(foreign_entries(folder))  # they may have appeared after `check_available`
    for entry in sorted(run_entries(folder), key=_is_marker):
        if entry.name == ASIDE or any(path.is_relative_to(entry) for path in foreign):
            continue
        remove(entry)


def _has_begun(folder: Path) -> bool:
    """Return True if the folder contains a run with a checkpoint, or a fold with one."""
    if not (folder / RUN_FILE).is_file():
        return False
    runs = [folder, *(path for path in run_entries(folder) if fold_number(path) is not None)]
    return any(last_checkpoint(run).is_file() for run in runs)


def _is_marker(path: Path) -> bool:
    return path.name == RUN_FILE
