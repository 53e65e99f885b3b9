"""Creates the files that the commands in the README and the documentation name."""

from __future__ import annotations

import io
import json
import zipfile
from fractions import Fraction
from pathlib import Path

from PIL import Image

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces, draw_synthetic_photo
from landmarks_fastai.video.writer import VideoWriter

ROOT = Path(__file__).resolve().parents[2]
ROWS = 40


def write_user_files(folder: Path) -> Path:
    """Write photos, a video, a labeled data set, a config and a COCO file, and return Kaggle's zip."""
    photo, points = draw_synthetic_photo(1)
    for name in ("img.jpg", "photo.jpg", "photos/one.jpg", "photos/two.webp", "more/three.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photo).save(folder / name)
    (folder / "boxes.csv").write_text("image,x0,y0,x1,y1\none.jpg,100,50,400,350\ntwo.webp,90,40,390,340\n")
    (folder / "docs").mkdir()
    (folder / "docs" / "astronaut.jpg").write_bytes((ROOT / "docs" / "astronaut.jpg").read_bytes())
    with VideoWriter(folder / "clip.mp4", (640, 480), Fraction(25), Fraction(1, 12800)) as writer:
        for frame in range(10):
            writer.write(photo, Fraction(frame, 25))
    _write_csv_dataset(draw_synthetic_faces(ROWS, 9, 64), folder)
    (folder / "my_config.yaml").write_text("model:\n  input_size: 96\ntraining:\n  epochs: 45\n")
    coco = {
        "images": [{"id": 7, "file_name": "photo.jpg"}],
        "categories": [{"keypoints": ["left_eye", "right_eye"]}],
        "annotations": [{"image_id": 7, "keypoints": [*map(float, points[0]), 2, 0, 0, 0]}],
    }
    (folder / "person_keypoints.json").write_text(json.dumps(coco))
    archive = folder / "kaggle.zip"
    _write_kaggle(draw_synthetic_faces(ROWS, 7, 96), archive)
    return archive


def _write_csv_dataset(dataset: LandmarkDataset, folder: Path) -> None:
    (folder / "images").mkdir()
    lines = ["image," + ",".join(f"{name}_{axis}" for name in dataset.schema.names for axis in "xy")]
    for row, (image, points) in enumerate(zip(dataset.images, dataset.points, strict=True)):
        Image.fromarray(image[..., 0]).save(folder / "images" / f"{row}.png")
        lines.append(f"{row}.png," + ",".join(f"{value:.2f}" for value in points.flatten()))
    (folder / "my_landmarks.csv").write_text("\n".join(lines) + "\n")


def _write_kaggle(dataset: LandmarkDataset, archive: Path) -> None:
    """Write faces in Kaggle's layout: CSVs in zips in a zip."""
    names = [f"{name}_{axis}" for name in dataset.schema.names for axis in "xy"]
    pixels = [" ".join(map(str, image.flatten())) for image in dataset.images]
    rows = [",".join(f"{value:.3f}" for value in points.flatten()) for points in dataset.points]
    training = [",".join([*names, "Image"]), *map(",".join, zip(rows, pixels, strict=True))]
    test = ["ImageId,Image", *(f"{i + 1},{image}" for i, image in enumerate(pixels[:3]))]
    lookup = [f"{i * len(names) + j + 1},{i + 1},{name}," for i in range(3) for j, name in enumerate(names)]
    with zipfile.ZipFile(archive, "w") as outer:
        for stem, lines in (("training", training), ("test", test)):
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as member:
                member.writestr(f"{stem}.csv", "\n".join(lines) + "\n")
            outer.writestr(f"{stem}.zip", inner.getvalue())
        outer.writestr("IdLookupTable.csv", "\n".join(["RowId,ImageId,FeatureName,Location", *lookup]) + "\n")
