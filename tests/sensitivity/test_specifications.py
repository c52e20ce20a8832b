"""Choices and their crossing."""

from typing import get_args

import pytest

from send_va import study
from send_va.errors import InputError
from send_va.ranking.shrinkage import Prior
from send_va.records import design_columns
from send_va.sensitivity import specifications
from send_va.sensitivity.specifications import CHOICES, MOST_SPECIFICATIONS, Choices


def test_names_spelt_out_are_those_of_the_rest_of_the_package() -> None:
    assert set(specifications.ESTIMATORS) == set(study.ESTIMATORS)
    assert specifications.CONTEXTS == design_columns.CONTEXTS == study.CONTEXTS
    assert ("model", "none", *get_args(Prior)) == specifications.PRIORS


def test_crossing_holds_every_combination_once_and_begins_with_the_reference() -> None:
    choices = Choices(
        outcome=("att8", "p8"),
        context=("cva", "prior"),
        send=("ehcp", "any"),
        estimator=("labelled", "entry"),
        prior=("none", "model", "normal"),
        minimum_cohort=(10, 1),
    )
    table = choices.table()
    assert len(table) == choices.n == 96 and not table.duplicated().any()
    assert table.iloc[0].tolist() == ["att8", "cva", "ehcp", "full", 0, "labelled", "none", 10]
    assert table.index.tolist() == list(range(1, 97)) and tuple(table.columns) == CHOICES
    assert choices.varied == ("outcome", "context", "send", "estimator", "prior", "minimum_cohort")
    assert choices.n_fits == 16


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"context": ()}, "context: names no value"),
        ({"estimator": ("entry", "entry")}, "estimator: names a value twice"),
        ({"prior": ("flat",)}, "prior: is not a value of this choice.*'flat'.*precision_dependent"),
        ({"years": (-1,)}, "years: must be whole numbers, 0 or more"),
        ({"minimum_cohort": (0,)}, "minimum_cohort: must be whole numbers, 1 or more"),
        ({"minimum_cohort": (True,)}, "minimum_cohort: must be whole numbers"),
        ({"outcome": (" ",)}, "outcome: must be names of columns"),
    ],
)
def test_values_out_of_range_are_named(given: dict[str, tuple[object, ...]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Choices(**{"outcome": ("att8",), **given})  # type: ignore[arg-type]


def test_more_specifications_than_can_be_read_are_counted_and_refused() -> None:
    most = tuple(range(1, MOST_SPECIFICATIONS + 1))
    assert Choices(("att8",), minimum_cohort=most).n == MOST_SPECIFICATIONS
    with pytest.raises(InputError, match="10,000 specifications, more than 5,000"):
        Choices(("att8", "p8"), minimum_cohort=most)
