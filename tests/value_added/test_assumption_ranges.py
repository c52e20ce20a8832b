"""Ranges over what labels cannot tell: values by direct fits, and what is said of each school."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from send_va.effects import SchoolEffects
from send_va.identification.labels import read_labels
from send_va.identification.need import Need, estimate_need
from send_va.records.reader import Cohort
from send_va.records.roles import Roles
from send_va.records.simulator import simulate
from send_va.validation.recovery import ROLES
from send_va.value_added.assumption_ranges import SAME_BODY, assumption_ranges
from send_va.value_added.design import context_columns
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design

# 40 schools of 70 pupils: some variances are estimated at their boundary, which is beside the point here
pytestmark = pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
COLUMNS = ["school", "estimator", "context", "assumption", "value", "mean", "lower", "upper"]


@dataclass(frozen=True)
class Fitted:
    need: Need
    design: PupilDesign
    headline: Mapping[Any, SchoolEffects]
    estimator: str

    def table(self, ranges: Mapping[str, tuple[float, ...]], **changes: Any) -> pd.DataFrame:
        return assumption_ranges(
            changes.pop("need", self.need), self.design, self.headline, self.estimator, ranges, seed=4, **changes
        )


def fitted(roles: Roles, estimator: str) -> Fitted:
    world = simulate(np.random.default_rng(6), schools=40, scenario="lenient_better", pupils_per_school=70)
    cohort = Cohort.from_pandas(world.pupils, roles)
    profile = cohort.profile(3)
    context = context_columns(cohort, profile)
    need = estimate_need(read_labels(cohort, profile, context), seed=4, draws=5)
    design = pupil_design(cohort, profile, context)
    fit = fit_need(
        design, need.scores(estimator), estimator, ["cva"], rng=np.random.default_rng(4), draws=200, workers=1
    )
    return Fitted(need, design, {"cva": fit["cva"].effects}, estimator)


@cache
def entry() -> Fitted:
    return fitted(ROLES, "entry")


def test_every_school_at_every_value() -> None:
    seen: list[int] = []
    table = entry().table({"area_sorting_share": (0.0, 1.0), "label_reliability": (0.8,)}, progress=seen.append)
    assert list(table) == COLUMNS
    assert seen == [1, 2, 3]
    assert len(table) == 3 * 40
    assert set(table["school"]) == set(entry().design.schools)
    assert (table["estimator"] == "entry").all()
    assert (table["context"] == "cva").all()
    assert list(table.groupby(["assumption", "value"]).size()) == [40, 40, 40]
    assert ((table["lower"] < table["mean"]) & (table["mean"] < table["upper"])).all()
    by_school = table[table["assumption"] == "area_sorting_share"].pivot_table(
        index="school", columns="value", values="mean"
    )
    assert (by_school[0.0] - by_school[1.0]).abs().max() > 1e-3


def test_the_value_of_the_headline_gives_the_headline() -> None:
    """Same mean as a plug-in fit; width no less than that of the published interval, draws included."""
    table = entry().table({"label_reliability": (1.0,)}).set_index("school")
    headline = entry().headline["cva"]
    sd = pd.Series(headline.draws("theta").std(axis=0, ddof=1), headline.schools)
    width = (table["upper"] - table["lower"]) / (2 * 1.959963984540054)
    assert (width >= sd - 1e-9).all()
    assert np.median(width / sd) == pytest.approx(1.0, abs=0.15)
    mean = pd.Series(headline.data["mean"].sel(measure="theta").to_numpy(), headline.schools)
    np.testing.assert_allclose(table["mean"], mean.loc[table.index], rtol=1e-6, atol=1e-6)


def test_a_value_is_what_a_fit_under_it_gives() -> None:
    table = entry().table({"feeder_sorting_share": (0.4,)}).set_index("school")
    direct = fit_need(
        entry().design,
        entry().need.under(feeder_sorting_share=0.4).scores("entry"),
        "entry",
        ["cva"],
        rng=np.random.default_rng(np.random.SeedSequence(4, spawn_key=(5,))),
        draws=200,
        plug_in=True,
    )["cva"].effects
    np.testing.assert_allclose(table.loc[list(direct.schools), "mean"], direct.data["mean"].sel(measure="theta"))


def test_labels_of_the_schools_own_body_make_one_more_fit() -> None:
    """Only where there are such pupils; schools without them hardly move."""
    assert SAME_BODY not in set(entry().table({"label_reliability": (1.0,)})["assumption"])
    labels = entry().need.labels
    own = labels.school == 0
    need = replace(entry().need, labels=replace(labels, same_body=own))
    table = entry().table({"label_reliability": (1.0,)}, need=need)
    moved = table.pivot_table(index="school", columns="assumption", values="mean").loc[list(labels.schools)]
    change = (moved[SAME_BODY] - moved["label_reliability"]).abs()
    assert change.iloc[0] > 2 * change.iloc[1:].median()
    assert change.iloc[1:].max() < 0.1  # points, of a pupil SD of 17


def test_no_range_no_rows() -> None:
    table = entry().table({})
    assert list(table) == COLUMNS
    assert table.empty


def test_without_entry_labels_the_sorting_share_spans_the_answer() -> None:
    """No value is an estimate; the table has all, and intake counted as need moves schools that label most."""
    without = fitted(replace(ROLES, sen_status_entry=None, feeder=None), "standardised")
    table = without.table({"sorting_share": (0.0, 0.5, 1.0)})
    means = table.pivot_table(index="school", columns="value", values="mean").loc[list(without.need.labels.schools)]
    total = without.need.under(sorting_share=1.0).parameters.intake
    change = means[1.0] - means[0.0]
    assert np.corrcoef(change, total)[0, 1] > 0.3  # need explains low outcomes: the school is given credit for it
    assert ((means[0.5] - means[[0.0, 1.0]].mean(axis=1)).abs().median()) < change.abs().median()


def test_no_pupil_id_in_the_table() -> None:
    table = entry().table({"label_reliability": (1.0,)})
    assert set(table["school"].astype(int)) <= set(range(900_001, 900_041))
