"""Cover of intervals: exact on numbers made by hand, as stated where the truth is known, off where it should be."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.validation.coverage import LEVELS, Coverage, cover_of
from send_va.validation.cut_coverage import ESTIMATORS, theta_cover
from send_va.validation.reml_coverage import NestedWorld, reml_cover, reml_coverage


def normal(simulations: int, width: float, seed: int = 1, schools: int = 25, draws: int = 59) -> Coverage:
    """Truths and draws of normal posteriors, as wide as said; a shock that schools of one simulation share."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(simulations):
        shared = rng.standard_normal() * np.sqrt(0.5)
        truth = shared + rng.standard_normal(schools) * np.sqrt(0.5)
        rows.append(cover_of("theta", truth, width * rng.standard_normal((draws, schools)), k))
    return Coverage(pd.concat(rows, ignore_index=True))


def test_calibrated_draws_cover_as_stated() -> None:
    table = normal(400, 1.0).table()
    assert table["level"].tolist() == list(LEVELS)
    assert (table["diagnosis"] == "as stated").all()
    assert ((table["cover"] - table["level"]).abs() < 4 * table["se"]).all()
    assert (table["simulations"] == 400).all()


@pytest.mark.parametrize(("width", "diagnosis"), [(0.8, "too short"), (1.3, "too long")])
def test_wrong_widths_are_named(width, diagnosis) -> None:
    assert (normal(400, width).table()["diagnosis"] == diagnosis).all()


def test_errors_count_simulations_not_schools() -> None:
    """SEs over 20 studies: the shared shock makes cover vary by much more than independent schools would."""
    tables = [normal(30, 1.0, seed, draws=39).table().set_index("level") for seed in range(20)]
    cover = np.array([table["cover"][0.8] for table in tables])
    stated = np.mean([table["se"][0.8] for table in tables])
    assert stated == pytest.approx(cover.std(ddof=1), rel=0.4)
    assert stated > 1.5 * np.sqrt(0.8 * 0.2 / (30 * 25))


def test_limits_are_order_statistics() -> None:
    """Of 39 draws the 95 % interval runs from the first to the last, the 50 % one from the tenth to the thirtieth."""
    draws = np.random.default_rng(1).permutation(np.arange(1.0, 40.0))[:, None]
    inside = {x: cover_of("a", np.array([x]), draws, 0)["cover"].tolist() for x in (0.9, 1.0, 9.9, 10.0, 30.0, 30.1)}
    assert inside[0.9] == [0, 0, 0] and inside[1.0] == [0, 0, 1]
    assert inside[9.9] == [0, 1, 1] and inside[10.0] == [1, 1, 1]
    assert inside[30.0] == [1, 1, 1] and inside[30.1] == [0, 1, 1]


def test_where_all_simulations_agree_the_error_is_that_of_a_share() -> None:
    rows = pd.DataFrame({"what": "a", "level": 0.95, "cover": 1.0, "simulation": range(50)})
    table = Coverage(rows).table()
    assert table["se"].iloc[0] == pytest.approx(np.sqrt(0.95 * 0.05 / 50))
    assert table["diagnosis"].iloc[0] == "as stated"


def test_accounts() -> None:
    found = Coverage(normal(30, 0.5).rows, problems=3)
    assert "did not converge: 3" in str(found) and "too short" in str(found)
    assert "too short" in found._repr_html_()


@pytest.mark.parametrize(
    ("truth", "draws", "levels", "message"),
    [
        (np.zeros(2), np.zeros((50, 3)), LEVELS, "do not fit"),
        (np.zeros(0), np.zeros((50, 0)), LEVELS, "do not fit"),
        (np.array([np.nan]), np.zeros((50, 1)), LEVELS, "not finite"),
        (np.zeros(1), np.zeros((50, 1)), (0.5, 1.0), "between 0 and 1"),
        (np.zeros(1), np.zeros((38, 1)), LEVELS, "38 draws have no 95% interval"),
    ],
)
def test_bad_draws_are_refused(truth, draws, levels, message) -> None:
    with pytest.raises(InputError, match=message):
        cover_of("theta", truth, draws, 0, levels)


def test_bad_rows_are_refused() -> None:
    rows = pd.DataFrame({"what": "a", "level": 0.5, "cover": [0.0, 1.0], "simulation": [0, 1]})
    for bad, message in (
        (rows.drop(columns="cover"), "lack cover"),
        (rows.assign(cover=[0.5, np.nan]), "share from 0 to 1"),
        (rows.iloc[:1], "1 simulations have no Monte-Carlo error"),
        (rows.iloc[:0], "0 simulations"),
    ):
        with pytest.raises(InputError, match=message):
            Coverage(bad)


def test_simulated_worlds_have_the_parameters_stated() -> None:
    world = NestedWorld(schools=4000, pupils=10)
    data, effects = world.simulate(np.random.default_rng(1))
    np.testing.assert_allclose(np.cov(effects.T), world.covariance, atol=4 * 0.22**2 * np.sqrt(2 / 4000))
    assert data.counts.min() == 5 and data.counts.max() == 15
    assert data.total[0, 1] / data.counts.sum() == pytest.approx(0.2, abs=0.01)


def test_reml_covers_near_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 worlds of 60 schools: no interval is off by more than chance; effects by less than three points at 95 %."""
    monkeypatch.setattr("send_va.validation.reml_coverage.VARIANCE_DRAWS", 99)
    found = reml_coverage([NestedWorld(schools=60, pupils=40)], 25, np.random.default_rng(3))
    table = found.table().set_index(["what", "level"])
    assert found.problems == 0
    assert len(table) == 11 * 3
    assert (table["simulations"] == 25).all()
    assert ((table["cover"] - table.index.get_level_values("level")).abs() < 4.5 * table["se"] + 0.02).all()
    for name in ("theta", "u", "gap"):
        assert table["cover"][f"{name}, 60 schools", 0.95] == pytest.approx(0.95, abs=0.03)


def test_reml_cover_is_the_same_for_the_same_seed() -> None:
    one, two = (reml_cover(NestedWorld(20, 20), np.random.default_rng(2), 7)[0] for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert (one["simulation"] == 7).all()


def test_theta_is_covered_against_the_average_school() -> None:
    """Draws around true effects less their mean: everything is inside; a school that is not compared is left out."""
    theta = np.array([1.0, 2.0, 6.0, 3.0])
    spread = np.linspace(-1.0, 1.0, 59)[:, None]
    drawn = (theta - theta.mean())[[2, 0, 1, 3]] + spread
    drawn[:, 3] = np.nan
    effects = SimpleNamespace(schools=["12", "10", "11", "13"], draws=lambda measure: drawn)
    truth = pd.DataFrame({"school": [10, 11, 12, 13], "theta": theta})
    found = SimpleNamespace(
        world=SimpleNamespace(truth=truth), effects=dict.fromkeys((*ESTIMATORS, "labelled"), effects)
    )
    rows = theta_cover(found, "lenient_better", 5)
    assert rows["what"].unique().tolist() == ["theta by entry, lenient better", "theta by standardised, lenient better"]
    assert (rows["cover"] == 1.0).all() and (rows["simulation"] == 5).all()
    found.world.truth = truth.assign(theta=theta * [1.0, 1.0, 3.0, 1.0])
    assert (theta_cover(found, "lenient_better", 5)["cover"] < 1.0).all()
