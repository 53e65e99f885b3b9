"""A video's file to upright RGB frames with their times, and frames back to a file that plays everywhere.

Knows containers, rotation, colours and clocks (PyAV does the rest), and nothing about faces, boxes or
networks. Frame by frame: an hour takes no more memory than a second.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil, floor, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai import files, images
from landmarks_fastai.errors import LandmarksError, RunError, UserError
from landmarks_fastai.videosound import Sound

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

DEMUXERS = (
    "3gp,aac,ac3,aiff,apng,asf,avi,dv,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,rm,wav,webm,wtv,yuv4mpegpipe"
)
"""What may be opened. Playlists, which lead to other files and to the network, and text as art, may not."""

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""What can be written, by suffix."""

COPIED_SOUND = {
    ".mp4": frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}),
    ".mov": frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16be", "pcm_s16le", "pcm_s24le"}),
    ".mkv": frozenset({"aac", "ac3", "dts", "eac3", "flac", "mp2", "mp3", "opus", "pcm_s16le", "vorbis"}),
}
"""Codecs of sound that players play from each container."""

UNTOLD_RATE = Fraction(25)
BT709, UNTOLD, BT601 = 1, 2, 5
"""Colours, by the numbers that ITU-T H.273 gives them."""

MPEG_RANGE = 1
"""Luma of 16 to 235."""

WAITING = 4
"""Frames that may wait to be encoded."""


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
        self._start, self._end = _span(start, end)
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
        self._container = _open(self.path)
        try:
            stream = self._stream = _video_stream(self._container, self.path)
        except BaseException:
            self._container.close()
            raise
        stream.thread_type = "AUTO"
        self._unit = stream.time_base or Fraction(1, 1000)
        self._begin = _begin(stream)
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
                    self._lost.append(f"{_reason(error)} at {float(self._reached):.2f} s")
                    continue
                for frame in decoded:
                    time = self._time(frame, time)
                    self._reached = time + ((frame.duration or 0) * self._unit or self._gap)
                    yield time, frame
        except av.FFmpegError as error:
            self._lost.append(f"{_reason(error)} at {float(self._reached):.2f} s")
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
        matrix = _matrix(frame.height) if frame.colorspace == UNTOLD else None
        rgb = self._reformatter.reformat(
            frame, *self._square, format="rgb24", src_colorspace=matrix, threads=1
        )
        return np.ascontiguousarray(_upright(np.asarray(rgb.to_ndarray(), np.uint8), self._turn))


class VideoWriter:
    """Writes an H.264 video that browsers and phones play, with a source's sound.

    An odd width or height grows by a repeated column or row of pixels. The file is written beside its
    place, which it takes on leaving the with block: by an exception too, KeyboardInterrupt for one, so that
    what was done can be played. Without a single frame nothing is left.

    Parameters
    ----------
    path
        Where; its suffix is one of `CONTAINERS`.
    size
        Width and height of the frames, px.
    rate
        About how many come a second.
    time_base
        Unit of their times, s: each is rounded to a multiple (and to milliseconds in an .mkv).
    audio_from
        Whose sound is taken along, if it has any: copied where this container's players know its codec,
        else encoded to AAC.
    start, end
        Sound between them is taken, s from the beginning of that file's video; what is at `start` sounds
        with the frame at 0.

    Raises
    ------
    UserError
        If the suffix is another, or `audio_from` can't be read.
    RunError
        If the file can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        rate: Fraction,
        time_base: Fraction,
        *,
        audio_from: Path | None = None,
        start: float | Fraction = 0.0,
        end: float | Fraction | None = None,
    ) -> None:
        check_video_name(path)
        self.path = Path(path)
        self._size, self._rate, self._time_base = size, rate, time_base
        self._audio_from, self._span = audio_from, _span(start, end)
        self._part = files.part_of(self.path)
        self._output: OutputContainer | None = None
        self._source: InputContainer | None = None
        self._sound: Sound | None = None
        self._last: int | None = None
        """When the last frame is shown, in time bases."""
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> VideoWriter:
        """Make the file and all that goes into it, so that what is wrong is told before the work."""
        # encoding in a thread of its own goes on beside the caller's work, and Ctrl-C, which hits the main
        # thread, can't come between an encoded frame and the file
        self._worker = ThreadPoolExecutor(1)
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """Write a frame.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB. It is copied.
        time
            Seconds from the beginning of what is written; later than the frame before.

        Raises
        ------
        ValueError
            If the image has another size, or the time is not later.
        RunError
            If the file can't be written: no room.
        """
        import av

        width, height = self._size
        if image.shape != (height, width, 3):
            raise ValueError(f"a frame of shape {image.shape} in a video of {width} x {height}")
        ticks = floor(time / self._time_base + Fraction(1, 2))
        if ticks < 0 or (self._last is not None and ticks <= self._last):
            raise ValueError(f"a frame at {float(time):.6f} s, which is not later than the one before")
        if width % 2 or height % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base, frame.duration = ticks, self._time_base, self._ticks_per_frame
        self._waiting.append(self._worker.submit(self._encode, frame))
        self._last = ticks
        if len(self._waiting) > WAITING:
            self._wait()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the file, whatever ended the block; leave nothing where there is nothing to finish."""
        try:
            if self._last is not None:
                until = None if kind is None else (self._last + self._ticks_per_frame) * self._time_base
                with self._errors():
                    self._finish(until)
        except LandmarksError:
            if kind is None:  # else what ended the block says more
                raise
        finally:
            self._discard()

    def _open(self) -> None:
        """Open all streams and write the header."""
        import av
        from av.video.reformatter import VideoReformatter

        suffix = self.path.suffix.lower()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        output = self._output = av.open(
            f"file:{self._part}",
            "w",
            format=CONTAINERS[suffix],
            # the index in front, so that browsers play before all is there
            container_options={} if suffix == ".mkv" else {"movflags": "+faststart"},
        )
        width, height = self._size
        self._stream = _add_h264(
            output, (width + width % 2, height + height % 2), self._rate, self._time_base
        )
        self._ticks_per_frame = max(1, round(1 / self._rate / self._time_base))
        self._reformatter = VideoReformatter()
        if self._audio_from is not None:
            source = self._source = _open(self._audio_from)
            video = next(iter(_videos(source)), None)
            begin = Fraction(0) if video is None else _begin(video)
            self._sound = Sound(source, output, COPIED_SOUND[suffix], begin, *self._span)
        output.start_encoding()

    def _encode(self, frame: av.VideoFrame) -> None:
        """Write what the encoder makes of a frame, and the sound up to there."""
        with self._unless_failed() as output:
            yuv = self._reformatter.reformat(
                frame,
                format="yuv420p",
                dst_colorspace=_matrix(self._stream.height),
                dst_color_range=MPEG_RANGE,
                threads=1,
            )
            output.mux(self._stream.encode(yuv))
            if self._sound is not None:
                self._sound.write_until((frame.pts or 0) * self._time_base)

    def _encode_rest(self, sound_until: Fraction | None) -> None:
        """Write what the encoder still holds, the rest of the sound, and the end of the file."""
        with self._unless_failed() as output:
            output.mux(self._stream.encode(None))
            if self._sound is not None:
                self._sound.write_until(sound_until)
            output.close()

    @contextmanager
    def _unless_failed(self) -> Iterator[OutputContainer]:
        """Give what is written to, until something fails for the first time."""
        if self._failed or self._output is None:
            raise RunError(f"{self.path}: could not be written further")
        try:
            yield self._output
        except BaseException:
            self._failed = True
            raise

    def _finish(self, sound_until: Fraction | None) -> None:
        """Write all that waits, and give the file its name."""
        self._waiting.append(self._worker.submit(self._encode_rest, sound_until))
        while self._waiting:
            self._wait()
        os.replace(self._part, self.path)

    def _wait(self) -> None:
        """Hear from the oldest frame that waits whether it went well."""
        with self._errors():
            self._waiting[0].result()
        self._waiting.popleft()  # only now: Ctrl-C may end the waiting, and the frame still counts

    def _discard(self) -> None:
        """Let go of everything, and of the file beside, if it is still there."""
        self._worker.shutdown(cancel_futures=True)
        for container in (self._output, self._source):
            if container is not None:
                with suppress(Exception):
                    container.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Tell in one line what goes wrong with the file."""
        import av

        with files.write_errors(self.path):
            try:
                yield
            except av.FFmpegError as error:
                if isinstance(error, OSError):
                    raise
                raise RunError(f"{self.path}: can't be encoded ({_reason(error)})") from error


def check_video_name(path: str | Path) -> None:
    """Refuse to write a video whose suffix is none of `CONTAINERS`.

    Raises
    ------
    UserError
        If it is another.
    """
    if Path(path).suffix.lower() not in CONTAINERS:
        *most, last = CONTAINERS
        raise UserError(f"{path}: videos are written as {', '.join(most)} or {last}; choose such a name")


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


def _span(start: float | Fraction, end: float | Fraction | None) -> tuple[Fraction, Fraction | None]:
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


def _open(path: Path) -> InputContainer:
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


def _videos(container: InputContainer) -> list[VideoStream]:
    """List the streams of video; a cover of an album is none."""
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video to read."""
    videos = _videos(container)
    if not videos:
        raise UserError(f"{path}: has no video stream")
    decodable = next((stream for stream in videos if stream.codec_context is not None), None)
    if decodable is None:
        raise UserError(f"{path}: its codec can't be decoded here; convert it to H.264 first")
    return decodable


def _begin(stream: VideoStream) -> Fraction:
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
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds) - _begin(stream)
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


def _matrix(height: int) -> int:
    """Return what players take a video of that height for, where it doesn't name its matrix of colours."""
    return BT709 if height >= 720 else BT601


def _add_h264(
    output: OutputContainer, size: tuple[int, int], rate: Fraction, time_base: Fraction
) -> VideoStream:
    """Add the stream of pictures, tagged with its colours."""
    stream = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = time_base
    context.colorspace, context.color_range = _matrix(size[1]), MPEG_RANGE
    context.color_primaries = context.color_trc = BT709
    return stream


def _reason(error: av.FFmpegError) -> str:
    return error.strerror or str(error)
