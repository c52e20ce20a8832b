"""Patterns of missing values: counts by hand, nothing that describes a handful of pupils, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.records.reader import Cohort
from send_va.sensitivity.incomplete_records import (
    COMPLETE,
    OTHER,
    UNUSABLE,
    IncompleteRecords,
    n_imputed,
    pattern_table,
    read_incomplete,
    refuse_unfillable,
)

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "outcome": "outcome",
    "prior": ["reading", "maths"],
    "sen_status": "sen_status",
    "sen_status_entry": "sen_before",
    "cohort": "cohort",
    "context": ["fsm6", "C(sex)"],
}


def pupils(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "pupil": 10_000 + np.arange(n),
            "school": 101 + np.arange(n) % 8,
            "outcome": rng.normal(50, 10, n).clip(0),
            "reading": rng.normal(100, 8, n),
            "maths": rng.normal(100, 8, n),
            "sen_status": np.where(np.arange(n) % 5 == 0, "K", "N"),
            "sen_before": np.where(np.arange(n) % 10 == 0, "K", "N"),
            "cohort": np.where(np.arange(n) % 2 == 0, "2021/22", "2022/23"),
            "fsm6": (np.arange(n) % 4 == 0) * 1.0,
            "sex": np.where(np.arange(n) % 2 == 0, "F", "M"),
        }
    )


def records_of(frame: pd.DataFrame, roles: dict = ROLES) -> IncompleteRecords:
    return read_incomplete(Cohort.from_pandas(frame, roles))


def test_counts_by_hand() -> None:
    frame = pupils()
    frame.loc[0:49, "reading"] = np.nan
    frame.loc[30:59, "maths"] = np.nan
    frame.loc[390:, "outcome"] = np.nan
    frame.loc[300:303, "sex"] = None
    records = records_of(frame)
    table = pattern_table(records).set_index("pattern")
    # four pupils without sex are too few to show, and so would the rest be if the next pattern did not join them
    assert table["n_pupils"].to_dict() == {COMPLETE: 326, "reading": 30, "reading, maths": 20, OTHER: 14, UNUSABLE: 10}
    reading = frame.loc[0:29]
    assert table.loc["reading", "send_share"] == pytest.approx((reading["sen_status"] == "K").mean())
    assert table.loc["reading", "send_share_entry"] == pytest.approx((reading["sen_before"] == "K").mean())
    outcome = frame["outcome"]
    expected = (reading["outcome"].mean() - outcome.mean()) / outcome.std()
    assert table.loc["reading", "mean_outcome"] == pytest.approx(expected)
    assert table.loc["reading", "n_schools"] == 8
    assert table["n_pupils"].min() >= 10 and table["n_pupils"].sum() == 400


def test_a_rest_too_small_takes_the_rarest_pattern_with_it() -> None:
    frame = pupils()
    frame.loc[0:39, "reading"] = np.nan
    frame.loc[40:51, "maths"] = np.nan
    frame.loc[60:62, "sex"] = None
    table = pattern_table(records_of(frame)).set_index("pattern")
    assert list(table.index) == [COMPLETE, "reading", OTHER]
    assert table.loc[OTHER, "n_pupils"] == 15


def test_a_handful_is_never_counted_and_shares_of_few_are_not_shown() -> None:
    frame = pupils()
    frame.loc[0:6, "reading"] = np.nan
    table = pattern_table(records_of(frame)).set_index("pattern")
    assert np.isnan(table.loc[OTHER, "n_pupils"]) and table.loc[OTHER].drop("n_pupils").isna().all()
    frame = pupils()
    frame.loc[1:11, "reading"] = np.nan  # two of the eleven have SEN support
    table = pattern_table(records_of(frame)).set_index("pattern")
    assert table.loc["reading", "n_pupils"] == 11 and np.isnan(table.loc["reading", "send_share"])


def test_imputed_pupils_are_counted_by_school() -> None:
    frame = pupils()
    frame.loc[frame["school"] == 103, "reading"] = np.nan
    counts = n_imputed(records_of(frame), ["103", "101", "999"])
    assert counts.tolist() == [50, 0, 0]


def test_pupil_ids_are_not_read() -> None:
    frame = pupils()
    frame.loc[0:49, "reading"] = np.nan
    assert set(records_of(frame).frame["pupil"]) == set(range(400))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reading": np.nan}, "reading: is missing for all pupils"),
        ({"fsm6": np.nan}, "fsm6: is missing for all pupils"),
    ],
)
def test_columns_missing_for_all_are_refused(change: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        refuse_unfillable(records_of(pupils().assign(**change)))
    assert "key stage 2 tests of 2020 and 2021" in str(caught.value)


def test_columns_missing_for_one_status_or_cohort_are_refused_together() -> None:
    frame = pupils()
    frame.loc[frame["sen_status"] == "K", "maths"] = np.nan
    frame.loc[frame["cohort"] == "2022/23", "reading"] = np.nan
    with pytest.raises(InputError) as caught:
        refuse_unfillable(records_of(frame))
    said = str(caught.value)
    assert "maths: is missing for all pupils with SEN status support" in said
    assert "reading: is missing for all pupils of cohort 2022/23" in said


def test_nothing_missing_is_said() -> None:
    with pytest.raises(InputError, match="nothing to impute"):
        refuse_unfillable(records_of(pupils()))
    without_outcome = pupils()
    without_outcome.loc[0:20, ["outcome", "reading"]] = np.nan  # cannot be used, so nothing to fill in either
    with pytest.raises(InputError, match="nothing to impute"):
        refuse_unfillable(records_of(without_outcome))
