"""The main job with need estimated for every pupil, end to end."""

import json
from hashlib import sha256
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest

import send_va as sv
from send_va.errors import InputError
from send_va.records.simulator import write_cohort
from send_va.value_added.need_fit import NOT_CONNECTED

ESTIMATORS = ["entry", "standardised", "labelled", "label_free"]
SECTIONS = "[identification]\ndraws = 6\nlabel_reliability = [1.0, 0.9]\narea_sorting_share = [0.5]\n"


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("need") / "cohort"
    world = sv.simulate(np.random.default_rng(5), schools=40, scenario="lenient_better", pupils_per_school=90)
    write_cohort(world, folder)
    with (folder / "study.toml").open("a") as study:
        study.write(SECTIONS)
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('"prior", "cva", "composition"', '"prior", "cva"'))
    return folder


@pytest.fixture(scope="module")
def finished(cohort_folder: Path) -> sv.Run:
    return sv.run(cohort_folder / "study.toml", cohort_folder.parent / "out", draws=120)


def read(run: sv.Run, name: str) -> pd.DataFrame:
    return pd.read_csv(run.directory / "private" / name, keep_default_na=False, na_values=[""])


def test_every_estimator_in_every_context(finished: sv.Run) -> None:
    effects = finished.school_effects
    assert list(dict.fromkeys(effects["estimator"])) == ESTIMATORS
    counts = effects.groupby(["estimator", "context", "measure"]).size()
    assert (counts == 40).all()
    assert set(effects.query("estimator == 'entry'")["measure"]) == {"theta", "u", "gap"}
    tree = az.from_netcdf(finished.directory / "private" / "draws.nc")
    assert tree["posterior"]["theta"].sizes["estimator"] == 4
    drawn = tree["posterior"]["theta"].sel(estimator="entry", context="cva").mean(("chain", "draw")).to_numpy()
    table = effects.query("estimator == 'entry' and context == 'cva' and measure == 'theta'")
    np.testing.assert_allclose(drawn, table["mean"], atol=5 * table["sd"].max() / np.sqrt(120))


def test_tables_of_identification(finished: sv.Run) -> None:
    schools = read(finished, "identification.csv")
    wanted = {"school", "leniency", "leniency_sd", "intake_need", "intake_need_sd", "intake_need_reliability"}
    assert wanted | {"labelled_share", "standard_share", "synthetic"} <= set(schools.columns)
    shares = read(finished, "identification_variance.csv")
    assert set(shares["label"]) == {"entry", "current"} and set(shares["model"]) == {"null", "full"}
    assert set(shares["level"]) <= {"pupil", "feeder", "school", "la"}
    np.testing.assert_allclose(shares.groupby(["label", "model"])["share"].sum(), 1.0)
    standard = read(finished, "national_standard.csv")
    assert set(standard["level"]) == {"school", "la"}
    assert standard.query("level == 'la'")["n_pupils"].sum() == standard.query("level == 'school'")["n_pupils"].sum()
    assert (standard["lower"] <= standard["expected"]).all() and (standard["expected"] <= standard["upper"]).all()


def test_need_of_pupils_has_row_numbers_and_no_ids(finished: sv.Run, cohort_folder: Path) -> None:
    need = pd.read_parquet(finished.directory / "private" / "pupil_need.parquet")
    assert need.columns.tolist() == ["row_number", "pi", "severity", "p0", "synthetic"]
    ids = set(pd.read_parquet(cohort_folder / "pupils.parquet")["pupil"].astype(str))
    assert not ids & set(need["row_number"].astype(str))
    assert need["pi"].between(0, 1).all() and need["p0"].between(0, 1).all()


def test_what_labels_cannot_tell(finished: sv.Run) -> None:
    ranges = read(finished, "assumption_ranges.csv")
    assert set(ranges["estimator"]) == {"entry"}
    assert {"label_reliability", "area_sorting_share", "feeder_sorting_share"} <= set(ranges["assumption"])
    effects = finished.school_effects.query("estimator == 'entry' and context == 'cva' and measure == 'theta'")
    same = ranges.query("assumption == 'label_reliability' and value == 1 and context == 'cva'").set_index("school")
    published = effects.set_index("school")["mean"].loc[same.index.astype(str)]
    np.testing.assert_allclose(same["mean"], published, rtol=1e-6, atol=1e-6)
    disagreement = read(finished, "disagreements.csv")
    assert set(disagreement["against"]) == {"entry"}
    assert set(disagreement["estimator"]) == {"standardised", "labelled", "label_free"}


def test_delta_is_always_shown(finished: sv.Run) -> None:
    rows = read(finished, "coefficients.csv").query("term == 'severity'")
    assert set(rows["estimator"]) == {"entry", "standardised"} and set(rows["context"]) == {"prior", "cva"}
    truth = -0.25 * 16.6  # of the scenario, in points; without background severity stands in for it too
    given_background = rows.query("context == 'cva'")
    assert (given_background["lower"] < truth).all() and (truth < given_background["upper"]).all()


def test_an_interrupted_run_gives_the_same_bytes(
    finished: sv.Run, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from send_va import need_stages

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(need_stages, "assumption_ranges", interrupted)
        sv.run(cohort_folder / "study.toml", tmp_path / "out", draws=120)
    again = sv.run(cohort_folder / "study.toml", tmp_path / "out", draws=120, resume=True)
    for name in ("school_effects.csv", "identification.csv", "assumption_ranges.csv", "draws.nc", "pupil_need.parquet"):
        here, there = (run.directory / "private" / name for run in (again, finished))
        assert sha256(here.read_bytes()).digest() == sha256(there.read_bytes()).digest(), name


def without_entry(cohort_folder: Path, target: Path, estimators: str = "") -> Path:
    target.mkdir()
    (target / "pupils.parquet").write_bytes((cohort_folder / "pupils.parquet").read_bytes())
    text = (cohort_folder / "study.toml").read_text().replace('sen_status_entry = "sen_status_entry"\n', "")
    text = text.replace('contexts = ["prior", "cva"]', f'contexts = ["cva"]\n{estimators}')
    (target / "study.toml").write_text(
        text.replace("label_reliability", "sorting_share = [0.0, 1.0]\nlabel_reliability")
    )
    return target / "study.toml"


def test_without_labels_before_transfer_the_range_is_said_first(cohort_folder: Path, tmp_path: Path) -> None:
    run = sv.run(without_entry(cohort_folder, tmp_path / "now"), tmp_path / "out", draws=120)
    assert "cannot be told apart" in run.notes[0]
    assert list(dict.fromkeys(run.school_effects["estimator"])) == ["standardised", "labelled", "label_free"]
    placed = run.rankings.groupby("estimator")["published"].any()
    assert not placed["standardised"] and placed["labelled"] and placed["label_free"]
    assumed = "no label before transfer: 50 % of what the school adds to labels is taken to be need"
    assert (run.rankings.query("estimator == 'standardised'")["reason"] == assumed).all()
    assert read(run, "identification.csv")["flag"].str.startswith(assumed).all()
    ranges = read(run, "assumption_ranges.csv")
    assert set(ranges.query("assumption == 'sorting_share'")["value"]) == {0.0, 1.0}
    shares = read(run, "identification_variance.csv")
    assert set(shares["label"]) == {"current"}
    drawn = (run.directory / "private" / "figures" / "caterpillar.svg").read_text(encoding="utf-8")
    assert "No label before transfer: points assume" in " ".join(drawn.split())
    assert (run.directory / "private" / "figures" / "identification_lottery.svg").exists()
    record = json.loads((run.directory / "private" / "manifest.json").read_text())
    assert "cannot be told apart" in json.dumps(record)


def test_entry_without_labels_before_transfer_is_refused(cohort_folder: Path, tmp_path: Path) -> None:
    study = without_entry(cohort_folder, tmp_path / "now", 'estimators = ["entry"]')
    with pytest.raises(InputError, match=r"value_added.estimators: names 'entry', but no sen_status_entry"):
        sv.run(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_standardised_that_labels_do_not_allow_leaves_labelled(cohort_folder: Path, tmp_path: Path) -> None:
    """Labels that never change: a note, and no range of an estimator that is not there."""
    (tmp_path / "cohort").mkdir()
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet")
    pupils.assign(sen_status=pupils["sen_status_entry"]).to_parquet(tmp_path / "cohort" / "pupils.parquet")
    text = (cohort_folder / "study.toml").read_text()
    wanted = 'contexts = ["cva"]\nestimators = ["standardised", "labelled"]'
    (tmp_path / "cohort" / "study.toml").write_text(text.replace('contexts = ["prior", "cva"]', wanted))
    run = sv.run(tmp_path / "cohort" / "study.toml", tmp_path / "out", draws=120)
    assert list(run.school_effects["estimator"].unique()) == ["labelled"]
    assert any("needs pupils whose label changed" in note for note in run.notes)
    assert not (run.directory / "private" / "assumption_ranges.csv").exists()


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
def test_labelling_more_gains_nothing_under_entry(cohort_folder: Path) -> None:
    """A school that labels everybody: `entry` and `label_free` keep every byte, `labelled` does not."""
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet")
    roles = {
        "pupil": "pupil",
        "school": "school",
        "la": "la",
        "feeder": "feeder",
        "outcome": "outcome",
        "prior": ["prior"],
        "sen_status": "sen_status",
        "sen_status_entry": "sen_status_entry",
        "context": ["fsm6", "idaci"],
    }
    own = pupils["school"] == pupils["school"].iloc[0]
    more = pupils.assign(sen_status=pupils["sen_status"].mask(own & (pupils["sen_status"] == "N"), "K"))
    found = []
    for table in (pupils, more):
        cohort = sv.Cohort.from_pandas(table, roles)
        need = sv.fit_identification(cohort, seed=1, draws=3)
        found.append(
            {
                name: sv.fit_value_added(cohort, need, estimator=name, draws=40).draws("theta")
                for name in ("entry", "label_free", "labelled")
            }
        )
    before, after = found
    for name in ("entry", "label_free"):
        np.testing.assert_array_equal(before[name], after[name])
    assert np.abs(before["labelled"] - after["labelled"]).max() > 0.1


def test_schools_that_feeders_do_not_connect_are_not_compared(cohort_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    pupils = pd.read_parquet(cohort_folder / "pupils.parquet")
    apart = pupils["school"].unique()[:2]
    own = pupils["school"].isin(apart)
    pupils["feeder"] = pupils["feeder"].where(~own, 1 + pupils["school"])
    pupils.to_parquet(tmp_path / "cohort" / "pupils.parquet")
    text = (cohort_folder / "study.toml").read_text()
    text = text.replace('contexts = ["prior", "cva"]', 'contexts = ["cva"]\nestimators = ["entry"]')
    (tmp_path / "cohort" / "study.toml").write_text(text)
    run = sv.run(tmp_path / "cohort" / "study.toml", tmp_path / "out", draws=120)
    theta = run.school_effects.query("measure == 'theta'").set_index("school")
    alone = theta.loc[[str(school) for school in apart]]
    assert (alone["flag"] == NOT_CONNECTED).all() and (alone["n_pupils"] == 0).all()
    assert alone[["mean", "sd", "lower", "upper", "estimate"]].isna().all(axis=None)
    ranked = run.rankings.set_index("school")
    places = ["expected_rank", "rank_lower", "rank_upper", "p_quintile_1"]
    assert (ranked.loc[alone.index, "reason"] == NOT_CONNECTED).all()
    assert not ranked.loc[alone.index, "published"].any() and ranked.loc[alone.index, places].isna().all(axis=None)
    assert ranked["rank_upper"].max() == 38  # two schools of 40 take no place
    np.testing.assert_allclose(ranked["expected_rank"].sum(), 38 * 39 / 2)
    assert not set(alone.index) & set(read(run, "assumption_ranges.csv")["school"].astype(str))
    assert any("not connected" in note for note in run.notes)
    schools = read(run, "identification.csv").set_index("school")
    assert schools.loc[apart, "intake_need"].isna().all()
