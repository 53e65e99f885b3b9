"""Replacing an earlier run: one of the two runs is always complete, wherever the process is killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.training.run_folder import ASIDE, last_checkpoint, lock_folder
from landmarks_fastai.training.run_replacement import delete_run, new_run, settle_replacement

OLD = {"run.json": "{}", "config.yaml": "seed: 1", "checkpoints/last.pt": "old", "fold-1/run.json": "{}"}


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read_files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fail_after_writing(folder: Path, files: dict[str, str]) -> None:
    write_files(folder, files)
    raise ZeroDivisionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an earlier run."""
    write_files(tmp_path / "run", OLD)
    return tmp_path / "run"


class StopError(BaseException):
    """Stands for the death of the process."""


def test_earlier_run_is_kept_until_first_checkpoint_and_then_deleted(folder: Path) -> None:
    notes: list[str] = []
    with new_run(folder, TrainConfig(seed=2), True, notes.append):
        assert read_files(folder / ASIDE) == OLD
        assert settle_replacement(folder) == "restored"  # what the next process would do now
        assert read_files(folder) == OLD
    assert read_files(folder) == OLD
    with new_run(folder, TrainConfig(seed=2), True, notes.append):
        write_files(folder, {"checkpoints/last.pt": "new"})
        assert settle_replacement(folder) == "deleted"
        write_files(folder, {"model.onnx": "new"})
    files = read_files(folder)
    assert set(files) == {"run.json", "config.yaml", "checkpoints/last.pt", "model.onnx"}
    assert (files["model.onnx"], notes) == ("new", [])


def test_checkpoint_of_a_fold_deletes_earlier_run(folder: Path) -> None:
    with new_run(folder, TrainConfig(), True, print):
        write_files(folder, {"fold-1/checkpoints/last.pt": "new"})
    assert set(read_files(folder)) == {"run.json", "config.yaml", "fold-1/checkpoints/last.pt"}


def test_failed_run_without_checkpoint_puts_earlier_run_back(folder: Path) -> None:
    notes: list[str] = []
    files = {"history.csv": "new", "checkpoints/best.pt": "new", "tensorboard/log": "new"}
    with pytest.raises(ZeroDivisionError), new_run(folder, TrainConfig(seed=2), True, notes.append):
        fail_after_writing(folder, files)
    assert read_files(folder) == OLD
    assert notes == [f"{folder}: the earlier run is kept, because the new one has no checkpoint"]


def test_interrupt_without_checkpoint_is_an_error_if_there_was_an_earlier_run(folder: Path) -> None:
    interrupted = pytest.raises(RunError, match=r"^interrupted before the first checkpoint$")
    with interrupted, new_run(folder, TrainConfig(), True, lambda _: None):
        raise KeyboardInterrupt
    assert read_files(folder) == OLD
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt), new_run(folder, TrainConfig(), True, print):
        raise KeyboardInterrupt
    assert set(read_files(folder)) == {"run.json", "config.yaml"}


def replace_and_stop(folder: Path, checkpoint: bool) -> None:
    """Replace the run in a folder; without a checkpoint, the new run fails."""
    try:
        with new_run(folder, TrainConfig(seed=2), True, lambda _: None):
            write_files(folder, {"history.csv": "new", "checkpoints/best.pt": "new"})
            if not checkpoint:
                raise ZeroDivisionError
            write_files(folder, {"checkpoints/last.pt": "new"})
    except ZeroDivisionError:
        pass


@pytest.mark.parametrize("checkpoint", [True, False])
def test_process_killed_at_any_step_leaves_one_complete_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: bool
) -> None:
    killed, step = True, 0
    while killed:
        folder = tmp_path / f"run-{step}"
        write_files(folder, OLD)
        with monkeypatch.context() as patch:
            killed = _kill_at(step, patch, lambda folder=folder: replace_and_stop(folder, checkpoint))
        with lock_folder(folder):  # as the next process does
            settle_replacement(folder)
        files = read_files(folder)
        if files["checkpoints/last.pt"] == "old":
            assert files == OLD
        else:
            assert set(files) >= {"run.json", "config.yaml", "history.csv", "checkpoints/last.pt"}
            assert not set(files) & {"fold-1/run.json"}
        assert not (folder / ASIDE).exists()
        step += 1
    assert step > 10


def _kill_at(step: int, patch: pytest.MonkeyPatch, run: Callable[[], None]) -> bool:
    """Run until the file system is changed for the given time; return False if it is changed less often.

    Every later change fails, too, because a killed process executes no cleanup.
    """
    changes = 0
    for name in ("replace", "mkdir", "rmdir", "unlink"):
        change = getattr(os, name)

        def kill(*arguments: object, change: Callable[..., object] = change, **options: object) -> object:
            nonlocal changes
            changes += 1
            if changes > step:
                raise StopError
            return change(*arguments, **options)

        patch.setattr(os, name, kill)
    try:
        run()
    except StopError:
        return True
    return False


def test_symbolic_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    photos = {"photos/beach.jpg": "beach", "photos/last.pt": "mine"}
    write_files(tmp_path, photos)
    (folder / "tensorboard").symlink_to(tmp_path / "photos")
    (folder / "model.onnx").symlink_to(tmp_path / "photos" / "beach.jpg")
    (folder / "fold-2").symlink_to(tmp_path / "photos")
    (tmp_path / "link").symlink_to(folder)
    with new_run(tmp_path / "link", TrainConfig(), True, print):
        write_files(folder, {"checkpoints/last.pt": "new"})
    assert (tmp_path / "link").is_symlink()
    assert set(read_files(folder)) == {"run.json", "config.yaml", "checkpoints/last.pt"}
    assert read_files(tmp_path / "photos") == {"beach.jpg": "beach", "last.pt": "mine"}


def test_foreign_file_that_appeared_during_failed_run_is_kept(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_run(folder, TrainConfig(), True, lambda _: None):
        fail_after_writing(folder, {"beach.jpg": "beach"})
    assert read_files(folder) == {**OLD, "beach.jpg": "beach"}


def test_delete_run_refuses_foreign_files(folder: Path) -> None:
    write_files(folder, {"beach.jpg": "beach"})
    with pytest.raises(UserError, match="contains beach"):
        delete_run(folder)
    assert last_checkpoint(folder).is_file()
    (folder / "beach.jpg").unlink()
    delete_run(folder)
    assert not list(folder.iterdir())
    delete_run(folder.with_name("missing"))
