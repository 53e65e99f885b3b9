"""The output of a command that torchrun has started in several processes: only the first one prints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import typer

from landmarks_fastai.errors import LandmarksError


@contextmanager
def first_process_prints() -> Iterator[None]:
    """Within the block, the other processes print nothing but errors that the first process does not have."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from landmarks_fastai.training.distributed import OtherProcessFailedError, ProcessError, process_rank

    try:
        if process_rank() == 0:
            yield
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield
    except ProcessError:
        raise
    except (LandmarksError, KeyboardInterrupt) as error:
        if process_rank() == 0 and not isinstance(error, OtherProcessFailedError):
            raise
        raise typer.Exit(getattr(error, "exit_code", 1)) from error
