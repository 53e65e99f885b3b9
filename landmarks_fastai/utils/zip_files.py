"""What zipfile raises for damaged files."""

from __future__ import annotations

import zipfile
import zlib

DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    UnicodeDecodeError,  # a name that is not UTF-8
)
