"""Weight transfer: an initialized network predicts the same as the other, and leakage is detected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.reporter import RecordingReporter
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.networks.heads import build_head
from landmarks_fastai.training.run import train_run
from landmarks_fastai.training.weight_transfer import landmark_layers, transfer_weights

HEAD = {"name": "soft-argmax", "width": 16, "scales": True}


# --- networks ------------------------------------------------------------------------------------


def random_network(arch: str = "resnet18", channels: int = 3, landmarks: int = 5, seed: int = 0) -> nn.Module:
    """Build a network with random weights and random batch normalization statistics."""
    torch.manual_seed(seed)
    network = build_network(arch, HEAD, landmarks, channels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values.data, 0.5, 1.5)
    return network.eval()


def predict(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(images)


@pytest.mark.parametrize("arch", ["resnet18", "resnet34"])
def test_network_of_same_or_greater_depth_predicts_the_same(arch: str) -> None:
    images = torch.rand(2, 3, 64, 64)
    old, new = random_network(), random_network(arch, seed=1)
    assert (predict(old, images) - predict(new, images)).abs().max() > 1e-3
    transfer_weights(new, old.state_dict())
    torch.testing.assert_close(predict(new, images), predict(old, images), rtol=0, atol=1e-6)


def test_deeper_network_of_bottlenecks_predicts_the_same() -> None:
    images = torch.rand(1, 3, 64, 64)
    old, new = random_network("resnet50"), random_network("resnet101", seed=1)
    transfer_weights(new, old.state_dict())
    torch.testing.assert_close(predict(new, images), predict(old, images), rtol=0, atol=1e-6)


def test_additional_blocks_have_gradients() -> None:
    network = random_network("resnet34", seed=1)
    transfer_weights(network, random_network().state_dict())
    network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    norm = network[0][4][2].bn2.weight  # of a block that ResNet18 does not have
    assert (norm == 0).all()
    assert (norm.grad != 0).any()


@pytest.mark.parametrize(("old_channels", "new_channels"), [(1, 3), (3, 1)])
def test_network_with_other_channels_predicts_the_same_on_gray(old_channels: int, new_channels: int) -> None:
    gray = torch.rand(2, 1, 64, 64)
    old, new = random_network(channels=old_channels), random_network(channels=new_channels, seed=1)
    transfer_weights(new, old.state_dict())
    predicted_new, predicted_old = (
        predict(network, gray.expand(-1, channels, -1, -1))
        for network, channels in ((new, new_channels), (old, old_channels))
    )
    torch.testing.assert_close(predicted_new, predicted_old, rtol=0, atol=1e-5)


PER_LANDMARK = {
    "linear": {"points", "scales", "visibility"},
    "lin-relu-lin": {"points", "scales", "visibility"},
    "soft-argmax": {"heatmaps.5", "scales.2", "visibility.5"},
    "simcc": {"heatmaps.5", "cells.0", "cells.1", "visibility.5"},
}
"""The layers of each head with outputs for each landmark; all other layers do not depend on the landmarks."""

WIDTHS = {"soft-argmax": "width", "simcc": "width", "lin-relu-lin": "hidden"}
CHANNELS = (8, 16, 32, 64)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(PER_LANDMARK)),
    width=st.sampled_from([8, 15, 16, 32, 64]),
    old_landmarks=st.one_of(st.integers(1, 140), st.sampled_from([4, 8, 16, 32, 64, 128])),
    new_landmarks=st.one_of(st.none(), st.integers(1, 140)),
    two_protocols=st.booleans(),
)
def test_head_for_other_landmarks_loads_all_layers_but_those_of_the_landmarks(
    name: str, width: int, old_landmarks: int, new_landmarks: int | None, two_protocols: bool
) -> None:
    options = {"name": name, "scales": True, "visibility": True}
    options |= {WIDTHS[name]: width} if name in WIDTHS else {}
    options |= {"two_protocols": True} if two_protocols else {}

    def make_network(landmarks: int) -> nn.Module:
        network = nn.Sequential(nn.Identity(), build_head(options, CHANNELS, landmarks))
        for parameter in network.parameters():
            nn.init.normal_(parameter)
        return network

    old, new = make_network(old_landmarks), make_network(new_landmarks or old_landmarks)
    before = {key: tensor.clone() for key, tensor in new.state_dict().items()}
    transfer_weights(new, old.state_dict(), not_loaded=landmark_layers(options, old_landmarks))
    prefix = "1.head." if two_protocols else "1."
    for key, tensor in new.state_dict().items():
        of_landmarks = key.removeprefix(prefix).rpartition(".")[0] in PER_LANDMARK[name]
        assert torch.equal(tensor, before[key] if of_landmarks else old.state_dict()[key]), key


@pytest.mark.parametrize("landmarks", [16, 32, 64])
def test_head_for_the_same_landmarks_loads_every_layer(landmarks: int) -> None:
    old, new = random_network(landmarks=landmarks), random_network(landmarks=landmarks, seed=1)
    transfer_weights(new, old.state_dict())
    assert all(torch.equal(tensor, old.state_dict()[name]) for name, tensor in new.state_dict().items())


def test_layer_of_other_shape_is_not_loaded_in_part() -> None:
    narrow, wide = (build_network("resnet18", {"name": "lin-relu-lin", "hidden": n}, 5, 3) for n in (8, 16))
    nn.init.uniform_(narrow[1].points.bias)
    before = wide[1].points.bias.detach().clone()
    transfer_weights(wide, narrow.state_dict())
    torch.testing.assert_close(wide[1].points.bias.detach(), before)


@pytest.mark.parametrize(("old", "new"), [("resnet18", "resnet50"), ("resnet34", "resnet18")])
def test_backbone_of_other_kind_or_less_depth_raises(old: str, new: str) -> None:
    with pytest.raises(UserError, match="its backbone is of another kind, or deeper"):
        transfer_weights(random_network(new), random_network(old).state_dict())


# --- runs with model.init_from -------------------------------------------------------------------


@pytest.fixture
def initialized_config(small_config: Callable[..., TrainConfig]) -> Callable[..., TrainConfig]:
    """Return a function that builds a config with `init_from` whose training hardly changes the weights."""

    def build(init_from: Path | str, *, valid_fraction: float = 0.2, **model: object) -> TrainConfig:
        options = small_config(
            epochs=1,
            ema=0.0,
            schedule={"name": "flat_cos", "max_lr": 1e-12},
            optimizer={"name": "adamw", "weight_decay": 0.0},
        ).model_dump()
        options["model"] |= {"init_from": str(init_from), **model}
        options["data"]["valid_fraction"] = valid_fraction
        return validate_config(options, "test")

    return build


@pytest.mark.parametrize("arch", ["resnet18", "resnet34"])
def test_run_starts_from_weights_of_init_from(
    finished_run: Path, tmp_path: Path, initialized_config: Callable[..., TrainConfig], arch: str
) -> None:
    reporter = RecordingReporter()
    train_run(initialized_config(finished_run, arch=arch), tmp_path / "run", reporter=reporter)
    before, after = (load_file(folder / "model.safetensors") for folder in (finished_run, tmp_path / "run"))
    for name, tensor in before.items():
        if tensor.ndim > 1:  # batch normalization statistics are updated
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6, msg=name)
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"Initialized from:** the weights of {finished_run}" in card
    assert reporter.summaries[0].init_from == str(finished_run)
    assert reporter.notes == []


def test_init_from_model_trained_on_validation_rows_raises(
    finished_run: Path, tmp_path: Path, initialized_config: Callable[..., TrainConfig]
) -> None:
    message = r"^model\.init_from .*: it was trained on \d+ of the \d+ validation rows of this run"
    with pytest.raises(UserError, match=message):
        train_run(initialized_config(finished_run, valid_fraction=0.3), tmp_path / "run")


@pytest.mark.parametrize("kind", ["invalid data.json", "initialized itself", "without run folder"])
def test_init_from_model_with_unknown_training_rows_warns(
    finished_run: Path, tmp_path: Path, initialized_config: Callable[..., TrainConfig], kind: str
) -> None:
    init_from = tmp_path / "initial"
    if kind == "invalid data.json":
        shutil.copytree(finished_run, init_from)
        (init_from / "data.json").write_text("[]")
    elif kind == "initialized itself":
        train_run(initialized_config(finished_run), init_from)
    else:
        init_from = tmp_path / "initial.safetensors"
        shutil.copy(finished_run / "model.safetensors", init_from)
    reporter = RecordingReporter()
    train_run(initialized_config(init_from), tmp_path / "run", reporter=reporter)
    (warning,) = reporter.notes
    assert warning.startswith("it is unknown whether ")
    assert warning.endswith("the validation scores are too optimistic")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.onnx", "only safetensors files can be used"),
        ("model.pkl", "only safetensors files can be used"),
        ("none", "no such model file"),
    ],
)
def test_init_from_file_that_is_not_safetensors_raises(
    finished_run: Path,
    tmp_path: Path,
    initialized_config: Callable[..., TrainConfig],
    name: str,
    message: str,
) -> None:
    with pytest.raises(UserError, match=rf"^model\.init_from.*{message}"):
        train_run(initialized_config(finished_run / name), tmp_path / "run")


def test_init_from_other_kind_of_backbone_or_with_pretrained_raises(
    finished_run: Path, tmp_path: Path, initialized_config: Callable[..., TrainConfig]
) -> None:
    with pytest.raises(UserError, match=r"^model\.init_from .*: its backbone is of another kind"):
        train_run(initialized_config(finished_run, arch="resnet50"), tmp_path / "run")
    with pytest.raises(UserError, match="init_from and pretrained are mutually exclusive"):
        initialized_config(finished_run, pretrained=True)
