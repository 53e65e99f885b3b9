"""Audio of a source is copied or encoded as AAC and stays synchronous with the frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import (
    RATE,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    audio_frame,
    gray_frame,
    gray_index,
    read_gray_clip,
    write_gray_clip,
    write_wav,
)
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.video import writer as writer_module
from landmarks_fastai.video.container import open_video
from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.video.writer import VideoWriter

av = pytest.importorskip("av")

CLICK_FRAME, CLICK_TIME = 31, 1.24


def read_audio_packets(path: Path) -> tuple[str, list[tuple[float, bytes]]]:
    """Return the audio codec and the audio packets with their times from the first frame."""
    with av.open(str(path)) as container:
        audio, video = container.streams.audio[0], container.streams.video[0]
        video_start = video.start_time * video.time_base
        return audio.codec_context.codec.canonical_name, [
            (float(packet.pts * packet.time_base - video_start), bytes(packet))
            for packet in container.demux(audio)
            if packet.size
        ]


def read_loudness(path: Path) -> NDArray[np.float64]:
    """Return the RMS of the audio in each hundredth of a second from the first frame, for 3 s."""
    signal = np.zeros(3 * SAMPLE_RATE)
    with av.open(str(path)) as container:
        audio, video = container.streams.audio[0], container.streams.video[0]
        video_start = video.start_time * video.time_base
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio):
            position = round((frame.pts * audio.time_base - video_start) * SAMPLE_RATE)
            for part in resampler.resample(frame):
                samples = part.to_ndarray()[0][max(0, -position) :]
                signal[max(0, position) : max(0, position) + len(samples)] = samples
                position += part.samples
    return np.sqrt((signal.reshape(-1, SAMPLE_RATE // 100) ** 2).mean(1))


def write_click_clip(path: Path, codec: str = "aac", offset: int = 0) -> Path:
    """Write two seconds of silence with a click of 20 ms at 1.24 s, when the frames turn white."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"g": "12"})
        video.width, video.height = 64, 48
        audio = output.add_stream(codec, rate=SAMPLE_RATE)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(gray_frame(50 if index >= CLICK_FRAME else 0), format="rgb24")
            frame.pts, frame.time_base = index + offset, 1 / RATE
            output.mux(video.encode(frame))
            samples = np.zeros((1, 2 * SAMPLES_PER_FRAME), np.int16)
            if index == CLICK_FRAME:
                samples[0, : 2 * 960] = 12_000 * np.sign(np.sin(np.arange(2 * 960) / 40))
            pts = (index + offset) * SAMPLES_PER_FRAME
            output.mux(audio.encode(audio_frame(samples, "stereo", SAMPLE_RATE, pts)))
        output.mux([*video.encode(None), *audio.encode(None)])
    return path


def copy_with_audio(path: Path, source: Path, count: int = 50) -> Path:
    """Write `count` gray frames with the audio of `source`."""
    with VideoWriter(path, (64, 48), RATE, 1 / RATE, audio_from=source) as writer:
        for index in range(count):
            writer.write(gray_frame(index), index / RATE)
    return path


@pytest.mark.parametrize(
    ("source", "codec", "name"),
    [
        ("a.mp4", "aac", "b.mp4"),
        ("a.mp4", "aac", "b.mkv"),
        ("a.mkv", "aac", "b.mov"),
        ("a.mkv", "libopus", "b.mp4"),
        ("a.avi", "libmp3lame", "b.mp4"),
        ("a.mkv", "pcm_s16le", "b.mov"),
    ],
)
def test_audio_of_supported_codec_is_copied_exactly(
    tmp_path: Path, source: str, codec: str, name: str
) -> None:
    video = "mpeg4" if source == "a.avi" else "libx264"
    write_gray_clip(tmp_path / source, 50, audio_codec=codec, codec=video)
    source_codec, expected = read_audio_packets(tmp_path / source)
    copied_codec, copied = read_audio_packets(copy_with_audio(tmp_path / name, tmp_path / source))
    assert copied_codec == source_codec
    assert b"".join(content for _, content in copied) == b"".join(content for _, content in expected)
    if codec != "pcm_s16le":  # each container divides PCM into packets in its own way
        np.testing.assert_allclose([t for t, _ in copied], [t for t, _ in expected], atol=0.0021)
    assert read_gray_clip(tmp_path / name) == ([i / RATE for i in range(50)], list(range(50)))


@pytest.mark.parametrize(
    ("source", "codec"), [("a.mp4", "aac"), ("a.ts", "aac"), ("a.ts", "mp2"), ("a.mkv", "pcm_s16le")]
)
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize("span", [(0.0, None), (0.5, 1.5), (1.1, None)])
def test_audio_stays_synchronous_with_frames(
    tmp_path: Path, source: str, codec: str, name: str, span: tuple[float, float | None]
) -> None:
    write_click_clip(tmp_path / source, codec, offset=40 if source == "a.ts" else 0)
    start, end = span
    with VideoReader(tmp_path / source, start=start, end=end) as reader:
        options = {"audio_from": tmp_path / source, "start": start, "end": end}
        with VideoWriter(tmp_path / name, reader.size, reader.rate, reader.time_base, **options) as writer:
            for frame in reader:
                writer.write(frame.image, frame.time - Fraction(start))
    copied_codec, packets = read_audio_packets(tmp_path / name)
    assert copied_codec == ("aac" if name == "b.mp4" else codec)
    # only the preroll of the decoder comes before the first frame
    assert packets[0][0] > -0.1
    loudness = read_loudness(tmp_path / name)
    loud = np.flatnonzero(loudness > loudness.max() / 2) / 100
    with VideoReader(tmp_path / name) as reader:
        white = next(float(frame.time) for frame in reader if gray_index(frame.image) > 25)
    assert white == pytest.approx(CLICK_TIME - start, abs=0.021)
    assert loud[0] == pytest.approx(white, abs=0.031)
    assert loud[-1] == pytest.approx(white + 0.01, abs=0.031)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration / 1e6 == pytest.approx((end or 2.0) - start, abs=0.1)


@pytest.mark.parametrize(("layout", "rate"), [("mono", 8000), ("5.1", 44100), ("stereo", 88200)])
def test_audio_of_unsupported_codec_is_encoded_as_aac(tmp_path: Path, layout: str, rate: int) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height = 64, 48
        audio = output.add_stream("pcm_s16le", rate=rate, layout=layout)
        channels = audio.codec_context.layout.nb_channels
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(gray_frame(index), format="rgb24")
            frame.pts, frame.time_base = index, 1 / RATE
            output.mux(video.encode(frame))
            wave = 8000 * np.sin(np.arange(rate // 25 * channels) / channels / 5)
            sound = audio_frame(wave.astype(np.int16)[None], layout, rate, index * (rate // 25))
            output.mux(audio.encode(sound))
        output.mux([*video.encode(None), *audio.encode(None)])
    copy_with_audio(tmp_path / "b.mp4", path, count=25)
    with av.open(str(tmp_path / "b.mp4")) as container:
        context = container.streams.audio[0].codec_context
        assert (context.codec.canonical_name, context.sample_rate) == ("aac", rate)
        assert context.layout.nb_channels == channels
    expected, encoded = read_loudness(path)[5:90], read_loudness(tmp_path / "b.mp4")[5:90]
    assert np.median(encoded) == pytest.approx(np.median(expected), rel=0.1)


def test_audio_source_without_audio_gives_silent_video(tmp_path: Path, fifty_frames: Path) -> None:
    copy_with_audio(tmp_path / "a.mp4", fifty_frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio == ()


def test_audio_source_without_video_is_encoded(tmp_path: Path) -> None:
    copy_with_audio(tmp_path / "b.mp4", write_wav(tmp_path / "a.wav"))
    assert read_audio_packets(tmp_path / "b.mp4")[0] == "aac"


def test_audio_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.mp4: no such file"):
        copy_with_audio(tmp_path / "c.mp4", tmp_path / "none.mp4")
    assert not list(tmp_path.glob("*c.*"))


TRACKS = (("fre", "commentary", False), ("eng", "", True), ("ger", "", False))
"""Language, title and default flag of the tracks of `write_tracks`."""


def write_tracks(path: Path, codec: str, count: int = 25) -> Path:
    """Write gray frames with tones of 200, 400 and 800 Hz as three tracks."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height = 64, 48
        tracks = []
        for language, title, default in TRACKS:
            track = output.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
            track.metadata["language"] = language
            if title:
                track.metadata["title"] = title
            track.disposition = av.stream.Disposition.default if default else av.stream.Disposition(0)
            tracks.append(track)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(gray_frame(index), format="rgb24")
            frame.pts, frame.time_base = index, 1 / RATE
            output.mux(video.encode(frame))
            samples = np.arange(index * SAMPLES_PER_FRAME, (index + 1) * SAMPLES_PER_FRAME)
            for track, hertz in zip(tracks, (200, 400, 800), strict=True):
                wave = 8000 * np.sin(2 * np.pi * hertz * samples / SAMPLE_RATE)
                sound = audio_frame(wave.astype(np.int16)[None], "mono", SAMPLE_RATE, int(samples[0]))
                output.mux(track.encode(sound))
        for stream in (video, *tracks):
            output.mux(stream.encode(None))
    return path


def read_pitch(path: Path, track: int) -> float:
    """Return the frequency in Hz of a track, from the zero crossings in its middle."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
        stream = container.streams.audio[track]
        parts = [p.to_ndarray()[0] for frame in container.decode(stream) for p in resampler.resample(frame)]
    signal = np.concatenate(parts)[SAMPLE_RATE // 4 : SAMPLE_RATE * 3 // 4]
    return float(np.count_nonzero(np.diff(np.signbit(signal)))) / 2 / (len(signal) / SAMPLE_RATE)


@pytest.mark.parametrize(
    ("source", "codec", "name", "languages"),
    [
        ("a.mkv", "aac", "b.mkv", ["fre", "eng", "ger"]),
        ("a.mkv", "aac", "b.mp4", ["fre", "eng", "ger"]),
        ("a.mp4", "aac", "b.mkv", ["fre", "eng", "ger"]),
        ("a.mkv", "pcm_s16le", "b.mp4", ["fre", "eng", "ger"]),
        ("a.mkv", "aac", "b.mov", ["fra", "eng", "ger"]),
    ],
)
def test_all_audio_tracks_are_kept(
    tmp_path: Path, source: str, codec: str, name: str, languages: list[str]
) -> None:
    write_tracks(tmp_path / source, codec)
    with VideoWriter(tmp_path / name, (64, 48), RATE, 1 / RATE, audio_from=tmp_path / source) as writer:
        for index in range(25):
            writer.write(gray_frame(index), index / RATE)
    with av.open(str(tmp_path / name)) as container:
        tracks = container.streams.audio
        # QuickTime leaves out the language of English, its default
        assert [track.metadata.get("language", "eng") for track in tracks] == languages
        assert [bool(track.disposition & av.stream.Disposition.default) for track in tracks] == [0, 1, 0]
        if source == "a.mkv" and name == "b.mkv":
            assert [track.metadata.get("title", "") for track in tracks] == ["commentary", "", ""]
    pitches = [read_pitch(tmp_path / name, track) for track in range(3)]
    np.testing.assert_allclose(pitches, (200, 400, 800), rtol=0.02)
    encoded = codec == "pcm_s16le"
    assert len(writer.notes) == (3 if encoded else 0)
    if encoded:
        assert writer.notes[1] == (
            "audio track 2 is encoded as AAC, because players do not support pcm_s16le in this container"
        )


def test_audio_tracks_start_with_the_span(tmp_path: Path) -> None:
    write_tracks(tmp_path / "a.mkv", "aac", count=50)
    options = {"audio_from": tmp_path / "a.mkv", "start": 0.8, "end": 1.6}
    with VideoWriter(tmp_path / "b.mp4", (64, 48), RATE, 1 / RATE, **options) as writer:
        for index in range(20):
            writer.write(gray_frame(index), index / RATE)
    with av.open(str(tmp_path / "b.mp4")) as container:
        for track in container.streams.audio:
            assert float(track.duration * track.time_base) == pytest.approx(0.8, abs=0.1)


def test_invalid_bytes_of_metadata_are_replaced(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        track = output.add_stream("aac", rate=SAMPLE_RATE)
        track.metadata.update(language="xyz", title="voice~")
        samples = np.zeros((1, 2 * SAMPLES_PER_FRAME), np.int16)
        output.mux(track.encode(audio_frame(samples, "stereo", SAMPLE_RATE, 0)))
        output.mux(track.encode(None))
    content = (tmp_path / "a.mkv").read_bytes()
    assert b"voice~" in content
    assert b"xyz" in content
    (tmp_path / "a.mkv").write_bytes(content.replace(b"voice~", b"voice\xff").replace(b"xyz", b"xy\xff"))
    notes = {}
    for name in ("b.mkv", "b.mov"):
        with VideoWriter(tmp_path / name, (64, 48), RATE, 1 / RATE, audio_from=tmp_path / "a.mkv") as writer:
            writer.write(gray_frame(0), Fraction(0))
        notes[name] = writer.notes
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.streams.audio[0].metadata["title"] == "voice\ufffd"
    assert notes["b.mov"] == (
        "audio track 1 loses its language (xy\ufffd), which a .mov cannot store; use .mkv or .mp4",
    )


def test_language_that_mov_cannot_store_is_noted(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        track = output.add_stream("aac", rate=SAMPLE_RATE)
        track.metadata["language"] = "hrv"
        samples = np.zeros((1, 2 * SAMPLES_PER_FRAME), np.int16)
        output.mux(track.encode(audio_frame(samples, "stereo", SAMPLE_RATE, 0)))
        output.mux(track.encode(None))
    notes = {}
    for name in ("b.mov", "b.mp4"):
        with VideoWriter(tmp_path / name, (64, 48), RATE, 1 / RATE, audio_from=tmp_path / "a.mkv") as writer:
            writer.write(gray_frame(0), Fraction(0))
        notes[name] = writer.notes
    assert notes["b.mp4"] == ()
    assert notes["b.mov"] == (
        "audio track 1 loses its language (hrv), which a .mov cannot store; use .mkv or .mp4",
    )


def test_subtitles_are_noted_as_left_out(tmp_path: Path, fifty_frames: Path) -> None:
    text = tmp_path / "a.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    with (
        av.open(str(fifty_frames)) as video,
        av.open(str(text)) as subtitles,
        av.open(str(tmp_path / "a.mkv"), "w") as output,
    ):
        sources = (video.streams.video[0], subtitles.streams.subtitles[0])
        streams = [output.add_stream_from_template(stream) for stream in sources]
        for container, stream in zip((video, subtitles), streams, strict=True):
            for packet in container.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
    with VideoWriter(tmp_path / "b.mp4", (64, 48), RATE, 1 / RATE, audio_from=tmp_path / "a.mkv") as writer:
        writer.write(gray_frame(0), Fraction(0))
    assert writer.notes == ("left out: 1 subtitle track",)


class CountingContainer:
    """An open source file that counts the packets read from it."""

    def __init__(self, path: Path) -> None:
        self.container = open_video(path)
        self.packets = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.container, name)

    def demux(self, stream: object) -> Iterator[object]:
        for packet in self.container.demux(stream):
            self.packets += 1
            yield packet


def test_audio_is_read_only_as_far_as_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = CountingContainer(write_gray_clip(tmp_path / "a.mp4", 50, audio_codec="aac"))
    monkeypatch.setattr(writer_module, "open_video", lambda path: source)
    with VideoWriter(tmp_path / "b.mp4", (64, 48), RATE, 1 / RATE, audio_from=tmp_path / "a.mp4") as writer:
        for index in range(50):
            writer.write(gray_frame(index), index / RATE)
            assert source.packets <= (index / RATE) * SAMPLE_RATE / 1024 + 3
    assert source.packets > 90
