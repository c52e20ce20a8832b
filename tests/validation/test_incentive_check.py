"""With everything estimated again, an act gains about what it gains with national parameters held."""

import pytest

from send_va.errors import BoundaryWarning
from send_va.validation.incentive_check import incentive_check, incentive_differences


@pytest.mark.filterwarnings(f"ignore::{BoundaryWarning.__module__}.{BoundaryWarning.__name__}")
def test_holding_national_parameters_costs_little() -> None:
    check = incentive_check("magnets", 1, schools=50, tried=[30], actions=["remove_lowest"], pupils_per_school=50.0)
    assert check["estimator"].tolist() == ["labelled", "standardised", "entry", "label_free"]
    assert (check["one_block"].abs() > 0.001).all()
    # An ordinary school moves the national mean by a fiftieth of what it does, and variances by less than that.
    assert (check["difference"].abs() < 0.01).all()
    assert (check["difference"].abs() > 0.0).any()
    by = check.set_index(["action", "estimator"])
    summed = incentive_differences(check).set_index(["action", "estimator"])
    assert (summed["n"] == 1).all()
    assert summed["mean_absolute"].to_numpy() == pytest.approx(by.loc[summed.index, "difference"].abs().to_numpy())
