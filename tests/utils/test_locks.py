"""Lock files: they exclude others until they are released, and leave nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from landmarks_fastai.utils.locks import acquire_lock, release_lock


def test_lock_excludes_others_until_it_is_released_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = acquire_lock(path)
    with pytest.raises(Timeout):
        FileLock(path, timeout=0).acquire()
    release_lock(lock)
    assert not list(tmp_path.iterdir())


def test_file_that_was_deleted_between_opening_and_locking_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, acquired = tmp_path / "lock", []
    acquire = FileLock.acquire

    def delete_then_acquire(self: FileLock) -> object:
        result = acquire(self)
        if not acquired:
            path.unlink()
        acquired.append(path)
        return result

    monkeypatch.setattr(FileLock, "acquire", delete_then_acquire)
    lock = acquire_lock(path)
    assert len(acquired) == 2
    assert path.is_file()
    release_lock(lock)


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        acquire_lock(tmp_path / "none" / "lock")
