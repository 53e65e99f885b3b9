"""Track the landmarks of a video, or of a folder of frames, draw them and write them to files."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.landmark_files import FrameWriter, check_landmark_file, open_landmark_file
from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.rejection import describe_discarded_detections
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.files import remove_stale_partials
from landmarks_fastai.utils.interrupt import Interrupt
from landmarks_fastai.utils.processors import map_in_threads, read_ahead
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.video.frame_folder import FrameFolderReader, FrameFolderWriter
from landmarks_fastai.video.io import read_video
from landmarks_fastai.video.reader import VideoFrame, VideoReader
from landmarks_fastai.video.writer import VideoWriter, check_video_suffix
from landmarks_fastai.visualization.landmarks import draw_landmarks

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class VideoResult:
    """Summary of an annotated video.

    Parameters
    ----------
    frames
        Number of frames written.
    seconds
        Time of the last of them in the source, seconds.
    tracks
        Number of different track IDs.
    damage
        Where and why the source could not be decoded completely; None if it is intact.
    interrupted
        Whether Ctrl-C or SIGTERM ended the command.
    notes
        One line for each thing that was assumed about the source, or that the outputs do not contain.
    """

    frames: int
    seconds: float
    tracks: int
    damage: str | None
    interrupted: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoOutputs:
    """Paths of the files to write.

    Parameters
    ----------
    video
        Video file.
    landmark_files
        Files of landmarks.
    frames
        Folder of frames.
    overwrite
        Replace existing files.
    """

    video: Path | None
    landmark_files: tuple[Path, ...]
    frames: Path | None
    overwrite: bool

    def check(self, source: Path) -> None:
        """Check the outputs before anything is decoded.

        Raises
        ------
        UserError
            If there is no output, a suffix is not supported, or an output is the source or exists.
        """
        if self.video is None and not self.landmark_files and self.frames is None:
            raise UserError("nothing to write: use --out, --landmarks or --frames")
        if self.video is not None:
            check_video_suffix(self.video)
        for file in self.landmark_files:
            check_landmark_file(file)
        for path in (self.video, *self.landmark_files, self.frames):
            if path is None:
                continue
            if path.resolve() == source.resolve():
                raise UserError(f"{path}: is the source itself; choose another path for the output")
            if path is not self.frames and path.exists() and not self.overwrite:
                raise UserError(f"{path}: already exists; choose another name or use --overwrite")

    def remove_stale(self) -> None:
        """Delete the temporary files of killed processes."""
        for file in (self.video, *self.landmark_files):
            if file is not None:
                remove_stale_partials(file.parent, [file.name])


def annotate_video(
    source: Path,
    out: Path | None,
    tracker: Tracker | None,
    *,
    start: float = 0.0,
    end: float | None = None,
    fps: float | None = None,
    draw: bool = True,
    landmark_files: Sequence[Path] = (),
    frames: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoResult:
    """Track the faces of a video, or of a folder of frames, and write the requested outputs.

    Frames are decoded, tracked, drawn and encoded in order, each in a thread; a few of them are in memory.
    If Ctrl-C, SIGTERM or a damaged source ends it early, the outputs are complete up to that frame. Temporary
    files that killed processes have left next to the outputs are deleted.

    Parameters
    ----------
    source
        A video, or a folder of frames.
    out
        Video to write: .mp4, .mov or .mkv, H.264, with the audio of the source.
    tracker
        Predicts the landmarks of each frame. None: the frames are copied.
    start, end
        Seconds of the source; `end` is excluded.
    fps
        Frame rate of the outputs, reached by repeating or dropping frames. None: the times of the source.
    draw
        Draw the landmarks on the frames.
    landmark_files
        Files for the landmarks: .csv, .json or .parquet (see `open_landmark_file`), with times of the source.
    frames
        Folder for the frames as images.
    overwrite
        Replace existing outputs.
    progress
        Called after each frame with the number of frames done and expected.

    Raises
    ------
    UserError
        If the source cannot be used, an output exists, or none is requested.
    RunError
        If an output cannot be written.
    """
    if landmark_files and tracker is None:
        raise ValueError("landmark files need a tracker")
    outputs = VideoOutputs(out, tuple(landmark_files), frames, overwrite)
    outputs.check(source)
    outputs.remove_stale()
    with read_video(source, start=start, end=end, fps=fps) as reader, ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())  # first, so that the files are completed within it
        landmark_writers = _open_landmark_files(stack, outputs, tracker)
        image_writers = _open_image_writers(stack, outputs, reader)
        annotator = _Annotator(tracker, draw, interrupt)
        frames_ahead = stack.enter_context(closing(read_ahead(reader)))
        count, seconds = 0, 0.0
        with closing(annotator.annotate(frames_ahead)) as annotated:
            for frame, landmarks, image in annotated:
                seconds = float(frame.time)
                if landmarks is not None:
                    for write in landmark_writers:
                        write(frame.index, seconds, landmarks)
                for writer in image_writers:
                    writer.write(image, frame.time - reader.start)
                count += 1
                if progress is not None:
                    progress(count, reader.expected, "frames")
        frames_ahead.close()  # the notes of the reader do not change any more
        notes = (*reader.notes, *(note for writer in image_writers for note in writer.notes))
        if tracker is not None and tracker.discarded:
            notes = (*notes, describe_discarded_detections(tracker.discarded, tracker.min_confidence))
        return VideoResult(
            count, seconds, len(annotator.track_ids), reader.damage, interrupt.requested, notes
        )


Annotated = tuple[VideoFrame, Landmarks | None, Image]
"""A frame, its landmarks, and its image, on which they may be drawn."""


class _Annotator:
    """Tracks the faces from frame to frame and draws them.

    Parameters
    ----------
    tracker, draw
        See `annotate_video`.
    interrupt
        No other frame is tracked once it is requested.

    Attributes
    ----------
    track_ids
        All track IDs so far.
    """

    def __init__(self, tracker: Tracker | None, draw: bool, interrupt: Interrupt) -> None:
        self._tracker, self._draw, self._interrupt = tracker, draw, interrupt
        self.track_ids: set[int] = set()

    def annotate(self, frames: Iterable[VideoFrame]) -> Generator[Annotated, None, None]:
        """Yield each frame with its landmarks and its image, drawn in another thread.

        After an interruption, the frames that were tracked are still yielded.
        """
        if self._tracker is None:
            for frame in frames:
                if self._interrupt.requested:
                    return
                yield frame, None, frame.image
        else:
            # one thread, because the frames between two drawings are tracked in the calling thread meanwhile
            yield from map_in_threads(_draw, self._track(self._tracker, frames), threads=1)

    def _track(
        self, tracker: Tracker, frames: Iterable[VideoFrame]
    ) -> Iterator[tuple[VideoFrame, Landmarks, bool, list[str] | None]]:
        """Yield each frame with its landmarks, whether they are drawn, and their captions."""
        for frame in frames:
            if self._interrupt.requested:
                return
            landmarks = tracker(frame.image, float(frame.time))
            self.track_ids.update(landmarks.track_ids or ())
            yield frame, landmarks, self._draw and len(landmarks) > 0, self._captions(landmarks)

    def _captions(self, landmarks: Landmarks) -> list[str] | None:
        """Return the track IDs, or None as long as the video has had fewer than two tracks."""
        if len(self.track_ids) < 2:
            return None
        return [str(track_id) for track_id in landmarks.track_ids or ()]


def _draw(tracked: tuple[VideoFrame, Landmarks, bool, list[str] | None]) -> Annotated:
    frame, landmarks, is_drawn, captions = tracked
    if is_drawn:
        draw_landmarks(frame.image, landmarks, captions=captions, in_place=True)
    return frame, landmarks, frame.image


def _open_landmark_files(
    stack: ExitStack, outputs: VideoOutputs, tracker: Tracker | None
) -> list[FrameWriter]:
    """Open the landmark files; `stack` closes them."""
    if tracker is None:
        return []
    schema, visibility = tracker.predictor.schema, tracker.predictor.predicts_visibility
    return [
        stack.enter_context(open_landmark_file(file, schema, visibility=visibility))
        for file in outputs.landmark_files
    ]


def _open_image_writers(
    stack: ExitStack, outputs: VideoOutputs, reader: VideoReader | FrameFolderReader
) -> list[VideoWriter | FrameFolderWriter]:
    """Open the writers of the annotated frames; `stack` closes them."""
    writers: list[VideoWriter | FrameFolderWriter] = []
    if outputs.frames is not None:
        writers.append(stack.enter_context(FrameFolderWriter(outputs.frames, overwrite=outputs.overwrite)))
    if outputs.video is not None:
        audio_from = reader.path if isinstance(reader, VideoReader) else None
        writer = VideoWriter(
            outputs.video,
            reader.size,
            reader.rate,
            reader.time_base,
            audio_from=audio_from,
            start=reader.start,
            end=reader.end,
        )
        writers.append(stack.enter_context(writer))
    return writers
