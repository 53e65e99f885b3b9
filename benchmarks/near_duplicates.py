"""Measure the time and the memory that the grouping of near-duplicates takes, and what it finds.

    python benchmarks/near_duplicates.py

Draws synthetic faces, half of them mirror images of the others, and makes 30 frames of each: shifted,
brighter or darker, and noisy. They are grouped in a process of its own for each number of rows. The images of
300,000 rows take 15 GB in a temporary folder (--temporary) that is deleted afterwards. Writes
near_duplicates.json and near_duplicates.md; numbers of rows that are in near_duplicates.json are not measured
again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
from _common.arguments import BenchmarkParser
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results, run_missing
from numpy.typing import NDArray

from landmarks_fastai.data.aligned_patches import aligned_patches
from landmarks_fastai.data.cache import IMAGES_NAME, load_or_build
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.data.near_duplicates import MAX_ROWS, NEAR_DUPLICATE, group_near_duplicates
from landmarks_fastai.data.similar_pairs import group_similar
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.utils.processors import available_processors

ROWS = (3_000, 30_000, 300_000)
SIZE = 128
FRAMES = 30
"""Frames of each face."""
SHIFT = 3
"""Maximum shift of a frame in pixels."""


def load_frames(rows: int, cache: Path) -> LandmarkDataset:
    """Return the data set from the cache, or draw it."""
    return load_or_build(cache, "frames", (str(rows),), lambda folder: draw_frames(rows, folder or cache))


def draw_frames(rows: int, folder: Path) -> LandmarkDataset:
    """Draw a data set of RGB images in a memory-mapped file; the frames of all faces are in random order."""
    people = rows // FRAMES
    faces = draw_synthetic_faces((people + 1) // 2, seed=0, size=SIZE, color=True)
    schema, drawn = faces.schema, faces.images[:]
    path = folder / IMAGES_NAME
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, SIZE, SIZE, 3))
    points = np.empty((rows, len(schema), 2), np.float32)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (64, SIZE, SIZE, 3)).astype(np.float32)
    for row, person in enumerate(people_of_rows(rows)):
        image, face = drawn[person // 2], faces.points[person // 2]
        if person % 2:
            image, face = image[:, ::-1], np.array([SIZE - 1, 0]) + face[list(schema.flip_index)] * [-1, 1]
        shift = rng.integers(-SHIFT, SHIFT + 1, 2)
        frame = np.roll(image, shift[::-1], (0, 1)) * np.float32(rng.uniform(0.8, 1.15))
        pixels[row] = np.clip(frame + noise[rng.integers(len(noise))], 0, 255)
        points[row] = face + shift
    pixels.flush()
    images = ImageArray(np.load(path, mmap_mode="r"), ids=np.arange(rows, dtype=np.uint64))
    names = tuple(map(str, range(rows)))
    return LandmarkDataset(images, points, schema, names, f"{rows} frames", str(rows))


def people_of_rows(rows: int) -> NDArray[np.int64]:
    """Return the person in each row."""
    return np.random.default_rng(1).permutation(np.arange(rows) % (rows // FRAMES))


class PeakMemory:
    """Peak of the memory that this process has allocated, in MiB, without the mapped pages of files.

    The system drops those whenever it needs memory.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Begin to measure."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the measurement."""
        self._is_done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_done.wait(0.02):
            self.peak = max(self.peak, allocated())


def allocated() -> float:
    """Return the memory that this process has allocated, in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no RssAnon: this benchmark needs Linux")


def group(rows: int, cache: Path) -> Results:
    """Group the rows of a cached data set, twice, and return the measurements."""
    dataset = load_frames(rows, cache)
    before = allocated()
    wall, cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        groups = group_near_duplicates(dataset)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    start = time.perf_counter()
    group_near_duplicates(dataset)
    cached = time.perf_counter() - start
    return {
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "load": round(os.getloadavg()[1], 1),
        "peak_mib": round(memory.peak),
        "before_mib": round(before),
        "cached_seconds": round(cached, 3),
        **compare(groups, people_of_rows(rows)),
        **(compare_compact(dataset) if rows <= MAX_ROWS else {}),
    }


def compare_compact(dataset: LandmarkDataset) -> Results:
    """Compare the pairs of rows that float32 and int8 patches group: which part of one is in the other."""
    exact, compact = (
        group_similar(aligned_patches(dataset, is_compact), NEAR_DUPLICATE) for is_compact in (False, True)
    )
    both = np.unique(np.stack([exact, compact]), axis=1, return_counts=True)[1]
    exact_pairs, compact_pairs, both_pairs = (
        int((sizes * (sizes - 1)).sum()) // 2 for sizes in (np.bincount(exact), np.bincount(compact), both)
    )
    return {
        "compact_recall": round(both_pairs / max(exact_pairs, 1), 5),
        "compact_precision": round(both_pairs / max(compact_pairs, 1), 5),
    }


def compare(groups: NDArray[np.int64], people: NDArray[np.int64]) -> Results:
    """Return how many pairs of frames of one person are in one group, and the groups with several people."""
    sizes = np.unique(np.stack([groups, people]), axis=1, return_counts=True)
    together = (sizes[1] * (sizes[1] - 1)).sum() / len(groups) / (FRAMES - 1)
    people_per_group = np.bincount(sizes[0][0])
    return {
        "groups": int(groups.max()) + 1,
        "recall": round(float(together), 5),
        "mixed_groups": int((people_per_group > 1).sum()),
        "largest_group": int(np.bincount(groups).max()),
    }


def measure(temporary: Path | None, rows: int) -> Results:
    """Draw the data set here, and group it in another process."""
    with tempfile.TemporaryDirectory(dir=temporary) as folder:
        cache = Path(folder)
        load_frames(rows, cache)
        command = [sys.executable, __file__, "--rows", str(rows), "--temporary", folder]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: Results = json.loads(output.splitlines()[-1])
    return result


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    rows = [
        [
            f"{int(count):,}",
            f"{row['seconds']:,.0f} s",
            f"{row['cpu_seconds']:,.0f} s",
            f"{row['load']:.1f}",
            f"{row['peak_mib']:,} MiB",
            f"{row['peak_mib'] - row['before_mib']:,} MiB",
            f"{row['cached_seconds']:.2f} s",
            f"{row['recall']:.2%}",
            f"{row['groups']:,}",
            f"{row['mixed_groups']:,}",
            f"{row['largest_group']:,}",
        ]
        for count, row in results.items()
        if count != "setting"
    ]
    header = [
        "rows",
        "time",
        "CPU time",
        "load",
        "peak memory",
        "of which grouping",
        "from the cache",
        "pairs of frames found",
        "groups",
        "with several people",
        "largest group",
    ]
    return markdown_page(
        "Grouping of near-duplicates",
        f"`python benchmarks/near_duplicates.py`: {setting['processors']} processors, synthetic faces of"
        f" {SIZE} px, RGB, {FRAMES} frames of each in random order: shifted by up to {SHIFT} px, brighter or"
        " darker, and noisy. Half of the faces are mirror images of the others. The memory is that of the"
        " whole process without the mapped pages of the images. The load is the mean number of running"
        " processes in the last five minutes. Above the number of processors, the time is longer than on a"
        " free machine, where it is between the CPU time and the CPU time divided by the number of"
        " processors.",
        markdown_table(header, rows),
        f"Up to {MAX_ROWS:,} rows, identities are grouped, not only near-duplicates: groups are larger, and"
        " some have several people. In more rows, int8 patches are compared instead of float32. Of the pairs"
        " of rows that float32 patches group as near-duplicates, int8 patches group "
        + "; ".join(
            f"{row['compact_recall']:.2%} in {int(count):,} rows, and {row['compact_precision']:.2%} of what"
            " they group is grouped by float32"
            for count, row in results.items()
            if "compact_recall" in row
        )
        + ".",
    )


FILES = ResultFiles("near_duplicates", render)


def main() -> None:
    """Measure each number of rows in a process of its own, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--rows", type=int, help="group these rows in this process, and print the result")
    parser.add_argument("--temporary", type=Path, help="folder for the images (default: the system's)")
    options, files = parser.parse()
    if options.rows is not None:
        print(json.dumps(group(options.rows, options.temporary)))
        return
    runs = [((str(rows),), partial(measure, options.temporary, rows)) for rows in ROWS]
    run_missing(files, {"processors": available_processors()}, runs)


if __name__ == "__main__":
    main()
