"""The label bias: estimated from the difference between mirrored and original images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.training.learner import build_learner, get_augmentation


@pytest.mark.parametrize("bias", [0.0, 0.04])
def test_label_bias_is_estimated_within_a_percent_of_the_side(bias: float, tmp_path: Path) -> None:
    unbiased = draw_synthetic_faces(240, seed=5)
    dataset = replace(unbiased, points=unbiased.points + np.array([bias * unbiased.size, 0], np.float32))
    config = validate_config(
        {
            "model": {"input_size": 32, "head": "soft-argmax"},
            "augment": {"name": "standard", "rotate": 0, "scale": 0, "erase": 0},
            "training": {
                "epochs": 12,
                "batch_size": 16,
                "device": "cpu",
                "loss": "l1",
                "optimizer": {"name": "adamw", "weight_decay": 0.01},
                "schedule": {"name": "flat_cos", "max_lr": 0.003},
                "ema": 0,
            },
        },
        "test",
    )
    learn = build_learner(config, dataset, split_dataset(dataset, "random", 0.2, 0), tmp_path)
    with learn.no_logging():
        learn.fit(config.training.epochs)
    assert get_augmentation(learn.dls).label_bias == pytest.approx(bias, abs=0.008)
