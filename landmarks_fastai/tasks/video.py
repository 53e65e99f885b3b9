"""From a video to a video with points on it, frame by frame, and to a file of the points.

Knows the order of the steps: decode, track, draw, write. How each is done stands in the rooms below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from landmarks_fastai.drawing import draw_points
from landmarks_fastai.errors import UserError
from landmarks_fastai.framefolder import FrameFolder, FrameWriter
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.interrupt import Interrupt
from landmarks_fastai.schema import Schema
from landmarks_fastai.tasks.pointfile import check_point_file, open_point_file
from landmarks_fastai.videofile import VideoReader
from landmarks_fastai.videowriter import VideoWriter, check_video_name

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class VideoOutcome:
    """What became of a video.

    Parameters
    ----------
    frames
        How many were written.
    seconds
        Time of the last of them, in the source.
    faces
        How many different faces were followed.
    damage
        Where and why the source could not be decoded further, if so.
    interrupted
        Whether Ctrl-C ended it.
    """

    frames: int
    seconds: float
    faces: int
    damage: str | None
    interrupted: bool


def annotate_video(
    source: Path,
    out: Path | None,
    tracker: Tracker | None,
    schema: Schema | None,
    *,
    start: float = 0.0,
    end: float | None = None,
    fps: float | None = None,
    draw: bool = True,
    points: Sequence[Path] = (),
    frames: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoOutcome:
    """Track the faces of a video, or of a folder of frames, and write what was asked for.

    Whatever ends it early, Ctrl-C or a damaged source, what was done is whole and usable.

    Parameters
    ----------
    source
        A video, or a folder of frames.
    out
        The video to write: .mp4, .mov or .mkv, H.264, with the source's sound.
    tracker, schema
        Finds the faces, and what their points are called. None where only frames are copied.
    start, end
        Seconds of the source; `end` is the first that is left out.
    fps
        Frames a second, repeated or dropped. None keeps the source's own times.
    draw
        Draw the points on the frames.
    points
        Files of the points: .csv, .json or .parquet. Times are the source's.
    frames
        Folder for the frames as pictures.
    overwrite
        Replace what is there.
    progress
        Told of frames done, and expected in all.

    Raises
    ------
    UserError
        If the source can't be used, a result is there already, or nothing was asked for.
    RunError
        If a result can't be written.
    """
    _check_results(source, out, points, frames, overwrite)
    with ExitStack() as opened:
        reader = _open(source, start, end, fps)
        opened.enter_context(reader)
        writers = []
        for file in points:
            assert schema is not None, "points need a model"
            writers.append(opened.enter_context(open_point_file(file, schema)))
        pictures: list[VideoWriter | FrameWriter] = []
        if frames is not None:
            pictures.append(opened.enter_context(FrameWriter(frames, overwrite=overwrite)))
        if out is not None:
            sound = None if source.is_dir() else source
            writer = VideoWriter(
                out, reader.size, reader.rate, reader.time_base, audio_from=sound, start=start, end=end
            )
            pictures.append(opened.enter_context(writer))
        interrupt = opened.enter_context(Interrupt())
        done, last, numbers = 0, 0.0, set[int]()
        for frame in reader:
            if interrupt.asked:
                break
            image, last = frame.image, float(frame.time)
            faces = [] if tracker is None else tracker(image, last)
            numbers |= {face.number for face in faces}
            for write in writers:
                write(done, last, faces)
            if draw and schema is not None:
                for face in faces:
                    label = str(face.number) if len(numbers) > 1 else None
                    image = draw_points(image, face.points, schema, confidence=face.confidence, label=label)
            for picture in pictures:
                picture.write(image, frame.time - Fraction(start))
            done += 1
            if progress is not None:
                progress(done, reader.expected)
        return VideoOutcome(done, last, len(numbers), reader.damage, interrupt.asked)


def _open(source: Path, start: float, end: float | None, fps: float | None) -> VideoReader | FrameFolder:
    if source.is_dir():
        return FrameFolder(source, fps=fps)
    return VideoReader(source, start=start, end=end, fps=fps)


def _check_results(
    source: Path, out: Path | None, points: Sequence[Path], frames: Path | None, overwrite: bool
) -> None:
    """Refuse before anything is decoded what could only fail, or destroy something, later."""
    if out is None and not points and frames is None:
        raise UserError("nothing to write: name --out, --landmarks or --frames")
    if out is not None:
        check_video_name(out)
    for file in points:
        check_point_file(file)
    for result in (out, *points, frames):
        if result is None:
            continue
        if result.resolve() == source.resolve():
            raise UserError(f"{result}: the source itself; choose another place for the result")
        if result is not frames and result.exists() and not overwrite:
            raise UserError(f"{result} is there already; choose another name or use --overwrite")
