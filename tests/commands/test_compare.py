"""The comparison of two models: which rows, and what is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from landmarks_fastai.commands.compare import compare
from landmarks_fastai.commands.evaluate import evaluate
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model


@pytest.fixture(scope="module")
def other_run(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the trained run whose model is worse."""
    run = tmp_path_factory.mktemp("runs") / "worse"
    ignored = shutil.ignore_patterns("checkpoints", "*.pkl", "*.onnx")
    shutil.copytree(trained_workspace / "runs" / "quick", run, ignore=ignored)
    model = open_model(run)
    assert model.network is not None
    weights = model.network.state_dict()
    first = next(iter(weights))
    noise = torch.randn(weights[first].shape, generator=torch.Generator().manual_seed(0))
    save_model(run / "model.safetensors", {**weights, first: weights[first] + 0.2 * noise}, model.header)
    return run


def test_compare_agrees_with_evaluations_of_both_models(
    trained_workspace: Path, other_run: Path, tmp_path: Path
) -> None:
    run = trained_workspace / "runs" / "quick"
    result = compare([run, other_run], out=tmp_path / "both", device="cpu")
    assert result.rows == 12
    assert result.notes == (
        "evaluating the 12 rows that none of the models was trained on (--rows all evaluates every row)",
    )
    assert {path.name for path in (tmp_path / "both").iterdir()} == set(result.files)
    alone = [evaluate(path, out=tmp_path / "one", device="cpu") for path in (run, other_run)]
    written = json.loads((tmp_path / "both" / "metrics.json").read_text())["models"]
    for name, single, entry in zip((run, other_run), alone, written, strict=True):
        assert entry["model"] == str(name)
        assert entry["overall"] == single.report.to_dict()["overall"]
        assert entry["intervals"] == single.analysis.to_dict()["intervals"]
    comparison = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert comparison == {**comparison, **result.comparison.to_dict()}
    rmse = comparison["metrics"]["rmse"]
    assert (rmse["first"], rmse["second"]) == tuple(entry["overall"]["rmse"] for entry in written)
    faces = pd.read_csv(tmp_path / "both" / "faces.csv")
    assert faces.columns.tolist() == ["face", "nme_first", "nme_second"]
    assert faces["nme_second"].mean() == pytest.approx(alone[1].report.overall.nme, abs=1e-5)
    Image.open(tmp_path / "both" / "ced.png").verify()


def test_compare_refuses_rows_that_a_model_was_trained_on(
    trained_workspace: Path, other_run: Path, tmp_path: Path
) -> None:
    run = trained_workspace / "runs" / "quick"
    with pytest.raises(UserError, match=r"^--compare --rows all: 48 of 60 rows were used for training"):
        compare([run, other_run], rows="all", out=tmp_path, device="cpu")
    # on the rows that the other run validated on, this one was trained
    split = tmp_path / "split"
    shutil.copytree(other_run, split)
    data = json.loads((split / "data.json").read_text())
    data["split"]["train"], data["split"]["valid"] = (
        [*data["split"]["valid"][6:], *data["split"]["train"][6:]],
        [*data["split"]["valid"][:6], *data["split"]["train"][:6]],
    )
    (split / "data.json").write_text(json.dumps(data))
    assert compare([run, split], out=tmp_path / "out", device="cpu").rows == 6


def test_compare_says_if_it_is_unknown_which_rows_a_model_was_trained_on(
    trained_workspace: Path, other_run: Path, tmp_path: Path
) -> None:
    model = shutil.copy(other_run / "model.safetensors", tmp_path / "alone.safetensors")
    result = compare([trained_workspace / "runs" / "quick", model], out=tmp_path / "out", device="cpu")
    assert result.notes[-1] == (
        "if that model was trained on some of these rows, the comparison favors it, and its p-values do not"
        " hold"
    )


@pytest.mark.parametrize("number", [1, 3])
def test_compare_refuses_other_numbers_of_models(number: int) -> None:
    with pytest.raises(UserError, match=f"^--compare needs two models, not {number};"):
        compare(["resnet18"] * number)


def test_compare_refuses_model_named_twice() -> None:
    with pytest.raises(UserError, match="given twice"):
        compare(["resnet18", "resnet18"])
