"""The manifest: complete, byte-stable apart from timings, and without anything that names a person or a machine."""

import datetime
import getpass
import hashlib
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.publish.manifest import describe_machine, hash_files, installed_versions, manifest, write_json_atomic

PARTS = {
    "versions": {"python": "3.13.1", "numpy": "2.5.0"},
    "seed": 7,
    "settings": {"data": {"file": "pupils.parquet"}, "contexts": ["prior", "cva"]},
    "input_hash": "ab" * 32,
    "convergence": {"cva": {"converged": True, "iterations": 9}},
}


def test_only_execution_changes_with_the_clock(tmp_path):
    first = manifest(**PARTS, timings={"fit": 1.0}, machine={"processors": 2})
    second = manifest(**PARTS, timings={"fit": 2.0}, machine={"processors": 64})
    assert first["run"] == second["run"]
    assert first["execution"] != second["execution"]
    for name, record in (("a", first), ("b", second)):
        write_json_atomic(tmp_path / name, record["run"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/ann/study/pupils.parquet", "pupils.parquet"),
        (Path("/home/ann/pupils.parquet"), "pupils.parquet"),
        (r"C:\Users\ann\pupils.parquet", "pupils.parquet"),
        (r"\\server\share\ann\pupils.parquet", "pupils.parquet"),
        ("~ann/pupils.parquet", "pupils.parquet"),
        ("postgres://ann:secret@server/records", "postgres://records"),
        ("data/pupils.parquet", "data/pupils.parquet"),
        ("Attainment 8 points / pupil", "Attainment 8 points / pupil"),
    ],
)
def test_no_path_or_address_of_a_machine(value, kept):
    record = manifest(**PARTS | {"settings": {"data": {"file": value}}}, timings={})
    assert record["run"]["settings"]["data"]["file"] == kept


def test_machine_and_versions_name_nobody():
    text = json.dumps([describe_machine(), installed_versions()])
    assert socket.gethostname() not in text.replace("Linux", "")
    assert f'"{getpass.getuser()}"' not in text
    assert str(Path.home()) not in text


def test_versions_are_those_installed():
    versions = installed_versions()
    assert versions["numpy"] == np.__version__
    assert {"python", "send-va", "pandas", "scipy", "matplotlib"} <= set(versions)
    with pytest.raises(InputError, match=r"no-such-package is not installed\. Install it"):
        installed_versions("no-such-package")


def test_numpy_dates_and_missing_numbers_become_json(tmp_path):
    settings = {
        "count": np.int64(3), "share": np.float64(0.5), "unknown": float("nan"), "flag": np.bool_(True),
        "day": datetime.date(2026, 1, 2), "names": {"b", "a"},
    }  # fmt: skip
    write_json_atomic(tmp_path / "manifest.json", manifest(**PARTS | {"settings": settings}, timings={}))
    assert json.loads((tmp_path / "manifest.json").read_text())["run"]["settings"] == {
        "count": 3, "share": 0.5, "unknown": None, "flag": True, "day": "2026-01-02", "names": ["a", "b"],
    }  # fmt: skip


def test_what_json_cannot_hold_is_named_and_nothing_is_written(tmp_path):
    (tmp_path / "manifest.json").write_text("old")
    with pytest.raises(InputError, match=r"fits\.cva\[1\] is a object, which JSON cannot hold"):
        write_json_atomic(tmp_path / "manifest.json", {"fits": {"cva": [1, object()]}})
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == "old"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("old")

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json_atomic(tmp_path / "manifest.json", {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == "old"


def test_hash_sees_contents_and_order_not_names(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in "abc")
    assert hash_files([a, b]) == hash_files([c, b]) != hash_files([b, a])
    # FIPS 180-4 test vector for "abc", hashed once a file and once over the files.
    (tmp_path / "abc").write_text("abc")
    inner = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert hash_files([tmp_path / "abc"]) == hashlib.sha256(inner).hexdigest()
    with pytest.raises(FileNotFoundError):
        hash_files([tmp_path / "absent"])
