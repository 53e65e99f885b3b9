"""Video files: opening them, choosing the video stream, and reading start time and duration."""

from __future__ import annotations

import warnings
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.images import FORMATS

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEMUXERS = (
    "3gp,aac,ac3,aiff,apng,asf,avi,dv,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,rm,wav,webm,wtv,yuv4mpegpipe"
)
"""FFmpeg's names of the formats that are opened. Excluded are playlists, which refer to other files and to
the network, and text, which FFmpeg renders as video."""


def open_video(path: Path) -> InputContainer:
    """Open a local file; its name may contain any character.

    Raises
    ------
    UserError
        If it is missing, not a file, empty, or not a video or audio file.
    """
    import av

    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder, not a video")
        if not path.is_file():
            path.stat()
            raise UserError(f"{path}: not a regular file; save it as a file first")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); get a complete copy")
        return av.open(
            f"file:{path}",
            metadata_errors="replace",
            container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error
    except av.FFmpegError as error:
        raise UserError(f"{path}: {_explain_failure(path)}") from error


def _explain_failure(path: Path) -> str:
    """Return why FFmpeg cannot open a file."""
    with warnings.catch_warnings(), suppress(Exception), Image.open(path, formats=FORMATS):
        warnings.simplefilter("ignore")
        return "an image, not a video; use the predict command"
    with path.open("rb") as file:
        if file.read(8)[4:] == b"ftyp":
            return "its index (moov) is missing, as in a recording that was cut off; get a complete copy"
    return "not a video, or damaged at its beginning"


def video_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams, without cover images."""
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def select_video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that can be decoded.

    Raises
    ------
    UserError
        If there is none; the message names `path`.
    """
    streams = video_streams(container)
    if not streams:
        raise UserError(f"{path}: has no video stream")
    decodable = next((stream for stream in streams if stream.codec_context is not None), None)
    if decodable is None:
        raise UserError(f"{path}: its codec is not supported; convert it to H.264 first")
    return decodable


def start_time_of(stream: VideoStream) -> Fraction:
    """Return the timestamp of the stream's first frame in seconds."""
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


def duration_of(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return the duration in seconds as stated by the file; None if it states none."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # for a truncated AVI, FFmpeg's duration covers only the part that is left
        return stream.frames / stream.average_rate
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    with suppress(ValueError):  # Matroska's tag is the end time, written as 00:00:02.000000000
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds) - start_time_of(stream)
    # the container's duration is that of its longest stream, which need not be the video
    only = len(container.streams) == 1
    return Fraction(container.duration, 1_000_000) if only and container.duration is not None else None


def ffmpeg_reason(error: av.FFmpegError) -> str:
    """Return FFmpeg's description of an error, without the name of the file."""
    return error.strerror or str(error)
