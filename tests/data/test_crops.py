"""Annotations to crops: decoding, cropping, gray and RGB, cache, bad rows, resuming."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_disk import small_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.data import crops
from landmarks_fastai.data.annotation_files import read_annotations
from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.crops import CropOptions, choose_crop, load_crops, map_to_crop
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop, extract_crop
from landmarks_fastai.schema import LandmarkSchema

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
    skip_bad = options.pop("skip_bad", False)
    options = CropOptions(**options)
    return load_crops(read_annotations(folder, "csv"), options, folder.parent / "cache", skip_bad=skip_bad)


def test_load_crops_crop_image_is_center_crop(folder):
    dataset = read(folder, size=80, crop="image")
    # the image is 40 px high: the crop is from x = 10 to 50, resized to twice its size
    np.testing.assert_allclose(dataset.points[0, 0], [(40 - 10 + 0.5) * 2 - 0.5, 10.5 * 2 - 0.5])
    expected = make_image().crop((10, 0, 50, 40)).resize((80, 80), Image.Resampling.BILINEAR)
    difference = dataset.images[0].astype(int) - np.asarray(expected)
    assert abs(difference[4:-4, 4:-4]).max() <= 1


def test_choose_crop_image_is_aligned_to_whole_pixels():
    assert choose_crop(np.full((1, 2), np.nan), None, 61, 40, "image") == Crop(10, 0, 40)


def test_load_crops_landmark_outside_crop_is_nan(folder):
    (folder / "landmarks.csv").write_text(HEADER + "a.png,55,10,20,12,30,25\n")
    assert read(folder, crop="image").labeled.tolist() == [[False, True, True]]


@pytest.mark.parametrize("coordinates", [",,,,,", "30,20,,,,"])
def test_load_crops_row_with_fewer_than_two_landmarks_gets_center_crop(folder, coordinates):
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
    crop = choose_crop(points, None, width, height, crop_kind)
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
    crop = choose_crop(points, None, 60, 60, "landmarks")
    assert (crop.left, crop.side) == (12.5, 40)
    extracted = extract_crop(ramp, crop, 40, 3)
    # pixel 0 is at x = 12.5, between the gray values 48 and 52
    np.testing.assert_array_equal(extracted[5, :20, 0], np.arange(50, 130, 4))


def test_load_crops_repeats_edge_pixels_outside_image(folder):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :3] = (200, 100, 50)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "landmarks.csv").write_text(HEADER + "a.png,0,0,0,39,1,20\n")
    dataset = read(folder, size=62)
    assert (dataset.images[:][0, :, :20] == (200, 100, 50)).all()


def test_load_crops_applies_exif_orientation(folder):
    upright = make_image(60, 40)
    exif = Image.Exif()
    exif[274] = 6  # rotate by 90° clockwise to display
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "rotated.png", exif=exif)
    points = "40,10,20,12,30,25\n"
    (folder / "landmarks.csv").write_text(HEADER + "rotated.png," + points + "a.png," + points)
    dataset = read(folder)
    np.testing.assert_array_equal(dataset.images[0], dataset.images[1])


def test_load_crops_is_gray_if_all_images_are_gray(folder):
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


def test_load_crops_transparent_pixels_are_white(folder):
    Image.new("RGBA", (60, 40), (10, 20, 30, 0)).save(folder / "a.png")
    (folder / "landmarks.csv").write_text(HEADER + "a.png,40,10,20,12,30,25\n")
    assert (read(folder).images[:] == 255).all()


def test_load_crops_is_cached_until_image_changes(folder, monkeypatch):
    first = read(folder)
    cached = list((folder.parent / "cache" / "parsed").iterdir())
    assert len(cached) == 1
    with monkeypatch.context() as patch:
        patch.setattr(crops, "read_image_and_depth", lambda *_: pytest.fail("read again"))
        again = read(folder)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.points, first.points)
    assert (again.names, again.schema, again.digest) == (first.names, first.schema, first.digest)
    assert read(folder, size=64).size == 64
    labels = cached[0] / "labels.npz"
    labels.write_bytes(labels.read_bytes()[:500])  # damaged
    np.testing.assert_array_equal(read(folder).images, first.images)
    before = (folder / "a.png").stat()
    make_image(seed=9).save(folder / "a.png")
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    changed = read(folder)
    assert changed.digest != first.digest
    assert (changed.images[0] != first.images[0]).any()


def test_load_crops_digest_of_copy_is_equal(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert read(tmp_path / "copy").digest == read(folder).digest


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
def test_load_crops_damaged_image_raises_one_line_message(folder, corrupt, word):
    corrupt(folder / "images" / "b.jpg")
    with pytest.raises(UserError) as error:
        read(folder)
    message = str(error.value)
    assert "\n" not in message
    for part in ("landmarks.csv, line 3", "b.jpg", word):
        assert part in message


def test_load_crops_of_unknown_crop_raises():
    with pytest.raises(UserError, match="did you mean 'landmarks'"):
        CropOptions(crop="landmark")


def make_annotations(folder: Path, n: int, boxes: np.ndarray | None = None) -> Annotations:
    """Return n rows on n images of one gray value each: row i has the value i."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.new("L", (50, 40), i).save(folder / f"{i}.png")
    points = np.tile([[10.0, 10], [30, 10], [20, 30]], (n, 1, 1))
    return Annotations(
        schema=LandmarkSchema("shape", ("a", "b", "c")),
        images=tuple(ImageSource(folder / f"{i}.png") for i in range(n)),
        rows=np.arange(n),
        points=points,
        names=tuple(f"row {i}" for i in range(n)),
        source="labels",
        boxes=boxes,
    )


def load(annotations: Annotations, cache: Path, **options: Any) -> LandmarkDataset:
    return load_crops(annotations, CropOptions(16), cache, **options)


def test_load_crops_box_is_squared_and_missing_box_is_replaced_by_landmarks(tmp_path):
    boxes = np.array([[10, 10, 30, 20], [np.nan] * 4])
    annotations = make_annotations(tmp_path / "images", 2, boxes)
    dataset = load_crops(annotations, CropOptions(20, "box"), tmp_path / "cache")
    # the square around the box is 20 px from (10, 5): not resized
    np.testing.assert_allclose(dataset.points[0, :2], [[0, 5], [np.nan, np.nan]])
    assert dataset.labeled.tolist() == [[True, False, False], [True] * 3]


def test_load_crops_decodes_an_image_with_several_rows_once(tmp_path, monkeypatch):
    annotations = make_annotations(tmp_path / "images", 2).subset(np.array([0, 1, 0, 0]))
    read, calls = crops.read_image_and_depth, []
    monkeypatch.setattr(crops, "read_image_and_depth", lambda path: calls.append(path) or read(path))
    dataset = load(annotations, tmp_path / "cache")
    assert len(calls) == 2
    assert dataset.images[:][:, 0, 0, 0].tolist() == [0, 1, 0, 0]
    assert len(set(dataset.images.ids.tolist())) == 2


def test_load_crops_continues_after_an_interruption(tmp_path, monkeypatch):
    """Interrupt at the 70th of 100 images; the second attempt decodes only what is missing."""
    annotations = make_annotations(tmp_path / "images", 100)
    expected = load(annotations, tmp_path / "other")
    read, calls = crops.read_image_and_depth, []

    def interrupted(path):
        calls.append(path)
        if len(calls) == 70:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(crops, "read_image_and_depth", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(annotations, tmp_path / "cache")
    dataset = load(annotations, tmp_path / "cache")
    assert 100 < len(calls) <= 170 - 50
    np.testing.assert_array_equal(dataset.images, expected.images)
    np.testing.assert_array_equal(dataset.points, expected.points)
    assert dataset.digest == expected.digest


def test_load_crops_notes_bits_in_use_also_from_the_cache_and_after_an_interruption(tmp_path, monkeypatch):
    annotations = make_annotations(tmp_path / "images", 4)
    for i in range(3):
        Image.fromarray(np.full((40, 50), 4000, np.uint16)).save(tmp_path / "images" / f"{i}.png")
    decode_all = crops._Decoder._decode_all

    def interrupted(decoder):
        decode_all(decoder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crops._Decoder, "_decode_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(annotations, tmp_path / "cache")
    note = "3 images of 16 bits per level, of which 12 are in use; 4095 is shown as white"
    for _ in range(2):
        dataset = load(annotations, tmp_path / "cache")
        assert dataset.images[:][:, 0, 0, 0].tolist() == [249, 249, 249, 3]
        assert note in dataset.notes


def test_load_crops_lists_bad_rows_together_or_skips_them(tmp_path):
    annotations = make_annotations(tmp_path / "images", 60)
    for i in range(30):
        (tmp_path / "images" / f"{i}.png").write_text("not an image")
    with pytest.raises(UserError, match=r"30 of 60 rows cannot be used; .*--skip-bad") as error:
        load(annotations, tmp_path / "cache")
    assert len(error.value.details) == 21
    assert error.value.details[0].startswith("row 0: ")
    assert error.value.details[-1].startswith("and 10 more; ")
    assert (tmp_path / "cache" / "bad-rows.txt").read_text().count("\n") == 30
    dataset = load(annotations, tmp_path / "cache", skip_bad=True)
    assert dataset.names == tuple(f"row {i}" for i in range(30, 60))
    assert dataset.images[:][:, 0, 0, 0].tolist() == list(range(30, 60))
    assert dataset.notes[-1].startswith("30 rows skipped (--skip-bad); the first: row 0: ")
    again = load(annotations, tmp_path / "cache", skip_bad=True)
    np.testing.assert_array_equal(again.images, dataset.images)
    np.testing.assert_array_equal(again.images.ids, dataset.images.ids)


def test_load_crops_on_full_disk_keeps_images_in_memory(tmp_path):
    """The images would be written through a memory map, which kills the process if there is no space."""
    annotations = make_annotations(tmp_path / "images", 100)
    expected = load_crops(annotations, CropOptions(128), tmp_path / "cache")
    assert expected.images[:].nbytes > 1 << 20
    with small_disk(tmp_path / "disk", 1) as disk:
        dataset = load_crops(annotations, CropOptions(128), disk)
        assert not list((disk / "parsed").iterdir())
        assert "not cached (No space left on device)" in dataset.notes[-1]
    np.testing.assert_array_equal(dataset.images, expected.images)
    assert dataset.digest == expected.digest
