"""Folds: every row is predicted once, by a model that did not see it; an interruption loses nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from landmarks_fastai.config import Recipe, check_recipe, load_recipe
from landmarks_fastai.data.source import load_table
from landmarks_fastai.data.split import split_by
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import evaluate_points
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.tasks.evaluate import unseen_rows
from landmarks_fastai.training.folds import resume_folds, train_folds
from landmarks_fastai.training.oof import read_oof
from landmarks_fastai.training.run import train


class Listener:
    """Hears of a run; may do something after an epoch."""

    def __init__(self, after_epoch=None) -> None:
        self.notes: list[str] = []
        self.epochs = 0
        self.after_epoch = after_epoch

    def note(self, text: str) -> None:
        self.notes.append(text)

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        pass

    def epoch(self, row: dict[str, float]) -> None:
        self.epochs += 1
        if self.after_epoch is not None:
            self.after_epoch(self.epochs)


def small_recipe(**data: object) -> Recipe:
    return check_recipe(
        {
            "seed": 3,
            "model": {"input_size": 32, "head": "soft-argmax"},
            "data": {"source": "synthetic", "count": 40, "folds": 2, **data},
            "training": {"epochs": 2, "batch_size": 16, "checkpoint_every": 1, "device": "cpu"},
        },
        "a test",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train both folds without an interruption."""
    folder = tmp_path_factory.mktemp("folds") / "run"
    train_folds(small_recipe(), folder, tmp_path_factory.getbasetemp() / "cache", Listener())
    return folder


def test_each_row_is_predicted_by_the_model_that_did_not_see_it(whole: Path, own_cache: Path) -> None:
    recipe = load_recipe(str(whole / "config.yaml"))
    assert recipe == small_recipe()
    table = load_table(recipe.data, own_cache, recipe.seed)
    found = read_oof(whole / "oof.csv", table)
    held_out = []
    for number in (1, 2):
        fold = whole / f"fold-{number}"
        parts = json.loads((fold / "data.json").read_text())["split"]
        assert not set(parts["train"]) & set(parts["valid"])
        rows = unseen_rows([fold], table)
        assert rows is not None
        assert rows.tolist() == parts["valid"]
        assert (found.fold[rows] == number).all()
        expected = Predictor.open(fold, "cpu").predict_crops(table.images[rows])
        np.testing.assert_allclose(found.points[rows], expected.points, rtol=1e-3)
        np.testing.assert_allclose(found.confidence[rows], expected.confidence, rtol=1e-3)
        held_out += rows.tolist()
    assert sorted(held_out) == list(range(40))
    report = evaluate_points(found.points, table.points, table.schema, table.complete, table.size)
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["faces"] == "out of fold"
    assert metrics["overall"]["faces"] == 40
    assert metrics["overall"]["rmse"] == pytest.approx(report.overall.rmse, rel=1e-3)


def test_a_fold_s_recipe_repeats_it(whole: Path, tmp_path: Path, own_cache: Path) -> None:
    recipe = load_recipe(str(whole / "fold-2" / "config.yaml"))
    assert (recipe.data.folds, recipe.data.fold) == (2, 2)
    train(recipe, tmp_path / "again", own_cache, Listener())
    ours, theirs = (load_file(path / "model.safetensors") for path in (tmp_path / "again", whole / "fold-2"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first = split_by(load_table(recipe.data, own_cache, 3), small_recipe(fold=1).data, 3)
    assert json.loads((whole / "fold-1" / "data.json").read_text())["split"] == first.to_dict()


def test_ctrl_c_and_resume_end_at_the_same_points(whole: Path, tmp_path: Path, own_cache: Path) -> None:
    def interrupt(epochs: int) -> None:
        if epochs == 3:  # the first of the second fold
            os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "run"
    outcome = train_folds(small_recipe(), folder, own_cache, Listener(interrupt))
    assert outcome.report is None
    assert (outcome.done, outcome.epochs) == (1, 1)
    assert json.loads((folder / "folds.json").read_text())["done"] == 1
    assert not (folder / "oof.csv").exists()
    first = (folder / "fold-1" / "model.safetensors").stat().st_mtime_ns
    listener = Listener()
    assert resume_folds(folder, own_cache, listener).report is not None
    assert listener.epochs == 1
    assert listener.notes[0] == "fold 2 of 2"
    assert (folder / "fold-1" / "model.safetensors").stat().st_mtime_ns == first
    assert (folder / "oof.csv").read_bytes() == (whole / "oof.csv").read_bytes()


def test_a_fold_without_a_checkpoint_begins_anew(whole: Path, tmp_path: Path, own_cache: Path) -> None:
    class Hasty(Listener):
        def batch(self, done: int, total: int, loss: float, lr: float) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "run"
    assert train_folds(small_recipe(), folder, own_cache, Hasty()).done == 0
    assert resume_folds(folder, own_cache, Listener()).report is not None
    assert (folder / "oof.csv").read_bytes() == (whole / "oof.csv").read_bytes()


def test_other_data_is_not_gone_on_with(whole: Path, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text((whole / "config.yaml").read_text())
    state = json.loads((whole / "folds.json").read_text())
    (folder / "folds.json").write_text(json.dumps({**state, "sha256": "0"}))
    with pytest.raises(UserError, match="not the data that this run began with"):
        resume_folds(folder, own_cache, Listener())


def test_too_few_groups_leave_nothing_behind(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(UserError, match=r"data\.folds: synthetic has \d+ groups .*too few for 41 folds"):
        train_folds(small_recipe(folds=41), tmp_path / "run", own_cache, Listener())
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"data\.folds asks for several runs"):
        train(small_recipe(), tmp_path / "run", own_cache, Listener())


def test_out_of_fold_points_of_other_faces_are_refused(whole: Path, tmp_path: Path, own_cache: Path) -> None:
    table = load_table(small_recipe().data, own_cache, 3)
    with pytest.raises(UserError, match=r"oof\.csv: tells of other faces"):
        read_oof(whole / "oof.csv", table.rows(np.arange(39)))
    with pytest.raises(UserError, match=r"nothing\.csv: can't be read"):
        read_oof(tmp_path / "nothing.csv", table)
