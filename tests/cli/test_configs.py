"""The command `configs`."""

from __future__ import annotations

import pytest
import yaml

from landmarks_fastai.cli import run
from landmarks_fastai.config.options import TrainConfig


def test_configs_lists_all_configs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [
        "default",
        "original-resnet18",
        "original-resnet34",
        "quick",
        "release-resnet18",
        "release-resnet34",
    ]
    assert [line.split()[0] for line in lines] == names
    assert lines[1].split(maxsplit=1)[1].startswith("resnet18, lin-relu-lin, ")
    assert len({line.index("resnet", 18) for line in lines}) == 1


def test_configs_prints_config_with_all_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["configs", "original-resnet34"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["training"]["schedule"]["step_up"] == 2400
    assert TrainConfig.model_validate(shown).training.batch_size == 420
