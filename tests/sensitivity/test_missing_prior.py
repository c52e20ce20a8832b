"""Missing prior attainment from records to tables: what is refitted, what is pooled, what a shift does."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError, NotSupportedError
from send_va.identification.labels import read_labels
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.sensitivity.completed_fits import CompletedFits, FitPlan, between_schools, fit_estimators
from send_va.sensitivity.imputation import impute
from send_va.sensitivity.incomplete_records import read_incomplete
from send_va.sensitivity.missing_prior import MOSTLY_IMPUTED, MissingPrior, missing_prior
from send_va.sensitivity.missing_prior_tables import tipping_delta
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.pupil_design import pupil_design

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "la": "la",
    "feeder": "feeder",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "sen_status_entry": "sen_status_entry",
    "context": ["fsm6", "idaci", "C(sex)"],
}
SMALL = {"context": "prior", "imputations": 3, "deltas": (-0.5, 0.0, 0.5), "draws": 60, "prior_knots": 0, "seed": 2}


def pupils_with_gaps(schools: int = 30, size: float = 40.0) -> pd.DataFrame:
    """Every second school lacks the prior scores of 40 % of its pupils; the last school those of nearly all."""
    pupils = simulate(np.random.default_rng(1), schools=schools, pupils_per_school=size).pupils
    pupils["prior"] = pupils["prior"].astype(float)
    rng = np.random.default_rng(2)
    share = np.where(pupils["school"] % 2 == 0, 0.4, 0.0)
    last = pupils["school"] == pupils["school"].max()
    pupils.loc[rng.random(len(pupils)) < np.where(last, 0.9, share), "prior"] = np.nan
    return pupils


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    return pupils_with_gaps()


@pytest.fixture(scope="module")
def found(pupils: pd.DataFrame) -> MissingPrior:
    return missing_prior(Cohort.from_pandas(pupils, ROLES, synthetic=True), **SMALL)


def test_tables_say_what_the_effects_say(found: MissingPrior, pupils: pd.DataFrame) -> None:
    steps = found.by_delta.set_index("delta")
    assert list(steps.index) == [-0.5, 0.0, 0.5] and steps.loc[0.0, "changed_from_mar"] == 0.0
    pooled, complete = found.effects["labelled", 0.5], found.complete["labelled"]
    theta, before = (part.data["mean"].sel(measure="theta").to_numpy() for part in (pooled, complete))
    assert steps.loc[0.5, "correlation"] == pytest.approx(np.corrcoef(theta, before)[0, 1])
    assert steps.loc[0.5, "mean_change"] == pytest.approx(np.abs(theta - before).mean() / complete.attrs["outcome_sd"])
    fifths = [pd.qcut(part, 5, labels=False) for part in (theta, before)]
    assert steps.loc[0.5, "changed"] == pytest.approx(np.mean(fifths[0] != fifths[1]))
    rows = found.schools[found.schools["delta"] == 0.5].set_index("school")
    assert rows["quintile"].value_counts().tolist() == [6] * 5
    assert rows["mean"].idxmax() in rows.index[rows["quintile"] == 1]
    gone = pupils[pupils["prior"].isna()].groupby(pupils["school"].astype(str)).size()
    assert rows["n_imputed"].sum() == gone.sum() and rows.loc[gone.index, "n_imputed"].tolist() == gone.tolist()


def test_effects_are_of_all_pupils_and_say_what_was_done(found: MissingPrior, pupils: pd.DataFrame) -> None:
    pooled, complete = found.effects["labelled", 0.0], found.complete["labelled"]
    assert int(pooled.data["n_pupils"].sum()) == len(pupils) > int(complete.data["n_pupils"].sum())
    assert pooled.attrs["imputations"] == 3 and pooled.attrs["delta"] == 0.0 and pooled.attrs["n_left_out"] == 0
    assert pooled.data.sizes["draw"] == 60 and pooled.attrs["synthetic"] == 1
    flags = dict(zip(pooled.schools, pooled.data["flag"].to_numpy(), strict=True))
    half = pupils["prior"].isna().groupby(pupils["school"].astype(str)).mean() >= 0.5
    assert half[str(pupils["school"].max())]
    assert flags == {school: MOSTLY_IMPUTED if most else "" for school, most in half.items()}
    information = found.information[found.information["measure"] == "u"].set_index("school")["fraction_missing"]
    even = pd.Series(information.index.astype(int) % 2 == 0, index=information.index)
    assert information[even].mean() > 3.0 * information[~even].mean()
    assert found.coefficients["fraction_missing"].between(0.0, 1.0).all()
    assert "have something missing" in found.notes[0] and "change quintile" in str(found)


def test_lower_scores_flatter_the_schools_that_lack_them(found: MissingPrior) -> None:
    rows = found.schools.pivot_table("mean", "school", "delta")
    imputed = found.schools.drop_duplicates("school").set_index("school")["n_imputed"]
    gain = (rows[-0.5] - rows[0.5]).loc[imputed.index]
    assert gain[imputed > 0].mean() > 0.0 > gain[imputed == 0].mean()
    assert np.corrcoef(gain, imputed)[0, 1] > 0.8


@pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
def test_filled_rows_give_what_reading_all_records_again_gives() -> None:
    """Cross-products, pupil rows, school means and predictors of need, each put in place, against a fresh read."""
    pupils = pupils_with_gaps(25, 40.0)
    pupils.loc[::37, "idaci"] = np.nan
    pupils.loc[::41, "sex"] = None
    records = read_incomplete(Cohort.from_pandas(pupils, ROLES))
    drawn = impute(records, imputations=2)
    plan = FitPlan(("labelled", "entry"), "composition", draws=4, identification_draws=0, prior_knots=2)
    fits = CompletedFits.of(records, plan, drawn.completed(0))
    placed = fits.fit(drawn.completed(1, 0.3), np.random.default_rng(1))

    cohort = records.cohort(drawn.completed(1, 0.3))
    profile = replace(cohort.profile(2), priors=records.cohort().profile(2).priors)
    context = context_columns(cohort, profile)
    labels = read_labels(cohort, profile, context)
    assert fits.need is not None
    known = fits.need.labels
    x = (labels.x * labels.x_sd + labels.x_mean - known.x_mean) / known.x_sd
    need = replace(fits.need, labels=replace(known, x=x))
    data, design = labelled_products(cohort, profile, context), pupil_design(cohort, profile, context)
    fresh = fit_estimators(data, design, need, plan, np.random.default_rng(1), records)
    for name in plan.estimators:
        for what in ("mean", "estimate", "se"):  # sums are taken in another order: rounding, no more
            ours, theirs = placed[name].effects.data[what], fresh[name].effects.data[what]
            np.testing.assert_allclose(ours, theirs, atol=1e-7)
    again = fits.fit(drawn.completed(1, 0.3), np.random.default_rng(1))
    assert again["labelled"].effects.draws().tobytes() == placed["labelled"].effects.draws().tobytes()
    spread = between_schools(placed["entry"])
    assert spread["theta"] > 0.0 and set(spread) == {"theta", "u", "gap"}


def test_tipping_points() -> None:
    size = np.array([0.0, 0.25, 0.5])
    assert np.isnan(tipping_delta(size, np.array([0.0, 0.01, 0.02]), 0.05))
    assert tipping_delta(size, np.array([0.0, 0.10, 0.02]), 0.05) == pytest.approx(0.125)
    assert tipping_delta(size[:1], np.zeros(1), 0.05) != tipping_delta(size[:1], np.zeros(1), 0.05)  # missing


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"deltas": (0.5,)}, "0 \\(no shift\\) has to be among them"),
        ({"deltas": (0.0, float("nan"))}, "finite shifts"),
        ({"shifted": ("K",)}, "none, support, ehcp"),
        ({"shifted": ()}, "empty"),
        ({"tolerance": 0.0}, "tolerance between 0 and 1"),
        ({"draws": 1}, "at least 2"),
        ({"imputations": 1}, "at least 2"),
        ({"imputations": 0}, "at least 2"),
        ({"identification_draws": 1}, "identification_draws"),
        ({"context": "none"}, "no context"),
    ],
)
def test_settings_out_of_range_are_refused(pupils: pd.DataFrame, changed: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        missing_prior(Cohort.from_pandas(pupils, ROLES), **(SMALL | changed))


def test_estimators_that_are_not_carried_through_are_refused(pupils: pd.DataFrame) -> None:
    with pytest.raises(NotSupportedError, match="label_free"):
        missing_prior(Cohort.from_pandas(pupils, ROLES), estimators=("label_free",), **SMALL)


def test_a_score_that_nobody_has_is_refused_with_the_reason(pupils: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"prior: is missing for all pupils.*2020 and 2021"):
        missing_prior(Cohort.from_pandas(pupils.assign(prior=np.nan), ROLES), **SMALL)
