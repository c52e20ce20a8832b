"""The simulator against its own truth, against an oracle, and against published English figures."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.records.simulator import (
    GEOGRAPHIES,
    SCENARIOS,
    SimulatedCohort,
    calibration_table,
    simulate,
    write_cohort,
)
from send_va.records.simulator.background import PRIOR_SD

COLUMNS = [
    "pupil", "school", "la", "feeder", "feeder_la", "cohort", "outcome", "prior", "sen_status", "sen_status_entry",
    "sex", "month_of_birth", "fsm6", "eal", "ethnicity", "idaci", "looked_after",
]  # fmt: skip
SMALL = {"schools": 30, "pupils_per_school": 40}


def world(seed: int = 1, **options: object) -> SimulatedCohort:
    return simulate(np.random.default_rng(seed), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def default() -> SimulatedCohort:
    return world(schools=1000)


def test_same_seed_same_cohort_and_another_seed_another() -> None:
    first, second, other = (world(seed, **SMALL) for seed in (1, 1, 2))
    for table in ("pupils", "truth", "feeders", "las", "pupil_truth"):
        pd.testing.assert_frame_equal(getattr(first, table), getattr(second, table), check_exact=True)
    assert first.attrs == second.attrs
    assert not first.truth["theta"].equals(other.truth["theta"])


def test_pupil_table_has_the_canonical_columns_within_their_ranges(default: SimulatedCohort) -> None:
    pupils = default.pupils
    assert list(pupils.columns) == COLUMNS
    assert not pupils.isna().any(axis=None)
    assert pupils["pupil"].is_unique
    assert pupils["outcome"].between(0, 90).all()
    assert pupils["prior"].between(80, 120).all()
    assert ((pupils["prior"] * 2) % 1 == 0).all()
    assert pupils["idaci"].between(0, 1).all()
    assert set(pupils["month_of_birth"]) == set(range(1, 13))
    for column, values in {
        "sen_status": {"N", "K", "E"}, "sen_status_entry": {"N", "K", "E"}, "sex": {"F", "M"}, "fsm6": {0, 1},
        "eal": {0, 1}, "looked_after": {0, 1}, "cohort": {"2022/23"},
    }.items():  # fmt: skip
        assert set(pupils[column]) == values


def test_nothing_that_a_study_sees_reveals_need(default: SimulatedCohort) -> None:
    assert {"need", "severity", "has_need"}.isdisjoint(default.pupils.columns)
    assert default.pupil_truth["pupil"].equals(default.pupils["pupil"])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    scenario=st.sampled_from(sorted(SCENARIOS)),
    geography=st.sampled_from(sorted(GEOGRAPHIES)),
    schools=st.integers(10, 25),
)
def test_truth_is_consistent_in_every_world(seed: int, scenario: str, geography: str, schools: int) -> None:
    cohort = world(seed, schools=schools, scenario=scenario, geography=geography, pupils_per_school=15)
    truth, pupils, sd = cohort.truth, cohort.pupils, cohort.attrs["pupil_sd"]
    np.testing.assert_allclose(truth["theta"], truth["u"] + truth["s"], atol=1e-12)
    for name in ("theta", "u", "s"):
        np.testing.assert_allclose(truth[f"{name}_sd"] * sd, truth[name], atol=1e-10)
        assert abs(truth[name].mean()) < 1e-10
    assert truth["n_pupils"].tolist() == pupils.groupby("school").size().tolist()
    assert truth["n_need"].sum() == cohort.pupil_truth["has_need"].sum()
    assert cohort.feeders["n_pupils"].sum() == len(pupils)
    assert set(pupils["la"]) <= set(cohort.las["la"])
    assert set(zip(pupils["school"], pupils["la"], strict=True)) == set(zip(truth["school"], truth["la"], strict=True))
    assert float(cohort.attrs["far_share"]) >= 0.10
    assert float(cohort.attrs["pupil_sd"]) == pytest.approx(pupils["outcome"].std())


def test_geographies_differ_and_each_has_a_tenth_of_pupils_from_far() -> None:
    share = {name: world(schools=200, geography=name).attrs for name in GEOGRAPHIES}
    assert all(float(attrs["far_share"]) >= 0.10 for attrs in share.values())
    top_five = {name: float(attrs["top_five_share"]) for name, attrs in share.items()}
    assert top_five["scattered"] < 0.35
    assert top_five["five_feeders"] == pytest.approx(0.70, abs=0.03)
    assert top_five["nearly_nested"] > 0.85


def test_feeders_are_crossed_with_schools_in_every_geography() -> None:
    for geography in GEOGRAPHIES:
        pupils = world(schools=100, geography=geography).pupils
        assert pupils.groupby("school")["feeder"].nunique().median() > 15
        assert pupils.groupby("feeder")["school"].nunique().median() >= 3
        assert pupils["feeder"].nunique() == pytest.approx(4.7 * 100, rel=0.05)


# Sampling error of an SD over 1,000 schools is 2.2 %, over 4,700 feeders 1 %, over 149 authorities 5.8 %; tolerances
# are about three of those. Pupil SDs are of the realised outcome, at most 3 % from the scenario's `outcome_sd`.
@pytest.mark.parametrize(
    ("table", "column", "sd", "tolerance"),
    [
        ("truth", "u_sd", 0.22, 0.08),
        ("truth", "s_sd", 0.20, 0.08),
        ("truth", "prior_slope_sd", 0.08, 0.08),
        ("truth", "leniency", 0.5, 0.07),
        ("truth", "leniency_ehcp", 0.25, 0.07),
        ("feeders", "leniency", 0.5, 0.04),
        ("feeders", "leniency_ehcp", 0.25, 0.04),
        ("las", "leniency", 0.2, 0.18),
        ("las", "leniency_entry", 0.2, 0.18),
    ],
)
def test_realised_sds_are_those_of_the_scenario(
    default: SimulatedCohort, table: str, column: str, sd: float, tolerance: float
) -> None:
    assert getattr(default, table)[column].std() == pytest.approx(sd, rel=tolerance)


def test_scenarios_do_what_they_are_named_for() -> None:
    cohorts = {name: world(schools=600, pupils_per_school=30, scenario=name) for name in SCENARIOS}

    def correlation(name: str, first: str, second: str) -> float:
        return float(cohorts[name].truth[first].corr(cohorts[name].truth[second]))

    # The standard error of a correlation over 600 schools is .04.
    assert correlation("lenient_better", "leniency", "s") == pytest.approx(0.3, abs=0.12)
    assert correlation("leniency_with_u", "leniency", "u") == pytest.approx(0.3, abs=0.12)
    assert correlation("independent", "leniency", "s") == pytest.approx(0.0, abs=0.12)
    assert cohorts["magnets"].truth["intake_need"].std() == pytest.approx(0.35, rel=0.1)
    assert (cohorts["magnets"].truth["leniency"] == 0).all()
    assert (cohorts["independent"].truth["intake_need"] == 0).all()
    assert cohorts["clustered_feeder_need"].feeders["local_need"].std() == pytest.approx(0.3, rel=0.05)
    assert cohorts["feeder_need"].feeders["local_need"].std() == pytest.approx(0.3, rel=0.05)
    assert cohorts["skewed_need"].pupil_truth["severity"].skew() == pytest.approx(2 / np.sqrt(2), rel=0.1)
    assert cohorts["missing_entry"].pupils["sen_status_entry"].isna().mean() == pytest.approx(0.10, abs=0.01)
    assert cohorts["small_schools"].scenario.pupils_per_school == 60
    with_plan = cohorts["floor"].pupils.query("sen_status == 'E'")
    assert (with_plan["outcome"] == 0).mean() == pytest.approx(1 / 3, abs=0.01)


def test_clustered_need_is_shared_by_neighbours_and_feeder_need_is_not() -> None:
    between_schools = {}
    for scenario in ("clustered_feeder_need", "feeder_need"):
        cohort = world(schools=300, scenario=scenario)
        need = cohort.pupils.merge(cohort.feeders[["feeder", "local_need"]], on="feeder")
        by_school = need.groupby("school")["local_need"].mean()
        between_schools[scenario] = by_school.var() / cohort.feeders["local_need"].var()
    assert between_schools["clustered_feeder_need"] > 0.3
    assert between_schools["feeder_need"] < 0.1


def test_a_label_that_helps_makes_lenient_schools_better_for_pupils_with_need() -> None:
    plain, helped = (world(schools=300, scenario=name).truth for name in ("independent", "helpful_label"))
    gain = helped["theta_sd"] - plain["theta_sd"]
    assert gain.corr(helped["leniency"]) > 0.8
    assert 0 < gain.std() < 0.1


def test_severity_lowers_outcomes_by_delta_and_by_its_persistence() -> None:
    # -.25 * .7 = -.175 where need evolves; the statistical design, section 5, has -.17.
    for scenario, delta in (("independent", -0.25), ("evolving_need", -0.175), ("delta_zero", 0.0)):
        cohort = world(schools=300, scenario=scenario)
        X, names = _design(cohort, severity=True)
        slope = np.linalg.lstsq(X, cohort.pupils["outcome"], rcond=None)[0][names.index("severity")]
        # Clipping at 0 and 90 takes about 2 % off; the standard error is .004.
        assert slope / cohort.scenario.outcome_sd == pytest.approx(delta, abs=0.015)


def test_few_outcomes_are_clipped(default: SimulatedCohort) -> None:
    assert float(default.attrs["clipped_share"]) < 0.01


def _design(cohort: SimulatedCohort, *, severity: bool) -> tuple[np.ndarray, list[str]]:
    pupils, truth = cohort.pupils, cohort.pupil_truth
    prior = (pupils["prior"] - float(cohort.attrs["reference_prior"])) / PRIOR_SD
    columns = {
        "one": np.ones(len(pupils)),
        "need": truth["has_need"],
        "prior": prior,
        "prior2": prior**2,
        "male": pupils["sex"] == "M",
        **{name: pupils[name] for name in ("fsm6", "eal", "idaci", "looked_after")},
        **{group: pupils["ethnicity"] == group for group in ("Asian", "Black", "Mixed", "Other")},
    }
    if severity:
        columns["severity"] = truth["severity"]
    return np.column_stack([np.asarray(values, dtype=float) for values in columns.values()]), list(columns)


def _oracle(cohort: SimulatedCohort) -> tuple[np.ndarray, np.ndarray]:
    """Best linear prediction of theta (points) and its SD, with every parameter but the school effects known."""
    scenario, need = cohort.scenario, cohort.pupil_truth["has_need"].to_numpy(dtype=float)
    X, names = _design(cohort, severity=True)
    y = cohort.pupils["outcome"].to_numpy()
    residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    sd = scenario.outcome_sd * np.where(need == 1, scenario.residual_sd_need, scenario.residual_sd)
    Z = np.column_stack([np.ones(len(y)), need, X[:, names.index("prior")]]) / sd[:, None]  # (n, 3)
    precision = np.diag(1 / (scenario.outcome_sd * np.array([scenario.u_sd, scenario.s_sd, scenario.slope_sd])) ** 2)
    start = np.flatnonzero(np.r_[True, np.diff(cohort.pupils["school"]) != 0])
    ZZ = np.add.reduceat(Z[:, :, None] * Z[:, None, :], start)  # (schools, 3, 3)
    Zr = np.add.reduceat(Z * (residual / sd)[:, None], start)
    covariance = np.linalg.inv(ZZ + precision)
    effects = (covariance @ Zr[:, :, None])[:, :, 0]
    weights = np.array([1.0, 1.0, 0.0])
    return effects @ weights, np.sqrt(weights @ covariance @ weights)


def test_an_oracle_recovers_theta_with_the_right_cover(default: SimulatedCohort) -> None:
    mean, sd = _oracle(default)
    theta = default.truth["theta"].to_numpy()
    # The statistical design, section 8, has a correlation of .906 for an oracle that does not know severity.
    assert np.corrcoef(mean, theta)[0, 1] > 0.85
    # The standard error of cover over 1,000 schools is .007.
    assert np.mean(np.abs(mean - theta) < 1.96 * sd) == pytest.approx(0.95, abs=0.02)
    assert np.polyfit(mean, theta, 1)[0] == pytest.approx(1.0, abs=0.05)


def test_default_is_within_tolerance_of_published_figures(default: SimulatedCohort) -> None:
    table = calibration_table(default)
    assert (
        table.loc[~table["within"], ["quantity", "target", "achieved"]].to_string()
        == table.iloc[:0][["quantity", "target", "achieved"]].to_string()
    )
    assert (table["source"].str.len() > 20).all()


def test_a_world_unlike_england_is_reported_as_such() -> None:
    table = calibration_table(world(schools=100, scenario="small_schools")).set_index("quantity")
    assert not table.loc["pupils a school, mean, 2018/19", "within"]


def test_unknown_names_are_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'magnets'\?.*independent, magnets, lenient_better"):
        world(scenario="magnet")
    with pytest.raises(InputError, match=r"Did you mean 'scattered'\?.*five_feeders, nearly_nested"):
        world(geography="scatered")


def test_sizes_that_are_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="schools: rule broken: at least 10; values 2"):
        world(schools=2)
    with pytest.raises(InputError, match="pupils_per_school: rule broken: at least 5; values 1"):
        world(pupils_per_school=1)


def test_parameters_of_ones_own_are_taken() -> None:
    cohort = world(**SMALL, scenario=replace(SCENARIOS["independent"], name="flat", u_sd=0.0, s_sd=0.0))
    assert (cohort.truth["theta"] == 0).all()
    assert str(cohort.attrs["title"]).startswith("Synthetic cohort: flat,")


def test_synthetic_is_said_wherever_the_cohort_appears(tmp_path: Path) -> None:
    cohort = world(7, **SMALL, scenario="magnets", geography="five_feeders")
    study = tomllib.loads(write_cohort(cohort, tmp_path / "demo").read_text(encoding="utf-8"))
    assert cohort.attrs["synthetic"] is True
    assert study["study"] == {
        "title": "Synthetic cohort: magnets, five_feeders, seed 7",
        "synthetic": True,
    }
    metadata = pq.read_metadata(tmp_path / "demo" / "pupils.parquet").metadata
    assert metadata[b"synthetic"] == b"true"
    assert metadata[b"title"].startswith(b"Synthetic cohort")


def test_written_study_names_columns_that_exist(tmp_path: Path) -> None:
    study = tomllib.loads(write_cohort(world(**SMALL), tmp_path / "demo").read_text(encoding="utf-8"))
    columns = set(pq.read_schema(tmp_path / "demo" / study["data"]["file"]).names)
    for role, value in study["roles"].items():
        names = [value] if isinstance(value, str) else value
        assert {name.removeprefix("C(").removesuffix(")") for name in names} <= columns, role
    truth = pd.read_csv(tmp_path / "demo" / "truth.csv")
    assert {"school", "theta", "u", "s", "leniency", "intake_need"} <= set(truth.columns)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_cohort(world(3, **SMALL, scenario="missing_entry"), tmp_path / name)
    for file in ("pupils.parquet", "truth.csv", "study.toml"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_a_previous_simulation_is_replaced_and_anything_else_refused(tmp_path: Path) -> None:
    write_cohort(world(1, **SMALL), tmp_path / "demo")
    write_cohort(world(2, **SMALL), tmp_path / "demo")
    assert "seed 2" in (tmp_path / "demo" / "study.toml").read_text(encoding="utf-8")
    (tmp_path / "demo" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"previous simulation and nothing else.*notes\.txt"):
        write_cohort(world(3, **SMALL), tmp_path / "demo")
    assert "seed 2" in (tmp_path / "demo" / "study.toml").read_text(encoding="utf-8")

    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "pupils.parquet").write_bytes(b"real pupils")
    with pytest.raises(InputError, match=r"pupils\.parquet.*Name a new directory"):
        write_cohort(world(**SMALL), tmp_path / "real")
    assert (tmp_path / "real" / "pupils.parquet").read_bytes() == b"real pupils"

    with pytest.raises(InputError, match="is a file"):
        write_cohort(world(**SMALL), tmp_path / "demo" / "notes.txt")
