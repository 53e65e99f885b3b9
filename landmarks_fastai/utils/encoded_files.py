"""A file whose content is in memory: a member of an archive, or an object of a remote storage."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, eq=False)
class EncodedFile:
    """The content of a file under a name; where files are read, it takes the place of a path.

    It has the methods of `Path` that reading needs. The name is only shown: no file of that name is opened.

    Parameters
    ----------
    name
        Shown in messages; its suffix tells the format where the content does not.
    data
        The content.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Open the content for reading; the only mode is "rb"."""
        assert mode == "rb", mode
        return io.BytesIO(self.data)

    def is_dir(self) -> bool:
        """Return False."""
        return False

    def stat(self) -> os.stat_result:
        """Return a status in which only the size is known."""
        return os.stat_result((0, 0, 0, 0, 0, 0, len(self.data), 0, 0, 0))
