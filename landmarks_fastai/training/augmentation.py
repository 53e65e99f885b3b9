"""Augmentation of whole batches on their device, with images and points transformed together.

Points are pixels (x, y); the center of the top-left pixel is (0, 0). All geometric steps are combined into
one matrix, so that each image is warped only once.

To add an augmentation:

1. Add a class of its options, with a `name`, to `config/options.py` and to the union `AugmentConfig` there.
2. Write a function of (images, points, size, options) here that returns images of side `size` and their
   points, and add it to `AUGMENTATIONS`. Images are (B, C, S, S) from 0 to 1, points (B, K, 2) pixels.
   With visibility, points are (B, K, 3), see `LoadPoints`; pass the third value on.
3. Transform the points by the matrix of the images, with `warp_points`, which also masks those that leave the
   image. Nothing fails if this is forgotten: the network is trained on wrong labels.
4. Do not mirror in the function: `AugmentBatch` does it for the option classes in `_mirror_options`. Add the
   class there if it has the options `flip` and `label_bias`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from fastai.vision.all import ItemTransform, TensorImage, TensorPoint
from torch import Tensor
from torch.nn import functional

from landmarks_fastai.config.options import AugmentConfig, NoAugment, OriginalAugment, StandardAugment
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import outside_square
from landmarks_fastai.training.resampling import resize_images

# --- geometry ------------------------------------------------------------------------------------


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Return (B, 3, 3) matrices that translate points by `x` and `y`, both (B,) pixels."""
    matrix = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def rotation_and_scale(angle: Tensor, scale: Tensor) -> Tensor:
    """Return (B, 3, 3) matrices that rotate by (B,) `angle`, radians, and scale about the origin."""
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 1] = cos, -sin
    matrix[:, 1, 0], matrix[:, 1, 1] = sin, cos
    return matrix


def about_centers(matrix: Tensor, size_in: int, size_out: int) -> Tensor:
    """Return the (B, 3, 3) transform that applies `matrix` about the center of the input image.

    The center of the input, of side `size_in`, is mapped to the center of the output, of side `size_out`.
    """
    ones = torch.ones(len(matrix), device=matrix.device)
    center_in, center_out = (size_in - 1) / 2 * ones, (size_out - 1) / 2 * ones
    return translation(center_out, center_out) @ matrix @ translation(-center_in, -center_in)


def invert_affine(matrix: Tensor) -> Tensor:
    """Return the first two rows of the inverses of (B, 3, 3) affine transforms: (B, 2, 3).

    The closed form, because `torch.linalg.inv` waits for a GPU to know whether it has failed.
    """
    (a, b, x), (c, d, y) = matrix[:, 0].unbind(-1), matrix[:, 1].unbind(-1)
    rows = [torch.stack([d, -b, b * y - d * x], -1), torch.stack([-c, a, c * x - a * y], -1)]
    return torch.stack(rows, 1) / (a * d - b * c)[:, None, None]


def warp_points(points: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Transform (B, K, 2 or 3) points by (B, 3, 3) `matrix`; outside an image of side `size` they become NaN.

    So does their visibility, the third value: a landmark that leaves the image is unlabeled.
    """
    moved = points[..., :2] @ matrix[:, :2, :2].transpose(1, 2) + matrix[:, None, :2, 2]
    labels = torch.cat([moved, points[..., 2:]], -1)
    return labels.masked_fill(outside_square(moved, size)[..., None], math.nan)


def warp_images(images: Tensor, matrix: Tensor, size: int, noise: Tensor | None = None) -> Tensor:
    """Transform (B, C, S, S) images by (B, 3, 3) `matrix` to (B, C, size, size).

    They are sampled bilinearly with as many pixels as they have, and then reduced like the crops of a
    prediction, which are antialiased: otherwise, the network would learn from sharper images than it predicts
    on. The identity gives exactly the crop of the prediction.

    Outside the image, edge pixels are repeated; in the rows that the (B,) mask `noise` selects, the area is
    filled with noise instead.
    """
    grid = _sampling_grid(matrix, images.shape[-1], size, max(images.shape[-1], size))
    sampled = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    out = resize_images(sampled, size)
    if noise is None:
        return out
    grid = _sampling_grid(matrix, images.shape[-1], size, size)
    outside = (grid.abs() > 1).any(-1)[:, None] & noise[:, None, None, None]
    return torch.where(outside, torch.rand_like(out), out)


def _sampling_grid(matrix: Tensor, size_in: int, size_out: int, samples: int) -> Tensor:
    """Return the positions in the input, (B, samples, samples, 2), of equally spaced samples of the output.

    In the coordinates of grid_sample with align_corners=False, where the edges of the image are -1 and 1.
    """
    inverse = invert_affine(matrix)
    line = torch.arange(samples, device=matrix.device, dtype=matrix.dtype)
    x = ((line + 0.5) * (size_out / samples) - 0.5).expand(samples, samples)
    pixels = torch.stack([x, x.T, torch.ones_like(x)], -1).view(1, -1, 3)
    source = (pixels @ inverse.transpose(1, 2)).view(len(matrix), samples, samples, 2)
    return (2 * source + 1) / size_in - 1


def flip_horizontally(
    images: Tensor, points: Tensor, mirrored: Tensor, flip_index: Sequence[int], label_bias: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Mirror some rows of a batch and exchange their left and right landmarks.

    The label bias keeps its direction: labels that are too far right in an image are too far right in the
    mirrored image, too, whereas a plain flip would place them too far left.

    Parameters
    ----------
    images, points
        (B, C, S, S), and (B, K, 2) pixels, or (B, K, 3) with visibility.
    mirrored
        (B,) mask of the rows to mirror.
    flip_index
        For each landmark, the index of the landmark that takes its place (`LandmarkSchema.flip_index`).
    label_bias
        How far labels lie to the right of the true positions, as a fraction of the side.
    """
    size = images.shape[-1]
    swapped = points[:, constant(tuple(flip_index), points.device)]
    x = size - 1 - swapped[..., 0] + 2 * label_bias * size
    mirrored_points = torch.cat([x[..., None], swapped[..., 1:]], -1)
    return (
        torch.where(_per_image(mirrored), images.flip(-1), images),
        torch.where(mirrored[:, None, None], mirrored_points, points),
    )


@lru_cache(maxsize=64)
def constant(values: Any, device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device, to which they are copied only once; it must not be modified."""
    return torch.tensor(values, device=device)


# --- pixel values --------------------------------------------------------------------------------


TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
FROM_YIQ = tuple(map(tuple, torch.linalg.inv(torch.tensor(TO_YIQ)).tolist()))

SMOOTHING = ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 1.0))
"""Weights of `adjust_sharpness`, whose sum is 13, as those of Pillow."""


def adjust_contrast_and_brightness(images: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Multiply the difference from the mean of each image by (B,) `contrast` and add (B,) `brightness`."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * _per_image(contrast) + mean + _per_image(brightness)


def adjust_color(images: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Scale the chroma of RGB images by (B,) `saturation` and rotate it by (B,) `hue`, in turns of 360°.

    The rotation takes place in YIQ, where it preserves luma. Gray images are returned unchanged.
    """
    if images.shape[1] != 3:
        return images
    to_yiq, from_yiq = constant(TO_YIQ, images.device), constant(FROM_YIQ, images.device)
    cos, sin = torch.cos(2 * math.pi * hue) * saturation, torch.sin(2 * math.pi * hue) * saturation
    chroma = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    chroma[:, 1, 1], chroma[:, 1, 2], chroma[:, 2, 1], chroma[:, 2, 2] = cos, -sin, sin, cos
    return torch.einsum("bij,bjhw->bihw", from_yiq @ chroma @ to_yiq, images)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with a smoothed copy: (B,) `factor` 0 is smoothed, 1 unchanged, above 1 sharper."""
    kernel = constant(SMOOTHING, images.device) / 13
    channels = images.shape[1]
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    smooth = functional.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)
    return smooth + (images - smooth) * _per_image(factor)


def blur(images: Tensor, sigma: Tensor, max_sigma: float) -> Tensor:
    """Blur (B, C, S, S) images with Gaussians of (B,) standard deviations `sigma`, pixels; 0: unchanged.

    On a CPU, the kernel is as large as the largest standard deviation requires. Reading it from another
    device would wait for that device, so there the kernel is as large as the bound `max_sigma` requires.
    """
    radius = math.ceil(3 * (float(sigma.max()) if sigma.device.type == "cpu" else max_sigma))
    if not radius:
        return images
    line = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (line / sigma.clamp(min=1e-3)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    # grouped convolution with one group per channel of each image
    flat = functional.pad(images, [radius] * 4, mode="replicate").flatten(0, 1)[None]
    flat = functional.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    return functional.conv2d(flat, kernel[:, None, :, None], groups=len(kernel)).view_as(images)


def erase(images: Tensor, points: Tensor, area: Tensor, selected: Tensor) -> tuple[Tensor, Tensor]:
    """Cover a rectangle with noise in the rows that the (B,) mask `selected` selects.

    Random Erasing (Zhong et al. 2020) with aspect ratios from 0.3 to 3.3 and (B,) `area` as a fraction of the
    image. Landmarks in the rectangle stay labeled, because an occluded landmark still has a position, but
    become occluded if the (B, K, 2 or 3) `points` have visibility.
    """
    size = images.shape[-1]
    aspect = torch.exp(_uniform(math.log(0.3), math.log(3.3), images))
    width = ((area * aspect).sqrt() * size).clamp(max=size)
    height = ((area / aspect).sqrt() * size).clamp(max=size)
    left = _uniform(0, 1, images) * (size - width)
    top = _uniform(0, 1, images) * (size - height)
    line = torch.arange(size, device=images.device) + 0.5  # distances of the pixels' centers from the edge
    columns = (line >= left[:, None]) & (line < (left + width)[:, None])
    rows = (line >= top[:, None]) & (line < (top + height)[:, None])
    covered = rows[:, None, :, None] & columns[:, None, None, :] & _per_image(selected)
    erased = torch.where(covered, torch.rand_like(images), images)
    return erased, _occlude(points, covered[:, 0])


def _occlude(points: Tensor, covered: Tensor) -> Tensor:
    """Set the known visibility of (B, K, 3) points to 0 where the (B, S, S) mask `covered` is True."""
    if points.shape[-1] == 2:
        return points
    x, y = (points[..., :2].nan_to_num().round().long().clamp(0, covered.shape[-1] - 1)).unbind(-1)
    row = torch.arange(len(points), device=points.device)[:, None]
    occluded = covered[row, y, x] & ~points[..., 2].isnan()
    visibility = points[..., 2].masked_fill(occluded, 0.0)
    return torch.cat([points[..., :2], visibility[..., None]], -1)


def _uniform(low: float, high: float, images: Tensor) -> Tensor:
    """Sample one number per image, (B,), from a uniform distribution."""
    return torch.empty(len(images), device=images.device).uniform_(low, high)


def _per_image(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1), which broadcasts against (B, C, S, S)."""
    return values[:, None, None, None]


# --- the augmentations ---------------------------------------------------------------------------

# strengths of the changes in a hard example, see `StandardAugment.hard`

HARD_ROTATE = 60.0
"""Maximum rotation, ± degrees."""

HARD_BLUR = 0.03
"""Maximum standard deviation of the blur as a fraction of the side: like a face about 16 pixels wide."""

HARD_DARK = 0.15
"""Minimum factor by which pixel values are multiplied."""

HARD_NOISE = 0.08
"""Maximum standard deviation of the noise, for pixel values from 0 to 1."""

HARD_COVER = 0.3
"""Maximum erased fraction of the image."""


def standard(images: Tensor, points: Tensor, size: int, options: StandardAugment) -> tuple[Tensor, Tensor]:
    """Rotate, scale, shift, blur, change contrast and brightness, and erase; strongly in hard examples."""
    hard = _uniform(0, 1, images) < options.hard

    def select_hard() -> Tensor:
        """Return a (B,) mask of a random half of the hard rows, new in each call, so that changes combine."""
        return hard & (_uniform(0, 1, images) < 0.5)

    angle = _uniform(-options.rotate, options.rotate, images)
    angle = torch.where(select_hard(), _uniform(-HARD_ROTATE, HARD_ROTATE, images), angle) * math.pi / 180
    bound = math.log1p(options.scale)
    scale = torch.exp(_uniform(-bound, bound, images)) * size / images.shape[-1]
    shift = [_uniform(-options.shift, options.shift, images) * size for _ in range(2)]
    matrix = translation(*shift) @ about_centers(rotation_and_scale(angle, scale), images.shape[-1], size)
    points = warp_points(points, matrix, size)
    images = warp_images(images, matrix, size)
    images = adjust_sharpness(images, (_uniform(0, 1, images) >= options.blur).float())
    sigma = _uniform(0, HARD_BLUR * size, images) * select_hard()
    if options.hard:
        images = blur(images, sigma, HARD_BLUR * size)
    contrast = torch.exp(_uniform(-options.contrast, options.contrast, images))
    brightness = _uniform(-options.brightness, options.brightness, images)
    images = adjust_contrast_and_brightness(images, contrast, brightness)
    images = images * _per_image(torch.where(select_hard(), _uniform(HARD_DARK, 1, images), 1.0))
    images = images + torch.randn_like(images) * _per_image(_uniform(0, HARD_NOISE, images) * select_hard())
    covered, area = select_hard(), _uniform(0.01, 0.1, images)
    area = torch.where(covered, _uniform(0.1, HARD_COVER, images), area)
    selected = covered | (_uniform(0, 1, images) < options.erase)
    images, points = erase(images, points, area, selected)
    return images.clamp(0, 1), points


def original(images: Tensor, points: Tensor, size: int, options: OriginalAugment) -> tuple[Tensor, Tensor]:
    """Apply the augmentation of the original config.

    Pixel values change first: brightness, contrast, color, sharpness and erasing. Then each image is resized
    to a random side up to `size`, placed at random, cropped, resized to `size`, and rotated.
    """
    images, points = _original_pixels(images, points, options)
    side_in = images.shape[-1]
    side = _uniform(min(side_in, size), size, images)
    upright = torch.zeros(len(images), device=images.device)
    matrix = about_centers(rotation_and_scale(upright, side / side_in), side_in, size)
    matrix = translation(*((size - side) * _uniform(-0.5, 0.5, images) for _ in range(2))) @ matrix
    kept = 1 - _uniform(0, options.crop, images)
    shift = [size * (1 - kept) * _uniform(-0.5, 0.5, images) for _ in range(2)]
    matrix = about_centers(rotation_and_scale(upright, 1 / kept) @ translation(*shift), size, size) @ matrix
    angle = _uniform(-options.rotate, options.rotate, images) * math.pi / 180
    matrix = about_centers(rotation_and_scale(angle, torch.ones_like(angle)), size, size) @ matrix
    noise = _uniform(0, 1, images) < options.noise_fill
    return warp_images(images, matrix, size, noise), warp_points(points, matrix, size)


def _original_pixels(images: Tensor, points: Tensor, options: OriginalAugment) -> tuple[Tensor, Tensor]:
    """Change brightness, contrast, saturation, hue and sharpness, and erase a rectangle."""
    jitter = options.jitter
    unchanged = torch.zeros(len(images), device=images.device)
    images = images * _per_image(_uniform(1 - jitter, 1 + jitter, images))
    images = adjust_contrast_and_brightness(images, _uniform(1 - jitter, 1 + jitter, images), unchanged)
    saturation = _uniform(1 - jitter, 1 + jitter, images)
    images = adjust_color(images, saturation, _uniform(-min(jitter, 0.5), min(jitter, 0.5), images))
    images = adjust_sharpness(images.clamp(0, 1), _uniform(0, options.sharpness, images))
    all_rows = torch.ones(len(images), dtype=torch.bool, device=images.device)
    area = _uniform(options.erase / 2, options.erase, images)
    images, points = erase(images, points, area, all_rows)
    return images.clamp(0, 1), points


def identity(images: Tensor, points: Tensor, size: int, options: NoAugment) -> tuple[Tensor, Tensor]:
    """Return the batch unchanged; `ResizeToInput` resizes it later."""
    return images, points


AUGMENTATIONS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "standard": standard,
    "original": original,
    "none": identity,
}


class AugmentBatch(ItemTransform):
    """fastai transform that augments training batches of images, from 0 to 1, and points in pixels.

    Parameters
    ----------
    options
        The augmentation and its options.
    size
        Side of the resulting images in pixels.
    flip_index
        For each landmark, the index of the landmark that takes its place in a mirrored image.

    Attributes
    ----------
    flip
        Probability of a horizontal flip.
    label_bias
        Horizontal offset of all labels, as a fraction of the side.
    estimates_label_bias
        Whether the label bias is to be estimated during training (`EstimateLabelBias`).
    mirrored
        (B,) mask of the rows of the last batch that were mirrored.

    Raises
    ------
    UserError
        If images are to be mirrored but the schema has no flip pairs.
    """

    order = 20  # after the conversion to floats (10), before points and pixels are normalized
    split_idx = 0

    def __init__(self, options: AugmentConfig, size: int, flip_index: Sequence[int]) -> None:
        super().__init__()
        self.options, self.size, self.flip_index = options, size, tuple(flip_index)
        self.flip, label_bias = _mirror_options(options)
        if self.flip and list(flip_index) == sorted(flip_index):
            raise UserError(
                "augment.flip: the schema has no flip pairs, so left and right would be wrong in a mirrored"
                " image; name the landmarks left_…/right_…, name the pairs in a schema file (`data"
                " --schema-template` writes one, --schema uses it), or set augment.flip=0"
            )
        self.estimates_label_bias = self.flip > 0 and label_bias is None
        self.label_bias = label_bias or 0.0
        self.mirrored = torch.zeros(0, dtype=torch.bool)

    @property
    def label_bias(self) -> float:
        """The label bias; reading it waits for the device that it is estimated on."""
        return float(self._label_bias)

    @label_bias.setter
    def label_bias(self, value: float) -> None:
        self._label_bias: float | Tensor = value

    def correct_label_bias(self, correction: Tensor) -> None:
        """Add a scalar on the device of the batches to the label bias, without waiting for the device."""
        self._label_bias = correction + self._label_bias

    def augment(self, images: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mirror and augment (B, C, S, S) images from 0 to 1 and their (B, K, 2 or 3) points in pixels."""
        self.mirrored = _uniform(0, 1, images) < self.flip
        images, points = flip_horizontally(images, points, self.mirrored, self.flip_index, self._label_bias)
        return AUGMENTATIONS[self.options.name](images, points, self.size, self.options)

    def encodes(self, batch: Any) -> Any:
        """Augment a batch; called by fastai."""
        images, points = self.augment(*(part.as_subclass(Tensor) for part in batch))
        return TensorImage(images), TensorPoint(points)


def _mirror_options(options: AugmentConfig) -> tuple[float, float | None]:
    """Return the probability of a horizontal flip, and the label bias, None if it is to be estimated."""
    if isinstance(options, StandardAugment):
        return options.flip, options.label_bias
    return 0.0, 0.0
