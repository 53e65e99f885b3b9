"""The learning rate finder: its suggestion and its plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.training.lr_finder import find_lr
from landmarks_fastai.training.run_folder import is_taken


@pytest.mark.parametrize(("loss", "head"), [("l1", "soft-argmax"), ("laplace", "simcc")])
def test_find_lr_suggests_rate_and_saves_plot_for_positive_and_negative_losses(
    tmp_path: Path, small_config: Callable[..., TrainConfig], loss: str, head: str
) -> None:
    options = small_config(loss=loss).model_dump()
    config = validate_config(options | {"model": {"input_size": 32, "head": head}}, "test")
    suggestion, plot = find_lr(config, tmp_path / "run")
    assert 1e-5 < suggestion < 0.1
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lr_find.png"]
    assert not is_taken(tmp_path / "run")
