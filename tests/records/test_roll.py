"""Terms on roll: one row a pupil and school, only that at the end in the published estimates, and every bad input."""

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError, StudyError
from send_va.records.check import CheckReport, check_cohort
from send_va.records.reader import Cohort
from send_va.records.roles import Roles
from send_va.records.roll import batches_by_roll, earlier_rows
from send_va.records.schema import pupil_schema

ONE_ROW = Roles("pupil", "school", "outcome", ("prior",), "sen_status", terms_on_roll="terms")
ROLES = Roles("pupil", "school", "outcome", ("prior",), "sen_status", terms_on_roll="terms", on_roll_at_end="at_end")


def pupils(n: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "pupil": [f"ID{i:05d}" for i in range(n)],
            "school": np.repeat([101, 102, 103], n // 3),
            "outcome": rng.uniform(10, 80, n).round(1),
            "prior": rng.normal(104, 8, n).round(),
            "sen_status": np.tile(["N", "N", "K"], n // 3),
            "terms": 15.0,
            "at_end": 1.0,
        }
    )


def with_earlier(*rows: tuple[str, int, float | None]) -> pd.DataFrame:
    """Rows of schools attended before: pupil, school, terms; nothing else is known of them."""
    blank = {"outcome": None, "prior": None, "sen_status": None, "at_end": 0.0}
    more = pd.DataFrame([{"pupil": p, "school": s, "terms": t, **blank} for p, s, t in rows])
    frame = pupils()
    moved = frame["pupil"].isin(more["pupil"])
    frame["terms"] = frame["terms"].mask(moved, 5.0)
    return pd.concat([more, frame], ignore_index=True).astype({"outcome": float, "prior": float})


def check(frame: pd.DataFrame, roles: Roles = ROLES) -> CheckReport:
    report = check_cohort(Cohort.from_pandas(frame, roles))
    assert "ID000" not in str(report) + str(report.table().to_dict())
    return report


def test_rows_of_schools_before_are_kept_apart() -> None:
    frame = with_earlier(("ID00001", 103, 10), ("ID00015", 101, 4), ("ID00015", 103, 6))
    report = check(frame)
    assert report.ok and not report.warnings, str(report)
    assert report.n_rows == 33
    cohort, plain = Cohort.from_pandas(frame, ROLES), Cohort.from_pandas(pupils(), ROLES)
    assert cohort.n_rows == 30
    assert cohort.profile(0).outcome == plain.profile(0).outcome
    assert cohort.profile(0).schools.table().equals(plain.profile(0).schools.table())
    batch = earlier_rows(cohort, ["outcome", "sen_level"]).to_pandas()
    assert batch["row_number"].tolist() == [1, 2, 3]
    assert batch["home_row"].tolist() == [5, 19, 19]
    assert batch["school"].tolist() == ["103", "101", "103"]
    assert batch["terms"].tolist() == [10, 4, 6]
    assert batch["outcome"].tolist() == frame["outcome"].iloc[[4, 18, 18]].tolist()
    shares = [share.tolist() for _, share in batches_by_roll(cohort, ["outcome"])]
    assert shares[-1] == pytest.approx([10 / 15, 4 / 15, 6 / 15])
    assert len(shares) == 2 and len(shares[0]) == 30 and shares[0][1] == pytest.approx(1 / 3)


def test_a_study_without_these_roles_reads_what_it_read() -> None:
    bare = Roles("pupil", "school", "outcome", ("prior",), "sen_status")
    cohort = Cohort.from_pandas(pupils(), bare)
    assert cohort.earlier is None and cohort.n_rows == 30
    assert "at_end" not in cohort.table.columns and "terms" not in cohort.table.columns
    twice = check(with_earlier(("ID00001", 103, 10)), bare)
    assert [failure.rule for failure in twice.errors] == ["is in one school"]
    assert "on_roll_at_end" not in twice.errors[0].remedy


def test_terms_alone_allow_one_row_a_pupil() -> None:
    assert check(pupils(), ONE_ROW).ok
    report = check(with_earlier(("ID00001", 103, 10)), ONE_ROW)
    assert [failure.rule for failure in report.errors] == ["is in one school"]
    assert report.errors[0].rows == (1, 3) and "on_roll_at_end" in report.errors[0].remedy


@pytest.mark.parametrize(
    ("value", "rule"),
    [(0, "is above 0"), (16, "is between 0 and 15"), ("all", "is a number"), (7.5, "is a whole number")],
)
def test_terms_out_of_range(value: object, rule: str) -> None:
    frame = pupils().astype({"terms": object})
    frame.loc[4, "terms"] = value
    report = check(frame)
    assert [(failure.column, failure.rule, failure.rows) for failure in report.errors] == [("terms", rule, (5,))]


def test_zero_terms_are_a_field_without_the_role() -> None:
    bare = Roles("pupil", "school", "outcome", ("prior",), "sen_status")
    assert check(pupils().assign(terms_on_roll=0), bare).ok


def test_missing_terms_count_as_all_of_them() -> None:
    frame = pupils()
    frame.loc[[0, 1], "terms"] = None
    report = check(frame)
    assert report.ok
    assert [(failure.rule, failure.count) for failure in report.warnings] == [("is not missing", 2)]
    assert "15 terms" in report.warnings[0].remedy
    ((_, share),) = batches_by_roll(Cohort.from_pandas(frame, ROLES), ["outcome"])
    assert share.tolist() == [1.0] * 30
    empty = check(frame.assign(terms=np.nan))
    assert [failure.rule for failure in empty.errors] == ["has a value in at least one row"]


def test_rows_of_a_pupil_must_fit_together() -> None:
    too_many = check(with_earlier(("ID00001", 103, 11)))
    assert [(f.column, f.rule, f.rows) for f in too_many.errors] == [
        ("terms", "adds up to at most 15 over the rows of a pupil", (1, 3))
    ]
    same_school = check(with_earlier(("ID00001", 103, 4), ("ID00001", 103, 4)))
    assert [f.rule for f in same_school.errors] == ["has one row a school"]
    blank = check(with_earlier(("ID00001", 103, None)))
    assert [f.rule for f in blank.errors] == ["is not missing where a pupil has rows of several schools"]
    assert [f.rule for f in blank.warnings] == ["is not missing"]
    two_ends = with_earlier(("ID00001", 103, 4))
    two_ends.loc[0, ["at_end", "outcome", "prior", "sen_status"]] = [1.0, 40.0, 100.0, "N"]
    assert [f.rule for f in check(two_ends).errors] == ["is in one school"]
    unknown = pupils()
    unknown.loc[2, "at_end"] = None
    assert [(f.column, f.rule) for f in check(unknown).errors] == [("at_end", "is not missing")]
    assert [(f.column, f.rule) for f in check(pupils().assign(at_end=2)).errors] == [
        ("at_end", "is one of 0, 1"),
    ]


def test_pupils_without_a_result_are_reported_and_left_out() -> None:
    frame = with_earlier(("ID99999", 101, 9), ("ID00001", 103, 4), ("ID00002", 999, 10))
    report = check(frame)
    assert report.ok
    assert [(f.rule, f.count, f.rows) for f in report.warnings] == [
        ("has a row at the school at the end of the key stage", 1, (1,))
    ]
    # nor are rows of a school that nobody is counted at
    assert earlier_rows(Cohort.from_pandas(frame, ROLES)).to_pydict()["row_number"] == [2]


def test_terms_are_checked_where_they_are_used_too() -> None:
    frame = pupils()
    frame.loc[0, "terms"] = 20
    with pytest.raises(InputError, match="terms: is not above 0 and at most 15") as caught:
        list(batches_by_roll(Cohort.from_pandas(frame, ROLES), ["outcome"]))
    assert "ID000" not in str(caught.value)
    with pytest.raises(InputError, match="missing at a school attended before"):
        list(batches_by_roll(Cohort.from_pandas(with_earlier(("ID00001", 103, None)), ROLES), ["outcome"]))
    with pytest.raises(InputError, match="hold no terms on roll"):
        earlier_rows(Cohort.from_pandas(frame, Roles("pupil", "school", "outcome", ("prior",), "sen_status")))


def test_an_absent_column_is_named() -> None:
    with pytest.raises(InputError, match="terms_on_rol"):
        Cohort.from_pandas(pupils(), {**_mapping(), "terms_on_roll": "terms_on_rol"})
    with pytest.raises(StudyError, match="Did you mean 'terms_on_roll'"):
        Cohort.from_pandas(pupils(), {**_mapping(), "term_on_roll": "terms"})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"on_roll_at_end": "at_end"}, "roles.terms_on_roll: rule broken: is given with on_roll_at_end"),
        ({"terms_on_roll": "terms", "context": ["terms"]}, "roles.terms_on_roll: terms: rule broken: has no other"),
        ({"terms_on_roll": "terms", "on_roll_at_end": "terms"}, "has no other role"),
        ({"terms_on_roll": "pupil"}, "has no other role"),
    ],
)
def test_roles_that_contradict_each_other(more: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        Roles.from_mapping({**_mapping(), **more})


def test_the_role_sharpens_the_schema() -> None:
    assert pupil_schema(ONE_ROW).columns["terms"].required
    assert (
        len(pupil_schema(ONE_ROW).columns["terms"].checks)
        == len(pupil_schema(ONE_ROW).columns["terms_on_roll"].checks) + 1
    )


def _mapping() -> dict[str, object]:
    return {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": "prior", "sen_status": "sen_status"}
