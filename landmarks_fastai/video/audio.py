"""Audio of a source file for a new video: every track is copied where possible, else encoded as AAC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Protocol, cast

from landmarks_fastai.video.languages import stored_language

if TYPE_CHECKING:
    from av import Packet
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

    TimedPackets = Iterator[tuple[Fraction, Packet[AudioStream]]]

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

MAX_TRACKS = 32
"""Number of audio tracks that are kept."""

MAX_TITLE = 200
"""Characters of a title that are copied."""


class AudioTracks:
    """All audio tracks of a source, written to an output along with its frames.

    Tracks keep their order, language, title and whether they are played by default.

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

    Attributes
    ----------
    notes
        Which tracks were encoded or left out, one line each.
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
        self._source, self._output, self._copyable = source, output, copyable
        self._span = _Span(video_start + start, None if end is None else end - start)
        self._tracks: dict[int, _Track] = {}
        """By the index of the stream of the source."""
        self._streams: list[AudioStream] = []
        notes = []
        for number, stream in enumerate(source.streams.audio, 1):
            if len(self._streams) == MAX_TRACKS:
                notes.append(f"audio track {number} and those after it are left out; {MAX_TRACKS} are kept")
                break
            notes += [f"audio track {number} {note}" for note in self._add(stream)]
        self.notes = tuple(notes)
        if start > 0 and self._streams:
            _seek(source, self._streams[0], self._span.origin)
        self._packets = self._convert()
        self._next: tuple[Fraction, Packet[AudioStream]] | None = None

    def write_until(self, time: Fraction | None) -> None:
        """Write the packets that begin before `time`, seconds of the output; if None, all remaining ones."""
        self._next = self._next or next(self._packets, None)
        while self._next is not None and (time is None or self._next[0] < time):
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def _add(self, stream: AudioStream) -> Iterator[str]:
        """Add a stream to the output, and yield what is changed or lost."""
        if not (stream.codec_context and stream.codec_context.sample_rate):
            yield "is left out, because its codec is not supported"
            return
        codec = stream.codec_context.codec.canonical_name
        self._streams.append(stream)
        if codec in self._copyable:
            out = self._output.add_stream_from_template(stream)
            self._tracks[stream.index] = _CopiedTrack(stream, out, self._span)
        else:
            out = _add_aac(self._output, stream)
            self._tracks[stream.index] = _EncodedTrack(stream, out, self._span)
            yield f"is encoded as AAC, because players do not support {codec} in this container"
        out.disposition = stream.disposition  # whether it is played by default
        if title := _metadata_text(stream, "title"):
            out.metadata["title"] = title[:MAX_TITLE]
        if language := _metadata_text(stream, "language"):
            stored = stored_language(language, self._output.format.name)
            if stored is None:
                yield f"loses its language ({language[:10]}), which a .mov cannot store; use .mkv or .mp4"
            else:
                out.metadata["language"] = stored

    def _convert(self) -> TimedPackets:
        """Yield the packets of all tracks with their times in seconds of the output."""
        for packet in _demux(self._source, self._streams):
            yield from self._tracks[packet.stream.index].convert(packet)
            if all(track.is_complete for track in self._tracks.values()):
                break
        for track in self._tracks.values():
            yield from track.finish()


def _metadata_text(stream: AudioStream, name: str) -> str:
    """Return an entry of the metadata, with replacement characters for invalid UTF-8; empty if there is none.

    PyAV 19 decodes invalid bytes as surrogates, which cannot be printed.
    """
    return stream.metadata.get(name, "").encode(errors="surrogateescape").decode(errors="replace")


class _Span:
    """Part of the source that is written.

    Parameters
    ----------
    origin
        Timestamp in the source that is time 0 of the output, seconds.
    length
        Seconds; None: to the end.
    """

    def __init__(self, origin: Fraction, length: Fraction | None) -> None:
        self.origin, self.length = origin, length

    def is_after(self, time: Fraction) -> bool:
        """Return True if a time in seconds of the output is after the end."""
        return self.length is not None and time >= self.length


class _Track(Protocol):
    """One track, whose packets are converted one by one."""

    is_complete: bool
    """Whether the end of the span was reached."""

    def convert(self, packet: Packet[AudioStream]) -> TimedPackets:
        """Yield the packets of the output for one of the source, with their times in seconds."""

    def finish(self) -> TimedPackets:
        """Yield the packets that are still in the encoder."""


class _CopiedTrack:
    """A track whose packets are copied."""

    def __init__(self, stream: AudioStream, out: AudioStream, span: _Span) -> None:
        self.is_complete = False
        self._out, self._span = out, span
        self._time_base = _time_base(stream)
        self._shift = floor(span.origin / self._time_base)
        self._previous: int | None = None
        """Decoding timestamp of the previous packet."""

    def convert(self, packet: Packet[AudioStream]) -> TimedPackets:
        """Yield the packet with the timestamps of the output, unless it is outside the span."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or not packet.size or self.is_complete:
            return
        time = stamp * self._time_base - self._span.origin
        if self._span.is_after(time):
            self.is_complete = True
            return
        decode_stamp = stamp if packet.dts is None else packet.dts
        # containers reject decreasing timestamps, which occur where recordings were joined
        decreasing = self._previous is not None and decode_stamp <= self._previous
        if decreasing or time + max(PREROLL, (packet.duration or 0) * self._time_base) <= 0:
            return
        self._previous = decode_stamp
        packet.pts, packet.dts = stamp - self._shift, decode_stamp - self._shift
        packet.stream = self._out
        yield time, packet

    def finish(self) -> TimedPackets:
        """Yield nothing."""
        return iter(())


class _EncodedTrack:
    """A track that is decoded and encoded as AAC."""

    def __init__(self, stream: AudioStream, out: AudioStream, span: _Span) -> None:
        self.is_complete = False
        self._out, self._span = out, span
        self._time_base = _time_base(stream)
        self._clock: Fraction | None = None
        """End of the previous frame in the output, seconds."""

    def convert(self, packet: Packet[AudioStream]) -> TimedPackets:
        """Yield the AAC packets that are ready; a packet that cannot be decoded is skipped."""
        import av

        if self.is_complete:
            return
        frames: list[AudioFrame] = []
        with suppress(av.FFmpegError):
            frames = packet.decode()
        for frame in frames:
            if self._set_time(frame):
                yield from self._encode(frame)

    def finish(self) -> TimedPackets:
        """Yield the packets that are still in the encoder."""
        return self._encode(None)

    def _encode(self, frame: AudioFrame | None) -> TimedPackets:
        for packet in self._out.encode(frame):
            yield (packet.pts or 0) * packet.time_base, packet

    def _set_time(self, frame: AudioFrame) -> bool:
        """Give a frame its timestamp in the output; return False if it is outside the span."""
        stamp = frame.dts if frame.pts is None else frame.pts
        clock = self._clock
        time = (clock or Fraction(0)) if stamp is None else stamp * self._time_base - self._span.origin
        if self._span.is_after(time):
            self.is_complete = True
        duration = Fraction(frame.samples, frame.sample_rate)
        if self.is_complete or time + duration <= 0:
            return False
        # frames are joined without gaps, which timestamps rounded to milliseconds would leave
        clock = time if clock is None or time > clock + MAX_JITTER else clock
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = floor(clock * frame.sample_rate)
        self._clock = clock + duration
        return True


def _add_aac(output: OutputContainer, source: AudioStream) -> AudioStream:
    """Add an AAC stream with the sample rate and the channels of the source."""
    rate = source.codec_context.sample_rate
    stream = output.add_stream("aac", rate=rate if rate in AAC_RATES else DEFAULT_SAMPLE_RATE)
    channels = min(source.codec_context.layout.nb_channels, max(LAYOUTS))
    stream.codec_context.layout = LAYOUTS[channels]
    stream.codec_context.bit_rate = channels * BITS_PER_CHANNEL
    return stream


def _seek(container: InputContainer, stream: AudioStream, origin: Fraction) -> None:
    """Seek to one second before the origin; not every format can seek."""
    import av

    try:
        container.seek(floor((origin - 1) / _time_base(stream)), stream=stream)
    except av.FFmpegError:
        container.seek(0)


def _demux(container: InputContainer, streams: Sequence[AudioStream]) -> Iterator[Packet[AudioStream]]:
    """Yield the packets of the streams up to the first one that cannot be read."""
    import av

    if not streams:  # otherwise all streams would be read
        return
    with suppress(av.FFmpegError):
        for packet in container.demux(*streams):
            yield cast("Packet[AudioStream]", packet)


def _time_base(stream: AudioStream) -> Fraction:
    return stream.time_base or Fraction(1, stream.codec_context.sample_rate)
