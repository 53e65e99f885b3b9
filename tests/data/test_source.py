"""The one door: which reader a source gets, which options act on it, and that nothing is read twice."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.config import Data
from landmarks_fastai.data import kaggle, source
from landmarks_fastai.data.download import git_blob
from landmarks_fastai.data.source import default_cache, fetch_kaggle, load_faces, load_table
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import KAGGLE15

ROWS = 12


def training_csv() -> bytes:
    """Make a training.csv in which every third row lacks the nose."""
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
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    Image.new("RGB", (80, 60), (200, 10, 10)).save(folder / "a.png")
    (folder / "landmarks.csv").write_text("image,tip_x,tip_y,base_x,base_y\na.png,10,20,50,40\n")
    return folder


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand in for the network: a small zip whose digests are the expected ones. Returns what was fetched."""
    inner = {"training__zip": zipped(training__csv=training_csv()), "test__zip": zipped(test__csv=b"")}
    served = tmp_path / "served.zip"
    served.write_bytes(zipped(**inner))
    blobs = {}
    for stem, content in inner.items():
        (tmp_path / stem).write_bytes(content)
        blobs[stem.replace("__", ".")] = git_blob(tmp_path / stem)
    monkeypatch.setattr(kaggle, "ARCHIVE_BLOB", git_blob(served))
    monkeypatch.setattr(kaggle, "MEMBER_BLOBS", blobs)
    fetched: list[Path] = []

    def fetch(url: str, target: Path, blob: str, progress: object) -> Path:
        assert (url, blob) == (kaggle.URL, git_blob(served))
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(served, target)
            fetched.append(target)
        return target

    monkeypatch.setattr(source, "fetch", fetch)
    return fetched


def never(*_: object, **__: object) -> None:
    raise AssertionError("must not be called again")


# --- sources -------------------------------------------------------------------------------------------


def test_kaggle_is_fetched_verified_and_read(cache, download):
    for _ in range(2):
        table = load_faces("kaggle", cache)
        assert len(table) == ROWS
        assert table.schema == KAGGLE15
        assert table.source == "kaggle"
        assert table.names[0] == "training.csv line 2"
    assert download == [cache / kaggle.ARCHIVE]


def test_a_wrong_member_is_not_taken_at_the_next_call_either(cache, download, monkeypatch):
    monkeypatch.setitem(kaggle.MEMBER_BLOBS, "test.zip", "0" * 40)
    for _ in range(2):
        with pytest.raises(UserError, match=r"test\.zip has the digest"):
            fetch_kaggle(cache)
    assert len(download) == 2


def test_the_digests_are_those_of_the_issue():
    """Written down by hand a second time, as a slip would only show with a network."""
    assert kaggle.URL.endswith(
        "ko-redtruck/facial-landmark-detection/raw/main/facial-keypoints-detection.zip"
    )
    assert kaggle.ARCHIVE_BLOB == "910aaea5cb499befc292feee8da2a8945e0a276e"
    assert kaggle.MEMBER_BLOBS == {
        "training.zip": "42912e715e7d885eb8514c081f3d774533fea85b",
        "test.zip": "1bba825f7cca64dbc255634cec1ee0a80600d359",
    }


@pytest.mark.parametrize("given_as", ["csv", "folder", "inner zip", "outer zip", "folder with the zip"])
def test_a_path_to_kaggle_s_files(training, tmp_path, cache, given_as):
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
    }[given_as]
    table = load_faces(str(path), cache)
    assert table.images[:, 5, 7, 0].tolist() == list(range(ROWS))
    assert table.source == str(path)


def test_kaggle_s_rows_are_parsed_once_and_again_when_they_change(training, cache, monkeypatch):
    first = load_faces(str(training), cache)
    assert len(list((cache / "parsed").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(kaggle, "read_training", never)
        again = load_faces(str(training.parent), cache)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.points, first.points)
    assert (again.names, again.digest) == (first.names, first.digest)
    lines = training.read_bytes().splitlines(keepends=True)
    training.write_bytes(b"".join(lines[:-1]))
    changed = load_faces(str(training), cache)
    assert len(changed) == ROWS - 1
    assert changed.digest != first.digest


def test_synthetic_faces_are_drawn_once(cache, monkeypatch):
    drawn = load_faces("synthetic", cache, count=3, seed=5)
    np.testing.assert_array_equal(drawn.images, draw_faces(3, 5).images)
    np.testing.assert_array_equal(drawn.points, draw_faces(3, 5).points)
    other = load_faces("synthetic", cache, count=3, seed=6)
    assert other.digest != drawn.digest
    assert len(load_faces("synthetic", cache, count=2, seed=5)) == 2
    monkeypatch.setattr(source, "draw_faces", never)
    again = load_faces("synthetic", cache, count=3, seed=5)
    assert (again.digest, again.source) == (drawn.digest, "synthetic")
    monkeypatch.setattr(source, "__version__", "another")
    with pytest.raises(AssertionError, match="must not be called again"):
        load_faces("synthetic", cache, count=3, seed=5)


def test_a_thousand_are_drawn_where_no_count_is_given(cache, monkeypatch):
    asked: list[tuple[int, int]] = []

    def draw(count: int, seed: int):
        asked.append((count, seed))
        return draw_faces(1, seed)

    monkeypatch.setattr(source, "draw_faces", draw)
    load_faces("synthetic", cache)
    assert asked == [(1000, 0)]


def test_faces_of_one_s_own(own, cache):
    for path in (own, own / "landmarks.csv"):
        table = load_faces(str(path), cache)
        assert table.images.shape == (1, 128, 128, 3)
        assert table.schema.points == ("tip", "base")
        # the box is 40 × 20 px about (30, 30); the square is 64 px, shown at twice its size
        assert table.points[0].tolist() == [[pytest.approx(23.5), pytest.approx(43.5)], [103.5, 83.5]]
    image = load_faces(str(own), cache, size=60, frame="image")
    assert image.points[0].tolist() == [[0, 20], [40, 40]]


# --- what can't be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [({"size": 96}, "data.size"), ({"frame": "image"}, "data.frame"), ({"count": 9}, "data.count")],
)
def test_an_option_that_can_t_act_is_an_error(training, own, cache, options, name):
    sources = {"kaggle", "synthetic", str(training), str(own)}
    acts_on = {"data.size": {str(own)}, "data.frame": {str(own)}, "data.count": {"synthetic"}}[name]
    for spec in sources - acts_on:
        with pytest.raises(UserError, match=f"^{name}: ") as told:
            load_faces(spec, cache, **options)
        assert "\n" not in str(told.value)
    assert not cache.exists()


def test_a_source_that_there_is_not(cache, tmp_path, own):
    with pytest.raises(
        UserError, match=r"^sintetic: .* did you mean 'synthetic'\? .*possible: kaggle, synthetic, or a path"
    ):
        load_faces("sintetic", cache)
    with pytest.raises(UserError, match=r"no such source or file; possible: "):
        load_faces(str(tmp_path / "faces.zip"), cache)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no source of faces; possible: "):
        load_faces(str(tmp_path / "empty"), cache)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"neither Kaggle's columns nor 'image'; possible: "):
        load_faces(str(tmp_path / "other.csv"), cache)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match=r"empty\.csv: the file is empty"):
        load_faces(str(tmp_path / "empty.csv"), cache)
    with pytest.raises(UserError, match=r"a\.png: .*possible: "):
        load_faces(str(own / "a.png"), cache)
    (own / "training.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds both"):
        load_faces(str(own), cache)


# --- a recipe's table ----------------------------------------------------------------------------------


def test_rows_a_recipe_leaves_out(training, cache):
    everything = load_faces(str(training), cache)
    table = load_table(Data(source=str(training), complete_only=True), cache, 0)
    assert table.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    few = load_table(Data(source=str(training), complete_only=True, limit=3), cache, 0)
    expected = np.sort(np.random.default_rng(0).permutation(8)[:3])
    np.testing.assert_array_equal(few.images, table.rows(expected).images)
    assert few.names == tuple(table.names[i] for i in expected)
    limits = [load_table(Data(source=str(training), limit=3), cache, seed).names for seed in range(5)]
    assert len(set(limits)) > 1
    assert len(load_table(Data(source=str(training), limit=99), cache, 0)) == len(everything)


def test_no_complete_row_is_told(training, cache):
    header, first, *_ = training.read_bytes().splitlines(keepends=True)
    training.write_bytes(header + first)
    with pytest.raises(UserError, match=r"data\.complete_only: no row of .*training\.csv has all points"):
        load_table(Data(source=str(training), complete_only=True), cache, 0)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LANDMARKS_FASTAI_CACHE", raising=False)
    assert default_cache().name == "landmarks-fastai"
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", "~/there")
    assert default_cache() == Path.home() / "there"
