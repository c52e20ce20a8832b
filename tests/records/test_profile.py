"""The first pass: equal to pandas on every number, deterministic, and it keeps schools without complete pupils."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.records.profile import sort_codes
from send_va.records.reader import Cohort, open_cohort
from send_va.records.roles import Roles, SenCodes

ROLES = Roles(
    "pupil",
    "school",
    "outcome",
    ("prior", "maths"),
    "sen_status",
    "sen_status_entry",
    la="la",
    cohort="cohort",
    context=("C(ethnicity)", "idaci"),
    prior_sem=("prior_se", "maths_se"),
)


def pupils(n: int = 400, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "pupil": range(n),
            "school": rng.integers(8, 15, n),
            "la": rng.choice(["201", "35"], n),
            "cohort": rng.choice(["2022/23", "2021/22"], n),
            "outcome": rng.normal(45, 15, n),
            "prior": rng.normal(104, 8, n).round(),
            "maths": 100.0 + rng.integers(0, 2, n),
            "prior_se": 3.0,
            "maths_se": rng.uniform(2, 4, n),
            "sen_status": rng.choice(["N", "K", "E"], n),
            "sen_status_entry": rng.choice(["N", "K", None], n),
            "ethnicity": rng.choice(["10", "9", "2"], n),
            "idaci": rng.uniform(size=n),
        }
    )
    frame.loc[::7, "outcome"] = np.nan
    frame.loc[frame["school"] == 14, "prior"] = np.nan
    return frame


def test_numbers_are_those_of_pandas() -> None:
    frame = pupils()
    profile = Cohort.from_pandas(frame, ROLES).profile(prior_knots=4)
    complete = frame.dropna(subset=["outcome", "prior"])
    assert (profile.n_rows, profile.n_complete) == (len(frame), len(complete))
    for summary, name in [
        (profile.outcome, "outcome"),
        (profile.priors["prior"], "prior"),
        (profile.prior_sem["maths_se"], "maths_se"),
        (profile.numeric["idaci"], "idaci"),
    ]:
        column = complete[name]
        found = (summary.n, summary.mean, summary.sd, summary.minimum, summary.maximum)
        # 1e-12: the same sums in another order
        assert found == pytest.approx((len(column), column.mean(), column.std(), column.min(), column.max()), rel=1e-12)
    prior = profile.priors["prior"]
    assert prior.knots == tuple(sorted(set(complete["prior"].quantile([0.2, 0.4, 0.6, 0.8]))))
    assert prior.mean_need == pytest.approx(complete.loc[complete["sen_status"] != "N", "prior"].mean(), rel=1e-12)
    assert prior.mean_need_entry == pytest.approx(
        complete.loc[complete["sen_status_entry"] == "K", "prior"].mean(), rel=1e-12
    )
    assert profile.missing["outcome"] == frame["outcome"].isna().sum()
    assert profile.missing["sen_status_entry"] == frame["sen_status_entry"].isna().sum()
    assert dict(profile.levels["ethnicity"]) == complete["ethnicity"].value_counts().to_dict()
    assert list(profile.levels["ethnicity"]) == ["2", "9", "10"]
    assert dict(profile.cohorts) == complete["cohort"].value_counts().to_dict()


def test_knots_are_distinct_and_inside_the_range() -> None:
    knots = Cohort.from_pandas(pupils(), ROLES).profile(prior_knots=6).priors["maths"].knots
    assert knots == ()  # two values only: every quantile is the minimum or the maximum


def test_schools_are_counted_by_level_and_none_is_dropped() -> None:
    frame = pupils()
    counted = Cohort.from_pandas(frame, ROLES).profile().schools
    complete = frame.dropna(subset=["outcome", "prior"])
    assert counted.schools == ("8", "9", "10", "11", "12", "13", "14")
    assert counted.rows.tolist() == frame["school"].value_counts().sort_index().tolist()
    by_level = pd.crosstab(complete["school"], complete["sen_status"])[["N", "K", "E"]].reindex(
        range(8, 15), fill_value=0
    )
    assert counted.levels.tolist() == by_level.to_numpy().tolist()
    assert counted.levels_entry is not None
    assert counted.levels_entry[:, 1].sum() == (complete["sen_status_entry"] == "K").sum()
    assert counted.complete[-1] == 0
    assert counted.flags[-1] == "no complete pupil"
    assert counted.n_in_several_las == 7
    assert counted.la[0] == frame.loc[frame["school"] == 8, "la"].mode()[0]
    assert list(counted.table().columns) == ["school", "la", "rows", "complete", "none", "support", "ehcp", "flag"]


def test_unusual_schools_are_flagged_in_words() -> None:
    status = {"a": "N", "b": "KE", "c": "NN", "d": "NK"}
    records = [(school, code) for school, codes in status.items() for code in codes]
    frame = pd.DataFrame(records, columns=["school", "sen_status"]).assign(pupil=range(7), outcome=1.0, prior=2.0)
    roles = Roles("pupil", "school", "outcome", ("prior",), "sen_status")
    counted = Cohort.from_pandas(frame, roles).profile().schools
    assert counted.flags == ("one pupil", "only pupils with SEND", "no pupil with SEND", "")
    assert counted.la == (None,) * 4
    assert counted.levels_entry is None


def test_no_status_at_entry_leaves_its_mean_open() -> None:
    roles = Roles("pupil", "school", "outcome", ("prior",), "sen_status")
    assert np.isnan(Cohort.from_pandas(pupils(), roles).profile().priors["prior"].mean_need_entry)


def test_the_same_file_gives_the_same_numbers_to_the_last_bit(tmp_path: Path) -> None:
    pupils(150_000).to_parquet(tmp_path / "p.parquet", row_group_size=20_000)
    first, second = (open_cohort(tmp_path / "p.parquet", ROLES).profile() for _ in range(2))
    assert (first.outcome, dict(first.priors), dict(first.numeric)) == (
        second.outcome,
        dict(second.priors),
        dict(second.numeric),
    )


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.floats(-1e8, 1e8))
def test_the_spread_survives_a_large_shift(values: list[float], shift: float) -> None:
    roles = Roles("pupil", "school", "outcome", ("prior",), "sen_status")
    frame = pd.DataFrame({"pupil": range(len(values)), "school": 1, "outcome": values, "prior": 1.0, "sen_status": "K"})
    frame["outcome"] += shift
    found = Cohort.from_pandas(frame, roles, outcome_range=(None, None)).profile(prior_knots=0).outcome
    # absolute: rounding of values of size 1e8 is 1e-8
    assert found.sd == pytest.approx(frame["outcome"].std(), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "abc"}, r"outcome: rule broken: is a number; 10 rows fail; rows 1, 2.*abc"),
        ({"sen_status": "Q"}, r"sen_status: rule broken: is one of N, K, E.*values Q"),
        ({"prior": None}, "no row is complete"),
    ],
)
def test_unreadable_records_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cohort.from_pandas(pupils(10).assign(**change), ROLES).profile()


def test_negative_knots_are_refused() -> None:
    with pytest.raises(InputError, match="prior_knots is -1"):
        Cohort.from_pandas(pupils(10), ROLES).profile(prior_knots=-1)


def test_codes_sort_as_numbers_only_when_all_are() -> None:
    assert sort_codes(["100001", "9", "10"]) == ("9", "10", "100001")
    assert sort_codes(["100001", "9", "x"]) == ("100001", "9", "x")


def test_real_pupils(shared_data: Path) -> None:
    roles = Roles(
        "stuid",
        "schoolid",
        "math",
        ("math_lag1", "lang_lag1"),
        "sped",
        context=("frl",),
        prior_sem=("math_lag1_csem", "lang_lag1_csem"),
    )
    sen = SenCodes(none=("0",), support=("1",), ehcp=())
    profile = open_cohort(shared_data / "pupils" / "testscores.csv", roles, sen=sen).profile()
    # Counts of the data's own description: 4,853 pupils, 513 of them sped, 21 schools
    assert (profile.n_complete, len(profile.schools.schools)) == (4853, 21)
    assert profile.schools.levels.sum(axis=0).tolist() == [4853 - 513, 513, 0]
