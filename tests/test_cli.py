"""Every command from its options to its files, on one small run that is trained once."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import ExifTags, Image
from safetensors.torch import load_file

from landmarks_fastai import cli
from landmarks_fastai.cli import run
from landmarks_fastai.config import Recipe
from landmarks_fastai.data.kaggle import read_lookup, read_test
from landmarks_fastai.data.source import load_faces
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import evaluate_points
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.ensemble import open_models
from landmarks_fastai.inference.modelfile import open_model, save_model
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schema import KAGGLE15
from landmarks_fastai.training.folds import FoldsOutcome

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("train", "evaluate", "predict", "submit", "data", "recipes")


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in the folder with runs/quick."""
    monkeypatch.chdir(workplace)
    return workplace


@pytest.fixture(scope="session")
def predictor(workplace: Path) -> Predictor:
    return Predictor.open(workplace / "runs" / "quick", "cpu")


@pytest.fixture
def trained_on(own_cache: Path) -> FaceTable:
    return load_faces("synthetic", own_cache, seed=0, count=60)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """Put a face right of the middle of a wide picture."""
    wide = np.full((120, 200, 3), 90, np.uint8)
    wide[12:108, 80:176] = draw_faces(1, seed=9).images[0]
    return wide


class Asked(UserError):
    """Raised in place of training."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Path, bool]]:
    """Keep what training would have been asked to do."""
    kept: list[tuple[Recipe, Path, bool]] = []

    def train(
        recipe: Recipe, folder: Path, cache: Path, reporter: object, *, overwrite: bool, progress: object
    ) -> None:
        kept.append((recipe, folder, overwrite))
        raise Asked("enough")

    monkeypatch.setattr("landmarks_fastai.training.run.train", train)
    return kept


# --- train ----------------------------------------------------------------------------------------


def test_train_says_what_it_does_and_writes_its_folder(workplace: Path) -> None:
    said = (workplace / "train.log").read_text().splitlines()
    assert any(
        "48 faces to train, 12 to validate (grouped split); on cpu in float32" in line for line in said
    )
    assert [line[:9] for line in said if line.startswith("epoch")] == ["epoch   1", "epoch   2"]
    assert "\x1b" not in "".join(said)
    assert said[-1] == "model: runs/quick/model.safetensors   all about the run: runs/quick"
    names = {path.name for path in (workplace / "runs" / "quick").iterdir()}
    assert {"config.yaml", "data.json", "metrics.json", "model.safetensors", "model.pkl"} <= names
    recipe = yaml.safe_load((workplace / "runs" / "quick" / "config.yaml").read_text())
    assert recipe["data"]["count"] == 60
    assert recipe["training"]["epochs"] == 2


def test_every_option_reaches_the_recipe(
    asked: list[tuple[Recipe, Path, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = "--arch resnet34 --epochs 3 --batch-size 8 --lr 0.02 --seed 4 --data synthetic --fixes f.csv"
    more = "--device cpu --workers 2 --reduce-data --overwrite --set augment=origin --set training.ema=0"
    assert run(["train", *options.split(), "--out", "there", *more.split()]) == 2
    ((recipe, folder, overwrite),) = asked
    assert folder == Path("there")
    assert overwrite
    assert recipe.model.arch == "resnet34"
    assert recipe.seed == 4
    assert (recipe.data.source, recipe.data.limit) == ("synthetic", 200)
    assert (recipe.data.fixes, recipe.data.folds) == ("f.csv", None)
    training = recipe.training
    assert (training.epochs, training.batch_size, training.device, training.workers) == (3, 8, "cpu", 2)
    assert training.schedule.max_lr == 0.02
    assert training.ema == 0
    assert recipe.augment.name == "origin"


def test_run_folders_are_called_after_the_recipe_and_numbered(
    asked: list[tuple[Recipe, Path, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    for folder in ("quick", "quick-2", "empty"):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / "README.md").touch()
    for config in ("quick", "mine.yaml", "default"):
        run(["train", "--config", config])
    assert [folder.as_posix() for _, folder, _ in asked] == ["runs/quick-3", "runs/mine", "runs/default"]


def test_find_lr_tells_of_its_plot(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[tuple[Recipe, Path, bool]],
) -> None:
    monkeypatch.chdir(tmp_path)

    def find(recipe: Recipe, folder: Path, cache: Path, progress: object) -> tuple[float, Path]:
        assert recipe.data.source == "synthetic"
        folder.mkdir(parents=True)
        (folder / "lr_find.png").touch()
        return 0.00123, folder / "lr_find.png"

    monkeypatch.setattr("landmarks_fastai.training.run.find_lr", find)
    assert run(["train", "-c", "quick", "--data", "synthetic", "--find-lr"]) == 0
    assert "suggested: --lr 0.0012   plot: runs/quick-lr/lr_find.png" in capsys.readouterr().out
    run(["train", "-c", "quick"])
    assert asked[0][1] == Path("runs/quick")


@pytest.mark.parametrize(
    "other",
    [
        "--epochs 3",
        "--folds 2",
        "--fixes f.csv",
        "--config quick",
        "--set seed=3",
        "--out x",
        "--overwrite",
        "--find-lr",
        "--reduce-data",
    ],
)
def test_resume_takes_no_other_option(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--resume", "runs/quick", *other.split()]) == 2
    assert "--resume" in capsys.readouterr().err


def test_folds_are_trained_and_gone_on_with_as_folds(
    asked: list[tuple[Recipe, Path, bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    begun: list[tuple[Path, int | None]] = []

    def train_folds(recipe: Recipe, folder: Path, *_: object, overwrite: bool, **__: object) -> FoldsOutcome:
        assert overwrite
        begun.append((folder, recipe.data.folds))
        return FoldsOutcome(folder, 3, done=1, epochs=4, report=None)

    def resume_folds(folder: Path, *_: object, **__: object) -> FoldsOutcome:
        begun.append((folder, None))
        return FoldsOutcome(folder, 3, done=2, epochs=0, report=None)

    monkeypatch.setattr("landmarks_fastai.training.folds.train_folds", train_folds)
    monkeypatch.setattr("landmarks_fastai.training.folds.resume_folds", resume_folds)
    assert run(["train", "--folds", "3", "--out", "there", "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "stopped by you after 4 whole epochs of fold 2 of 3.",
        "go on with: landmarks-fastai train --resume there",
    ]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "folds.json").touch()
    assert run(["train", "--resume", "there"]) == 0
    assert "of fold 3 of 3" in capsys.readouterr().out
    assert begun == [(Path("there"), 3), (Path("there"), None)]
    # one of the folds alone is an ordinary run
    assert run(["train", "--folds", "3", "--set", "data.fold=2"]) == 2
    assert asked[0][0].data.fold == 2
    assert run(["train", "--folds", "1"]) == 2
    assert "data.folds: Input should be greater than or equal to 2" in capsys.readouterr().err


def test_resume_of_a_whole_run_ends_at_the_same_weights(here: Path) -> None:
    before = load_file(here / "runs" / "quick" / "model.safetensors")
    history = (here / "runs" / "quick" / "history.csv").read_bytes()
    assert run(["train", "--resume", "runs/quick"]) == 0
    after = load_file(here / "runs" / "quick" / "model.safetensors")
    assert all((before[name] == after[name]).all() for name in before)
    assert (here / "runs" / "quick" / "history.csv").read_bytes() == history


# --- evaluate -------------------------------------------------------------------------------------


def numbers(predictor: Predictor, table: FaceTable) -> dict[str, Any]:
    found = predictor.predict_crops(table.images)
    report = evaluate_points(
        found.points, table.points, table.schema, table.complete, table.size, found.scales
    )
    return report.to_dict()


def test_evaluate_judges_the_validation_faces(
    here: Path,
    predictor: Predictor,
    trained_on: FaceTable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["evaluate", "runs/quick", "--out", str(tmp_path / "report"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "judging the 12 faces" in said
    assert "left_eye_center" in said
    assert " of 180 points claimed within 2.4 px of the truth" in said
    assert "rank correlation of confidence and nearness" in said
    names = ["calibration.png", "ced.png", "faces.csv", "metrics.json", "points.png", "worst.png"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == names
    for name in (name for name in names if name.endswith(".png")):
        Image.open(tmp_path / "report" / name).verify()
    valid = json.loads((here / "runs/quick/data.json").read_text())["split"]["valid"]
    seen = trained_on.rows(np.array(valid))
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    expected = numbers(predictor, seen)
    assert {key: metrics[key] for key in expected} == expected
    # the run's own numbers are about the same faces and the same weights
    own = json.loads((here / "runs/quick/metrics.json").read_text())
    assert metrics["overall"]["rmse"] == pytest.approx(own["overall"]["rmse"], abs=0.01)
    faces = pd.read_csv(tmp_path / "report" / "faces.csv")
    assert faces["face"].tolist() == list(seen.names)


def test_evaluate_all_rows_beside_the_model(
    here: Path, predictor: Predictor, trained_on: FaceTable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", "runs/quick/model.safetensors", "--rows", "all", "--device", "cpu"]) == 0
    assert "judging" not in capsys.readouterr().out
    metrics = json.loads((here / "runs/quick/evaluation/metrics.json").read_text())
    assert metrics["overall"] == numbers(predictor, trained_on)["overall"]
    assert metrics["overall"]["faces"] == 60


def test_evaluate_on_other_data_takes_every_row(
    here: Path, predictor: Predictor, kaggle_layout: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", "runs/quick", "--data", str(kaggle_layout), "--out", str(tmp_path)]
    assert run([*arguments, "--device", "cpu"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    other = draw_faces(9, seed=21)
    assert metrics["overall"]["faces"] == 9
    assert metrics["overall"]["rmse"] == pytest.approx(numbers(predictor, other)["overall"]["rmse"], abs=1e-3)


def test_evaluate_says_what_a_lone_model_file_does_not(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(here / "runs" / "quick" / "model.safetensors", alone)
    said = "a model file alone does not say which it was trained on"
    assert run(["evaluate", str(alone), "--device", "cpu"]) == 0
    assert f"judging all 60 faces; {said}" in capsys.readouterr().out
    assert run(["evaluate", "runs/quick", "--device", "cpu"]) == 0
    assert said not in capsys.readouterr().out


def test_evaluate_opens_the_onnx_file_and_a_trusted_pickle(here: Path, tmp_path: Path) -> None:
    found = []
    for name in ("model.safetensors", "model.onnx", "model.pkl"):
        trust = ["--trust-pickle"] if name.endswith("pkl") else []
        arguments = ["evaluate", f"runs/quick/{name}", "--out", str(tmp_path / name), "--device", "cpu"]
        assert run([*arguments, *trust]) == 0
        found.append(json.loads((tmp_path / name / "metrics.json").read_text())["overall"]["rmse"])
    assert found == pytest.approx([found[0]] * 3, abs=1e-3)


def test_several_models_are_judged_on_faces_that_none_has_trained_on(
    here: Path,
    predictor: Predictor,
    trained_on: FaceTable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = json.loads((here / "runs/quick/data.json").read_text())
    valid = data["split"]["valid"]
    # the same weights, said to have been trained on all but four faces of the others' twelve, and four more
    other = tmp_path / "other"
    shutil.copytree(here / "runs" / "quick", other, ignore=shutil.ignore_patterns("checkpoints", "*.pkl"))
    data["split"]["valid"] = [*valid[2:6], *data["split"]["train"][:4]]
    (other / "data.json").write_text(json.dumps(data))
    arguments = ["evaluate", "runs/quick", str(other), "--device", "cpu", "--out", str(tmp_path / "report")]
    assert run(arguments) == 0
    assert "judging the 4 faces that no model trained on" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["overall"] == numbers(predictor, trained_on.rows(np.array(valid[2:6])))["overall"]

    data["split"]["valid"] = data["split"]["train"][:4]
    (other / "data.json").write_text(json.dumps(data))
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "trained on by one of these 2 models" in line
    assert "--data" in line
    assert run([*arguments, "--rows", "all"]) == 0
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["overall"]["faces"] == 60


# --- predict --------------------------------------------------------------------------------------


def places(face: dict[str, Any]) -> NDArray[np.float64]:
    """Return the (K, 2) points of a face in points.json."""
    return np.array([[point["x"], point["y"]] for point in face["points"].values()])


def test_predict_draws_and_writes(
    here: Path,
    predictor: Predictor,
    photo: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture, out = tmp_path / "photo.png", tmp_path / "found"
    Image.fromarray(photo).save(picture)
    arguments = ["predict", str(picture), "--out", str(out), "--json", "--csv", "--device", "cpu"]
    arguments += ["--detector", "none"]
    assert run(arguments) == 0
    assert "model: runs/quick/model.safetensors" in capsys.readouterr().out
    drawn = np.asarray(Image.open(out / "photo_points.png"))
    assert drawn.shape == photo.shape
    assert (drawn != photo).any()
    expected = predictor.predict(photo, refine=1)
    content = json.loads((out / "points.json").read_text())
    (one,) = content["images"]
    assert (one["image"], one["width"], one["height"]) == (str(picture), 200, 120)
    (face,) = one["faces"]
    assert list(face["points"]) == content["points"] == list(KAGGLE15.points)
    assert np.abs(places(face) - expected.points[0]).max() <= 0.00051
    sure = [point["confidence"] for point in face["points"].values()]
    np.testing.assert_allclose(sure, expected.confidence[0], atol=0.00051)
    np.testing.assert_allclose(face["box"], expected.squares[0].edges, atol=0.00051)
    with (out / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["point"] for row in rows] == list(KAGGLE15.points)
    assert [[float(row["x"]), float(row["y"])] for row in rows] == places(face).tolist()
    assert [float(row["confidence"]) for row in rows] == sure
    assert {(row["image"], row["face"]) for row in rows} == {(str(picture), "0")}


def test_predict_writes_json_alone_or_csv_alone(here: Path, photo: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    for option, there, missing in (
        ([], "json", "csv"),
        (["--json"], "json", "csv"),
        (["--csv"], "csv", "json"),
    ):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        arguments = ["predict", str(tmp_path / "a.png"), "--out", str(out), "--detector", "none"]
        assert run([*arguments, *option]) == 0
        assert (out / f"points.{there}").is_file()
        assert not (out / f"points.{missing}").exists()


def test_predict_answers_in_the_upright_picture(
    here: Path, predictor: Predictor, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    upright = np.ascontiguousarray(photo.transpose(1, 0, 2)[::-1])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera's right is the picture's bottom
    lying = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "lying.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "lying.png"), upright)
    arguments = ["predict", str(tmp_path / "lying.png"), "--out", str(tmp_path), "--device", "cpu"]
    assert run([*arguments, "--detector", "none", "--refine", "0"]) == 0
    (one,) = json.loads((tmp_path / "points.json").read_text())["images"]
    assert (one["width"], one["height"]) == (120, 200)
    assert np.abs(places(one["faces"][0]) - predictor.predict(upright).points[0]).max() <= 0.00051
    assert Image.open(tmp_path / "lying_points.png").size == (120, 200)


def test_predict_in_a_box(here: Path, predictor: Predictor, photo: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path), "--device", "cpu"]
    assert run([*arguments, "--box", "80,12,176,108"]) == 0
    (one,) = json.loads((tmp_path / "points.json").read_text())["images"]
    expected = predictor.predict(photo, np.array([[80, 12, 176, 108]]), refine=1).points[0]
    assert np.abs(places(one["faces"][0]) - expected).max() <= 0.00051


def test_predict_averages_models_and_a_run_s_folds(
    here: Path,
    photo: NDArray[np.uint8],
    kaggle_layout: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    folds = tmp_path / "runs" / "folds"
    for fold in (1, 2):
        (folds / f"fold-{fold}").mkdir(parents=True)
        save_other(here / "runs" / "quick", folds / f"fold-{fold}" / "model.safetensors", seed=fold)
    members = [folds / f"fold-{fold}" / "model.safetensors" for fold in (1, 2)]
    expected = open_models(members, "cpu")
    alone = Predictor.open(members[0], "cpu").predict(photo, refine=1).points[0]
    wanted = expected.predict(photo, refine=1).points[0]
    assert np.abs(alone - wanted).max() > 0.1
    for chosen in ([folds], members):
        options = [part for path in chosen for part in ("--model", str(path))]
        arguments = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path), "--detector", "none"]
        assert run([*arguments, *options, "--device", "cpu"]) == 0
        said = capsys.readouterr().out
        assert all(f"model: {path}" in said for path in members)
        (one,) = json.loads((tmp_path / "points.json").read_text())["images"]
        assert np.abs(places(one["faces"][0]) - wanted).max() <= 0.00051
    out = tmp_path / "submission.csv"
    arguments = [str(folds), "--data", str(kaggle_layout), "--device", "cpu"]
    assert run(["submit", *arguments, "--out", str(out)]) == 0
    check_submission(out, kaggle_layout, expected.predict_crops(read_test(kaggle_layout)[1]).points)
    assert run(["evaluate", *arguments]) == 0
    assert (folds / "evaluation" / "metrics.json").is_file()


def save_other(run: Path, path: Path, seed: int) -> None:
    """Write a run's model with its first layer stirred, so that it finds other points."""
    model = open_model(run)
    assert model.network is not None
    weights = model.network.state_dict()
    first = next(iter(weights))
    noise = torch.randn(weights[first].shape, generator=torch.Generator().manual_seed(seed))
    save_model(path, {**weights, first: weights[first] + 0.1 * noise}, model.header)


def test_one_bad_picture_does_not_stop_the_others(
    here: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "c.png"):
        Image.fromarray(photo).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    (tmp_path / "d.jpg").write_text("no picture")
    out = tmp_path / "found"
    assert run(["predict", str(tmp_path), "--out", str(out)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith(f"error: {tmp_path / 'b.png'}: ")
    assert errors[1].startswith(f"error: {tmp_path / 'd.jpg'}: ")
    found = [Path(one["image"]).name for one in json.loads((out / "points.json").read_text())["images"]]
    assert found == ["a.png", "c.png"]
    assert sorted(path.name for path in out.iterdir()) == ["a_points.png", "c_points.png", "points.json"]


def test_pictures_of_one_name_don_t_overwrite_each_other(
    here: Path, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(photo).save(tmp_path / folder / "face.png")
    out = tmp_path / "found"
    assert run(["predict", str(tmp_path / "*" / "face.png"), "--out", str(out)]) == 0
    assert {path.name for path in out.glob("*.png")} == {"face_points.png", "face-2_points.png"}


def test_the_newest_run_is_used_and_named(
    workplace: Path,
    photo: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo).save("a.png")
    for name, age in (("a", 10), ("b", 0), ("c", 20)):
        Path("runs", name).mkdir(parents=True)
        model = Path("runs", name, "model.safetensors")
        os.link(workplace / "runs" / "quick" / "model.safetensors", model) if name == "b" else model.touch()
        if name != "b":
            os.utime(model, (1000 - age, 1000 - age))
    assert run(["predict", "a.png"]) == 0
    assert "model: runs/b/model.safetensors" in capsys.readouterr().out
    assert Path("predictions/a_points.png").is_file()


def test_predict_shows_faces_of_the_data_set(
    here: Path, kaggle_layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", "--use-dataset", "--out", str(tmp_path / "own")]) == 0
    assert run(["predict", "--use-dataset", "--data", str(kaggle_layout), "--out", str(tmp_path / "k")]) == 0
    assert str(tmp_path / "k" / "dataset.png") in capsys.readouterr().out
    own, other = (np.asarray(Image.open(tmp_path / name / "dataset.png")) for name in ("own", "k"))
    assert own.shape[0] > own.shape[1]  # three rows of two
    assert own.shape != other.shape or (own != other).any()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.png", "--use-dataset"],
        ["a.png", "--data", "synthetic"],
        ["--use-dataset", "--csv"],
        ["a.png", "--box", "1,2,3"],
        ["a.png", "--box", "5,5,1,9"],
    ],
)
def test_options_that_don_t_go_together(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", *arguments]) == 2
    assert "--" in capsys.readouterr().err


# --- submit ---------------------------------------------------------------------------------------


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def gray_text(image: NDArray[np.uint8]) -> str:
    return " ".join(map(str, image.ravel().tolist()))


@pytest.fixture(scope="session")
def kaggle_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small zip in Kaggle's layout: nine faces to train on, five to predict, in no tidy order."""
    train, test = draw_faces(9, seed=21), draw_faces(5, seed=22)
    columns = [f"{name}_{axis}" for name in KAGGLE15.points for axis in "xy"]
    lines = [",".join([*columns, "Image"])]
    for image, points in zip(train.images, train.points, strict=True):
        lines.append(",".join([*(f"{value:.6f}" for value in points.ravel()), gray_text(image)]))
    faces = ["ImageId,Image", *(f"{50 - i},{gray_text(image)}" for i, image in enumerate(test.images))]
    rng = np.random.default_rng(0)
    asked = rng.permutation([f"{image},{column}" for image in range(46, 51) for column in columns[:20]])
    lookup = ["RowId,ImageId,FeatureName,Location", *(f"{i + 1},{one}," for i, one in enumerate(asked))]
    path = tmp_path_factory.mktemp("kaggle") / "small.zip"
    path.write_bytes(
        zipped(
            training__zip=zipped(training__csv="\n".join(lines).encode()),
            test__zip=zipped(test__csv="\n".join(faces).encode()),
            IdLookupTable__csv="\n".join(lookup).encode(),
        )
    )
    return path


def check_submission(path: Path, data: Path, points: NDArray[np.float32]) -> None:
    """Look every value up in the slow and plain way."""
    ids, _ = read_test(data)
    row = {int(image): i for i, image in enumerate(ids)}
    lines = path.read_text().splitlines()
    assert lines[0] == "RowId,Location"
    lookup = read_lookup(data)
    assert len(lines) == len(lookup) + 1
    for line, (row_id, image, feature) in zip(lines[1:], lookup.itertuples(index=False), strict=True):
        name, _, axis = feature.rpartition("_")
        value = points[row[image], KAGGLE15.points.index(name), "xy".index(axis)]
        written_id, _, location = line.partition(",")
        assert int(written_id) == row_id
        assert float(location) == pytest.approx(min(max(float(value), 0.0), 96.0), abs=1e-4)


def test_submit(
    here: Path,
    predictor: Predictor,
    kaggle_layout: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "deep" / "submission.csv"
    assert (
        run(["submit", "runs/quick", "--data", str(kaggle_layout), "--out", str(out), "--device", "cpu"]) == 0
    )
    assert f"100 rows written to {out}" in capsys.readouterr().out
    check_submission(out, kaggle_layout, predictor.predict_crops(read_test(kaggle_layout)[1]).points)
    assert run(["submit", "runs/quick", "--data", str(kaggle_layout), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_locations_are_clipped_to_the_image(
    here: Path, predictor: Predictor, kaggle_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predictor.predict_crops(read_test(kaggle_layout)[1])
    wild = plain.points * 9 - 400
    assert (wild < 0).any()
    assert (wild > 96).any()
    monkeypatch.setattr(Predictor, "predict_crops", lambda *_: replace(plain, points=wild))
    out = tmp_path / "submission.csv"
    assert run(["submit", "runs/quick", "--data", str(kaggle_layout), "--out", str(out)]) == 0
    check_submission(out, kaggle_layout, wild)
    assert pd.read_csv(out)["Location"].between(0, 96).all()


def test_submit_on_the_development_data(here: Path, kaggle_zip: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    assert run(["submit", "runs/quick", "--data", str(kaggle_zip), "--out", str(out)]) == 0
    submission = pd.read_csv(out)
    assert list(submission) == ["RowId", "Location"]
    assert len(submission) == 16_560
    assert submission["RowId"].tolist() == read_lookup(kaggle_zip)["RowId"].tolist()
    assert submission["Location"].between(0, 96).all()


# --- data, recipes --------------------------------------------------------------------------------


def test_data_tells_and_saves_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = draw_faces(6, seed=3)
    columns = [f"{name}_{axis}" for name in KAGGLE15.points for axis in "xy"]
    lines = [",".join([*columns, "Image"])]
    for i, (image, points) in enumerate(zip(faces.images, faces.points, strict=True)):
        fields = [f"{value:.3f}" for value in points.ravel()]
        if i == 2:
            fields[2:4] = ["", ""]
        lines.append(",".join([*fields, gray_text(faces.images[0] if i == 5 else image)]))
    (tmp_path / "training.csv").write_text("\n".join(lines))
    out = tmp_path / "report"
    assert run(["data", "--data", str(tmp_path / "training.csv"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "6 rows of 96 × 96 px, gray" in said
    assert "complete: 5 rows" in said
    assert "exact duplicates: 1 " in said
    (missing,) = (line.split() for line in said.splitlines() if line.startswith("right_eye_center"))
    assert missing == ["right_eye_center", "5", "1"]
    assert "6 rows in 5 groups" in said
    with Image.open(out / "samples.png") as sheet:
        assert min(sheet.size) > 300


def test_recipes_are_listed_and_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["default", "quick", "release-resnet18", "release-resnet34", "resnet18", "resnet34"]
    assert run(["recipes", "resnet34"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["training"]["schedule"]["step_up"] == 2400
    assert Recipe.model_validate(shown).training.batch_size == 420


# --- the door itself ------------------------------------------------------------------------------


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert all(f"\n  {command} " in said.out for command in COMMANDS)
    assert run([]) == 0
    assert capsys.readouterr().out == said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_s_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "For example" in said.out
    assert f"  landmarks-fastai {command}" in said.out.partition("For example")[2]


def help_of(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )


def test_help_imports_nothing_heavy_and_every_door_is_the_same() -> None:
    program = help_of("-X", "importtime", "cli.py")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in program.stderr.splitlines()}
    assert "typer" in imported
    heavy = {"torch", "torchvision", "fastai", "pandas", "matplotlib", "numpy", "scipy", "PIL", "onnxruntime"}
    assert not heavy & imported
    assert "  train  " in program.stdout
    assert help_of("-m", "landmarks_fastai").stdout == program.stdout
    entry = f"{cli.main.__module__}:{cli.main.__name__}"
    assert f'landmarks-fastai = "{entry}"' in (ROOT / "pyproject.toml").read_text()


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--debug", "recipes", "nothing"], ["recipes", "nothing", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["landmarks-fastai", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "Traceback" in said
        assert said.splitlines()[-1].startswith("error: no recipe is called 'nothing'")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 1, "error: stopped"),
        (OSError(28, "No space left on device", "x.npz"), 1, "error: x.npz: No space left on device"),
        (
            ZeroDivisionError("by zero"),
            1,
            "error: ZeroDivisionError: by zero (a fault of ours; --debug shows",
        ),
    ],
)
def test_whatever_is_raised_becomes_one_line(
    raised: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> list[str]:
        raise raised

    monkeypatch.setattr("landmarks_fastai.config.recipe_names", fail)
    assert run(["recipes"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
