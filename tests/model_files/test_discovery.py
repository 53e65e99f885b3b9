"""Finding models: run folders, folders of folds, released models, and the default model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files import discovery
from landmarks_fastai.model_files.discovery import (
    DefaultModel,
    available_models,
    default_models,
    resolve_model,
    resolve_models,
)
from landmarks_fastai.model_files.run_marker import write_run_marker
from landmarks_fastai.utils.files import write_json


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return the path of a folder of runs that does not exist yet."""
    return tmp_path / "runs"


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the released models with empty files, and return their paths."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("resnet34", "resnet18"):
        (folder / f"{name}.safetensors").touch()
    monkeypatch.setattr(discovery, "RELEASED_DIR", folder)
    return [folder / "resnet18.safetensors", folder / "resnet34.safetensors"]


@pytest.fixture
def no_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the released models."""
    monkeypatch.setattr(discovery, "RELEASED_DIR", tmp_path / "no-models")


def add_run(folder: Path, source: str = "kaggle", age: int = 0) -> Path:
    """Create a finished run with an empty model, `age` seconds old, and return the path of the model."""
    path = folder / "model.safetensors"
    folder.mkdir(parents=True)
    path.touch()
    (folder / "config.yaml").touch()
    write_run_marker(folder)
    write_json(folder / "data.json", {"source": source})
    os.utime(path, (1000 - age, 1000 - age))
    return path


# --- resolving paths -----------------------------------------------------------------------------


def test_run_folder_resolves_to_its_model(model_path: Path, tmp_path: Path) -> None:
    assert resolve_model(model_path.parent) == model_path
    with pytest.raises(UserError, match=r"no model\.safetensors in this folder"):
        resolve_model(tmp_path)


def test_released_model_resolves_from_name_without_suffix(released: list[Path]) -> None:
    assert resolve_model("resnet34") == released[1]
    with pytest.raises(
        UserError, match=r"resnet50: no such model file; .* released model: resnet18, resnet34"
    ):
        resolve_model("resnet50")


def test_folder_of_folds_resolves_to_all_folds_in_order(runs: Path) -> None:
    second, tenth, first = (add_run(runs / "folds" / f"fold-{number}") for number in (2, 10, 1))
    single = add_run(runs / "single")
    (runs / "folds" / "fold-notes").mkdir()
    folds = [first, second, tenth]
    assert resolve_models([runs / "folds"]) == folds
    assert resolve_models([single.parent, str(runs / "folds")]) == [single, *folds]
    with pytest.raises(UserError, match=r"fold-2.*model\.safetensors: given twice"):
        resolve_models([runs / "folds", second])
    second.unlink()
    with pytest.raises(UserError, match=r"fold-2: no model\.safetensors"):
        resolve_models([runs / "folds"])


def test_run_folder_of_version_0_1_is_refused_in_one_line(runs: Path) -> None:
    path = add_run(runs / "old")
    (runs / "old" / "run.json").unlink()  # version 0.1 wrote none
    with pytest.raises(UserError, match=r"old: written by landmarks-fastai 0\.1, .*; train again") as caught:
        resolve_model(path.parent)
    assert "\n" not in str(caught.value)


def test_run_folder_of_newer_version_is_refused(runs: Path) -> None:
    path = add_run(runs / "new")
    write_json(runs / "new" / "run.json", {"format": 3})
    with pytest.raises(UserError, match=r"new: has format 3, .*; update landmarks-fastai"):
        resolve_model(path.parent)


# --- the default model ---------------------------------------------------------------------------


def test_default_is_newest_run_on_real_data(runs: Path, released: list[Path]) -> None:
    for age, name in enumerate(("b", "c", "a")):
        add_run(runs / name, age=age)
    (runs / "unfinished").mkdir()
    expected = DefaultModel([runs / "b" / "model.safetensors"], f"the newest run in {runs}")
    assert default_models(runs) == expected


def test_default_ignores_run_of_version_0_1_and_says_so(runs: Path, released: list[Path]) -> None:
    add_run(runs / "old")
    (runs / "old" / "run.json").unlink()  # version 0.1 wrote none
    ignored = f"{runs / 'old'} is ignored, because another version wrote it"
    reason = f"the released model, because no run in {runs} has finished; {ignored}"
    assert default_models(runs) == DefaultModel(released[:1], reason)
    new = add_run(runs / "new", age=60)
    assert default_models(runs) == DefaultModel([new], f"the newest run in {runs}; {ignored}")
    assert available_models(runs) == [new, *released]


def test_default_is_not_a_run_on_synthetic_data(runs: Path, released: list[Path]) -> None:
    synthetic = add_run(runs / "synthetic", source="synthetic")
    reason = f"the released model, because no run in {runs} was trained on real data"
    assert default_models(runs) == DefaultModel(released[:1], reason)
    real = add_run(runs / "real", source="faces.zip", age=60)
    assert default_models(runs) == DefaultModel([real], f"the newest run in {runs}")
    assert available_models(runs) == [real, synthetic, *released]


def test_default_without_runs_is_released_resnet18(runs: Path, released: list[Path]) -> None:
    expected = DefaultModel(released[:1], f"the released model, because no run in {runs} has finished")
    assert default_models(runs) == expected
    runs.mkdir()
    assert default_models(runs) == expected
    assert available_models(runs) == released


def test_default_without_released_models_is_run_on_synthetic_data(runs: Path, no_released: None) -> None:
    path = add_run(runs / "synthetic", source="synthetic")
    assert default_models(runs) == DefaultModel([path], f"the newest run in {runs}")


@pytest.mark.parametrize("choose", [default_models, available_models])
def test_default_without_any_model_is_refused(runs: Path, no_released: None, choose) -> None:
    with pytest.raises(UserError, match="no trained model found; train one with: landmarks-fastai train"):
        choose(runs)


def test_default_of_cross_validation_is_all_folds(runs: Path, released: list[Path]) -> None:
    folds = [add_run(runs / "folds" / f"fold-{number}") for number in (1, 2, 10)]
    single = add_run(runs / "single", age=50)
    assert default_models(runs).paths == folds
    assert available_models(runs) == [*folds, single, *released]
    for path in folds:
        os.utime(path, (900, 900))
    assert default_models(runs).paths == [single]


def test_default_of_unfinished_cross_validation_is_its_finished_folds(
    runs: Path, released: list[Path]
) -> None:
    folds = [add_run(runs / "folds" / f"fold-{number}") for number in (1, 2, 3)]
    write_json(runs / "folds" / "folds.json", {"folds": 5, "done": 2})
    (runs / "folds" / "fold-4").mkdir()  # just begun
    ignored = f"{folds[2].parent} is ignored, because its training has not finished"
    assert default_models(runs) == DefaultModel(folds[:2], f"the newest run in {runs}; {ignored}")
    assert available_models(runs) == [*folds[:2], *released]
    write_json(runs / "folds" / "folds.json", {"folds": 5, "done": 0})
    assert default_models(runs).paths == released[:1]
    write_json(runs / "folds" / "folds.json", {"folds": 3, "done": 3})
    assert default_models(runs).paths == folds


def test_default_leaves_out_fold_without_model(runs: Path, released: list[Path]) -> None:
    first, second = (add_run(runs / "folds" / f"fold-{number}") for number in (1, 2))
    first.unlink()
    assert default_models(runs) == DefaultModel([second], f"the newest run in {runs}")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "2"}', '{"format": null}', "[" * 9999])
def test_default_calls_run_with_damaged_marker_damaged(
    runs: Path, released: list[Path], content: str
) -> None:
    run = add_run(runs / "a").parent
    (run / "run.json").write_text(content)
    why = f"{run} is ignored, because its run.json is damaged"
    assert default_models(runs).reason.endswith(f"has finished; {why}")
    with pytest.raises(UserError, match=r"run\.json") as caught:
        resolve_model(run)
    assert "0.1" not in str(caught.value)
    assert len(str(caught.value)) < len(str(run)) + 150


def test_default_names_three_ignored_runs_and_counts_the_others(runs: Path, released: list[Path]) -> None:
    for number in range(5):
        write_json(add_run(runs / str(number)).parent / "run.json", {"format": 3})
    reason = default_models(runs).reason
    assert reason.count("is ignored, because another version wrote it") == 3
    assert reason.endswith("; so are 2 more folders")


def test_default_of_runs_named_like_folds_is_the_newest(runs: Path, released: list[Path]) -> None:
    newest, _ = (add_run(runs / f"fold-{number}", age=number) for number in (1, 2))
    assert default_models(runs).paths == [newest]


def test_default_of_run_named_like_a_fold_is_that_run(runs: Path, released: list[Path]) -> None:
    path = add_run(runs / "fold-7")
    assert default_models(runs).paths == [path]


def test_available_models_begin_with_newest_run(runs: Path, released: list[Path]) -> None:
    paths = [add_run(runs / name, age=age) for age, name in enumerate("ba")]
    assert available_models(runs) == [*paths, *released]


def test_default_in_workspace_with_synthetic_run_is_released_model(
    trained_workspace: Path, released: list[Path]
) -> None:
    assert default_models(trained_workspace / "runs").paths == released[:1]
    quick = trained_workspace / "runs" / "quick" / "model.safetensors"
    assert available_models(trained_workspace / "runs") == [released[0], quick, released[1]]
