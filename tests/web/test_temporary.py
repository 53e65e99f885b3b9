"""The temporary folder of a server."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from landmarks_fastai.web.temporary import temporary_folder


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let temporary folders be created in a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make_old(folder: Path) -> None:
    os.utime(folder, (0, 0))


def test_folder_is_empty_and_deleted_at_the_end(parent: Path) -> None:
    with temporary_folder() as folder:
        assert list(folder.iterdir()) == []
        (folder / "a").write_text("x")
    assert list(parent.iterdir()) == []


def test_folder_of_a_killed_server_is_deleted_and_others_are_kept(parent: Path) -> None:
    killed = parent / "landmarks-fastai-page-1"
    (killed / "files").mkdir(parents=True)
    (killed / "files" / "face.png").write_text("x")
    pictures = parent / "pictures"
    pictures.mkdir()
    (parent / "landmarks-fastai-page-2").symlink_to(pictures, target_is_directory=True)
    (parent / "landmarks-fastai-page-3").mkdir()  # of a server that is starting
    (parent / "landmarks-fastai-page-4").write_text("a file")
    with temporary_folder() as running:
        for folder in (killed, running.parent, pictures):
            make_old(folder)
        with temporary_folder():
            assert not killed.exists()
            assert running.is_dir()
    names = {path.name for path in parent.iterdir()}
    assert names == {"pictures", *(f"landmarks-fastai-page-{number}" for number in (2, 3, 4))}
