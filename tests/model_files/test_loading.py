"""Opening model files: a model opens as it was saved, and every other file is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.discovery import released_models
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model

WEIGHTS = {"a": torch.zeros(3)}


def check_refused(path: Path, message: str, **options: Any) -> None:
    """Check that a file is refused in one line that names it."""
    with pytest.raises(UserError, match=message) as caught:
        open_model(path, **options)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_saved_model_opens_with_header_and_weights(
    model_path: Path, header: ModelHeader, network: nn.Module
) -> None:
    model = open_model(model_path)
    assert model.header == header
    assert model.network is not None
    assert not model.network.training
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.network(image), network(image))


# --- files that are not models -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "m.pkl"])
def test_missing_empty_or_text_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    check_refused(path, "no such model file", trust_pickle=True)
    path.write_bytes(b"")
    check_refused(path, "0 bytes", trust_pickle=True)
    path.write_bytes(b"this is text, and long enough to be parsed as a header\n" * 10)
    check_refused(path, "truncated", trust_pickle=True)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m"])
def test_file_with_other_suffix_is_refused(tmp_path: Path, name: str) -> None:
    torch.save(WEIGHTS, tmp_path / name)
    check_refused(tmp_path / name, "not a landmarks-fastai model")


def test_truncated_model_is_refused(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(model_path.read_bytes()[:1_000_000])
    check_refused(tmp_path / "m.safetensors", "truncated")


def test_safetensors_of_other_program_is_refused(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "m.safetensors")
    check_refused(tmp_path / "m.safetensors", "not a landmarks-fastai model")


# --- headers that do not match -------------------------------------------------------------------


def remove_std(entries: dict[str, Any]) -> None:
    del entries["std"]


def add_unknown_flip_pair(entries: dict[str, Any]) -> None:
    entries["schema"]["flip_pairs"] = [["nose_tip", "chin"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.update(format=3, new="field"), "format 3.*update landmarks-fastai"),
        (lambda entries: entries.update(format=1), r"written by landmarks-fastai 0\.1"),
        (lambda entries: entries.update(arch="resnet19"), "resnet19"),
        (remove_std, "invalid header: std"),
        (add_unknown_flip_pair, "'chin' is not one of its landmarks"),
        (lambda entries: entries["head"].update(hidden=17), "weights do not match the header: 1"),
    ],
)
def test_model_with_header_that_does_not_match_is_refused(
    tmp_path: Path, header: ModelHeader, network: nn.Module, change: Callable[[Any], None], message: str
) -> None:
    entries = header.to_dict()
    change(entries)
    save_file(network.state_dict(), tmp_path / "m.safetensors", metadata={HEADER_KEY: json.dumps(entries)})
    check_refused(tmp_path / "m.safetensors", message)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_model_with_header_that_is_not_json_object_is_refused(tmp_path: Path, text: str) -> None:
    save_file(WEIGHTS, tmp_path / "m.safetensors", metadata={HEADER_KEY: text})
    check_refused(tmp_path / "m.safetensors", "invalid header")


def test_model_with_extra_or_missing_weights_is_refused(
    tmp_path: Path, header: ModelHeader, network: nn.Module
) -> None:
    weights = network.state_dict()
    save_model(tmp_path / "m.safetensors", {**weights, "extra": torch.zeros(1)}, header)
    check_refused(tmp_path / "m.safetensors", r"match the header: extra is not part of resnet18")
    del weights["0.0.weight"]
    save_model(tmp_path / "m.safetensors", weights, header)
    check_refused(tmp_path / "m.safetensors", r"0\.0\.weight is missing")


# --- pickles -------------------------------------------------------------------------------------


class CreateFile:
    """A pickle that executes code when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_pickle_that_is_not_trusted_is_refused_without_executing_it(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(CreateFile(tmp_path / "executed")))
    check_refused(tmp_path / "model.pkl", "can execute arbitrary code.*--trust-pickle")
    assert not (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("ignore")  # fastai warns on import and export
def test_trusted_pickle_opens_if_it_has_a_header(
    tmp_path: Path, header: ModelHeader, network: nn.Module
) -> None:
    from fastai.basics import Datasets, noop
    from fastai.learner import Learner

    loaders = Datasets([0], [[noop]]).dataloaders(bs=1)
    learner = Learner(loaders, network, loss_func=nn.L1Loss(), path=tmp_path)
    learner.export("foreign.pkl")
    check_refused(tmp_path / "foreign.pkl", "not a landmarks-fastai learner", trust_pickle=True)
    learner.header = header.to_dict()
    learner.export("model.pkl")
    model = open_model(tmp_path / "model.pkl", trust_pickle=True)
    assert model.header == header
    assert model.network is not None
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        np.testing.assert_array_equal(model.network(image), network(image))


# --- released models -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", released_models(), ids=lambda path: path.stem)
def test_released_model_contains_no_paths_and_predicts_synthetic_faces(
    path: Path, dataset: LandmarkDataset
) -> None:
    assert path.stat().st_size < 50e6
    predictor = Predictor.open(path, "cpu")
    assert "/" not in predictor.header.config["data"]["source"]
    assert "/" not in (predictor.header.config["model"].get("init_from") or "")
    predicted = predictor.predict_batch(dataset.images)
    assert np.isfinite(predicted.points).all()
    assert np.isfinite(predicted.confidence).all()
    # it was not trained on synthetic faces, but its landmarks are approximately right
    assert np.nanmedian(np.abs(predicted.points - dataset.points)) < 6


# --- ONNX files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_path(network: nn.Module, header: ModelHeader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of an exported model."""
    from landmarks_fastai.export.onnx import export_onnx

    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(network, header, path)
    return path


def change_onnx(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Write a copy of an ONNX file that is changed."""
    import onnx

    model = onnx.load(source)
    change(model)
    onnx.save(model, target)
    return target


def header_entry(model: Any) -> Any:
    return next(entry for entry in model.metadata_props if entry.key == HEADER_KEY)


def set_header(text: str) -> Callable[[Any], None]:
    return lambda model: setattr(header_entry(model), "value", text)


def set_input_size(model: Any) -> None:
    entries = json.loads(header_entry(model).value)
    header_entry(model).value = json.dumps({**entries, "input_size": 1024})


def rename_output(model: Any) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "other"


def set_nan(model: Any) -> None:
    import onnx

    weight = next(one for one in model.graph.initializer if one.dims and one.data_type == 1)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.fill(np.nan)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_header("[" * 100_000), "nested too deeply"),
        (set_header('{"format": ' + "9" * 5000), "too many digits"),
        (set_header("{}"), "its format version is None"),
        (lambda model: model.metadata_props.remove(header_entry(model)), "not a landmarks-fastai model"),
        (set_input_size, "inputs and outputs .*64, 64.* do not match the header"),
        (rename_output, "inputs and outputs .*other.* do not match the header"),
        (set_nan, "is not finite"),
    ],
)
def test_damaged_onnx_is_refused_in_one_short_line(
    onnx_path: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    path = change_onnx(onnx_path, tmp_path / "m.onnx", change)
    with pytest.raises(UserError, match=message) as caught:
        open_model(path, device="cpu")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 350


def test_onnx_whose_text_is_not_utf8_is_refused(onnx_path: Path, tmp_path: Path) -> None:
    content = onnx_path.read_bytes().replace(b'"arch"', b'"\xff\xfe\xff\xfe"')
    (tmp_path / "m.onnx").write_bytes(content)
    check_refused(tmp_path / "m.onnx", "its texts are not UTF-8|truncated", device="cpu")


def test_onnx_of_more_than_two_gigabytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    os.truncate(tmp_path / "m.onnx", 2**31 + 1)
    check_refused(tmp_path / "m.onnx", "more than 2 GB")


def test_onnx_with_weights_in_another_file_is_refused(onnx_path: Path, tmp_path: Path) -> None:
    import onnx

    onnx.save(onnx.load(onnx_path), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin")
    assert (tmp_path / "weights.bin").is_file()
    check_refused(tmp_path / "m.onnx", "not an ONNX file, or truncated", device="cpu")


DAMAGED = Path(__file__).resolve().parents[3] / "shared" / "cases" / "damaged"


@pytest.mark.parametrize(
    "path", sorted(DAMAGED.glob("*.onnx")) or [None], ids=lambda path: path.stem if path else "none"
)
def test_damaged_case_is_refused(path: Path | None) -> None:
    if path is None:
        pytest.skip(f"{DAMAGED} is missing")
    check_refused(path, ".", device="cpu")
