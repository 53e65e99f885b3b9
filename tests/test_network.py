"""The network: what each head answers, and that inference builds the very modules that training did."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from landmarks_fastai.config import check_recipe
from landmarks_fastai.data.split import split
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.network import HEADS, build_head, build_network, cut_resnet, resnet, stage_widths

WIDTHS = (64, 128, 256, 512)


def stages_of(side: int, batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, width, side >> i, side >> i) for i, width in enumerate(WIDTHS))


class Planted(nn.Module):
    """Answers the same heatmaps whatever it is given."""

    def __init__(self, heatmaps: Tensor) -> None:
        super().__init__()
        self.heatmaps = heatmaps

    def forward(self, fused: Tensor) -> Tensor:
        assert fused.shape[-2:] == self.heatmaps.shape[-2:]
        return self.heatmaps


def test_soft_argmax_of_one_peak_is_its_cell_s_centre() -> None:
    head = build_head({"name": "soft-argmax", "width": 8}, WIDTHS, 3)
    heatmaps = torch.full((1, 3, 16, 16), -1000.0)
    cells = [(0, 0), (15, 4), (7, 11)]  # x, y
    for point, (x, y) in enumerate(cells):
        heatmaps[0, point, y, x] = 1000.0
    head.heatmaps = Planted(heatmaps)
    found = head(stages_of(16, batch=1))
    expected = torch.tensor([[((x + 0.5) / 16 * 2 - 1, (y + 0.5) / 16 * 2 - 1) for x, y in cells]])
    assert torch.equal(found, expected)  # powers of two: no rounding at all


def test_soft_argmax_between_two_equal_peaks_is_the_middle() -> None:
    head = build_head({"name": "soft-argmax", "width": 8}, WIDTHS, 1)
    heatmaps = torch.full((1, 1, 16, 16), -1000.0)
    heatmaps[0, 0, 4, 2] = heatmaps[0, 0, 4, 10] = 5.0
    head.heatmaps = Planted(heatmaps)
    x, y = head(stages_of(16, batch=1))[0, 0].tolist()
    assert x == pytest.approx((6 + 0.5) / 8 - 1)
    assert y == pytest.approx((4 + 0.5) / 8 - 1)


@pytest.mark.parametrize("head", [{"name": "lin-relu-lin", "hidden": 32}, {"name": "linear"}])
def test_an_untrained_head_starts_at_the_mean_face(head: dict[str, object]) -> None:
    built = build_head(head, WIDTHS, 5)
    mean = torch.rand(5, 2) * 2 - 1
    built.start_at(mean)
    found = built(stages_of(8))
    assert found.shape == (2, 5, 2)
    assert torch.equal(found, mean.expand(2, 5, 2))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_answers_k_points_of_any_picture(name: str) -> None:
    head = {"name": name, **({"hidden": 8} if name == "lin-relu-lin" else {})}
    head |= {"width": 8} if name in ("soft-argmax", "simcc") else {}
    network = build_network("resnet18", head, 7, 1).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7, 2)
        assert network(torch.randn(1, 1, 64, 64)).shape == (1, 7, 2)


@pytest.mark.parametrize(("arch", "expected"), [("resnet34", WIDTHS), ("resnet50", (256, 512, 1024, 2048))])
def test_the_widths_of_the_stages(arch: str, expected: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert stage_widths(cut_resnet(resnet(arch)(weights=None))) == expected


@pytest.fixture(scope="module")
def few() -> FaceTable:
    return draw_faces(12, seed=1)


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("resnet18", "lin-relu-lin"),
        ("resnet18", "linear"),
        ("resnet18", "soft-argmax"),
        ("resnet50", "soft-argmax"),
        ("resnet18", "simcc"),
    ],
)
def test_training_s_weights_fit_inference_s_network(
    few: FaceTable, tmp_path: Path, arch: str, head: str
) -> None:
    from landmarks_fastai.training.learner import build_learner

    recipe = check_recipe(
        {
            "model": {"arch": arch, "head": head, "input_size": 32},
            "training": {"device": "cpu", "batch_size": 4, "precision": "fp32"},
        },
        "a test",
    )
    parts = split(few, "random", 0.5, 0)
    learn = build_learner(recipe, few, parts, tmp_path)
    header = learn.header
    network = build_network(header["arch"], header["head"], len(few.schema), header["channels"])
    network.load_state_dict(learn.model.state_dict(), strict=True)
    image = torch.randn(2, few.channels, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network.eval()(image), learn.model.eval()(image))


def test_unknown_parts_are_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no architecture is called 'resnet19'; did you mean 'resnet1"):
        resnet("resnet19")
    with pytest.raises(UserError, match=r"no architecture is called 'vgg16'; known: .*resnet18"):
        resnet("vgg16")
    with pytest.raises(UserError, match="no head is called 'linaer'; did you mean 'linear'"):
        build_head({"name": "linaer"}, WIDTHS, 3)
    with pytest.raises(UserError, match="head 'linear' can't be built"):
        build_head({"name": "linear", "hidden": 3}, WIDTHS, 3)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_knows_its_scales_finds_the_same_points(name: str) -> None:
    head = {"name": name, **({"hidden": 8} if name == "lin-relu-lin" else {})}
    head |= {"width": 8} if name in ("soft-argmax", "simcc") else {}
    torch.manual_seed(0)
    plain = build_head(head, WIDTHS, 3).eval()
    scaled = build_head({**head, "scales": True}, WIDTHS, 3).eval()
    scaled.load_state_dict(plain.state_dict(), strict=False)
    stages = stages_of(8)
    with torch.inference_mode():
        found = scaled(stages)
        assert found.shape == (2, 3, 3)
        assert torch.equal(found[..., :2], plain(stages))
        assert ((found[..., 2] >= math.log(1e-3)) & (found[..., 2] <= 0)).all()


def test_a_soft_argmax_s_scale_is_read_where_the_heatmap_looks() -> None:
    head = build_head({"name": "soft-argmax", "width": 8, "scales": True}, WIDTHS, 1)
    heatmaps = torch.full((1, 1, 16, 16), -1000.0)
    heatmaps[0, 0, 4, 2] = heatmaps[0, 0, 4, 10] = 5.0
    scales = torch.full((1, 1, 16, 16), -9.0)
    scales[0, 0, 4, 2], scales[0, 0, 4, 10] = -3.0, -2.0
    head.heatmaps, head.scales = Planted(heatmaps), Planted(scales)
    assert head(stages_of(16, batch=1))[0, 0, 2].item() == pytest.approx(-2.5)


def test_simcc_of_one_peak_is_there_and_sure_of_it() -> None:
    head = build_head({"name": "simcc", "width": 8, "scales": True}, WIDTHS, 2).eval()
    heatmaps = torch.full((1, 2, 16, 16), -50.0)
    heatmaps[0, 0, 4, 9] = 50.0
    heatmaps[0, 1, 4:7, 2:13] = 50.0  # wide, and unsure
    head.heatmaps = Planted(heatmaps)
    sure, unsure = head(stages_of(16, batch=1))[0]
    assert sure[:2].tolist() == pytest.approx([(9 + 0.5) / 8 - 1, (4 + 0.5) / 8 - 1], abs=0.01)
    assert unsure[:2].tolist() == pytest.approx([(7 + 0.5) / 8 - 1, (5 + 0.5) / 8 - 1], abs=0.01)
    assert unsure[2] > sure[2]


def test_simcc_tells_its_cells_in_training_alone() -> None:
    head = build_head({"name": "simcc", "width": 8}, WIDTHS, 3)
    stages = stages_of(16)
    whole = head(stages)
    assert whole.shape == (2, 3, 3 + 2 * 16 * 8)
    cells = whole[..., 3:].unflatten(-1, (2, -1)).exp()
    assert torch.allclose(cells.sum(-1), torch.ones(()), atol=1e-5)
    centres = (torch.arange(128) + 0.5) / 64 - 1
    assert torch.allclose((cells * centres).sum(-1), whole[..., :2], atol=1e-5)
    assert head.eval()(stages).shape == (2, 3, 2)


@pytest.mark.parametrize("name", HEADS)
def test_two_schemes_are_learnt_and_the_first_is_answered(name: str) -> None:
    head = {"name": name, "two_schemes": True, **({"hidden": 8} if name == "lin-relu-lin" else {})}
    head |= {"width": 8} if name in ("soft-argmax", "simcc") else {}
    built = build_head(head, WIDTHS, 3)
    built.start_at(torch.zeros(3, 2))
    stages = stages_of(16)
    assert built(stages).shape[1] == 6
    built.eval()
    with torch.inference_mode():
        assert torch.equal(built(stages), built.head(stages)[:, :3])
