"""Run folders: what is in them, their numbering, their lock, and preparing one for a run."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.run_marker import check_run_folder
from landmarks_fastai.training.run_folder import (
    LOCK_NAME,
    begin_run,
    check_available,
    foreign_entries,
    is_taken,
    lock_folder,
    next_run_folder,
)


def make_run(folder: Path) -> Path:
    """Create the files of a run with a fold, without content."""
    for name in (
        "run.json",
        "config.yaml",
        "model.onnx",
        "checkpoints/last.pt",
        "fold-1/run.json",
        "wandb/log",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


# --- what is in a folder -------------------------------------------------------------------------


def test_next_run_folder_appends_number_if_taken(tmp_path: Path) -> None:
    assert next_run_folder(tmp_path, "quick") == tmp_path / "quick"
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "config.yaml").touch()
    assert next_run_folder(tmp_path, "quick") == tmp_path / "quick-2"


def test_folder_with_only_ignored_files_is_available(tmp_path: Path) -> None:
    for name in ("lr_find.png", LOCK_NAME, ".DS_Store"):
        (tmp_path / name).touch()
    assert not is_taken(tmp_path)
    check_available(tmp_path, overwrite=False)


def test_file_in_place_of_folder_is_refused_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"photo\.jpg: is a file; choose another --out$"):
            check_available(tmp_path / "photo.jpg", overwrite)


def test_folder_that_is_not_a_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "beach.jpg").touch()
    with pytest.raises(UserError, match=r": not empty; choose another --out$"):
        check_available(tmp_path, overwrite=False)
    with pytest.raises(UserError, match=r": not a run folder \(run\.json is missing\), so --overwrite"):
        check_available(tmp_path, overwrite=True)


@pytest.mark.parametrize("folder", [Path("/"), Path("."), Path(".."), Path.home()])
def test_root_home_and_current_folder_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path / "inside")
    if not is_taken(folder):
        pytest.skip(f"{folder} is empty")
    with pytest.raises(UserError, match="not a run folder"):
        check_available(folder, overwrite=True)


@pytest.mark.parametrize(
    "name",
    ["beach.jpg", "notes/todo.txt", "checkpoints/beach.jpg", "fold-1/beach.jpg", "model.pkl/beach.jpg"],
)
def test_run_folder_with_foreign_file_is_not_overwritten(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    check_available(run, overwrite=True)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).touch()
    foreign = name if name.startswith(("checkpoints", "fold")) else name.partition("/")[0]
    with pytest.raises(UserError, match=f"the folder contains {foreign}; move that elsewhere"):
        check_available(run, overwrite=True)


def test_foreign_files_are_counted_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for number in range(1000):
        (run / f"{number:04}-{'x' * 200}.jpg").touch()
    with pytest.raises(UserError, match=r"0000-x+….*0002-x+….* and 997 more; move") as caught:
        check_available(run, overwrite=True)
    assert len(str(caught.value)) < 500 + len(str(run))


def test_links_and_temporary_files_of_a_run_are_not_foreign(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "beach.jpg").touch()
    (run / "fold-2").symlink_to(tmp_path / "elsewhere")
    (run / "samples.png").symlink_to(tmp_path / "elsewhere" / "beach.jpg")
    (run / ".model.12345.pkl").touch()
    assert list(foreign_entries(run)) == []
    (run / "pictures").symlink_to(tmp_path / "elsewhere")
    assert list(foreign_entries(run)) == [run / "pictures"]


# --- lock ----------------------------------------------------------------------------------------


def test_lock_folder_removes_new_empty_folder_and_lock(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK_NAME).is_file()
        assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert not list(tmp_path.iterdir())


def test_lock_folder_keeps_existing_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with lock_folder(Path()):
        assert (tmp_path / LOCK_NAME).is_file()
    assert tmp_path.is_dir()
    assert not list(tmp_path.iterdir())


def test_locked_folder_is_refused_and_stale_lock_is_not(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK_NAME):
        with pytest.raises(UserError, match="in use by another run"), lock_folder(tmp_path):
            pass
        assert (tmp_path / LOCK_NAME).exists()
    (tmp_path / LOCK_NAME).touch()  # of a killed process
    with lock_folder(tmp_path):
        pass
    assert not (tmp_path / LOCK_NAME).exists()


def increase(folder: Path, attempts: int) -> None:
    """Increase the number in a file under the lock of the folder, without any other protection."""
    done = 0
    while done < attempts:
        try:
            with lock_folder(folder):
                number = folder / "number"
                number.write_text(str(int(number.read_text()) + 1))
                done += 1
        except UserError:
            continue


def test_lock_folder_excludes_other_processes_although_its_file_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=increase, args=(tmp_path, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "300"


def test_lock_folder_deletes_temporary_files_of_killed_runs_only(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    (tmp_path / "checkpoints").mkdir()
    stale = [".model.{}.pkl", "checkpoints/.last.{}.pt", ".README.{}.md", ".model.{}.safetensors"]
    for name in stale:
        (tmp_path / name.format(killed.pid)).touch()
    (tmp_path / f".samples.{os.getpid()}.png").touch()  # of a killed process that had the ID of this one
    kept = {f".model.{os.getppid()}.onnx", f".holiday.{killed.pid}.jpg", ".config.yaml", ".model.x.pkl"}
    for name in kept:
        (tmp_path / name).touch()
    with lock_folder(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == kept | {"checkpoints"}
    assert not list((tmp_path / "checkpoints").iterdir())


# --- beginning a run -----------------------------------------------------------------------------


def test_begin_run_writes_marker_and_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"written by landmarks-fastai 0\.1"):
        check_run_folder(tmp_path)
    begin_run(tmp_path, TrainConfig(seed=7))
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "config.yaml"}
    assert load_config(str(tmp_path / "config.yaml")).seed == 7
    check_run_folder(tmp_path)
