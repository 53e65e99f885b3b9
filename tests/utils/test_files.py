"""Atomic writes: what remains of a failed one, and its message."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.small_disk import small_disk

from landmarks_fastai.errors import UserError, WriteError
from landmarks_fastai.utils.files import atomic_write, partial_path, remove_stale_partials, write_text


def test_failed_write_keeps_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(partial: Path) -> None:
        partial.write_text("new")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), atomic_write(path) as partial:
        fail(partial)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def save_with_torch_to_path(path: Path) -> None:
    with atomic_write(path) as partial:
        torch.save(torch.zeros(1 << 20), partial)


def save_with_torch_to_file(path: Path) -> None:
    with atomic_write(path) as partial, partial.open("wb") as file:
        torch.save(torch.zeros(1 << 20), file)


def save_text(path: Path) -> None:
    write_text(path, "x" * (1 << 21))


@pytest.mark.parametrize("save", [save_with_torch_to_path, save_with_torch_to_file, save_text])
def test_full_disk_is_one_line_and_keeps_earlier_file(save: Callable[[Path], None], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        path = disk / "model.pkl"
        path.write_text("old")
        with pytest.raises(WriteError) as caught:
            save(path)
        assert str(caught.value) == (
            f"{path}: cannot be written (No space left on device); free some space or choose another location"
        )
        assert (caught.value.path, caught.value.exit_code) == (path, 1)
        assert [file.name for file in disk.iterdir()] == ["model.pkl"]
        assert path.read_text() == "old"


def test_exception_of_a_library_that_hides_full_disk_is_recognized(tmp_path: Path) -> None:
    def save(reason: int) -> None:
        with atomic_write(tmp_path / "a.pt"):
            try:
                raise OSError(reason, os.strerror(reason))
            except OSError:
                raise RuntimeError("unexpected pos 8001024 vs 8000976")  # noqa: B904 - as libraries do

    with pytest.raises(WriteError, match=r"a\.pt: cannot be written \(No space left on device\)"):
        save(errno.ENOSPC)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        save(errno.EINVAL)


def test_folder_in_place_of_file_is_user_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match="a folder where the file is needed"):
        write_text(tmp_path / "a.txt", "")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "b.txt"):
        raise ZeroDivisionError


@pytest.mark.parametrize("temporary", ["partial_path(path)", "partial_path(partial_path(path))"])
@pytest.mark.parametrize("name", ["model.pkl", "README", "landmarks.tar.gz", "a.1.csv"])
def test_temporary_file_of_killed_process_is_removed(name: str, temporary: str, tmp_path: Path) -> None:
    killed = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys; from pathlib import Path\n"
            "from landmarks_fastai.utils.files import partial_path\n"
            f"path = Path(sys.argv[1]); {temporary}.touch(); os._exit(9)",
            str(tmp_path / name),
        ]
    )
    assert killed.wait() == 9
    (stale,) = tmp_path.iterdir()
    running = tmp_path / stale.name.replace(str(killed.pid), str(os.getppid()))
    running.touch()
    assert remove_stale_partials(tmp_path, {"other"}) == []
    assert remove_stale_partials(tmp_path, {name}) == [stale]
    assert list(tmp_path.iterdir()) == [running]


def test_temporary_file_with_absurd_process_id_is_removed(tmp_path: Path) -> None:
    path = tmp_path / ".a.9999999999.txt"
    path.touch()
    assert remove_stale_partials(tmp_path, {"a.txt"}) == [path]
    assert remove_stale_partials(tmp_path / "missing", {"a.txt"}) == []
    assert partial_path(tmp_path / "a.txt").name == f".a.{os.getpid()}.txt"
