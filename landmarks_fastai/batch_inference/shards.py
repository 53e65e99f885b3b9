"""A shard, the unit of work of which the result is one file, and how the images of each kind are read.

A shard is a number of files, a tar, or a part of a zip. To add a kind of archive, write an `Archive` and add
a line to `ARCHIVES`. Nothing is extracted to the disk, and names in an archive are names only.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

from landmarks_fastai.batch_inference.storage import (
    MAX_FILE,
    UnreachableError,
    opened,
    read_file,
    suffix,
    too_large,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.image_formats import SUFFIXES
from landmarks_fastai.utils.text import shorten
from landmarks_fastai.utils.zip_files import DAMAGED_ZIP

FILES = "files"

MAX_UNREAD = 1 << 36
"""Bytes that members of a tar may have which are not read: a compressed tar of a few MB may claim more."""

MAX_HEADER = 1 << 20
EXTENDED_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Types of the headers that have long names and attributes, and the bytes that they may have."""

DAMAGED = (
    *DAMAGED_ZIP,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    NotImplementedError,  # a compression that Python does not know
)
"""What is raised for damaged archives."""


@dataclass(frozen=True)
class Shard:
    """Images that are predicted together.

    Parameters
    ----------
    kind
        "files", or one of `ARCHIVES`.
    names
        Locations of the files, for "files".
    archive
        Location of the archive.
    start, count
        First image and number of images in a zip; a count of None means all.
    """

    kind: str
    names: tuple[str, ...] = ()
    archive: str = ""
    start: int = 0
    count: int | None = None

    @property
    def title(self) -> str:
        """The name of a shard in messages: the archive, or the first file."""
        return self.archive or self.names[0]


class DamagedArchiveError(UserError):
    """An archive that cannot be read to its end.

    Parameters
    ----------
    archive
        Its location.
    reason
        What is wrong.
    """

    def __init__(self, archive: str, reason: str) -> None:
        super().__init__(f"{archive}: damaged or truncated ({reason}); copy it again")
        self.archive = archive


@dataclass(frozen=True)
class Entry:
    """An image of a shard.

    Parameters
    ----------
    name
        Location of the file, or that of the archive followed by the name in it.
    load
        Returns the content, or raises a UserError or an UnreachableError.
    """

    name: str
    load: Callable[[], bytes]


@dataclass(frozen=True)
class Archive:
    """A kind of archive.

    Parameters
    ----------
    suffixes
        Ends of the names of such archives.
    divide
        Yields the shards of an archive; the second argument is the number of images of a shard.
    read
        Yields the images of a shard of such an archive, or None for each member that is no image.
    """

    suffixes: tuple[str, ...]
    divide: Callable[[str, int], Iterator[Shard]]
    read: Callable[[Shard], Iterator[Entry | None]]


def archive_kind(location: str) -> str | None:
    """Return which of `ARCHIVES` a file is by its suffix; None for others."""
    end = suffix(location)
    return next((kind for kind, archive in ARCHIVES.items() if end in archive.suffixes), None)


def read_shard(shard: Shard) -> Iterator[Entry | None]:
    """Yield the images of a shard in order; None for each member of an archive that is no image.

    Raises
    ------
    DamagedArchiveError
        If an archive cannot be read to its end; what was yielded before is intact.
    UserError
        If an archive is missing.
    UnreachableError
        If a remote archive cannot be read.
    """
    if shard.kind == FILES:
        for name in shard.names:
            yield Entry(name, _Reader(name))
        return
    try:
        yield from ARCHIVES[shard.kind].read(shard)
    except UnreachableError as error:
        # the context manager of the file has turned what a damaged archive raises into this
        if not isinstance(error.__cause__, DAMAGED):
            raise
        raise _damaged(shard, error.__cause__) from error
    except DAMAGED as error:
        raise _damaged(shard, error) from error


def _damaged(shard: Shard, error: BaseException) -> DamagedArchiveError:
    reason = shorten(str(error), 80) or type(error).__name__
    return DamagedArchiveError(shard.archive, reason)


@dataclass(frozen=True)
class _Reader:
    """Reads a file when it is called."""

    location: str

    def __call__(self) -> bytes:
        return read_file(self.location)


def _is_image(name: str) -> bool:
    """Return True for the name of an image in an archive; hidden files are none, such as those of macOS."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _entry(shard: Shard, name: str, size: int, read: Callable[[], bytes]) -> Entry:
    """Return a member that has been read, or the reason for not reading it."""
    full = f"{shard.archive}/{name}"
    if size > MAX_FILE:
        return Entry(full, _raise(UserError(f"{full}: {too_large()}")))
    try:
        data = read()
    except RuntimeError as error:  # an encrypted member of a zip; NotImplementedError is one, too
        return Entry(full, _raise(UserError(f"{full}: cannot be read ({shorten(str(error), 80)})")))
    if len(data) > MAX_FILE:
        return Entry(full, _raise(UserError(f"{full}: {too_large()}")))
    return Entry(full, lambda: data)


def _raise(error: UserError) -> Callable[[], bytes]:
    def load() -> bytes:
        raise error

    return load


# --- tar -----------------------------------------------------------------------------------------


def _divide_tar(location: str, size: int) -> Iterator[Shard]:
    """Yield the one shard of a tar: to find out how many images it has, all of it would have to be read."""
    yield Shard("tar", archive=location)


def _read_tar(shard: Shard) -> Iterator[Entry | None]:
    """Yield the images of a tar, compressed or not, reading it once from start to end."""
    unread = 0
    with (
        opened(shard.archive) as file,
        tarfile.open(fileobj=file, mode="r|*", tarinfo=_LimitedTarInfo) as tar,
    ):
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
            is_image = member.isreg() and _is_image(member.name)
            if not is_image or member.size > MAX_FILE:
                unread += member.size
                if unread > MAX_UNREAD:
                    raise tarfile.ReadError(f"more than {MAX_UNREAD >> 30} GiB that are no images")
            if is_image:
                yield _entry(shard, member.name, member.size, partial(_read_member, tar, member))
            elif not member.isdir():
                yield None


class _LimitedTarInfo(tarfile.TarInfo):
    """A member whose extended headers, which tarfile reads into memory, are small."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENDED_HEADERS and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "only regular files are read"
    with file:
        return file.read()


# --- zip -----------------------------------------------------------------------------------------


def _zip_images(file: zipfile.ZipFile) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the images of a zip in the order of its directory, and the number of other files."""
    members = [member for member in file.infolist() if not member.is_dir()]
    images = [member for member in members if _is_image(member.filename)]
    return images, len(members) - len(images)


def _divide_zip(location: str, size: int) -> Iterator[Shard]:
    """Yield the shards of a zip, whose directory tells how many images it has."""
    try:
        with opened(location) as file, zipfile.ZipFile(file) as archive:
            count = len(_zip_images(archive)[0])
    except (*DAMAGED, UnreachableError, UserError):  # reported when the shard is read
        yield Shard("zip", archive=location)
        return
    for start in range(0, max(count, 1), size):
        yield Shard("zip", archive=location, start=start, count=min(size, count - start))


def _read_zip(shard: Shard) -> Iterator[Entry | None]:
    """Yield the images of a part of a zip."""
    with opened(shard.archive) as file, zipfile.ZipFile(file) as archive:
        images, others = _zip_images(archive)
        if shard.start == 0:
            yield from [None] * others
        end = len(images) if shard.count is None else shard.start + shard.count
        for member in images[shard.start : end]:
            yield _zip_entry(shard, archive, member)


def _zip_entry(shard: Shard, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Entry:
    """Return a member of a zip; only that member is lost if its content is damaged."""

    def read() -> bytes:
        with closing(archive.open(member)) as content:
            return _read_limited(content)

    try:
        return _entry(shard, member.filename, member.file_size, read)
    except DAMAGED as error:
        name = f"{shard.archive}/{member.filename}"
        reason = shorten(str(error), 80) or type(error).__name__
        return Entry(name, _raise(UserError(f"{name}: damaged in the archive ({reason})")))


def _read_limited(content: IO[bytes] | Any) -> bytes:
    """Return at most `MAX_FILE` + 1 bytes: the size that a zip declares may be wrong."""
    data: bytes = content.read(MAX_FILE + 1)
    return data


ARCHIVES: Mapping[str, Archive] = {
    "tar": Archive(
        (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"), _divide_tar, _read_tar
    ),
    "zip": Archive((".zip",), _divide_zip, _read_zip),
}
