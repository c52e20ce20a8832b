"""Roles and SEN codes: what they accept, what they refuse, and what the refusal says."""

import pytest

from send_va.errors import StudyError
from send_va.records.academic_years import academic_year_end
from send_va.records.roles import Roles, SenCodes

NEEDED = {"pupil": "id", "school": "urn", "outcome": "att8", "prior": ["ks2"], "sen_status": "sen"}


def test_columns_are_listed_once_and_context_is_split_by_kind() -> None:
    roles = Roles.from_mapping(
        {
            **NEEDED,
            "la": "la",
            "context": ["C(sex)", "idaci", "C( la )"],
            "prior": ["reading", "maths"],
            "prior_sem": ["r_se", "m_se"],
        }
    )
    assert roles.columns == ("id", "urn", "la", "att8", "reading", "maths", "r_se", "m_se", "sen", "sex", "idaci")
    assert roles.context_columns == ("sex", "idaci", "la")
    assert roles.categorical == ("sex", "la")
    assert roles.numeric_context == ("idaci",)
    assert roles.needed_for_estimation == ("urn", "att8", "reading", "maths", "sen", "sex", "idaci", "la")


def test_a_single_name_stands_for_a_list() -> None:
    assert Roles.from_mapping({**NEEDED, "prior": "ks2", "context": "fsm6"}) == Roles.from_mapping(
        {**NEEDED, "context": ["fsm6"]}
    )


def test_unknown_role_names_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"roles\.outcom.*Did you mean 'outcome'\?"):
        Roles.from_mapping({**NEEDED, "outcom": "att8"})


def test_every_missing_role_is_named_at_once() -> None:
    with pytest.raises(StudyError) as caught:
        Roles.from_mapping({"pupil": "id"})
    assert [failure.column for failure in caught.value.failures] == [
        "roles.school",
        "roles.outcome",
        "roles.prior",
        "roles.sen_status",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"school": 3}, "roles.school: rule broken: is a column name"),
        ({"prior": ["ks2", 4]}, "roles.prior: rule broken: is a column name or a list of them"),
        ({"prior_sem": ["a", "b"]}, "there are 2 for 1 prior scores"),
        ({"context": ["C(sex)", "sex"]}, "sex: rule broken: is used once among outcome, prior and context"),
        ({"context": ["att8"]}, "att8: rule broken: is used once"),
        ({"context": ["C(sen)"]}, "is no pupil id, school or SEN status"),
        ({"la": "la", "context": ["la"]}, r"Write C\(la\)"),
        ({"outcome": "sen_level"}, "does not use a reserved name"),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Roles.from_mapping({**NEEDED, **change})


def test_codes_before_2014_map_onto_levels() -> None:
    codes = SenCodes(support=("K", "A", "P"), ehcp=("E", "S"))
    assert [codes.level_of(code) for code in codes.codes] == [0, 1, 1, 1, 2, 2]


def test_a_single_flag_needs_no_plan_level() -> None:
    assert SenCodes(none=("0",), support=("1",), ehcp=()).level_of("1") == 1


def test_a_code_with_two_levels_is_refused() -> None:
    with pytest.raises(StudyError, match=r"each code has one level.*values K"):
        SenCodes(support=("K",), ehcp=("E", "K"))


def test_codes_need_both_sides() -> None:
    with pytest.raises(StudyError, match="one code for none and one for support or ehcp"):
        SenCodes(support=(), ehcp=())


def test_unknown_code_lists_the_allowed() -> None:
    with pytest.raises(StudyError, match=r"values X\. Allowed: N, K, E"):
        SenCodes().level_of("X")


@pytest.mark.parametrize(
    "label", ["2024/25", "2024-25", "2024_25", "202425", "2024/2025", "2024_2025", "20242025", " 2025 "]
)
def test_academic_years_are_read_by_the_year_they_end(label: str) -> None:
    assert academic_year_end(label) == 2025


@pytest.mark.parametrize("label", ["2024/26", "25", "year 11", "", "202426", "2024/2026"])
def test_what_is_no_academic_year(label: str) -> None:
    assert academic_year_end(label) is None


def test_the_turn_of_the_century() -> None:
    assert academic_year_end("1999/00") == 2000
