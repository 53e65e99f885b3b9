"""Checking HDF5 files in another process."""

from __future__ import annotations

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import hdf5_check
from landmarks_fastai.utils.hdf5_check import check_hdf5

h5py = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path):
    """Return the path of an HDF5 file with an attribute, a data set, and a data set of images."""
    path = tmp_path / "labels.slp"
    with h5py.File(path, "w") as file:
        file.attrs["a"] = 1
        file["group/points"] = [1.0, 2.0]
        file["video0/video"] = [1, 2, 3]
    return path


def test_check_accepts_readable_file_and_leaves_other_errors_to_the_reader(path):
    check_hdf5(path)
    path.write_bytes(b"not HDF5")
    check_hdf5(path)


@pytest.mark.parametrize("place", ["item[()]", "dict(item.attrs)", "file.visititems(read)"])
def test_crash_of_the_probe_is_refused(path, place, monkeypatch):
    program = hdf5_check.PROBE.replace(place, f"(__import__('os').abort(), {place})")
    monkeypatch.setattr(hdf5_check, "PROBE", program)
    with pytest.raises(UserError, match=r"labels\.slp: damaged: the HDF5 library crashes"):
        check_hdf5(path)


def test_file_that_uses_up_the_cpu_time_is_refused(path, monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setattr(hdf5_check, "PROBE", hdf5_check.PROBE.replace("item[()]", "any(iter(int, 1))"))
    monkeypatch.setattr(hdf5_check, "CPU_SECONDS", 1)
    with pytest.raises(UserError, match="reading it does not end"):
        check_hdf5(path)


def test_file_that_waits_is_refused(path, monkeypatch):
    monkeypatch.setattr(hdf5_check, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(hdf5_check, "WAIT_FACTOR", 0.1)
    with pytest.raises(UserError, match="reading it does not end"):
        check_hdf5(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        check_hdf5(tmp_path / "none.slp")


def test_embedded_images_are_not_read(path, monkeypatch):
    program = hdf5_check.PROBE.replace("item[()]", "'video' in name and __import__('os').abort()")
    monkeypatch.setattr(hdf5_check, "PROBE", program)
    check_hdf5(path)
