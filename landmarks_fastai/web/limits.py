"""What the page accepts and for how long: the bounds on files, processing, memory and storage."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 2**20
"""Bytes in a megabyte, as gradio counts them in its limit of the file size."""


@dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Parameters
    ----------
    megabytes
        Maximum size of an uploaded file.
    megapixels
        Maximum number of pixels of a photo or of a frame of a video, in millions.
    seconds
        Maximum duration of a video.
    photo_seconds, video_seconds
        Maximum time in which a photo or a video is processed.
    stall_seconds
        Maximum time between two steps of the progress of a video.
    memory_megabytes
        Maximum memory of a worker process beyond its models.
    queue
        Maximum number of requests that wait; further ones are refused.
    connections
        Maximum number of open connections, of which each page needs up to three; also the number of sessions
        whose state is remembered.
    storage_megabytes
        Maximum size of all uploads and results together; uploads that exceed it are refused.
    keep_seconds
        Time after which an unused file is deleted while its page is open.
    grace_seconds
        Time after which the files of a closed page are deleted. A page that loses its connection for a
        shorter time keeps them.
    min_confidence
        Faces with less confidence are discarded; None: `choose_min_confidence`.
    """

    megabytes: float = 200
    megapixels: float = 50
    seconds: float = 60
    photo_seconds: float = 30
    video_seconds: float = 600
    stall_seconds: float = 30
    memory_megabytes: float = 2048
    queue: int = 64
    connections: int = 1000
    storage_megabytes: float = 4096
    keep_seconds: float = 3600
    grace_seconds: float = 30
    min_confidence: float | None = None
