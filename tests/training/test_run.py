"""A run from start to end: what its folder holds, and that a resumed one ends where it would have."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from landmarks_fastai.calibration import scale_factor
from landmarks_fastai.config import Recipe, check_recipe, load_recipe
from landmarks_fastai.data.source import load_faces
from landmarks_fastai.data.split import split
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.evaluation import rmse
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.training.learner import augmentation, build_learner
from landmarks_fastai.training.run import find_lr, is_taken, next_folder, resume, train

SHELF = {
    "config.yaml",
    "data.json",
    "history.csv",
    "curves.png",
    "samples.png",
    "checkpoints",
    "metrics.json",
    "model.safetensors",
    "model.pkl",
    "model.onnx",
    "README.md",
}


class Listener:
    """Keeps what a run tells; may do something after an epoch."""

    def __init__(self, after_epoch=None) -> None:
        self.rows: list[dict[str, float]] = []
        self.batches = 0
        self.notes: list[str] = []
        self.after_epoch = after_epoch

    def note(self, text: str) -> None:
        self.notes.append(text)

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        self.batches += 1
        assert done <= total

    def epoch(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self.after_epoch is not None:
            self.after_epoch(row)


def small_recipe(**training: object) -> Recipe:
    options = {"epochs": 4, "batch_size": 16, "ema": 0.9, "checkpoint_every": 2, "device": "cpu"}
    options |= {"precision": "fp32", **training}
    return check_recipe(
        {
            "seed": 3,
            "model": {"input_size": 32, "head": "soft-argmax"},
            "data": {"source": "synthetic", "count": 60},
            "training": options,
        },
        "a test",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train four epochs that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    cache = tmp_path_factory.getbasetemp() / "cache"
    train(small_recipe(), folder, cache, Listener())
    return folder


def test_the_folder_tells_all(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == SHELF
    assert load_recipe(str(whole / "config.yaml")) == small_recipe()
    data = json.loads((whole / "data.json").read_text())
    assert len(data["sha256"]) == 64
    assert len(data["split"]["train"]) + len(data["split"]["valid"]) == data["rows"] == 60
    history = pd.read_csv(whole / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert list(history) == ["epoch", "train_loss", "valid_loss", "rmse", "nme", "lr", "seconds"]
    metrics = json.loads((whole / "metrics.json").read_text())
    best = history.loc[history["valid_loss"].idxmin()]
    assert metrics["overall"]["rmse"] == pytest.approx(best["rmse"], abs=1e-3)
    assert "RMSE" in (whole / "README.md").read_text()


def test_all_three_model_files_find_the_same_points(whole: Path, faces) -> None:
    found = [
        Predictor.open(whole / name, "cpu", trust_pickle=True).predict_crops(faces.images)
        for name in ("model.safetensors", "model.onnx", "model.pkl")
    ]
    assert np.abs(found[0].points - found[1].points).max() < 0.01
    assert np.abs(found[0].confidence - found[1].confidence).max() < 0.001
    assert np.array_equal(found[0].points, found[2].points)
    assert np.array_equal(found[0].confidence, found[2].confidence)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_scores_are_what_the_kept_weights_predict(
    precision: str, tmp_path: Path, own_cache: Path
) -> None:
    late = {"name": "one_cycle", "max_lr": 0.3, "div": 300.0, "pct_start": 0.9}
    recipe = small_recipe(ema=0.5, schedule=late, precision=precision)
    outcome = train(recipe, tmp_path / "run", own_cache, Listener())
    losses = pd.read_csv(tmp_path / "run" / "history.csv")["valid_loss"]
    assert losses.argmin() < len(losses) - 1, "the last epoch is the best one, so this tests nothing"
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    table = load_faces("synthetic", own_cache, seed=3, count=60).rows(np.array(data["split"]["valid"]))
    found = Predictor.open(tmp_path / "run", "cpu").predict_crops(table.images).points
    assert outcome.report.overall.rmse == pytest.approx(rmse(found, table.points), rel=1e-3)


def test_the_scales_are_fitted_to_the_validation_faces(whole: Path, own_cache: Path) -> None:
    table = load_faces("synthetic", own_cache, seed=3, count=60)
    valid = table.rows(np.array(json.loads((whole / "data.json").read_text())["split"]["valid"]))
    predictor = Predictor.open(whole, "cpu")
    factor = predictor.header.scale_factor
    assert abs(factor - 1) > 0.02  # four epochs leave something to correct
    found = predictor.predict_crops(valid.images)
    assert scale_factor(found.points, valid.points, found.scales) == pytest.approx(1, abs=0.02)
    calibration = json.loads((whole / "metrics.json").read_text())["calibration"]
    assert calibration["factor"] == pytest.approx(1, abs=1e-5)
    assert calibration["points"] == 15 * len(valid)
    assert calibration["claimed"] == pytest.approx(found.confidence.mean(), abs=0.01)
    assert f"scales count {factor:.2f} times" in (whole / "README.md").read_text()


def test_a_model_without_confidence_has_no_calibration(tmp_path: Path, own_cache: Path) -> None:
    recipe = small_recipe(epochs=1)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"confidence": False})})
    outcome = train(recipe, tmp_path / "run", own_cache, Listener())
    assert outcome.report.calibration is None
    assert Predictor.open(tmp_path / "run", "cpu").header.scale_factor == 1
    assert "there is no calibration" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("patience", [None, 10])
def test_a_resumed_run_is_the_same_bit_for_bit(
    whole: Path, tmp_path: Path, own_cache: Path, patience: int | None
) -> None:
    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 3:  # one epoch after the last checkpoint
            raise Killed("now")

    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train(small_recipe(patience=patience), folder, own_cache, Listener(kill))
    outcome = resume(folder, own_cache, Listener())
    assert outcome.epochs == 4
    ours, theirs = (load_file(path / "model.safetensors") for path in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    columns = ["epoch", "train_loss", "valid_loss", "rmse", "nme", "lr"]
    resumed, straight = (pd.read_csv(path / "history.csv")[columns] for path in (folder, whole))
    pd.testing.assert_frame_equal(resumed, straight, check_exact=True)
    last = [torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (folder, whole)]
    assert all(torch.equal(last[0]["model"][name], last[1]["model"][name]) for name in last[1]["model"])


def test_ctrl_c_ends_with_a_usable_model(tmp_path: Path, own_cache: Path, faces) -> None:
    before = signal.getsignal(signal.SIGINT)
    listener = Listener(lambda row: os.kill(os.getpid(), signal.SIGINT) if row["epoch"] == 2 else None)
    outcome = train(small_recipe(epochs=50), tmp_path / "run", own_cache, listener)
    assert outcome.interrupted
    assert outcome.epochs == 2
    assert np.isfinite(Predictor.open(tmp_path / "run", "cpu").predict_crops(faces.images).points).all()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_first_epoch_leaves_a_model_too(tmp_path: Path, own_cache: Path, faces) -> None:
    class Hasty(Listener):
        def batch(self, done: int, total: int, loss: float, lr: float) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    outcome = train(small_recipe(), tmp_path / "run", own_cache, Hasty())
    assert outcome.interrupted
    assert outcome.epochs == 0
    assert np.isfinite(Predictor.open(tmp_path / "run", "cpu").predict_crops(faces.images).points).all()


def test_bfloat16_trains_too_and_is_named(tmp_path: Path, own_cache: Path) -> None:
    listener = Listener()
    outcome = train(small_recipe(epochs=1, precision="bf16"), tmp_path / "run", own_cache, listener)
    assert "bfloat16" in listener.notes[0]
    assert np.isfinite(outcome.report.overall.rmse)


def test_early_stopping_stops(tmp_path: Path, own_cache: Path) -> None:
    recipe = small_recipe(epochs=30, patience=1, schedule={"name": "one_cycle", "max_lr": 1e-9}, ema=0)
    outcome = train(recipe, tmp_path / "run", own_cache, Listener())
    assert outcome.epochs < 30
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == outcome.epochs


def test_an_existing_run_stays_unless_told(whole: Path, own_cache: Path, tmp_path: Path) -> None:
    before = (whole / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match="--overwrite"):
        train(small_recipe(), whole, own_cache, Listener())
    # asked to overwrite, but the new run can't start: the old one is still whole
    broken = small_recipe().model_copy(
        update={"data": small_recipe().data.model_copy(update={"source": "nowhere"})}
    )
    with pytest.raises(UserError):
        train(broken, whole, own_cache, Listener(), overwrite=True)
    assert (whole / "model.safetensors").stat().st_mtime_ns == before
    assert {path.name for path in whole.iterdir()} == SHELF


def test_a_run_folder_in_use_is_refused(tmp_path: Path, own_cache: Path) -> None:
    with FileLock(tmp_path / ".run.lock"), pytest.raises(UserError, match="in use"):
        train(small_recipe(), tmp_path / "run", own_cache, Listener())


def test_resuming_with_other_data_is_refused(tmp_path: Path, own_cache: Path) -> None:
    train(small_recipe(epochs=1), tmp_path / "run", own_cache, Listener())
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    (tmp_path / "run" / "data.json").write_text(json.dumps({**data, "sha256": "0"}))
    with pytest.raises(UserError, match="not the data"):
        resume(tmp_path / "run", own_cache, Listener())
    with pytest.raises(UserError, match="no run to go on with"):
        resume(tmp_path / "nothing", own_cache, Listener())


def test_fixes_stand_in_the_recipe_and_may_not_change_under_a_run(tmp_path: Path, own_cache: Path) -> None:
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("face,action,note\nsynthetic face 7,drop,\n")
    recipe = small_recipe(epochs=1)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"fixes": str(fixes)})})
    train(recipe, tmp_path / "run", own_cache, Listener())
    assert json.loads((tmp_path / "run" / "data.json").read_text())["rows"] == 59
    assert load_recipe(str(tmp_path / "run" / "config.yaml")).data.fixes == str(fixes)
    fixes.write_text("face,action,note\nsynthetic face 7,drop,a mouth that is none\n")
    assert resume(tmp_path / "run", own_cache, Listener()).epochs == 1
    fixes.write_text("face,action,note\nsynthetic face 8,drop,\n")
    with pytest.raises(UserError, match="not the data"):
        resume(tmp_path / "run", own_cache, Listener())


def test_a_full_disk_is_one_line(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("landmarks_fastai.files.os.replace", full)
    with pytest.raises(RunError, match=r"^[^\n]*config.yaml: can't be written \(No space left on device\)"):
        train(small_recipe(epochs=1), tmp_path / "run", own_cache, Listener())
    monkeypatch.undo()
    monkeypatch.setattr(torch, "save", full)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RunError, match=r"^[^\n]*best.pt: can't be written[^\n]*$"):
        train(small_recipe(epochs=1), tmp_path / "again", own_cache, Listener())
    assert not list((tmp_path / "again" / "checkpoints").glob("*"))
    assert signal.getsignal(signal.SIGINT) is before  # a run that failed must not keep Ctrl-C


@pytest.mark.parametrize(("loss", "head"), [("l1", "soft-argmax"), ("laplace", "simcc")])
def test_the_lr_finder_saves_its_plot(tmp_path: Path, own_cache: Path, loss: str, head: str) -> None:
    """Whatever sign the loss has: a likelihood is negative from the beginning."""
    entries = small_recipe(loss=loss).model_dump()
    recipe = check_recipe(entries | {"model": {"input_size": 32, "head": head}}, "a test")
    suggestion, plot = find_lr(recipe, tmp_path / "run", own_cache)
    assert 1e-5 < suggestion < 0.1
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lr_find.png"]
    assert not is_taken(tmp_path / "run")


def begins_with(start: Path | str, count: int = 60, **model: object) -> Recipe:
    """Return a recipe of a single epoch at a rate of nearly nothing."""
    recipe = small_recipe(epochs=1, ema=0.0, schedule={"name": "flat_cos", "max_lr": 1e-12})
    entries = recipe.model_dump()
    entries["model"] |= {"start": str(start), **model}
    entries["data"]["count"] = count
    entries["training"]["optimizer"] = {"name": "adamw", "weight_decay": 0.0}
    return check_recipe(entries, "a test")


@pytest.mark.parametrize("arch", ["resnet18", "resnet34"])
def test_a_run_may_begin_with_another_s_weights(
    whole: Path, tmp_path: Path, own_cache: Path, arch: str
) -> None:
    listener = Listener()
    train(begins_with(whole, arch=arch), tmp_path / "run", own_cache, listener)
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "run"))
    for name, tensor in before.items():
        if tensor.ndim > 1:  # the statistics of normalisations go on
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert f"Began with:** the weights of {whole}" in (tmp_path / "run" / "README.md").read_text()
    assert any(f"begins with {whole}/model.safetensors" in note for note in listener.notes)
    assert not any("too good" in note for note in listener.notes)


def test_a_run_can_t_begin_with_what_has_seen_its_validation_faces(
    whole: Path, tmp_path: Path, own_cache: Path
) -> None:
    recipe = begins_with(whole).model_copy(update={"seed": 3})
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"valid_fraction": 0.3})})
    with pytest.raises(UserError, match=r"model\.start .*: it was trained on \d+ of the \d+ faces that are"):
        train(other, tmp_path / "run", own_cache, Listener())
    # whether a start is known to be new is told, too, where its rows have other numbers or it began so itself
    shutil.copytree(whole, tmp_path / "odd")
    (tmp_path / "odd" / "data.json").write_text("[]")
    listener = Listener()
    train(begins_with(tmp_path / "odd"), tmp_path / "new", own_cache, listener)
    assert any("too good" in note for note in listener.notes)
    listener = Listener()
    train(begins_with(tmp_path / "new"), tmp_path / "newer", own_cache, listener)
    assert any("too good" in note for note in listener.notes)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((whole / "model.safetensors").read_bytes())
    listener = Listener()
    train(begins_with(alone), tmp_path / "run", own_cache, listener)
    assert any("too good" in note for note in listener.notes)


def test_what_a_run_can_t_begin_with(whole: Path, tmp_path: Path, own_cache: Path) -> None:
    for start, said in (
        (whole / "model.onnx", "name a .safetensors"),
        (whole / "model.pkl", "name a .safetensors"),
        ("none", "no such model file"),
    ):
        with pytest.raises(UserError, match=said):
            train(begins_with(start), tmp_path / "run", own_cache, Listener())
    with pytest.raises(UserError, match=r"model\.start .*: its body is of another kind"):
        train(begins_with(whole, arch="resnet50"), tmp_path / "run", own_cache, Listener())
    with pytest.raises(UserError, match="start and pretrained both"):
        begins_with(whole, pretrained=True)


def test_folders_are_numbered(tmp_path: Path) -> None:
    assert next_folder(tmp_path, "quick") == tmp_path / "quick"
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "config.yaml").touch()
    assert next_folder(tmp_path, "quick") == tmp_path / "quick-2"


def test_tensorboard_gets_a_log(tmp_path: Path, own_cache: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    train(small_recipe(epochs=1, tensorboard=True), tmp_path / "run", own_cache, Listener())
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_missing_package_is_named(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        train(small_recipe(wandb="mine"), tmp_path / "run", own_cache, Listener())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shift", [0.0, 0.04])
def test_labels_that_lie_to_one_side_are_found_out(shift: float, tmp_path: Path) -> None:
    table = draw_faces(240, seed=5)
    aside = replace(table, points=table.points + np.array([shift * table.size, 0], np.float32))
    recipe = check_recipe(
        {
            "model": {"input_size": 32, "head": "soft-argmax"},
            "augment": {"name": "standard", "rotate": 0, "scale": 0, "erase": 0},
            "training": {"epochs": 12, "batch_size": 16, "device": "cpu", "schedule": {"name": "flat_cos"}},
        },
        "a test",
    )
    learn = build_learner(recipe, aside, split(aside, "random", 0.2, 0), tmp_path)
    with learn.no_logging():
        learn.fit(recipe.training.epochs)
    assert augmentation(learn.dls).label_shift == pytest.approx(shift, abs=0.008)
