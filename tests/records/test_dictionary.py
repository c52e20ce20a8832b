"""The data dictionary in the repository is the one the schema generates."""

from pathlib import Path

import pytest

from send_va.records import dictionary
from send_va.records.fields import field_definitions

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_in_the_repository_is_not_stale() -> None:
    written = (ROOT / "data_dictionary.md").read_text(encoding="utf-8")
    assert written == dictionary.data_dictionary(), "run: python -m send_va.records.dictionary data_dictionary.md"


def test_every_field_has_one_row() -> None:
    lines = dictionary.data_dictionary().splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == list(field_definitions())
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_autumn_status_is_ruled_out() -> None:
    assert "Autumn Year 7 status is the new school's" in dictionary.data_dictionary()


def test_it_is_written_or_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dictionary.main([str(tmp_path / "out.md")])
    dictionary.main([])
    assert (tmp_path / "out.md").read_text(encoding="utf-8") == capsys.readouterr().out
