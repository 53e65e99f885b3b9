"""Reading a CSV of landmarks with its images: crops, landmarks, gray and RGB, cache, error messages."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.data.formats import csv
from landmarks_fastai.data.formats.csv import choose_crop, map_to_crop, read_csv_dataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop, extract_crop
from landmarks_fastai.schema import IBUG68, LandmarkSchema

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
HEADER = "image,left_x,left_y,right_x,right_y,tip_x,tip_y\n"


def make_image(width=60, height=40, seed=0, gray=False):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5) if gray else (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a CSV and two RGB images, one next to it and one in images/."""
    folder = tmp_path / "custom"
    (folder / "images").mkdir(parents=True)
    make_image().save(folder / "a.png")
    make_image(30, 50, seed=1).save(folder / "images" / "b.jpg")
    (folder / "landmarks.csv").write_text(HEADER + "a.png,40,10,20,12,30,25\nb.jpg,20,20,8,20,,\n")
    return folder


def read(folder, **options):
    return read_csv_dataset(folder, folder.parent / "cache", **options)


def test_read_csv_dataset_reads_names_labels_and_schema(folder):
    dataset = read(folder, size=32)
    assert dataset.images.shape == (2, 32, 32, 3)
    assert dataset.names == ("a.png", "b.jpg")
    assert dataset.schema.names == ("left", "right", "tip")
    assert dataset.schema.flip_pairs == (("left", "right"),)
    assert dataset.groups is None
    assert dataset.labeled.tolist() == [[True] * 3, [True, True, False]]
    # the bounding box is 20 px wide, centered at (30, 17.5): the crop is 32 px from (14.5, 2), not resized
    np.testing.assert_allclose(dataset.points[0], [[25.5, 8], [5.5, 10], [15.5, 23]])


def test_read_csv_dataset_crop_image_is_center_crop(folder):
    dataset = read(folder, size=80, crop="image")
    # the image is 40 px high: the crop is from x = 10 to 50, resized to twice its size
    np.testing.assert_allclose(dataset.points[0, 0], [(40 - 10 + 0.5) * 2 - 0.5, 10.5 * 2 - 0.5])
    expected = make_image().crop((10, 0, 50, 40)).resize((80, 80), Image.Resampling.BILINEAR)
    difference = dataset.images[0].astype(int) - np.asarray(expected)
    assert abs(difference[4:-4, 4:-4]).max() <= 1


def test_choose_crop_image_is_aligned_to_whole_pixels():
    assert choose_crop(np.full((1, 2), np.nan), 61, 40, "image") == Crop(10, 0, 40)


def test_read_csv_dataset_landmark_outside_crop_is_nan(folder):
    (folder / "landmarks.csv").write_text(HEADER + "a.png,55,10,20,12,30,25\n")
    assert read(folder, crop="image").labeled.tolist() == [[False, True, True]]


@pytest.mark.parametrize("coordinates", [",,,,,", "30,20,,,,"])
def test_read_csv_dataset_row_with_fewer_than_two_landmarks_gets_center_crop(folder, coordinates):
    (folder / "landmarks.csv").write_text(HEADER + f"a.png,{coordinates}\n")
    np.testing.assert_array_equal(read(folder).images, read(folder, crop="image").images)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(40, 300),
    height=st.integers(40, 300),
    size=st.integers(32, 96),
    crop_kind=st.sampled_from(["landmarks", "image"]),
    seed=st.integers(0, 1000),
)
def test_map_to_crop_agrees_with_extract_crop(width, height, size, crop_kind, seed):
    """The colors of the image encode coordinates, so the color at a mapped landmark is its position."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    ramp = np.stack([x, y, 0 * x], axis=2).round().astype(np.uint8)
    center, reach = np.array([width, height]) / 2, min(width, height) / 4
    points = center + np.random.default_rng(seed).uniform(-reach, reach, (6, 2))
    crop = choose_crop(points, width, height, crop_kind)
    mapped = map_to_crop(points, crop, size)
    colors = extract_crop(ramp, crop, size, 3).astype(float)
    for point, (px, py) in zip(points, mapped, strict=True):
        i, j = int(np.clip(px, 1, size - 3)), int(np.clip(py, 1, size - 3))
        fx, fy = px - i, py - j
        around = colors[j : j + 2, i : i + 2, :2]
        top, bottom = around[0, 0] * (1 - fx) + around[0, 1] * fx, around[1, 0] * (1 - fx) + around[1, 1] * fx
        found = (top * (1 - fy) + bottom * fy) / 255 * [width - 1, height - 1]
        step = max(1, crop.side / size)  # an error of half a pixel would be half a step
        rounding = 1.5 * max(width, height) / 255
        if ((found > step) & (found < [width - 1 - step, height - 1 - step])).all():
            np.testing.assert_allclose(found, point, atol=rounding + 0.15 * step)


def test_map_to_crop_without_resizing_is_exact():
    ramp = np.repeat(np.arange(0, 240, 4, np.uint8)[None, :, None], 60, 0).repeat(3, 2)
    points = np.array([[19.5, 19.5], [44.5, 40.0]])  # a crop of 40 px from 12.5
    crop = choose_crop(points, 60, 60, "landmarks")
    assert (crop.left, crop.side) == (12.5, 40)
    extracted = extract_crop(ramp, crop, 40, 3)
    # pixel 0 is at x = 12.5, between the gray values 48 and 52
    np.testing.assert_array_equal(extracted[5, :20, 0], np.arange(50, 130, 4))


def test_read_csv_dataset_repeats_edge_pixels_outside_image(folder):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :3] = (200, 100, 50)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "landmarks.csv").write_text(HEADER + "a.png,0,0,0,39,1,20\n")
    dataset = read(folder, size=62)
    assert (dataset.images[0, :, :20] == (200, 100, 50)).all()


def test_read_csv_dataset_applies_exif_orientation(folder):
    upright = make_image(60, 40)
    exif = Image.Exif()
    exif[274] = 6  # rotate by 90° clockwise to display
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "rotated.png", exif=exif)
    points = "40,10,20,12,30,25\n"
    (folder / "landmarks.csv").write_text(HEADER + "rotated.png," + points + "a.png," + points)
    dataset = read(folder)
    np.testing.assert_array_equal(dataset.images[0], dataset.images[1])


def test_read_csv_dataset_is_gray_if_all_images_are_gray(folder):
    row = ",40,10,20,12,30,25\n"
    gray = make_image(gray=True)
    gray.save(folder / "l.png")
    gray.convert("RGB").save(folder / "rgb.png")
    Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).save(folder / "deep.png")
    (folder / "landmarks.csv").write_text(HEADER + f"l.png{row}rgb.png{row}deep.png{row}")
    dataset = read(folder)
    assert dataset.channels == 1
    np.testing.assert_array_equal(dataset.images[0], dataset.images[1])
    np.testing.assert_array_equal(dataset.images[0], dataset.images[2])
    (folder / "landmarks.csv").write_text(HEADER + f"l.png{row}a.png{row}")
    assert read(folder).channels == 3


def test_read_csv_dataset_transparent_pixels_are_white(folder):
    Image.new("RGBA", (60, 40), (10, 20, 30, 0)).save(folder / "a.png")
    (folder / "landmarks.csv").write_text(HEADER + "a.png,40,10,20,12,30,25\n")
    assert (read(folder).images == 255).all()


def test_read_csv_dataset_reads_groups_and_several_faces_per_image(folder):
    rows = "a.png,40,10,20,12,30,25,Ann\na.png,40,10,20,12,30,26,Ben\nb.jpg,20,20,8,20,,,Ann\n"
    (folder / "landmarks.csv").write_text(HEADER[:-1] + ",group\n" + rows)
    dataset = read(folder)
    assert dataset.groups.tolist() == [0, 1, 0]
    assert dataset.names == ("a.png (landmarks.csv line 2)", "a.png (landmarks.csv line 3)", "b.jpg")


def test_read_csv_dataset_schema_json_determines_schema(folder):
    schema = LandmarkSchema("custom", ("tip", "right", "left"), (("right", "left"),), (("tip", "left"),))
    (folder / "schema.json").write_text(json.dumps(schema.to_dict()))
    dataset = read(folder, size=32)
    assert dataset.schema == schema
    np.testing.assert_allclose(dataset.points[0, 0], [15.5, 23])


def test_read_csv_dataset_is_cached_until_image_changes(folder, monkeypatch):
    first = read(folder)
    cached = list((folder.parent / "cache" / "parsed").iterdir())
    assert [file.suffix for file in cached] == [".npz"]
    with monkeypatch.context() as patch:
        patch.setattr(csv, "read_image", lambda *_: pytest.fail("read again"))
        again = read(folder)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.points, first.points)
    assert (again.names, again.schema, again.digest) == (first.names, first.schema, first.digest)
    assert read(folder, size=64).size == 64
    cached[0].write_bytes(cached[0].read_bytes()[:500])  # damaged
    np.testing.assert_array_equal(read(folder).images, first.images)
    before = (folder / "a.png").stat()
    make_image(seed=9).save(folder / "a.png")
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    changed = read(folder)
    assert changed.digest != first.digest
    assert (changed.images[0] != first.images[0]).any()


def test_read_csv_dataset_digest_of_copy_is_equal(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert read(tmp_path / "copy").digest == read(folder).digest


GOOD = "a.png,40,10,20,12,30,25\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["landmarks.csv", "empty"]),
        (HEADER, ["landmarks.csv", "no rows"]),
        ("image\na.png\n", ["landmarks.csv", "no columns of landmarks"]),
        ("picture,a_x,a_y\na.png,1,2\n", ["landmarks.csv", "'image'"]),
        ("image,a_x,a_y,a_x\na.png,1,2,3\n", ["duplicate column 'a_x'"]),
        ("image,a_x,a_y,b_x\na.png,1,2,3\n", ["'b_x'", "'b_y'"]),
        ("image,a_x,a_y,b_y\na.png,1,2,3\n", ["'b_y'", "'b_x'"]),
        ("image,a_x,a_y,width\na.png,1,2,3\n", ["'width'"]),
        (HEADER + GOOD + "missing.png,1,2,3,4,5,6\n", ["line 3", "missing.png"]),
        (HEADER + "x" * 5000 + ",1,2,3,4,5,6\n", ["line 2", "xxx"]),
        (HEADER + ",1,2,3,4,5,6\n", ["line 2", "'image' is empty"]),
        (HEADER + GOOD + "a.png,1,2,3,4,five,6\n", ["line 3", "tip_x", "'five'"]),
        (HEADER + "a.png,1,2,3,4,inf,6\n", ["line 2", "tip_x"]),
        (HEADER + "a.png,1,,3,4,5,6\n", ["line 2", "left_y"]),
        (HEADER + "a.png,1,2\n", ["line 2", "3 fields"]),
        (HEADER + "a.png,1000,10,20,12,30,25\n", ["line 2", "left_x", "1000", "60 × 40"]),
        (HEADER[:-1] + ",group\na.png,40,10,20,12,30,25,\n", ["line 2", "group"]),
    ],
)
def test_read_csv_dataset_invalid_csv_raises_one_line_message(folder, text, parts):
    (folder / "landmarks.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read(folder)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    for part in parts:
        assert part in message
    assert not list(folder.parent.glob("cache/**/*.npz"))


def truncate(path):
    make_image(200, 200).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("corrupt", "word"),
    [
        (truncate, "truncated"),
        (lambda path: path.write_text("not an image"), "not an image"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
    ],
)
def test_read_csv_dataset_damaged_image_raises_one_line_message(folder, corrupt, word):
    corrupt(folder / "images" / "b.jpg")
    with pytest.raises(UserError) as error:
        read(folder)
    message = str(error.value)
    assert "\n" not in message
    for part in ("landmarks.csv, line 3", "b.jpg", word):
        assert part in message


def test_read_csv_dataset_invalid_argument_or_schema_raises(folder):
    with pytest.raises(UserError, match="no such file or folder"):
        read(folder / "missing")
    with pytest.raises(UserError, match=r"no landmarks\.csv"):
        read(folder / "images")
    with pytest.raises(UserError, match="did you mean 'landmarks'"):
        read(folder, crop="landmark")
    for text, word in (("{", "JSON"), ("[]", "object"), ('{"name": "a"}', "names")):
        (folder / "schema.json").write_text(text)
        with pytest.raises(UserError, match=word) as error:
            read(folder)
        assert "schema.json" in str(error.value)
    (folder / "schema.json").write_text(
        json.dumps(LandmarkSchema("custom", ("left", "right", "top")).to_dict())
    )
    with pytest.raises(
        UserError, match=r"landmarks\.csv: has the landmark 'tip', which .*schema\.json does not have"
    ):
        read(folder)


@pytest.mark.skipif(not (SHARED / "faces68").is_dir(), reason="needs shared/data/faces68")
def test_read_csv_dataset_shared_faces68(tmp_path):
    lines = (SHARED / "faces68" / "landmarks.csv").read_text().splitlines()[:41]
    (tmp_path / "some.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "images").symlink_to(SHARED / "faces68" / "images")
    dataset = read_csv_dataset(tmp_path / "some.csv", tmp_path / "cache")
    assert dataset.schema == IBUG68
    assert dataset.images.shape == (40, 128, 128, 3)
    assert dataset.complete.all()
    extent = np.ptp(dataset.points, axis=1).max(1)
    np.testing.assert_allclose(extent, 128 / 1.6, rtol=1e-4)
