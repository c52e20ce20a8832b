"""The incentive audit: what each measure rewards, places by hand, what is not applicable, and what it refuses."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit_world import Records, need_of, records, without_entry, world

from send_va.errors import BoundaryWarning, InputError, NotSupportedError
from send_va.identification.need import Need
from send_va.identification.tables import NOT_CONNECTED
from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.incentives import IncentiveAudit, audit_incentives
from send_va.sensitivity.school_acts import ACTIONS, LABELLING_ACTS, ROLL_ACTS


def audit_of(base: Records, need: Need | None, **changes: Any) -> IncentiveAudit:
    wanted: dict[str, Any] = {"data": base.data, "contexts": ["cva"], "seed": 1} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return audit_incentives(base.design, base.labels, need=need, **wanted)


@cache
def audit() -> IncentiveAudit:
    return audit_of(records(), need_of())


def theta(action: str, estimator: str, roll_weighted: bool = False) -> pd.DataFrame:
    table = audit().table
    kept = (table["action"] == action) & (table["estimator"] == estimator) & (table["measure"] == "theta")
    return table[kept & (table["roll_weighted"] == roll_weighted)]


@pytest.mark.parametrize("estimator", ["entry", "label_free"])
@pytest.mark.parametrize("action", LABELLING_ACTS)
def test_labelling_gains_nothing_at_all_where_labels_now_are_not_used(action: str, estimator: str) -> None:
    table = audit().table
    rows = table[(table["action"] == action) & (table["estimator"] == estimator) & table["applicable"]]
    assert len(rows) > 100
    assert (rows["gain"] == 0.0).all()
    assert (rows["places_gained"] == 0.0).all()
    assert (rows["quintile_before"] == rows["quintile_after"]).all()


def test_labelled_rewards_labelling_and_standardised_a_third_of_it_at_most() -> None:
    labelled, standardised = (theta("label_more", name)["gain_sd"].mean() for name in ("labelled", "standardised"))
    assert labelled > 0.02
    assert 0.0 < standardised < labelled / 3.0
    verdicts = audit().verdicts.query("measure == 'theta' and acts == 'labelling'").set_index("estimator")["verdict"]
    assert verdicts.to_dict() == {
        "labelled": "fail",
        "standardised": "pass",
        "entry": "pass",
        "label_free": "pass",
    }
    assert theta("label_fewer", "labelled")["gain_sd"].mean() < 0.0


@pytest.mark.parametrize("estimator", ["labelled", "standardised", "entry", "label_free"])
def test_removing_pupils_moves_every_measure_and_roll_weighting_takes_most_of_it_back(estimator: str) -> None:
    for action in ("remove_lowest", "withdraw"):
        plain, weighted = theta(action, estimator), theta(action, estimator, roll_weighted=True)
        assert (plain["gain"].abs() > 1e-9).all()
        assert plain["gain"].mean() > 0.0
        # 2 of 15 terms are lost: about 13 % of the gain is left, more or less by school
        assert 0.05 < weighted["gain"].mean() / plain["gain"].mean() < 0.25
    never = theta("admit_fewer_ehcp", estimator), theta("admit_fewer_ehcp", estimator, roll_weighted=True)
    np.testing.assert_array_equal(never[0]["gain"], never[1]["gain"])  # no term on the roll, nothing to weight


def test_units_places_and_quintiles_are_what_they_say() -> None:
    rows = theta("remove_lowest", "labelled")
    before, after = rows["before"].to_numpy(), (rows["before"] + rows["gain"]).to_numpy()
    outcome_sd = records().design.outcome_sd
    np.testing.assert_allclose(rows["gain_sd"], rows["gain"] / outcome_sd)
    ratio = rows["gain_effect_sd"] / rows["gain_sd"]
    np.testing.assert_allclose(ratio, ratio.iloc[0])  # one SD of true effects for all
    for j in range(len(before)):
        others = np.delete(before, j)
        place, new = 1 + (others > before[j]).sum(), 1 + (others > after[j]).sum()
        assert rows["places_gained"].iloc[j] == place - new
        assert rows["quintile_before"].iloc[j] == 1 + (place - 1) * 5 // len(before)
        assert rows["quintile_after"].iloc[j] == 1 + (new - 1) * 5 // len(before)


def test_what_a_school_cannot_do_is_not_applicable_and_not_zero() -> None:
    base = records()
    plans = np.bincount(base.labels.school[base.labels.entry == 2], minlength=len(base.design.schools))
    rows = theta("admit_fewer_ehcp", "entry")
    assert (rows["applicable"].to_numpy() == (plans > 0)).all()
    assert (plans == 0).any()
    impossible = rows[~rows["applicable"]]
    assert set(impossible["reason"]) == {"no pupil with an EHCP before transfer"}
    assert impossible[["gain", "gain_sd", "gain_effect_sd", "places_gained", "quintile_after"]].isna().all(axis=None)
    assert (impossible["n_acted"] == 0).all()
    assert (rows[rows["applicable"]]["reason"] == "").all()


def test_schools_that_are_not_compared_cannot_gain_and_have_no_place() -> None:
    base, need = records(), need_of()
    component = np.zeros(len(base.design.schools), dtype=np.intp)
    component[[4, 9]] = 1
    labels = replace(base.labels, component=component)
    apart = replace(need, labels=replace(need.labels, component=component))
    found = audit_of(base, apart, contexts=["prior"], estimators=["labelled", "entry"])
    table = found.table[found.table["measure"] == "theta"].assign(place=lambda t: t["quintile_before"])
    of_two = table[table["school"].isin([base.design.schools[4], base.design.schools[9]])]
    entry = of_two[of_two["estimator"] == "entry"]
    assert set(entry["reason"]) == {NOT_CONNECTED}
    assert entry[["before", "gain", "place"]].isna().all(axis=None)
    labelled = of_two[(of_two["estimator"] == "labelled") & (of_two["action"] == "label_more")]
    assert labelled["applicable"].all()
    assert labels.component.sum() == 2


def test_same_seed_same_table_whatever_is_audited_with_it() -> None:
    base, need = records(), need_of()
    again = audit_of(base, need, estimators=["labelled", "entry"])
    pd.testing.assert_frame_equal(
        again.table.reset_index(drop=True),
        audit().table[audit().table["estimator"].isin(["labelled", "entry"])].reset_index(drop=True),
    )
    other = audit_of(base, need, estimators=["labelled"], seed=2)
    moved = other.table.merge(again.table, on=["school", "estimator", "measure", "action", "roll_weighted"])
    differs = ~np.isclose(moved["gain_x"], moved["gain_y"], equal_nan=True)
    assert set(moved[differs]["action"]) == {"remove_lowest", "withdraw"}  # those that rest on what is foreseen


def test_knowing_more_gains_more() -> None:
    base = records()
    gains = []
    for foresight in (0.0, 1.0):
        found = audit_of(base, None, settings=AuditSettings(foresight=foresight)).summary
        gains.append(found.query("measure == 'theta' and action == 'remove_lowest' and not roll_weighted"))
        withdrawn = found.query("measure == 'theta' and action == 'withdraw'")
        assert (withdrawn["n_schools"] == 0).all() == (foresight == 0.0)
    assert gains[0]["mean_gain_sd"].item() < gains[1]["mean_gain_sd"].item()


def test_labelled_alone_goes_by_the_chance_of_a_label_given_background() -> None:
    found = audit_of(records(), None)
    assert set(found.table["estimator"]) == {"labelled"}
    assert "a label now given background" in str(found)
    assert "need is not estimated" in found.borderline


def test_without_labels_before_transfer_the_label_now_is_all_there_is() -> None:
    base, need = without_entry()
    found = audit_of(base, need)
    assert found.table["estimator"].unique().tolist() == ["labelled", "standardised", "label_free"]
    assert found.borderline == "the probability of need given the label now"
    rows = found.summary.query("measure == 'theta' and action == 'label_more'").set_index("estimator")
    assert rows.loc["label_free", "mean_gain_sd"] == 0.0
    assert rows.loc["standardised", "mean_gain_sd"] != 0.0
    plans = found.table.query("action == 'admit_fewer_ehcp' and applicable")
    assert len(plans)  # those with a plan now, where nothing is known of before


def test_the_text_names_measures_tolerance_and_no_pupil() -> None:
    said = str(audit())
    assert "0.02 pupil SDs (default)" in said
    assert "Under `entry` in context cva, the cheapest profitable act is" in said
    assert "labelling acts: pass (nothing to gain)" in said
    stated = str(audit_of(records(), None, settings=AuditSettings(tolerance=0.05)))
    assert "less than 0.05 pupil SDs" in stated
    assert "pupil_id" not in audit().table.columns
    ids = set(world().pupils["pupil"].astype(str))
    assert not ids & set(said.replace(".", " ").replace(",", " ").split())
    assert "<table" in audit()._repr_html_()


def test_all_actions_estimators_and_measures_are_there_once() -> None:
    table, schools = audit().table, len(records().design.schools)
    keys = ["estimator", "measure", "action", "roll_weighted"]
    counts = table.groupby(keys).size()
    assert (counts == schools).all()
    assert len(counts) == 4 * 3 * (len(LABELLING_ACTS) + 2 * len(ROLL_ACTS))
    assert table["action"].unique().tolist() == list(ACTIONS)


def test_progress_is_told() -> None:
    steps: list[int] = []
    audit_of(records(), None, contexts=["prior"], progress=steps.append)
    assert steps == [1, 2, 3, 4, 5]


def test_what_cannot_be_audited() -> None:
    base, need = records(), need_of()
    with pytest.raises(InputError, match="nothing to audit"):
        audit_of(base, None, data=None)
    with pytest.raises(InputError, match="no estimator 'raw'"):
        audit_of(base, need, estimators=["raw"])
    with pytest.raises(InputError, match="is named"):
        audit_of(base, need, estimators=[])
    with pytest.raises(InputError, match="without data"):
        audit_of(base, need, data=None, estimators=["labelled"])
    with pytest.raises(InputError, match="without need"):
        audit_of(base, None, estimators=["entry"])
    with pytest.raises(NotSupportedError, match="whose label changed"):
        audit_of(base, replace(need, now_fit=None), estimators=["standardised"])
    with pytest.raises(InputError, match="seed must be 0"):
        audit_of(base, need, seed=-1)
    with pytest.raises(InputError, match="share: must be above 0"):
        audit_of(base, need, settings=AuditSettings(share=0.0))
    with pytest.raises(InputError, match="no context"):
        audit_of(base, need, contexts=["region"])
    other = records(schools=20, pupils=20)
    with pytest.raises(InputError, match="same pupils"):
        audit_of(base, replace(need, labels=other.labels))
    with pytest.raises(InputError, match="same pupils"):
        audit_of(base, None, data=other.data)
    with pytest.raises(InputError, match="no context is named"):
        audit_of(base, need, contexts=[])
    with pytest.raises(InputError, match="leaves schools out"):
        audit_incentives(base.design.without_schools(np.array([1])), base.labels, data=base.data, seed=1)
