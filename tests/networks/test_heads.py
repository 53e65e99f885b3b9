"""Heads: their outputs, their initial predictions, and errors in their options."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.networks.heads import HEADS, build_head
from landmarks_fastai.networks.outputs import join_output, split_output

CHANNELS = (64, 128, 256, 512)


def random_stages(side: int, batch: int = 2) -> tuple[Tensor, ...]:
    """Return stages of a ResNet18, the first of `side` x `side`."""
    return tuple(torch.randn(batch, channels, side >> i, side >> i) for i, channels in enumerate(CHANNELS))


def head_options(name: str) -> dict[str, object]:
    """Return the options of a small head."""
    options: dict[str, object] = {"lin-relu-lin": {"hidden": 8}, "linear": {}}.get(name, {"width": 8})
    return {"name": name, **options}


class FixedHeatmaps(nn.Module):
    """Returns the same heatmaps for every input."""

    def __init__(self, heatmaps: Tensor) -> None:
        super().__init__()
        self.heatmaps = heatmaps

    def forward(self, fused: Tensor) -> Tensor:
        assert fused.shape[-2:] == self.heatmaps.shape[-2:]
        return self.heatmaps


def test_soft_argmax_of_single_peak_is_center_of_its_cell() -> None:
    head = build_head({"name": "soft-argmax", "width": 8}, CHANNELS, 3)
    heatmaps = torch.full((1, 3, 16, 16), -1000.0)
    cells = [(0, 0), (15, 4), (7, 11)]  # x, y
    for landmark, (x, y) in enumerate(cells):
        heatmaps[0, landmark, y, x] = 1000.0
    head.heatmaps = FixedHeatmaps(heatmaps)
    predicted = head(random_stages(16, batch=1))
    expected = torch.tensor([[((x + 0.5) / 16 * 2 - 1, (y + 0.5) / 16 * 2 - 1) for x, y in cells]])
    assert torch.equal(predicted, expected)  # powers of two: no rounding


def test_soft_argmax_of_two_equal_peaks_is_their_midpoint() -> None:
    head = build_head({"name": "soft-argmax", "width": 8}, CHANNELS, 1)
    heatmaps = torch.full((1, 1, 16, 16), -1000.0)
    heatmaps[0, 0, 4, 2] = heatmaps[0, 0, 4, 10] = 5.0
    head.heatmaps = FixedHeatmaps(heatmaps)
    x, y = head(random_stages(16, batch=1))[0, 0].tolist()
    assert x == pytest.approx((6 + 0.5) / 8 - 1)
    assert y == pytest.approx((4 + 0.5) / 8 - 1)


@pytest.mark.parametrize("options", [{"name": "lin-relu-lin", "hidden": 32}, {"name": "linear"}])
def test_initialize_output_makes_untrained_head_predict_mean_shape(options: dict[str, object]) -> None:
    head = build_head(options, CHANNELS, 5)
    mean_shape = torch.rand(5, 2) * 2 - 1
    head.initialize_output(mean_shape)
    predicted = head(random_stages(8))
    assert predicted.shape == (2, 5, 2)
    assert torch.equal(predicted, mean_shape.expand(2, 5, 2))


@pytest.mark.parametrize("name", HEADS)
def test_head_predicts_k_points_at_any_input_size(name: str) -> None:
    network = build_network("resnet18", head_options(name), 7, 1).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7, 2)
        assert network(torch.randn(1, 1, 64, 64)).shape == (1, 7, 2)


@pytest.mark.parametrize("name", HEADS)
def test_head_with_scales_predicts_same_points(name: str) -> None:
    options = head_options(name)
    torch.manual_seed(0)
    plain = build_head(options, CHANNELS, 3).eval()
    scaled = build_head({**options, "scales": True}, CHANNELS, 3).eval()
    scaled.load_state_dict(plain.state_dict(), strict=False)
    stages = random_stages(8)
    with torch.inference_mode():
        output = scaled(stages)
        assert output.shape == (2, 3, 3)
        assert torch.equal(output[..., :2], plain(stages))
        assert ((output[..., 2] >= math.log(1e-3)) & (output[..., 2] <= 0)).all()


def test_soft_argmax_scale_is_scale_map_weighted_by_heatmap() -> None:
    head = build_head({"name": "soft-argmax", "width": 8, "scales": True}, CHANNELS, 1)
    heatmaps = torch.full((1, 1, 16, 16), -1000.0)
    heatmaps[0, 0, 4, 2] = heatmaps[0, 0, 4, 10] = 5.0
    scales = torch.full((1, 1, 16, 16), -9.0)
    scales[0, 0, 4, 2], scales[0, 0, 4, 10] = -3.0, -2.0
    head.heatmaps, head.scales = FixedHeatmaps(heatmaps), FixedHeatmaps(scales)
    assert head(random_stages(16, batch=1))[0, 0, 2].item() == pytest.approx(-2.5)


def test_simcc_predicts_peak_with_scale_growing_with_its_width() -> None:
    head = build_head({"name": "simcc", "width": 8, "scales": True}, CHANNELS, 2).eval()
    heatmaps = torch.full((1, 2, 16, 16), -50.0)
    heatmaps[0, 0, 4, 9] = 50.0
    heatmaps[0, 1, 4:7, 2:13] = 50.0
    head.heatmaps = FixedHeatmaps(heatmaps)
    narrow, wide = head(random_stages(16, batch=1))[0]
    assert narrow[:2].tolist() == pytest.approx([(9 + 0.5) / 8 - 1, (4 + 0.5) / 8 - 1], abs=0.01)
    assert wide[:2].tolist() == pytest.approx([(7 + 0.5) / 8 - 1, (5 + 0.5) / 8 - 1], abs=0.01)
    assert wide[2] > narrow[2]


def test_simcc_returns_log_probabilities_of_bins_only_in_training_mode() -> None:
    head = build_head({"name": "simcc", "width": 8}, CHANNELS, 3)
    stages = random_stages(16)
    output = head(stages)
    assert output.shape == (2, 3, 3 + 2 * 16 * 8)
    bins = output[..., 3:].unflatten(-1, (2, -1)).exp()
    assert torch.allclose(bins.sum(-1), torch.ones(()), atol=1e-5)
    centers = (torch.arange(128) + 0.5) / 64 - 1
    assert torch.allclose((bins * centers).sum(-1), output[..., :2], atol=1e-5)
    assert head.eval()(stages).shape == (2, 3, 2)


@pytest.mark.parametrize("name", HEADS)
def test_two_protocol_head_trains_both_and_predicts_the_first(name: str) -> None:
    head = build_head({**head_options(name), "two_protocols": True}, CHANNELS, 3)
    head.initialize_output(torch.zeros(3, 2))
    stages = random_stages(16)
    assert head(stages).shape[1] == 6
    head.eval()
    with torch.inference_mode():
        assert torch.equal(head(stages), head.head(stages)[:, :3])


def test_build_head_with_unknown_head_or_option_raises() -> None:
    with pytest.raises(UserError, match=r"^no such head 'linaer'; did you mean 'linear'\?$"):
        build_head({"name": "linaer"}, CHANNELS, 3)
    with pytest.raises(UserError, match=r"^head 'linear' cannot be built with \{'hidden': 3\}: "):
        build_head({"name": "linear", "hidden": 3}, CHANNELS, 3)


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("name", sorted(HEADS))
def test_visibility_is_appended_and_leaves_the_rest_unchanged(name: str, scales: bool) -> None:
    options = {**head_options(name), "scales": scales}
    head = build_head({**options, "visibility": True}, CHANNELS, 3).eval()
    without = build_head(options, CHANNELS, 3).eval()
    without.load_state_dict(
        {key: value for key, value in head.state_dict().items() if not key.startswith("visibility.")}
    )
    for training in (False, True):
        stages = random_stages(16)
        parts = split_output(head.train(training)(stages), visibility=True)
        expected = split_output(without.train(training)(stages), visibility=False)
        assert parts.visibility is not None
        assert parts.visibility.shape == (2, 3)
        for actual, wanted in zip(
            (parts.points, parts.log_scales, parts.bins),
            (expected.points, expected.log_scales, expected.bins),
            strict=True,
        ):
            assert torch.equal(actual, wanted)


@pytest.mark.parametrize("name", ["soft-argmax", "simcc"])
def test_visibility_is_read_at_the_landmark(name: str) -> None:
    head = build_head({"name": name, "width": 8, "visibility": True}, CHANNELS, 2).eval()
    heatmaps = torch.full((1, 2, 16, 16), -1000.0)
    maps = torch.zeros(1, 2, 16, 16)
    for landmark, (x, y) in enumerate([(3, 9), (12, 1)]):
        heatmaps[0, landmark, y, x] = 1000.0
        maps[0, landmark, y, x] = [2.5, -1.5][landmark]
    head.heatmaps, head.visibility = FixedHeatmaps(heatmaps), FixedHeatmaps(maps)
    logits = split_output(head(random_stages(16, batch=1)), visibility=True).visibility
    assert logits is not None
    assert logits[0].tolist() == pytest.approx([2.5, -1.5])


@pytest.mark.parametrize("name", ["soft-argmax", "simcc"])
def test_visibility_does_not_train_the_heatmaps(name: str) -> None:
    head = build_head({"name": name, "width": 8, "visibility": True}, CHANNELS, 2)
    logits = split_output(head(random_stages(16)), visibility=True).visibility
    assert logits is not None
    logits.sum().backward()
    trained = [
        any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())
        for part in (head.heatmaps, head.visibility)
    ]
    assert trained == [False, True]


def test_two_protocols_return_the_visibility_of_the_first() -> None:
    head = build_head({**head_options("simcc"), "two_protocols": True, "visibility": True}, CHANNELS, 3)
    stages = random_stages(16)
    assert head(stages).shape[1] == 6
    assert split_output(head.eval()(stages), visibility=True).visibility.shape == (2, 3)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("visibility", [False, True])
@pytest.mark.parametrize("two_protocols", [False, True])
def test_evaluated_part_of_training_output_is_the_output_in_eval_mode(
    name: str, scales: bool, visibility: bool, two_protocols: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the statistics of a batch would change the output, too
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda self, mode=True: nn.Module.train(self, False))
    options = {**head_options(name), "scales": scales, "visibility": visibility}
    head = build_head({**options, "two_protocols": two_protocols}, CHANNELS, 3)
    stages = random_stages(16)
    trained, expected = head.train()(stages), head.eval()(stages)
    assert torch.equal(head.evaluated(trained), expected)
    assert head.has_training_output == (trained.shape != expected.shape or name == "simcc")


def test_join_output_is_the_inverse_of_split_output() -> None:
    output = torch.randn(2, 3, 14)
    parts = split_output(output, visibility=True)
    bins = parts.bins.chunk(2, -1)
    assert torch.equal(join_output(parts.points, parts.log_scales[..., 0], parts.visibility, bins), output)
    assert torch.equal(join_output(parts.points, None, None), output[..., :2])
