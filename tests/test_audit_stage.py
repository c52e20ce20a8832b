"""The incentive audit of a study, by itself and beside a run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.audit_stage import AUDIT_TABLES, audit
from send_va.errors import InputError, StudyError
from send_va.records.simulator import simulate, write_cohort
from send_va.study import load_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "cohort"
    write_cohort(simulate(np.random.default_rng(4), schools=40, pupils_per_school=60), folder)
    return folder / "study.toml"


@pytest.fixture(scope="module")
def finished(study: Path) -> Path:
    return audit(study, study.parents[1] / "out").directory / "private"


def test_it_leaves_tables_and_a_manifest(study: Path, finished: Path) -> None:
    assert {path.stem for path in finished.iterdir()} == {*AUDIT_TABLES, "figures", "manifest"}
    table = pd.read_csv(finished / "incentives.csv", dtype={"school": str}, keep_default_na=False, na_values=[""])
    assert table["synthetic"].all()
    assert set(table["estimator"]) == {"labelled", "standardised", "entry", "label_free"}
    assert set(table["context"]) == {"cva"}
    labelling = table[table["action"].isin(["label_more", "label_fewer"]) & table["applicable"]]
    by_name = labelling.groupby("estimator")["gain"].apply(lambda gain: gain.abs().max())
    assert by_name["entry"] == by_name["label_free"] == 0.0
    assert by_name["labelled"] > by_name["standardised"] > 0.0


def test_no_pupil_id_is_written(study: Path, finished: Path) -> None:
    pupils = set(pd.read_parquet(study.parent / "pupils.parquet")["pupil"].astype(str))
    words = set((finished / "incentives.csv").read_text().replace("\n", ",").split(","))
    assert not pupils & words


def test_the_same_seed_writes_the_same_bytes_and_keeps_what_was_there(
    study: Path, tmp_path: Path, finished: Path
) -> None:
    private = tmp_path / "run" / "private"
    private.mkdir(parents=True)
    run = json.loads((finished / "manifest.json").read_text())["run"]
    earlier = {"run": {"input_sha256": run["input_sha256"], "seed": 99}}
    (private / "manifest.json").write_text(json.dumps(earlier))
    (private / "draws.nc").write_bytes(b"kept")
    audit(study, tmp_path / "run")
    for name in AUDIT_TABLES:
        assert (private / f"{name}.csv").read_bytes() == (finished / f"{name}.csv").read_bytes()
    assert (private / "draws.nc").read_bytes() == b"kept"
    record = json.loads((private / "manifest.json").read_text())
    assert record["run"]["seed"] == 99
    assert record["audit"]["run"]["seed"] == 1


def test_a_run_of_other_records_is_refused_and_left_alone(study: Path, tmp_path: Path) -> None:
    private = tmp_path / "run" / "private"
    private.mkdir(parents=True)
    (private / "manifest.json").write_text(json.dumps({"run": {"input_sha256": "other"}}))
    with pytest.raises(InputError, match="run of other records"):
        audit(study, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["private", "manifest.json"]


def test_settings_out_of_range_are_all_named(study: Path, tmp_path: Path) -> None:
    text = study.read_text() + '\n[audit]\nshare = 2.0\nforesight = -1.0\ncontexts = ["raw"]\n'
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(StudyError) as refused:
        load_study(tmp_path / "study.toml")
    assert {failure.column for failure in refused.value.failures} == {
        "audit.share",
        "audit.foresight",
        "audit.contexts",
    }
