"""Deinterlacing: frames of two fields, recorded one after the other, become progressive frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.filter import Graph

    TimedFrames = Iterator[tuple[Fraction, av.VideoFrame]]

FILTER, OPTIONS = "bwdif", "mode=send_frame:parity=auto:deint=interlaced"
"""FFmpeg's filter, which leaves frames unchanged that are not marked as interlaced, and yields one frame for
each frame, one frame later."""


class Deinterlacer:
    """Passes the frames of a stream on, and from the first interlaced frame on through FFmpeg's `FILTER`.

    Attributes
    ----------
    is_used
        Whether an interlaced frame was found.
    """

    def __init__(self) -> None:
        self.is_used = False
        self._graph: Graph | None = None
        self._layout: tuple[int, int, str] | None = None
        self._times: list[Fraction] = []
        """Times of the frames in the filter, seconds."""
        self._count = 0

    def __call__(self, frames: TimedFrames) -> TimedFrames:
        """Yield the progressive frames with their times in seconds."""
        for time, frame in frames:
            self.is_used = self.is_used or bool(frame.interlaced_frame)
            if not self.is_used:
                yield time, frame
                continue
            layout = (frame.width, frame.height, frame.format.name)
            if layout != self._layout:
                yield from self._flush()
                self._open(layout, frame)
            self._times.append(time)
            assert self._graph is not None
            # the filter changes the unit of the time stamps; the times of the frames are kept beside it
            self._count += 1
            frame.pts, frame.time_base = self._count, Fraction(1, 1000)
            self._graph.vpush(frame)
            yield from self._pull()
        yield from self._flush()

    def _open(self, layout: tuple[int, int, str], frame: av.VideoFrame) -> None:
        from av.filter import Graph

        self._layout, self._graph = layout, Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        deinterlace, sink = self._graph.add(FILTER, OPTIONS), self._graph.add("buffersink")
        self._graph.link_nodes(source, deinterlace, sink).configure()

    def _pull(self) -> TimedFrames:
        """Yield the frames that the filter has finished, with the times of the frames that went in."""
        import av

        while self._graph is not None and self._times:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield self._times.pop(0), frame

    def _flush(self) -> TimedFrames:
        """Yield the frames that are still in the filter, and close it."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
        self._graph, self._layout = None, None
        self._times.clear()
