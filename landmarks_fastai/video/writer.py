"""Writing frames with their times, and the audio of a source, to an H.264 video that plays everywhere.

Frames are encoded one by one: memory does not grow with the length of the video.
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

from landmarks_fastai.errors import LandmarksError, RunError, UserError
from landmarks_fastai.utils.files import partial_path, report_write_errors
from landmarks_fastai.utils.processors import available_processors
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.video.audio import AudioTracks
from landmarks_fastai.video.container import (
    ffmpeg_reason,
    open_video,
    silence_ffmpeg,
    start_time_of,
    video_streams,
)
from landmarks_fastai.video.conversion import BT709, MPEG_RANGE, RGBToYUV, color_matrix, rgb_frame
from landmarks_fastai.video.timing import check_span

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's names of the containers, by suffix."""

COPIED_AUDIO = {
    ".mp4": frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}),
    ".mov": frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16be", "pcm_s16le", "pcm_s24le"}),
    ".mkv": frozenset({"aac", "ac3", "dts", "eac3", "flac", "mp2", "mp3", "opus", "pcm_s16le", "vorbis"}),
}
"""Audio codecs that players support in each container."""

ENCODING = {"preset": "veryfast", "crf": "20"}
LARGE_ENCODING = {"preset": "superfast", "crf": "23"}
"""Options of x264, and those for frames of more than `LARGE_PIXELS`: with the first, encoding these would
take longer than all other steps together. About the same PSNR (benchmarks/video_speed.md)."""

LARGE_PIXELS = 1280 * 720

MAX_QUEUED = 4
"""Number of frames that may wait to be encoded."""

MAX_THREADS = 16
"""Number of threads from which the encoder does not become faster; each holds a frame."""


class VideoWriter:
    """Writes an H.264 video that browsers and phones play, with the audio of a source.

    An odd width or height is padded by repeating the last column or row. The file is written under a
    temporary name and renamed at the end of the with block, even if an exception such as KeyboardInterrupt
    ends the block: the frames written so far can be played. If no frame was written, no file is left and an
    existing one is kept.

    Parameters
    ----------
    path
        The file; its suffix is one of `CONTAINERS`.
    size
        Width and height of the frames, pixels.
    rate
        Approximate number of frames per second.
    time_base
        Unit of times in seconds: times are rounded to multiples of it (and to milliseconds in an .mkv).
    audio_from
        File whose audio tracks, if any, are added with their languages: copied if players support their codec
        in this container, else encoded as AAC.
    start, end
        Span of the audio in seconds from the beginning of the video in `audio_from`; `start` becomes time 0
        of the new video. None: to the end of `audio_from`.
    trim_audio
        End the audio with the last frame.

    Attributes
    ----------
    encoded
        Number of frames that have been encoded so far.
    notes
        What of `audio_from` is changed or left out, one line each.

    Raises
    ------
    UserError
        If the suffix is not supported or `audio_from` cannot be read.
    RunError
        If the file cannot be written.
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
        trim_audio: bool = False,
    ) -> None:
        check_video_suffix(path)
        self.path = Path(path)
        self.encoded = 0
        self._size, self._rate, self._time_base = size, rate, time_base
        self._audio_from, self._audio_span = audio_from, check_span(start, end)
        self._trim_audio = trim_audio
        self._partial = partial_path(self.path)
        self._output: OutputContainer | None = None
        self._source: InputContainer | None = None
        self._audio: AudioTracks | None = None
        self.notes: tuple[str, ...] = ()
        self._last: int | None = None
        """Time of the last frame, in units of the time base."""
        self._queue: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> VideoWriter:
        """Create the file and its streams, so that errors are reported before the first frame."""
        # a single worker thread encodes while the caller works on the next frame, and Ctrl-C, which reaches
        # the main thread only, cannot come between a frame's encoding and its writing
        self._worker = ThreadPoolExecutor(1)
        try:
            with self._report_errors():
                self._open()
        except BaseException:
            self._close()
            raise
        return self

    def write(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """Write a frame.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB. It may be modified afterwards.
        time
            Seconds from the beginning of the video; later than that of the previous frame.

        Raises
        ------
        ValueError
            If the image has another size, or the time is not later.
        RunError
            If the file cannot be written, for example because the disk is full.
        """
        width, height = self._size
        if image.shape != (height, width, 3):
            raise ValueError(f"frame of shape {image.shape} in a video of {width} x {height} pixels")
        ticks = floor(time / self._time_base + Fraction(1, 2))
        if ticks < 0 or (self._last is not None and ticks <= self._last):
            raise ValueError(f"the frame at {float(time):.6f} s is not later than the previous one")
        # converted here: the image is used no longer, without a copy of it, and half as many bytes wait
        frame = self._to_yuv(rgb_frame(image))
        frame.pts, frame.time_base, frame.duration = ticks, self._time_base, self._ticks_per_frame
        self._queue.append(self._worker.submit(self._encode, frame))
        self._last = ticks
        if len(self._queue) > MAX_QUEUED:
            self._wait_for_oldest()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Complete the file, whatever ended the block; leave no file if there is no frame."""
        try:
            if self._last is not None:
                end = (self._last + self._ticks_per_frame) * self._time_base
                with self._report_errors():
                    self._finish(end if self._trim_audio or kind is not None else None)
        except LandmarksError:
            if kind is None:  # otherwise the exception that ended the block is more informative
                raise
        finally:
            self._close()

    def _open(self) -> None:
        """Open all streams and write the header."""
        import av

        silence_ffmpeg()
        suffix = self.path.suffix.lower()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        output = self._output = av.open(
            f"file:{self._partial}",
            "w",
            format=CONTAINERS[suffix],
            # the index comes first, so that browsers can play the video while it loads
            container_options={} if suffix == ".mkv" else {"movflags": "+faststart"},
        )
        width, height = self._size
        size = width + width % 2, height + height % 2
        self._stream = _add_h264(output, size, self._rate, self._time_base)
        self._ticks_per_frame = max(1, round(1 / self._rate / self._time_base))
        self._to_yuv = RGBToYUV()
        if self._audio_from is not None:
            source = self._source = open_video(self._audio_from)
            video = next(iter(video_streams(source)), None)
            video_start = Fraction(0) if video is None else start_time_of(video)
            copyable = COPIED_AUDIO[suffix]
            self._audio = AudioTracks(source, output, copyable, video_start, *self._audio_span)
            self.notes = (*self._audio.notes, *_describe_other_streams(source))
        output.start_encoding()

    def _encode(self, frame: av.VideoFrame) -> None:
        """Encode a frame and write the audio up to its time."""
        with self._open_output() as output:
            output.mux(self._stream.encode(frame))
            if self._audio is not None:
                self._audio.write_until((frame.pts or 0) * self._time_base)
            self.encoded += 1

    def _encode_rest(self, audio_end: Fraction | None) -> None:
        """Write the frames that the encoder still buffers, the rest of the audio, and the end of the file."""
        with self._open_output() as output:
            output.mux(self._stream.encode(None))
            if self._audio is not None:
                self._audio.write_until(audio_end)
            output.close()

    @contextmanager
    def _open_output(self) -> Iterator[OutputContainer]:
        """Yield the output; raise a RunError after the first error."""
        if self._failed or self._output is None:
            raise RunError(f"{self.path}: cannot be completed because writing a frame failed")
        try:
            yield self._output
        except BaseException:
            self._failed = True
            raise

    def _finish(self, audio_end: Fraction | None) -> None:
        """Write everything that is queued and rename the file."""
        self._queue.append(self._worker.submit(self._encode_rest, audio_end))
        while self._queue:
            self._wait_for_oldest()
        os.replace(self._partial, self.path)

    def _wait_for_oldest(self) -> None:
        """Wait for the oldest queued frame and raise its error."""
        with self._report_errors():
            self._queue[0].result()
        self._queue.popleft()  # only now: if Ctrl-C ends the waiting, the frame still has to be awaited

    def _close(self) -> None:
        """Close all files and delete the temporary one, if it is still there."""
        self._worker.shutdown(cancel_futures=True)
        for container in (self._output, self._source):
            if container is not None:
                with suppress(Exception):
                    container.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        """Turn errors of the file system and of FFmpeg into a UserError or RunError that names the file."""
        import av

        with report_write_errors(self.path):
            try:
                yield
            except av.FFmpegError as error:
                if isinstance(error, OSError):
                    raise
                raise RunError(f"{self.path}: cannot be encoded ({ffmpeg_reason(error)})") from error


def check_video_suffix(path: str | Path) -> None:
    """Check that the suffix of a file name is one of `CONTAINERS`.

    Raises
    ------
    UserError
        If it is not; the message names the supported suffixes.
    """
    if Path(path).suffix.lower() not in CONTAINERS:
        *most, last = CONTAINERS
        raise UserError(
            f"{path}: videos are written as {', '.join(most)} or {last}; use one of these suffixes"
        )


def _describe_other_streams(source: InputContainer) -> list[str]:
    """Return a line about the streams that are neither video nor audio, and are left out."""
    counts = {"subtitle track": len(source.streams.subtitles), "data track": len(source.streams.data)}
    found = [format_count(count, noun) for noun, count in counts.items() if count]
    return [f"left out: {' and '.join(found)}"] if found else []


def _add_h264(
    output: OutputContainer, size: tuple[int, int], rate: Fraction, time_base: Fraction
) -> VideoStream:
    """Add the video stream, tagged with color matrix and range."""
    # x264 would choose 1.5 threads per processor, and take processors from tracking
    threads = str(min(available_processors(), MAX_THREADS))
    options = {**(LARGE_ENCODING if size[0] * size[1] > LARGE_PIXELS else ENCODING), "threads": threads}
    stream = output.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = time_base
    context.colorspace, context.color_range = color_matrix(size[1]), MPEG_RANGE
    context.color_primaries = context.color_trc = BT709
    return stream
