"""The main job over several cohorts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import send_va as sv
from send_va.errors import InputError
from send_va.records.simulator import write_cohort

TABLES = ("autocovariance.csv", "year_averages.csv", "forecast.csv")
ENTRY = "[identification]\ndraws = 2\nlabel_reliability = [1.0]\narea_sorting_share = [0.0]\n"


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("save_figures", "_draw_drift", "_draw_lottery"):
        monkeypatch.setattr(f"send_va.pipeline.{name}", lambda *args, **options: None)


def study(folder: Path, cohorts: int, sections: str, estimators: str = '["labelled"]') -> Path:
    world = sv.simulate_years(np.random.default_rng(3), schools=30, pupils_per_school=40, cohorts=cohorts)
    path = write_cohort(world, folder)
    chosen = f'contexts = ["cva"]\nestimators = {estimators}\n'
    text = path.read_text().replace('contexts = ["prior", "cva", "composition"]\n', chosen)
    path.write_text(text + sections)
    return path


def read(run: sv.Run, name: str) -> pd.DataFrame:
    return pd.read_csv(run.directory / "private" / name, dtype={"school": str})


def test_three_cohorts_give_a_forecast(tmp_path: Path) -> None:
    run = sv.run(study(tmp_path / "c", 3, ""), tmp_path / "out", draws=100)
    lags, averages, forecast = (read(run, name) for name in TABLES)
    assert all(table["synthetic"].all() for table in (lags, averages, forecast))
    assert set(forecast["estimator"]) == {"labelled"} and set(forecast["cohort"]) == {"2026/27"}
    assert set(forecast["measure"]) == {"theta", "u", "gap"} and len(forecast) == len(averages) == 90
    assert (forecast["beyond"].dropna() == "between").all()
    assert lags.groupby("measure")["pairs"].apply(lambda pairs: (pairs > 0).sum()).tolist() == [3, 3, 3]
    assert any(note.startswith("years: labelled: the forecast for 2026/27") for note in run.notes)
    assert '"horizon": 6' in json.dumps(run.manifest)
    assert (run.directory / "private" / "figures" / "drift.svg").is_file()
    assert not list((run.directory / "private").glob("stage-*"))


@pytest.mark.usefixtures("no_figures")
def test_one_cohort_gives_none_and_says_nothing(tmp_path: Path) -> None:
    run = sv.run(study(tmp_path / "c", 1, ""), tmp_path / "out", draws=100)
    assert not any((run.directory / "private" / name).exists() for name in TABLES)
    assert not any(note.startswith("years") for note in run.notes)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ("[years]\nforecast = true\n", "the records are of 1 academic year"),
        ("[years]\nhorizon = 0\n", "years.horizon: must be 1 or more"),
        ('[years]\nbeyond = "stop"\n', "years.beyond: is not a value of this key.*between, decay, hold"),
        ('[years]\nestimators = ["best"]\n', "years.estimators: is not a value of this key.*'best'"),
        ("[years]\nhorizn = 5\n", "unknown key.*horizon"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path: Path, sections: str, said: str) -> None:
    path = study(tmp_path / "c", 1, sections)
    with pytest.raises(InputError, match=said):
        sv.run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_the_headline_and_another(tmp_path: Path) -> None:
    sections = ENTRY + '[years]\nforecast = true\nhorizon = 2\naverage = 2\nestimators = ["entry", "labelled"]\n'
    run = sv.run(study(tmp_path / "c", 2, sections, '["entry", "labelled"]'), tmp_path / "out", draws=100)
    assert list(dict.fromkeys(read(run, "forecast.csv")["estimator"])) == ["entry", "labelled"]
    assert set(read(run, "year_averages.csv")["cohorts"]) == {"2018/19 to 2019/20"}
    assert set(read(run, "forecast.csv")["cohort"]) == {"2021/22"}


@pytest.mark.usefixtures("no_figures")
def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = study(tmp_path / "c", 2, "[years]\nforecast = true\n")
    whole = sv.run(path, tmp_path / "whole", draws=100)

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("send_va.pipeline._write_tables", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sv.run(path, tmp_path / "again", draws=100)
    with monkeypatch.context() as never:
        never.setattr("send_va.year_stages.fit_years", interrupted)  # what is done is not done again
        resumed = sv.run(path, tmp_path / "again", draws=100, resume=True)
    for name in TABLES:
        first, second = ((run.directory / "private" / name).read_bytes() for run in (whole, resumed))
        assert first == second
    assert any(note.startswith("years") for note in resumed.notes)
