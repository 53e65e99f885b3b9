"""A download against a server of our own that breaks, refuses and ignores as real ones do."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from landmarks_fastai.data.download import fetch, git_blob
from landmarks_fastai.errors import RunError, UserError

BODY = bytes(range(256)) * 4096  # 1 MiB
BLOB = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
HALF = len(BODY) // 2


class Server(ThreadingHTTPServer):
    """Gives BODY, in the ways that `plan` names, one a request; after them as it should."""

    daemon_threads = True
    plan: list[str]
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        way = self.server.plan.pop(0) if self.server.plan else "well"
        if way.isdigit():
            return self.send_error(int(way))
        start = 0 if wanted is None or way == "no ranges" else int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(BODY):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(BODY)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if way == "other part":
            start = 7
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        self.wfile.write(BODY[start : max(start, HALF)] if way == "break" else BODY[start:])
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(*plan: str) -> Iterator[tuple[str, list[str | None]]]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.plan, server.asked = list(plan), []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/faces.zip", server.asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "faces.zip"


def part(target: Path) -> Path:
    return target.with_name("faces.zip.part")


def no_sleep(seconds: float) -> None:
    raise AssertionError(f"slept {seconds} s")


def test_the_digest_is_git_s_own(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert git_blob(path) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object of the same


def test_a_file_comes_whole_and_is_fetched_once(target):
    told: list[tuple[int, int | None]] = []
    with serving() as (url, asked):
        assert fetch(url, target, BLOB, lambda *now: told.append(now), sleep=no_sleep) == target
        fetch(url, target, BLOB, sleep=no_sleep)
    assert asked == [None]
    assert target.read_bytes() == BODY
    assert told[0] == (0, len(BODY))
    assert told[-1] == (len(BODY), len(BODY))
    assert told == sorted(told)
    assert not part(target).exists()


def test_after_a_break_it_goes_on_where_it_was(target):
    slept: list[float] = []
    with serving("break") as (url, asked):
        fetch(url, target, BLOB, sleep=slept.append)
    assert asked == [None, f"bytes={HALF}-"]
    assert slept == [1.0]
    assert target.read_bytes() == BODY


def test_another_process_goes_on_where_the_first_broke_off(target):
    with serving("break") as (url, asked):
        with pytest.raises(
            RunError, match=r"broke after 524,288 of 1,048,576 bytes; what came is kept"
        ) as told:
            fetch(url, target, BLOB, retries=0, sleep=no_sleep)
        assert "--data path/to/faces.zip" in str(told.value)
        assert not target.exists()
        assert part(target).read_bytes() == BODY[:HALF]
        fetch(url, target, BLOB, sleep=no_sleep)
    assert asked[1] == f"bytes={HALF}-"
    assert target.read_bytes() == BODY


def test_a_server_that_ignores_ranges_is_read_from_the_start(target):
    with serving("break", "no ranges") as (url, asked):
        fetch(url, target, BLOB, sleep=lambda _: None)
    assert len(asked) == 2
    assert target.read_bytes() == BODY


def test_a_server_that_sends_another_part_is_asked_for_the_whole(target):
    with serving("break", "other part") as (url, asked):
        fetch(url, target, BLOB, sleep=lambda _: None)
    assert asked == [None, f"bytes={HALF}-", None]
    assert target.read_bytes() == BODY


def test_a_part_that_is_whole_already_is_taken(target):
    target.parent.mkdir()
    part(target).write_bytes(BODY)
    with serving() as (url, asked):
        fetch(url, target, BLOB, sleep=no_sleep)
    assert asked == [f"bytes={len(BODY)}-"]  # answered by 416
    assert target.read_bytes() == BODY


def test_a_part_that_is_too_long_is_thrown_away(target):
    target.parent.mkdir()
    part(target).write_bytes(BODY + b"more")
    with serving() as (url, asked):
        fetch(url, target, BLOB, sleep=lambda _: None)
    assert asked == [f"bytes={len(BODY) + 4}-", None]
    assert target.read_bytes() == BODY


def test_a_server_in_trouble_is_asked_again_ever_later(target):
    slept: list[float] = []
    with serving("500", "503", "429") as (url, _):
        fetch(url, target, BLOB, sleep=slept.append)
    assert slept == [1.0, 2.0, 4.0]
    assert target.read_bytes() == BODY


def test_patience_ends(target):
    with (
        serving(*["500"] * 3) as (url, asked),
        pytest.raises(RunError, match=r"answers 500.*--data path/to/"),
    ):
        fetch(url, target, BLOB, retries=2, sleep=lambda _: None)
    assert len(asked) == 3


def test_what_is_not_there_is_asked_for_once(target):
    with (
        serving("404") as (url, asked),
        pytest.raises(RunError, match=r"answers 404.*--data path/to/faces\.zip"),
    ):
        fetch(url, target, BLOB, sleep=no_sleep)
    assert len(asked) == 1
    assert not target.exists()


def test_a_wrong_digest_names_both_and_leaves_nothing(target):
    wanted = "0" * 40
    with serving() as (url, _), pytest.raises(UserError, match=f"{BLOB}, not {wanted}") as told:
        fetch(url, target, wanted, sleep=no_sleep)
    assert "try again" in str(told.value)
    assert "\n" not in str(told.value)
    assert not target.exists()
    assert not part(target).exists()


def test_a_damaged_file_is_fetched_anew(target):
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    with serving() as (url, _):
        fetch(url, target, BLOB, sleep=no_sleep)
    assert target.read_bytes() == BODY


def test_without_a_connection_one_line_says_how_to_go_on(target):
    with serving() as (url, _):
        pass  # nobody listens any longer
    with pytest.raises(
        RunError, match=r"no connection.*go on with a local file: --data path/to/faces\.zip"
    ) as told:
        fetch(url, target, BLOB, retries=1, sleep=lambda _: None)
    assert "\n" not in str(told.value)
    assert "is kept" not in str(told.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told_and_not_tried_again(target):
    target.parent.mkdir()
    part(target).symlink_to("/dev/full")
    with (
        serving() as (url, _),
        pytest.raises(RunError, match=r"can't be written \(No space left on device\)"),
    ):
        fetch(url, target, BLOB, sleep=no_sleep)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with serving() as (url, asked), pytest.raises(RunError, match="can't be written"):
        fetch(url, tmp_path / "faces.zip", BLOB, sleep=no_sleep)
    assert asked == []
