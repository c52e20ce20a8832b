"""Missing prior attainment of a study, from its file to its tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.missing_stage import TABLES, run_missing
from send_va.records.simulator import simulate, write_cohort

SETTINGS = """
[missing_prior]
imputations = 3
deltas = [0.0, 0.5]
estimators = ["labelled"]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which every eighth pupil has no prior score."""
    folder = tmp_path_factory.mktemp("missing") / "cohort"
    write_cohort(simulate(np.random.default_rng(4), schools=25, pupils_per_school=40), folder)
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('"composition"', "").replace('"cva", ]', '"cva"]') + SETTINGS)
    pupils = pd.read_parquet(folder / "pupils.parquet")
    pupils.loc[::8, "prior"] = np.nan
    pupils.to_parquet(folder / "pupils.parquet", index=False)
    return folder / "study.toml"


def test_tables_a_figure_and_a_manifest(study: Path, tmp_path: Path) -> None:
    found = run_missing(study, tmp_path / "out", seed=3)
    private = tmp_path / "out" / "private"
    assert {path.stem for path in private.iterdir()} == {*TABLES, "figures", "manifest"}
    assert (private / "figures" / "missing_prior.svg").exists()
    assert json.loads((private / "manifest.json").read_text())["run"]["seed"] == 3
    by_delta = pd.read_csv(private / "missing_prior.csv")
    assert by_delta["delta"].tolist() == [0.0, 0.5] == found.by_delta["delta"].tolist()
    assert by_delta["synthetic"].all()
    pupils = set(pd.read_parquet(study.parent / "pupils.parquet")["pupil"].astype(str))
    words = {word for path in private.glob("*.csv") for word in path.read_text().replace("\n", ",").split(",")}
    assert not pupils & words


def test_nothing_to_impute_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_cohort(simulate(np.random.default_rng(4), schools=25, pupils_per_school=40), tmp_path / "cohort")
    with pytest.raises(InputError, match="missing"):
        run_missing(tmp_path / "cohort" / "study.toml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
