"""Engines, which predict the shards of a run.

To add an engine, write a module with an `Engine` (`engines.base`), and add a line to `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Mapping

from landmarks_fastai.batch_inference.engines.base import Engine
from landmarks_fastai.batch_inference.engines.local import run_local
from landmarks_fastai.batch_inference.engines.ray import run_ray

ENGINES: Mapping[str, Engine] = {"local": run_local, "ray": run_ray}
