"""Augmentation of a whole batch at once, on its device: every step moves image and points together.

Works on pixels: (x, y), the centre of the top-left pixel is (0, 0). One matrix carries all that is
geometric, so that the image is sampled once. Knows nothing about recipes' files or about scaling
points for the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from fastai.vision.all import ItemTransform, TensorImage, TensorPoint
from torch import Tensor
from torch.nn import functional

from landmarks_fastai.config import Augment, NoAugment, OriginAugment, StandardAugment
from landmarks_fastai.errors import UserError

# --- geometry ------------------------------------------------------------------------------------


def uniform(low: float, high: float, images: Tensor) -> Tensor:
    """Draw one number for each image: (B,)."""
    return torch.empty(len(images), device=images.device).uniform_(low, high)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Return (B, 3, 3) matrices that move points by `x` and `y` pixels, both (B,)."""
    matrix = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def turn_and_scale(angle: Tensor, scale: Tensor) -> Tensor:
    """Return (B, 3, 3) matrices about the origin that turn by `angle` radians and scale."""
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 1] = cos, -sin
    matrix[:, 1, 0], matrix[:, 1, 1] = sin, cos
    return matrix


def about_centres(matrix: Tensor, size_in: int, size_out: int) -> Tensor:
    """Apply (B, 3, 3) `matrix` about the image's centre, and bring that to the output's centre."""
    ones = torch.ones(len(matrix), device=matrix.device)
    centre_in, centre_out = (size_in - 1) / 2 * ones, (size_out - 1) / 2 * ones
    return translation(centre_out, centre_out) @ matrix @ translation(-centre_in, -centre_in)


def warp_points(points: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Move (B, K, 2) points with (B, 3, 3) `matrix`; NaN for those that leave a frame of `size` px."""
    moved = points @ matrix[:, :2, :2].transpose(1, 2) + matrix[:, None, :2, 2]
    outside = ((moved < -0.5) | (moved > size - 0.5)).any(-1, keepdim=True)
    return moved.masked_fill(outside, math.nan)


def warp_images(images: Tensor, matrix: Tensor, size: int, noise: Tensor | None = None) -> Tensor:
    """Sample (B, C, S, S) images where (B, 3, 3) `matrix` brings them, into (B, C, size, size).

    Outside of the image its edge is repeated; for the rows that the mask `noise` (B,) picks, noise.
    """
    inverse = torch.linalg.inv(matrix)
    line = torch.arange(size, device=images.device, dtype=matrix.dtype)
    x = line.expand(size, size)
    pixels = torch.stack([x, x.T, torch.ones_like(x)], -1).view(1, -1, 3)
    source = (pixels @ inverse[:, :2].transpose(1, 2)).view(len(images), size, size, 2)
    # grid_sample with align_corners=False puts the image's edges at -1 and 1
    grid = (2 * source + 1) / images.shape[-1] - 1
    out = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if noise is None:
        return out
    outside = (grid.abs() > 1).any(-1)[:, None] & noise[:, None, None, None]
    return torch.where(outside, torch.rand_like(out), out)


def mirror_faces(
    images: Tensor, points: Tensor, mirror: Tensor, flip_index: Sequence[int], label_shift: float
) -> tuple[Tensor, Tensor]:
    """Mirror the (B, C, S, S) images and (B, K, 2) points that the mask `mirror` (B,) picks.

    Left and right change their names. Labels that lie `label_shift` of the side to the right of what they
    mark lie so in a mirrored image too, where the mere mirror image of them would lie to the left.
    """
    size = images.shape[-1]
    swapped = points[:, list(flip_index)]
    x = size - 1 - swapped[..., 0] + 2 * label_shift * size
    back = torch.stack([x, swapped[..., 1]], -1)
    return torch.where(_each(mirror), images.flip(-1), images), torch.where(
        mirror[:, None, None], back, points
    )


# --- light ---------------------------------------------------------------------------------------


def _each(values: Tensor) -> Tensor:
    """Shape (B,) so that it multiplies (B, C, S, S)."""
    return values[:, None, None, None]


def contrast_and_light(images: Tensor, contrast: Tensor, light: Tensor) -> Tensor:
    """Multiply the distance from each image's mean by `contrast` and add `light`, both (B,)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * _each(contrast) + mean + _each(light)


def colour(images: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Scale and turn the chroma of RGB images; `hue` (B,) is in turns. Gray images stay as they are.

    The turn is done in YIQ, where luma stays the same.
    """
    if images.shape[1] != 3:
        return images
    to_yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=images.device
    )
    cos, sin = torch.cos(2 * math.pi * hue) * saturation, torch.sin(2 * math.pi * hue) * saturation
    chroma = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    chroma[:, 1, 1], chroma[:, 1, 2], chroma[:, 2, 1], chroma[:, 2, 2] = cos, -sin, sin, cos
    return torch.einsum("bij,bjhw->bihw", torch.linalg.inv(to_yiq) @ chroma @ to_yiq, images)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed copy: `factor` (B,) 0 is smooth, 1 the image, above 1 sharper."""
    kernel = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]], device=images.device) / 13
    channels = images.shape[1]
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    smooth = functional.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)
    return smooth + (images - smooth) * _each(factor)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each of (B, C, S, S) images by a Gaussian of its own `sigma` (B,), px; 0 leaves it as it is."""
    reach = math.ceil(3 * float(sigma.max()))
    if not reach:
        return images
    line = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (line / sigma.clamp(min=1e-3)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    # every channel of every image is a group of its own
    flat = functional.pad(images, [reach] * 4, mode="replicate").flatten(0, 1)[None]
    flat = functional.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    return functional.conv2d(flat, kernel[:, None, :, None], groups=len(kernel)).view_as(images)


def erase(images: Tensor, area: Tensor, chosen: Tensor) -> Tensor:
    """Cover a rectangle of (B,) `area` (share of the image) with noise where `chosen` (B,) says so.

    After Zhong et al. 2020, Random Erasing: the aspect lies between 0.3 and 3.3. The points below stay
    labelled: a hidden eye is where it is.
    """
    size = images.shape[-1]
    aspect = torch.exp(uniform(math.log(0.3), math.log(3.3), images))
    width = ((area * aspect).sqrt() * size).clamp(max=size)
    height = ((area / aspect).sqrt() * size).clamp(max=size)
    left = uniform(0, 1, images) * (size - width)
    top = uniform(0, 1, images) * (size - height)
    line = torch.arange(size, device=images.device)
    columns = (line >= left[:, None]) & (line < (left + width)[:, None])
    rows = (line >= top[:, None]) & (line < (top + height)[:, None])
    covered = rows[:, None, :, None] & columns[:, None, None, :] & _each(chosen)
    return torch.where(covered, torch.rand_like(images), images)


# --- the two augmentations -----------------------------------------------------------------------


HARD_ROTATE = 60.0
"""± degrees."""

HARD_BLUR = 0.03
"""Standard deviation at most, as a share of the side: as of a face 16 px wide."""

HARD_DARK = 0.15
"""Share of the light that is left at least."""

HARD_NOISE = 0.08
"""Standard deviation at most, as a share of white."""

HARD_COVER = 0.3
"""Share of the image at most."""


def standard(images: Tensor, points: Tensor, size: int, options: StandardAugment) -> tuple[Tensor, Tensor]:
    """Turn, scale, shift, light, contrast, blur and erase, all moderate but for the hard ones."""
    hard = uniform(0, 1, images) < options.hard

    def hardly() -> Tensor:
        """Pick half of the hard images, (B,): each hardship comes with any other."""
        return hard & (uniform(0, 1, images) < 0.5)

    angle = uniform(-options.rotate, options.rotate, images)
    angle = torch.where(hardly(), uniform(-HARD_ROTATE, HARD_ROTATE, images), angle) * math.pi / 180
    bound = math.log1p(options.scale)
    scale = torch.exp(uniform(-bound, bound, images)) * size / images.shape[-1]
    shift = [uniform(-options.shift, options.shift, images) * size for _ in range(2)]
    matrix = translation(*shift) @ about_centres(turn_and_scale(angle, scale), images.shape[-1], size)
    points = warp_points(points, matrix, size)
    images = warp_images(images, matrix, size)
    images = sharpness(images, (uniform(0, 1, images) >= options.blur).float())
    images = blur(images, uniform(0, HARD_BLUR * size, images) * hardly())
    contrast = torch.exp(uniform(-options.contrast, options.contrast, images))
    images = contrast_and_light(images, contrast, uniform(-options.light, options.light, images))
    images = images * _each(torch.where(hardly(), uniform(HARD_DARK, 1, images), 1.0))
    images = images + torch.randn_like(images) * _each(uniform(0, HARD_NOISE, images) * hardly())
    covered, area = hardly(), uniform(0.01, 0.1, images)
    area = torch.where(covered, uniform(0.1, HARD_COVER, images), area)
    images = erase(images, area, covered | (uniform(0, 1, images) < options.erase))
    return images.clamp(0, 1), points


def origin(images: Tensor, points: Tensor, size: int, options: OriginAugment) -> tuple[Tensor, Tensor]:
    """Do what the origin did: light and sharpness, erasing, scale-up, placement, crop, full rotation."""
    j = options.jitter
    images = contrast_and_light(images * _each(uniform(1 - j, 1 + j, images)), uniform(1 - j, 1 + j, images),
                                torch.zeros(len(images), device=images.device))  # fmt: skip
    images = colour(images, uniform(1 - j, 1 + j, images), uniform(-min(j, 0.5), min(j, 0.5), images))
    images = sharpness(images.clamp(0, 1), uniform(0, options.sharpness, images))
    everywhere = torch.ones(len(images), dtype=torch.bool, device=images.device)
    images = erase(images, uniform(options.erase / 2, options.erase, images), everywhere).clamp(0, 1)
    # the face, enlarged at random up to the whole frame, stands anywhere in it …
    face = images.shape[-1]
    side = uniform(min(face, size), size, images)
    straight = torch.zeros(len(images), device=images.device)
    matrix = about_centres(turn_and_scale(straight, side / face), face, size)
    matrix = translation(*((size - side) * uniform(-0.5, 0.5, images) for _ in range(2))) @ matrix
    # … then up to `crop` of the side is cut away at any side, and the rest fills the frame again …
    kept = 1 - uniform(0, options.crop, images)
    shift = [size * (1 - kept) * uniform(-0.5, 0.5, images) for _ in range(2)]
    matrix = about_centres(turn_and_scale(straight, 1 / kept) @ translation(*shift), size, size) @ matrix
    # … and the whole turns about its centre
    angle = uniform(-options.rotate, options.rotate, images) * math.pi / 180
    matrix = about_centres(turn_and_scale(angle, torch.ones_like(angle)), size, size) @ matrix
    noise = uniform(0, 1, images) < options.noise_fill
    return warp_images(images, matrix, size, noise), warp_points(points, matrix, size)


def unchanged(images: Tensor, points: Tensor, size: int, options: NoAugment) -> tuple[Tensor, Tensor]:
    """Leave the faces as they are."""
    return images, points


AUGMENTATIONS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "standard": standard,
    "origin": origin,
    "none": unchanged,
}


class AugmentBatch(ItemTransform):
    """fastai's transform for training batches: (TensorImage 0…1, TensorPoint px) to the same at `size`.

    Parameters
    ----------
    options
        What the recipe says.
    size
        Side of the images that come out, px.
    flip_index
        Under which number each point stands in a mirrored face.

    Raises
    ------
    UserError
        If faces are to be mirrored and the schema names no flip pairs.
    """

    order = 20  # after bytes became numbers (10), before the points are scaled and the image normalised
    split_idx = 0

    def __init__(self, options: Augment, size: int, flip_index: Sequence[int]) -> None:
        super().__init__()
        if isinstance(options, StandardAugment) and options.flip and list(flip_index) == sorted(flip_index):
            raise UserError(
                "augment.flip: the schema names no flip pairs, so a mirrored face would have left and right "
                "wrong; name the points left_…/right_…, or set augment.flip=0"
            )
        self.options, self.size, self.flip_index = options, size, tuple(flip_index)
        self.flip = options.flip if isinstance(options, StandardAugment) else 0.0
        self.label_shift = (options.label_shift or 0.0) if isinstance(options, StandardAugment) else 0.0
        self.mirrored = torch.zeros(0, dtype=torch.bool)  # which faces of the last batch are

    def encodes(self, batch: Any) -> Any:
        """Augment (images, points)."""
        images, points = (part.as_subclass(Tensor) for part in batch)
        self.mirrored = uniform(0, 1, images) < self.flip
        images, points = mirror_faces(images, points, self.mirrored, self.flip_index, self.label_shift)
        images, points = AUGMENTATIONS[self.options.name](images, points, self.size, self.options)
        return TensorImage(images), TensorPoint(points)
