"""The command `evaluate`, on the run that the tests have trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from landmarks_fastai.cli import run
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.evaluation.report import evaluate_dataset
from landmarks_fastai.inference.predictor import Predictor


def expected_metrics(predictor: Predictor, dataset: LandmarkDataset) -> dict[str, Any]:
    return evaluate_dataset(predictor.predict_batch(dataset.images), dataset).to_dict()


def test_evaluate_uses_validation_rows(
    workspace: Path,
    predictor: Predictor,
    training_data: LandmarkDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["evaluate", "runs/quick", "--out", str(tmp_path / "report"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "evaluating the 12 rows that the model was not trained on" in printed
    assert "left_eye_center" in printed
    assert "within 2.4 px of its label" in printed
    assert " of 180 landmarks; expected calibration error " in printed
    assert "rank correlation of confidence and accuracy" in printed
    names = ["calibration.png", "ced.png", "faces.csv", "landmark_errors.png", "metrics.json"]
    names += ["sigmas.csv", "worst.png"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == names
    assert sorted(printed.splitlines()[-1].partition("report: ")[2].split(", ")) == names
    for name in (name for name in names if name.endswith(".png")):
        Image.open(tmp_path / "report" / name).verify()
    valid = json.loads((workspace / "runs/quick/data.json").read_text())["split"]["valid"]
    validation = training_data.subset(np.array(valid))
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    expected = expected_metrics(predictor, validation)
    assert {key: metrics[key] for key in expected} == expected
    # the metrics of the run are those of the same rows and weights
    own = json.loads((workspace / "runs/quick/metrics.json").read_text())
    assert metrics["overall"]["rmse"] == pytest.approx(own["overall"]["rmse"], abs=0.01)
    faces = pd.read_csv(tmp_path / "report" / "faces.csv")
    assert faces["face"].tolist() == list(validation.names)


def test_evaluate_all_rows_writes_next_to_model(
    workspace: Path,
    predictor: Predictor,
    training_data: LandmarkDataset,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["evaluate", "runs/quick/model.safetensors", "--rows", "all", "--device", "cpu"]) == 0
    assert "evaluating" not in capsys.readouterr().out
    metrics = json.loads((workspace / "runs/quick/evaluation/metrics.json").read_text())
    assert metrics["overall"] == expected_metrics(predictor, training_data)["overall"]
    assert metrics["overall"]["faces"] == 60


def test_evaluate_on_other_data_uses_all_rows(
    workspace: Path, predictor: Predictor, kaggle_archive: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", "runs/quick", "--data", str(kaggle_archive), "--out", str(tmp_path)]
    assert run([*arguments, "--device", "cpu"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    other = draw_synthetic_faces(9, seed=21)
    assert metrics["overall"]["faces"] == 9
    expected = expected_metrics(predictor, other)["overall"]["rmse"]
    assert metrics["overall"]["rmse"] == pytest.approx(expected, abs=1e-3)


def test_evaluate_explains_model_file_without_run_folder(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "alone.safetensors"
    shutil.copy(workspace / "runs" / "quick" / "model.safetensors", model)
    explanation = "a model file without its run folder does not say which rows it was trained on"
    assert run(["evaluate", str(model), "--device", "cpu"]) == 0
    assert f"evaluating all 60 rows: {explanation}" in capsys.readouterr().out
    assert run(["evaluate", "runs/quick", "--device", "cpu"]) == 0
    assert explanation not in capsys.readouterr().out


def test_evaluate_opens_onnx_file_and_trusted_pickle(workspace: Path, tmp_path: Path) -> None:
    rmse = []
    for name in ("model.safetensors", "model.onnx", "model.pkl"):
        trust = ["--trust-pickle"] if name.endswith("pkl") else []
        arguments = ["evaluate", f"runs/quick/{name}", "--out", str(tmp_path / name), "--device", "cpu"]
        assert run([*arguments, *trust]) == 0
        rmse.append(json.loads((tmp_path / name / "metrics.json").read_text())["overall"]["rmse"])
    assert rmse == pytest.approx([rmse[0]] * 3, abs=1e-3)


def test_evaluate_several_models_uses_rows_new_to_all(
    workspace: Path,
    predictor: Predictor,
    training_data: LandmarkDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = json.loads((workspace / "runs/quick/data.json").read_text())
    valid = data["split"]["valid"]
    # the same weights, as if four of the twelve validation rows and four others were the validation rows
    other = tmp_path / "other"
    shutil.copytree(workspace / "runs/quick", other, ignore=shutil.ignore_patterns("checkpoints", "*.pkl"))
    train = data["split"]["train"]
    data["split"] |= {"valid": [*valid[2:6], *train[:4]], "train": [*train[4:], *valid[:2], *valid[6:]]}
    (other / "data.json").write_text(json.dumps(data))
    arguments = ["evaluate", "runs/quick", str(other), "--device", "cpu", "--out", str(tmp_path / "report")]
    assert run(arguments) == 0
    assert "evaluating the 4 rows that none of the models was trained on" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    expected = expected_metrics(predictor, training_data.subset(np.array(valid[2:6])))
    assert metrics["overall"] == expected["overall"]

    data["split"] |= {"valid": train[:4], "train": [*train[4:], *valid]}
    (other / "data.json").write_text(json.dumps(data))
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "used for training by one of these 2 models" in line
    assert "--data" in line
    assert run([*arguments, "--rows", "all"]) == 0
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["overall"]["faces"] == 60


def test_evaluate_prints_intervals_and_slices(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "runs/quick", "--rows", "all", "--device", "cpu", "--out", str(tmp_path)]
    assert run([*arguments, "--pck", "0.3", "--slice", "size", "--coco-ap"]) == 0
    lines = capsys.readouterr().out.splitlines()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    low, high = metrics["intervals"]["nme"]
    (nme,) = (line.split() for line in lines if line.startswith("NME "))
    assert (nme[0], nme[3]) == ("NME", "to")
    printed = [float(nme[index].removesuffix("%")) / 100 for index in (1, 2, 4)]
    assert printed == pytest.approx([metrics["overall"]["nme"], low, high], abs=6e-5)  # both are rounded
    assert [line.split()[:2] for line in lines if line.startswith("PCK")] == [["PCK", "30%"]]
    assert metrics["pck"].keys() == {"0.3"}
    assert "95% intervals by a bootstrap over 60 rows" in lines
    assert "sigmas of the OKS: residuals of a linear shape model of 60 labeled rows" in lines
    assert any(line.startswith(f"COCO AP {metrics['coco']['ap']:.3f}, AP50") for line in lines)
    assert [one["by"] for one in metrics["slices"]] == ["size"] * 3
    (small,) = (line for line in lines if line.startswith("size: small (≤ "))
    assert f"{metrics['slices'][0]['metrics']['rmse']:.3f}" in small


def test_evaluate_with_file_of_sigmas_uses_it(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "runs/quick", "--device", "cpu", "--out"]
    assert run([*arguments, str(tmp_path / "first")]) == 0
    written = tmp_path / "first" / "sigmas.csv"
    doubled = [line.split(",") for line in written.read_text().splitlines()[1:]]
    own = tmp_path / "own.csv"
    own.write_text("landmark,sigma\n" + "".join(f"{name},{2 * float(value)}\n" for name, value in doubled))
    scores = []
    for name, path in (("same", written), ("larger", own)):
        assert run([*arguments, str(tmp_path / name), "--sigmas", str(path)]) == 0
        assert f"sigmas of the OKS: file {path}" in capsys.readouterr().out
        scores.append(json.loads((tmp_path / name / "metrics.json").read_text())["oks"])
    first = json.loads((tmp_path / "first" / "metrics.json").read_text())["oks"]
    assert scores[0] == pytest.approx(first, abs=1e-4)
    assert scores[1] > first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slice", "agee"], "--slice agee: synthetic has no such column; known: blur, roll, size, yaw"),
        (["--pck", "0"], "a PCK threshold must be larger than 0, such as 0.05, not 0.0"),
        (["--sigmas", "none.csv"], "--sigmas none.csv: cannot be read (No such file or directory)"),
        (["--compare"], "--compare needs two models, not 1; name two runs or model files"),
    ],
)
def test_evaluate_refuses_option_that_cannot_be_used(
    workspace: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", "runs/quick", "--device", "cpu", *options]) == 2
    assert message in capsys.readouterr().err


def test_evaluate_compare_prints_differences_and_verdict(
    workspace: Path, fold_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = fold_models / "fold-1" / "model.safetensors"
    arguments = ["evaluate", "runs/quick", str(other), "--compare", "--device", "cpu"]
    assert run([*arguments, "--out", str(tmp_path / "report")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"second: {other}" in lines
    written = json.loads((tmp_path / "report" / "compare.json").read_text())
    nme = written["metrics"]["nme"]
    (line,) = (line.split() for line in lines if line.startswith("NME "))
    assert line[1:3] == [f"{nme['first']:.2%}", f"{nme['second']:.2%}"]
    assert line[3][0] == "-+"[nme["difference"] > 0]
    # the file is rounded, too
    assert float(line[3].rstrip("%")) == pytest.approx(100 * nme["difference"], abs=0.0051)
    assert line[-1] == f"{nme['p_value']:.2g}"
    assert any("of 12 groups (sign test: p =" in line for line in lines)
    names = ["ced.png", "compare.json", "faces.csv", "metrics.json", "sigmas.csv"]
    assert sorted(lines[-1].partition("report: ")[2].split(", ")) == names


def test_evaluate_folds_writes_into_their_folder(fold_models: Path, kaggle_archive: Path) -> None:
    assert run(["evaluate", str(fold_models), "--data", str(kaggle_archive), "--device", "cpu"]) == 0
    assert (fold_models / "evaluation" / "metrics.json").is_file()
