"""Frames of a stream that cannot be decoded, or only in part: how many there are, and where."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from landmarks_fastai.utils.text import format_count
from landmarks_fastai.video.container import ffmpeg_reason

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc"})
"""Codecs of which each packet with a timestamp has a frame that is shown, unless the video is interlaced.
Other codecs have packets without one."""

MAX_PENDING = 1000
"""Number of packets without a frame that are remembered."""


class DecodingErrors:
    """Records packets that raise an error or yield no frame, and frames that are damaged.

    Parameters
    ----------
    stream_start
        Timestamp of time 0, seconds.
    """

    def __init__(self, stream_start: Fraction) -> None:
        self._stream_start = stream_start
        self.forget()

    def forget(self) -> None:
        """Forget all errors."""
        self._failed: list[tuple[Fraction, str]] = []
        """Time in seconds and reason of each packet that raised an error."""
        self._damaged: list[Fraction] = []
        """Times of the damaged frames, seconds."""
        self._pending: dict[int, Fraction] = {}
        """Time in seconds of each packet whose frame was not received, by the packet's timestamp."""
        self._missing: list[Fraction] = []
        """Times of the packets whose frame is missing, because a later one was received; seconds."""
        self._started = self._interlaced = False

    @property
    def first(self) -> str | None:
        """Reason and time of the first error; None if no packet raised one."""
        return next((f"{reason} at {float(time):.2f} s" for time, reason in self._failed), None)

    def expect(self, packet: av.Packet[VideoStream]) -> None:
        """Record a packet before it is decoded."""
        stamp, unit = packet.pts, packet.time_base
        shown = packet.size and not packet.is_discard and len(self._pending) < MAX_PENDING
        if not shown or packet.stream.codec_context.name not in ONE_FRAME_PER_PACKET:
            return
        if stamp is not None and unit is not None:
            self._pending[stamp] = stamp * unit - self._stream_start

    def fail(self, error: av.FFmpegError, time: Fraction) -> None:
        """Record the error of a packet; the frames decoded so far end at `time`, seconds."""
        self._failed.append((time, ffmpeg_reason(error)))

    def receive(self, frame: av.VideoFrame, time: Fraction) -> None:
        """Record a decoded frame and its time in seconds."""
        if frame.is_corrupt:
            self._damaged.append(time)
        self._interlaced = self._interlaced or bool(frame.interlaced_frame)
        if frame.pts is None:
            return
        self._pending.pop(frame.pts, None)
        passed = [stamp for stamp in self._pending if stamp < frame.pts]
        times = [self._pending.pop(stamp) for stamp in passed]
        # frames that depend on others before the first one cannot be shown, and are no loss
        if self._started:
            self._missing += times
        self._started = True

    def end(self) -> None:
        """Record the end of the stream: the frames that are still awaited are missing."""
        if self._started:
            self._missing += self._pending.values()
        self._pending.clear()

    def damage(self, before: Fraction | None = None) -> str | None:
        """Return how many frames before a time in seconds are missing, and where; None if there are none."""
        failed = [(time, reason) for time, reason in self._failed if before is None or time < before]
        if failed:
            time, reason = failed[0]
            return f"damaged packets were skipped: {len(failed)} (the first: {reason} at {float(time):.2f} s)"
        missing = [time for time in self._missing if before is None or time < before]
        if missing and not self._interlaced:
            count = format_count(len(missing), "frame")
            return (
                f"left out because they cannot be decoded: {count} (the first at {float(min(missing)):.2f} s)"
            )
        return None

    def note(self) -> str | None:
        """Return how many frames are damaged, and where; None if there are none."""
        if not self._damaged:
            return None
        count = format_count(len(self._damaged), "frame")
        return f"decoded only in part: {count} (the first at {float(self._damaged[0]):.2f} s)"
