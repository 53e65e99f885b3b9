"""The sound of a video, taken along into another one: copied where it can be, else encoded anew.

Knows packets, samples and their times, and nothing about frames or files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from math import floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import Packet
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
BITS_PER_CHANNEL = 80_000
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

RUN_UP = Fraction(1, 20)
"""Packets that begin so shortly before the beginning are copied too, s: decoders need one or two."""

SILENCE = Fraction(1, 10)
"""Gaps in the source that are longer are kept, s; shorter ones are rounding."""


class Sound:
    """The first sound of a source, if it has one, that goes into an output as its pictures proceed.

    Parameters
    ----------
    source, output
        Open containers; nothing is written to the output yet.
    copied
        Names of the codecs whose packets may be copied into the output. What has another becomes AAC.
    begin
        When the video begins in the source's own time, s.
    start, end
        The sound between them is taken, s from `begin`; what is at `start` comes at 0.
    """

    def __init__(
        self,
        source: InputContainer,
        output: OutputContainer,
        copied: frozenset[str],
        begin: Fraction,
        start: Fraction,
        end: Fraction | None,
    ) -> None:
        self._source, self._output = source, output
        self._zero, self._length = begin + start, None if end is None else end - start
        self._packets: Iterator[tuple[Fraction, Packet[AudioStream]]] = iter(())
        self._next: tuple[Fraction, Packet[AudioStream]] | None = None
        stream = next(
            (s for s in source.streams.audio if s.codec_context and s.codec_context.sample_rate), None
        )
        if stream is None:
            return
        if start > 0:
            self._seek(stream)
        if stream.codec_context.codec.canonical_name in copied:
            self._packets = self._copied(stream, output.add_stream_from_template(stream))
        else:
            self._packets = self._encoded(stream, _aac(output, stream))

    def write_until(self, time: Fraction | None) -> None:
        """Write what begins before `time`, s of the output; all that there is, where it is None."""
        self._next = self._next or next(self._packets, None)
        while self._next is not None and (time is None or self._next[0] < time):
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def _seek(self, stream: AudioStream) -> None:
        """Go to shortly before the start, to spare what lies before; not every container can."""
        import av

        try:
            self._source.seek(floor((self._zero - 1) / _unit(stream)), stream=stream)
        except av.FFmpegError:
            self._source.seek(0)

    def _copied(
        self, stream: AudioStream, out: AudioStream
    ) -> Iterator[tuple[Fraction, Packet[AudioStream]]]:
        """Yield the source's packets, and when they begin in the output."""
        unit, before = _unit(stream), None
        shift = floor(self._zero / unit)
        for packet in _demuxed(self._source, stream):
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None or not packet.size:
                continue
            time = stamp * unit - self._zero
            if self._length is not None and time >= self._length:
                return
            decoded = stamp if packet.dts is None else packet.dts
            # stamps that go back, as where recordings were joined, are no file's
            back = before is not None and decoded <= before
            if back or time + max(RUN_UP, (packet.duration or 0) * unit) <= 0:
                continue
            before = decoded
            packet.pts, packet.dts, packet.stream = stamp - shift, decoded - shift, out
            yield time, packet

    def _encoded(
        self, stream: AudioStream, out: AudioStream
    ) -> Iterator[tuple[Fraction, Packet[AudioStream]]]:
        """Yield packets of AAC, and when they begin in the output."""
        frames: Iterator[AudioFrame | None] = self._decoded(stream)
        for frame in chain(frames, [None]):
            for packet in out.encode(frame):
                yield (packet.pts or 0) * packet.time_base, packet

    def _decoded(self, stream: AudioStream) -> Iterator[AudioFrame]:
        """Yield what is to be encoded, at its time in the output."""
        import av

        unit, clock = _unit(stream), None
        for packet in _demuxed(self._source, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:  # the next packets may well do
                continue
            for frame in frames:
                stamp = frame.dts if frame.pts is None else frame.pts
                time = (clock or Fraction(0)) if stamp is None else stamp * unit - self._zero
                if self._length is not None and time >= self._length:
                    return
                length = Fraction(frame.samples, frame.sample_rate)
                if time + length <= 0:
                    continue
                # samples follow each other without a seam; stamps, rounded to milliseconds, would not
                clock = time if clock is None or time > clock + SILENCE else clock
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = floor(clock * frame.sample_rate)
                clock += length
                yield frame


def _aac(output: OutputContainer, source: AudioStream) -> AudioStream:
    """Add a stream that sounds as the source does."""
    rate = source.codec_context.sample_rate
    stream = output.add_stream("aac", rate=rate if rate in AAC_RATES else 48000)
    channels = min(source.codec_context.layout.nb_channels, 8)
    stream.codec_context.layout = LAYOUTS[channels]
    stream.codec_context.bit_rate = channels * BITS_PER_CHANNEL
    return stream


def _demuxed(container: InputContainer, stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    """Yield the stream's packets as far as the file is whole."""
    import av

    with suppress(av.FFmpegError):
        yield from container.demux(stream)


def _unit(stream: AudioStream) -> Fraction:
    return stream.time_base or Fraction(1, stream.codec_context.sample_rate)
