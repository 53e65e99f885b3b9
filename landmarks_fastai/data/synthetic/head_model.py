"""Geometry of a simple 3-D head: its surface, the curves of its features, and its landmarks.

Head coordinates: x points to the subject's left (right in the image), y down, z toward the viewer. The unit
is about 9 cm. The origin is the center of the head, between the temples and slightly below the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Color = tuple[int, int, int]

HEAD_HALF_HEIGHT = 1.27
HEAD_HALF_DEPTH = 0.95
EYE_LEVEL = -0.10
"""y of the eyes."""
MOUTH_DROP = 0.77
"""y of the mouth relative to the eyes."""
FEATURE_LIFT = 0.03
"""Distance of eyes and eyebrows from the skin."""


@dataclass(frozen=True)
class Face:
    """Identity, expression and lighting of one face; lengths in head units."""

    skin: Color
    hair: Color
    iris: Color
    clothing: Color
    width: float  # half the width of the head
    jaw: float  # from 0 (round) to 0.4 (pointed)
    eye_spread: float  # half the distance between the centers of the eyes
    eye_half_width: float
    eye_open: float  # height of the opening, relative to a typical eye
    eye_slant: float  # how much higher the outer corner is than the center
    brow_lift: float  # height above the eyes
    brow_arch: float  # height of the arch
    brow_tilt: float  # positive: inner end up (worried); negative: down (angry)
    brow_thickness: float
    nose_length: float  # from the eyes down to the tip
    nose_width: float  # half the width of the nose
    nose_height: float  # distance of the tip from the skin
    mouth_half_width: float
    mouth_open: float  # drop of the lower lip
    smile: float  # from 0 to 1; raises the corners of the mouth
    lips: float  # approximate thickness of each lip
    lip_red: float  # from 0 (color of the skin) to 1 (red)
    hair_style: str  # "bald", "short" or "long"
    hairline: float  # y of the hairline above the nose
    hair_arch: float  # how much lower the hairline is at the sides
    beard: float  # from 0 (none) to 1 (black)
    glasses: bool
    light: tuple[float, float, float]  # unit vector toward the light
    ambient: float  # brightness where no direct light falls
    exposure: float  # factor of the brightness of the image
    blur: float  # of the rendered image, relative to the distance between the eyes
    noise: float  # standard deviation in gray levels


@dataclass(frozen=True)
class View:
    """Weak perspective projection: rotate the head, scale it, and shift its origin to `center`."""

    rotation: Floats  # (3, 3)
    scale: float  # pixels per head unit
    center: tuple[float, float]  # pixels

    def __call__(self, points: Floats) -> Floats:
        """Project (…, 3) head coordinates to (…, 2) pixels (x, y)."""
        projected: Floats = points @ (self.rotation[:2].T * self.scale) + self.center
        return projected

    @property
    def upright(self) -> View:
        """The same view without rotation."""
        return View(np.eye(3), self.scale, self.center)


def surface(face: Face, x: Floats, y: Floats, lift: Floats | float = 0.0) -> Floats:
    """Map (x, y) of the frontal view to head coordinates (…, 3), at distance `lift` from the skin."""
    points = np.empty((*np.shape(x + y), 3))
    depth_squared = 1 - (x / (face.width * 1.08)) ** 2 - (y / (HEAD_HALF_HEIGHT * 1.15)) ** 2
    points[..., 0], points[..., 1] = x, y
    points[..., 2] = HEAD_HALF_DEPTH * np.sqrt(np.maximum(depth_squared, 0.02)) + lift
    return points


def landmark_positions(face: Face) -> Floats:
    """Return the landmarks in head coordinates, (15, 3), in the order of `KAGGLE15`."""
    left, right = (eye_curve(face, side, np.array([0.0, -1.0, 1.0]), 0.0) for side in (1, -1))
    brows = (brow_curve(face, side, np.array([0.0, 1.0])) for side in (1, -1))
    flat = np.concatenate([np.stack(curve, axis=1) for curve in (left, right, *brows)])
    flat = flat[[0, 3, 1, 2, 4, 5, 6, 7, 8, 9]]  # in KAGGLE15 both eye centers precede the corners
    return np.concatenate(
        [
            surface(face, flat[:, 0], flat[:, 1], FEATURE_LIFT),
            nose_tip(face)[None],
            mouth_curve(face, np.array([1.0, -1.0]), 0.0),
            mouth_curve(face, np.array([0.0]), -1.0),
            mouth_curve(face, np.array([0.0]), 1.0),
        ]
    )


def eye_curve(face: Face, side: int, along: Floats, lid: Floats | float) -> tuple[Floats, Floats]:
    """Return the frontal (x, y) of a curve across an eye.

    Parameters
    ----------
    face
        The face.
    side
        1 for the subject's left eye, -1 for the right one.
    along
        Positions along the eye, from -1 (inner corner) to 1 (outer corner).
    lid
        -1 for the upper lid, 1 for the lower lid, 0 for the line through the center.
    """
    height = 0.088 * face.eye_open * np.where(np.asarray(lid) < 0, 1.0, 0.85)
    x = side * (face.eye_spread + face.eye_half_width * along)
    y = EYE_LEVEL - face.eye_slant * along + lid * height * (1 - np.abs(along) ** 2.2)
    return x, y


def brow_curve(face: Face, side: int, along: Floats) -> tuple[Floats, Floats]:
    """Return the frontal (x, y) of an eyebrow's center line, `along` from 0 (inner end) to 1 (outer end)."""
    x = side * (face.eye_spread + 1.35 * face.eye_half_width * (2.1 * along - 1.0))
    arch = face.brow_arch * np.sin(np.pi * along**1.3)
    y = EYE_LEVEL - face.brow_lift - face.brow_tilt * (1 - along) - arch + 0.04 * along
    return x, y


def mouth_curve(face: Face, along: Floats, edge: float) -> Floats:
    """Return an edge of the lips in head coordinates, (…, 3).

    Parameters
    ----------
    face
        The face.
    along
        Positions from -1 (the subject's right corner) to 1 (left corner). All edges meet at the corners.
    edge
        -1 and -0.5 for the upper and lower edge of the upper lip, 0.5 and 1 for those of the lower lip, 0 for
        the line between the corners, at which closed lips meet.
    """
    bulge = 1 - along**2
    y = EYE_LEVEL + MOUTH_DROP - 0.08 * face.smile * along**2
    if edge == -1:
        bow = 1 - np.abs(along) ** 1.6 - 0.28 * np.exp(-((along / 0.16) ** 2))
        y = y - face.lips * bow - 0.15 * face.mouth_open * bulge
    elif edge == -0.5:
        y = y - 0.15 * face.mouth_open * bulge
    elif edge > 0:
        y = y + face.mouth_open * bulge + (1.25 * face.lips * bulge**0.8 if edge == 1 else 0.0)
    return surface(face, along * face.mouth_half_width, y, lift=0.05 * bulge)


def nose_tip(face: Face) -> Floats:
    """Return the tip of the nose in head coordinates, (3,)."""
    return surface(face, np.array(0.0), np.array(EYE_LEVEL + face.nose_length), lift=face.nose_height)


def head_surface(face: Face) -> Floats:
    """Return (n, 3) points of the whole head; the convex hull of their projections is its outline."""
    t = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 19))[:, None]
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)[None]
    ring = np.sqrt(np.maximum(1 - np.abs(t) ** 2.4, 0)) * (1 - face.jaw * np.maximum(t, 0) ** 1.5)
    y = t * HEAD_HALF_HEIGHT + face.mouth_open * 0.6 * np.maximum(t - 0.3, 0)
    x, z = face.width * ring * np.cos(angle), HEAD_HALF_DEPTH * ring * np.sin(angle)
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).reshape(-1, 3)
