"""SLEAP: ``.slp`` and ``.pkg.slp``, read and written with the package sleap-io.

sleap-io returns coordinates whose origin is the center of the first pixel, as in this package: since file
format 1.1 files store them so, and it converts older ones. A point that is not visible but "complete" (a
person placed it) is occluded; other points that are not visible are not labeled.

Not lossless: boxes, eyes, groups and columns other than ``track`` are not written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.image_files import drop_images
from landmarks_fastai.data.formats.labeled_objects import (
    LabeledObject,
    Notes,
    build_annotations,
    make_schema,
)
from landmarks_fastai.data.formats.scorer_table_hdf import SIGNATURE
from landmarks_fastai.data.formats.sleap_writing import write
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.files import atomic_write, file_sha256
from landmarks_fastai.utils.hdf5_check import check_hdf5

UNSUPPORTED_SUFFIXES = (".h5", ".hdf5", ".seq", ".tif", ".tiff")
"""Videos that only sleap-io reads."""


def recognizes(path: Path) -> bool:
    """Return True for an HDF5 file with the suffix .slp."""
    try:
        with path.open("rb") as stream:
            return path.suffix.lower() == ".slp" and stream.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def read(path: Path) -> Annotations:
    """Read a file of SLEAP.

    Images that are embedded in a .pkg.slp are extracted to the cache folder.

    Raises
    ------
    UserError
        If sleap-io is not installed, or the file cannot be read, has several skeletons, or has no label.
    """
    sleap_io = import_sleap_io(path)
    check_hdf5(path)
    try:
        labels = sleap_io.load_slp(str(path), open_videos=False)
        skeleton, schema = _read_skeleton(labels, path)
        images = _Images(path, labels)
        notes = Notes()
        objects = list(_read_objects(labels, skeleton, images, notes))
        notes.add("suggested frame", "suggested frames", "skipped", len(labels.suggestions))
    except UserError:
        raise
    except Exception as error:  # damaged files make h5py and sleap-io raise many types of exception
        raise UserError(f"{path}: damaged or not a file of SLEAP ({type(error).__name__})") from error
    has_occluded = any(each.occluded for each in objects)
    annotations = build_annotations(
        objects, tuple(images.sources), path, schema, notes.lines(), has_visibility=has_occluded
    )
    missing = {
        index: f"no such file {image.path}; put it there or beside {path.name}"
        for index, image in enumerate(images.sources)
        if not image.path.is_file()
    }
    return drop_images(annotations, missing)


def import_sleap_io(path: Path) -> Any:
    """Return the module sleap_io.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        import sleap_io
    except ImportError:
        raise UserError(f"{path}: .slp files need sleap-io: pip install 'landmarks-fastai[sleap]'") from None
    return sleap_io


FORMAT = AnnotationFormat("sleap", "SLEAP labels", recognizes, read, write, suffix=".slp")


def _read_skeleton(labels: Any, path: Path) -> tuple[Any, LandmarkSchema]:
    """Return the skeleton of the labels and the schema with its edges and symmetries."""
    used = {id(i.skeleton): i.skeleton for frame in labels.labeled_frames for i in frame.instances}
    if len(used) > 1:
        raise UserError(f"{path}: labels of several skeletons; keep one of them")
    skeletons = list(used.values()) or labels.skeletons
    if not skeletons:
        raise UserError(f"{path}: no skeleton, and so no landmarks")
    skeleton = skeletons[0]
    edges = [(edge.source.name, edge.destination.name) for edge in skeleton.edges]
    schema = make_schema(path.stem, skeleton.node_names, path, edges)
    pairs = [sorted(node.name for node in symmetry.nodes) for symmetry in skeleton.symmetries]
    if pairs:
        entries = {**schema.to_dict(), "flip_pairs": pairs}
        known = {frozenset(pair) for pair in schema.flip_pairs}
        if {frozenset(pair) for pair in pairs} != known:
            schema = LandmarkSchema.from_dict(entries)
    return skeleton, schema


def _read_objects(labels: Any, skeleton: Any, images: _Images, notes: Notes) -> Iterator[LabeledObject]:
    """Yield the instances that a person labeled."""
    for frame in labels.labeled_frames:
        notes.add("negative frame", "negative frames", "skipped", int(bool(frame.is_negative)))
        notes.add("predicted instance", "predicted instances", "skipped", len(frame.predicted_instances))
        for instance in frame.user_instances:
            image = images.index(frame.video, int(frame.frame_idx))
            each = LabeledObject(image, f"{images.path.name} {images.sources[image].name}")
            for point in instance.points:
                x, y = (float(value) for value in point["xy"])
                if not np.isfinite((x, y)).all():
                    continue
                if point["visible"] or point["complete"]:
                    each.add_point(str(point["name"]), (x, y), occluded=not point["visible"])
                else:
                    notes.add("hidden landmark", "hidden landmarks", "not labeled")
            if instance.track is not None:
                each.columns["track"] = str(instance.track.name)
            if each.points:
                yield each
            else:
                notes.add("instance", "instances", "skipped, because no landmark is labeled")


class _Images:
    """The images and frames that labels refer to.

    Parameters
    ----------
    path
        The .slp.
    labels
        Its content.
    """

    def __init__(self, path: Path, labels: Any) -> None:
        self.path = path
        self.sources: list[ImageSource] = []
        self._indices: dict[ImageSource, int] = {}
        self._sha256 = ""
        self._videos = {id(video): number for number, video in enumerate(labels.videos)}

    def index(self, video: Any, frame: int) -> int:
        """Return the index of a frame."""
        source = self._find(video, frame)
        index = self._indices.setdefault(source, len(self.sources))
        if index == len(self.sources):
            self.sources.append(source)
        return index

    def _find(self, video: Any, frame: int) -> ImageSource:
        name = video.filename
        if isinstance(name, list):  # one image file per frame
            return ImageSource(self._locate(str(name[frame])))
        if Path(str(name)).suffix.lower() == ".slp":
            return ImageSource(self._extract(video, frame))
        if "://" in str(name):
            raise UserError(f"{self.path}: the video {name} is on the internet; download it first")
        if Path(str(name)).suffix.lower() in UNSUPPORTED_SUFFIXES:
            raise UserError(
                f"{self.path}: videos like {Path(str(name)).name} cannot be read; convert it to .mp4"
            )
        return ImageSource(self._locate(str(name)), frame)

    def _locate(self, name: str) -> Path:
        """Return the path of a file, or that of the file of the same name beside the .slp."""
        portable = name.replace("\\", "/")
        candidates = [Path(portable), self.path.parent / portable]
        candidates += [self.path.parent / portable.rsplit("/", 1)[-1]]
        return next((path for path in candidates if os.path.isfile(path)), candidates[0])

    def _extract(self, video: Any, frame: int) -> Path:
        """Save an embedded image to the cache, and return its path."""
        self._sha256 = self._sha256 or file_sha256(self.path)
        folder = default_cache_dir() / "sleap" / self._sha256[:32]
        target = folder / f"video{self._videos[id(video)]}-frame{frame}.png"
        if not target.is_file():
            if video.backend is None:
                video.open()
            pixels = np.asarray(video[frame], np.uint8)
            with atomic_write(target) as partial:
                Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(partial)
        return target
