"""Paths and URLs under one name, limits of reading, and results that appear only complete."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from landmarks_fastai.batch_inference import storage
from landmarks_fastai.errors import RunError, UserError


@pytest.mark.parametrize("location", ["s3://b/a.jpg", "memory://a", "https://h/a.jpg?x=1", "gs://b"])
def test_url_is_recognized_and_survives_path(location: str) -> None:
    assert storage.is_url(location)
    assert storage.location_of(Path(location)) == location


@pytest.mark.parametrize("location", ["a.jpg", "/a/b.jpg", "C:/a.jpg", "a:b/c.jpg", "C:\\a"])
def test_path_is_no_url(location: str) -> None:
    assert not storage.is_url(location)
    assert storage.location_of(location) == location


@pytest.mark.parametrize(
    ("location", "suffix"),
    [
        ("a/b.JPG", ".jpg"),
        ("a.tar.gz", ".tar.gz"),
        ("photo.2024.jpg", ".jpg"),
        ("https://h/x/a.tar?key=v.zip", ".tar"),
        ("s3://b/folder.d/name", ""),
    ],
)
def test_suffix(location: str, suffix: str) -> None:
    assert storage.suffix(location) == suffix


def test_unknown_protocol_is_reported_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^xyz://a: cannot be opened \(.*\); use s3://"):
        storage.filesystem("xyz://a")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(
        UserError, match=r"^s3://b/a: Install s3fs .*: pip install 'landmarks-fastai\[remote\]'$"
    ):
        storage.filesystem("s3://b/a")


def test_read_file_refuses_large_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    assert storage.read_file(str(tmp_path / "a"), limit=100) == bytes(100)
    with pytest.raises(UserError, match="more than"):
        storage.read_file(str(tmp_path / "a"), limit=99)
    with pytest.raises(UserError, match=r"no such file$"):
        storage.read_file(str(tmp_path / "b"))


def test_remote_read_is_repeated_until_it_succeeds(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, failures = f"{memory_url}/a", [OSError("reset"), ValueError("of a library")]
    fs, path = fsspec.url_to_fs(url)
    fs.pipe_file(path, b"content")
    opened, waited = type(fs).open, []
    monkeypatch.setattr(storage.time, "sleep", waited.append)

    def unreliable(*args: object, **options: object) -> object:
        if failures:
            raise failures.pop()
        return opened(*args, **options)

    monkeypatch.setattr(type(fs), "open", unreliable)
    assert storage.read_file(url) == b"content"
    assert waited == list(storage.RETRY_SECONDS[:2])
    failures += [OSError("reset")] * 9
    with pytest.raises(storage.UnreachableError, match=r"/a: cannot be read \(reset\)$"):
        storage.read_file(url)


def test_written_object_appears_when_it_is_complete(memory_url: str) -> None:
    target = f"{memory_url}/folder/part.parquet"
    with storage.written(target) as partial:
        partial.write_bytes(b"half")
        assert storage.names_in(f"{memory_url}/folder") == []
        partial.write_bytes(b"whole")
    assert storage.names_in(f"{memory_url}/folder") == ["part.parquet"]
    assert storage.read_file(target) == b"whole"
    with pytest.raises(RuntimeError), storage.written(f"{memory_url}/folder/other") as partial:
        raise RuntimeError
    assert storage.names_in(f"{memory_url}/folder") == ["part.parquet"]


def test_object_that_cannot_be_written_is_reported(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, _ = fsspec.url_to_fs(memory_url)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no access")

    monkeypatch.setattr(type(fs), "put_file", refuse)
    with (
        pytest.raises(RunError, match=r"/a: cannot be written \(no access\)"),
        storage.written(f"{memory_url}/a") as partial,
    ):
        partial.write_bytes(b"")
