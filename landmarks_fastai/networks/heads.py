"""Heads: modules that map the four stages of the backbone to landmarks.

Output of a head, float32:

- (B, K, 2): points (x, y) in normalized coordinates (see `coordinates`);
- (B, K, 3) if built with ``scales=True``: the third value is the logarithm of the scale b of a Laplace
  distribution of the error along x and along y, b as a fraction of the side of the image;
- (B, K, 3 + 2 N) from a head that classifies coordinates (SimCC), in training mode: the other values are the
  log-probabilities of N bins along x and of N bins along y.

A head built with ``visibility=True`` appends one more value: the log-odds that the landmark is visible, not
occluded. `outputs.split_output` takes an output apart.

To add a head:

1. Add a class of its options, with a `name`, to `config/options.py` and to the union `HeadConfig` there.
2. Write a subclass of `Head` here. Its constructor takes the channels of the stages, K, the options by name,
   `scales` and `visibility`; its forward returns one of the outputs above.
3. Add it to `HEADS`.
4. Name its submodules differently from those of other heads unless the weights are interchangeable, and give
   layers with one output per landmark K, 2 K or 4 K outputs, or extend `training.weight_transfer`. Nothing
   fails if this is forgotten: `model.init_from` then copies the layer of one landmark to another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from landmarks_fastai.errors import UserError
from landmarks_fastai.networks.coordinates import normalize_points
from landmarks_fastai.utils.text import suggest

INITIAL_LOG_SCALE = math.log(0.03)
"""Logarithm of the Laplace scale that an untrained head predicts: 3 % of the side."""

Stages = tuple[Tensor, ...]


class Head(nn.Module):
    """Base class of the heads."""

    def initialize_output(self, mean_shape: Tensor) -> None:
        """Make the untrained head predict `mean_shape`, (K, 2) normalized points, for every image.

        Heads without a bias per coordinate do nothing: those based on heatmaps start near the center of the
        image.
        """


class LinReluLinHead(Head):
    """Global average pooling, Linear, ReLU, Linear: the head of the original config.

    Parameters
    ----------
    channels
        Number of channels of each of the four stages.
    n_landmarks
        K, the number of landmarks.
    hidden
        Width of the hidden layer.
    scales
        Also predict a log scale for each landmark.
    visibility
        Also predict the log-odds that each landmark is visible.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        n_landmarks: int,
        hidden: int,
        scales: bool = False,
        visibility: bool = False,
    ) -> None:
        super().__init__()
        self.n_landmarks = n_landmarks
        self.hidden = nn.Linear(channels[-1], hidden)
        self.points = nn.Linear(hidden, 2 * n_landmarks)
        self.scales = _scale_layer(hidden, n_landmarks) if scales else None
        self.visibility = nn.Linear(hidden, n_landmarks) if visibility else None

    def forward(self, stages: Stages) -> Tensor:
        """Return the (B, K, C) output described in the module's docstring."""
        hidden = functional.relu(self.hidden(stages[-1].mean((2, 3))))
        points = self.points(hidden).float().view(-1, self.n_landmarks, 2)
        output = points if self.scales is None else _with_log_scales(points, self.scales(hidden))
        return output if self.visibility is None else _with_logits(output, self.visibility(hidden))

    def initialize_output(self, mean_shape: Tensor) -> None:
        """Set the last layer to zero weights and the bias `mean_shape`."""
        _set_constant(self.points, mean_shape)


class LinearHead(Head):
    """Global average pooling and one Linear layer.

    Parameters
    ----------
    channels, n_landmarks, scales, visibility
        See `LinReluLinHead`.
    """

    def __init__(
        self, channels: tuple[int, ...], n_landmarks: int, scales: bool = False, visibility: bool = False
    ) -> None:
        super().__init__()
        self.n_landmarks = n_landmarks
        self.points = nn.Linear(channels[-1], 2 * n_landmarks)
        self.scales = _scale_layer(channels[-1], n_landmarks) if scales else None
        self.visibility = nn.Linear(channels[-1], n_landmarks) if visibility else None

    def forward(self, stages: Stages) -> Tensor:
        """Return the (B, K, C) output described in the module's docstring."""
        pooled = stages[-1].mean((2, 3))
        points = self.points(pooled).float().view(-1, self.n_landmarks, 2)
        output = points if self.scales is None else _with_log_scales(points, self.scales(pooled))
        return output if self.visibility is None else _with_logits(output, self.visibility(pooled))

    def initialize_output(self, mean_shape: Tensor) -> None:
        """Set the layer to zero weights and the bias `mean_shape`."""
        _set_constant(self.points, mean_shape)


class SoftArgmaxHead(Head):
    """One heatmap per landmark, from the fused stages; the landmark is its expected position.

    The expected position under a softmax over all cells is integral regression (Sun et al. 2018, "Integral
    Human Pose Regression"), also known as DSNT (Nibali et al. 2018, "Numerical Coordinate Regression with
    Convolutional Neural Networks"). Unlike pooling, it keeps spatial information. The log scale of a landmark
    is the mean of a second map, weighted by the heatmap, and so are the log-odds that it is visible.

    Parameters
    ----------
    channels, n_landmarks, scales, visibility
        See `LinReluLinHead`.
    width
        Number of channels of the fused stages.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        n_landmarks: int,
        width: int,
        scales: bool = False,
        visibility: bool = False,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(stage, width, 1) for stage in channels)
        self.heatmaps = heatmap_layers(width, n_landmarks)
        self.scales: nn.Module | None = None
        if scales:
            scale_map = nn.Conv2d(width, n_landmarks, 1)
            self.scales = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), scale_map)
            assert scale_map.bias is not None
            nn.init.constant_(scale_map.bias, INITIAL_LOG_SCALE)
        self.visibility = heatmap_layers(width, n_landmarks) if visibility else None

    def forward(self, stages: Stages) -> Tensor:
        """Return the (B, K, C) output described in the module's docstring."""
        fused = fuse_stages(stages, self.lateral)
        mass = _softmax(self.heatmaps(fused).float())
        output = torch.stack([_expected_position(mass.sum(2)), _expected_position(mass.sum(3))], -1)
        if self.scales is not None:
            output = _with_log_scales(output, (mass * self.scales(fused)).sum((2, 3)))
        if self.visibility is not None:
            output = _with_logits(output, _mean_at_landmark(self.visibility(fused), mass))
        return output


class SimCCHead(Head):
    """One distribution per landmark and axis over sub-pixel bins; its expected value is the coordinate.

    Coordinate classification (Li et al. 2022, "SimCC: a Simple Coordinate Classification Perspective for
    Human Pose Estimation"): the bins are finer than the heatmap, and the loss includes their cross-entropy.
    The paper computes the distributions from the whole feature map of a landmark by a linear layer, which
    fixes the input size; here a convolution computes them from the marginals of the heatmap. The scale is the
    mean absolute deviation from the expected value.

    Parameters
    ----------
    channels, n_landmarks, width, visibility
        See `SoftArgmaxHead`.
    scales
        Also return log scales in eval mode; in training mode they are always returned.
    """

    BINS_PER_CELL = 8
    """Number of bins along each axis per cell of the heatmap: two bins per pixel of the input."""

    def __init__(
        self,
        channels: tuple[int, ...],
        n_landmarks: int,
        width: int,
        scales: bool = False,
        visibility: bool = False,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(stage, width, 1) for stage in channels)
        self.heatmaps = heatmap_layers(width, n_landmarks)
        kernel = 2 * self.BINS_PER_CELL + 1
        self.cells = nn.ModuleList(
            nn.Conv1d(n_landmarks, n_landmarks, kernel, padding=kernel // 2) for _ in "xy"
        )
        for layer in self.cells:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            nn.init.dirac_(layer.weight)  # the untrained layer returns the marginals unchanged
            nn.init.zeros_(layer.bias)
        self.scales = scales
        self.visibility = heatmap_layers(width, n_landmarks) if visibility else None

    def forward(self, stages: Stages) -> Tensor:
        """Return the (B, K, C) output described in the module's docstring."""
        fused = fuse_stages(stages, self.lateral)
        heatmaps: Tensor = self.heatmaps(fused).float()
        log_probabilities = []
        for axis, layer in zip((2, 3), self.cells, strict=True):
            marginal = heatmaps.logsumexp(axis)
            finer = functional.interpolate(marginal, scale_factor=float(self.BINS_PER_CELL), mode="linear")
            log_probabilities.append(layer(finer).float().log_softmax(-1))
        masses = [values.exp() for values in log_probabilities]
        x, y = (_expected_position(mass) for mass in masses)
        points = torch.stack([x, y], -1)
        along_x, along_y = (_mean_deviation(mass, mean) for mass, mean in zip(masses, (x, y), strict=True))
        # mean of the two axes, as a fraction of the side, which is 2 in normalized coordinates
        deviation = (along_x + along_y) / 4
        scaled = _with_log_scales(points, deviation.clamp(min=1e-4).log())
        if self.training:
            output = torch.cat([scaled, *log_probabilities], -1)
        else:
            output = scaled if self.scales else points
        if self.visibility is None:
            return output
        return _with_logits(output, _mean_at_landmark(self.visibility(fused), _softmax(heatmaps)))


class TwoProtocolHead(Head):
    """A head that learns every landmark under two annotation protocols and predicts that of the first.

    Parameters
    ----------
    head
        Head with 2 K landmarks: K under the first protocol, then the same K under the second.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, stages: Stages) -> Tensor:
        """Return the output of the head for the first K landmarks; in training mode for all 2 K."""
        both: Tensor = self.head(stages)
        return both if self.training else both[:, : both.shape[1] // 2]

    def initialize_output(self, mean_shape: Tensor) -> None:
        """Initialize both protocols with the same (K, 2) mean shape."""
        self.head.initialize_output(mean_shape.repeat(2, 1))


HEADS: Mapping[str, Callable[..., Head]] = {
    "lin-relu-lin": LinReluLinHead,
    "linear": LinearHead,
    "soft-argmax": SoftArgmaxHead,
    "simcc": SimCCHead,
}


def build_head(options: Mapping[str, Any], channels: tuple[int, ...], n_landmarks: int) -> Head:
    """Build a head.

    Parameters
    ----------
    options
        Name of the head and keyword arguments of its class: ``{"name": "lin-relu-lin", "hidden": 256}``. With
        ``"two_protocols": True`` it is wrapped in a `TwoProtocolHead`.
    channels
        Number of channels of each of the four stages.
    n_landmarks
        K, the number of landmarks.

    Raises
    ------
    UserError
        If there is no head of that name, or it has no such option.
    """
    arguments = dict(options)
    name = str(arguments.pop("name", ""))
    two_protocols = bool(arguments.pop("two_protocols", False))
    if name not in HEADS:
        raise UserError(f"no such head {name!r}; {suggest(name, HEADS)}")
    try:
        head = HEADS[name](channels, n_landmarks * (2 if two_protocols else 1), **arguments)
    except TypeError as error:
        raise UserError(f"head {name!r} cannot be built with {arguments}: {error}") from error
    return TwoProtocolHead(head) if two_protocols else head


def fuse_stages(stages: Stages, lateral: nn.ModuleList) -> Tensor:
    """Sum the stages from the coarsest to the finest, as in a feature pyramid (Lin et al. 2017).

    Parameters
    ----------
    stages
        The four stages, each half the size of the previous one.
    lateral
        One layer per stage that maps it to the common number of channels, `width`.

    Returns
    -------
    Tensor
        (B, width, S/4, S/4), the size of the first stage.
    """
    fused: Tensor = lateral[-1](stages[-1])
    for layer, stage in zip(reversed(lateral[:-1]), reversed(stages[:-1]), strict=True):
        fused = functional.interpolate(fused, size=stage.shape[-2:], mode="bilinear") + layer(stage)
    return fused


def heatmap_layers(width: int, n_landmarks: int) -> nn.Sequential:
    """Return the layers that map the fused stages to one map per landmark."""
    return nn.Sequential(
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, n_landmarks, 1),
    )


def _softmax(heatmaps: Tensor) -> Tensor:
    """Return the softmax of (B, K, H, W) heatmaps over both axes.

    Without a reshape, in which the ONNX export would lose the dimension K.
    """
    mass = torch.exp(heatmaps - heatmaps.amax((2, 3), keepdim=True))
    return mass / mass.sum((2, 3), keepdim=True)


def _mean_at_landmark(values: Tensor, mass: Tensor) -> Tensor:
    """Return the (B, K) means of (B, K, H, W) maps, weighted by the distributions of the landmarks.

    The weights are detached, so that visibility does not train the positions.
    """
    return (values.float() * mass.detach()).sum((2, 3))


def bin_centers(bins: Tensor) -> Tensor:
    """Return the (n,) normalized centers of the bins, the last dimension of (…, n), which span the image."""
    n = bins.shape[-1]
    return normalize_points(torch.arange(n, device=bins.device, dtype=bins.dtype), n)


def _mean_deviation(mass: Tensor, mean: Tensor) -> Tensor:
    """Return the (B, K) mean absolute deviations of (B, K, n) distributions from their (B, K) `mean`."""
    return (mass * (bin_centers(mass) - mean[..., None]).abs()).sum(-1)


def _expected_position(mass: Tensor) -> Tensor:
    """Return the (B, K) expected values of (B, K, n) distributions."""
    return (mass * bin_centers(mass)).sum(-1)


def _set_constant(layer: nn.Linear, points: Tensor) -> None:
    """Make a linear layer return the (K, 2) `points` for every input."""
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(points.flatten())


def _scale_layer(width: int, n_landmarks: int) -> nn.Linear:
    """Return the layer that maps (B, width) features to (B, K) log scales."""
    layer = nn.Linear(width, n_landmarks)
    nn.init.constant_(layer.bias, INITIAL_LOG_SCALE)
    return layer


def _with_log_scales(points: Tensor, log_scales: Tensor) -> Tensor:
    """Append (B, K) log scales, clamped to scales from 0.001 to 1 of the side, to (B, K, 2) points."""
    return torch.cat([points, log_scales.float().clamp(math.log(1e-3), 0.0)[..., None]], -1)


def _with_logits(output: Tensor, logits: Tensor) -> Tensor:
    """Append (B, K) log-odds of being visible to a (B, K, C) output."""
    return torch.cat([output, logits.float()[..., None]], -1)
