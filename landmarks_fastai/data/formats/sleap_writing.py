"""Writing SLEAP's .slp, which refers to the images and videos in place."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from landmarks_fastai.data.annotations import OCCLUDED, Annotations
from landmarks_fastai.data.formats.unwritten import (
    BOXES,
    EMPTY_ROWS,
    EYES,
    GROUPS,
    MIDLINE,
    NORMALIZER,
    UNKNOWN_VISIBILITY,
    written_losses,
)
from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.utils.images import image_size

LOST = (EMPTY_ROWS, UNKNOWN_VISIBILITY, BOXES, GROUPS, EYES, NORMALIZER, MIDLINE)


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write a .slp, and return a line for each thing that it cannot hold.

    Raises
    ------
    UserError
        If sleap-io is not installed, or an image cannot be read.
    """
    from landmarks_fastai.data.formats.sleap import import_sleap_io

    sleap_io = import_sleap_io(out)
    skeleton = _skeleton(sleap_io, annotations)
    videos = _videos(sleap_io, annotations)
    names = annotations.columns.get("track", ("",) * len(annotations))
    tracks = {name: sleap_io.Track(name) for name in names if name}
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, image in enumerate(annotations.rows.tolist()):
        rows_of[image].append(row)
    frames = []
    for image, rows in rows_of.items():
        video, number = videos[image]
        instances = [_instance(sleap_io, annotations, row, skeleton, tracks.get(names[row])) for row in rows]
        frames.append(sleap_io.LabeledFrame(video=video, frame_idx=number, instances=instances))
    labels = sleap_io.Labels(
        labeled_frames=frames,
        videos=list({id(video): video for video, _ in videos.values()}.values()),
        skeletons=[skeleton],
        tracks=list(tracks.values()),
    )
    with atomic_write(out) as partial:
        sleap_io.save_slp(labels, str(partial), embed=False, verbose=False)
    return written_losses(annotations, LOST, columns=("track",))


def _skeleton(sleap_io: Any, annotations: Annotations) -> Any:
    schema = annotations.schema
    nodes = {name: sleap_io.Node(name) for name in schema.names}
    edges = dict.fromkeys(edge for chain in schema.skeleton for edge in pairwise(chain))
    return sleap_io.Skeleton(
        nodes=list(nodes.values()),
        edges=[sleap_io.Edge(nodes[a], nodes[b]) for a, b in edges],
        symmetries=[sleap_io.Symmetry({nodes[a], nodes[b]}) for a, b in schema.flip_pairs],
        name=schema.name,
    )


def _videos(sleap_io: Any, annotations: Annotations) -> dict[int, tuple[Any, int]]:
    """Return the video and the frame of each image; images of one folder and size are one video."""
    folders: dict[tuple[Path, tuple[int, int]], list[int]] = defaultdict(list)
    files: dict[Path, list[int]] = defaultdict(list)
    for index in sorted(set(annotations.rows.tolist())):
        image = annotations.images[index]
        if image.frame is None:
            folders[image.path.parent.absolute(), image_size(image.path)].append(index)
        else:
            files[image.path.absolute()].append(index)
    videos: dict[int, tuple[Any, int]] = {}
    for (_, (width, height)), indices in folders.items():
        paths = [annotations.images[index].path.absolute().as_posix() for index in indices]
        metadata = {
            "type": "ImageVideo",
            "shape": [len(paths), height, width, 3],
            "filename": paths[0],
            "filenames": paths,
            "grayscale": False,
        }
        video = sleap_io.Video(filename=paths, backend_metadata=metadata, open_backend=False)
        videos |= {index: (video, number) for number, index in enumerate(indices)}
    for path, indices in files.items():
        metadata = {"type": "MediaVideo", "filename": path.as_posix()}
        video = sleap_io.Video(filename=path.as_posix(), backend_metadata=metadata, open_backend=False)
        for index in indices:
            frame = annotations.images[index].frame
            assert frame is not None
            videos[index] = (video, frame)
    return videos


def _instance(sleap_io: Any, annotations: Annotations, row: int, skeleton: Any, track: Any) -> Any:
    points = annotations.points[row]
    instance = sleap_io.Instance.from_numpy(points, skeleton=skeleton, track=track)
    is_labeled = ~np.isnan(points).any(axis=1)
    instance.points["complete"] = is_labeled
    instance.points["visible"] = is_labeled
    if annotations.visibility is not None:
        occluded = annotations.visibility[row] == OCCLUDED
        instance.points["xy"][occluded] = points[occluded]
        instance.points["visible"] = is_labeled & ~occluded
    return instance
