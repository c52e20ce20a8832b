"""Weighting by terms on roll: nothing moves where all terms are here, brute force, known truth, bad input."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.identification.labels import read_labels
from send_va.identification.need import Need, estimate_need
from send_va.records.design_columns import INTERCEPT, ContextColumns
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.records.simulator import SCENARIOS, SimulatedCohort, simulate, with_moves
from send_va.sensitivity.roll_design import design_by_roll, read_roll, strata_by_roll
from send_va.sensitivity.weighted_by_roll import NOT_A_FINDING, RollWeighting, roll_weighting
from send_va.validation.recovery import ROLES
from send_va.value_added.changing_products import NeedColumns
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design
from send_va.value_added.residual_variance import fit_weighted

BARE = replace(ROLES, context=("fsm6", "idaci"))
ROLL = replace(BARE, terms_on_roll="terms_on_roll", on_roll_at_end="on_roll_at_end")
# Labels that follow need alone: what is left between estimate and truth is not leniency.
SAME_THRESHOLD = replace(SCENARIOS["independent"], leniency_school_sd=0.0, leniency_feeder_sd=0.0, leniency_la_sd=0.0)


def opened(pupils: pd.DataFrame) -> tuple[Cohort, CohortProfile, ContextColumns]:
    cohort = Cohort.from_pandas(pupils, ROLL, synthetic=True)
    profile = cohort.profile(2)
    return cohort, profile, context_columns(cohort, profile)


@cache
def world(schools: int = 40, size: float = 40.0, moves: bool = True) -> SimulatedCohort:
    still = simulate(np.random.default_rng(2), schools=schools, pupils_per_school=size)
    return with_moves(still, np.random.default_rng(3)) if moves else still


def staying() -> pd.DataFrame:
    return world(moves=False).pupils.assign(terms_on_roll=15, on_roll_at_end=1)


@cache
def those_who_stay() -> tuple[Cohort, CohortProfile, ContextColumns, Need]:
    read = opened(staying())
    return *read, need_of(*read)


def need_of(cohort: Cohort, profile: CohortProfile, columns: ContextColumns) -> Need:
    return estimate_need(read_labels(cohort, profile, columns), seed=1, draws=0)


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")  # 1,600 pupils: slopes may have no variance
def test_all_terms_at_one_school_change_nothing_at_all() -> None:
    cohort, profile, columns, need = those_who_stay()
    seen: list[int] = []
    names, contexts = ["labelled", "entry", "label_free"], ["prior", "composition"]
    found = roll_weighting(cohort, profile, columns, need, estimators=names, contexts=contexts, progress=seen.append)
    assert seen == [1, 2, 3]
    table = found.table
    pd.testing.assert_series_equal(table["theta"], table["theta_roll_weighted"], check_names=False, check_exact=True)
    assert (table["place"] == table["place_roll_weighted"]).all()
    assert (table["mean_terms"] == 15).all() and (table["share_left"] == 0).all()
    assert found.headline["quintile_changes"].eq(0.0).all() and found.headline["converged"].all()
    assert found.headline["rank_correlation"].to_numpy() == pytest.approx(1.0)
    assert found.headline["change_with_mean_terms"].isna().all()
    assert len(table) == 3 * 2 * 40
    # and theta without weights is what is published, to the last bit
    data = labelled_products(cohort, profile, columns)
    for context in ("prior", "composition"):
        published = fit_labelled(data, context, rng=np.random.default_rng(1), draws=2).effects
        own = table[(table["estimator"] == "labelled") & (table["context"] == context)]["theta"]
        assert np.array_equal(own, published.data["mean"].sel(measure="theta"))
    design = pupil_design(cohort, profile, columns).without_schools(np.flatnonzero(need.labels.component > 0))
    options = {"rng": np.random.default_rng(1), "draws": 2, "plug_in": True}
    for context, fit in fit_need(design, need.scores("entry"), "entry", contexts, **options).items():  # type: ignore[arg-type]
        own = table[(table["estimator"] == "entry") & (table["context"] == context)]["theta"]
        assert np.array_equal(own, fit.effects.data["mean"].sel(measure="theta"), equal_nan=True)


def test_rows_that_count_twice_are_two_rows() -> None:
    """Frequencies against brute force: the same pupils, some of them written down twice."""
    cohort, profile, columns, _ = those_who_stay()
    design = pupil_design(cohort, profile, columns)
    rng = np.random.default_rng(4)
    times = rng.integers(1, 3, len(design.rows))
    pi = rng.uniform(0.02, 0.98, len(design.rows))
    table = np.column_stack([pi, rng.standard_normal(len(pi))])
    counted = replace(design, frequencies=times.astype(float))
    taken = np.repeat(np.arange(len(times)), times)
    sizes = np.bincount(design.codes[taken], minlength=len(design.schools))
    written = replace(design, rows=design.rows[taken], starts=np.concatenate([[0], np.cumsum(sizes)]))
    for context in ("prior", "composition"):
        layout = NeedColumns.of(design, context, True, True)
        by_count = fit_weighted(counted, layout, table, 100.0)
        by_row = fit_weighted(written, layout, table[taken], 100.0)
        # REML stops at a relative tolerance: the two searches need not end at the same bit
        np.testing.assert_allclose(by_count.solution.llf, by_row.solution.llf, rtol=1e-9)
        np.testing.assert_allclose(by_count.solution.modes[0], by_row.solution.modes[0], atol=1e-5)
        np.testing.assert_allclose(by_count.residual.coefficients, by_row.residual.coefficients, rtol=1e-5)


def test_sums_are_those_of_a_loop_over_pupils() -> None:
    cohort, profile, columns = opened(world().pupils)
    strata = strata_by_roll(cohort, profile, columns)
    records = world().pupils.copy()
    at_end = records[records["on_roll_at_end"] == 1].set_index("pupil")
    records["outcome"] = at_end["outcome"].reindex(records["pupil"]).to_numpy()
    school = profile.schools.schools.index("900007")
    for level, code in enumerate("NKE"):
        own = records[(records["school"] == 900007) & (records["sen_status"] == code)]
        share = own["terms_on_roll"] / 15
        part = strata[level]
        one, y = part.index([INTERCEPT, "outcome"])
        centred = own["outcome"] - part.center[y]
        assert part.counts[school] == pytest.approx(share.sum())
        assert part.products[school, one, y] == pytest.approx((share * centred).sum())
        assert part.products[school, y, y] == pytest.approx((share * centred**2).sum())
    roll = read_roll(cohort, profile)
    ended = records[(records["school"] == 900007) & (records["on_roll_at_end"] == 1)]
    left = records[(records["school"] == 900007) & (records["on_roll_at_end"] == 0)]
    assert roll.mean_terms[school] == pytest.approx(ended["terms_on_roll"].mean())
    total = records.loc[records["school"] == 900007, "terms_on_roll"].sum()
    assert roll.share_left[school] == pytest.approx(left["terms_on_roll"].sum() / total)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.4))
def test_sharing_out_pupils_keeps_the_nation(seed: int, rate: float) -> None:
    """Whose every term is recorded counts as one pupil in all, wherever: national sums stay, those of schools move."""
    moved = with_moves(world(20, 20.0, False), np.random.default_rng(seed), leaver_rate=rate, joiner_share=0.0)
    cohort, profile, columns = opened(moved.pupils)
    design = pupil_design(cohort, profile, columns)
    shared = design_by_roll(design, read_roll(cohort, profile))
    assert shared.frequencies is not None
    np.testing.assert_allclose(shared.frequencies.sum(), len(design.rows))
    weighted = shared.rows.T @ (shared.rows * shared.frequencies[:, None])
    np.testing.assert_allclose(weighted, design.rows.T @ design.rows, rtol=1e-9, atol=1e-6)
    scores = np.random.default_rng(seed).uniform(size=design.n_scored)
    pi, _ = shared.ordered((scores, None))
    np.testing.assert_allclose((pi * shared.frequencies).sum(), scores.sum())


def bias(found: RollWeighting, moved: SimulatedCohort, column: str) -> tuple[float, float]:
    """Mean error of the schools that lost pupils with low progress over that of the others, and RMSE, in pupil SDs."""
    truth = moved.truth.set_index(moved.truth["school"].astype(str)).loc[found.table["school"]]
    error = (found.table[column].to_numpy() - truth["theta"].to_numpy()) / float(moved.attrs["pupil_sd"])  # type: ignore[arg-type]
    lost = truth["lost_late"].to_numpy() > 0
    return float(error[lost].mean() - error[~lost].mean()), float(np.sqrt((error**2).mean()))


def test_schools_that_lost_pupils_late_come_back_to_their_truth() -> None:
    still = simulate(np.random.default_rng(0), schools=100, scenario=SAME_THRESHOLD)
    moved = with_moves(still, np.random.default_rng(100), losing_schools=0.2, lost_share=0.08)
    found = roll_weighting(*opened(moved.pupils), contexts=["cva"])
    before, rmse_before = bias(found, moved, "theta")
    after, rmse_after = bias(found, moved, "theta_roll_weighted")
    # 8 % of pupils about 1.9 residual SDs below average raise those left by about .1 pupil SDs, less by shrinkage;
    # after weighting three or four terms of 15 of that remain, and chance between 20 schools (SE .03, mostly in both)
    assert before > 0.06
    assert abs(after) < 0.5 * before
    assert rmse_after < rmse_before
    headline = found.headline.iloc[0]
    assert headline["change_with_share_left"] < -0.1
    assert 0.0 < headline["quintile_changes"] < 0.5 and headline["rank_correlation"] > 0.9
    assert "Synthetic records." in str(found) and NOT_A_FINDING in str(found)
    assert "rank_correlation" in found._repr_html_()


def test_without_rows_of_schools_before_only_late_joiners_count_for_less() -> None:
    moved = world()
    pupils = moved.pupils[moved.pupils["on_roll_at_end"] == 1]
    roles = replace(BARE, terms_on_roll="terms_on_roll")
    cohort = Cohort.from_pandas(pupils, roles)
    profile = cohort.profile(2)
    found = roll_weighting(cohort, profile, context_columns(cohort, profile), contexts=["prior"])
    assert found.earlier == 0 and found.part_time == (pupils["terms_on_roll"] < 15).sum()
    assert (found.table["share_left"] == 0).all() and not found.table["change"].eq(0).all()
    assert "nobody counts where they left" in str(found)


def test_estimators_with_need_and_schools_that_cannot_be_compared() -> None:
    pupils = world().pupils.copy()
    apart = pupils["school"].isin([900001, 900002])  # two schools with feeders of their own, and moves to them none
    inside = pupils.loc[apart, "pupil"]
    pupils = pupils[apart | ~pupils["pupil"].isin(inside)]
    pupils.loc[pupils["school"].isin([900001, 900002]), "feeder"] += 50_000
    cohort, profile, columns = opened(pupils)
    need = need_of(cohort, profile, columns)
    found = roll_weighting(cohort, profile, columns, need, estimators=["entry", "labelled"], contexts=["cva"])
    assert found.headline["estimator"].tolist() == ["labelled", "entry"]
    assert found.headline["schools"].tolist() == [40, 38]
    assert found.unused > 0 and f"{found.unused:,} more could not be counted" in str(found)
    entry = found.table[found.table["estimator"] == "entry"].set_index("school")
    assert entry.loc[["900001", "900002"], ["theta", "theta_roll_weighted", "change"]].isna().all(axis=None)
    assert sorted(entry["place"].dropna()) == list(range(1, 39))
    assert entry.loc[entry["place"] == 1, "quintile"].item() == 1
    assert entry.loc[entry["place_roll_weighted"] == 38, "quintile_roll_weighted"].item() == 5
    assert entry["quintile"].value_counts().loc[[1, 2, 3, 4, 5]].between(7, 8).all()
    known = entry.dropna(subset="theta")
    np.testing.assert_allclose(known["change"], known["theta_roll_weighted"] - known["theta"])
    np.testing.assert_allclose(known["change_sd"] * profile.outcome.sd, known["change"])


def test_bad_input() -> None:
    cohort, profile, columns, need = those_who_stay()
    with pytest.raises(
        InputError, match=r"no estimator 'entry' .*There is labelled: the others need estimates of need"
    ):
        roll_weighting(cohort, profile, columns, estimators=["entry"])
    with pytest.raises(InputError, match="no context 'all'"):
        roll_weighting(cohort, profile, columns, contexts=["all"])
    for terms in (0, 16):
        wrong = opened(
            staying().assign(terms_on_roll=lambda frame, t=terms: frame["terms_on_roll"].mask(frame.index == 3, t))
        )
        with pytest.raises(InputError, match="terms_on_roll: is not above 0 and at most 15"):
            roll_weighting(*wrong)
    bare = Cohort.from_pandas(staying(), BARE)
    with pytest.raises(InputError, match="hold no terms on roll"):
        roll_weighting(bare, bare.profile(2), columns)
    fewer = opened(staying().iloc[:-30])
    with pytest.raises(InputError, match="complete pupils"):
        roll_weighting(*fewer, need, estimators=["entry"], contexts=["prior"])


def test_frequencies_follow_schools_left_out() -> None:
    cohort, profile, columns = opened(world().pupils)
    shared: PupilDesign = design_by_roll(pupil_design(cohort, profile, columns), read_roll(cohort, profile))
    fewer = shared.without_schools(np.array([0, 3]))
    assert shared.frequencies is not None and fewer.frequencies is not None
    assert len(fewer.frequencies) == len(fewer.rows) == int(fewer.n_pupils.sum())
    np.testing.assert_array_equal(fewer.frequencies, shared.frequencies[~np.isin(shared.codes, [0, 3])])
