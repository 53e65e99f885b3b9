"""A video's file to upright RGB frames with their times.

Knows containers, rotation, colours and clocks (PyAV does the rest), and nothing about faces, boxes or
networks. Frame by frame: an hour takes no more memory than a second.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil, floor, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai import images
from landmarks_fastai.errors import UserError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEMUXERS = (
    "3gp,aac,ac3,aiff,apng,asf,avi,dv,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,rm,wav,webm,wtv,yuv4mpegpipe"
)
"""What may be opened. Playlists, which lead to other files and to the network, and text as art, may not."""

UNTOLD_RATE = Fraction(25)
BT709, UNTOLD, BT601 = 1, 2, 5
"""Colours, by the numbers that ITU-T H.273 gives them."""

MPEG_RANGE = 1
"""Luma of 16 to 235."""


@dataclass(frozen=True)
class VideoFrame:
    """One frame.

    Parameters
    ----------
    index
        0 for the first that comes.
    time
        Seconds from the beginning of the source.
    image
        (H, W, 3) uint8 RGB, upright. Nobody else holds it: it may be drawn on.
    """

    index: int
    time: Fraction
    image: NDArray[np.uint8]


class VideoReader:
    """Reads a video once, frame by frame in the order of showing.

    Frames are turned and mirrored as the file says, and have square pixels, whatever the source. Times
    always increase.

    Parameters
    ----------
    path
        A local file.
    start, end
        Seconds from the beginning of the source: what is shown at start <= time < end comes.
    fps
        Frames a second, at start, start + 1 / fps and so on: each the latest that is not later, so that
        some come twice or never. None: each comes once, at its own time.

    Attributes
    ----------
    size
        Width and height of every frame, px.
    rate
        Average number of frames a second that come.
    time_base
        Unit of times, s: each is a multiple of it (with `fps`, counted from `start`).
    duration
        Seconds of video in the source; None where it doesn't say.
    expected
        About how many frames will come; None where the source doesn't say.
    damage
        None; or, once no more frames come, where and why some are missing.

    Raises
    ------
    UserError
        If the file or the span can't be used: before any frame comes, never after.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: float | Fraction = 0.0,
        end: float | Fraction | None = None,
        fps: float | Fraction | None = None,
    ) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self._start, self._end = check_span(start, end)
        self._fps = None if fps is None else frame_rate(fps)
        self._reached = Fraction(0)
        """Until when what was decoded is shown."""
        self._lost: list[str] = []
        """Why packets could not be decoded."""
        self._open()
        try:
            self._frames = self._look_ahead()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        """Return itself: it is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames that have not come yet."""
        for index, (time, frame) in enumerate(self._frames):
            yield VideoFrame(index, time, self._image(frame))

    def _open(self) -> None:
        """Open the file, at its beginning, and take what it says of its video."""
        self._container = open_video(self.path)
        try:
            stream = self._stream = _video_stream(self._container, self.path)
        except BaseException:
            self._container.close()
            raise
        stream.thread_type = "AUTO"
        self._unit = stream.time_base or Fraction(1, 1000)
        self._begin = begin_of(stream)
        self.duration = _duration(self._container, stream)
        own_rate = stream.average_rate or stream.guessed_rate or UNTOLD_RATE
        self._gap = 1 / own_rate
        self.rate = self._fps or own_rate
        self.time_base = self._unit if self._fps is None else 1 / self._fps
        self.expected = self._count()

    def _count(self) -> int | None:
        """Guess how many frames will come."""
        if self._stream.frames and self._fps is None and self._start == 0 and self._end is None:
            return self._stream.frames
        if self.duration is None:
            return None
        until = self.duration if self._end is None else min(self._end, self.duration)
        return max(1, ceil((until - self._start) * self.rate))

    def _look_ahead(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Decode the first frame, which says how the others are to be turned, and that there are any."""
        from av.video.reformatter import VideoReformatter

        decoded = self._from_start()
        frames = self._cut(decoded) if self._fps is None else self._resample(decoded, self._fps)
        first = next(frames, None)
        if first is None:
            raise UserError(f"{self.path}: {self._nothing()}")
        if self._start > 0:
            self._lost.clear()  # where decoding begins in the middle, the first packets may well fail
        self._reformatter = VideoReformatter()
        self._square = _square_pixels(first[1], self._stream.sample_aspect_ratio)
        self._turn = _display_matrix(first[1])
        height, width = self._image(first[1]).shape[:2]
        self.size = width, height
        return chain([first], frames)

    def _nothing(self) -> str:
        """Say why no frame comes."""
        if self._reached == 0:
            reason = self._lost[0] if self._lost else None
            return f"no frame can be decoded ({reason}); get a whole copy" if reason else "has 0 frames"
        length = float(self._reached if self.duration is None else self.duration)
        until = "or later" if self._end is None else f"and before --end {float(self._end):g}"
        return f"no frame comes at --start {float(self._start):g} {until}; the video is {length:.2f} s long"

    def _from_start(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Decode from a frame on that is not later than `start`, where there is one."""
        import av

        if self._start == 0:
            return self._decode()
        # an index may point past the key frame that is needed; nearly always, there is another 15 s before
        for margin in (0, 15):
            wanted = max(Fraction(0), self._start - margin) + self._begin
            try:
                self._container.seek(floor(wanted / self._unit), stream=self._stream)
            except (av.FFmpegError, OverflowError):  # not every kind of file has a way to seek
                break
            decoded = self._decode()
            first = next(decoded, None)
            # at 0 it is the file's first, or has no time
            if first is not None and 0 < first[0] <= self._start:
                return chain([first], decoded)
        self._container.close()
        self._open()
        return self._decode()

    def _decode(self) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Decode from here on, past packets that can't be, and at the end say whether that was all."""
        import av

        time: Fraction | None = None
        self.damage, self._reached = None, Fraction(0)
        self._lost.clear()
        try:
            for packet in self._container.demux(self._stream):
                try:
                    decoded = packet.decode()
                except av.FFmpegError as error:
                    self._lost.append(f"{reason_of(error)} at {float(self._reached):.2f} s")
                    continue
                for frame in decoded:
                    time = self._time(frame, time)
                    self._reached = time + ((frame.duration or 0) * self._unit or self._gap)
                    yield time, frame
        except av.FFmpegError as error:
            self._lost.append(f"{reason_of(error)} at {float(self._reached):.2f} s")
        self.damage = self._missing()

    def _time(self, frame: av.VideoFrame, before: Fraction | None) -> Fraction:
        """Return when a frame is shown; one whose stamp is missing or goes back follows the one before."""
        stamp = frame.dts if frame.pts is None else frame.pts
        time = None if stamp is None else stamp * self._unit - self._begin
        if before is None:
            return max(Fraction(0), time or Fraction(0))
        return before + self._gap if time is None or time <= before else time

    def _missing(self) -> str | None:
        """Say what is missing, now that the source is at its end."""
        reached, length = float(self._reached), self.duration or Fraction(0)
        # headers of whole files are a frame or two out as well
        if length - self._reached > max(4 * self._gap, Fraction(1, 5)):
            why = f" ({self._lost[0]})" if self._lost else ""
            return f"cut off or damaged after {reached:.2f} of {float(length):.2f} s{why}"
        if self._lost:
            return f"damaged packets left out: {len(self._lost)} (the first: {self._lost[0]})"
        return None

    def _cut(
        self, decoded: Iterator[tuple[Fraction, av.VideoFrame]]
    ) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Keep what lies in the span."""
        for time, frame in decoded:
            if self._end is not None and time >= self._end:
                return
            if time >= self._start:
                yield time, frame

    def _resample(
        self, decoded: Iterator[tuple[Fraction, av.VideoFrame]], fps: Fraction
    ) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Show at each tick of the span the latest frame that is not later."""
        slack = self._unit / 2  # the source's times are rounded, and its ticks are not
        tick, shown = self._start, None
        for time, frame in decoded:
            shown = shown or frame
            while tick < time - slack:
                if self._end is not None and tick >= self._end:
                    return
                yield tick, shown
                tick += 1 / fps
            shown = frame
        until = self._reached - slack
        while shown is not None and tick < (until if self._end is None else min(self._end, until)):
            yield tick, shown
            tick += 1 / fps

    def _image(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Turn a decoded frame into what people see."""
        matrix = colour_matrix(frame.height) if frame.colorspace == UNTOLD else None
        rgb = self._reformatter.reformat(
            frame, *self._square, format="rgb24", src_colorspace=matrix, threads=1
        )
        return np.ascontiguousarray(_upright(np.asarray(rgb.to_ndarray(), np.uint8), self._turn))


def frame_rate(fps: float | Fraction) -> Fraction:
    """Return frames a second, as the fraction that is meant: 29.97002997 is 30000 / 1001.

    Raises
    ------
    UserError
        If it is no number, or not between 0.001 and 1000.
    """
    if not (isfinite(fps) and 0.001 <= fps <= 1000):
        raise UserError(
            f"--fps {float(fps):g}: give a number of frames a second, more than 0 and at most 1000"
        )
    return _exact(fps)


def _exact(value: float | Fraction) -> Fraction:
    return Fraction(value).limit_denominator(1_000_000)


def check_span(start: float | Fraction, end: float | Fraction | None) -> tuple[Fraction, Fraction | None]:
    """Check what part of a video is wanted."""
    if not (isfinite(start) and start >= 0):
        raise UserError(f"--start {float(start):g}: give seconds from the beginning, 0 or more")
    if end is None:
        return _exact(start), None
    if not (isfinite(end) and end > start):
        raise UserError(
            f"--end {float(end):g}: give seconds from the beginning, more than --start {float(start):g}"
        )
    return _exact(start), _exact(end)


def open_video(path: Path) -> InputContainer:
    """Open a local file, whatever its name looks like."""
    import av

    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder, not a video")
        if not path.is_file():
            path.stat()
            raise UserError(f"{path}: neither a file nor a folder; save it as a file first")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); get a whole copy")
        return av.open(
            f"file:{path}",
            metadata_errors="replace",
            container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: can't be opened: {error.strerror}") from error
    except av.FFmpegError as error:
        raise UserError(f"{path}: {_refusal(path)}") from error


def _refusal(path: Path) -> str:
    """Say why a file is not a video."""
    with warnings.catch_warnings(), suppress(Exception), Image.open(path, formats=images.FORMATS):
        warnings.simplefilter("ignore")
        return "a picture, not a video; use predict"
    with path.open("rb") as file:
        if file.read(8)[4:] == b"ftyp":
            return "its index (moov) is missing, as where a recording was cut off; get a whole copy"
    return "not a video, or damaged from its first bytes"


def video_streams(container: InputContainer) -> list[VideoStream]:
    """List the streams of video; a cover of an album is none."""
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video to read."""
    videos = video_streams(container)
    if not videos:
        raise UserError(f"{path}: has no video stream")
    decodable = next((stream for stream in videos if stream.codec_context is not None), None)
    if decodable is None:
        raise UserError(f"{path}: its codec can't be decoded here; convert it to H.264 first")
    return decodable


def begin_of(stream: VideoStream) -> Fraction:
    """Return when a video begins in its file's own time, s."""
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return how long the file says the video is, s."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # its duration, where the index is cut off, is only that of what is left
        return stream.frames / stream.average_rate
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    with suppress(ValueError):  # Matroska's tag says when it ends: 00:00:02.000000000
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds) - begin_of(stream)
    # of the longest stream, which need not be the video
    only = len(container.streams) == 1
    return Fraction(container.duration, 1_000_000) if only and container.duration is not None else None


def _square_pixels(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Return the width and height at which pixels are square, neither of them smaller than now, px."""
    if aspect is None or not Fraction(1, 4) <= aspect <= 4:  # beyond is a broken header
        return frame.width, frame.height
    return round(frame.width * max(aspect, Fraction(1))), round(frame.height / min(aspect, Fraction(1)))


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    """Return the (2, 2) with which stored pixels, as rows (x, y), are multiplied to be upright."""
    data = cast(Mapping[str, bytes], frame.side_data).get("DISPLAYMATRIX")  # typed too narrowly by PyAV
    return None if data is None else np.frombuffer(data, np.int32, 9).reshape(3, 3)[:2, :2]


def _upright(image: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Turn by quarters and mirror, as near to the matrix as that comes."""
    if matrix is None:
        return image
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):
        image, matrix = image.swapaxes(0, 1), matrix[::-1]
    return image[:: -1 if matrix[1, 1] < 0 else 1, :: -1 if matrix[0, 0] < 0 else 1]


def colour_matrix(height: int) -> int:
    """Return what players take a video of that height for, where it doesn't name its matrix of colours."""
    return BT709 if height >= 720 else BT601


def reason_of(error: av.FFmpegError) -> str:
    """Return what FFmpeg says went wrong, without the file's name."""
    return error.strerror or str(error)
