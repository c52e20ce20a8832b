"""The command line as a user meets it: exit codes, messages, speed of starting."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.records.simulator import simulate, write_cohort

# What makes a run with every estimator short: see `shorten`.
FEW_DRAWS = """
[identification]
draws = 2
area_sorting_share = [0.0]
label_reliability = [1.0]
"""
ONLY_LABELLED = '[value_added]\nestimators = ["labelled"]'
RUN_QUIETLY = ["run", "study.toml", "--out", "out", "-q"]
HEAVY = {"numpy", "pandas", "ibis", "pandera", "scipy", "matplotlib", "xarray", "pyarrow", "sklearn"}


def send_va(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from send_va.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def shorten(study: Path) -> None:
    """Let a study file ask for one context and few draws."""
    contexts = 'contexts = ["prior", "cva", "composition"]'
    text = study.read_text(encoding="utf-8")
    assert contexts in text
    study.write_text(text.replace(contexts, 'contexts = ["cva"]') + FEW_DRAWS, encoding="utf-8")


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "cohort"
    write_cohort(simulate(np.random.default_rng(2), schools=40), folder)
    return folder


@pytest.mark.parametrize("module", ["send_va", "send_va.cli", "send_va.errors", "send_va.study"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_is_there() -> None:
    import send_va as sv

    for name in sv.__all__:
        assert getattr(sv, name) is not None
    assert set(sv.__all__) <= set(dir(sv))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sv.nonsense  # noqa: B018


def test_help_and_version() -> None:
    assert "simulate" in send_va("--help").stdout
    assert send_va("--version").stdout.startswith("send-va ")


def test_simulate_check_run(tmp_path: Path) -> None:
    made = send_va("simulate", "cohort", "--schools", "30", "--seed", "3", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "synthetic pupils in 30 schools" in made.stdout
    assert "send-va run cohort/study.toml --out cohort-run" in made.stdout
    checked = send_va("check", "cohort/study.toml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "0 failing rule(s)" in checked.stdout
    study = tmp_path / "cohort" / "study.toml"
    shorten(study)
    ran = send_va("run", "cohort/study.toml", "--out", "out", "--draws", "100", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "30 schools, results in out/private" in ran.stdout
    assert "check the records" in ran.stderr
    assert "need of every pupil" in ran.stderr
    rankings = pd.read_csv(tmp_path / "out" / "private" / "rankings.csv")
    assert list(rankings["estimator"].unique()) == ["entry", "standardised", "labelled", "label_free"]
    study.write_text(study.read_text(encoding="utf-8").replace("[value_added]", ONLY_LABELLED), encoding="utf-8")
    again = send_va("run", "cohort/study.toml", "--out", "out", "--draws", "100", "-q", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert not (tmp_path / "out" / "private" / "identification.csv").exists()


def test_check_lists_every_failing_rule(cohort_folder: Path, tmp_path: Path) -> None:
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet")
    pupils.loc[[3, 4], "outcome"] = -5.0
    pupils.loc[7, "sen_status"] = "Q"
    pupils = pd.concat([pupils, pupils.iloc[[0]]])
    pupils.to_parquet(tmp_path / "pupils.parquet")
    (tmp_path / "study.toml").write_text((cohort_folder / "study.toml").read_text())
    plain = send_va("check", "study.toml", cwd=tmp_path)
    assert plain.returncode == 2
    assert "ERROR outcome" in plain.stdout
    assert "4, 5" in plain.stdout
    assert "ERROR sen_status" in plain.stdout
    assert "ERROR pupil" in plain.stdout
    listed = json.loads(send_va("check", "study.toml", "--json", cwd=tmp_path).stdout)
    assert {row["column"] for row in listed if row["level"] == "error"} >= {"outcome", "sen_status", "pupil"}
    assert str(pupils["pupil"].iloc[0]) not in plain.stdout


def test_check_lists_all_that_run_would_refuse_of_identification(cohort_folder: Path, tmp_path: Path) -> None:
    """A predictor the school sets, labels at entry that do not vary, feeders nested in schools: one report, twice."""
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet")
    own_feeders = pupils["school"] * 10 + pupils["pupil"] % 3
    bad = pupils.assign(sen_provision_now=pupils["pupil"] % 2, sen_status_entry="N", feeder=own_feeders)
    bad.to_parquet(tmp_path / "pupils.parquet")
    text = (cohort_folder / "study.toml").read_text(encoding="utf-8")
    study = text.replace('context = ["C(sex)",', 'context = ["sen_provision_now", "C(sex)",')
    assert study != text
    (tmp_path / "study.toml").write_text(study, encoding="utf-8")
    checked, ran = (send_va(*words, cwd=tmp_path) for words in (["check", "study.toml"], RUN_QUIETLY))
    assert (checked.returncode, ran.returncode) == (2, 2)
    assert "Traceback" not in checked.stderr + ran.stderr
    assert "3 failing rule(s)" in checked.stdout
    for column, rule in (
        ("sen_provision_now", "cannot predict need: the SEN status now is set by the rated school"),
        ("roles.sen_status_entry", "labels at entry do not vary (no pupil has SEN)"),
        ("roles.feeder", "no two schools share a feeder"),
    ):
        assert f"ERROR {column}: {rule}" in checked.stdout
        assert f"{column}: {rule}" in ran.stderr
    for remedy in ("Leave it out of the context", "Check [sen] and sen_status_entry", "leave out both roles feeder"):
        assert remedy in checked.stdout
        assert remedy in ran.stderr
    assert {item.name for item in tmp_path.iterdir()} == {"study.toml", "pupils.parquet"}
    (tmp_path / "study.toml").write_text(study.replace("[value_added]", ONLY_LABELLED), encoding="utf-8")
    assert send_va("check", "study.toml", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere.toml", "--out", "out"], "there is no study file"),
        (["check", "nowhere.toml"], "there is no study file"),
        (["simulate", "cohort", "--scenario", "magnet"], "magnets"),
        (["run", "study.toml", "--out", "out", "--engine", "stan"], "reml"),
    ],
)
def test_bad_input_exits_with_2_and_one_message(
    cohort_folder: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "study.toml").write_text((cohort_folder / "study.toml").read_text())
    done = send_va(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["study.toml"]


def test_a_run_that_does_not_converge_exits_with_3_and_publishes_nothing(cohort_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pupils.parquet").write_bytes((cohort_folder / "pupils.parquet").read_bytes())
    study = (cohort_folder / "study.toml").read_text(encoding="utf-8")
    (tmp_path / "study.toml").write_text(study.replace("[value_added]", ONLY_LABELLED), encoding="utf-8")
    code = (
        "import dataclasses, sys; from send_va import labelled_stages as stages; fit = stages.fit_labelled\n"
        "stages.fit_labelled = lambda *a, **k: dataclasses.replace(fit(*a, **k), converged=False, notes=('no',))\n"
        "sys.argv = ['send-va', 'run', sys.argv[1], '--out', 'out', '--draws', '100']\n"
        "from send_va.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "study.toml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3
    assert "no school is given a position" in done.stderr
    rankings = pd.read_csv(tmp_path / "out" / "private" / "rankings.csv")
    assert not rankings["published"].any()


def test_an_interrupted_run_says_how_to_go_on(cohort_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pupils.parquet").write_bytes((cohort_folder / "pupils.parquet").read_bytes())
    (tmp_path / "study.toml").write_text((cohort_folder / "study.toml").read_text(encoding="utf-8"), encoding="utf-8")
    code = (
        "import sys; from send_va import pipeline\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "pipeline.need_stages = interrupted\n"
        "sys.argv = ['send-va', 'run', 'study.toml', '--out', 'out']\n"
        "from send_va.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 130
    assert "interrupted. What was finished is kept: --resume goes on from there" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_says_it_is_synthetic_and_where_to_look(tmp_path: Path) -> None:
    write_cohort(simulate(np.random.default_rng(2), schools=20), tmp_path / "send-va-demo" / "cohort")  # is replaced
    code = "from send_va import demo; demo._DRAWS = 2; from send_va.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--schools", "20", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    lines = [line.split()[0] for line in done.stdout.splitlines() if "%" in line and line.startswith("  ")]
    assert lines == ["entry", "standardised", "labelled", "label_free"]
    assert (tmp_path / "send-va-demo" / "run" / "private" / "figures" / "caterpillar.png").exists()
    truth = pd.read_csv(tmp_path / "send-va-demo" / "cohort" / "truth.csv")
    effects = pd.read_csv(tmp_path / "send-va-demo" / "run" / "private" / "school_effects.csv")
    assert set(effects["school"]) == set(truth["school"])


def test_demo_does_not_touch_what_is_not_a_demo(tmp_path: Path) -> None:
    kept = tmp_path / "send-va-demo" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    done = send_va("demo", "--schools", "20", "-q", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds something that is not a demo" in done.stderr
    assert kept.read_text(encoding="utf-8") == "mine"
