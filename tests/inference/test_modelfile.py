"""A model file opens as it was saved, and every other file is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference import modelfile
from landmarks_fastai.inference.modelfile import (
    HEADER_KEY,
    ModelHeader,
    default_models,
    find_models,
    known_models,
    newest_models,
    open_model,
    released_models,
    resolve_model,
    resolve_models,
    save_model,
)
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schema import IBUG68, KAGGLE15

TINY = {"a": torch.zeros(3)}


def test_header_survives_its_json(header: ModelHeader) -> None:
    again = ModelHeader.from_dict(json.loads(json.dumps(header.to_dict())), Path("m"))
    assert again == header
    assert again.landmarks == KAGGLE15
    assert header.to_dict()["schema"] == KAGGLE15.to_dict()
    assert header.model_copy(update={"landmarks": IBUG68}).to_dict()["schema"] == IBUG68.to_dict()


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"std": [1, 1, 0]}, {"mean": [0.5]}, {"colour": 1}, {"scale_factor": 0}]
)
def test_header_checks_its_values(header: ModelHeader, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelHeader.model_validate({**header.to_dict(), **wrong})


def test_a_header_from_before_the_scale_factor_counts_scales_once(header: ModelHeader) -> None:
    entries = header.to_dict()
    del entries["scale_factor"]
    assert ModelHeader.from_dict(entries, Path("m")).scale_factor == 1


def test_a_saved_model_opens_the_same(model_path: Path, header: ModelHeader, network: nn.Module) -> None:
    model = open_model(model_path)
    assert model.header == header
    assert model.network is not None
    assert not model.network.training
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.network(image), network(image))


def test_a_run_folder_means_its_model(model_path: Path, tmp_path: Path) -> None:
    assert resolve_model(model_path.parent) == model_path
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        resolve_model(tmp_path)


def test_newest_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="landmarks-fastai train"):
        newest_models(tmp_path / "runs")
    for age, name in enumerate(("b", "c", "a")):
        path = tmp_path / "runs" / name / "model.safetensors"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert newest_models(tmp_path / "runs") == [tmp_path / "runs" / "b" / "model.safetensors"]


def put_models(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name / "model.safetensors" for name in names]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.touch()
    return paths


def test_a_folder_of_folds_means_all_of_them(tmp_path: Path) -> None:
    numbers = (2, 10, 1)
    second, tenth, first = put_models(tmp_path / "runs" / "folds", *(f"fold-{n}" for n in numbers))
    (alone,) = put_models(tmp_path / "runs", "alone")
    (tmp_path / "runs" / "folds" / "fold-notes").mkdir()
    folds = [first, second, tenth]  # in the order of their numbers
    assert resolve_models([tmp_path / "runs" / "folds"]) == folds
    assert resolve_models([alone.parent, str(tmp_path / "runs" / "folds")]) == [alone, *folds]
    os.utime(alone, (1000, 1000))
    assert newest_models(tmp_path / "runs") == folds
    assert set(find_models(tmp_path / "runs")) == {alone, *folds}
    for path in folds:
        os.utime(path, (900, 900))
    assert newest_models(tmp_path / "runs") == [alone]
    # a run that is only called like a fold is itself
    (odd,) = put_models(tmp_path / "runs", "fold-7")
    assert newest_models(tmp_path / "runs") == [odd]
    with pytest.raises(UserError, match=r"fold-2.*model\.safetensors: named twice"):
        resolve_models([tmp_path / "runs" / "folds", second])
    second.unlink()
    with pytest.raises(UserError, match=r"fold-2: no model\.safetensors"):
        resolve_models([tmp_path / "runs" / "folds"])


def test_nothing_half_written_on_a_full_disk(tmp_path: Path, header: ModelHeader) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, TINY, header)
    before = path.read_bytes()
    # a limit on the size of files makes the very write fail that a full disk would
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RunError, match=r"model\.safetensors: can't be written \(File too large"):
            save_model(path, {"a": torch.zeros(100_000)}, header)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_who_may_read_a_model_is_what_the_umask_says(tmp_path: Path, header: ModelHeader) -> None:
    path, before = tmp_path / "model.safetensors", os.umask(0o022)
    try:
        save_model(path, TINY, header)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_tied_weights_are_saved(tmp_path: Path, header: ModelHeader) -> None:
    shared = torch.arange(6.0).view(2, 3)
    save_model(tmp_path / "m.safetensors", {"a": shared, "b": shared.t()}, header)
    assert torch.equal(load_file(tmp_path / "m.safetensors")["b"], shared.t())


def refused(path: Path, said: str, **options: Any) -> None:
    with pytest.raises(UserError, match=said) as caught:
        open_model(path, **options)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "m.pkl"])
def test_files_that_are_no_models(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    refused(path, "no such model file", trust_pickle=True)
    path.write_bytes(b"")
    refused(path, "0 bytes", trust_pickle=True)
    path.write_bytes(b"this is text, and long enough to look for a header in it\n" * 10)
    refused(path, "cut off", trust_pickle=True)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m"])
def test_files_of_other_programs_by_name(tmp_path: Path, name: str) -> None:
    torch.save(TINY, tmp_path / name)
    refused(tmp_path / name, "not a model of landmarks-fastai")


def test_a_model_that_is_cut_off(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(model_path.read_bytes()[:1_000_000])
    refused(tmp_path / "m.safetensors", "cut off")


def test_a_foreign_safetensors(tmp_path: Path) -> None:
    save_file(TINY, tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "another program")


def without_std(entries: dict[str, Any]) -> None:
    del entries["std"]


def unnamed_pair(entries: dict[str, Any]) -> None:
    entries["schema"]["flip_pairs"] = [["nose_tip", "chin"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entries: entries.update(format=2, later="field"), "format 2.*update landmarks-fastai"),
        (lambda entries: entries.update(arch="resnet19"), "resnet19"),
        (without_std, "damaged: std"),
        (unnamed_pair, "'chin' is not one of its points"),
        (lambda entries: entries["head"].update(hidden=17), "weights don't fit the header: 1"),
    ],
)
def test_headers_that_do_not_fit(
    tmp_path: Path, header: ModelHeader, network: nn.Module, change: Callable[[Any], None], said: str
) -> None:
    entries = header.to_dict()
    change(entries)
    save_file(network.state_dict(), tmp_path / "m.safetensors", metadata={HEADER_KEY: json.dumps(entries)})
    refused(tmp_path / "m.safetensors", said)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_headers_that_are_no_json_object(tmp_path: Path, text: str) -> None:
    save_file(TINY, tmp_path / "m.safetensors", metadata={HEADER_KEY: text})
    refused(tmp_path / "m.safetensors", "header is damaged")


def test_weights_that_are_missing_or_left_over(
    tmp_path: Path, header: ModelHeader, network: nn.Module
) -> None:
    weights = network.state_dict()
    save_model(tmp_path / "m.safetensors", {**weights, "extra": torch.zeros(1)}, header)
    refused(tmp_path / "m.safetensors", r"extra is \(1,\) and resnet18 needs missing")
    del weights["0.0.weight"]
    save_model(tmp_path / "m.safetensors", weights, header)
    refused(tmp_path / "m.safetensors", r"0\.0\.weight is missing")


class Touch:
    """What a hostile pickle does: run code when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_a_pickle_is_not_opened_without_trust(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    refused(tmp_path / "model.pkl", "can run any code.*--trust-pickle")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore")  # fastai's own, on import and export
def test_a_trusted_pickle_is_opened(tmp_path: Path, header: ModelHeader, network: nn.Module) -> None:
    from fastai.basics import Datasets, noop
    from fastai.learner import Learner

    loaders = Datasets([0], [[noop]]).dataloaders(bs=1)
    learner = Learner(loaders, network, loss_func=nn.L1Loss(), path=tmp_path)
    learner.export("foreign.pkl")
    refused(tmp_path / "foreign.pkl", "another program", trust_pickle=True)
    learner.header = header.to_dict()
    learner.export("model.pkl")
    model = open_model(tmp_path / "model.pkl", trust_pickle=True)
    assert model.header == header
    assert model.network is not None
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        np.testing.assert_array_equal(model.network(image), network(image))


def test_where_nothing_was_trained_the_released_model_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelfile, "RELEASED", tmp_path / "models")
    for choose in (default_models, known_models):
        with pytest.raises(UserError, match="landmarks-fastai train"):
            choose(tmp_path / "runs")
    (tmp_path / "models").mkdir()
    for name in ("resnet34", "resnet18"):
        (tmp_path / "models" / f"{name}.safetensors").touch()
    assert default_models(tmp_path / "runs") == [tmp_path / "models" / "resnet18.safetensors"]
    released = [tmp_path / "models" / f"{name}.safetensors" for name in ("resnet18", "resnet34")]
    (tmp_path / "runs").mkdir()  # nothing was trained in it yet
    assert known_models(tmp_path / "runs") == released
    trained = put_models(tmp_path / "runs", "mine")
    assert default_models(tmp_path / "runs") == trained
    assert known_models(tmp_path / "runs") == [*trained, *released]


@pytest.mark.parametrize("path", released_models(), ids=lambda path: path.stem)
def test_a_released_model_opens_and_tells_nobody_of_a_machine(path: Path, faces: FaceTable) -> None:
    assert path.stat().st_size < 50e6
    predictor = Predictor.open(path, "cpu")
    assert "/" not in predictor.header.recipe["data"]["source"]
    assert "/" not in (predictor.header.recipe["model"].get("start") or "")
    found = predictor.predict_crops(faces.images)
    assert np.isfinite(found.points).all()
    assert np.isfinite(found.confidence).all()
    # drawn faces are nothing that it was trained on, and still it finds about where their points are
    assert np.nanmedian(np.abs(found.points - faces.points)) < 6
