"""The recovery study: one small replicate in plausible ranges, and its summaries on numbers made by hand."""

from functools import cache, partial

import numpy as np
import pandas as pd
import pytest

from send_va.validation.recovery import (
    CORRECT,
    RANGES,
    Replicate,
    cell,
    cover_by_decile,
    measures,
    range_cover,
    replicate,
    scored,
    summarise,
    variance_ratios,
    world_of,
)

# 50 schools: some variances are estimated at their boundary, which is beside the point here
pytestmark = pytest.mark.filterwarnings("ignore::send_va.errors.BoundaryWarning")
SCHOOLS = 50
ESTIMATORS = ("labelled", "standardised", "entry", "label_free", "oracle")


@cache
def small() -> Replicate:
    return replicate("lenient_better", "scattered", 2, schools=SCHOOLS, draws=120, identification_draws=4)


def test_a_small_replicate_is_near_the_design() -> None:
    """Section 8: correlations .85 to .89, RMSE .13 to .15, cover .93 to .95 at 1,000 schools; 50 are rougher."""
    table = scored(small())
    found = measures(table, small().deltas).set_index("estimator")
    assert tuple(found.index) == ESTIMATORS
    need_based = ["standardised", "entry"]
    assert found.loc[need_based, "correlation"].between(0.7, 0.97).all()
    assert found.loc[need_based, "rmse"].between(0.09, 0.21).all()
    assert found.loc[need_based, "cover"].between(0.84, 1.0).all()
    assert found.loc["oracle", "correlation"] > 0.8
    assert found.loc["entry", "delta"] == pytest.approx(-0.25, abs=0.12)
    assert np.isnan(found.loc[["labelled", "label_free"], "delta"]).all()
    assert found["leniency_r"].between(0.7, 1.0).all()
    assert found["intake_r"].between(0.7, 1.0).all()
    assert found["intake_reliability"].between(0.5, 0.95).all()


def test_every_school_is_scored_once_by_each_estimator() -> None:
    table = scored(small())
    assert (table.groupby("estimator")["school"].nunique() == SCHOOLS).all()
    assert len(table) == SCHOOLS * len(ESTIMATORS)
    assert table.groupby("estimator")["theta"].mean().abs().max() < 1e-9  # against the average school
    assert ((table["lower"] < table["mean"]) & (table["mean"] < table["upper"])).all()
    assert not set(small().world.pupils["pupil"].astype(str)) & set(table["school"])


def by_hand(n: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors with a bias of .03 per SD of leniency and -.05 per SD of intake need, and nothing else."""
    rng = np.random.default_rng(1)
    base = pd.DataFrame(
        {
            "school": np.arange(n).astype(str),
            "estimator": "entry",
            "theta": rng.standard_normal(n) * 0.3,
            "leniency": 0.5 * rng.standard_normal(n),
            "intake_need": 0.35 * rng.standard_normal(n) + 0.1,
            "n_need": rng.integers(5, 60, n),
            "intake_reliability": 0.7,
        }
    )
    z = {name: (base[name] - base[name].mean()) / base[name].std() for name in ("leniency", "intake_need")}
    mean = 0.1 + base["theta"] + 0.03 * z["leniency"] - 0.05 * z["intake_need"]
    reach = np.where(np.arange(n) % 10 == 0, 0.0, 1.0)  # one interval in ten is empty
    unshrunken = {"estimate": base["theta"] - 0.02 * z["leniency"], "se": rng.uniform(0.1, 0.3, n)}
    unshrunken["estimate"].iloc[0] = np.nan  # a school without an estimate of its own
    hats = unshrunken | {"leniency_hat": 2 * base["leniency"] + 1, "intake_hat": -base["intake_need"]}
    return base, base.assign(mean=mean, lower=mean - reach, upper=mean + reach, **hats)


def test_biases_are_the_coefficients_of_the_error() -> None:
    _, table = by_hand()
    found = measures(table, {"entry": -0.25}).iloc[0]
    assert found["leniency_bias"] == pytest.approx(0.03, abs=1e-12)
    assert found["magnet_bias"] == pytest.approx(-0.05, abs=1e-12)
    assert found["leniency_bias_unshrunken"] == pytest.approx(-0.02, abs=2e-4)  # leniency in SDs of the schools left
    assert found["cover"] == pytest.approx(0.9)
    assert found["width"] == pytest.approx(1.8)
    assert found["rmse"] == pytest.approx(np.sqrt(((table["mean"] - table["theta"]) ** 2).mean()))
    assert found["leniency_r"] == pytest.approx(1.0)
    assert found["intake_r"] == pytest.approx(-1.0)
    assert found["delta"] == -0.25


def test_what_does_not_vary_has_no_bias_or_correlation() -> None:
    _, table = by_hand()
    found = measures(table.assign(leniency=0.0), {"entry": 0.0}).iloc[0]
    assert np.isnan(found[["leniency_bias", "leniency_r"]].astype(float)).all()
    assert np.isfinite(found["magnet_bias"])


def test_cover_by_deciles() -> None:
    _, table = by_hand()
    rank = table["intake_need"].rank()
    table["lower"] = np.where(rank <= 40, np.inf, -np.inf)  # the lowest tenth of intake need is never covered
    table["upper"] = np.inf
    found = cover_by_decile(table).set_index(["by", "decile"])["cover"]
    assert found.loc["intake_need"].tolist() == [0.0] + [1.0] * 9
    assert found.loc["leniency"].mean() == pytest.approx(0.9)
    whole = cover_by_decile(table).set_index(["by", "decile"]).loc["leniency"]
    assert (whole["schools"] == 40).all()
    np.testing.assert_allclose(whole["cover_se"], np.sqrt(whole["cover"] * (1 - whole["cover"]) / 40))
    assert set(cover_by_decile(table.assign(leniency=0.0))["by"]) == {"intake_need", "n_need"}


def test_summaries_have_monte_carlo_errors_and_pair_with_labelled() -> None:
    rmse = {"labelled": [0.15, 0.17, 0.16], "entry": [0.14, 0.15, 0.145]}
    rows = pd.DataFrame(
        [
            {
                "scenario": "a",
                "geography": "b",
                "seed": seed,
                "estimator": name,
                "rmse": value,
                "cover": 0.9 + seed / 100,
            }
            for name, values in rmse.items()
            for seed, value in enumerate(values)
        ]
    )
    found = summarise(rows).set_index("estimator")
    assert found.loc["entry", "replicates"] == 3
    assert found.loc["entry", "rmse"] == pytest.approx(0.145)
    assert found.loc["entry", "rmse_se"] == pytest.approx(0.005 / np.sqrt(3))
    assert found.loc["entry", "rmse_difference"] == pytest.approx(-0.015)
    assert found.loc["entry", "rmse_difference_se"] == pytest.approx(0.005 / np.sqrt(3))
    assert found.loc["entry", "rmse_ratio"] == pytest.approx(0.145 / 0.16)
    assert found.loc["labelled", "rmse_ratio"] == 1.0
    assert found.loc["entry", "cover"] == pytest.approx(0.91)


def test_variances_are_near_those_realised() -> None:
    """Within a factor of two at 50 schools; what the scenario has none of is left out."""
    found = variance_ratios(small().world, small().need)
    assert set(found) == {"feeder", "intake", "la_entry", "school", "la_now"}
    for name in ("feeder", "intake", "school"):
        assert 0.5 < found[name] < 2.0


def test_intervals_over_a_range_hold_no_less_than_each() -> None:
    table = scored(small())
    cover = measures(table, small().deltas).set_index("estimator")["cover"]["entry"]
    wide = range_cover(small(), {"area_sorting_share": (0.0, 1.0)})
    assert cover - 0.05 <= wide <= 1.0


def test_outcomes_are_bounded_where_the_model_is_not_assumed_right() -> None:
    assert not any(world_of(name).bounded for name in CORRECT)
    assert world_of("bounded").bounded
    assert all(world_of(name).bounded for name in RANGES)


def test_a_cell_labels_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scenario and geography goes through here; few draws, and a cell with a range of assumptions."""
    few = partial(replicate, draws=20, identification_draws=3)
    monkeypatch.setattr("send_va.validation.recovery.replicate", few)
    found, schools = cell("noisy_labels", "five_feeders", 7, 12)
    for table in (found, schools):
        assert set(table["scenario"]) == {"noisy_labels"}
        assert set(table["geography"]) == {"five_feeders"}
        assert (table["seed"] == 7).all()
    covers = found.set_index("estimator")["range_cover"]
    assert covers.drop("entry").isna().all()
    assert 0.5 < covers["entry"] <= 1.0
    assert set(found["estimator"]) == set(ESTIMATORS)
