"""Random synthetic faces with exact landmarks, for tests and first steps without a download."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.annotations import OCCLUDED, VISIBLE
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.data.synthetic.head_model import Color, Face, Floats, View, landmark_positions
from landmarks_fastai.data.synthetic.occluders import covered_points, draw_occluder
from landmarks_fastai.data.synthetic.rendering import jitter, mix, render
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15

SKIN_COLORS: tuple[Color, ...] = (
    (250, 221, 200),
    (238, 196, 166),
    (222, 171, 132),
    (186, 131, 92),
    (134, 88, 60),
    (88, 57, 42),
)
"""From light to dark; a skin color is a mix of two neighbors."""
HAIR_COLORS: tuple[Color, ...] = (
    (28, 24, 24),
    (58, 40, 30),
    (98, 66, 40),
    (168, 128, 78),
    (206, 176, 120),
    (140, 64, 34),
    (176, 174, 172),
)
"""The first two occur with every skin color, the others with light skin only."""
IRIS_COLORS: tuple[Color, ...] = ((62, 40, 24), (44, 30, 22), (86, 62, 34), (64, 84, 60), (66, 92, 122))
"""The first two occur with every skin color, the others with light skin only."""

ROTATIONS = ((13.0, 32.0), (8.0, 20.0), (9.0, 38.0))
"""Standard deviation and limit of yaw, pitch and roll, in degrees."""


def draw_synthetic_faces(
    count: int, seed: int, size: int = 96, color: bool = False, occlusion: float = 0.0
) -> LandmarkDataset:
    """Draw faces with random pose, lighting, skin, expression, hair, background, blur and noise.

    Face i depends on the seed but not on `count`.

    Parameters
    ----------
    count
        Number of faces, at least 1.
    seed
        0 or more.
    size
        Side of the images in pixels, at least 32.
    color
        Return RGB images; the gray images are their luma (ITU-R 601-2).
    occlusion
        Probability that an object covers part of a face; the faces themselves do not depend on it.

    Returns
    -------
    LandmarkDataset
        `count` rows with the schema `KAGGLE15`; all landmarks are labeled, accurate to about 0.1 pixels.
        `groups` is None, because no two faces show the same person. `visibility` is None without occlusion;
        else a landmark covered by an object is `OCCLUDED`, any other `VISIBLE`.

    Raises
    ------
    UserError
        If a number is out of range.
    """
    if count < 1 or seed < 0 or size < 32:
        raise UserError(
            f"synthetic faces: count {count} must be at least 1, seed {seed} at least 0 and size {size} at"
            " least 32"
        )
    if not 0 <= occlusion <= 1:
        raise UserError(f"synthetic faces: occlusion {occlusion} must be a fraction from 0 to 1")
    images = np.empty((count, size, size, 3 if color else 1), np.uint8)
    points = np.empty((count, len(KAGGLE15), 2), np.float32)
    visibility = np.full((count, len(KAGGLE15)), VISIBLE, np.uint8)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        face = random_face(rng)
        landmarks = landmark_positions(face)
        view = fit_view(landmarks, random_rotation(rng), rng, size)
        occluder = _random_occluder(face, view, size, np.random.default_rng([seed, i, 2]), occlusion)
        image = render(face, view, (size, size), rng, occluder)
        if occluder is not None:
            visibility[i, covered_points(occluder, view(landmarks))] = OCCLUDED
        images[i] = np.asarray(image if color else image.convert("L")).reshape(size, size, -1)
        points[i] = view(landmarks)
    return LandmarkDataset(
        images=ImageArray(images),
        points=points,
        schema=KAGGLE15,
        names=tuple(f"synthetic face {i}" for i in range(count)),
        source=f"synthetic faces (seed {seed})",
        digest=hashlib.sha256(images.tobytes() + points.tobytes()).hexdigest(),
        visibility=visibility if occlusion else None,
    )


def _random_occluder(
    face: Face, view: View, size: int, rng: np.random.Generator, probability: float
) -> Image.Image | None:
    """Return an object in front of the face with the given probability, else None."""
    if rng.random() >= probability:
        return None
    return draw_occluder(face, view, (size, size), rng)


def draw_synthetic_photo(
    seed: int, size: tuple[int, int] = (640, 480)
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a color photo of one face that is not in the center.

    Parameters
    ----------
    seed
        0 or more.
    size
        Width and height in pixels, each at least 64.

    Returns
    -------
    tuple
        The photo, (H, W, 3) uint8 RGB, and its landmarks, (15, 2) float32, pixels, in the order of
        `KAGGLE15`.

    Raises
    ------
    UserError
        If a number is out of range.
    """
    width, height = size
    if seed < 0 or min(size) < 64:
        raise UserError(
            f"synthetic photo: seed {seed} must be at least 0, width and height {size} at least 64"
        )
    # three numbers, so that it differs from every face of `draw_synthetic_faces`
    rng = np.random.default_rng([seed, 0, 1])
    face = random_face(rng)
    rotation = random_rotation(rng)
    scale = min(size) * rng.uniform(0.19, 0.24)
    horizontal = rng.choice([0.36, 0.64])
    view = View(rotation, scale, (width * horizontal, height * rng.uniform(0.44, 0.5)))
    image = render(face, view, size, rng)
    return np.asarray(image), view(landmark_positions(face)).astype(np.float32)


def random_face(rng: np.random.Generator) -> Face:
    """Return a face with random identity, expression and lighting."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    tone = between(0, len(SKIN_COLORS) - 1.001)
    skin = mix(SKIN_COLORS[int(tone)], SKIN_COLORS[int(tone) + 1], tone % 1)
    # fair hair and light irises are rare with dark skin
    hair_colors = HAIR_COLORS if tone < 2.5 else HAIR_COLORS[:2]
    iris_colors = IRIS_COLORS if tone < 2.5 else IRIS_COLORS[:2]
    smile = max(0.0, between(-0.6, 1.0))
    is_speaking = rng.random() < 0.45
    light = np.array([between(-1, 1), between(-0.9, 0.3), between(0.7, 1.3)])
    light /= np.linalg.norm(light)
    return Face(
        skin=skin,
        hair=jitter(hair_colors[int(rng.integers(len(hair_colors)))], rng, 4),
        iris=iris_colors[int(rng.integers(len(iris_colors)))],
        clothing=jitter((110, 110, 120), rng, 95),
        width=between(0.83, 0.97),
        jaw=between(0.0, 0.35),
        eye_spread=between(0.335, 0.385),
        eye_half_width=between(0.145, 0.18),
        eye_open=0.12 if rng.random() < 0.04 else between(0.55, 1.1) * (1 - 0.25 * smile),
        eye_slant=between(-0.02, 0.03),
        brow_lift=between(0.21, 0.31),
        brow_arch=between(0.02, 0.085),
        brow_tilt=between(-0.04, 0.05),
        brow_thickness=between(0.035, 0.075),
        nose_length=between(0.42, 0.54),
        nose_width=between(0.14, 0.21),
        nose_height=between(0.2, 0.3),
        mouth_half_width=between(0.23, 0.29) + 0.06 * smile,
        mouth_open=between(0.03, 0.22) if is_speaking else 0.0,
        smile=smile,
        lips=between(0.055, 0.1) * (1 - 0.25 * smile),
        lip_red=between(0.15, 0.75),
        hair_style=str(rng.choice(["bald", "short", "short", "long", "long"])),
        hairline=between(-1.0, -0.65),
        hair_arch=between(0.0, 0.6),
        beard=between(0.15, 0.6) if rng.random() < 0.22 else 0.0,
        glasses=bool(rng.random() < 0.12),
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=between(0.35, 0.75),
        exposure=between(0.7, 1.08),
        blur=float(rng.choice([0.0, between(0.005, 0.035)])),
        noise=float(rng.choice([0.0, between(1, 5)])),
    )


def random_rotation(rng: np.random.Generator) -> Floats:
    """Return a random (3, 3) matrix that rotates by pitch, then yaw, then roll; see `ROTATIONS`."""
    deviations, limits = np.array(ROTATIONS).T
    angles = np.clip(rng.standard_normal(3) * deviations, -limits, limits)
    (sy, sp, sr), (cy, cp, cr) = np.sin(np.radians(angles)), np.cos(np.radians(angles))
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(roll @ yaw @ pitch)


def fit_view(landmarks: Floats, rotation: Floats, rng: np.random.Generator, size: int) -> View:
    """Return a random view in which the face fills most of the image and all landmarks are inside.

    Parameters
    ----------
    landmarks
        (K, 3) head coordinates.
    rotation
        (3, 3) rotation of the head.
    rng
        Source of the random scale and position.
    size
        Side of the image in pixels.
    """
    scale = size * rng.uniform(0.36, 0.5)
    projected = View(rotation, 1.0, (0.0, 0.0))(landmarks)
    low, high = projected.min(axis=0), projected.max(axis=0)
    margin = 0.04 * size
    scale = min(scale, float((size - 1 - 2 * margin) / (high - low).max()))
    low, high = low * scale, high * scale
    target = np.array([0.5, 0.53]) * (size - 1) + rng.normal(0, 0.035 * size, 2) - (low + high) / 2
    center = np.clip(target, margin - low, size - 1 - margin - high)
    return View(rotation, scale, (float(center[0]), float(center[1])))
