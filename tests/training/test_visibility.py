"""Training with visibility: labels, augmentation, loss, calibration, model files and prediction."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.learner import Learner
from fastai.vision.all import TensorImage, TensorPoint

from landmarks_fastai.config.options import L1Config, LaplaceConfig, NoAugment, StandardAugment, TrainConfig
from landmarks_fastai.data.annotations import NOT_LABELED, OCCLUDED, VISIBLE
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.training.augmentation import AugmentBatch, erase, warp_points
from landmarks_fastai.training.dataloaders import build_dataloaders, learns_visibility, pixel_statistics
from landmarks_fastai.training.losses import MaskedLoss
from landmarks_fastai.training.reporting import SilentReporter
from landmarks_fastai.training.run import resume_run, train_run
from landmarks_fastai.training.transforms import LoadPoints, NormalizePoints, ResizeToInput, SplitProtocols
from landmarks_fastai.training.weight_transfer import transfer_weights
from landmarks_fastai.utils.json_reader import read_json_object


@pytest.fixture(scope="module")
def occluded_faces() -> LandmarkDataset:
    """Return 12 synthetic faces with objects in front; one landmark is not labeled."""
    faces = draw_synthetic_faces(12, seed=4, occlusion=1.0)
    assert faces.visibility is not None
    points, visibility = faces.points.copy(), faces.visibility.copy()
    points[1, 3], visibility[1, 3] = np.nan, NOT_LABELED
    return replace(faces, points=points, visibility=visibility)


def split_of(dataset: LandmarkDataset) -> Split:
    """Return a split whose last four rows are for validation."""
    rows = np.arange(len(dataset))
    return Split(rows[:-4], rows[-4:], rows, "grouped", 0)


# --- labels --------------------------------------------------------------------------------------


def test_load_points_appends_visibility(occluded_faces: LandmarkDataset) -> None:
    labels = LoadPoints(occluded_faces, visibility=True).take(np.array([0, 1])).numpy()
    np.testing.assert_array_equal(labels[..., :2], occluded_faces.points[:2])
    assert occluded_faces.visibility is not None
    expected = {OCCLUDED: 0.0, VISIBLE: 1.0, NOT_LABELED: np.nan}
    flags = [[expected[int(flag)] for flag in row] for row in occluded_faces.visibility[:2]]
    np.testing.assert_array_equal(labels[..., 2], np.array(flags, np.float32))


@pytest.mark.parametrize(
    ("value", "expected"), [(None, False), (OCCLUDED, False), (VISIBLE, False), ("both", True)]
)
def test_learns_visibility_only_if_training_labels_have_both_values(
    occluded_faces: LandmarkDataset, value: int | str | None, expected: bool
) -> None:
    flags = occluded_faces.visibility
    if value != "both":
        flags = None if value is None else np.full_like(occluded_faces.visibility, value)
    dataset, config = replace(occluded_faces, visibility=flags), TrainConfig()
    assert learns_visibility(config, dataset, split_of(dataset)) is expected
    switched_off = config.model_copy(update={"model": config.model.model_copy(update={"visibility": False})})
    assert not learns_visibility(switched_off, dataset, split_of(dataset))


def test_learns_visibility_does_not_depend_on_validation_rows(occluded_faces: LandmarkDataset) -> None:
    assert occluded_faces.visibility is not None
    visibility = np.full_like(occluded_faces.visibility, VISIBLE)
    visibility[-1] = OCCLUDED
    dataset = replace(occluded_faces, visibility=visibility)
    assert not learns_visibility(TrainConfig(), dataset, split_of(dataset))


@pytest.mark.parametrize(("occlusion", "values"), [(0.0, 2), (1.0, 3)])
def test_batches_have_visibility_only_if_it_is_learned(occlusion: float, values: int, tmp_path: Path) -> None:
    dataset = draw_synthetic_faces(12, seed=4, occlusion=occlusion)
    config = TrainConfig(augment=NoAugment())
    dls = build_dataloaders(
        dataset,
        split_of(dataset),
        config,
        pixel_statistics(dataset.images, 1),
        path=tmp_path,
        device=torch.device("cpu"),
    )
    _, labels = dls.valid.one_batch()
    assert labels.shape == (4, 15, values)
    pixels = NormalizePoints(config.model.input_size).decodes(labels)
    expected = (dataset.points[-4:] + 0.5) * (config.model.input_size / 96) - 0.5
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-4)
    if values == 3:
        np.testing.assert_array_equal(labels[..., 2].numpy(), dataset.landmarks.visibility[-4:])


def test_resize_and_normalization_leave_visibility_unchanged() -> None:
    labels = TensorPoint(torch.tensor([[[10.0, 20.0, 0.0], [5.0, 6.0, 1.0], [math.nan] * 3]]))
    _, resized = ResizeToInput(16).encodes((TensorImage(torch.rand(1, 1, 32, 32)), labels))
    normalized = NormalizePoints(16).encodes(resized)
    assert normalized[0, :2, 2].tolist() == [0.0, 1.0]
    assert normalized[0, 0, :2].tolist() == pytest.approx([(10.5 / 32) * 2 - 1, (20.5 / 32) * 2 - 1])
    assert normalized[0, 2].isnan().all()


def test_split_protocols_keeps_rows_without_known_visibility_complete() -> None:
    labels = torch.tensor([[[1.0, 2.0, math.nan], [3.0, 4.0, 1.0]], [[1.0, 2.0, 0.0], [math.nan] * 3]])
    _, both = SplitProtocols().encodes((TensorImage(torch.rand(2, 1, 4, 4)), TensorPoint(labels)))
    assert both.shape == (2, 4, 3)
    torch.testing.assert_close(both[0, :2].as_subclass(torch.Tensor), labels[0], equal_nan=True)
    assert both[0, 2:].isnan().all()
    assert both[1, :2].isnan().all()
    assert both[1, 2].tolist() == [1.0, 2.0, 0.0]


# --- augmentation --------------------------------------------------------------------------------


def test_flip_swaps_visibility_with_the_pair() -> None:
    augment = AugmentBatch(StandardAugment(flip=1, hard=0, erase=0, rotate=0, scale=0, shift=0), 8, (1, 0, 2))
    labels = torch.tensor([[[1.0, 2.0, 0.0], [6.0, 2.0, 1.0], [3.0, 5.0, math.nan]]])
    _, mirrored = augment.augment(torch.rand(1, 1, 8, 8), labels)
    np.testing.assert_allclose(mirrored[0].numpy(), [[1, 2, 1], [6, 2, 0], [4, 5, math.nan]], atol=1e-5)


def test_warp_unlabels_visibility_of_landmarks_outside() -> None:
    labels = torch.tensor([[[1.0, 1.0, 0.0], [7.0, 7.0, 1.0]]])
    shift = torch.eye(3)[None].clone()
    shift[0, 0, 2] = 4.0
    moved = warp_points(labels, shift, 8)
    assert moved[0, 0].tolist() == [5.0, 1.0, 0.0]
    assert moved[0, 1].isnan().all()


def test_erased_landmarks_become_occluded_where_visibility_is_known() -> None:
    torch.manual_seed(0)
    images = torch.full((200, 1, 20, 20), 2.0)  # noise is below 1
    x, y = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="xy")
    labels = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3).repeat(200, 1, 1)
    labels[:, ::7, 2] = math.nan
    selected = torch.arange(200) % 2 == 0
    erased, occluded = erase(images, labels, torch.full((200,), 0.1), selected)
    covered = (erased < 1.5).view(200, -1)
    assert covered[selected].any(1).all()
    known = ~labels[..., 2].isnan()
    assert torch.equal(occluded[..., 2][known], (~covered[known]).float())
    assert occluded[..., 2][~known].isnan().all()
    assert torch.equal(occluded[..., :2], labels[..., :2])


# --- loss ----------------------------------------------------------------------------------------


def test_loss_adds_masked_cross_entropy_of_visibility() -> None:
    predicted = torch.tensor([[[0.08, 0.0, 2.0], [0.0, 0.0, -1.0], [0.0, 0.0, 5.0]]])
    target = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, math.nan]]])
    value = MaskedLoss(L1Config())(predicted, target)
    entropy = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert value.item() == pytest.approx(0.04 / 6 + 0.01 * entropy, rel=1e-5)
    by_row = MaskedLoss(L1Config())(predicted.repeat(2, 1, 1), target.repeat(2, 1, 1), reduction="none")
    assert by_row.tolist() == pytest.approx([value.item()] * 2, rel=1e-5)


def test_laplace_loss_is_joint_likelihood_of_points_and_visibility() -> None:
    predicted = torch.tensor([[[0.08, 0.0, math.log(0.02), 2.0]]])
    value = MaskedLoss(LaplaceConfig())(predicted, torch.tensor([[[0.0, 0.0, 1.0]]]))
    expected = 0.04 / 0.02 / 2 + math.log(0.04) + math.log1p(math.exp(-2))
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_visibility_does_not_change_the_gradient_of_points(value: float) -> None:
    points = torch.rand(2, 3, 2)
    predicted = torch.cat([points, torch.zeros(2, 3, 1)], -1).requires_grad_()
    target = torch.cat([torch.rand(2, 3, 2), torch.full((2, 3, 1), value)], -1)
    MaskedLoss(L1Config())(predicted, target).backward()
    alone = points.clone().requires_grad_()
    MaskedLoss(L1Config())(alone, target[..., :2]).backward()
    torch.testing.assert_close(predicted.grad[..., :2], alone.grad)  # type: ignore[index]
    assert predicted.grad[..., 2].any()  # type: ignore[index]


def test_loss_of_batch_without_visibility_labels_is_that_of_points() -> None:
    predicted = torch.rand(2, 3, 3, requires_grad=True)
    target = torch.cat([torch.rand(2, 3, 2), torch.full((2, 3, 1), math.nan)], -1)
    value = MaskedLoss(L1Config())(predicted, target)
    value.backward()
    alone = MaskedLoss(L1Config())(predicted.detach()[..., :2], target[..., :2])
    assert value.item() == pytest.approx(alone.item())
    assert not predicted.grad[..., 2].any()  # type: ignore[index]


# --- runs ----------------------------------------------------------------------------------------


def with_occlusion(config: TrainConfig, head: str, two_protocols: bool = False) -> TrainConfig:
    """Return a config with another head, for partly occluded synthetic faces."""
    options = TrainConfig.model_validate({"model": {"head": head}}).model.head
    model = config.model.model_copy(update={"head": options, "two_protocols": two_protocols})
    data = config.data.model_copy(update={"occlusion": 0.7, "count": 24})
    return config.model_copy(update={"model": model, "data": data})


def test_run_with_visibility_predicts_it_alike_in_all_files(
    small_config: Callable[..., TrainConfig], cache_dir: Path, tmp_path: Path
) -> None:
    config = with_occlusion(small_config(epochs=1, loss="laplace"), "simcc")
    result = train_run(config, tmp_path / "run", cache=cache_dir)
    assert result.report.visibility is not None
    assert result.report.visibility.prediction is not None
    assert read_json_object(tmp_path / "run" / "metrics.json")["visibility"]["prediction"]["landmarks"] > 0
    images = draw_synthetic_faces(3, seed=8, occlusion=1.0).images
    torch_model = Predictor.open(tmp_path / "run", "cpu")
    expected = torch_model.predict_batch(images)
    assert torch_model.header.predicts_visibility
    assert torch_model.header.visibility_calibration != (1.0, 0.0)
    assert ((expected.visibility > 0) & (expected.visibility < 1)).all()
    for name in ("model.onnx", "model.pkl"):
        other = Predictor.open(tmp_path / "run" / name, "cpu", trust_pickle=True).predict_batch(images)
        np.testing.assert_allclose(other.visibility, expected.visibility, atol=1e-4)
        np.testing.assert_allclose(other.points, expected.points, atol=0.01)


@pytest.fixture
def without_model_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the results of a run without its ONNX file and pickle, which take most of the time."""

    def write_safetensors(learn: Learner, header: ModelHeader, folder: Path, faces: object) -> None:
        save_model(folder / "model.safetensors", learn.model.eval().state_dict(), header)

    monkeypatch.setattr("landmarks_fastai.training.results.write_models", write_safetensors)


@pytest.mark.usefixtures("without_model_files")
def test_run_with_two_protocols_predicts_visibility_of_the_first(
    small_config: Callable[..., TrainConfig],
    occluded_faces: LandmarkDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = occluded_faces.points.copy()
    points[:4, :5] = np.nan
    assert occluded_faces.visibility is not None
    visibility = np.where(np.isnan(points).any(2), NOT_LABELED, occluded_faces.visibility).astype(np.uint8)
    dataset = replace(occluded_faces, points=points, visibility=visibility)
    monkeypatch.setattr("landmarks_fastai.training.preparation.load_dataset", lambda *_, **__: dataset)
    result = train_run(with_occlusion(small_config(epochs=1), "soft-argmax", True), tmp_path / "run")
    valid = read_json_object(tmp_path / "run" / "data.json")["split"]["valid"]
    assert result.report.overall.faces == int(dataset.complete[valid].sum())
    assert result.report.partial.faces == 0
    predicted = Predictor.open(tmp_path / "run", "cpu").predict_batch(dataset.images)
    assert predicted.visibility.shape == (12, 15)
    assert np.isfinite(predicted.visibility).all()


@pytest.mark.usefixtures("without_model_files")
def test_resumed_run_with_visibility_equals_uninterrupted_run(
    small_config: Callable[..., TrainConfig], cache_dir: Path, tmp_path: Path
) -> None:
    config = with_occlusion(small_config(epochs=2, checkpoint_every=1), "soft-argmax")
    whole = train_run(config, tmp_path / "whole", cache=cache_dir)
    stopped = tmp_path / "stopped"

    class StopInSecondEpoch(SilentReporter):
        def epoch(self, row: dict[str, float]) -> None:
            if row["epoch"] == 2:
                raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        train_run(config, stopped, cache=cache_dir, reporter=StopInSecondEpoch())
    resumed = resume_run(stopped, cache=cache_dir)
    assert resumed.report.to_dict() == whole.report.to_dict()


def test_header_without_visibility_is_read_as_before(header: ModelHeader) -> None:
    entries = header.to_dict()
    del entries["visibility_calibration"]
    read = ModelHeader.from_dict(entries, Path("model.safetensors"))
    assert not read.predicts_visibility
    assert read.visibility_calibration == (1.0, 0.0)


def test_weights_of_model_without_visibility_are_transferred() -> None:
    options = {"name": "soft-argmax", "width": 8}
    old = build_network("resnet18", options, 5, 1)
    new = build_network("resnet18", {**options, "visibility": True}, 5, 1)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    transfer_weights(new, old.state_dict())
    for name, value in new.state_dict().items():
        expected = before if name.startswith("1.visibility.") else old.state_dict()
        assert torch.equal(value, expected[name]), name
