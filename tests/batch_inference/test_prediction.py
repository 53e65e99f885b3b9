"""A shard is predicted like its images one by one; what cannot be used is set aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from landmarks_fastai.batch_inference import storage
from landmarks_fastai.batch_inference.prediction import Job, ShardPredictor, Stopped
from landmarks_fastai.batch_inference.shards import Shard
from landmarks_fastai.geometry import center_crop
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.images import read_image


def rows(job: Job, table: str, index: int = 0) -> list[dict[str, object]]:
    return pq.read_table(Path(job.out) / table / f"part-{index:05d}.parquet").to_pylist()


def test_landmarks_are_those_of_the_predictor(job: Job, photos: Path, model_path: Path) -> None:
    names = [str(photos / name) for name in ("1.png", "more/4.png")]
    summary = ShardPredictor(job)(0, Shard("files", names=tuple(names)))
    assert (summary.images, summary.faces, summary.unreadable, summary.error) == (2, 2, 0, "")
    found = rows(job, "landmarks")
    predictor = Predictor.open(model_path, "cpu")
    for number, name in enumerate(names):
        image = read_image(name)
        expected = predictor.predict_crops(image, [center_crop(60, 50)]).points[0]
        part = found[number * len(expected) : (number + 1) * len(expected)]
        assert {row["path"] for row in part} == {name}
        np.testing.assert_allclose([[row["x"], row["y"]] for row in part], expected, atol=1e-4)


def test_unusable_images_are_set_aside_with_the_reason(
    job: Job, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(photos / name) for name in ("bad.jpg", "1.png", "none.png", "2.png", "3.png")]
    predict = ShardPredictor(job)
    original = Predictor.predict_crops
    broken = read_image(names[3])

    def fail(self: Predictor, image: np.ndarray, *args: object, **options: object) -> object:
        if np.array_equal(image, broken):
            raise ValueError("a bug")
        return original(self, image, *args, **options)

    monkeypatch.setattr(Predictor, "predict_crops", fail)
    summary = predict(0, Shard("files", names=tuple(names)))
    assert (summary.images, summary.unreadable, summary.error) == (2, 3, "")
    assert [(Path(str(row["path"])).name, row["kind"]) for row in rows(job, "rejected")] == [
        ("bad.jpg", "unreadable"),
        ("none.png", "unreadable"),
        ("2.png", "internal error"),
    ]
    reasons = [str(row["reason"]) for row in rows(job, "rejected")]
    assert reasons[0].startswith("not an image")
    assert reasons[1:] == ["no such file", "ValueError: a bug"]


def test_image_without_trusted_face_is_listed(
    job: Job, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubted = np.zeros(1, np.float32)
    monkeypatch.setattr(Landmarks, "face_confidence", property(lambda self: doubted[: len(self)]))
    names = (str(photos / "1.png"),)
    summary = ShardPredictor(replace(job, min_confidence=0.5))(0, Shard("files", names=names))
    assert (summary.images, summary.no_face, summary.unreadable) == (0, 1, 0)
    (row,) = rows(job, "rejected")
    assert row["kind"] == "no face"
    assert row["reason"] == "1 face discarded: confidence 0.00 is below 0.50 (--min-confidence)"


def test_shard_is_not_done_if_most_images_are_unreachable(
    job: Job, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "RETRY_SECONDS", ())
    names = tuple(f"memory://broken/{number}.jpg" for number in range(3))

    def unreachable(location: str, limit: int = 0) -> bytes:
        raise storage.UnreachableError(f"{location}: cannot be read (down)")

    monkeypatch.setattr("landmarks_fastai.batch_inference.shards.read_file", unreachable)
    summary = ShardPredictor(job)(0, Shard("files", names=names))
    assert summary.error == "memory://broken/0.jpg: cannot be read (down); so failed 3 of 3 images"
    assert not list(Path(job.out).rglob("*.parquet"))


def test_missing_archive_leaves_the_shard_undone(job: Job, tmp_path: Path) -> None:
    summary = ShardPredictor(job)(0, Shard("tar", archive=str(tmp_path / "a.tar")))
    assert summary.error == f"{tmp_path / 'a.tar'}: no such file"
    assert not list(Path(job.out).rglob("*.parquet"))


def test_damaged_archive_is_set_aside_after_its_images(job: Job, tmp_path: Path, photos: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in (1, 2, 3):
            tar.add(photos / f"{number}.png", f"{number}.png")
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 3])
    summary = ShardPredictor(job)(0, Shard("tar", archive=str(tmp_path / "a.tar")))
    assert summary.images >= 1
    assert summary.error == ""
    assert rows(job, "rejected")[-1]["kind"] == "damaged archive"


def test_stop_gives_the_shard_up(job: Job, photos: Path) -> None:
    names = tuple(str(photos / f"{number}.png") for number in (1, 2, 3))
    answers = iter([False, True])
    with pytest.raises(Stopped):
        ShardPredictor(job)(0, Shard("files", names=names), lambda: next(answers))
    assert [path for path in Path(job.out).rglob("*") if path.is_file()] == []
