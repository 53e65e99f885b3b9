"""Reading a video file as upright RGB frames with their times.

Frames are decoded one by one: memory does not grow with the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.video.container import (
    duration_of,
    open_video,
    select_video_stream,
    start_time_of,
    video_streams,
)
from landmarks_fastai.video.conversion import FrameToRGB
from landmarks_fastai.video.decoding_errors import DecodingErrors
from landmarks_fastai.video.deinterlacing import Deinterlacer
from landmarks_fastai.video.timing import DEFAULT_RATE, check_span, parse_frame_rate

if TYPE_CHECKING:
    import av

    DecodedFrames = Iterator[tuple[Fraction, av.VideoFrame]]

MAX_GAP = 24 * 3600
"""Seconds; a frame whose timestamp is farther from the previous one follows it, like one without any."""

SEEK_MARGINS = (0, 15)
"""Seconds before `start` to which the reader tries to seek, in this order. An index may point past the key
frame that is needed; there is nearly always another one in the 15 seconds before."""


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video.

    Parameters
    ----------
    index
        Position among the frames that are read, from 0.
    time
        Seconds from the beginning of the source.
    image
        (H, W, 3) uint8 RGB, upright. Not shared: it may be modified.
    """

    index: int
    time: Fraction
    image: NDArray[np.uint8]


class VideoReader:
    """Reads a video once, frame by frame in display order.

    Frames are rotated and mirrored as the file states, and have square pixels and the colors of BT.709: HDR
    is tone mapped. Interlaced frames are deinterlaced, and frames of another size than the first one are
    scaled to fit. Times always increase.

    Parameters
    ----------
    path
        A local file.
    start, end
        Seconds from the beginning of the source: frames with start <= time < end are read.
    fps
        Frames per second, at start, start + 1/fps and so on, each the latest frame of the source at that
        time: frames are repeated or dropped. None: every frame once, at its own time.

    Attributes
    ----------
    size
        Width and height of every frame, pixels.
    rate
        Average number of frames per second.
    time_base
        Unit of times in seconds: each is a multiple of it (with `fps`, counted from `start`).
    start, end
        The span in seconds, as fractions.
    duration
        Duration of the source in seconds; None if the source does not state it.
    expected
        Approximate number of frames that will be read; None if the source does not state its duration.
    decoded
        Number of frames decoded so far, including those before `start`.
    damage
        Where and why frames are missing, set after the last frame; None if the source is intact.
    notes
        What was converted or left out, one line each; complete after the last frame.

    Raises
    ------
    UserError
        If the file or the span cannot be used. Raised by the constructor only, not while frames are read.
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
        self.decoded = 0
        self.start, self.end = check_span(start, end)
        self._fps = None if fps is None else parse_frame_rate(fps)
        self._decoded_until = Fraction(0)
        """End of the last decoded frame, seconds."""
        self._deinterlacer = Deinterlacer()
        self._resized_at: Fraction | None = None
        """Time of the first frame of another size, seconds."""
        self._open()
        try:
            self._frames = self._decode_first()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        """Return the reader, which is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames that have not been read yet."""
        for index, (time, frame) in enumerate(self._frames):
            if self._resized_at is None and self._to_rgb.has_other_size(frame):
                self._resized_at = time
            yield VideoFrame(index, time, self._to_rgb(frame))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted or left out so far, one line each."""
        notes = []
        if self._video_tracks > 1:
            notes.append(f"{self._video_tracks} video tracks, of which the first is read")
        if self._deinterlacer.is_used:
            notes.append("interlaced, and therefore deinterlaced")
        notes += self._to_rgb.color_notes()
        if self._resized_at is not None:
            notes.append(
                f"the size of the frames changes at {float(self._resized_at):.2f} s; frames of another size"
                f" are scaled to fit into {self.size[0]} x {self.size[1]} px, with black borders"
            )
        if (damaged := self._errors.note()) is not None:
            notes.append(damaged)
        return tuple(notes)

    def _open(self) -> None:
        """Open the file at its beginning and read the properties of its video stream."""
        self._container = open_video(self.path)
        try:
            stream = self._stream = select_video_stream(self._container, self.path)
        except BaseException:
            self._container.close()
            raise
        stream.thread_type = "AUTO"
        self._video_tracks = len(video_streams(self._container))
        self._stream_time_base = stream.time_base or Fraction(1, 1000)
        self._stream_start = start_time_of(stream)
        self._errors = DecodingErrors(self._stream_start)
        self.duration = duration_of(self._container, stream)
        stream_rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
        self._frame_duration = 1 / stream_rate
        self.rate = self._fps or stream_rate
        self.time_base = self._stream_time_base if self._fps is None else 1 / self._fps
        self.expected = self._count_expected()

    def _count_expected(self) -> int | None:
        """Return the approximate number of frames that will be read."""
        if self._stream.frames and self._fps is None and self.start == 0 and self.end is None:
            return self._stream.frames
        if self.duration is None:
            return None
        end = self.duration if self.end is None else min(self.end, self.duration)
        return max(1, ceil((end - self.start) * self.rate))

    def _decode_first(self) -> DecodedFrames:
        """Decode the first frame, to get the display matrix and to check that the span has frames."""
        decoded = self._deinterlacer(self._decode_from_start())
        frames = self._trim(decoded) if self._fps is None else self._resample(decoded, self._fps)
        first = next(frames, None)
        if first is None:
            raise UserError(f"{self.path}: {self._explain_no_frames()}")
        if self.start > 0:
            self._errors.forget()  # decoding errors right after a seek are normal
        self._to_rgb = FrameToRGB(first[1], self._stream.sample_aspect_ratio)
        self.size = self._to_rgb.size
        return chain([first], frames)

    def _explain_no_frames(self) -> str:
        """Return why there is no frame in the span."""
        if self._decoded_until == 0:
            if self._errors.first is None:
                return "contains no frames"
            return f"no frame can be decoded ({self._errors.first}); get a complete copy"
        length = float(self._decoded_until if self.duration is None else self.duration)
        until = "or later" if self.end is None else f"and before --end {float(self.end):g}"
        return f"there is no frame at --start {float(self.start):g} {until}; the video is {length:.2f} s long"

    def _decode_from_start(self) -> DecodedFrames:
        """Decode from a key frame not later than `start`, or from the beginning if the file cannot seek."""
        import av

        if self.start == 0:
            return self._decode()
        for margin in SEEK_MARGINS:
            target = max(Fraction(0), self.start - margin) + self._stream_start
            try:
                self._container.seek(floor(target / self._stream_time_base), stream=self._stream)
            except (av.FFmpegError, OverflowError):  # not every format can seek
                break
            frames = self._decode()
            first = next(frames, None)
            # a frame at 0 is the first of the file or one without a timestamp
            if first is not None and 0 < first[0] <= self.start:
                return chain([first], frames)
        self._container.close()
        self._open()
        return self._decode()

    def _decode(self) -> DecodedFrames:
        """Decode from the current position, skip damaged packets, and set `damage` at the end."""
        import av

        time: Fraction | None = None
        self.damage, self._decoded_until = None, Fraction(0)
        self._errors.forget()
        try:
            for packet in self._container.demux(self._stream):
                self._errors.expect(packet)
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    self._errors.fail(error, self._decoded_until)
                    continue
                for frame in frames:
                    time = self._frame_time(frame, time)
                    self._errors.receive(frame, time)
                    duration = (frame.duration or 0) * self._stream_time_base or self._frame_duration
                    self._decoded_until = time + min(duration, Fraction(MAX_GAP))
                    self.decoded += 1
                    yield time, frame
        except av.FFmpegError as error:
            self._errors.fail(error, self._decoded_until)
        self._errors.end()
        self.damage = self._describe_damage()

    def _frame_time(self, frame: av.VideoFrame, previous: Fraction | None) -> Fraction:
        """Return the time of a frame; without an increasing timestamp, it follows the previous one."""
        stamp = frame.dts if frame.pts is None else frame.pts
        time = None if stamp is None else stamp * self._stream_time_base - self._stream_start
        if previous is None:
            return max(Fraction(0), time or Fraction(0))
        if time is None or not previous < time < previous + MAX_GAP:
            return previous + self._frame_duration
        return time

    def _describe_damage(self) -> str | None:
        """Return where and why frames are missing after the source was decoded; None if it is intact."""
        end, duration = self._decoded_until, self.duration or Fraction(0)
        # the durations in the headers of intact files are off by a frame or two as well
        if duration - end > max(4 * self._frame_duration, Fraction(1, 5)):
            reason = f" ({self._errors.first})" if self._errors.first else ""
            return f"cut off or damaged after {float(end):.2f} of {float(duration):.2f} s{reason}"
        return self._errors.damage()

    def _trim(self, decoded: DecodedFrames) -> DecodedFrames:
        """Yield the frames of the span."""
        for time, frame in decoded:
            if self.end is not None and time >= self.end:
                self.damage = self._errors.damage(before=self.end)
                return
            if time >= self.start:
                yield time, frame

    def _resample(self, decoded: DecodedFrames, fps: Fraction) -> DecodedFrames:
        """Yield, at each multiple of 1/fps in the span, the latest frame at that time."""
        tolerance = self._stream_time_base / 2  # the times of the source are rounded to its time base
        tick, latest = self.start, None
        for time, frame in decoded:
            latest = latest or frame
            while tick < time - tolerance:
                if self.end is not None and tick >= self.end:
                    self.damage = self._errors.damage(before=self.end)
                    return
                yield tick, latest
                tick += 1 / fps
            latest = frame
        end = self._decoded_until - tolerance
        while latest is not None and tick < (end if self.end is None else min(self.end, end)):
            yield tick, latest
            tick += 1 / fps
