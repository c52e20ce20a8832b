"""The Pandera schema: it passes a good frame, fails a bad one, and every check of it has a form in SQL."""

import ibis
import pandas as pd
import pandera.pandas as pa
import pytest

from send_va.records.fields import ORDERED_FIELDS, REQUIRED_FIELDS, field_definitions
from send_va.records.reader import Cohort
from send_va.records.roles import Roles, SenCodes
from send_va.records.rules import evaluate, schema_rules, sql_form
from send_va.records.schema import column_kinds, pupil_schema, role_fields

ROLES = Roles("pupil", "school", "outcome", ("prior",), "sen_status", context=("C(sex)", "month_of_birth", "C(home)"))


def good() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "pupil": ["a", "b", "c"],
            "school": [100, 100, 101],
            "outcome": [41, 0, 90],
            "prior": [100.5, None, 99],
            "sen_status": ["N", "K", "E"],
            "sex": ["F", "M", None],
            "month_of_birth": [1, 12, 7],
            "home": ["x", "y", "x"],
            "terms_on_roll": [15, 0, 7],
            "sessions_absent": [3, 10, 0],
            "sessions_possible": [300, 300, 10],
            "unknown_column": ["kept", "as", "is"],
        }
    )


def test_a_good_frame_passes() -> None:
    checked = pupil_schema(ROLES, outcome_range=(0, 90)).validate(good(), lazy=True)
    assert checked["outcome"].dtype == "float64"
    assert list(checked["unknown_column"]) == ["kept", "as", "is"]


ABSENT = "sessions_absent_at_most_sessions_possible"
BAD: list[tuple[str, list[object], str]] = [
    ("outcome", [41, -1, 90], "in_range"),
    ("outcome", [41, 91, 90], "in_range"),
    ("outcome", [41, float("inf"), 90], "finite"),
    ("sen_status", ["N", "Q", "E"], "isin"),
    ("month_of_birth", [0, 12, 7], "in_range"),
    ("month_of_birth", [1.5, 12, 7], "whole_number"),
    ("terms_on_roll", [16, 0, 7], "in_range"),
    ("school", ["100", None, "101"], "not_nullable"),
    ("sessions_absent", [3, 10, 11], ABSENT),
]


@pytest.mark.parametrize(("column", "values", "check"), BAD)
def test_a_bad_frame_fails_in_pandera(column: str, values: list[object], check: str) -> None:
    with pytest.raises(pa.errors.SchemaErrors) as caught:
        pupil_schema(ROLES, outcome_range=(0, 90)).validate(good().assign(**{column: values}), lazy=True)
    assert any(str(case).startswith(check) for case in caught.value.failure_cases["check"])


@pytest.mark.parametrize(("column", "values", "check"), BAD)
def test_the_same_frame_fails_the_rules_in_sql(column: str, values: list[object], check: str) -> None:
    cohort = Cohort.from_pandas(good().assign(**{column: values}), ROLES, outcome_range=(0, 90))
    assert {f.column for f in evaluate(cohort, schema_rules(cohort)) if f.level == "error"} == {column}


def test_a_missing_role_column_fails() -> None:
    with pytest.raises(pa.errors.SchemaErrors, match="column 'prior' not in dataframe"):
        pupil_schema(ROLES).validate(good().drop(columns="prior"), lazy=True)


def test_text_in_a_number_fails() -> None:
    with pytest.raises(pa.errors.SchemaErrors):
        pupil_schema(ROLES).validate(good().assign(outcome=["41", "abc", "90"]), lazy=True)


def test_every_check_has_a_form_in_sql() -> None:
    table = ibis.table({"number": "float64", "code": "string"})
    for outcome_range in [(0.0, None), (None, 90.0), (0.0, 90.0)]:
        for definition in field_definitions(outcome_range=outcome_range).values():
            column = table.code if definition.metadata["kind"] == "code" else table.number
            for check in definition.checks:
                breaks, rule = sql_form(check, column)
                assert breaks.type().is_boolean()
                assert rule.startswith("is ")


def test_a_check_without_a_form_is_a_programming_error() -> None:
    with pytest.raises(LookupError, match="str_matches"):
        sql_form(pa.Check.str_matches("a"), ibis.table({"code": "string"}).code)


def test_every_field_says_what_the_dictionary_needs() -> None:
    definitions = field_definitions()
    assert set(REQUIRED_FIELDS) <= set(definitions)
    assert {name for pair in ORDERED_FIELDS for name in pair} <= set(definitions)
    for name, definition in definitions.items():
        assert definition.description, name
        assert all(definition.metadata[key] for key in ("kind", "unit", "source", "published", "allowed", "level")), (
            name
        )
    assert definitions["pupil"].metadata["published"] == "never"


def test_roles_give_their_columns_the_rules_of_the_field() -> None:
    roles = Roles(
        "stuid", "schoolid", "math", ("math_lag1", "lang_lag1"), "sped", context=("frl",), prior_sem=("a", "b")
    )
    kinds = column_kinds(pupil_schema(roles, sen=SenCodes(none=("0",), support=("1",), ehcp=())))
    assert {name: kinds[name] for name in roles.columns} == {
        "stuid": "code", "schoolid": "code", "math": "number", "math_lag1": "number", "lang_lag1": "number",
        "a": "number", "b": "number", "sped": "code", "frl": "number",
    }  # fmt: skip
    assert "outcome" not in kinds
    assert role_fields(roles)["b"] == "prior_sem"
