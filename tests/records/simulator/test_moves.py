"""Moves between schools: who counts where, what the truth is, and that cohorts without moves stay as they were."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.records.check import check_cohort
from send_va.records.reader import open_cohort
from send_va.records.simulator import SCENARIOS, SimulatedCohort, simulate, with_moves, write_cohort
from send_va.study import load_study


def still(scenario: str = "independent", schools: int = 40, size: float = 60.0) -> SimulatedCohort:
    return simulate(np.random.default_rng(1), schools=schools, scenario=scenario, pupils_per_school=size)


def test_rows_fit_together() -> None:
    before, moved = still(), with_moves(still(), np.random.default_rng(2))
    rows = moved.pupils
    at_end, earlier = rows[rows["on_roll_at_end"] == 1], rows[rows["on_roll_at_end"] == 0]
    assert len(at_end) == len(before.pupils) and len(earlier) > 100
    assert at_end["pupil"].equals(before.pupils["pupil"])
    assert not rows.duplicated(["pupil", "school"]).any()
    terms = rows.groupby("pupil")["terms_on_roll"]
    assert rows["terms_on_roll"].between(1, 15).all() and terms.sum().max() == 15
    assert (terms.sum()[earlier["pupil"]] == 15).all()
    came_from = before.pupils.set_index("pupil")["school"]
    assert (earlier["school"].to_numpy() == came_from[earlier["pupil"]].to_numpy()).all()
    assert moved.pupil_truth["pupil"].tolist() == rows["pupil"].tolist()
    la = moved.truth.set_index("school")["la"]
    assert (rows["la"].to_numpy() == la[rows["school"]].to_numpy()).all()
    to = at_end.set_index("pupil").loc[earlier["pupil"], "la"].to_numpy()
    several = la.map(la.value_counts()).loc[earlier["school"]].to_numpy() > 1
    assert (to == earlier["la"].to_numpy())[several].all()
    assert moved.truth["n_pupils"].tolist() == at_end.groupby("school").size().tolist()


def test_truth_stays_and_outcomes_share_it_out() -> None:
    before, moved = still("unequal_variance"), with_moves(still("unequal_variance"), np.random.default_rng(2))
    truth = before.truth.set_index("school")
    pd.testing.assert_series_equal(moved.truth["theta"], before.truth["theta"])
    n = len(before.pupils)
    old, new = before.pupils, moved.pupils.iloc[:n]
    share = 1 - new["terms_on_roll"] / 15
    has_need = before.pupil_truth["has_need"].to_numpy()
    assert isinstance(before.attrs["reference_prior"], float)
    from_reference = (old["prior"] - before.attrs["reference_prior"]).to_numpy()

    def added(school: pd.Series) -> np.ndarray:
        own = truth.loc[school]
        return own["u"].to_numpy() + own["s"].to_numpy() * has_need + own["prior_slope"].to_numpy() * from_reference

    came = np.isin(new["pupil"], moved.pupils["pupil"].iloc[n:])
    gain = np.where(came, (1 - share) * (added(new["school"]) - added(old["school"])), -share * added(old["school"]))
    expected = (old["outcome"].to_numpy() + gain).clip(0, 90)
    np.testing.assert_allclose(new["outcome"], expected, atol=0.0051)  # rounded to two decimals
    assert (new["outcome"] == old["outcome"])[(share == 0).to_numpy()].all()


def test_leaver_rates_are_those_published() -> None:
    moved = with_moves(still(schools=300, size=174.5), np.random.default_rng(2))
    # FFT Education Datalab, Who's left (2017), year group of 2014/15: median about 13.5 %, three schools above 50 %
    assert moved.attrs["median_leaver_rate"] == pytest.approx(0.135, abs=0.012)
    assert moved.truth["leaver_rate"].quantile(0.99) < 0.5
    rows = moved.pupils
    left = rows[rows["on_roll_at_end"] == 0].groupby("school").size()
    rate = (left / rows.groupby("school").size()).fillna(0.0)
    np.testing.assert_allclose(moved.truth["leaver_rate"], rate)


def test_losing_schools_lose_those_with_low_progress_late() -> None:
    before = still()
    moved = with_moves(
        before, np.random.default_rng(2), leaver_rate=0.0, joiner_share=0.0, losing_schools=0.25, lost_share=0.1
    )
    assert (moved.truth["lost_late"] > 0).sum() == 10
    earlier = moved.pupils[moved.pupils["on_roll_at_end"] == 0]
    assert earlier["terms_on_roll"].between(11, 13).all() and len(earlier) == moved.truth["lost_late"].sum()
    own = before.pupils.set_index("pupil")
    fitted = np.polyval(np.polyfit(own["prior"], own["outcome"], 2), own["prior"])
    progress = own["outcome"] - fitted
    lost = own.index.isin(earlier["pupil"])
    highest_lost, lowest_kept = (
        progress[lost].groupby(own["school"]).max(),
        progress[~lost].groupby(own["school"]).min(),
    )
    assert len(highest_lost) == 10 and (highest_lost <= lowest_kept[highest_lost.index]).all()


def test_a_cohort_without_moves_keeps_its_bytes(tmp_path: Path) -> None:
    first = still()
    study = write_cohort(first, tmp_path / "first")
    moved = with_moves(first, np.random.default_rng(2))
    write_cohort(still(), tmp_path / "second")
    for name in ("pupils.parquet", "truth.csv", "study.toml"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert "roll" not in study.read_text()
    again = with_moves(still(), np.random.default_rng(2))
    assert again.pupils.equals(moved.pupils) and again.truth.equals(moved.truth)
    assert not with_moves(first, np.random.default_rng(3)).pupils.equals(moved.pupils)


def test_a_written_cohort_is_a_study(tmp_path: Path) -> None:
    moved = with_moves(still(schools=12, size=20.0), np.random.default_rng(2))
    study = load_study(write_cohort(moved, tmp_path / "moved"))
    assert study.roles.terms_on_roll == "terms_on_roll" and study.roles.on_roll_at_end == "on_roll_at_end"
    cohort = open_cohort(tmp_path / "moved" / "pupils.parquet", study.roles)
    assert cohort.n_rows == (moved.pupils["on_roll_at_end"] == 1).sum()
    assert check_cohort(cohort).ok


def test_pupils_without_points_stay_without() -> None:
    before = still("floor")
    zero = (before.pupils["outcome"] == 0).to_numpy()
    assert zero.sum() > 5
    after = with_moves(before, np.random.default_rng(2), leaver_rate=0.4).pupils.iloc[: len(zero)]
    assert (after["outcome"][zero] == 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"leaver_rate": 0.5}, "leaver_rate must be 0 or more and below .5"),
        ({"joiner_share": 1.2}, "joiner_share must lie between 0 and 1"),
        ({"losing_schools": -0.1}, "losing_schools must lie between"),
        ({"lost_share": 2.0}, "lost_share must lie between"),
    ],
)
def test_bad_input(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        with_moves(still(schools=12, size=20.0), np.random.default_rng(2), **options)


def test_moves_are_laid_once() -> None:
    moved = with_moves(still(schools=12, size=20.0), np.random.default_rng(2))
    with pytest.raises(InputError, match="has moves already"):
        with_moves(moved, np.random.default_rng(2))
    assert "with moves" in str(moved.attrs["title"]) and SCENARIOS["independent"] == moved.scenario
