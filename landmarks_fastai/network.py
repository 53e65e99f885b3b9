"""The network: a ResNet body that keeps its stages, and a head that turns them into points.

Pure torch, so that training (through fastai's vision_learner) and inference build the very same
modules with the same weight names. Knows nothing about files, images or labels.

Points leave every head as (B, K, 2), x then y, scaled so that the image's edges are -1 and 1: the
centre of pixel x of an S pixel wide image lies at (x + 0.5) / S * 2 - 1. A head that also says how far off
each point may be answers (B, K, 3): the third number is the logarithm of the scale b of a Laplace
distribution around x and around y, b as a share of the image's side. A head that classifies answers in
training (B, K, 3 + 2 N): after these three the log-probabilities of N cells along x, and of N along y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from landmarks_fastai.errors import UserError, nearest


def scale_points(points: Tensor, size: int) -> Tensor:
    """Scale pixels of a `size` px wide image so that its edges are -1 and 1."""
    return (points + 0.5) * (2 / size) - 1


def unscale_points(points: Tensor, size: int) -> Tensor:
    """Lead scaled points back to pixels of a `size` px wide image: what undoes `scale_points`."""
    return (points + 1) * (size / 2) - 0.5


START_SCALE = math.log(0.03)
"""Log of the Laplace scale that an untrained head begins with: 3 % of the side."""


class BytesToPixels(nn.Module):
    """A network with its normalisation before it, and the way back to pixels behind it.

    Maps (B, C, S, S) float32 images of values from 0 to 255 to (B, K, 2) pixels of these images; with a
    head that knows them, to these and (B, K) Laplace scales, in pixels too, `scale_factor` times the head's.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        scale_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.size, self.scale_factor = network, size, scale_factor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the points and, where the head knows them, their scales."""
        out: Tensor = self.network((image / 255 - self.mean) / self.std)
        points = unscale_points(out[..., :2], self.size)
        if out.shape[-1] == 2:
            return (points,)
        return points, out[..., 2].exp() * (self.scale_factor * self.size)


class Stages(nn.Sequential):
    """A ResNet without its pooling and classifier, whose forward returns its four stages.

    A Sequential, so that fastai's ``m[0][:6]`` still splits it into parameter groups.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (B, C, S/4, S/4), (…, S/8), (…, S/16) and (…, S/32)."""
        x = x.as_subclass(Tensor)  # fastai's TensorImage is not meant for what follows
        stages = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index >= 4:
                stages.append(x)
        return tuple(stages)


def cut_resnet(model: nn.Module) -> Stages:
    """Keep a torchvision ResNet's stem and four stages, as fastai cuts it."""
    return Stages(*list(model.children())[:-2])


def stage_widths(body: nn.Sequential) -> tuple[int, ...]:
    """Channels of the four stages, read from the last convolution of each."""
    widths = []
    for stage in list(body)[4:]:
        convolutions = [
            module for module in list(stage.children())[-1].modules() if isinstance(module, nn.Conv2d)
        ]
        widths.append(convolutions[-1].out_channels)
    return tuple(widths)


class LinReluLin(nn.Module):
    """The origin's head: global average pooling, Linear, ReLU, Linear."""

    def __init__(self, widths: tuple[int, ...], n_points: int, hidden: int, scales: bool = False) -> None:
        super().__init__()
        self.n_points = n_points
        self.hidden = nn.Linear(widths[-1], hidden)
        self.points = nn.Linear(hidden, 2 * n_points)
        self.scales = _scales_of_vector(hidden, n_points) if scales else None

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        """Return points (B, K, 2), or with their scales (B, K, 3)."""
        hidden = functional.relu(self.hidden(stages[-1].mean((2, 3))))
        points = self.points(hidden).float().view(-1, self.n_points, 2)
        return points if self.scales is None else _beside(points, self.scales(hidden))

    def start_at(self, mean_points: Tensor) -> None:
        """Make the untrained head answer (K, 2) `mean_points` for every face."""
        nn.init.zeros_(self.points.weight)
        with torch.no_grad():
            self.points.bias.copy_(mean_points.flatten())


class Linear(nn.Module):
    """Global average pooling and one Linear."""

    def __init__(self, widths: tuple[int, ...], n_points: int, scales: bool = False) -> None:
        super().__init__()
        self.n_points = n_points
        self.points = nn.Linear(widths[-1], 2 * n_points)
        self.scales = _scales_of_vector(widths[-1], n_points) if scales else None

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        """Return points (B, K, 2), or with their scales (B, K, 3)."""
        pooled = stages[-1].mean((2, 3))
        points = self.points(pooled).float().view(-1, self.n_points, 2)
        return points if self.scales is None else _beside(points, self.scales(pooled))

    start_at = LinReluLin.start_at


def fuse_stages(stages: tuple[Tensor, ...], lateral: nn.ModuleList) -> Tensor:
    """Add up the stages from the coarsest to the finest, as a feature pyramid does (Lin et al. 2017)."""
    fused: Tensor = lateral[-1](stages[-1])
    for layer, stage in zip(reversed(lateral[:-1]), reversed(stages[:-1]), strict=True):
        fused = functional.interpolate(fused, size=stage.shape[-2:], mode="bilinear") + layer(stage)
    return fused


def heatmap_layers(width: int, n_points: int) -> nn.Sequential:
    """Make the layers that turn fused stages into one map a point."""
    return nn.Sequential(
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, n_points, 1),
    )


class SoftArgmax(nn.Module):
    """One heatmap a point over the fused stages; the point is the heatmap's mean.

    The mean of a softmax over pixels is integral regression (Sun et al. 2018), also known as DSNT (Nibali et
    al. 2018). It keeps where things are, which pooling throws away. A point's scale is read from a map of
    its own, where the heatmap looks.
    """

    def __init__(self, widths: tuple[int, ...], n_points: int, width: int, scales: bool = False) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(stage, width, 1) for stage in widths)
        self.heatmaps = heatmap_layers(width, n_points)
        self.scales: nn.Module | None = None
        if scales:
            scale_map = nn.Conv2d(width, n_points, 1)
            self.scales = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), scale_map)
            assert scale_map.bias is not None
            nn.init.constant_(scale_map.bias, START_SCALE)

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        """Return points (B, K, 2), or with their scales (B, K, 3)."""
        fused = fuse_stages(stages, self.lateral)
        heatmaps: Tensor = self.heatmaps(fused).float()
        # a softmax over both axes at once, without a change of shape that ONNX would lose K in
        mass = torch.exp(heatmaps - heatmaps.amax((2, 3), keepdim=True))
        mass = mass / mass.sum((2, 3), keepdim=True)
        points = torch.stack([_mean_along(mass.sum(2)), _mean_along(mass.sum(3))], -1)
        return points if self.scales is None else _beside(points, (mass * self.scales(fused)).sum((2, 3)))

    def start_at(self, mean_points: Tensor) -> None:
        """Begin at the middle: a heatmap has no bias that stands for a place."""


class SimCC(nn.Module):
    """One distribution a point over cells along x and one over cells along y; the point is their means.

    Coordinate classification (Li et al. 2022, SimCC): cells are finer than the heatmap's, and the loss asks
    for the right one. The paper makes its distributions of each point's whole map by one linear layer, which
    fits one size of picture alone; here they are made of the map's marginals, by a convolution. The scale is
    the mean distance from the mean.
    """

    FINER = 8
    """Cells along each axis for one of the heatmap: two for a pixel of the input."""

    def __init__(self, widths: tuple[int, ...], n_points: int, width: int, scales: bool = False) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(stage, width, 1) for stage in widths)
        self.heatmaps = heatmap_layers(width, n_points)
        self.cells = nn.ModuleList(
            nn.Conv1d(n_points, n_points, 2 * self.FINER + 1, padding=self.FINER) for _ in "xy"
        )
        for layer in self.cells:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            nn.init.dirac_(layer.weight)  # begins with the marginals as they are
            nn.init.zeros_(layer.bias)
        self.scales = scales

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        """Return points (B, K, 2), or with their scales (B, K, 3); in training (B, K, 3 + 2 N)."""
        heatmaps: Tensor = self.heatmaps(fuse_stages(stages, self.lateral)).float()
        chances = []
        for axis, layer in zip((2, 3), self.cells, strict=True):
            marginal = heatmaps.logsumexp(axis)
            finer = functional.interpolate(marginal, scale_factor=float(self.FINER), mode="linear")
            chances.append(layer(finer).float().log_softmax(-1))
        masses = [chance.exp() for chance in chances]
        x, y = (_mean_along(mass) for mass in masses)
        points = torch.stack([x, y], -1)
        across, along = (_spread_along(mass, mean) for mass, mean in zip(masses, (x, y), strict=True))
        spread = (across + along) / 4  # the mean of two axes that are 2 long
        whole = _beside(points, spread.clamp(min=1e-4).log())
        if self.training:
            return torch.cat([whole, *chances], -1)
        return whole if self.scales else points

    start_at = SoftArgmax.start_at


def cell_centres(cells: Tensor) -> Tensor:
    """Return where (…, n) cells have their centres that lie side by side from edge -1 to edge 1: (n,)."""
    n = cells.shape[-1]
    return scale_points(torch.arange(n, device=cells.device, dtype=cells.dtype), n)


def _spread_along(mass: Tensor, mean: Tensor) -> Tensor:
    """Return the mean distance (B, K) of (B, K, n) cells from their `mean` (B, K)."""
    return (mass * (cell_centres(mass) - mean[..., None]).abs()).sum(-1)


def _mean_along(mass: Tensor) -> Tensor:
    """Return the mean place (B, K) of (B, K, n) cells."""
    return (mass * cell_centres(mass)).sum(-1)


def _scales_of_vector(width: int, n_points: int) -> nn.Linear:
    """Make the layer that reads (B, K) log scales off a (B, width) vector."""
    layer = nn.Linear(width, n_points)
    nn.init.constant_(layer.bias, START_SCALE)
    return layer


def _beside(points: Tensor, log_scales: Tensor) -> Tensor:
    """Put (B, K) log scales beside (B, K, 2) points, kept between a thousandth of the side and all of it."""
    return torch.cat([points, log_scales.float().clamp(math.log(1e-3), 0.0)[..., None]], -1)


class TwoSchemes(nn.Module):
    """A head that learns each point by two ways of labelling, and answers by the first.

    Parameters
    ----------
    head
        Of 2 K points: K of the first scheme, then the same K of the second.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        """Return what the head says of K points; in training of all 2 K."""
        both: Tensor = self.head(stages)
        return both if self.training else both[:, : both.shape[1] // 2]

    def start_at(self, mean_points: Tensor) -> None:
        """Begin at (K, 2) points in both schemes."""
        self.head.start_at(mean_points.repeat(2, 1))  # type: ignore[operator]


HEADS: Mapping[str, Callable[..., nn.Module]] = {
    "lin-relu-lin": LinReluLin,
    "linear": Linear,
    "soft-argmax": SoftArgmax,
    "simcc": SimCC,
}


def build_head(head: Mapping[str, Any], widths: tuple[int, ...], n_points: int) -> nn.Module:
    """Build the head that a recipe names: ``{"name": "lin-relu-lin", "hidden": 256}``.

    With ``"two_schemes": True`` it learns twice as many points, see `TwoSchemes`.

    Raises
    ------
    UserError
        If there is no head of that name, or it has no such option.
    """
    options = dict(head)
    name = str(options.pop("name", ""))
    two_schemes = bool(options.pop("two_schemes", False))
    if name not in HEADS:
        raise UserError(f"no head is called {name!r}; {nearest(name, HEADS)}")
    try:
        built = HEADS[name](widths, n_points * (2 if two_schemes else 1), **options)
    except TypeError as error:
        raise UserError(f"head {name!r} can't be built with {options}: {error}") from error
    return TwoSchemes(built) if two_schemes else built


def resnet(arch: str) -> Callable[..., nn.Module]:
    """Return torchvision's builder of the ResNet called `arch`.

    Raises
    ------
    UserError
        If torchvision has no ResNet of that name.
    """
    known = [name for name in torchvision.models.list_models() if "resne" in name and "quantized" not in name]
    if arch not in known:
        raise UserError(f"no architecture is called {arch!r}; {nearest(arch, known)}")
    builder: Callable[..., nn.Module] = torchvision.models.get_model_builder(arch)
    return builder


def build_network(arch: str, head: Mapping[str, Any], n_points: int, channels: int) -> nn.Module:
    """Build the network that vision_learner built in training, without fastai and without weights.

    Parameters
    ----------
    arch
        The name of a torchvision ResNet.
    head
        What the recipe says of the head.
    n_points
        K.
    channels
        1 for gray, 3 for RGB.

    Returns
    -------
    nn.Module
        Maps (B, channels, S, S) float32 normalised images to (B, K, 2) float32 scaled points, or to
        (B, K, 3) where the head knows the points' scales.
    """
    body = cut_resnet(resnet(arch)(weights=None))
    if channels != 3:
        body[0] = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)  # every ResNet's stem
    return nn.Sequential(body, build_head(head, stage_widths(body), n_points))
