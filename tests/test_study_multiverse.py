"""The table ``[multiverse]`` of a study file."""

import pytest

from send_va.errors import InputError
from send_va.study_multiverse import MultiverseSection


def test_without_a_key_the_outcome_of_the_study_is_the_only_one() -> None:
    section = MultiverseSection()
    assert section.failures() == [] and section.choices("att8").outcome == ("att8",)
    assert MultiverseSection(outcomes=("p8", "ebacc")).choices("att8").outcome == ("p8", "ebacc")
    assert section.choices("att8").table().iloc[0]["estimator"] == "entry"


def test_failures_name_the_keys_of_the_study_file() -> None:
    section = MultiverseSection(contexts=("cvx",), years=(-1, 1), minimum_cohort=(), estimators=("entry", "entry"))
    assert [failure.column for failure in section.failures()] == [
        "multiverse.contexts",
        "multiverse.years",
        "multiverse.estimators",
        "multiverse.minimum_cohort",
    ]
    with pytest.raises(InputError):
        section.choices("att8")


def test_too_many_specifications_are_a_failure_of_the_table() -> None:
    (failure,) = MultiverseSection(minimum_cohort=tuple(range(1, 20))).failures()
    assert failure.column == "multiverse" and "5,472 specifications" in failure.rule
