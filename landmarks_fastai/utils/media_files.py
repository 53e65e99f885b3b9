"""Recognizing videos and audio files by their first bytes, for hints in error messages."""

from __future__ import annotations

from pathlib import Path

from landmarks_fastai.utils.encoded_files import EncodedFile

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mts", ".wmv", ".flv"})
AUDIO_SUFFIXES = frozenset(
    {".mp3", ".m4a", ".wav", ".flac", ".ogg", ".opus", ".aac", ".aif", ".aiff", ".mka"}
)

HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
"""Brands of the ISO base media file format, in its box ``ftyp``, that are images."""

AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ")

SIGNATURES = (
    (0, b"\x1a\x45\xdf\xa3", "video"),  # Matroska and WebM
    (0, b"FLV\x01", "video"),
    (0, b"\x00\x00\x01\xba", "video"),  # MPEG program stream
    (0, b"\x00\x00\x01\xb3", "video"),  # MPEG elementary stream
    (0, b"\x30\x26\xb2\x75", "video"),  # ASF, which contains WMV
    (8, b"AVI ", "video"),
    (8, b"WAVE", "audio"),
    (8, b"AIF", "audio"),
    (0, b"ID3", "audio"),
    (0, b"\xff\xfb", "audio"),  # MP3
    (0, b"\xff\xf1", "audio"),  # AAC
    (0, b"fLaC", "audio"),
    (0, b"OggS", "audio"),
)
"""Offset and content of the bytes by which a kind of file is recognized."""

TS_PACKET, TS_SYNC = 188, 0x47
"""Size in bytes of a packet of an MPEG transport stream, and its first byte."""


def media_kind(path: Path | EncodedFile) -> str | None:
    """Return "video" or "audio" if the content of a file is of that kind, else None.

    Matroska and Ogg contain either, which their suffix tells.
    """
    with path.open("rb") as file:
        header = file.read(TS_PACKET + 1)
    kind = _kind_of_content(header)
    if kind is None:
        return None
    suffix = path.suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        return "audio"
    return "video" if suffix in {*VIDEO_SUFFIXES, ".ogv"} else kind


def _kind_of_content(header: bytes) -> str | None:
    if header[4:8] == b"ftyp":
        brand = header[8:12]
        if brand in HEIF_BRANDS | AVIF_BRANDS:
            return None
        return "audio" if brand in AUDIO_BRANDS else "video"
    if len(header) > TS_PACKET and header[0] == header[TS_PACKET] == TS_SYNC:
        return "video"
    matches = (kind for start, content, kind in SIGNATURES if header.startswith(content, start))
    return next(matches, None)
