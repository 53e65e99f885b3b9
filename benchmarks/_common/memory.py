"""Peak of the memory of a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PeakMemory:
    """Peak of the anonymous and of the file-backed memory of this process, sampled 20 times a second."""

    def __init__(self) -> None:
        self.anonymous = self.file = 0
        self._ended = threading.Event()

    @contextmanager
    def sampled(self) -> Iterator[PeakMemory]:
        """Sample within the block."""
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            values = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "Rss" in line}
            self.anonymous = max(self.anonymous, int(values["RssAnon"]) // 1024)
            self.file = max(self.file, int(values["RssFile"]) // 1024)
