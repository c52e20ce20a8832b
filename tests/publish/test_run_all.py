"""Analyses are run again when something they depend on changed, and only then."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_specification = importlib.util.spec_from_file_location("run_all", ROOT / "analyses" / "run_all.py")
run_all = importlib.util.module_from_spec(_specification)
__import__("sys").modules["run_all"] = run_all
_specification.loader.exec_module(run_all)


@pytest.fixture
def places(tmp_path):
    found = run_all.Places(*(tmp_path / name for name in ("analyses", "analyses/results", "package", "data")))
    for folder in (found.analyses, found.package, found.data):
        folder.mkdir()
    (found.package / "model.py").write_text("x = 1\n")
    (found.data / "records.csv").write_text("a\n1\n")
    for number in ("01", "02"):
        (found.analyses / f"{number}_study.py").write_text(
            "from pathlib import Path\n"
            f"out = Path('analyses/results/study_{number}.json')\n"
            "out.write_text('{\"n\": 1}')\n"
            f"with Path('log.txt').open('a') as log: log.write('{number} ')\n"
        )
    return found


def log(places) -> str:
    return (places.analyses.parent / "log.txt").read_text()


def test_runs_in_order_and_then_only_what_changed(places, capsys):
    assert run_all.run_all(places) == 0
    assert log(places) == "01 02 "
    assert run_all.run_all(places) == 0
    assert log(places) == "01 02 "
    assert capsys.readouterr().out.count("unchanged") == 2
    script = places.analyses / "02_study.py"
    script.write_text(script.read_text() + "# changed\n")
    assert run_all.run_all(places) == 0
    assert log(places) == "01 02 02 "


@pytest.mark.parametrize("change", ["package", "data", "shared module", "result altered", "result lost"])
def test_every_kind_of_change_is_seen(places, change):
    run_all.run_all(places)
    {
        "package": lambda: (places.package / "model.py").write_text("x = 2\n"),
        "data": lambda: (places.data / "records.csv").write_text("a\n1\n2\n"),
        "shared module": lambda: (places.analyses / "tables.py").write_text("y = 1\n"),
        "result altered": lambda: (places.results / "study_01.json").write_text("{}"),
        "result lost": lambda: (places.results / "study_01.json").unlink(),
    }[change]()
    run_all.run_all(places, only=["01"])
    assert log(places) == "01 02 01 "
    assert json.loads((places.results / "study_01.json").read_text()) == {"n": 1}


def test_a_failure_is_reported_and_tried_again(places, capsys):
    (places.analyses / "01_study.py").write_text("raise SystemExit(3)\n")
    assert run_all.run_all(places) == 1
    printed = capsys.readouterr().out
    assert "01_study.py: failed with exit code 3" in printed
    assert "02_study.py: done" in printed
    assert run_all.run_all(places, only=["01"]) == 1


def test_force_and_unknown_numbers(places, capsys):
    run_all.run_all(places)
    run_all.run_all(places, only=["02"], force=True)
    assert log(places) == "01 02 02 "
    assert run_all.run_all(places, only=["07"]) == 1
    assert "no such analysis; there are: 01_study.py, 02_study.py" in capsys.readouterr().out
