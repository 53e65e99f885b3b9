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
4. If it returns more in training than in eval mode, set `has_training_output` and override `evaluated`.
5. Name its submodules differently from those of other heads unless the weights are interchangeable. Nothing
   fails if this is forgotten: `model.init_from` then copies layers that have another meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from landmarks_fastai.errors import UserError
from landmarks_fastai.networks.heatmaps import (
    Stages,
    expected_position,
    fuse_stages,
    heatmap_layers,
    mean_deviation,
    spatial_softmax,
    visibility_at_landmark,
)
from landmarks_fastai.networks.outputs import join_output, split_output
from landmarks_fastai.utils.text import quote, shorten, suggest

INITIAL_LOG_SCALE = math.log(0.03)
"""Logarithm of the Laplace scale that an untrained head predicts: 3 % of the side."""


class Head(nn.Module):
    """Base class of the heads.

    Attributes
    ----------
    has_training_output
        Whether the output in training mode has values that the output in eval mode lacks (`evaluated`).
    """

    has_training_output = False

    def initialize_output(self, mean_shape: Tensor) -> None:
        """Make the untrained head predict `mean_shape`, (K, 2) normalized points, for every image.

        Heads without a bias per coordinate do nothing: those based on heatmaps start near the center of the
        image.
        """

    def evaluated(self, output: Tensor) -> Tensor:
        """Return the part of an output in training mode that the head returns in eval mode, too."""
        return output


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
        return join_output(points, _log_scales(self.scales, hidden), _optional(self.visibility, hidden))

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
        return join_output(points, _log_scales(self.scales, pooled), _optional(self.visibility, pooled))

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
        mass = spatial_softmax(self.heatmaps(fused).float())
        points = torch.stack([expected_position(mass.sum(2)), expected_position(mass.sum(3))], -1)
        scales = None if self.scales is None else _clamp((mass * self.scales(fused)).sum((2, 3)))
        return join_output(points, scales, visibility_at_landmark(self.visibility, fused, mass))


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

    has_training_output = True

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
        x, y = (expected_position(mass) for mass in masses)
        points = torch.stack([x, y], -1)
        along_x, along_y = (mean_deviation(mass, mean) for mass, mean in zip(masses, (x, y), strict=True))
        # mean of the two axes, as a fraction of the side, which is 2 in normalized coordinates
        deviation = (along_x + along_y) / 4
        scales = _clamp(deviation.clamp(min=1e-4).log()) if self.scales or self.training else None
        visibility = visibility_at_landmark(self.visibility, fused, spatial_softmax(heatmaps))
        return join_output(points, scales, visibility, log_probabilities if self.training else ())

    def evaluated(self, output: Tensor) -> Tensor:
        """Leave out the bins and, unless they were requested, the scales."""
        parts = split_output(output, visibility=self.visibility is not None)
        return join_output(parts.points, parts.log_scales[..., 0] if self.scales else None, parts.visibility)


class TwoProtocolHead(Head):
    """A head that learns every landmark under two annotation protocols and predicts that of the first.

    Parameters
    ----------
    head
        Head with 2 K landmarks: K under the first protocol, then the same K under the second.
    """

    has_training_output = True

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, stages: Stages) -> Tensor:
        """Return the output of the head for the first K landmarks; in training mode for all 2 K."""
        both: Tensor = self.head(stages)
        return both if self.training else both[:, : both.shape[1] // 2]

    def evaluated(self, output: Tensor) -> Tensor:
        """Leave out the landmarks of the second protocol."""
        return self.head.evaluated(output[:, : output.shape[1] // 2])

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
        raise UserError(f"no such head {quote(name)}; {suggest(name, HEADS)}")
    try:
        head = HEADS[name](channels, n_landmarks * (2 if two_protocols else 1), **arguments)
    except TypeError as error:
        given = quote(arguments, 100)
        raise UserError(f"head {name!r} cannot be built with {given}: {shorten(str(error), 100)}") from error
    return TwoProtocolHead(head) if two_protocols else head


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


def _optional(layer: nn.Module | None, features: Tensor) -> Tensor | None:
    """Return the output of a layer; None if the head does not have it."""
    return None if layer is None else layer(features)


def _log_scales(layer: nn.Module | None, features: Tensor) -> Tensor | None:
    """Return the (B, K) log scales of a layer; None if the head does not have it."""
    return None if layer is None else _clamp(layer(features))


def _clamp(log_scales: Tensor) -> Tensor:
    """Clamp log scales to scales from 0.001 to 1 of the side."""
    return log_scales.float().clamp(math.log(1e-3), 0.0)
