"""A run is written whole or not at all, and goes on where it stopped."""

from pathlib import Path

import pytest

from send_va.errors import InputError
from send_va.run_directory import RunDirectory


def write(directory: RunDirectory, name: str, text: str) -> None:
    directory.write(name, lambda path: path.write_text(text))


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    directory = RunDirectory.open(tmp_path / "out", "abc" * 10)
    write(directory, "a.csv", "1")
    assert not (tmp_path / "out" / "private").exists()
    directory.finish()
    assert (tmp_path / "out" / "private" / "a.csv").read_text() == "1"
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["private"]


def test_a_failed_write_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    directory = RunDirectory.open(tmp_path / "out", "abc" * 10)

    def broken(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        directory.write("a.csv", broken)
    assert not directory.has("a.csv")


def test_resume_keeps_stages_of_the_same_run_only(tmp_path: Path) -> None:
    first = RunDirectory.open(tmp_path / "out", "a" * 30)
    write(first, "stage", "done")
    assert RunDirectory.open(tmp_path / "out", "a" * 30, resume=True).has("stage")
    assert not RunDirectory.open(tmp_path / "out", "b" * 30, resume=True).has("stage")
    write(RunDirectory.open(tmp_path / "out", "a" * 30), "stage", "done")
    assert not RunDirectory.open(tmp_path / "out", "a" * 30).has("stage")


def test_an_earlier_run_is_replaced_and_other_things_are_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for text in ("1", "2"):
        directory = RunDirectory.open(out, text * 30)
        write(directory, "manifest.json", text)
        directory.finish()
    assert (out / "private" / "manifest.json").read_text() == "2"
    (out / "thesis.docx").write_text("mine")
    with pytest.raises(InputError, match=r"not a run: thesis\.docx"):
        RunDirectory.open(out, "3" * 30)
    with pytest.raises(InputError, match="is a file"):
        RunDirectory.open(out / "thesis.docx", "3" * 30)
