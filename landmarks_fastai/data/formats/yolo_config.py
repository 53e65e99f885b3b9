"""data.yaml of a YOLO pose data set: splits, classes, landmark names, flip pairs and skeleton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from landmarks_fastai.data.formats.labeled_objects import MAX_LANDMARKS, make_schema
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.text import format_count, quote
from landmarks_fastai.utils.yaml_reader import read_yaml

SPLITS = ("train", "val", "test")

Entries = Mapping[object, object]


@dataclass(frozen=True)
class YoloConfig:
    """What a data.yaml says.

    Parameters
    ----------
    path
        The file.
    splits
        The folders, lists of images (``.txt``) or images of each split.
    classes
        Name of each class by its index; empty if the file has none.
    landmarks
        The K landmark names in the order of the label files.
    values
        Values of a landmark in the label files: 2 (x, y) or 3 (x, y, visibility).
    schema
        The schema, whose order may be another one.
    notes
        What is assumed or left out.
    """

    path: Path
    splits: dict[str, list[Path]]
    classes: dict[int, str]
    landmarks: tuple[str, ...]
    values: int
    schema: LandmarkSchema
    notes: tuple[str, ...]


def read_config(path: Path) -> YoloConfig:
    """Read a data.yaml.

    Raises
    ------
    UserError
        If it cannot be used, or none of its splits exists.
    """
    entries = read_yaml(path)
    if not isinstance(entries, dict):
        raise UserError(f"{path}: must be a YAML mapping with the keys train, val, names and kpt_shape")
    shape = entries.get("kpt_shape")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape)):
        raise UserError(
            f"{path}: 'kpt_shape' must be the number of landmarks and the number of their values: [17, 3]"
        )
    k, values = shape
    if not 1 <= k <= MAX_LANDMARKS or values not in (2, 3):
        raise UserError(
            f"{path}: 'kpt_shape' is {str(shape)[:40]}; it must be from 1 to {MAX_LANDMARKS:,} landmarks of 2"
            " or 3 values"
        )
    notes: list[str] = []
    landmarks = _read_landmarks(path, entries, k, notes)
    schema = _read_schema(path, entries, landmarks, notes)
    return YoloConfig(
        path=path,
        splits=_read_splits(path, entries, notes),
        classes=_read_classes(path, entries),
        landmarks=landmarks,
        values=values,
        schema=schema,
        notes=tuple(notes),
    )


def _read_splits(path: Path, entries: Entries, notes: list[str]) -> dict[str, list[Path]]:
    """Return the existing places of each split."""
    splits: dict[str, list[Path]] = {}
    missing: list[str] = []
    known: set[Path] = set()
    for split in SPLITS:
        value = entries.get(split, entries.get("valid") if split == "val" else None)
        places = value if isinstance(value, list) else [value] if value else []
        for place in places:
            if not isinstance(place, str):
                raise UserError(f"{path}: {split!r} must be a folder, a .txt file, or a list of them")
            found = _find_place(path, entries.get("path"), place)
            if found is None:
                missing.append(f"{split} ({place[:80]})")
            elif found.resolve() in known:
                notes.append(f"the split {split} is left out: its images are those of another split")
            else:
                known.add(found.resolve())
                splits.setdefault(split, []).append(found)
    if not splits:
        reason = f"no such folder or file: {missing[0]}" if missing else "it has none of train, val and test"
        raise UserError(f"{path}: no images; {reason}; correct the paths")
    notes += [f"no such folder or file, left out: {each}" for each in missing]
    return splits


def _find_place(path: Path, root: object, place: str) -> Path | None:
    """Return an existing folder or file, relative to `path:` or to the folder of data.yaml.

    Roboflow writes ``../train/images`` for ``train/images``.
    """
    portable = place.strip().replace("\\", "/")
    shorter = portable
    while shorter.startswith("../"):
        shorter = shorter[3:]
    bases = [path.parent / root, path.parent] if isinstance(root, str) and root.strip() else [path.parent]
    for candidate in dict.fromkeys((portable, shorter)):
        for base in bases:
            try:
                if candidate and (base / candidate).exists():
                    return base / candidate
            except (OSError, ValueError):  # a name that is too long, or contains a null character
                continue
    return None


def _read_classes(path: Path, entries: Entries) -> dict[int, str]:
    names = entries.get("names")
    if isinstance(names, list):
        return {index: str(name)[:80] for index, name in enumerate(names)}
    if isinstance(names, dict):
        if not all(type(index) is int for index in names):
            raise UserError(f"{path}: 'names' must be a list, or have the indices of the classes as keys")
        return {index: str(name)[:80] for index, name in names.items()}
    count = entries.get("nc")
    if type(count) is int and 0 < count <= 10_000:
        return {index: str(index) for index in range(count)}
    return {}


def _read_landmarks(path: Path, entries: Entries, k: int, notes: list[str]) -> tuple[str, ...]:
    """Return the landmark names: kpt_names, a list or one for each class, or sleap-io's node_names."""
    key = "kpt_names" if entries.get("kpt_names") else "node_names"
    names = entries.get(key)
    if isinstance(names, dict) and names:
        lists = list(names.values())
        if any(each != lists[0] for each in lists):
            raise UserError(
                f"{path}: the classes have different {key}; write each class to a data set of its own"
            )
        names = lists[0]
    if not names:
        notes.append(f"{path.name} has no kpt_names: the landmarks are named keypoint_0 to keypoint_{k - 1}")
        return tuple(f"keypoint_{index}" for index in range(k))
    if not isinstance(names, list) or len(names) != k:
        raise UserError(
            f"{path}: {key!r} must be the list of the {k} landmark names that kpt_shape announces"
        )
    landmarks = tuple(str(name)[:200] for name in names)
    if len(set(landmarks)) < k:
        double = next(name for name in landmarks if landmarks.count(name) > 1)
        raise UserError(f"{path}: the landmark {quote(double)} occurs twice in {key!r}")
    return landmarks


def _read_schema(
    path: Path, entries: Entries, landmarks: tuple[str, ...], notes: list[str]
) -> LandmarkSchema:
    schema = make_schema(
        path.absolute().parent.name, landmarks, path, _read_skeleton(entries, landmarks, notes)
    )
    flip = entries.get("flip_idx")
    if flip is None:
        return schema
    if not isinstance(flip, list) or sorted(map(repr, flip)) != sorted(map(repr, range(len(landmarks)))):
        raise UserError(f"{path}: 'flip_idx' must contain each index from 0 to {len(landmarks) - 1} once")
    if any(flip[other] != index for index, other in enumerate(flip)):
        raise UserError(f"{path}: 'flip_idx' must exchange pairs of landmarks: flip_idx[flip_idx[i]] = i")
    pairs = tuple((landmarks[i], landmarks[j]) for i, j in enumerate(flip) if i < j)
    if {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in schema.flip_pairs}:
        return schema
    return replace(schema, flip_pairs=pairs, midline=())


def _read_skeleton(entries: Entries, landmarks: tuple[str, ...], notes: list[str]) -> list[tuple[str, str]]:
    """Return the edges of the skeleton, whose indices count from 0."""
    skeleton = entries.get("skeleton")
    if not isinstance(skeleton, list):
        return []
    k = len(landmarks)
    edges = [
        (landmarks[edge[0]], landmarks[edge[1]])
        for edge in skeleton
        if isinstance(edge, list) and len(edge) == 2 and all(type(i) is int and 0 <= i < k for i in edge)
    ]
    if len(edges) < len(skeleton):
        lost = format_count(len(skeleton) - len(edges), "edge")
        notes.append(f"{lost} of the skeleton left out: not a pair of landmark indices from 0")
    return edges
