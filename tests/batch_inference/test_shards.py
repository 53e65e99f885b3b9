"""Reading archives: names, damage, and content that is meant to do harm."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pytest

from landmarks_fastai.batch_inference import shards
from landmarks_fastai.batch_inference.shards import DamagedArchiveError, Shard, read_shard
from landmarks_fastai.batch_inference.sources import divide
from landmarks_fastai.errors import UserError

MEMBERS = {"0.jpg": b"zero", "0.json": b"{}", "../up/1.png": b"one", "/abs/2.JPG": b"two", "._3.jpg": b"mac"}
IMAGES = [("0.jpg", b"zero"), ("../up/1.png", b"one"), ("/abs/2.JPG", b"two")]


def write_tar(path: Path, members: dict[str, bytes] = MEMBERS, mode: str = "w") -> str:
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def write_zip(path: Path, members: dict[str, bytes] = MEMBERS) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


def loaded(location: str, size: int = 100) -> list[tuple[str, bytes] | None]:
    """Return the name and content of the images of an archive; None for other members."""
    return [
        entry and (entry.name, entry.load())
        for shard in divide([location], size)
        for entry in read_shard(shard)
    ]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.txz", "w:xz")])
def test_tar_gives_images_in_order_and_writes_no_file(tmp_path: Path, name: str, mode: str) -> None:
    location = write_tar(tmp_path / name, mode=mode)
    found = loaded(location)
    assert [one for one in found if one] == [(f"{location}/{name}", data) for name, data in IMAGES]
    assert found.count(None) == 2
    assert list(tmp_path.parent.glob("up")) == []
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_zip_gives_every_image_once_whatever_the_size_of_shards(tmp_path: Path, size: int) -> None:
    location = write_zip(tmp_path / "a.zip")
    found = loaded(location, size)
    assert [one for one in found if one] == [(f"{location}/{name}", data) for name, data in IMAGES]
    assert found.count(None) == 2


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_remote_archive_is_read(memory_url: str, tmp_path: Path, name: str) -> None:
    write = write_tar if name == "a.tar" else write_zip
    fs, path = fsspec.url_to_fs(f"{memory_url}/{name}")
    fs.pipe_file(path, Path(write(tmp_path / name)).read_bytes())
    found = [one for one in loaded(f"{memory_url}/{name}") if one]
    assert found == [(f"{memory_url}/{name}/{image}", data) for image, data in IMAGES]


def test_links_in_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("link.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert loaded(str(tmp_path / "a.tar")) == [None] * 3


def test_truncated_tar_gives_images_before_the_damage(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "a.tar", {"0.jpg": b"zero", "1.jpg": bytes(100_000)}))
    path.write_bytes(path.read_bytes()[:20_000])
    entries = read_shard(Shard("tar", archive=str(path)))
    first = next(entries)
    assert first is not None
    assert first.load() == b"zero"
    with pytest.raises(DamagedArchiveError, match=r"a\.tar: damaged or truncated \(.*\); copy it again"):
        list(entries)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_file_that_is_no_archive_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive" * 200)
    with pytest.raises(DamagedArchiveError, match="damaged or truncated"):
        loaded(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_missing_archive_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"no such file$"):
        loaded(str(tmp_path / name))


def test_large_members_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_FILE", 10)
    for location in (
        write_tar(tmp_path / "a.tar", {"0.jpg": bytes(11), "1.jpg": b"one"}),
        write_zip(tmp_path / "a.zip", {"0.jpg": bytes(11), "1.jpg": b"one"}),
    ):
        (shard,) = divide([location], 10)
        large, small = read_shard(shard)
        assert small.load() == b"one"
        with pytest.raises(UserError, match=r"0\.jpg: more than"):
            large.load()


def test_zip_member_that_is_larger_than_declared_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_FILE", 1000)
    path = Path(write_zip(tmp_path / "a.zip", {"0.jpg": bytes(100_000)}))
    path.write_bytes(path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    (shard,) = divide([str(path)], 10)
    (entry,) = read_shard(shard)
    with pytest.raises(UserError, match=r"0\.jpg: (damaged in the archive|more than)"):
        entry.load()


def test_zip_with_undecodable_name_is_reported(tmp_path: Path) -> None:
    path = Path(write_zip(tmp_path / "a.zip", {"é.jpg": b"zero"}))
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(DamagedArchiveError, match=r"a\.zip: damaged or truncated \('utf-8' codec"):
        loaded(str(path))


def test_damaged_member_of_zip_does_not_affect_others(tmp_path: Path) -> None:
    path = Path(write_zip(tmp_path / "a.zip", {"0.jpg": bytes(range(200)), "1.jpg": b"one"}))
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)
    (shard,) = divide([str(path)], 10)
    damaged, intact = read_shard(shard)
    assert intact.load() == b"one"
    with pytest.raises(UserError, match=r"0\.jpg: damaged in the archive"):
        damaged.load()


def test_encrypted_member_of_zip_is_reported(tmp_path: Path) -> None:
    path = Path(write_zip(tmp_path / "a.zip", {"0.jpg": b"zero"}))
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    (shard,) = divide([str(path)], 10)
    (entry,) = read_shard(shard)
    with pytest.raises(UserError, match=r"0\.jpg: cannot be read \(.*password required"):
        entry.load()


def test_tar_with_huge_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_HEADER", 1000)
    location = write_tar(tmp_path / "a.tar", {f"{'x' * 5000}.jpg": b""})
    with pytest.raises(DamagedArchiveError, match="a header of 5,0"):
        loaded(location)


def test_tar_of_endless_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_UNREAD", 1000)
    location = write_tar(tmp_path / "a.tgz", {"a.bin": bytes(600), "b.bin": bytes(600)}, "w:gz")
    with pytest.raises(DamagedArchiveError, match="no images"):
        loaded(location)
