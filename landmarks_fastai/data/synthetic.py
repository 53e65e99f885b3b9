"""Faces that we draw ourselves, so that everything can be tried without a download.

Knows a simple 3-D head, how to turn, light and paint it, and where its 15 points then lie, exactly.
Knows nothing about files, splits or training.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.face_model import Colour, Face, Floats, View, draw, jitter, landmarks, mix
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import KAGGLE15

SKINS: tuple[Colour, ...] = (
    (250, 221, 200),
    (238, 196, 166),
    (222, 171, 132),
    (186, 131, 92),
    (134, 88, 60),
    (88, 57, 42),
)
HAIRS: tuple[Colour, ...] = (
    (28, 24, 24),
    (58, 40, 30),
    (98, 66, 40),
    (168, 128, 78),
    (206, 176, 120),
    (140, 64, 34),
    (176, 174, 172),
)
IRISES: tuple[Colour, ...] = ((62, 40, 24), (44, 30, 22), (86, 62, 34), (64, 84, 60), (66, 92, 122))


def draw_faces(count: int, seed: int, size: int = 96, colour: bool = False) -> FaceTable:
    """Draw faces varied in pose, light, skin, expression, hair, background, blur and noise.

    Face i of a seed is the same whatever `count` is, so a longer table begins with the shorter one.

    Parameters
    ----------
    count
        How many, at least 1.
    seed
        Any number from 0.
    size
        Side of the square images in pixels, at least 32.
    colour
        RGB instead of gray (the same faces: gray is their ITU-R 601 luma).

    Returns
    -------
    FaceTable
        `count` rows of `KAGGLE15`, every point labelled to a small part of a pixel. `groups` is None:
        each face is a person of its own.

    Raises
    ------
    UserError
        If a number is out of its range.
    """
    if count < 1 or seed < 0 or size < 32:
        raise UserError(
            f"synthetic faces: count {count} must be >= 1, seed {seed} >= 0 and size {size} >= 32"
        )
    images = np.empty((count, size, size, 3 if colour else 1), np.uint8)
    points = np.empty((count, len(KAGGLE15), 2), np.float32)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        face = _random_face(rng)
        places = landmarks(face)
        view = _fit(places, _random_rotation(rng), rng, size)
        picture = draw(face, view, (size, size), rng)
        images[i] = np.asarray(picture if colour else picture.convert("L")).reshape(size, size, -1)
        points[i] = view(places)
    return FaceTable(
        images=images,
        points=points,
        schema=KAGGLE15,
        names=tuple(f"synthetic face {i}" for i in range(count)),
        source=f"synthetic faces (seed {seed})",
        digest=hashlib.sha256(images.tobytes() + points.tobytes()).hexdigest(),
    )


def draw_picture(
    seed: int, size: tuple[int, int] = (640, 480)
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw one face, off-centre, in a larger colour picture.

    Parameters
    ----------
    seed
        Any number from 0.
    size
        Width and height in pixels, each at least 64.

    Returns
    -------
    tuple
        The picture, (H, W, 3) uint8 RGB, and its points, (15, 2) float32 in the order of `KAGGLE15`.

    Raises
    ------
    UserError
        If a number is out of its range.
    """
    width, height = size
    if seed < 0 or min(size) < 64:
        raise UserError(f"synthetic picture: seed {seed} must be >= 0, width and height {size} >= 64")
    rng = np.random.default_rng([seed, 0, 1])  # three numbers: no face of `draw_faces` starts like this
    face = _random_face(rng)
    rotation = _random_rotation(rng)
    scale = min(size) * rng.uniform(0.19, 0.24)
    side = rng.choice([0.36, 0.64])
    view = View(rotation, scale, (width * side, height * rng.uniform(0.44, 0.5)))
    picture = draw(face, view, size, rng)
    return np.asarray(picture), view(landmarks(face)).astype(np.float32)


def _random_face(rng: np.random.Generator) -> Face:
    """Choose a person, an expression and a light."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    tone = between(0, len(SKINS) - 1.001)
    skin = mix(SKINS[int(tone)], SKINS[int(tone) + 1], tone % 1)
    hairs = HAIRS if tone < 2.5 else HAIRS[:2]  # dark skin seldom comes with fair hair
    smile = max(0.0, between(-0.6, 1.0))
    speaks = rng.random() < 0.45
    light = np.array([between(-1, 1), between(-0.9, 0.3), between(0.7, 1.3)])
    light /= np.linalg.norm(light)
    return Face(
        skin=skin,
        hair=jitter(hairs[int(rng.integers(len(hairs)))], rng, 4),
        iris=IRISES[int(rng.integers(len(IRISES) if tone < 2.5 else 2))],
        cloth=jitter((110, 110, 120), rng, 95),
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
        mouth_open=between(0.03, 0.22) if speaks else 0.0,
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


def _random_rotation(rng: np.random.Generator) -> Floats:
    """Roll after yaw after pitch; up to 38, 32 and 20 degrees, mostly much less."""
    limits = np.array([[13.0, 32.0], [8.0, 20.0], [9.0, 38.0]])  # deviation and limit of yaw, pitch, roll
    angles = np.clip(rng.standard_normal(3) * limits[:, 0], -limits[:, 1], limits[:, 1])
    (sy, sp, sr), (cy, cp, cr) = np.sin(np.radians(angles)), np.cos(np.radians(angles))
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(roll @ yaw @ pitch)


def _fit(places: Floats, rotation: Floats, rng: np.random.Generator, size: int) -> View:
    """Place the face in a square so that it about fills it and every point stays inside."""
    scale = size * rng.uniform(0.36, 0.5)
    seen = View(rotation, 1.0, (0.0, 0.0))(places)
    low, high = seen.min(0), seen.max(0)
    margin = 0.04 * size
    scale = min(scale, float((size - 1 - 2 * margin) / (high - low).max()))
    low, high = low * scale, high * scale
    wanted = np.array([0.5, 0.53]) * (size - 1) + rng.normal(0, 0.035 * size, 2) - (low + high) / 2
    centre = np.clip(wanted, margin - low, size - 1 - margin - high)
    return View(rotation, scale, (float(centre[0]), float(centre[1])))
