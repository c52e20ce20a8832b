"""Trimming bounds of schools: against re-estimating with pupils taken out, and against what is known of the makers."""

import numpy as np
import pandas as pd
import pytest
from tipping_world import labelled, of, world

from send_va.errors import InputError
from send_va.identification.tables import national_standard
from send_va.records.reader import Cohort
from send_va.sensitivity.held_estimators import hold_labelled
from send_va.sensitivity.school_bounds import FEWER_KEPT, FEWER_LABELLED, TOO_FEW, attrition_bounds, label_bounds
from send_va.validation.recovery import ROLES
from send_va.value_added.labelled import fit_labelled


@pytest.fixture(scope="module")
def standard() -> pd.DataFrame:
    need = world().need
    return national_standard(need, {"school": (need.labels.school, need.labels.schools)})


@pytest.fixture(scope="module")
def table(standard: pd.DataFrame) -> pd.DataFrame:
    return label_bounds(labelled(), world().need, standard=standard).table


def test_untrimmed_estimates_are_the_unshrunken_ones_of_the_published_fit(table: pd.DataFrame) -> None:
    fit = fit_labelled(world().data, "cva", rng=np.random.default_rng(1), draws=2)
    published = fit.effects.data["estimate"].sel(measure="theta").to_numpy()
    np.testing.assert_allclose(table["estimate"], published, rtol=1e-8, atol=1e-8)


def test_who_is_bounded_and_by_how_much_is_trimmed(table: pd.DataFrame, standard: pd.DataFrame) -> None:
    on = table["applicable"]
    more = standard["labelled_now"] > standard["expected"]
    assert 5 < on.sum() < 35 and (on <= more).all()
    np.testing.assert_allclose(
        table.loc[on, "share_trimmed"], 1 - (standard["expected"] / standard["labelled_now"])[on], rtol=1e-12
    )
    assert set(table.loc[~on, "reason"]) <= {FEWER_LABELLED, TOO_FEW} and table.loc[~on, "lower"].isna().all()
    assert table.loc[~on, "sign_known"].isna().all() and table.loc[~on, "quintile_lower"].isna().all()
    assert (table.loc[on, "lower"] < table.loc[on, "estimate"]).all()
    assert (table.loc[on, "estimate"] < table.loc[on, "upper"]).all()
    assert (table.loc[on, "quintile_upper"] <= table.loc[on, "quintile_lower"]).all()
    assert (table.loc[on, "interval_lower"] < table.loc[on, "lower"]).all()


def test_the_bound_is_the_estimate_without_the_pupils_cut_off(table: pd.DataFrame) -> None:
    """By hand for one school: its labelled pupils in order of residuals, whole ones out, one counted in part."""
    held = labelled()
    equation = held.equations["cva"]
    j = int(table.loc[table["applicable"], "share_trimmed"].idxmax())
    residual = equation.left_over - held.columns_before @ equation.need_beta
    own = np.flatnonzero((equation.codes == j) & (held.columns_before[:, 0] > 0))
    for end, order in (("lower", np.argsort(residual[own])), ("upper", np.argsort(-residual[own]))):
        left = len(own) * (1 - table["share_trimmed"].iloc[j])
        weight = np.ones(len(residual))
        for place, pupil in enumerate(own[order]):
            weight[pupil] = min(max(left - place, 0.0), 1.0)
        by_hand = held.with_columns(held.columns_before, weight)["cva"].own
        assert table[end].iloc[j] == pytest.approx(by_hand.estimate["theta"][j], abs=1e-10)
        assert table[f"{end}_se"].iloc[j] > by_hand.se["theta"][j]


def test_bounds_hold_what_the_pupils_labelled_before_give_when_a_school_labels_more() -> None:
    """Schools add labels to pupils drawn at random; with those pupils out, the estimate lies between the bounds."""
    known = world()
    pupils, rng = known.simulated.pupils, np.random.default_rng(2)
    school, had = pupils["school"].astype(str), pupils["sen_status"] != "N"
    more = school.isin(known.labels.schools[:12]) & ~had & (rng.uniform(size=len(pupils)) < 0.1)
    changed = pupils.assign(sen_status=pupils["sen_status"].mask(more, "K"))
    again = of(known.simulated, Cohort.from_pandas(changed, ROLES, synthetic=True), known.need)
    held = hold_labelled(again.design, again.labels, again.data, ["cva"])
    names = list(again.labels.schools)
    standard = pd.DataFrame({"level": "school", "name": names, "n_pupils": again.design.n_pupils})
    standard["labelled_now"] = (had | more).groupby(school).sum().loc[names].to_numpy()
    standard["expected"] = had.groupby(school).sum().loc[names].to_numpy(dtype=float)
    standard = standard.assign(lower=standard["expected"], upper=standard["expected"], flag="")
    table = label_bounds(held, known.need, standard=standard).table
    out = more.to_numpy()[again.labels.row_number - 1][again.design.order]
    without = held.with_columns(held.columns_before, np.where(out, 0.0, 1.0))["cva"].own.estimate["theta"]
    extra = table.index[table["applicable"]]
    assert len(extra) >= 10
    assert (table["lower"] <= without + 1e-9)[extra].all() and (without - 1e-9 <= table["upper"])[extra].all()
    assert (np.abs(table["estimate"] - without)[extra] > 0.01).any()


def test_attrition_trims_schools_that_keep_more_and_needs_the_records_of_those_lost() -> None:
    known = world()
    with pytest.raises(InputError, match="lacks an outcome"):
        attrition_bounds(labelled(), known.cohort)
    pupils = known.simulated.pupils
    schools = pupils["school"].astype(str)
    losing = schools.isin(known.labels.schools[:20])
    rng = np.random.default_rng(5)
    lost = losing & (pupils["sen_status"] != "N") & (rng.uniform(size=len(pupils)) < 0.25)
    cohort = Cohort.from_pandas(pupils.assign(outcome=pupils["outcome"].mask(lost)), ROLES)
    again = of(known.simulated, cohort, known.need)
    held = hold_labelled(again.design, again.labels, again.data, ["cva"])
    found = attrition_bounds(held, again.cohort)
    send = pupils[pupils["sen_status"] != "N"]
    kept = 1 - lost[send.index].groupby(send["school"].astype(str)).mean()
    national = 1 - lost[send.index].mean()
    table = found.table.set_index("school")
    whole = table.loc[kept[kept == 1].index]
    enough = whole["n_labelled"] * national >= 1
    assert (whole["applicable"] == enough).all() and (whole.loc[~enough, "reason"] == TOO_FEW).all()
    np.testing.assert_allclose(whole.loc[enough, "share_trimmed"], 1 - national, rtol=1e-12)
    np.testing.assert_allclose(table["share"], kept.loc[table.index], rtol=1e-12)
    assert (table.loc[kept[kept < national].index, "reason"] == FEWER_KEPT).all()
    assert "keep the outcome of more" in str(found) and "<table" in found._repr_html_()


def test_nobody_bounded_is_said_and_another_context_or_cohort_refused(standard: pd.DataFrame) -> None:
    none = label_bounds(labelled(), world().need, standard=standard.assign(expected=standard["labelled_now"] + 1.0))
    assert str(none).startswith("No school of 40 can be bounded")
    with pytest.raises(InputError, match="holds cva"):
        label_bounds(labelled(), world().need, "prior", standard=standard)
    with pytest.raises(InputError, match="holds cva"):
        attrition_bounds(labelled(), world().cohort, "prior")
