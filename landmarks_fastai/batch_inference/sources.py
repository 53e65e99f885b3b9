"""Sources of images: which files folders, lists, patterns and URLs stand for, and which shards they form.

To add a kind of source, write a function that yields the locations of its files, and add a line to `SOURCES`.
To add a kind of archive, see `landmarks_fastai.batch_inference.shards`.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from landmarks_fastai.batch_inference.shards import ARCHIVES, FILES, Shard, archive_kind
from landmarks_fastai.batch_inference.storage import (
    filesystem,
    full_name,
    is_url,
    join,
    opened,
    parent,
    report_read_errors,
    suffix,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.image_formats import SUFFIXES, SUPPORTED
from landmarks_fastai.utils.images import describe_skipped, natural_key

LIST_SUFFIX = ".txt"
MAX_LINE = 1 << 16
"""Characters of a line of a list; nothing longer is a path or a URL."""

Note = Callable[[str], None]
"""Called with one line about files that are left out."""


def is_many(source: str) -> bool:
    """Return True for a source that only stands for shards: a URL, an archive or a list of files."""
    return is_url(source) or archive_kind(source) is not None or suffix(source) == LIST_SUFFIX


def list_files(source: str, note: Note) -> Iterator[str]:
    """Yield the locations of the images and archives of a source, in an order that does not change.

    Memory does not grow with their number, but with that of the files of one folder.

    Raises
    ------
    UserError
        If there is no such file or folder, or no image in it.
    """
    count = 0
    for location in SOURCES[source_kind(source)](source, note):
        count += 1
        yield location
    if not count:
        raise UserError(f"{source}: no images or archives; {SUPPORTED}, in tar or zip archives or not")


def source_kind(source: str) -> str:
    """Return which of `SOURCES` a source is.

    Raises
    ------
    UserError
        If there is no such file or folder.
    """
    fs, path = filesystem(source)
    # the pages of a web server are no folders, and its files need not be asked for twice
    if source.startswith(("http://", "https://")):
        return "list" if suffix(source) == LIST_SUFFIX else "file"
    with report_read_errors(source):
        if fs.isdir(path):
            return "folder"
        if fs.exists(path):
            return "list" if suffix(source) == LIST_SUFFIX else "file"
    if any(character in source for character in "*?["):
        return "pattern"
    raise UserError(f"{source}: no such file or folder")


def _list_folder(source: str, note: Note) -> Iterator[str]:
    """Yield the images and archives of a folder and its subfolders, without hidden ones."""
    fs, root = filesystem(source)
    skipped: Counter[str] = Counter()

    def fail(error: OSError) -> None:
        raise error

    with report_read_errors(source):
        for folder, subfolders, names in fs.walk(root, detail=False, on_error=fail):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted((name for name in names if name[:1] not in ("", ".")), key=_name_key):
                if suffix(name) in SUFFIXES or archive_kind(name):
                    yield full_name(fs, source, f"{folder}/{name}")
                else:
                    skipped[Path(name).suffix.lower()] += 1
    _note_skipped(source, skipped, note)


def _list_pattern(source: str, note: Note) -> Iterator[str]:
    """Yield the files that match a pattern: ``photos/*.jpg``, ``s3://bucket/shard-*.tar``."""
    fs, pattern = filesystem(source)
    with report_read_errors(source):
        matches = fs.glob(pattern)
    for path in sorted(matches, key=_name_key):
        if suffix(path) in SUFFIXES or archive_kind(path):
            yield full_name(fs, source, path)


def _list_lines(source: str, note: Note) -> Iterator[str]:
    """Yield the paths and URLs in a text file, one a line; paths are relative to the file."""
    folder = parent(source)
    with opened(source) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as lines:
        number = 0
        try:
            while line := lines.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise UserError(f"{source}, line {number}: too long for a path or URL; correct the line")
                entry = line.strip()
                if entry:
                    yield entry if is_url(entry) else join(folder, entry)
        except UnicodeDecodeError:
            raise UserError(f"{source}, after line {number}: not UTF-8; save the list as UTF-8") from None


def _list_file(source: str, note: Note) -> Iterator[str]:
    """Yield a file."""
    yield source


SOURCES: Mapping[str, Callable[[str, Note], Iterator[str]]] = {
    "folder": _list_folder,
    "pattern": _list_pattern,
    "list": _list_lines,
    "file": _list_file,
}


def divide(locations: Iterable[str], size: int) -> Iterator[Shard]:
    """Yield the shards of files: each archive is one or several, other files form shards of `size` files.

    Parameters
    ----------
    locations
        Locations of images and archives.
    size
        Number of images of a shard; a tar is one shard, whatever its size.
    """
    names: list[str] = []
    for location in locations:
        kind = archive_kind(location)
        if kind is not None:
            yield from ARCHIVES[kind].divide(location, size)
            continue
        names.append(location)
        if len(names) == size:
            yield Shard(FILES, names=tuple(names))
            names.clear()
    if names:
        yield Shard(FILES, names=tuple(names))


def _note_skipped(source: str, suffixes: Counter[str], note: Note) -> None:
    """Report how many files of a folder are no images."""
    if suffixes:
        paths = [Path(f"a{ending}") for ending in suffixes.elements()]
        note(f"{source}: {describe_skipped(paths)}")


def _name_key(name: str) -> tuple[list[tuple[str, int]], str]:
    return natural_key(Path(name))
