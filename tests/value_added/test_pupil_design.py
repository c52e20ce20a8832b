"""The design in memory: the columns of the streamed labelled design, in order of schools, without any label."""

import numpy as np
import pandas as pd
import pytest
from true_scores import ROLES, design_of

from send_va.errors import InputError
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.value_added.design import context_columns, labelled_products


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    """In no order, one school without a complete pupil, one record incomplete elsewhere."""
    drawn = simulate(np.random.default_rng(4), schools=30, pupils_per_school=40).pupils
    drawn = drawn.sample(frac=1.0, random_state=1).reset_index(drop=True)
    drawn.loc[drawn["school"] == drawn["school"].min(), "outcome"] = np.nan
    drawn.loc[drawn.index[drawn["school"] == drawn["school"].max()][:1], "prior"] = np.nan
    return drawn


def test_products_are_those_of_the_streamed_design(pupils: pd.DataFrame) -> None:
    """Two ways from records to cross-products, to rounding."""
    design = design_of(pupils)
    cohort = Cohort.from_pandas(pupils, ROLES)
    profile = cohort.profile(3)
    streamed = labelled_products(cohort, profile, context_columns(cohort, profile))
    names = [name for name in design.columns if name != "prior_slope"]
    parts = [part.select(names) for part in streamed.strata]
    one = names.index("Intercept")
    # Back to sums of products of the columns as they are, whatever was subtracted.
    total = sum(part.total for part in parts)
    center = parts[0].center
    back = np.eye(len(names))
    back[:, one] += center
    raw = back @ total @ back.T
    at = [design.columns.index(name) for name in names]
    rows = design.rows[:, at] + design.center[at]
    np.testing.assert_allclose(rows.T @ rows, raw, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(design.n_pupils, streamed.counts.sum(axis=1))
    assert design.schools == streamed.schools
    assert design.n_left_out == streamed.n_left_out
    assert set(design.mean_names) < set(streamed.strata[0].columns)


def test_order_leads_back_to_the_records(pupils: pd.DataFrame) -> None:
    design = design_of(pupils)
    complete = pupils.dropna(subset=["outcome", "prior"])
    outcome = design.columns.index("outcome")
    np.testing.assert_allclose(
        design.rows[:, outcome] + design.center[outcome], complete["outcome"].to_numpy()[design.order], rtol=1e-12
    )
    schools = np.array(design.schools)[design.codes]
    assert (schools == complete["school"].astype(str).to_numpy()[design.order]).all()
    assert (np.diff(design.codes) >= 0).all()


def test_school_means_and_reference(pupils: pd.DataFrame) -> None:
    design = design_of(pupils)
    complete = pupils.dropna(subset=["outcome", "prior"])
    expected = complete.groupby(complete["school"].astype(str))["fsm6"].mean().reindex(design.schools)
    at = design.mean_names.index("school mean of fsm6")
    np.testing.assert_allclose(design.means[1:, at], expected[1:], rtol=1e-12)
    assert design.means[0, at] == pytest.approx(complete["fsm6"].mean())  # no complete pupil: the national mean
    weights = np.random.default_rng(1).uniform(size=len(complete))
    known = np.average(complete["prior"], weights=weights)
    assert design.prior_at(weights[design.order]) == pytest.approx(known, rel=1e-12)


def test_labels_do_not_touch_it(pupils: pd.DataFrame) -> None:
    """Whatever the rated school calls its pupils, the design is the same to the bit."""
    other = pupils.assign(sen_status=np.random.default_rng(2).choice(["N", "K", "E"], len(pupils)))
    first, second = design_of(pupils), design_of(other)
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.means, second.means)


def test_no_complete_pupil_is_refused(pupils: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="complete"):
        design_of(pupils.assign(outcome=np.nan))
