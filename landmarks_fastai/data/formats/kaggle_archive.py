"""Opening Kaggle's CSV files, which are in zips, some of them in a zip in a zip.

A zip may be damaged or hostile: the sizes and the methods of compression of its members are limited.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.download import git_blob_sha1_of_stream
from landmarks_fastai.utils.text import shorten
from landmarks_fastai.utils.zip_files import DAMAGED_ZIP

MAX_MEMBER_BYTES = 4 << 30
"""Members of a zip that unpack to more bytes are rejected; Kaggle's largest unpacks to 0.25 GB."""

MAX_RATIO = 100
MIN_BOMB_BYTES = 64 << 20
"""A member that unpacks to more than `MIN_BOMB_BYTES` and `MAX_RATIO` times its own size is rejected; all of
Kaggle's unpack to 4 times their size."""

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}
"""Accepted methods of compression. Not LZMA, whose decoder allocates as much memory as the file asks for."""


@contextmanager
def open_csv(path: Path, stem: str) -> Iterator[tuple[CsvReader, str]]:
    """Open `stem`.csv in a CSV, a zip, or a zip in a zip; yield its reader and its file name.

    Raises
    ------
    UserError
        If the file is none of these, is damaged, or a member would unpack to too many bytes.
    """
    with report_read_errors(path), ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
        head = stream.read(2)
        stream.seek(0)
        if not head:
            raise UserError(f"{path}: the file is empty (0 bytes); copy it again")
        if head != b"PK" and path.suffix.lower() != ".zip":
            yield CsvReader(stream, str(path)), path.name
            return
        archive = stack.enter_context(zipfile.ZipFile(stream))
        inner = _find_member(archive, f"{stem}.zip")
        if inner is not None:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(archive.open(inner))))
        info = _find_member(archive, f"{stem}.csv")
        if info is None:
            content = ", ".join(sorted(archive.namelist())[:8]) or "nothing"
            raise UserError(f"{path}: has no {stem}.csv; it contains {shorten(content, 200)}")
        try:
            yield CsvReader(stack.enter_context(archive.open(info)), f"{path}: {stem}.csv"), f"{stem}.csv"
        except UserError:
            # the checksum at the end of the member shows whether the row is wrong because the zip is damaged
            with archive.open(info) as member:
                while member.read(1 << 20):
                    pass
            raise


def _find_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    """Find a member by its file name, in any folder of the zip; raise UserError if it is too large."""
    for info in archive.infolist():
        if PurePosixPath(info.filename).name == name:
            _check_member(archive, info)
            return info
    return None


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Raise UserError if a member is too large, or compressed by a method that is not accepted."""
    name = f"{archive.filename}: {PurePosixPath(info.filename).name}"
    # zipfile never unpacks more bytes than this, so no further check is needed while reading
    size = info.file_size
    if size > MAX_MEMBER_BYTES or size > max(MIN_BOMB_BYTES, MAX_RATIO * info.compress_size):
        raise UserError(
            f"{name} would unpack to {size:,} bytes from {info.compress_size:,}, too large for Kaggle's"
            " images; copy the file again"
        )
    if info.compress_type not in METHODS:
        raise UserError(
            f"{name} is compressed by a method that is not read (number {info.compress_type}); unpack it and"
            " name the folder"
        )


@contextmanager
def report_read_errors(path: Path) -> Iterator[None]:
    """Turn the exceptions of a damaged, encrypted or unreadable file into a UserError."""
    try:
        yield
    except DAMAGED_ZIP as error:
        reason = shorten(str(error), 80)
        raise UserError(f"{path}: not a zip, or truncated or damaged ({reason}); copy it again") from error
    except (NotImplementedError, RuntimeError) as error:  # unknown compression, encrypted
        reason = shorten(str(error), 80)
        raise UserError(f"{path}: cannot be unpacked ({reason}); unpack it and name the folder") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def verify_members(path: Path, blobs: dict[str, str]) -> None:
    """Check the digests of the members of a zip.

    Parameters
    ----------
    path
        The zip.
    blobs
        Expected git blob SHA-1 of each member, see `git_blob_sha1`.

    Raises
    ------
    UserError
        If a member is missing or has another digest.
    """
    with report_read_errors(path), zipfile.ZipFile(path) as archive:
        for name, blob in blobs.items():
            info = _find_member(archive, name)
            if info is None:
                raise UserError(f"{path}: has no {name}; download it again")
            with archive.open(info) as member:
                digest = git_blob_sha1_of_stream(member, info.file_size)
            if digest != blob:
                raise UserError(f"{path}: {name} has the digest {digest}, not {blob}; download it again")
