"""Rates of rejection, and sizes that are detected."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.validation.falsification_worlds import FalsificationWorld
from send_va.validation.leniency_worlds import LeniencyWorld
from send_va.validation.power import detectable, falsification_run, forecast_run, leniency_run, rejection_rates


def test_rates_and_their_errors() -> None:
    runs = pd.DataFrame({"world": ["a"] * 4 + ["b"] * 4, "p_value": [0.01, 0.2, 0.3, 0.04, 0.5, 0.6, 0.7, 0.8]})
    table = rejection_rates(runs.assign(estimate=1.0), ["world"])
    assert table["rejects"].tolist() == [0.5, 0.0] and table["runs"].tolist() == [4, 4]
    assert table["se"].tolist() == pytest.approx([0.25, np.sqrt(0.2 * 0.8 / 4)])  # none of four: as one of five


@given(st.floats(0.05, 0.7), st.floats(0.85, 1.0), st.floats(0.05, 0.95))
def test_detectable_size_lies_where_the_line_crosses(low: float, high: float, at: float) -> None:
    found = detectable(np.array([0.0, at, 1.0]), np.array([low, low, high]))
    assert at <= found <= 1.0
    assert low + (high - low) * (found - at) / (1.0 - at) == pytest.approx(0.8)


def test_never_detected_and_bad_sizes() -> None:
    assert np.isnan(detectable(np.array([0.0, 1.0]), np.array([0.05, 0.5])))
    assert detectable(np.array([0.1, 1.0]), np.array([0.9, 1.0])) == 0.1
    with pytest.raises(InputError, match="ascend"):
        detectable(np.array([1.0, 0.0]), np.array([0.05, 0.5]))


def test_single_runs_say_which_test_they_are() -> None:
    rng = np.random.default_rng(1)
    assert falsification_run(FalsificationWorld(schools=30), rng)["test"].tolist() == [
        "earlier scores",
        "earlier scores, uncorrected",
    ]
    assert forecast_run(FalsificationWorld(schools=30, cohorts=3), rng)["test"].tolist() == [
        "forecast, plain",
        "forecast, drift",
    ]
    found = leniency_run(LeniencyWorld(schools=60, pupils=60, feeders=300), rng)
    assert found["p_value"].between(0.0, 1.0).all()


def test_same_seed_same_numbers() -> None:
    world = FalsificationWorld(schools=30, reliability=0.8)
    first, second = (falsification_run(world, np.random.default_rng(4)) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
