"""Records under another definition of SEND, and of fewer cohorts."""

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.records.reader import Cohort
from send_va.records.roles import SenCodes
from send_va.sensitivity.chosen_records import defined_send, latest_years

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "sen_status_entry": "sen_status_entry",
    "cohort": "cohort",
}
FRAME = pd.DataFrame(
    {
        "pupil": range(6),
        "school": [7, 7, 7, 8, 8, 8],
        "outcome": [40.0, 50, 51, 44, 39, 60],
        "prior": [100.0, 104, 99, 98, 101, 103],
        "sen_status": ["N", "K", "E", "K", "N", "X"],
        "sen_status_entry": ["K", "N", "E", None, "N", "N"],
        "cohort": ["2020/21", "2021/22", "2022-23", "2022/23", "2021/22", "2022/23"],
    }
)


def levels(cohort: Cohort) -> list[list[float]]:
    columns = ["row_number", "sen_level", "sen_level_entry"]
    batches = [batch.to_pandas() for batch in cohort.batches(columns, complete=False)]
    return pd.concat(batches)[columns[1:]].fillna(-1.0).to_numpy().tolist()


def test_support_joins_those_without_and_nothing_else_changes() -> None:
    cohort = Cohort.from_pandas(FRAME, ROLES)
    plans = defined_send(cohort, "ehcp")
    assert levels(plans) == [[0, 0], [0, 0], [2, 2], [0, -1], [0, 0], [-1, 0]]
    assert levels(defined_send(cohort, "any")) == [[0, 1], [1, 0], [2, 2], [1, -1], [0, 0], [-1, 0]]
    assert plans.sen == SenCodes(none=("N", "K"), support=(), ehcp=("E",)) and plans.n_rows == 6
    again = Cohort.from_pandas(FRAME, ROLES, sen=SenCodes(none=("N", "K"), support=(), ehcp=("E",)))
    assert levels(plans) == levels(again)


def test_plans_cannot_count_alone_where_no_code_means_one() -> None:
    cohort = Cohort.from_pandas(FRAME, ROLES, sen=SenCodes(none=("N",), support=("K", "E"), ehcp=()))
    with pytest.raises(InputError, match=r"no code .* means a plan"):
        defined_send(cohort, "ehcp")


def test_latest_cohorts_are_kept_however_they_are_written() -> None:
    cohort = Cohort.from_pandas(FRAME.assign(sen_status="N"), ROLES)
    assert [latest_years(cohort, years).n_rows for years in (0, 1, 2)] == [6, 3, 5]
    frame = latest_years(cohort, 1)
    rows = np.concatenate([batch.column("row_number").to_numpy() for batch in frame.batches(["row_number"])])
    assert rows.tolist() == [3, 4, 6]


def test_no_choice_of_years_is_said_so() -> None:
    cohort = Cohort.from_pandas(FRAME, ROLES)
    with pytest.raises(InputError, match="records are of 3 cohorts, so that to pool the latest 3"):
        latest_years(cohort, 3)
    with pytest.raises(InputError, match="records are of 1 cohort, so that to pool the latest 1"):
        latest_years(Cohort.from_pandas(FRAME.assign(cohort="2022/23"), ROLES), 1)
    with pytest.raises(InputError, match="no role cohort"):
        latest_years(Cohort.from_pandas(FRAME, {k: v for k, v in ROLES.items() if k != "cohort"}), 1)
    with pytest.raises(InputError, match="is no academic year"):
        latest_years(Cohort.from_pandas(FRAME.assign(cohort="summer"), ROLES), 1)
