"""The files of the page: which ones a session may open, and when they are deleted."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.errors import UserError
from landmarks_fastai.web.limits import Limits
from landmarks_fastai.web.uploads import EXAMPLES, NOT_THERE, Uploads, safe_name

LIMITS = Limits(storage_megabytes=1, keep_seconds=100, grace_seconds=10)


class Clock:
    """A clock that stands still until a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(tmp_path: Path, clock: Clock) -> Uploads:
    root = tmp_path / "root"
    root.mkdir()
    return Uploads(root, LIMITS, clock)


def save(uploads: Uploads, name: str = "a.png", content: bytes = b"content") -> str:
    return uploads.save(io.BytesIO(content), name)


def test_find_returns_the_upload_and_its_reference(uploads: Uploads) -> None:
    name = save(uploads, "café 1.png")
    path = uploads.find({"path": name, "url": "http://elsewhere.example"}, "me")
    assert (path.name, path.read_bytes()) == ("café 1.png", b"content")
    assert uploads.reference(path) == {
        "path": name,
        "url": f"/gradio_api/file={name.split('/')[0]}/caf%C3%A9%201.png",
        "orig_name": "café 1.png",
    }


def hostile_paths(uploads: Uploads, tmp_path: Path) -> Iterator[object]:
    """Yield what a client may send to make the page open another file."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    token = save(uploads).split("/")[0]
    folder = uploads.root / token
    (folder / "link").symlink_to(secret)
    (uploads.root / "folder-link").symlink_to(tmp_path)
    (uploads.root / "loose.png").write_bytes(b"not in a folder")
    os.mkfifo(folder / "pipe")
    yield from (
        str(secret),
        "/etc/passwd",
        "/nowhere",
        "",
        ".",
        "..",
        "a",
        "/",
        f"{token}",
        f"{token}/",
        f"{token}/.",
    )
    yield from (f"{token}/link", f"{token}/pipe", f"{token}/none", "folder-link/secret.png", "loose.png")
    yield from (
        f"{token}/../../secret.png",
        f"{EXAMPLES}/../../secret.png",
        f"../{secret.name}",
        "./loose.png",
    )
    yield from (
        f"{token}/{secret}",
        f"{token}//{secret}",
        f"{token}/a.png\0",
        f"{token}/{'x' * 5000}",
        "x" * 10**5,
    )
    yield from (
        "http://127.0.0.1:1/a.png",
        "file:///etc/passwd",
        f"{EXAMPLES}/",
        3,
        None,
        True,
        [f"{token}/a.png"],
    )


def test_find_refuses_all_other_files_with_one_message(uploads: Uploads, tmp_path: Path) -> None:
    for path in hostile_paths(uploads, tmp_path):
        for upload in ({"path": path}, path, {"url": path}):
            with pytest.raises(UserError) as caught:
                uploads.find(upload, "me")
            assert str(caught.value) == NOT_THERE


def test_upload_belongs_to_the_first_session_that_uses_it(uploads: Uploads) -> None:
    upload = {"path": save(uploads)}
    assert uploads.find(upload) == uploads.find(upload, "me")
    with pytest.raises(UserError, match=NOT_THERE):
        uploads.find(upload, "another")
    assert uploads.find(upload, "me")


def test_examples_belong_to_all_sessions_and_are_kept(uploads: Uploads, clock: Clock) -> None:
    (uploads.examples / "a.png").write_bytes(b"x")
    for session in ("me", "another"):
        with uploads.connected(session):
            assert uploads.find({"path": "examples/a.png"}, session).read_bytes() == b"x"
    clock.now += 10_000
    uploads.sweep()
    assert uploads.find({"path": "examples/a.png"}, "me")


def test_files_of_a_closed_session_are_deleted_after_the_grace_time(uploads: Uploads, clock: Clock) -> None:
    upload = {"path": save(uploads)}
    with uploads.connected("me"):
        uploads.find(upload, "me")
        with uploads.results("me", "photo") as out, uploads.connected("me"):
            (out / "drawing.png").write_bytes(b"x")
        clock.now += 50
        uploads.sweep()
        assert uploads.find(upload, "me")
    clock.now += 9
    uploads.sweep()
    with uploads.connected("me"):  # a short loss of the connection
        clock.now += 9
        uploads.sweep()
        assert uploads.find(upload, "me")
        assert out.is_dir()
    clock.now += 10
    uploads.sweep()
    assert list(uploads.root.iterdir()) == [uploads.examples]


def test_files_that_no_page_uses_are_deleted_after_their_limit(uploads: Uploads, clock: Clock) -> None:
    used = {"path": save(uploads)}
    with uploads.connected("me"):
        uploads.claim(used["path"], "me")
        save(uploads)
        with uploads.results("closed", "photo") as out:  # a prediction that ended after its page was closed
            (out / "drawing.png").write_bytes(b"x")
        for seconds, folders in ((59, 3), (1, 1), (39, 1), (1, 0)):
            clock.now += seconds
            uploads.sweep()
            assert len(list(uploads.root.iterdir())) == 1 + folders
    with pytest.raises(UserError, match=NOT_THERE):
        uploads.find(used, "me")


def test_claimed_upload_is_not_opened_for_another_session(uploads: Uploads) -> None:
    name = save(uploads)
    for session in ("me", "another"):
        uploads.claim(name, session)
    uploads.claim("nowhere", "me")
    with pytest.raises(UserError, match=NOT_THERE):
        uploads.find({"path": name}, "another")
    assert uploads.find({"path": name}, "me")


def test_new_result_replaces_the_previous_one_of_the_tab(uploads: Uploads) -> None:
    for session, tab in (("me", "photo"), ("me", "video"), ("another", "photo"), ("me", "photo")):
        with uploads.results(session, tab) as out:
            (out / "a.csv").write_bytes(b"x")
    assert len(list(uploads.root.iterdir())) == 1 + 3
    with pytest.raises(ZeroDivisionError), uploads.results("me", "photo"):
        raise ZeroDivisionError
    assert len(list(uploads.root.iterdir())) == 1 + 2


def test_storage_is_limited(uploads: Uploads, clock: Clock) -> None:
    save(uploads, content=bytes(2**19))
    with uploads.reserve(2**19):
        message = r"^the storage of the page is full; try again in a few minutes$"
        with pytest.raises(UserError, match=message), uploads.reserve(1):
            pass
    with uploads.reserve(2**19):
        pass
    with uploads.results("me", "photo") as out:
        (out / "drawing.png").write_bytes(bytes(2**19 + 1))
    with pytest.raises(UserError, match="storage of the page is full"), uploads.results("me", "video"):
        pass
    clock.now += 100
    uploads.sweep()
    with uploads.reserve(2**20):
        pass


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("café 1.png", "café 1.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.png", "a.png"),
        (".hidden", "hidden"),
        ("..", "file"),
        ("", "file"),
        ('a"<b>\n.png', "a__b__.png"),
    ],
)
def test_safe_name_keeps_letters_and_suffix(name: str, expected: str) -> None:
    assert safe_name(name) == expected


@given(st.text(max_size=400))
def test_safe_name_is_a_name_in_its_folder_with_room_for_a_suffix(name: str) -> None:
    safe = safe_name(name)
    assert Path(safe).name == safe
    assert not safe.startswith(".")
    assert 0 < len(f"{safe}_landmarks".encode()) <= 255
