"""Tables of identification: counts at one national threshold, flags and reliabilities."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import labels, need, small, world

from send_va.identification.tables import WEAK_INTAKE, national_standard, school_table


def groups() -> dict:
    records = labels()
    return {"school": (records.school, records.schools), "la": (records.la, records.las)}


def test_counts_at_the_national_threshold_cover_the_truth() -> None:
    """95 % intervals hold parameters and who the pupils with need are: cover within four Monte-Carlo errors."""
    table = national_standard(need(), groups())
    truth = world().pupil_truth["has_need"].groupby(world().pupils["school"]).sum()
    schools = table[table["level"] == "school"].set_index("name")
    known = truth.rename(index=str).loc[schools.index]
    inside = (schools["lower"] <= known) & (known <= schools["upper"])
    assert abs(inside.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(known))
    assert np.corrcoef(schools["expected"], known)[0, 1] > 0.9
    # closer to need than the labels are
    assert ((schools["expected"] - known) ** 2).mean() < ((schools["labelled_now"] - known) ** 2).mean()
    areas = table[table["level"] == "la"].set_index("name")
    of_area = world().pupil_truth["has_need"].groupby(world().pupils["la"]).sum().rename(index=str).loc[areas.index]
    assert ((areas["lower"] <= of_area) & (of_area <= areas["upper"])).mean() >= 0.75  # 18 authorities


def test_counts_add_up() -> None:
    table = national_standard(need(), groups()).set_index(["level", "name"])
    pi, _ = need().scores("standardised").plug_in()
    for level in ("school", "la"):
        part = table.loc[level]
        assert part["expected"].sum() == pytest.approx(pi.sum())
        assert part["n_pupils"].sum() == len(pi)
        assert part["labelled_now"].sum() == (labels().now > 0).sum()
    assert ((table["lower"] <= table["expected"]) & (table["expected"] <= table["upper"])).all()
    assert (table["lower"] >= 0).all()
    assert (table["upper"] <= table["n_pupils"]).all()


def test_pupils_of_an_unknown_area_are_left_out() -> None:
    codes = np.where(np.arange(len(labels().la)) < 1_000, -1, 0)
    table = national_standard(need(), {"region": (codes, ("north",))})
    pi, _ = need().scores("standardised").plug_in()
    assert table["expected"].tolist() == pytest.approx([pi[1_000:].sum()])
    assert table["n_pupils"].tolist() == [len(pi) - 1_000]


def test_without_draws_intervals_hold_the_pupils_alone() -> None:
    plug_in = replace(small(), draws=())
    table = national_standard(plug_in, {"school": (small().labels.school, small().labels.schools)})
    pi, _ = plug_in.scores("standardised").plug_in()
    own = np.bincount(small().labels.school, weights=pi * (1 - pi))
    np.testing.assert_allclose(table["upper"] - table["expected"], 1.959964 * np.sqrt(own))
    assert school_table(plug_in)[["leniency_sd", "leniency_ehcp_sd", "intake_need_sd"]].isna().all(axis=None)


def test_reliability_is_that_of_the_estimates() -> None:
    """Mean squared error over variance of intake need, against one less the mean reliability."""
    table, truth = need().schools, world().truth["intake_need"]
    error = table["intake_need"] - truth + truth.mean()
    assert table["intake_need_reliability"].between(0, 1).all()
    unreliability = (error**2).mean() / truth.var()
    assert 1 - table["intake_need_reliability"].mean() == pytest.approx(unreliability, abs=0.08)


def test_weakly_identified_intake_need_is_flagged() -> None:
    """As if schools differed so little that half of them were no better known than at the line."""
    fit = small().entry_fit
    given = fit.solution.mode_covs[fit.names.index("school")][:, 0, 0]
    as_if = replace(small().parameters, intake_variance=float(np.median(given)) / (1 - WEAK_INTAKE))
    table = replace(small(), parameters=as_if).schools
    weak = table["intake_need_reliability"] < WEAK_INTAKE
    assert 0 < weak.sum() < len(weak)
    np.testing.assert_array_equal(table["flag"].str.contains("intake need weakly identified"), weak)


def test_shares_are_those_of_the_records() -> None:
    records, table = small().labels, small().schools.set_index("school")
    for j, school in enumerate(records.schools):
        own = records.school == j
        assert table.loc[school, "labelled_share"] == pytest.approx((records.now[own] > 0).mean())
        assert table.loc[school, "labelled_share_entry"] == pytest.approx((records.entry[own] > 0).mean())
        assert table.loc[school, "n_pupils"] == own.sum()
    bounds = table[["standard_share_lower", "standard_share", "standard_share_upper"]].to_numpy()
    assert (np.diff(bounds, axis=1) >= 0).all()


def test_a_school_without_a_known_label_before_has_no_share_of_them() -> None:
    entry = small().labels.entry.copy()
    entry[small().labels.school == 1] = -1
    table = replace(small(), labels=replace(small().labels, entry=entry)).schools
    assert np.isnan(table.loc[1, "labelled_share_entry"])
    assert table.drop(index=1)["labelled_share_entry"].notna().all()
