"""Loading data sets: formats, options without effect, caching, selection of rows."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data import sources
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.formats import kaggle
from landmarks_fastai.data.sources import download_kaggle, load_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.download import git_blob_sha1, git_blob_sha1_of_stream

ROWS = 12


def training_csv() -> bytes:
    """Return a training.csv in which every third row has no nose."""
    lines = [",".join((*kaggle.COLUMNS, "Image"))]
    nose = kaggle.COLUMNS.index("nose_tip_x")
    for face in range(ROWS):
        fields = [str(face + i) for i in range(30)]
        if face % 3 == 0:
            fields[nose] = fields[nose + 1] = ""
        lines.append(",".join([*fields, " ".join([str(face)] * 9216)]))
    return ("\n".join(lines) + "\n").encode()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for stem, content in files.items():
            archive.writestr(stem.replace("__", "."), content)
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def training(tmp_path: Path) -> Path:
    path = tmp_path / "kaggle" / "training.csv"
    path.parent.mkdir()
    path.write_bytes(training_csv())
    return path


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """Return a folder with one image and a CSV of its two landmarks."""
    folder = tmp_path / "custom"
    folder.mkdir()
    Image.new("RGB", (80, 60), (200, 10, 10)).save(folder / "a.png")
    (folder / "landmarks.csv").write_text("image,tip_x,tip_y,base_x,base_y\na.png,10,20,50,40\n")
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `download_kaggle` use a small local zip with its own digests, and return the path of the zip."""
    inner = {"training.zip": zipped(training__csv=training_csv()), "test.zip": zipped(test__csv=b"")}
    path = tmp_path / "served.zip"
    path.write_bytes(zipped(**{name.replace(".", "__"): content for name, content in inner.items()}))
    blobs = {
        name: git_blob_sha1_of_stream(io.BytesIO(content), len(content)) for name, content in inner.items()
    }
    monkeypatch.setattr(kaggle, "URL", path.as_uri())
    monkeypatch.setattr(kaggle, "ARCHIVE_BLOB", git_blob_sha1(path))
    monkeypatch.setattr(kaggle, "MEMBER_BLOBS", blobs)
    return path


def fail_if_called(*_: object, **__: object) -> None:
    raise AssertionError("must not be called")


# --- sources -------------------------------------------------------------------------------------


def test_load_dataset_kaggle_is_downloaded_once(cache, server):
    progress: list[tuple[int, int | None]] = []
    for _ in range(2):
        dataset = load_dataset("kaggle", cache=cache, progress=lambda *call: progress.append(call))
        assert len(dataset) == ROWS
        assert dataset.schema == KAGGLE15
        assert dataset.source == "kaggle"
        assert dataset.names[0] == "training.csv line 2"
        server.unlink(missing_ok=True)
    size = (cache / kaggle.ARCHIVE).stat().st_size
    assert progress == [(0, size), (size, size)]


def test_download_kaggle_wrong_member_raises_every_time(cache, server, monkeypatch):
    monkeypatch.setitem(kaggle.MEMBER_BLOBS, "test.zip", "0" * 40)
    for _ in range(2):
        with pytest.raises(UserError, match=r"test\.zip has the digest"):
            download_kaggle(cache)
        assert not (cache / kaggle.ARCHIVE).exists()


def test_kaggle_url_and_digests_are_those_of_the_original_files():
    """The values are repeated here, because a typo would cause an error only in a download."""
    assert kaggle.URL.endswith(
        "ko-redtruck/facial-landmark-detection/raw/main/facial-keypoints-detection.zip"
    )
    assert kaggle.ARCHIVE_BLOB == "910aaea5cb499befc292feee8da2a8945e0a276e"
    assert kaggle.MEMBER_BLOBS == {
        "training.zip": "42912e715e7d885eb8514c081f3d774533fea85b",
        "test.zip": "1bba825f7cca64dbc255634cec1ee0a80600d359",
    }


@pytest.mark.parametrize("kind", ["csv", "folder", "inner zip", "outer zip", "folder with the zip"])
def test_load_dataset_reads_kaggle_files_in_any_packing(training, tmp_path, cache, kind):
    inner = zipped(training__csv=training.read_bytes())
    (tmp_path / "training.zip").write_bytes(inner)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / kaggle.ARCHIVE).write_bytes(zipped(training__zip=inner))
    path = {
        "csv": training,
        "folder": training.parent,
        "inner zip": tmp_path / "training.zip",
        "outer zip": tmp_path / "downloads" / kaggle.ARCHIVE,
        "folder with the zip": tmp_path / "downloads",
    }[kind]
    dataset = load_dataset(path, cache=cache)
    assert dataset.images[:][:, 5, 7, 0].tolist() == list(range(ROWS))
    assert dataset.source == str(path)


def test_load_dataset_kaggle_is_parsed_again_only_after_change(training, cache, monkeypatch):
    first = load_dataset(training, cache=cache)
    assert len(list((cache / "parsed").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(kaggle, "read_training", fail_if_called)
        cached = load_dataset(training.parent, cache=cache)
    np.testing.assert_array_equal(cached.images, first.images)
    np.testing.assert_array_equal(cached.points, first.points)
    assert (cached.names, cached.digest) == (first.names, first.digest)
    lines = training.read_bytes().splitlines(keepends=True)
    training.write_bytes(b"".join(lines[:-1]))
    changed = load_dataset(training, cache=cache)
    assert len(changed) == ROWS - 1
    assert changed.digest != first.digest


def synthetic(cache: Path, count: int, seed: int) -> LandmarkDataset:
    return load_dataset(DataConfig(source="synthetic", count=count), seed=seed, cache=cache)


def test_load_dataset_synthetic_is_drawn_once_per_version(cache, monkeypatch):
    drawn = synthetic(cache, 3, seed=5)
    np.testing.assert_array_equal(drawn.images, draw_synthetic_faces(3, 5).images)
    np.testing.assert_array_equal(drawn.points, draw_synthetic_faces(3, 5).points)
    assert synthetic(cache, 3, seed=6).digest != drawn.digest
    assert len(synthetic(cache, 2, seed=5)) == 2
    monkeypatch.setattr(sources, "draw_synthetic_faces", fail_if_called)
    cached = synthetic(cache, 3, seed=5)
    assert (cached.digest, cached.source) == (drawn.digest, "synthetic")
    monkeypatch.setattr(sources, "__version__", "another")
    with pytest.raises(AssertionError, match="must not be called"):
        synthetic(cache, 3, seed=5)


def test_load_dataset_synthetic_default_count_is_1000(cache, monkeypatch):
    calls: list[tuple[int, int]] = []

    def draw(count: int, seed: int, **occlusion: float) -> LandmarkDataset:
        calls.append((count, seed))
        return draw_synthetic_faces(1, seed)

    monkeypatch.setattr(sources, "draw_synthetic_faces", draw)
    load_dataset("synthetic", cache=cache)
    assert calls == [(1000, 0)]


def test_load_dataset_without_cache_uses_default_cache_dir(cache, monkeypatch):
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(cache))
    load_dataset(DataConfig(source="synthetic", count=2))
    assert len(list((cache / "parsed").iterdir())) == 1


def test_load_dataset_reads_csv_with_images(custom, cache):
    for path in (custom, custom / "landmarks.csv"):
        dataset = load_dataset(path, cache=cache)
        assert dataset.images.shape == (1, 128, 128, 3)
        assert dataset.schema.names == ("tip", "base")
        # the bounding box is 40 × 20 px about (30, 30), the crop 64 px, resized to twice its size
        assert dataset.points[0].tolist() == [[pytest.approx(23.5), pytest.approx(43.5)], [103.5, 83.5]]
    image = load_dataset(DataConfig(source=str(custom), image_size=60, crop="image"), cache=cache)
    assert image.points[0].tolist() == [[0, 20], [40, 40]]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [("image_size", 96), ("crop", "image"), ("count", 9)],
)
def test_load_dataset_option_without_effect_raises(training, custom, cache, option, value):
    effective = "synthetic" if option == "count" else str(custom)
    for source in {"kaggle", "synthetic", str(training), str(custom)} - {effective}:
        with pytest.raises(
            UserError, match=f"^data.{option}: has no effect on the source {source}; "
        ) as error:
            load_dataset(DataConfig(source=source, **{option: value}), cache=cache)
        assert "\n" not in str(error.value)
    assert not cache.exists()


def test_load_dataset_unknown_source_raises(cache, tmp_path, custom):
    def assert_raises(source: str | Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            load_dataset(source, cache=cache)
        assert "\n" not in str(error.value)

    assert_raises(
        "sintetic",
        r"^sintetic: .* did you mean 'synthetic'\? a source is kaggle, synthetic, or a path",
    )
    assert_raises(tmp_path / "faces.zip", r"no such source or file; a source is ")
    (tmp_path / "empty").mkdir()
    assert_raises(tmp_path / "empty", r"no data set of a known format in this folder; the formats are ")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert_raises(tmp_path / "other.csv", r"neither Kaggle's columns nor 'image'; the formats are ")
    (tmp_path / "empty.csv").write_text("")
    assert_raises(
        tmp_path / "empty.csv", r"empty\.csv: the file is empty; its first line must name the columns$"
    )
    assert_raises(custom / "a.png", r"a\.png: not a data set of a known format; the formats are ")
    (custom / "training.csv").write_bytes(b"")
    assert_raises(custom, r"contains data of several formats \(csv, kaggle\); name the file itself")


# --- selecting rows ------------------------------------------------------------------------------


def test_load_dataset_complete_only_and_limit_select_rows(training, cache):
    def load(seed: int = 0, **options: Any) -> LandmarkDataset:
        return load_dataset(DataConfig(source=str(training), **options), seed=seed, cache=cache)

    complete = load(complete_only=True)
    assert complete.images[:][:, 0, 0, 0].tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    few = load(complete_only=True, limit=3)
    expected = np.sort(np.random.default_rng(0).permutation(8)[:3])
    np.testing.assert_array_equal(few.images, complete.subset(expected).images)
    assert few.names == tuple(complete.names[i] for i in expected)
    assert len({load(seed, limit=3).names for seed in range(5)}) > 1
    assert len(load(limit=99)) == ROWS


def test_load_dataset_complete_only_without_complete_row_raises(training, cache):
    header, first, *_ = training.read_bytes().splitlines(keepends=True)
    training.write_bytes(header + first)
    message = r"data\.complete_only: .*training\.csv has no row with all landmarks labeled"
    with pytest.raises(UserError, match=message):
        load_dataset(DataConfig(source=str(training), complete_only=True), cache=cache)
