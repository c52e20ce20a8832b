"""Verdicts and words from a table small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.incentive_summary import cheapest_acts, incentive_summary, incentive_verdicts, said_audit

COLUMNS = ["action", "roll_weighted", "applicable", "n_acted", "share_acted", "gain_sd", "places_gained", "q1", "q2"]


def table() -> pd.DataFrame:
    rows = [
        ("label_more", False, True, 4, 0.04, 0.010, 2.0, 3, 3),
        ("label_more", False, True, 6, 0.06, 0.030, 8.0, 3, 2),
        ("label_more", False, False, 0, 0.0, np.nan, np.nan, 1, np.nan),
        ("label_fewer", False, True, 5, 0.05, -0.02, -4.0, 3, 3),
        ("remove_lowest", False, True, 5, 0.05, 0.050, 4.0, 3, 2),
        ("remove_lowest", True, True, 5, 0.05, 0.005, 0.0, 3, 3),
        ("withdraw", False, False, 0, 0.0, np.nan, np.nan, 1, np.nan),
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS).rename(columns={"q1": "quintile_before", "q2": "quintile_after"})
    return frame.assign(estimator="labelled", context="cva", measure="theta")


def test_means_are_over_schools_that_can_act() -> None:
    summary = incentive_summary(table()).set_index(["action", "roll_weighted"])
    more = summary.loc[("label_more", False)]
    assert (more["n_schools"], more["n_not_applicable"]) == (2, 1)
    assert more["mean_gain_sd"] == pytest.approx(0.02)
    assert more["sd_gain_sd"] == pytest.approx(np.std([0.01, 0.03], ddof=1))
    assert more["q50"] == pytest.approx(0.02)
    assert (more["largest"], more["share_gaining"], more["mean_places"]) == (0.03, 1.0, 5.0)
    assert more["share_quintile_changed"] == 0.5
    assert more["gradient_mean"] == pytest.approx((0.01 / 4 + 0.03 / 6) / 2)  # for 1 % of pupils
    assert more["gradient_q05"] == pytest.approx(0.0025 + 0.05 * 0.0025)
    nobody = summary.loc[("withdraw", False)]
    assert nobody["n_schools"] == 0
    assert np.isnan(nobody["mean_gain_sd"])


def test_a_measure_fails_where_the_largest_mean_gain_reaches_the_tolerance() -> None:
    verdicts = incentive_verdicts(incentive_summary(table()), AuditSettings()).set_index(["acts", "roll_weighted"])
    assert verdicts["verdict"].to_dict() == {
        ("labelling", False): "fail",  # .02 is not below .02
        ("roll", False): "fail",
        ("roll", True): "pass",
        ("all", False): "fail",
        ("all", True): "fail",
    }
    assert verdicts.loc[("all", False), "worst_action"] == "remove_lowest"
    assert verdicts.loc[("all", True), "worst_action"] == "label_more"
    assert not verdicts["tolerance_given"].any()
    given = incentive_verdicts(incentive_summary(table()), AuditSettings(tolerance=0.06))
    assert (given["verdict"] == "pass").all()
    assert given["tolerance_given"].all()


def test_a_verdict_on_nothing_is_not_applicable() -> None:
    rows = table()
    nothing = rows[rows["action"] == "withdraw"]
    verdicts = incentive_verdicts(incentive_summary(nothing), AuditSettings())
    assert set(verdicts["verdict"]) == {"not applicable"}
    cheapest = cheapest_acts(incentive_summary(nothing))
    assert cheapest["words"].iloc[0] == "Under `labelled` in context cva, no act pays on average."
    said = said_audit(verdicts, cheapest, AuditSettings(), "a guess", "labelled, cva")
    assert "roll acts, roll weighted: not applicable" in said


def test_the_cheapest_act_has_the_fewest_pupils_for_a_place() -> None:
    cheapest = cheapest_acts(incentive_summary(table())).set_index("roll_weighted")
    # labelling: 5 pupils for 5 places; removing: 5 for 4; with roll weighting removing gains no place
    assert cheapest["action"].tolist() == ["label_more", "label_more"]
    assert cheapest["pupils_per_place"].tolist() == [1.0, 1.0]
    assert cheapest.loc[False, "words"] == (
        "Under `labelled` in context cva, the cheapest profitable act is labelling more pupils: 5 pupils (5.0 %) gain "
        "+0.020 SD, 5 places."
    )
    without = table().query("action != 'label_more'")
    rest = cheapest_acts(incentive_summary(without)).set_index("roll_weighted")
    assert rest["action"].tolist() == ["remove_lowest", ""]
    assert np.isnan(rest.loc[True, "gain_sd"])
