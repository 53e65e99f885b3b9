"""Which files a source stands for, and which shards they form."""

from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import pytest

from landmarks_fastai.batch_inference.shards import Shard
from landmarks_fastai.batch_inference.sources import divide, is_many, list_files, source_kind
from landmarks_fastai.errors import UserError


def listed(source: str | Path) -> tuple[list[str], list[str]]:
    """Return the files of a source and the notes about it."""
    notes: list[str] = []
    return list(list_files(str(source), notes.append)), notes


@pytest.mark.parametrize("source", ["a.tar", "a.tgz", "b/a.zip", "a.TXT", "s3://b/photos", "photos/*.tar"])
def test_archive_list_or_url_is_for_shards(source: str) -> None:
    assert is_many(source)


@pytest.mark.parametrize("source", ["a.jpg", "photos", "photos/*.jpg", "a.gz"])
def test_image_or_folder_is_not_for_shards(source: str) -> None:
    assert not is_many(source)


def test_folder_stands_for_images_and_archives_of_all_subfolders_in_natural_order(photos: Path) -> None:
    for name in ("10.png", ".hidden.png", "a.tar", "notes.md", "more/b.zip"):
        (photos / name).write_bytes(b"")
    (photos / ".cache").mkdir()
    (photos / ".cache" / "x.png").write_bytes(b"")
    files, notes = listed(photos)
    names = [
        "1.png",
        "2.png",
        "3.png",
        "10.png",
        "a.tar",
        "bad.jpg",
        "more/4.png",
        "more/5.png",
        "more/b.zip",
    ]
    assert files == [str(photos / name) for name in names]
    assert notes == [f"{photos}: 1 file skipped: .md (1)"]


def test_remote_folder_and_pattern_give_urls(memory_url: str) -> None:
    fs, path = fsspec.url_to_fs(memory_url)
    for name in ("b/2.jpg", "b/10.jpg", "1.jpg", "s-1.tar", "s-0.tar"):
        fs.pipe_file(f"{path}/{name}", b"x")
    root = memory_url.replace("memory://", "memory:///")
    files, _ = listed(memory_url)
    assert files == [f"{root}/{name}" for name in ("1.jpg", "s-0.tar", "s-1.tar", "b/2.jpg", "b/10.jpg")]
    files, _ = listed(f"{memory_url}/s-*.tar")
    assert files == [f"{root}/s-0.tar", f"{root}/s-1.tar"]


def test_list_has_paths_relative_to_it_and_urls(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeffa.jpg\n\n s3://b/c.jpg \n/x/d.tar\n")
    files, _ = listed(tmp_path / "list.txt")
    assert files == [str(tmp_path / "a.jpg"), "s3://b/c.jpg", "/x/d.tar"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a.jpg\n\xff\n", "not UTF-8"), (b"a" * 70_000, "line 1: too long"), (b"\n", "no images")],
)
def test_unusable_list_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        listed(tmp_path / "list.txt")


def test_missing_and_empty_sources_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder$"):
        source_kind(str(tmp_path / "none"))
    with pytest.raises(UserError, match="no images or archives"):
        listed(tmp_path)


def test_files_form_shards_of_equal_size_and_archives_their_own(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("1.jpg", "x.txt", "2.jpg", "3.jpg", "__MACOSX/._3.jpg"):
            archive.writestr(name, b"")
    (tmp_path / "damaged.zip").write_bytes(b"PK")
    place = str(tmp_path / "a.zip")
    files = ["1.jpg", "2.jpg", "s.tar", "3.jpg", place, str(tmp_path / "damaged.zip")]
    assert list(divide(files, 2)) == [
        Shard("files", names=("1.jpg", "2.jpg")),
        Shard("tar", archive="s.tar"),
        Shard("zip", archive=place, start=0, count=2),
        Shard("zip", archive=place, start=2, count=1),
        Shard("zip", archive=str(tmp_path / "damaged.zip")),
        Shard("files", names=("3.jpg",)),
    ]


def test_shards_are_taken_one_by_one() -> None:
    taken = []

    def endless() -> object:
        number = 0
        while True:
            taken.append(number)
            yield f"{number}.jpg"
            number += 1

    shards = divide(endless(), 10)
    assert next(shards).names[-1] == "9.jpg"
    assert len(taken) == 10
