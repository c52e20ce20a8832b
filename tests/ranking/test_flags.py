"""Flags at a false discovery rate and intervals for pairs: against arithmetic by hand and simulated truth."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from send_va.errors import InputError
from send_va.ranking.flags import comparison_intervals, false_discovery_flags, flag_units


def test_step_up_by_hand() -> None:
    """Benjamini & Hochberg (1995), section 4: 15 p-values, 4 of which are found at 5 % (Bonferroni finds 3)."""
    p = np.array(
        [
            0.0001,
            0.0004,
            0.0019,
            0.0095,
            0.0201,
            0.0278,
            0.0298,
            0.0344,
            0.0459,
            0.3240,
            0.4262,
            0.5719,
            0.6528,
            0.7590,
            1.0,
        ]
    )
    flags = false_discovery_flags(norm.isf(p / 2))
    np.testing.assert_allclose(flags["p_value"], p, atol=1e-12)
    assert (flags["flag"] == 1).sum() == 4
    assert flags["p_adjusted"][3] == pytest.approx(0.0095 * 15 / 4)
    harmonic = np.sum(1 / np.arange(1, 16))
    dependent = false_discovery_flags(norm.isf(p / 2), correction="by")
    assert dependent["p_adjusted"][0] == pytest.approx(0.0001 * 15 * harmonic)
    assert (dependent["flag"] == 1).sum() == 3


def test_sides() -> None:
    z = pd.Series([-5.0, 0.0, 5.0], index=["a", "b", "c"])
    assert false_discovery_flags(z)["flag"].to_dict() == {"a": -1, "b": 0, "c": 1}
    assert false_discovery_flags(z, side="low")["flag"].tolist() == [-1, 0, 0]
    assert false_discovery_flags(z, side="high")["flag"].tolist() == [0, 0, 1]


def test_rate_holds_on_simulated_units() -> None:
    """Two hundred cohorts of 200 units, 20 of them out of control, seed 1: false among flagged at most 10 %."""
    rng = np.random.default_rng(1)
    shares, found = [], []
    for _ in range(200):
        z = rng.normal(size=200)
        z[:20] += 4.0
        flags = false_discovery_flags(z, rate=0.1)["flag"].to_numpy() != 0
        shares.append(flags[20:].sum() / max(flags.sum(), 1))
        found.append(flags[:20].mean())
    assert np.mean(shares) < 0.1 * 180 / 200 + 3 * np.std(shares) / np.sqrt(200)
    assert np.mean(found) > 0.8


def test_overdispersion_is_counted() -> None:
    """Units that differ by more than their errors: without overdispersion many are flagged, with it the odd one."""
    rng = np.random.default_rng(2)
    se = rng.uniform(0.05, 0.2, 300)
    y = rng.normal(0, 0.3, 300) + se * rng.normal(size=300)
    y[7] = 3.0
    none, additive, multiplicative = (
        flag_units(y, se, overdispersion=kind)["flag"] for kind in ("none", "additive", "multiplicative")
    )
    assert (none != 0).sum() > 100
    assert additive[7] == multiplicative[7] == 1
    assert (additive != 0).sum() < 20


def test_equal_errors_give_the_multiplier_of_goldstein_and_healy() -> None:
    """1.96 / sqrt(2) = 1.386, the 1.39 of the paper; every pair has the error that is stated."""
    found = comparison_intervals(np.arange(10.0), np.full(10, 0.3))
    assert found.multiplier == pytest.approx(norm.isf(0.025) / np.sqrt(2), abs=1e-10)
    assert found.smallest_error == pytest.approx(0.05)
    assert found.largest_error == pytest.approx(0.05)
    np.testing.assert_allclose(found.table["upper"], np.arange(10.0) + 0.3 * found.multiplier)


def test_average_error_of_pairs() -> None:
    """Averaged over all pairs by a double loop, and over simulated estimates without differences."""
    rng = np.random.default_rng(3)
    se = np.array([0.1, 0.1, 0.2, 0.5, 1.0])
    found = comparison_intervals(np.zeros(5), se, average_error=0.1)
    errors = [
        2 * norm.sf(found.multiplier * (se[i] + se[j]) / np.hypot(se[i], se[j])) for i in range(5) for j in range(i)
    ]
    assert np.mean(errors) == pytest.approx(0.1, abs=1e-10)
    assert found.average_error == pytest.approx(0.1, abs=1e-10)
    assert found.smallest_error == pytest.approx(min(errors))
    assert found.largest_error == pytest.approx(max(errors))
    y = se * rng.normal(size=(20_000, 5))
    apart = [np.abs(y[:, i] - y[:, j]) > found.multiplier * (se[i] + se[j]) for i in range(5) for j in range(i)]
    assert np.mean(apart) == pytest.approx(0.1, abs=0.005)


def test_many_units_are_grouped() -> None:
    """Close to the average over all pairs of 1,500 units."""
    se = np.exp(np.random.default_rng(1).normal(-1, 0.6, 1_500))
    grouped = comparison_intervals(se, se)
    stretch = (se[:, None] + se) / np.hypot(se[:, None], se)
    error = 2 * norm.sf(grouped.multiplier * stretch)
    assert error[np.triu_indices(1_500, 1)].mean() == pytest.approx(0.05, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=40), st.floats(0.01, 0.3))
def test_multiplier_lies_between_that_of_equal_errors_and_the_usual_one(se: list[float], error: float) -> None:
    found = comparison_intervals(np.zeros(len(se)), se, average_error=error)
    usual = norm.isf(error / 2)
    assert usual / np.sqrt(2) - 1e-9 <= found.multiplier <= usual + 1e-9
    assert found.smallest_error <= found.average_error + 1e-9 <= found.largest_error + 2e-9


def test_all_equal() -> None:
    assert (false_discovery_flags(np.zeros(5))["flag"] == 0).all()
    assert (flag_units([0.2] * 5, [0.1] * 5)["flag"] == 0).all()


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="z: is not finite"):
        false_discovery_flags([1.0, np.nan])
    with pytest.raises(InputError, match="no units"):
        false_discovery_flags([])
    with pytest.raises(InputError, match="rate must lie"):
        false_discovery_flags([1.0], rate=5)
    with pytest.raises(InputError, match="no correction 'holm'"):
        false_discovery_flags([1.0], correction="holm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no side"):
        false_discovery_flags([1.0], side="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="zero or negative"):
        flag_units([1.0, 2.0], [0.1, 0.0])
    with pytest.raises(InputError, match="zero or negative"):
        comparison_intervals([1.0, 2.0], [0.1, -0.1])
    with pytest.raises(InputError, match="1 unit given"):
        comparison_intervals([1.0], [0.1])
    with pytest.raises(InputError, match="average_error"):
        comparison_intervals([1.0, 2.0], [0.1, 0.1], average_error=0)
    with pytest.raises(InputError, match="lengths differ"):
        comparison_intervals([1.0, 2.0], [0.1])


def test_what_is_printed() -> None:
    found = comparison_intervals([0.0, 1.0], [0.1, 0.2])
    assert "for one pair chosen beforehand" in str(found)
    assert "<table" in found._repr_html_()
