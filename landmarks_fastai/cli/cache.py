"""The command `cache`."""

from __future__ import annotations

from typing import Annotated

import typer


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all data sets from the cache.")] = False,
) -> None:
    """List the data sets in the cache, or remove them.

    A data set is read once; then its images are memory-mapped from the cache. Above 50 GB, or the number of
    gigabytes in the variable LANDMARKS_FASTAI_CACHE_GB, the data sets that were not used for the longest time
    are removed.
    """
    from landmarks_fastai.data.cache import cache_entries, cache_limit, clear_cache
    from landmarks_fastai.utils.cache_folder import default_cache_dir

    folder = default_cache_dir()
    entries = clear_cache(folder) if clear else cache_entries(folder)
    for entry in entries:
        rows = f"{entry.rows:,} rows" if entry.rows else "unfinished"
        typer.echo(f"{entry.size / 1e6:10,.1f} MB  {rows:>14}  {entry.source}")
    total = sum(entry.size for entry in entries) / 1e9
    if clear:
        typer.echo(f"{folder}: removed {len(entries)} data sets, {total:.2f} GB")
    else:
        typer.echo(f"{folder}: {len(entries)} data sets, {total:.2f} GB of {cache_limit() / 1e9:g} GB")
