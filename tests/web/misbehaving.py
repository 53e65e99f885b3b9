"""A service whose methods misbehave; a module of its own, because the worker process imports it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from landmarks_fastai.errors import UserError


class Service:
    """A service whose methods misbehave."""

    def process_id(self) -> int:
        return os.getpid()

    def refuse(self) -> None:
        raise UserError("a.png: not an image", ["a detail"])

    def fail(self) -> None:
        raise KeyError("x")

    def freeze(self, report: object = None) -> None:
        time.sleep(600)

    def crash(self) -> None:
        os._exit(77)

    def allocate(self, megabytes: int) -> int:
        return len(np.ones(megabytes * 2**20, np.uint8))

    def write(self, path: Path, size: int) -> None:
        path.write_bytes(bytes(size))

    def count(self, report: Callable[[int, int | None, str], None]) -> str:
        for done in (1, 2, 3):
            report(done, 3, "frames")
        return "counted"


def refuse_to_open() -> Service:
    raise UserError("model.safetensors: damaged")
