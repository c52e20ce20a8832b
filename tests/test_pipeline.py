"""The main job end to end, as a user runs it."""

import json
from dataclasses import replace
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest

import send_va as sv
from send_va import labelled_stages
from send_va.errors import InputError, NotSupportedError, StudyError
from send_va.records.simulator import write_cohort
from send_va.study import load_study


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "cohort"
    write_cohort(sv.simulate(np.random.default_rng(2), schools=60), folder)
    study = folder / "study.toml"  # the other estimators have tests of their own
    study.write_text(study.read_text().replace("[value_added]\n", '[value_added]\nestimators = ["labelled"]\n'))
    return folder


@pytest.fixture(scope="module")
def finished(cohort_folder: Path) -> sv.Run:
    return sv.run(cohort_folder / "study.toml", cohort_folder.parent / "out", draws=200)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_files_and_columns(finished: sv.Run) -> None:
    private = finished.directory / "private"
    names = {path.name for path in private.iterdir()}
    assert names == {
        "coefficients.csv",
        "draws.nc",
        "figures",
        "incentive_cheapest.csv",
        "incentive_summary.csv",
        "incentive_verdicts.csv",
        "incentives.csv",
        "manifest.json",
        "publication.csv",
        "ranking_summary.csv",
        "rankings.csv",
        "robustness.md",
        "school_effects.csv",
        "table_changes.csv",
        "variance_components.csv",
    }
    effects = pd.read_csv(private / "school_effects.csv")
    assert len(effects) == 60 * 3 * 3
    assert set(effects["context"]) == {"prior", "cva", "composition"}
    rankings = pd.read_csv(private / "rankings.csv")
    assert rankings.columns.tolist() == (
        ["school", "estimator", "context", "expected_rank", "rank_lower", "rank_upper"]
        + ["rank_lower_simultaneous", "rank_upper_simultaneous"]
        + [f"p_quintile_{k}" for k in range(1, 6)]
        + ["grade", "published", "reason", "synthetic"]
    )
    figures = {path.name for path in (private / "figures").iterdir()}
    assert figures >= {"caterpillar.svg", "rank_intervals.png", "funnel.svg", "context_shift.png"}
    assert figures >= {"rank_sets.png", "grades.svg", "quintiles.png", "pairs.svg"}
    assert rankings.filter(like="simultaneous").notna().all(axis=None) and rankings["grade"].min() == 1
    summary = pd.read_csv(private / "ranking_summary.csv").set_index("context")
    assert summary.loc["cva", "mean_rank_set"] > summary.loc["cva", "mean_rank_interval"]


def test_the_theta_table_is_close_to_the_truth(finished: sv.Run, cohort_folder: Path) -> None:
    truth = pd.read_csv(cohort_folder / "truth.csv", dtype={"school": str}).set_index("school")
    table = finished.school_effects.query("context == 'cva' and measure == 'theta'").set_index("school")
    assert np.corrcoef(table["mean"], truth["theta"].loc[table.index])[0, 1] > 0.7


def test_draws_open_in_arviz_and_agree_with_the_table(finished: sv.Run) -> None:
    tree = az.from_netcdf(finished.directory / "private" / "draws.nc")
    theta = tree["posterior"]["theta"]
    assert theta.dims == ("chain", "draw", "estimator", "context", "school")
    table = finished.school_effects.query("context == 'cva' and measure == 'theta'")
    drawn = theta.sel(context="cva", estimator="labelled").mean(("chain", "draw")).to_numpy()
    np.testing.assert_allclose(drawn, table["mean"], atol=5 * table["sd"].max() / np.sqrt(200))
    assert tree["posterior"].attrs["synthetic"] == 1


def test_same_seed_same_bytes_and_another_seed_others(finished: sv.Run, cohort_folder: Path, tmp_path: Path) -> None:
    again = sv.run(cohort_folder / "study.toml", tmp_path / "again", draws=200)
    assert files_of(again.directory) == files_of(finished.directory)
    assert again.manifest["run"] == finished.manifest["run"]
    other = sv.run(cohort_folder / "study.toml", tmp_path / "other", draws=200, seed=9)
    assert not other.school_effects["lower"].equals(finished.school_effects["lower"])


def test_an_interrupted_run_resumes_to_the_same_bytes(
    finished: sv.Run, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, calls = labelled_stages.fit_labelled, []

    def interrupted(data, context, **options):
        calls.append(context)
        if context == "composition":
            raise KeyboardInterrupt
        return fit(data, context, **options)

    monkeypatch.setattr(labelled_stages, "fit_labelled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sv.run(cohort_folder / "study.toml", tmp_path / "out", draws=200)
    assert not (tmp_path / "out" / "private").exists()
    calls.clear()
    monkeypatch.setattr(labelled_stages, "fit_labelled", lambda *a, **k: (calls.append(a[1]), fit(*a, **k))[1])
    resumed = sv.run(cohort_folder / "study.toml", tmp_path / "out", draws=200, resume=True)
    assert calls == ["composition"]
    assert files_of(resumed.directory) == files_of(finished.directory)


def test_resume_says_where_there_is_nothing_to_resume(
    cohort_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(cohort_folder / "study.toml")
    only = replace(study, value_added=replace(study.value_added, estimators=("labelled",), contexts=("prior",)))
    sv.run(only, tmp_path / "out", draws=100, resume=True, quiet=False)
    assert "out holds no interrupted run of this study" in capsys.readouterr().err


def test_no_pupil_id_no_path_and_no_name_in_any_output(finished: sv.Run, cohort_folder: Path) -> None:
    """Pupil ids of the synthetic cohort have seven digits or more and would stand as whole cells."""
    ids = {str(value).encode() for value in pd.read_parquet(cohort_folder / "pupils.parquet")["pupil"]}
    assert min(len(value) for value in ids) >= 7
    content = b"\n".join(files_of(finished.directory).values())
    content += (finished.directory / "private" / "manifest.json").read_bytes()
    assert str(cohort_folder.parent).encode() not in content
    tokens = set(content.replace(b",", b"\n").replace(b'"', b"\n").split(b"\n"))
    assert not tokens & ids


def test_the_manifest_records_what_decides_the_result(finished: sv.Run) -> None:
    record = json.loads((finished.directory / "private" / "manifest.json").read_text())
    assert record["run"]["seed"] == 1
    assert record["run"]["settings"]["value_added"]["draws"] == 200
    assert len(record["run"]["input_sha256"]) == 64
    assert record["run"]["convergence"]["labelled, cva"]["converged"] is True
    assert record["execution"]["timings_seconds"]


def test_synthetic_is_said_wherever_results_are_shown(finished: sv.Run) -> None:
    for table in (finished.directory / "private").glob("*.csv"):
        assert pd.read_csv(table)["synthetic"].all(), table.name
    for figure in (finished.directory / "private" / "figures").glob("*.svg"):
        assert "ynthetic" in figure.read_text(encoding="utf-8"), figure.name


def test_bad_records_leave_nothing_behind(cohort_folder: Path, tmp_path: Path) -> None:
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet")
    pupils.loc[3, "outcome"] = -5.0
    pupils.loc[7, "sen_status"] = "Q"
    pupils.to_parquet(tmp_path / "pupils.parquet")
    (tmp_path / "study.toml").write_text((cohort_folder / "study.toml").read_text())
    with pytest.raises(InputError) as caught:
        sv.run(tmp_path / "study.toml", tmp_path / "out")
    assert "outcome" in str(caught.value)
    assert "Q" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_left_out_pupils_and_flagged_schools_are_reported(cohort_folder: Path, tmp_path: Path) -> None:
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet")
    first, second = pupils["school"].unique()[:2]
    pupils.loc[pupils["school"] == first, "sen_status"] = "N"
    pupils.loc[pupils["school"] == second, "prior"] = np.nan
    pupils.to_parquet(tmp_path / "pupils.parquet")
    (tmp_path / "study.toml").write_text((cohort_folder / "study.toml").read_text())
    notes = "\n".join(sv.run(tmp_path / "study.toml", tmp_path / "out", draws=100).notes)
    assert f"{(pupils['school'] == second).sum()} of {len(pupils):,} pupils are left out" in notes
    assert "flagged 'no pupil with SEND': 1" in notes
    assert "flagged 'no complete pupil': 1" in notes
    assert "too short" in notes


def test_a_collinear_covariate_is_named_and_leaves_nothing_behind(cohort_folder: Path, tmp_path: Path) -> None:
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet").assign(poor=lambda table: 1 - table["fsm6"])
    pupils.to_parquet(tmp_path / "pupils.parquet")
    text = (cohort_folder / "study.toml").read_text().replace('"fsm6",', '"fsm6", "poor",')
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(InputError, match="poor"):
        sv.run(tmp_path / "study.toml", tmp_path / "out", draws=100)
    assert not (tmp_path / "out").exists()


def test_other_engines_and_estimators_are_refused(cohort_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotSupportedError, match="reml"):
        sv.run(cohort_folder / "study.toml", tmp_path / "out", engine="stan")
    cohort = sv.read_cohort(cohort_folder / "study.toml")
    with pytest.raises(NotSupportedError, match="labelled"):
        sv.fit_value_added(cohort, estimator="best")
    with pytest.raises(InputError, match="fit_identification"):
        sv.fit_value_added(cohort, estimator="entry")
    text = (cohort_folder / "study.toml").read_text().replace('["labelled"]', '["standardized"]')
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(StudyError, match="standardised"):
        sv.read_cohort(tmp_path / "study.toml")


def test_the_python_way_equals_the_command(finished: sv.Run, cohort_folder: Path) -> None:
    cohort = sv.read_cohort(cohort_folder / "study.toml")
    effects = sv.fit_value_added(cohort, estimator="labelled", context="cva", seed=1, draws=200)
    table = finished.school_effects.query("context == 'cva' and measure == 'theta'").reset_index(drop=True)
    np.testing.assert_allclose(effects.summary("theta")["lower"], table["lower"], rtol=1e-9)
    ranking = sv.rank(effects, coverage=0.95)
    written = finished.rankings.query("context == 'cva'").reset_index(drop=True)
    np.testing.assert_allclose(ranking.table["expected_rank"], written["expected_rank"])
