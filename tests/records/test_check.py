"""The check: every broken rule at once, with count, rows and remedy, and never a pupil id."""

import numpy as np
import pandas as pd
import pytest

from send_va.errors import Failure, InputError
from send_va.records.check import CheckReport, check_cohort
from send_va.records.reader import Cohort
from send_va.records.roles import Roles

ROLES = Roles(
    "pupil",
    "school",
    "outcome",
    ("prior",),
    "sen_status",
    "sen_status_entry",
    la="la",
    cohort="cohort",
    context=("C(ethnicity)", "idaci"),
)


def pupils(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "pupil": [f"ID{i:05d}" for i in range(n)],
            "school": np.repeat([101, 102, 103], n // 3),
            "la": np.repeat([201, 201, 202], n // 3),
            "cohort": "2022/23",
            "outcome": rng.uniform(10, 80, n).round(1),
            "prior": rng.normal(104, 8, n).round(),
            "sen_status": np.tile(["N", "N", "K", "E"], n // 4),
            "sen_status_entry": np.tile(["N", "K", "K", "E"], n // 4),
            "ethnicity": np.tile(["WHIT", "ASIA", "BLAC"], n // 3),
            "idaci": rng.uniform(size=n),
            "month_of_birth": rng.integers(1, 13, n),
            "terms_on_roll": 15,
            "sessions_absent": 10,
            "sessions_possible": 300,
        }
    )


def check(frame: pd.DataFrame, roles: Roles = ROLES, baseline: str = "KS2", **options: object) -> CheckReport:
    report = check_cohort(Cohort.from_pandas(frame, roles, outcome_range=(0, 90), **options), baseline=baseline)  # type: ignore[arg-type]
    assert "ID000" not in str(report) + str(report.table().to_dict())
    return report


def only(report: CheckReport, level: str = "error") -> Failure:
    found = [failure for failure in report.failures if failure.level == level]
    assert len(found) == 1, str(report)
    return found[0]


def set_at(frame: pd.DataFrame, column: str, rows: list[int], value: object) -> pd.DataFrame:
    frame[column] = frame[column].astype(object)
    frame.loc[[row - 1 for row in rows], column] = value
    return frame


def test_good_records_pass() -> None:
    report = check(pupils())
    assert report.ok
    assert report.failures == ()
    assert report.table().empty
    report.raise_if_failed()
    assert str(report).endswith("60 rows, 0 errors, 0 warnings")


CELLS: list[tuple[str, object, str]] = [
    ("outcome", "abc", "is a number"),
    ("prior", float("inf"), "is finite"),
    ("sen_status", "Q", "is one of N, K, E"),
    ("sen_status_entry", "k", "is one of N, K, E"),
    ("school", None, "is not missing"),
    ("pupil", None, "is not missing"),
    ("month_of_birth", 13, "is between 1 and 12"),
    ("terms_on_roll", 7.5, "is a whole number"),
    ("sessions_absent", 301, "is not above sessions_possible"),
    ("idaci", -0.1, "is between 0 and 1"),
]


def test_each_broken_cell_is_named_with_its_rows() -> None:
    frame = pupils()
    for i, (column, value, _) in enumerate(CELLS):
        frame = set_at(frame, column, [i + 1, i + 21, i + 41], value)
    errors = {(f.column, f.rule): f for f in check(frame).errors}
    assert set(errors) == {(column, rule) for column, _, rule in CELLS}
    for i, (column, value, rule) in enumerate(CELLS):
        failure = errors[column, rule]
        assert (failure.count, failure.rows) == (3, (i + 1, i + 21, i + 41))
        assert set(failure.values) == (set() if value is None else {str(value)})
        assert failure.remedy


def test_impossible_outcomes_are_named() -> None:
    frame = set_at(set_at(pupils(), "outcome", [2], -1), "outcome", [9], 90.5)
    failure = only(check(frame))
    assert (failure.rule, failure.rows) == ("is between 0 and 90", (2, 9))
    assert [float(value) for value in failure.values] == [-1, 90.5]


def test_at_most_ten_rows_and_values_come_back() -> None:
    failure = only(check(pupils().assign(idaci=lambda frame: frame["idaci"] + 1)))
    assert failure.count == 60
    assert failure.rows == tuple(range(1, 11))
    assert len(failure.values) == 10


def test_long_text_is_described_not_repeated() -> None:
    failure = only(check(set_at(pupils(), "sen_status", [2], "Jane Example-Surname")))
    assert failure.values == ("(text of 20 characters)",)


def test_unknown_codes_are_listed_once_each_most_frequent_first() -> None:
    frame = set_at(set_at(pupils(), "sen_status", [1], "P"), "sen_status", [5, 9], "A")
    failure = only(check(frame))
    assert failure.values == ("A", "P")
    assert failure.rows == (1, 5, 9)


def test_a_pupil_twice_in_a_school() -> None:
    frame = pupils()
    frame.loc[[7, 11], "pupil"] = frame.loc[2, "pupil"]
    failure = only(check(frame))
    assert (failure.column, failure.rule, failure.count, failure.rows) == ("pupil", "has one row", 3, (3, 8, 12))
    assert failure.values == ()


def test_a_pupil_in_two_schools() -> None:
    frame = pupils()
    frame.loc[59, "pupil"] = frame.loc[0, "pupil"]
    failure = only(check(frame))
    assert (failure.column, failure.rule, failure.count, failure.rows) == ("pupil", "is in one school", 2, (1, 60))


def test_empty_columns_are_errors() -> None:
    columns = {"outcome", "prior", "sen_status", "idaci", "ethnicity"}
    report = check(pupils().assign(**dict.fromkeys(columns)))
    assert {f.column for f in report.errors if f.rule == "has a value in at least one row"} == columns
    assert [f.remedy for f in report.errors if f.rule == "at least one row is complete"] == [
        "Each row needs school, outcome, prior, sen_status, ethnicity, idaci."
    ]


@pytest.mark.parametrize("as_text", [False, True])
def test_some_missing_values_are_a_warning_with_a_count(as_text: bool) -> None:
    columns = ["outcome", "prior", "sen_status", "idaci", "ethnicity", "sen_status_entry", "la"]
    frame = pupils()
    for column in columns:
        frame = set_at(frame, column, [5, 30], None)
    report = check(frame.map(lambda value: "" if value is None else str(value)) if as_text else frame)
    assert report.ok
    assert {(f.column, f.rule, f.count, f.rows) for f in report.warnings} == {
        (c, "is not missing", 2, (5, 30)) for c in columns
    }


def test_constant_columns_are_named() -> None:
    constants = {"idaci": 0.5, "ethnicity": "WHIT", "prior": 100, "outcome": 50}
    report = check(pupils().assign(**constants))
    assert {(f.column, f.rule) for f in report.errors} == {(name, "takes more than one value") for name in constants}
    remedies = {f.column: f.remedy for f in report.errors}
    assert remedies["outcome"].startswith("Every pupil has the same outcome")
    assert remedies["idaci"].startswith("It can explain nothing")


def test_one_level_of_need_leaves_nothing_to_compare() -> None:
    report = check(pupils().assign(sen_status="N"))
    assert ("sen_status", "has more than one level") in {(f.column, f.rule) for f in report.errors}
    assert [f.rule for f in report.warnings] == ["has pupils with SEND"]


def test_unusual_schools_are_kept_and_flagged() -> None:
    frame = pupils()
    frame.loc[:19, "sen_status"] = "K"
    frame.loc[20:39, "sen_status"] = "N"
    frame.loc[59, "school"] = 999
    warnings = {f.rule: f.values for f in check(frame).warnings}
    assert warnings == {
        "has pupils without SEND": ("101",),
        "has pupils with SEND": ("102",),
        "has more than one pupil": ("999",),
    }


def test_a_school_in_two_authorities_is_reported() -> None:
    failure = only(check(set_at(pupils(), "la", [1], 999)), "warning")
    assert (failure.column, failure.rule, failure.count) == ("la", "is one per school", 1)


def test_entry_status_may_not_be_the_status_now() -> None:
    roles = Roles("pupil", "school", "outcome", ("prior",), "sen_status", "sen_status")
    report = check(pupils(), roles)
    assert only(report).rule == "is another column than SEN status now"
    mapped = check(pupils(), ROLES, columns={"sen_status_entry": "sen_status"})
    assert "Both read sen_status" in only(mapped).remedy


def test_a_copied_entry_status_is_noticed() -> None:
    frame = pupils().assign(sen_status_entry=lambda frame: frame["sen_status"])
    assert "a copy" in only(check(frame), "warning").remedy


def test_autumn_status_is_refused() -> None:
    frame = pupils().rename(columns={"sen_status_entry": "SENprovision_AUT18"})
    failure = only(check(frame, columns={"sen_status_entry": "SENprovision_AUT18"}))
    assert "the new school's own" in failure.remedy


@pytest.mark.parametrize("label", ["2024/25", 2025])
def test_year_11_without_ks2_is_refused_with_the_reason(label: object) -> None:
    frame = set_at(pupils(), "cohort", [4, 6], label)
    failure = only(check(frame))
    assert (failure.rule, failure.count, failure.rows) == ("no KS2 tests were sat in 2020 and 2021", 2, (4, 6))
    assert check(frame, baseline="CAT4").ok


def test_a_single_year_is_the_year_it_ends() -> None:
    assert only(check(pupils().assign(cohort=2026.0))).rule == "no KS2 tests were sat in 2020 and 2021"


def test_neighbouring_cohorts_pass() -> None:
    assert check(set_at(set_at(pupils(), "cohort", [1, 2], "2023/24"), "cohort", [3], "2026/27")).ok


def test_a_cohort_that_is_no_year() -> None:
    failure = only(check(set_at(pupils(), "cohort", [9], "Year 11")))
    assert (failure.rule, failure.rows, failure.values) == ("is an academic year", (9,), ("Year 11",))


def test_every_rule_is_reported_at_once() -> None:
    frame = set_at(set_at(pupils(), "outcome", [1], "abc"), "sen_status", [2], "Q").assign(prior=None, cohort="2024/25")
    frame.loc[59, "pupil"] = frame.loc[0, "pupil"]
    report = check(frame)
    with pytest.raises(InputError) as caught:
        report.raise_if_failed()
    assert {f.column for f in caught.value.failures} == {"outcome", "sen_status", "prior", "pupil", "cohort", ""}
    message = str(caught.value)
    for part in (
        "abc",
        "values Q",
        "no KS2 tests",
        "is in one school",
        "has a value in at least one row",
        "at least one row is complete",
    ):
        assert part in message
    assert len(report.table()) == len(report.failures)


def test_unexpected_sex_codes_are_a_warning() -> None:
    assert only(check(pupils().assign(sex=1)), "warning").rule == "is one of F, M"
