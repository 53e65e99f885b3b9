"""`read_video` and `write_video`: reading and writing the frames of a video with their times in one call."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

from landmarks_fastai.errors import UserError
from landmarks_fastai.video.frame_folder import FrameFolderReader
from landmarks_fastai.video.reader import VideoFrame, VideoReader
from landmarks_fastai.video.timing import TIME_BASE, average_rate, parse_frame_rate
from landmarks_fastai.video.writer import VideoWriter, check_video_suffix


def read_video(
    path: str | Path,
    *,
    start: float | Fraction = 0.0,
    end: float | Fraction | None = None,
    fps: float | Fraction | None = None,
) -> VideoReader | FrameFolderReader:
    """Open a video, or a folder of frames, as an iterable of `VideoFrame`.

    Parameters
    ----------
    path
        A video file, or a folder of images (see `FrameFolderReader`).
    start, end
        Seconds from the beginning: frames with start <= time < end are read. Not for folders.
    fps
        Frames per second, by repeating or dropping frames of a video. None: the source's own times.

    Returns
    -------
    VideoReader | FrameFolderReader
        A context manager that yields upright RGB frames one by one; see its class for the attributes.

    Raises
    ------
    UserError
        If the source, the span or the frame rate cannot be used.

    Examples
    --------
    >>> with read_video("clip.mp4", start=1, end=2) as frames:  # doctest: +SKIP
    ...     for frame in frames:
    ...         print(float(frame.time), frame.image.shape)
    """
    if not Path(path).is_dir():
        return VideoReader(path, start=start, end=end, fps=fps)
    if start or end is not None:
        raise UserError(
            f"{path}: --start and --end select a part of a video; remove them for a folder of frames"
        )
    return FrameFolderReader(path, fps=fps)


def write_video(
    path: str | Path,
    frames: Iterable[VideoFrame],
    *,
    fps: float | Fraction | None = None,
    audio_from: str | Path | None = None,
) -> None:
    """Write frames as an H.264 video; an existing file is replaced.

    Parameters
    ----------
    path
        The file: .mp4, .mov or .mkv.
    frames
        What `read_video` returns, or any frames with increasing times; the first one is shown at time 0.
    fps
        Frames per second, evenly spaced. None: the frames keep their times.
    audio_from
        File whose audio is added, from the time of the first frame to the end of the last one.

    Raises
    ------
    UserError
        If the suffix is not supported, there are no frames, or `audio_from` cannot be read.
    RunError
        If the file cannot be written.
    ValueError
        If the frames differ in size or their times do not increase.

    Examples
    --------
    >>> with read_video("clip.mp4", start=1, end=2) as frames:  # doctest: +SKIP
    ...     write_video("part.mp4", frames, audio_from="clip.mp4")
    """
    check_video_suffix(path)
    iterator = iter(frames)
    head = list(islice(iterator, 2))
    if not head:
        raise UserError(f"{path}: there are no frames to write")
    first = head[0]
    height, width = first.image.shape[:2]
    rate, time_base = _rate_and_time_base(frames, head, fps)
    audio = None if audio_from is None else Path(audio_from)
    with VideoWriter(
        path, (width, height), rate, time_base, audio_from=audio, start=first.time, trim_audio=True
    ) as writer:
        for index, frame in enumerate(chain(head, iterator)):
            writer.write(frame.image, frame.time - first.time if fps is None else index / rate)


def _rate_and_time_base(
    frames: Iterable[VideoFrame], head: list[VideoFrame], fps: float | Fraction | None
) -> tuple[Fraction, Fraction]:
    """Return the frame rate and the unit of times in seconds of a video with these frames."""
    if fps is not None:
        rate = parse_frame_rate(fps)
        return rate, 1 / rate
    if isinstance(frames, VideoReader | FrameFolderReader):
        return frames.rate, frames.time_base
    return average_rate([frame.time for frame in head]), TIME_BASE
