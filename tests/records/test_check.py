"""The check: every broken rule at once, with count, rows and remedy, and never a pupil id."""

from collections.abc import Callable

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


CELL_RULES: list[tuple[str, object, str, tuple[str, ...]]] = [
    ("outcome", "abc", "is a number", ("abc",) * 3),
    ("outcome", -1, "is between 0 and 90", ("-1.0",) * 3),
    ("outcome", 90.5, "is between 0 and 90", ("90.5",) * 3),
    ("sen_status", "Q", "is one of N, K, E", ("Q",)),
    ("sen_status_entry", "k", "is one of N, K, E", ("k",)),
    ("school", None, "is not missing", ()),
    ("pupil", None, "is not missing", ()),
    ("month_of_birth", 13, "is between 1 and 12", ("13.0",) * 3),
    ("terms_on_roll", 16, "is between 0 and 15", ("16.0",) * 3),
    ("terms_on_roll", 7.5, "is a whole number", ("7.5",) * 3),
    ("sessions_absent", 301, "is not above sessions_possible", ("301.0",) * 3),
]


@pytest.mark.parametrize(("column", "value", "rule", "values"), CELL_RULES)
def test_a_broken_cell_is_named_with_its_rows(column: str, value: object, rule: str, values: tuple[str, ...]) -> None:
    failure = only(check(set_at(pupils(), column, [3, 17, 44], value)))
    assert (failure.column, failure.rule, failure.count, failure.rows) == (column, rule, 3, (3, 17, 44))
    assert tuple(str(float(v)) if v.replace(".", "").lstrip("-").isdigit() else v for v in failure.values) == values
    assert failure.remedy


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


@pytest.mark.parametrize("column", ["outcome", "prior", "sen_status", "idaci", "ethnicity"])
def test_an_empty_column_is_an_error(column: str) -> None:
    report = check(pupils().assign(**{column: None}))
    assert ("has a value in at least one row", column) in {(f.rule, f.column) for f in report.errors}


@pytest.mark.parametrize("column", ["outcome", "prior", "sen_status", "idaci", "ethnicity", "sen_status_entry", "la"])
def test_some_missing_values_are_a_warning_with_a_count(column: str) -> None:
    report = check(set_at(pupils(), column, [5, 30], None))
    failure = only(report, "warning")
    assert (failure.column, failure.rule, failure.count, failure.rows) == (column, "is not missing", 2, (5, 30))
    assert report.ok


@pytest.mark.parametrize(("column", "value"), [("idaci", 0.5), ("ethnicity", "WHIT"), ("prior", 100), ("outcome", 50)])
def test_a_constant_column_is_named(column: str, value: object) -> None:
    failure = only(check(pupils().assign(**{column: value})))
    assert (failure.column, failure.rule) == (column, "takes more than one value")


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


@pytest.mark.parametrize("label", ["2024/25", "2025-26", "202425", 2025, 2026.0])
def test_year_11_without_ks2_is_refused_with_the_reason(label: object) -> None:
    frame = set_at(pupils(), "cohort", [4, 6], label)
    failure = only(check(frame))
    assert (failure.rule, failure.count, failure.rows) == ("no KS2 tests were sat in 2020 and 2021", 2, (4, 6))
    assert check(frame, baseline="CAT4").ok


def test_neighbouring_cohorts_pass() -> None:
    assert check(set_at(pupils(), "cohort", [1, 2], "2023/24")).ok
    assert check(set_at(pupils(), "cohort", [1, 2], "2026/27")).ok


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


@pytest.mark.parametrize("breakage", [lambda f: f.assign(sex="X"), lambda f: f.assign(sex=1)])
def test_unexpected_sex_codes_are_a_warning(breakage: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    assert only(check(breakage(pupils())), "warning").rule == "is one of F, M"
