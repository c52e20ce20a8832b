"""The table of a study file on missing prior attainment."""

import pytest

from send_va.sensitivity import completed_fits, missing_prior
from send_va.study_missing import ESTIMATORS, STATUSES, MissingPriorSection


def test_defaults_are_fine_and_names_are_those_of_the_analysis() -> None:
    assert MissingPriorSection().failures() == []
    assert MissingPriorSection().deltas == missing_prior.DELTAS
    assert STATUSES == missing_prior.STATUSES and ESTIMATORS == completed_fits.ESTIMATORS


@pytest.mark.parametrize(
    ("given", "column"),
    [
        ({"imputations": 1}, "missing_prior.imputations"),
        ({"imputations": 500}, "missing_prior.imputations"),
        ({"deltas": (0.5,)}, "missing_prior.deltas"),
        ({"deltas": (0.0, 4.0)}, "missing_prior.deltas"),
        ({"deltas": (0.0, 0.5, 0.5)}, "missing_prior.deltas"),
        ({"tolerance": 1.0}, "missing_prior.tolerance"),
        ({"shifted": ()}, "missing_prior.shifted"),
        ({"shifted": ("K",)}, "missing_prior.shifted"),
        ({"estimators": ("label_free",)}, "missing_prior.estimators"),
    ],
)
def test_values_out_of_range_are_listed(given: dict, column: str) -> None:
    (failure,) = MissingPriorSection(**given).failures()
    assert failure.column == column
