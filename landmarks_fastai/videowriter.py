"""Frames with their times, and a source's sound, to a video file that plays everywhere.

Knows containers, codecs and clocks (PyAV does the rest), and nothing about faces, boxes or networks. Frame by
frame: an hour takes no more memory than a second.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai import files
from landmarks_fastai.errors import LandmarksError, RunError, UserError
from landmarks_fastai.videofile import (
    BT709,
    MPEG_RANGE,
    begin_of,
    check_span,
    colour_matrix,
    open_video,
    reason_of,
    video_streams,
)
from landmarks_fastai.videosound import Sound

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""What can be written, by suffix."""

COPIED_SOUND = {
    ".mp4": frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}),
    ".mov": frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16be", "pcm_s16le", "pcm_s24le"}),
    ".mkv": frozenset({"aac", "ac3", "dts", "eac3", "flac", "mp2", "mp3", "opus", "pcm_s16le", "vorbis"}),
}
"""Codecs of sound that players play from each container."""

WAITING = 4
"""Frames that may wait to be encoded."""


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
        self._audio_from, self._span = audio_from, check_span(start, end)
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
            source = self._source = open_video(self._audio_from)
            video = next(iter(video_streams(source)), None)
            begin = Fraction(0) if video is None else begin_of(video)
            self._sound = Sound(source, output, COPIED_SOUND[suffix], begin, *self._span)
        output.start_encoding()

    def _encode(self, frame: av.VideoFrame) -> None:
        """Write what the encoder makes of a frame, and the sound up to there."""
        with self._unless_failed() as output:
            yuv = self._reformatter.reformat(
                frame,
                format="yuv420p",
                dst_colorspace=colour_matrix(self._stream.height),
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
                raise RunError(f"{self.path}: can't be encoded ({reason_of(error)})") from error


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


def _add_h264(
    output: OutputContainer, size: tuple[int, int], rate: Fraction, time_base: Fraction
) -> VideoStream:
    """Add the stream of pictures, tagged with its colours."""
    stream = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = time_base
    context.colorspace, context.color_range = colour_matrix(size[1]), MPEG_RANGE
    context.color_primaries = context.color_trc = BT709
    return stream
