"""The parts of a head's output, in the layout that `heads` documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HeadOutput:
    """The output of a head for B images and K landmarks.

    Parameters
    ----------
    points
        (B, K, 2) normalized points.
    log_scales
        (B, K, 1) logarithms of Laplace scales, or (B, K, 0) if the head does not predict them.
    bins
        (B, K, 2 N) log-probabilities of the bins of a head that classifies coordinates, in training mode;
        else (B, K, 0).
    visibility
        (B, K) log-odds that the landmark is visible; None if the head does not predict them.
    """

    points: Tensor
    log_scales: Tensor
    bins: Tensor
    visibility: Tensor | None


def join_output(
    points: Tensor, log_scales: Tensor | None, visibility: Tensor | None, bins: Sequence[Tensor] = ()
) -> Tensor:
    """Return the output of a head from its parts, of which `split_output` is the inverse.

    Parameters
    ----------
    points
        (B, K, 2) normalized points.
    log_scales, visibility
        (B, K) logarithms of the scales, and log-odds; None if they are not predicted.
    bins
        (B, K, N) log-probabilities along x and along y; empty if there are none.

    Returns
    -------
    Tensor
        (B, K, C) float32.
    """
    parts = [points, *([] if log_scales is None else [log_scales[..., None]]), *bins]
    return torch.cat(parts if visibility is None else [*parts, visibility.float()[..., None]], -1)


def split_output(output: Tensor, visibility: bool) -> HeadOutput:
    """Split the output of a head.

    Parameters
    ----------
    output
        (B, K, C) float32.
    visibility
        Whether the head predicts visibility, whose log-odds are then the last of the C values.
    """
    logits = None
    if visibility:
        output, logits = output[..., :-1], output[..., -1]
    return HeadOutput(output[..., :2], output[..., 2:3], output[..., 3:], logits)
