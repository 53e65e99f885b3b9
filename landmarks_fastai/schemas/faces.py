"""Built-in schemas of faces, from 5 to 106 landmarks.

In numbered schemas the landmarks of the person's right side, which is on the left of the image, come first.
"""

from __future__ import annotations

from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas.numbering import closed, mirrored, numbered_schema

KAGGLE15 = LandmarkSchema(
    name="kaggle15",
    names=(
        "left_eye_center",
        "right_eye_center",
        "left_eye_inner_corner",
        "left_eye_outer_corner",
        "right_eye_inner_corner",
        "right_eye_outer_corner",
        "left_eyebrow_inner_end",
        "left_eyebrow_outer_end",
        "right_eyebrow_inner_end",
        "right_eyebrow_outer_end",
        "nose_tip",
        "mouth_left_corner",
        "mouth_right_corner",
        "mouth_center_top_lip",
        "mouth_center_bottom_lip",
    ),
    flip_pairs=(
        ("left_eye_center", "right_eye_center"),
        ("left_eye_inner_corner", "right_eye_inner_corner"),
        ("left_eye_outer_corner", "right_eye_outer_corner"),
        ("left_eyebrow_inner_end", "right_eyebrow_inner_end"),
        ("left_eyebrow_outer_end", "right_eyebrow_outer_end"),
        ("mouth_left_corner", "mouth_right_corner"),
    ),
    skeleton=(
        ("left_eyebrow_inner_end", "left_eyebrow_outer_end"),
        ("right_eyebrow_inner_end", "right_eyebrow_outer_end"),
        ("left_eye_inner_corner", "left_eye_center", "left_eye_outer_corner"),
        ("right_eye_inner_corner", "right_eye_center", "right_eye_outer_corner"),
        (
            "mouth_left_corner",
            "mouth_center_top_lip",
            "mouth_right_corner",
            "mouth_center_bottom_lip",
            "mouth_left_corner",
        ),
    ),
    eyes=(("left_eye_center",), ("right_eye_center",)),
)
"""The 15 landmarks of Kaggle's Facial Keypoints Detection, in the order of its columns."""

CELEBA5 = LandmarkSchema(
    name="celeba5",
    names=("lefteye", "righteye", "nose", "leftmouth", "rightmouth"),
    flip_pairs=(("lefteye", "righteye"), ("leftmouth", "rightmouth")),
    skeleton=(("lefteye", "nose", "righteye"), ("leftmouth", "rightmouth")),
    eyes=(("lefteye",), ("righteye",)),
)
"""The 5 landmarks of CelebA (Liu et al. 2015, "Deep Learning Face Attributes in the Wild").

Left and right are those of the image, not of the person.
"""

MTCNN5 = LandmarkSchema(
    name="mtcnn5",
    names=("left_eye", "right_eye", "nose", "mouth_left", "mouth_right"),
    flip_pairs=(("left_eye", "right_eye"), ("mouth_left", "mouth_right")),
    skeleton=(("left_eye", "nose", "right_eye"), ("mouth_left", "mouth_right")),
    eyes=(("left_eye",), ("right_eye",)),
)
"""The 5 landmarks of MTCNN (Zhang et al. 2016), the same as those of CelebA under other names.

RetinaFace, SCRFD and YuNet predict them, too. Left and right are those of the image, not of the person.
"""

IBUG68 = numbered_schema(
    "ibug68",
    68,
    pairs=[
        *mirrored(range(0, 8), range(16, 8, -1)),
        *mirrored(range(17, 22), range(26, 21, -1)),
        *mirrored((31, 32), (35, 34)),
        *mirrored(range(36, 42), (45, 44, 43, 42, 47, 46)),
        *mirrored((48, 49, 50, 59, 58), (54, 53, 52, 55, 56)),
        *mirrored((60, 61, 67), (64, 63, 65)),
    ],
    chains=(
        range(0, 17),
        range(17, 22),
        range(22, 27),
        range(27, 31),
        range(31, 36),
        closed(range(36, 42)),
        closed(range(42, 48)),
        closed(range(48, 60)),
        closed(range(60, 68)),
    ),
    # the subject's left eye is on the right of the image
    eyes=(range(42, 48), range(36, 42)),
)
"""The 68 landmarks of iBUG 300-W (Sagonas et al. 2013), which dlib and face-alignment predict, too.

Contour 0–16, eyebrows 17–26, nose 27–35, eyes 36–47, outer lips 48–59, inner lips 60–67. The files of 300-W
count from 1.
"""

WFLW98 = numbered_schema(
    "wflw98",
    98,
    pairs=[
        *mirrored(range(0, 16), range(32, 16, -1)),
        *mirrored(range(33, 42), (46, 45, 44, 43, 42, 50, 49, 48, 47)),
        *mirrored((55, 56), (59, 58)),
        *mirrored(range(60, 68), (72, 71, 70, 69, 68, 75, 74, 73)),
        *mirrored((76, 77, 78, 87, 86), (82, 81, 80, 83, 84)),
        *mirrored((88, 89, 95), (92, 91, 93)),
        (96, 97),
    ],
    chains=(
        range(0, 33),
        closed(range(33, 42)),
        closed(range(42, 51)),
        range(51, 55),
        range(55, 60),
        closed(range(60, 68)),
        closed(range(68, 76)),
        closed(range(76, 88)),
        closed(range(88, 96)),
    ),
    eyes=((97,), (96,)),
)
"""The 98 landmarks of WFLW (Wu et al. 2018, "Look at Boundary").

Contour 0–32, eyebrows 33–50, nose 51–59, eyes 60–75, outer lips 76–87, inner lips 88–95, pupils 96 and 97.
"""

COFW29 = numbered_schema(
    "cofw29",
    29,
    pairs=[
        *mirrored((0, 2, 4, 5), (1, 3, 6, 7)),
        *mirrored((8, 10, 12, 13, 16), (9, 11, 14, 15, 17)),
        *mirrored((18, 22), (19, 23)),
    ],
    chains=(
        closed((0, 4, 2, 5)),
        closed((1, 6, 3, 7)),
        closed((8, 12, 10, 13)),
        closed((9, 14, 11, 15)),
        (20, 18, 21, 19, 20),
        (22, 24, 23, 27, 22),
        (22, 25, 23, 26, 22),
    ),
    eyes=((17,), (16,)),
)
"""The 29 landmarks of COFW (Burgos-Artizzu et al. 2013), without their occlusion flags.

Eyebrows 0–7 (outer ends 0 and 1, inner ends 2 and 3, upper and lower edges 4–7), eyes 8–15 (outer corners 8
and 9, inner corners 10 and 11, upper and lower lids 12–15), pupils 16 and 17, nose 18–21, mouth 22–27, chin
28.
"""

_AFLW = {
    "LeftBrowLeftCorner": "RightBrowRightCorner",
    "LeftBrowCenter": "RightBrowCenter",
    "LeftBrowRightCorner": "RightBrowLeftCorner",
    "LeftEyeLeftCorner": "RightEyeRightCorner",
    "LeftEyeCenter": "RightEyeCenter",
    "LeftEyeRightCorner": "RightEyeLeftCorner",
}
_AFLW_NAMES = (
    *("LeftBrowLeftCorner", "LeftBrowCenter", "LeftBrowRightCorner"),
    *("RightBrowLeftCorner", "RightBrowCenter", "RightBrowRightCorner"),
    *("LeftEyeLeftCorner", "LeftEyeCenter", "LeftEyeRightCorner"),
    *("RightEyeLeftCorner", "RightEyeCenter", "RightEyeRightCorner"),
    "LeftEar",
    *("NoseLeft", "NoseCenter", "NoseRight"),
    "RightEar",
    *("MouthLeftCorner", "MouthCenter", "MouthRightCorner"),
    "ChinCenter",
)
_AFLW_PAIRS = (*_AFLW.items(), ("NoseLeft", "NoseRight"), ("MouthLeftCorner", "MouthRightCorner"))
_AFLW_SKELETON = (
    ("LeftBrowLeftCorner", "LeftBrowCenter", "LeftBrowRightCorner"),
    ("RightBrowLeftCorner", "RightBrowCenter", "RightBrowRightCorner"),
    ("LeftEyeLeftCorner", "LeftEyeCenter", "LeftEyeRightCorner"),
    ("RightEyeLeftCorner", "RightEyeCenter", "RightEyeRightCorner"),
    ("NoseLeft", "NoseCenter", "NoseRight"),
    ("MouthLeftCorner", "MouthCenter", "MouthRightCorner"),
)
_AFLW_EYES = (("LeftEyeCenter",), ("RightEyeCenter",))

AFLW19 = LandmarkSchema(
    name="aflw19",
    names=tuple(name for name in _AFLW_NAMES if "Ear" not in name),
    flip_pairs=_AFLW_PAIRS,
    skeleton=_AFLW_SKELETON,
    eyes=_AFLW_EYES,
)
"""The landmarks of AFLW without the ears, as in most experiments (Zhu et al. 2016)."""

AFLW21 = LandmarkSchema(
    name="aflw21",
    names=_AFLW_NAMES,
    flip_pairs=(*_AFLW_PAIRS, ("LeftEar", "RightEar")),
    skeleton=_AFLW_SKELETON,
    eyes=_AFLW_EYES,
)
"""The 21 landmarks of AFLW (Köstinger et al. 2011), under the names and in the order of its database.

Left and right are those of the image, not of the person.
"""

INSIGHTFACE106 = numbered_schema(
    "insightface106",
    106,
    pairs=[
        *mirrored(range(1, 17), range(17, 33)),
        *mirrored((33, 34, 35, 36, 37, 38, 39, 40, 41, 42), (87, 88, 93, 91, 90, 92, 89, 94, 96, 95)),
        *mirrored((43, 44, 45, 46, 47, 48, 49, 50, 51), (101, 100, 99, 97, 98, 105, 104, 102, 103)),
        *mirrored((52, 54, 55, 56, 63, 64, 65, 66), (61, 57, 58, 59, 67, 68, 69, 70)),
        *mirrored((75, 76, 77, 78, 79), (81, 82, 83, 84, 85)),
    ],
    chains=(
        (1, *range(9, 17), *range(2, 9), 0, *range(24, 17, -1), *range(32, 24, -1), 17),
        closed((43, 48, 49, 51, 50, 46, 47, 45, 44)),
        closed((101, 105, 104, 103, 102, 97, 98, 99, 100)),
        (72, 73, 74, 86),
        (75, 76, 77, 78, 79, 80, 85, 84, 83, 82, 81),
        closed((35, 41, 40, 42, 39, 37, 33, 36)),
        closed((93, 96, 94, 95, 89, 90, 87, 91)),
        closed((52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55)),
        closed((65, 66, 62, 70, 69, 57, 60, 54)),
    ),
    eyes=((87, 89, 90, 91, 93, 94, 95, 96), (33, 35, 36, 37, 39, 40, 41, 42)),
)
"""The 106 landmarks of InsightFace's model 2d106det.

Contour 0–32 (0 is the chin), eyes 33–42 and 87–96, eyebrows 43–51 and 97–105, mouth 52–71, nose 72–86. The
order differs from that of the 106 landmarks of JD-landmark and LaPa. The pairs agree with those of ibug68
under the known correspondence of the two.
"""
