"""Audio of a source file for a new video: copied where possible, else encoded as AAC."""

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

    AudioPackets = Iterator[tuple[Fraction, Packet[AudioStream]]]

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""Sample rates that AAC supports, in Hz."""

DEFAULT_SAMPLE_RATE = 48000
"""Sample rate in Hz to which audio of any other rate is resampled."""

BITS_PER_CHANNEL = 80_000
"""Bit rate of AAC in bits per second per channel."""

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""FFmpeg's names of channel layouts, by number of channels."""

PREROLL = Fraction(1, 20)
"""Packets that begin up to this many seconds before the start are copied too: a decoder needs one or two."""

MAX_JITTER = Fraction(1, 10)
"""Gaps between audio frames are kept if longer than this, in seconds; shorter ones are rounding errors."""


class AudioTrack:
    """The first audio stream of a source, if it has one, written to an output along with its frames.

    Parameters
    ----------
    source, output
        Open containers; nothing has been written to the output yet.
    copyable
        Names of the codecs whose packets can be copied to the output; others are encoded as AAC.
    video_start
        Timestamp of the source's first video frame, seconds.
    start, end
        Span of the audio in seconds from `video_start`; `start` becomes time 0 of the output. None: to the
        end of the source.
    """

    def __init__(
        self,
        source: InputContainer,
        output: OutputContainer,
        copyable: frozenset[str],
        video_start: Fraction,
        start: Fraction,
        end: Fraction | None,
    ) -> None:
        self._source, self._output = source, output
        self._origin = video_start + start
        """Timestamp in the source that is time 0 of the output, seconds."""
        self._length = None if end is None else end - start
        self._packets: AudioPackets = iter(())
        self._next: tuple[Fraction, Packet[AudioStream]] | None = None
        stream = next(
            (s for s in source.streams.audio if s.codec_context and s.codec_context.sample_rate), None
        )
        if stream is None:
            return
        if start > 0:
            self._seek(stream)
        if stream.codec_context.codec.canonical_name in copyable:
            self._packets = self._copy(stream, output.add_stream_from_template(stream))
        else:
            self._packets = self._encode(stream, _add_aac(output, stream))

    def write_until(self, time: Fraction | None) -> None:
        """Write the packets that begin before `time`, seconds of the output; if None, all remaining ones."""
        self._next = self._next or next(self._packets, None)
        while self._next is not None and (time is None or self._next[0] < time):
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def _seek(self, stream: AudioStream) -> None:
        """Seek to one second before the origin; not every format can seek."""
        import av

        try:
            self._source.seek(floor((self._origin - 1) / _time_base(stream)), stream=stream)
        except av.FFmpegError:
            self._source.seek(0)

    def _copy(self, stream: AudioStream, out: AudioStream) -> AudioPackets:
        """Yield the source's packets with their times in seconds of the output."""
        time_base, previous = _time_base(stream), None
        shift = floor(self._origin / time_base)
        for packet in _demux(self._source, stream):
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None or not packet.size:
                continue
            time = stamp * time_base - self._origin
            if self._length is not None and time >= self._length:
                return
            decode_stamp = stamp if packet.dts is None else packet.dts
            # containers reject decreasing timestamps, which occur where recordings were joined
            decreasing = previous is not None and decode_stamp <= previous
            if decreasing or time + max(PREROLL, (packet.duration or 0) * time_base) <= 0:
                continue
            previous = decode_stamp
            packet.pts, packet.dts, packet.stream = stamp - shift, decode_stamp - shift, out
            yield time, packet

    def _encode(self, stream: AudioStream, out: AudioStream) -> AudioPackets:
        """Yield AAC packets with their times in seconds of the output."""
        frames: Iterator[AudioFrame | None] = self._decode(stream)
        for frame in chain(frames, [None]):
            for packet in out.encode(frame):
                yield (packet.pts or 0) * packet.time_base, packet

    def _decode(self, stream: AudioStream) -> Iterator[AudioFrame]:
        """Yield the audio frames of the span, with timestamps of the output."""
        clock: Fraction | None = None
        """End of the previous frame in the output, seconds."""
        for frame in _decode_packets(self._source, stream):
            stamp = frame.dts if frame.pts is None else frame.pts
            time = (clock or Fraction(0)) if stamp is None else stamp * _time_base(stream) - self._origin
            if self._length is not None and time >= self._length:
                return
            duration = Fraction(frame.samples, frame.sample_rate)
            if time + duration <= 0:
                continue
            # frames are joined without gaps, which timestamps rounded to milliseconds would leave
            clock = time if clock is None or time > clock + MAX_JITTER else clock
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = floor(clock * frame.sample_rate)
            clock += duration
            yield frame


def _add_aac(output: OutputContainer, source: AudioStream) -> AudioStream:
    """Add an AAC stream with the sample rate and the channels of the source."""
    rate = source.codec_context.sample_rate
    stream = output.add_stream("aac", rate=rate if rate in AAC_RATES else DEFAULT_SAMPLE_RATE)
    channels = min(source.codec_context.layout.nb_channels, max(LAYOUTS))
    stream.codec_context.layout = LAYOUTS[channels]
    stream.codec_context.bit_rate = channels * BITS_PER_CHANNEL
    return stream


def _demux(container: InputContainer, stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    """Yield the stream's packets up to the first one that cannot be read."""
    import av

    with suppress(av.FFmpegError):
        yield from container.demux(stream)


def _decode_packets(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Yield the stream's frames; packets that cannot be decoded are skipped."""
    import av

    for packet in _demux(container, stream):
        with suppress(av.FFmpegError):
            yield from packet.decode()


def _time_base(stream: AudioStream) -> Fraction:
    return stream.time_base or Fraction(1, stream.codec_context.sample_rate)
