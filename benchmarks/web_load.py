"""Measure the web page with many clients at once: wrong answers, latency, memory and leftover files.

    python benchmarks/web_load.py --clients 200 --seconds 300

Starts the page, and lets the clients upload synthetic photos, wait for the answers and download the results,
for the given time. Each session ends after a few photos. Every answer is compared with that of the predictor
for the same photo. Of 40 uploads, one is not an image, and one request names a file that was not uploaded.
Writes web_load.json and web_load.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psutil
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results

from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.errors import UserError
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.web.app import HOST, listen
from landmarks_fastai.web.limits import Limits
from landmarks_fastai.web.service import LandmarkService
from landmarks_fastai.web.temporary import FILES_NAME
from landmarks_fastai.web.uploads import EXAMPLES, NOT_THERE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PHOTOS = 24
PHOTOS_PER_SESSION = 5
SAMPLE_SECONDS = 5.0

LEFTOVER_SECONDS = Limits().grace_seconds + 30
"""Time after the last session in which the page must have deleted all files."""

THINK_SECONDS = (0.5, 2.5)
"""Shortest and longest pause between two requests, and before a refused one is repeated."""

ODD_REQUESTS = 40
"""One of so many requests is not an image, and one names a file of the server."""

TOLERANCE = 0.01
"""Largest difference of a coordinate or a confidence from that of the predictor: the last digit."""


@dataclass(frozen=True)
class Photo:
    """A photo, the message for it, and, unless it is refused, its landmarks and the hash of its drawing."""

    name: str
    content: bytes
    message: str
    landmarks: Any = None
    drawing: str | None = None


@dataclass
class Tally:
    """What the clients have counted."""

    counts: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def make_photos(folder: Path, model: str, detector: str) -> list[Photo]:
    """Draw photos of one or two faces of different sizes, and return them with their expected answers."""
    from landmarks_fastai.model_files.discovery import resolve_model

    service = LandmarkService([resolve_model(model)], detector)
    photos = []
    for index in range(PHOTOS):
        path, size = folder / f"face {index:02}.png", (200 + 10 * (index % 8), 200 + 5 * (index % 5))
        seeds = range(100 + 2 * index, 101 + 2 * index + index % 2)
        save_png(path, np.hstack([draw_synthetic_photo(seed, size)[0] for seed in seeds]))
        out = folder / f"expected {index:02}"
        out.mkdir()
        result = service.predict_photo(path, service.models[0], out)
        if result.json is None or result.drawing is None:
            photos.append(Photo(path.name, path.read_bytes(), result.message))
            continue
        landmarks, drawing = json.loads(result.json.read_text()), result.drawing.read_bytes()
        photos.append(
            Photo(
                path.name, path.read_bytes(), result.message, landmarks, hashlib.sha256(drawing).hexdigest()
            )
        )
    notes = folder / "notes.jpg"
    notes.write_text("these are notes\n" * 20)
    try:
        service.predict_photo(notes, service.models[0], folder)
    except UserError as error:
        photos.append(Photo(notes.name, notes.read_bytes(), str(error)))
    return photos


class Client:
    """One user after another: opens the page, sends photos, checks the answers, closes the page.

    Parameters
    ----------
    http
        Connections to the page.
    handler
        Number of the event handler for photos.
    model
        Name of the model on the page.
    photos
        The photos; the last is not an image.
    tally
        Where to count.
    seed
        Seed of the order of the photos and of the pauses.
    """

    def __init__(
        self, http: httpx.AsyncClient, handler: int, model: str, photos: list[Photo], tally: Tally, seed: int
    ) -> None:
        self.http = http
        self.handler = handler
        self.model = model
        self.photos = photos
        self.tally = tally
        self.random = random.Random(seed)

    async def run(self, end: float) -> None:
        """Send photos until a time of `time.monotonic`."""
        await asyncio.sleep(self.random.uniform(0, THINK_SECONDS[1]))
        while time.monotonic() < end:
            try:
                async with self._session() as session:
                    for _ in range(PHOTOS_PER_SESSION):
                        await self._request(session, end)
                        if time.monotonic() >= end:
                            break
            except httpx.HTTPError as error:
                self._problem("failed", repr(error))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[str]:
        """Open the page, and keep its connection open as a browser does."""
        session = f"{self.random.getrandbits(64):x}"
        (await self.http.get("/")).raise_for_status()
        async with self.http.stream("GET", f"/gradio_api/heartbeat/{session}"):
            self.tally.counts["sessions"] += 1
            yield session

    async def _request(self, session: str, end: float) -> None:
        """Send one photo, and check the answer."""
        odd = self.random.randrange(ODD_REQUESTS)
        if odd == 0:
            photo, path = Photo("", b"", NOT_THERE), str(Path(__file__).resolve())
        else:
            photo = self.photos[-1] if odd == 1 else self.random.choice(self.photos[:-1])
            answer = await self.http.post("/gradio_api/upload", files={"files": (photo.name, photo.content)})
            if answer.status_code != 200:
                self._problem("failed", f"upload: {answer.status_code} {answer.text[:100]}")
                return
            path = answer.json()[0]
        start = time.monotonic()
        body = {"data": [{"path": path}, self.model], "fn_index": self.handler, "session_hash": session}
        while True:
            answer = await self.http.post("/gradio_api/queue/join", json=body)
            if answer.status_code != 503 or "the page is busy" not in answer.text:
                break
            self.tally.counts["refused"] += 1
            await self._pause()
            if time.monotonic() >= end:
                return
            start = time.monotonic()
        if answer.status_code != 200:
            self._problem("failed", f"join: {answer.status_code} {answer.text[:100]}")
            return
        output = await self._output(session)
        self.tally.latencies.append(time.monotonic() - start)
        await self._check(photo, output)
        await self._pause()

    async def _output(self, session: str) -> list[Any]:
        """Return the output of the event handler."""
        address = f"/gradio_api/queue/data?session_hash={session}"
        async with self.http.stream("GET", address) as answer:
            async for line in answer.aiter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    output: list[Any] = message.get("output", {}).get("data") or []
                    return output
        return []

    async def _check(self, photo: Photo, output: list[Any]) -> None:
        """Compare an answer with the expected one."""
        if not output or photo.message not in str(output[0]):
            self._problem("wrong", f"{photo.name}: {str(output)[:200]}")
            return
        if photo.landmarks is not None:
            # the note, the column of results, the drawing, and the drawing, CSV and JSON for download
            drawn, found = [await self.http.get(output[index]["url"]) for index in (2, 5)]
            same_drawing = hashlib.sha256(drawn.content).hexdigest() == photo.drawing
            if not same_drawing or not nearly_equal(found.json(), photo.landmarks):
                self._problem("wrong", f"{photo.name}: other landmarks or drawing")
                return
        self.tally.counts["answered"] += 1

    def _problem(self, kind: str, text: str) -> None:
        self.tally.counts[kind] += 1
        self.tally.problems.append(f"{kind}: {text}")

    async def _pause(self) -> None:
        await asyncio.sleep(self.random.uniform(*THINK_SECONDS))


def nearly_equal(found: Any, expected: Any) -> bool:
    """Return whether two landmark files are equal except for the last digit of their numbers."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(nearly_equal(found[k], expected[k]) for k in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(nearly_equal, found, expected))
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return abs(found - expected) <= TOLERANCE
    return bool(found == expected)


async def run_clients(address: str, clients: int, seconds: float, photos: list[Photo]) -> Tally:
    """Let the clients use the page at the same time for the given time."""
    tally = Tally()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    # httpx would send requests of this machine to a proxy that the environment names
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=limits, trust_env=False) as http:
        config = (await http.get("/config")).json()
        handler = next(entry["id"] for entry in config["dependencies"] if entry["api_name"] == "predict")
        model = next(entry for entry in config["components"] if entry["type"] == "dropdown")["props"]["value"]
        end = time.monotonic() + seconds
        users = [Client(http, handler, model, photos, tally, seed) for seed in range(clients)]
        await asyncio.gather(*(user.run(end) for user in users))
    return tally


def memory_and_files(server: psutil.Process, folder: Path) -> list[float]:
    """Return the MiB of the server and of its workers, and the number and MiB of the files of the page."""
    workers = [0.0]
    for child in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            workers.append(child.memory_info().rss / 2**20)
    sizes = []
    for parent, _, names in os.walk(folder):
        if FILES_NAME in Path(parent).parts and not parent.endswith(EXAMPLES):
            for name in names:
                with suppress(FileNotFoundError):
                    sizes.append(os.path.getsize(os.path.join(parent, name)) / 2**20)
    return [server.memory_info().rss / 2**20, sum(workers), len(sizes), sum(sizes)]


async def sample(server: psutil.Process, folder: Path, samples: list[list[float]]) -> None:
    """Append the seconds, memory and files to `samples`, until it is canceled."""
    start = time.monotonic()
    while True:
        samples.append([time.monotonic() - start, *memory_and_files(server, folder)])
        await asyncio.sleep(SAMPLE_SECONDS)


async def measure(
    server: psutil.Process, address: str, folder: Path, clients: int, seconds: float, photos: list[Photo]
) -> Results:
    """Return the counts, the latencies, and the memory and files during and after the load."""
    samples: list[list[float]] = []
    sampling = asyncio.create_task(sample(server, folder, samples))
    tally = await run_clients(address, clients, seconds, photos)
    closed = time.monotonic()
    while memory_and_files(server, folder)[2] and time.monotonic() < closed + LEFTOVER_SECONDS:
        await asyncio.sleep(1)
    deletion = time.monotonic() - closed
    samples.append([samples[-1][0] + SAMPLE_SECONDS, *memory_and_files(server, folder)])
    sampling.cancel()
    for problem in tally.problems[:20]:
        print(problem)
    quantiles = np.quantile(tally.latencies or [np.nan], (0.5, 0.95, 1.0))
    return {
        "counts": dict(tally.counts),
        "latency": dict(zip(("median", "95 %", "maximum"), quantiles.round(2).tolist(), strict=True)),
        "samples": [[round(value, 1) for value in values] for values in samples],
        "leftover files": int(samples[-1][3]),
        "seconds until deletion": round(deletion),
    }


def measure_page(model: str, detector: str, clients: int, seconds: float) -> Results:
    """Start the page, measure it, and stop it with SIGTERM."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "page")
        folder.mkdir()
        photos = make_photos(Path(work), model, detector)
        with listen(HOST, 0) as listener:
            port = listener.getsockname()[1]
        options = ["--model", model, "--detector", detector, "--port", str(port), "--no-browser"]
        process = subprocess.Popen(
            [sys.executable, "-m", "landmarks_fastai", "web", *options],
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(folder)},
            text=True,
        )
        try:
            assert process.stdout is not None
            while not (line := process.stdout.readline()).startswith("http"):
                assert line, "the page does not start"
            address = line.split()[0]
            results = asyncio.run(
                measure(psutil.Process(process.pid), address, folder, clients, seconds, photos)
            )
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        results["exit code"] = code
        results["files after the end"] = sum(path.is_file() for path in folder.rglob("*"))
    return results


def render(results: Results) -> str:
    """Return the page."""
    setting, counts, latency = results["setting"], results["counts"], results["latency"]
    samples = np.array(results["samples"])
    during = samples[samples[:, 0] <= setting["seconds"]]
    marks = np.linspace(0, len(during) - 1, 6).round().astype(int)
    rows = [
        [f"{t:.0f}", f"{main:.0f}", f"{workers:.0f}", f"{files:.0f}", f"{size:.0f}"]
        for t, main, workers, files, size in [*during[marks].tolist(), samples[-1].tolist()]
    ]
    total = counts.get("answered", 0) + counts.get("wrong", 0)
    return markdown_page(
        "The web page with many clients at once",
        f"`python benchmarks/web_load.py --clients {setting['clients']} --seconds {setting['seconds']:g}`:"
        f" {setting['clients']} clients at once for {setting['seconds']:g} s, in sessions of"
        f" {PHOTOS_PER_SESSION} synthetic photos, with pauses of {THINK_SECONDS[0]} to {THINK_SECONDS[1]} s."
        f" {setting['machine']}, {setting['cores']} cores shared with other work (load average"
        f" {setting['load before']:.1f} before and {setting['load after']:.1f} at the end), clients on the"
        f" same machine; model {setting['model']}, detector {setting['detector']}. Each answer is compared"
        f" with that of the predictor for the same photo: message, landmarks within {TOLERANCE} and drawing"
        f" byte for byte. One of {ODD_REQUESTS} requests uploads a text file, and one names a file of the"
        " server; the expected answer is then the error.",
        markdown_table(
            ["", "count"],
            [
                ["sessions", f"{counts.get('sessions', 0):,}"],
                ["answers", f"{total:,}"],
                ["**wrong answers**", f"**{counts.get('wrong', 0)}**"],
                ["failed requests", f"{counts.get('failed', 0)}"],
                [
                    f"refused because {setting['queue']} requests were waiting, and repeated later",
                    f"{counts.get('refused', 0):,}",
                ],
                [
                    f"**files left {LEFTOVER_SECONDS:.0f} s after the last session**",
                    f"**{results['leftover files']}**",
                ],
                [
                    "files after SIGTERM in the folder for temporary files: `.ses`, of a library",
                    f"{results['files after the end']}",
                ],
            ],
        ),
        f"Time from an accepted request to its answer: median {latency['median']:.1f} s, 95 %"
        f" {latency['95 %']:.1f} s, maximum {latency['maximum']:.1f} s;"
        f" {total / setting['seconds']:.1f} answers per second.",
        "Memory (resident) and files over time; the last row is after the end of the sessions:",
        markdown_table(["seconds", "server, MiB", "worker, MiB", "files", "files, MiB"], rows),
    )


FILES = ResultFiles("web_load", render)


def main() -> None:
    """Measure the page, and write the results."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--model", default="resnet18", help="model file, run folder or released model")
    parser.add_argument("--detector", default="auto")
    options, files = parser.parse()
    load = os.getloadavg()[0]
    results = measure_page(options.model, options.detector, options.clients, options.seconds)
    results["setting"] = {
        "machine": describe_machine(),
        "cores": os.cpu_count(),
        "load before": round(load, 1),
        "load after": round(os.getloadavg()[0], 1),
        "clients": options.clients,
        "seconds": options.seconds,
        "model": options.model,
        "detector": options.detector,
        "queue": Limits().queue,
    }
    files.write(results)


if __name__ == "__main__":
    main()
