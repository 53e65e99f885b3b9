"""The cache of data sets: hits, damaged files, resuming, eviction, several processes, no write access."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.small_disk import small_disk

from landmarks_fastai.data.cache import cache_entries, cache_limit, clear_cache, load_or_build
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError

DATASET = replace(draw_synthetic_faces(3, seed=1), groups=np.array([4, 4, 2]))


def fail_if_called(folder):
    raise AssertionError("must not be called")


def test_load_or_build_parses_once_per_key(tmp_path):
    calls: list[int] = []

    def build(folder):
        calls.append(1)
        return DATASET

    for key in [("a",), ("a",), ("b",), ("a",)]:
        dataset = load_or_build(tmp_path, "kaggle", key, build)
        np.testing.assert_array_equal(dataset.images, DATASET.images)
        np.testing.assert_array_equal(dataset.points, DATASET.points)
        np.testing.assert_array_equal(dataset.groups, DATASET.groups)
        metadata = (dataset.schema, dataset.names, dataset.source, dataset.digest)
        assert metadata == (DATASET.schema, DATASET.names, DATASET.source, DATASET.digest)
    assert len(calls) == 2
    assert len(list((tmp_path / "parsed").iterdir())) == 2


def test_load_or_build_keeps_missing_labels_and_groups(tmp_path):
    points = DATASET.points.copy()
    points[1, 3] = np.nan
    dataset = replace(DATASET, points=points, groups=None)
    load_or_build(tmp_path, "kaggle", ("a",), lambda folder: dataset)
    cached = load_or_build(tmp_path, "kaggle", ("a",), fail_if_called)
    np.testing.assert_array_equal(cached.points, points)
    assert cached.groups is None


@pytest.mark.parametrize("name", ["images.npy", "labels.npz"])
def test_load_or_build_replaces_damaged_file(tmp_path, name):
    """Truncate the file and flip bits at many positions: there must be no exception and no wrong data."""
    dataset = DATASET.subset(np.array([1]))
    load_or_build(tmp_path, "kaggle", ("a",), lambda folder: dataset)
    (path,) = (tmp_path / "parsed").glob(f"kaggle-*/{name}")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    positions = np.r_[0:200:2, len(content) - 1200 : len(content) : 5, rng.integers(0, len(content), 50)]
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        for damaged in [bytes(flipped), content[:position]]:
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                loaded = load_or_build(tmp_path, "kaggle", ("a",), lambda folder: dataset)
            np.testing.assert_array_equal(loaded.images, dataset.images)
            np.testing.assert_array_equal(loaded.points, dataset.points)
            assert (loaded.names, loaded.source) == (dataset.names, dataset.source)


def test_load_or_build_without_writable_cache_returns_data(tmp_path):
    file = tmp_path / "parsed"
    file.write_bytes(b"")
    for cache in (tmp_path, file):
        dataset = load_or_build(cache, "kaggle", ("a",), lambda folder: DATASET)
        np.testing.assert_array_equal(dataset.images, DATASET.images)
        (note,) = dataset.notes
        assert note.startswith(f"{cache}: the data set is not cached (")


def entry_names(cache: Path) -> list[str]:
    return sorted(entry.source for entry in cache_entries(cache))


def add_entries(cache: Path, *sources: str) -> None:
    for source in sources:
        load_or_build(cache, "kaggle", (source,), lambda _, source=source: replace(DATASET, source=source))


def test_images_of_a_cached_data_set_are_memory_mapped(tmp_path: Path) -> None:
    dataset = load_or_build(tmp_path, "kaggle", ("a",), lambda _: DATASET)
    assert isinstance(dataset.images.pixels, np.memmap)
    np.testing.assert_array_equal(dataset.images.ids, DATASET.images.ids)


def test_unfinished_build_is_continued(tmp_path: Path) -> None:
    """Interrupt a build that has written a file: the next build finds it."""

    def interrupted(folder: Path | None) -> LandmarkDataset:
        assert folder is not None
        (folder / "progress").write_text("half")
        raise KeyboardInterrupt

    def resumed(folder: Path | None) -> LandmarkDataset:
        assert folder is not None
        assert (folder / "progress").read_text() == "half"
        return DATASET

    with pytest.raises(KeyboardInterrupt):
        load_or_build(tmp_path, "kaggle", ("a",), interrupted)
    assert [(entry.source, entry.rows) for entry in cache_entries(tmp_path)] == [("unfinished", 0)]
    load_or_build(tmp_path, "kaggle", ("a",), resumed)
    assert [(entry.source, entry.rows) for entry in cache_entries(tmp_path)] == [(DATASET.source, 3)]


def test_least_recently_used_entries_are_removed_above_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_entries(tmp_path, "a", "b")
    (size,) = {entry.size for entry in cache_entries(tmp_path)}
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE_GB", str(2.5 * size / 1e9))
    for age, entry in enumerate(cache_entries(tmp_path)):  # a was used after b
        time = 1e9 - age if entry.source == "b" else 1e9 + age
        os.utime(entry.path / "labels.npz", (time, time))
    add_entries(tmp_path, "c")
    assert entry_names(tmp_path) == ["a", "c"]
    add_entries(tmp_path, "a", "d")  # a is used again
    assert entry_names(tmp_path) == ["a", "d"]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "many"])
def test_invalid_limit_raises(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE_GB", text)
    with pytest.raises(UserError, match=rf"LANDMARKS_FASTAI_CACHE_GB={text}: must be a positive number"):
        cache_limit()


def test_clear_cache_removes_all_but_what_is_being_built(tmp_path: Path) -> None:
    add_entries(tmp_path, "a", "b")

    def build(folder: Path | None) -> LandmarkDataset:
        assert sorted(entry.source for entry in clear_cache(tmp_path)) == ["a", "b"]
        assert folder is not None
        assert folder.is_dir()
        return DATASET

    load_or_build(tmp_path, "kaggle", ("c",), build)
    assert entry_names(tmp_path) == [DATASET.source]


def test_processes_build_an_entry_once(tmp_path: Path) -> None:
    """Start three processes at the same time; each appends a line to a file when it builds."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from landmarks_fastai.data.cache import load_or_build\n"
        "from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces\n"
        "def build(folder):\n"
        "    Path(sys.argv[1], 'builds').open('a').write('x')\n"
        "    time.sleep(0.5)\n"
        "    return draw_synthetic_faces(2, seed=0)\n"
        "dataset = load_or_build(Path(sys.argv[1]), 'synthetic', ('a',), build)\n"
        "assert len(dataset) == 2 and dataset.images[:].any()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "x"


# --- killed processes and full disks --------------------------------------------------------------


def build_and_die(cache: Path, step: int) -> int:
    """Build an entry in a forked process that dies at a change of the file system; return its exit code.

    A file that is being written at that moment is left with half of its content.
    """
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    changes = 0

    def dying(change):
        def change_or_die(*arguments, **options):
            nonlocal changes
            if changes == step:
                if change in (np.save, np.savez):
                    change(*arguments, **options)
                    os.truncate(arguments[0], arguments[0].stat().st_size // 2)
                os._exit(9)
            changes += 1
            return change(*arguments, **options)

        return change_or_die

    np.save, np.savez, os.replace, os.mkdir = map(dying, (np.save, np.savez, os.replace, os.mkdir))
    load_or_build(cache, "kaggle", ("a",), lambda folder: DATASET)
    os._exit(0)


def test_process_killed_at_any_step_leaves_a_cache_that_works(tmp_path: Path) -> None:
    step, code = 0, 9
    while code == 9:
        cache = tmp_path / str(step)
        code = build_and_die(cache, step)
        dataset = load_or_build(cache, "kaggle", ("a",), lambda folder: DATASET)
        np.testing.assert_array_equal(dataset.images, DATASET.images)
        np.testing.assert_array_equal(dataset.points, DATASET.points)
        assert [(entry.source, entry.rows) for entry in cache_entries(cache)] == [(DATASET.source, 3)]
        step += 1
    assert code == 0
    assert step > 3  # 4 with Python 3.10, whose Path.mkdir does not look up os.mkdir when it is called


def test_full_disk_keeps_data_set_in_memory_and_earlier_entries(tmp_path: Path) -> None:
    large = draw_synthetic_faces(200, seed=1)
    with small_disk(tmp_path / "disk", 1) as cache:
        load_or_build(cache, "kaggle", ("small",), lambda folder: DATASET)
        assert large.images[:].nbytes > 1 << 20
        for _ in range(2):
            dataset = load_or_build(cache, "kaggle", ("large",), lambda folder: large)
            np.testing.assert_array_equal(dataset.images, large.images)
            assert dataset.notes == (
                f"{cache}: the data set is not cached (No space left on device), so the next command reads it"
                " again; free some space or make the folder writable",
            )
        assert [entry.rows for entry in cache_entries(cache)] == [3]
        load_or_build(cache, "kaggle", ("small",), fail_if_called)
