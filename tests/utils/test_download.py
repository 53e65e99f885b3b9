"""Downloads from a local server that breaks connections, responds with errors and ignores ranges."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.small_disk import small_disk

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.utils.download import download, git_blob_sha1

BODY = bytes(range(256)) * 4096  # 1 MiB
BLOB = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
HALF = len(BODY) // 2


class Server(ThreadingHTTPServer):
    """Serves BODY. `plan` is the list of faults of the next requests, `ranges` records Range headers."""

    daemon_threads = True
    plan: list[str]
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        requested = self.headers.get("Range")
        self.server.ranges.append(requested)
        fault = self.server.plan.pop(0) if self.server.plan else ""
        if fault.isdigit():
            return self.send_error(int(fault))
        whole = requested is None or fault == "ignore range"
        start = 0 if whole else int(requested.removeprefix("bytes=").rstrip("-"))
        if start >= len(BODY):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(BODY)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if fault == "other range":
            start = 7
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        self.wfile.write(BODY[start : max(start, HALF)] if fault == "break" else BODY[start:])
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(*plan: str) -> Iterator[tuple[str, list[str | None]]]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.plan, server.ranges = list(plan), []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/faces.zip", server.ranges
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "faces.zip"


def partial(target: Path) -> Path:
    return target.with_name("faces.zip.part")


def no_sleep(seconds: float) -> None:
    raise AssertionError(f"slept {seconds} s")


def test_git_blob_sha1_equals_git_hash_object(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert git_blob_sha1(path) == "ce013625030ba8dba906f756967f9e9ca394464a"  # from `git hash-object`


def test_download_reports_progress_and_is_not_repeated(target):
    calls: list[tuple[int, int | None]] = []
    with serving() as (url, ranges):
        assert download(url, target, BLOB, lambda *progress: calls.append(progress), sleep=no_sleep) == target
        download(url, target, BLOB, sleep=no_sleep)
    assert ranges == [None]
    assert target.read_bytes() == BODY
    assert calls[0] == (0, len(BODY))
    assert calls[-1] == (len(BODY), len(BODY))
    assert calls == sorted(calls)
    assert not partial(target).exists()


class Announced:
    """A progress callback that collects announcements."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, done: int, total: int | None, unit: str = "bytes") -> None:
        pass

    def announce(self, text: str) -> None:
        self.texts.append(text)


def test_download_announces_what_from_where_and_how_large(target):
    shown = Announced()
    with serving("break") as (url, _):
        download(url, target, BLOB, shown, about="all faces", sleep=lambda seconds: None)
        download(url, target, BLOB, shown, about="all faces", sleep=no_sleep)  # already there
    what = f"all faces (1.0 MB) from {url}"
    assert shown.texts == [f"downloading {what}", f"resuming the download of {what}"]


def test_download_broken_connection_is_resumed(target):
    slept: list[float] = []
    with serving("break") as (url, ranges):
        download(url, target, BLOB, sleep=slept.append)
    assert ranges == [None, f"bytes={HALF}-"]
    assert slept == [1.0]
    assert target.read_bytes() == BODY


def test_download_next_call_resumes_partial_file(target):
    with serving("break") as (url, ranges):
        with pytest.raises(
            RunError, match=r"broke after 524,288 of 1,048,576 bytes; the partial download is kept"
        ) as error:
            download(url, target, BLOB, retries=0, sleep=no_sleep)
        assert "--data path/to/faces.zip" in str(error.value)
        assert not target.exists()
        assert partial(target).read_bytes() == BODY[:HALF]
        download(url, target, BLOB, sleep=no_sleep)
    assert ranges[1] == f"bytes={HALF}-"
    assert target.read_bytes() == BODY


def test_download_server_without_ranges_restarts(target):
    with serving("break", "ignore range") as (url, ranges):
        download(url, target, BLOB, sleep=lambda _: None)
    assert len(ranges) == 2
    assert target.read_bytes() == BODY


def test_download_wrong_range_restarts(target):
    with serving("break", "other range") as (url, ranges):
        download(url, target, BLOB, sleep=lambda _: None)
    assert ranges == [None, f"bytes={HALF}-", None]
    assert target.read_bytes() == BODY


def test_download_complete_partial_file_is_used(target):
    target.parent.mkdir()
    partial(target).write_bytes(BODY)
    with serving() as (url, ranges):
        download(url, target, BLOB, sleep=no_sleep)
    assert ranges == [f"bytes={len(BODY)}-"]  # answered with 416
    assert target.read_bytes() == BODY


def test_download_too_long_partial_file_is_discarded(target):
    target.parent.mkdir()
    partial(target).write_bytes(BODY + b"more")
    with serving() as (url, ranges):
        download(url, target, BLOB, sleep=lambda _: None)
    assert ranges == [f"bytes={len(BODY) + 4}-", None]
    assert target.read_bytes() == BODY


def test_download_server_errors_are_retried_with_increasing_delay(target):
    slept: list[float] = []
    with serving("500", "503", "429") as (url, _):
        download(url, target, BLOB, sleep=slept.append)
    assert slept == [1.0, 2.0, 4.0]
    assert target.read_bytes() == BODY


def test_download_failing_last_retry_raises(target):
    with (
        serving(*["500"] * 3) as (url, ranges),
        pytest.raises(RunError, match=r"responded with 500.*--data path/to/"),
    ):
        download(url, target, BLOB, retries=2, sleep=lambda _: None)
    assert len(ranges) == 3


def test_download_not_found_is_not_retried(target):
    with (
        serving("404") as (url, ranges),
        pytest.raises(RunError, match=r"responded with 404.*--data path/to/faces\.zip"),
    ):
        download(url, target, BLOB, sleep=no_sleep)
    assert len(ranges) == 1
    assert not target.exists()


def test_download_wrong_digest_raises_and_deletes_file(target):
    expected = "0" * 40
    with serving() as (url, _), pytest.raises(UserError, match=f"{BLOB}, not {expected}") as error:
        download(url, target, expected, sleep=no_sleep)
    assert "try again" in str(error.value)
    assert "\n" not in str(error.value)
    assert not target.exists()
    assert not partial(target).exists()


def test_download_replaces_damaged_file(target):
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    with serving() as (url, _):
        download(url, target, BLOB, sleep=no_sleep)
    assert target.read_bytes() == BODY


def test_download_without_connection_raises_one_line_message(target):
    with serving() as (url, _):
        pass  # the server is shut down
    with pytest.raises(
        RunError, match=r"no connection.*use a local file: --data path/to/faces\.zip"
    ) as error:
        download(url, target, BLOB, retries=1, sleep=lambda _: None)
    assert "\n" not in str(error.value)
    assert "is kept" not in str(error.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_download_full_disk_raises_without_retry(target):
    target.parent.mkdir()
    partial(target).symlink_to("/dev/full")
    with (
        serving() as (url, _),
        pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"),
    ):
        download(url, target, BLOB, sleep=no_sleep)


def test_download_to_full_file_system_keeps_the_part_and_other_files(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk, serving() as (url, ranges):
        (disk / "earlier").write_bytes(b"x" * 200_000)
        target = disk / "faces.zip"
        with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); free some space"):
            download(url, target, BLOB, sleep=no_sleep)
        assert not target.exists()
        assert (disk / "earlier").read_bytes() == b"x" * 200_000
        (disk / "earlier").unlink()
        done = partial(target).stat().st_size
        assert download(url, target, BLOB, sleep=no_sleep).read_bytes() == BODY
        assert ranges == [None, f"bytes={done}-"]
        assert sorted(path.name for path in disk.iterdir()) == ["faces.zip", "faces.zip.lock"]


KILLED = """
import sys, time
from pathlib import Path
from landmarks_fastai.utils import download
download.CHUNK = 8192
print("begins", flush=True)
url, target, digest = sys.argv[1:]
download.download(url, Path(target), digest, lambda *_: time.sleep(0.002))
"""


def test_download_killed_at_random_moments_is_resumed(target: Path) -> None:
    rng = random.Random(0)
    kills = 0
    with serving() as (url, ranges):
        while True:
            child = subprocess.Popen(
                [sys.executable, "-c", KILLED, url, str(target), BLOB], stdout=subprocess.PIPE
            )
            assert child.stdout is not None
            child.stdout.readline()
            try:
                assert child.wait(rng.uniform(0, 0.1 + 0.05 * kills)) == 0
                break
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                kills += 1
            finally:
                child.stdout.close()
            assert not target.exists() or target.read_bytes() == BODY
    assert kills > 1
    assert len(set(ranges)) > 1  # at least one request was for the rest
    assert target.read_bytes() == BODY
    assert sorted(path.name for path in target.parent.iterdir()) == ["faces.zip", "faces.zip.lock"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root can write everywhere")
def test_download_read_only_folder_raises(tmp_path):
    tmp_path.chmod(0o500)
    with serving() as (url, ranges), pytest.raises(RunError, match="cannot be written"):
        download(url, tmp_path / "faces.zip", BLOB, sleep=no_sleep)
    assert ranges == []
