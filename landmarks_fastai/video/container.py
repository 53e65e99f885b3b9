"""Video files: opening them, choosing the video stream, and reading start time and duration."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.image_formats import FORMATS

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

MAX_FRAME_PIXELS = 8192 * 4608
"""Larger frames are refused without decoding them: a decoder keeps up to 20 of them. 8K has 7680 x 4320."""

TAGGED_DURATION = re.compile(r"(\d{1,6}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")
"""Matroska's tag DURATION, the end time of a stream: 00:00:02.000000000."""


def silence_ffmpeg() -> None:
    """Turn off the messages of FFmpeg that PyAV passes to Python's logging.

    Older versions of torchvision turn them on when they are imported. A thread of a decoder then waits for
    Python to log a message, while Python waits for the thread: reading such a video never ends.
    """
    import av.logging

    av.logging.set_level(None)


def open_video(path: Path) -> InputContainer:
    """Open a local file; its name may contain any character.

    Raises
    ------
    UserError
        If it is missing, not a file, empty, or not a video or audio file.
    """
    import av

    silence_ffmpeg()
    # titles with invalid bytes; PyAV 19 has no such parameter and always accepts them
    lenient: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder, not a video; to read its images as frames, use --from-frames")
        if not path.is_file():
            path.stat()
            raise UserError(f"{path}: not a regular file; save it as a file first")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); get a complete copy")
        opened: InputContainer = av.open(
            f"file:{path}",
            container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
            **lenient,
        )
        return opened
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
        If there is none, or its frames are larger than `MAX_FRAME_PIXELS`; the message names `path`.
    """
    streams = video_streams(container)
    if not streams:
        audio = "an audio file, not a video; it " if container.streams.audio else ""
        raise UserError(f"{path}: {audio}has no video stream")
    decodable = next((stream for stream in streams if stream.codec_context is not None), None)
    if decodable is None:
        raise UserError(f"{path}: its codec is not supported; convert it to H.264 first")
    if decodable.width * decodable.height > MAX_FRAME_PIXELS:
        raise UserError(
            f"{path}: {decodable.width} x {decodable.height} px per frame, more than"
            f" {MAX_FRAME_PIXELS // 10**6} million; reduce its size first"
        )
    # also if the size grows later
    decodable.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
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
    if tag := TAGGED_DURATION.fullmatch(stream.metadata.get("DURATION", "").strip()):
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3]) - start_time_of(stream)
    # the container's duration is that of its longest stream, which need not be the video
    only = len(container.streams) == 1
    return Fraction(container.duration, 1_000_000) if only and container.duration is not None else None


def ffmpeg_reason(error: av.FFmpegError) -> str:
    """Return FFmpeg's description of an error, without the name of the file."""
    return error.strerror or str(error)
