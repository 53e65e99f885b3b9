"""Built-in schemas of the human body."""

from __future__ import annotations

from landmarks_fastai.schema import LandmarkSchema

_SIDED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")

COCO17 = LandmarkSchema(
    name="coco17",
    names=("nose", *(f"{side}_{part}" for part in _SIDED for side in ("left", "right"))),
    flip_pairs=tuple((f"left_{part}", f"right_{part}") for part in _SIDED),
    skeleton=(
        ("left_ear", "left_eye", "nose", "right_eye", "right_ear"),
        ("left_wrist", "left_elbow", "left_shoulder", "right_shoulder", "right_elbow", "right_wrist"),
        ("left_shoulder", "left_hip", "left_knee", "left_ankle"),
        ("right_shoulder", "right_hip", "right_knee", "right_ankle"),
        ("left_hip", "right_hip"),
    ),
)
"""The 17 keypoints of persons in COCO (Lin et al. 2014).

Its `eyes` are None, although it has two eyes: a face detector finds only the head, not the person.
"""
