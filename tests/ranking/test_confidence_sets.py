"""Rank confidence sets: against csranks, against every pair in every draw, and by coverage of known ranks."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.ranking import rank_set_kernels as kernels
from send_va.ranking.confidence_sets import confidence_sets, tau_best, tau_worst
from send_va.ranking.noisy_estimates import NoisyEstimates, noisy_estimates
from send_va.ranking.significant_counts import candidates

CSRANKS = (
    "marg_two-sided_stepdown_c90_R10000_seed1",
    "marg_two-sided_stepdown_c95_R10000_seed1",
    "marg_two-sided_stepdown_c95_R10000_seed2",
    "marg_two-sided_stepdown_c95_R10000_seed3",
    "simul_lower_stepdown_c95_R10000_seed1",
    "simul_upper_stepdown_c95_R10000_seed1",
    "simul_two-sided_single_c95_R10000_seed1",
    "simul_two-sided_stepdown_c95_R10000_seed1",
    "simul_two-sided_stepdown_c95_R10000_seed2",
    "simul_two-sided_stepdown_c95_R10000_seed3",
)


def schools(n: int, signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    se = 0.15 * np.exp(rng.normal(0.0, 0.5, n))
    return rng.normal(0.0, signal, n) + se * rng.normal(size=n), se


def signed_squares(difference: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return difference * np.abs(difference) / spread


def every_pair(units, z, coverage, *, marginal, stepdown, sides=(True, True)) -> tuple[np.ndarray, np.ndarray]:
    """Counts of units above and below, by all ordered pairs in all draws: (draws, n, n), entry a, b for a over b."""
    n, v = units.n, units.variances
    spread = v[:, None] + v if units.covariance is None else units.spread
    wide = z.astype(np.float64)
    q = signed_squares(wide[:, :, None] - wide[:, None, :], spread)
    observed = signed_squares(units.values[:, None] - units.values, spread)
    above, below = np.zeros(n, int), np.zeros(n, int)
    for unit in range(n) if marginal else [None]:
        family = ~np.eye(n, dtype=bool)
        if unit is not None:
            pairs = np.zeros((n, n), bool)
            pairs[unit, :], pairs[:, unit] = sides[0], sides[1]
            pairs[unit, unit] = False
            family &= pairs
        still_open = family.copy()
        while True:
            maxima = np.maximum(q[:, still_open].max(axis=1, initial=0.0), 0.0)
            limit = np.quantile(np.sqrt(maxima), coverage) ** 2
            significant = family & (observed > limit)
            if not stepdown or not (still_open & significant).any():
                break
            still_open &= ~significant
        if unit is None:
            return significant.sum(axis=0), significant.sum(axis=1)
        above[unit], below[unit] = significant[:, unit].sum(), significant[unit].sum()
    return above, below


@pytest.mark.parametrize("case", CSRANKS)
def test_csranks(shared_reference: Path, case: str) -> None:
    """csranks 1.2.3, PISA 2018: its own bounds move from seed to seed, at most 10 % of them, by 2 places."""
    folder = shared_reference / "rank_sets"
    countries = pd.read_csv(folder / "pisa2018_math_input.csv", index_col="unit")
    expected = pd.read_csv(folder / f"pisa2018_math_{case}.csv").to_numpy()
    kind, side, steps, percent = re.match(r"(marg|simul)_(.*)_(stepdown|single)_c(\d+)", case).groups()
    sets = confidence_sets(
        countries["estimate"],
        countries["se"],
        int(percent) / 100,
        simultaneous=kind == "simul",
        stepdown=steps == "stepdown",
        side=side,
    )
    assert sets.index.equals(countries.index)
    difference = np.abs(sets.to_numpy() - expected)
    assert (difference[:, 1] == 0).all()
    assert (difference[:, [0, 2]] > 0).mean() <= 0.1
    assert difference.max() <= 2


def test_all_files_of_csranks_are_used(shared_reference: Path) -> None:
    names = {
        path.stem.removeprefix("pisa2018_math_") for path in (shared_reference / "rank_sets").glob("*_R10000_*.csv")
    }
    assert names == {*CSRANKS, "tau5_R10000_seed1"}


def test_csranks_best_and_worst(shared_reference: Path) -> None:
    folder = shared_reference / "rank_sets"
    countries = pd.read_csv(folder / "pisa2018_math_input.csv", index_col="unit")
    expected = pd.read_csv(folder / "pisa2018_math_tau5_R10000_seed1.csv")
    best = tau_best(countries["estimate"], countries["se"], tau=5)
    worst = tau_worst(countries["estimate"], countries["se"], tau=5)
    assert best.index.equals(countries.index)
    assert best.tolist() == expected["best"].tolist()
    assert worst.tolist() == expected["worst"].tolist()


@pytest.mark.parametrize("n", [2, 3, 17, 60])
def test_pruned_maxima_are_those_of_every_pair(n: int) -> None:
    """Bit for bit: maxima over all pairs, and over each unit's pairs for either order and both."""
    units = noisy_estimates(*schools(n, 0.3, seed=n))
    z = units.noise(300, np.random.default_rng(n))
    wide = z.astype(np.float64)
    spread = units.variances[:, None] + units.variances
    q = signed_squares(wide[:, :, None] - wide[:, None, :], spread)
    maxima, above, below = np.empty(300), np.empty(300, np.int32), np.empty(300, np.int32)
    kernels.pair_maxima(z, units.variances, maxima, above, below)
    assert (maxima == q.max(axis=(1, 2))).all()
    assert (q[np.arange(300), above, below] == maxima).all()
    kernels.pair_maxima_dependent(z, spread, maxima, above, below)
    assert (maxima == q.max(axis=(1, 2))).all()
    assert (q[np.arange(300), above, below] == maxima).all()
    starts, members = candidates(z)
    np.fill_diagonal(spread, 1.0)
    for sides, expected in {
        (True, False): q.max(axis=2),
        (False, True): (-q).max(axis=2),
        (True, True): np.abs(q).max(axis=2),
    }.items():
        largest, partner = np.empty((n, 300)), np.empty((n, 300), np.int32)
        kernels.unit_maxima(z, units.variances, starts, members, 0, sides, largest, partner)
        assert (largest == expected.T).all()
        kernels.unit_maxima_dependent(z, spread, 0, sides, largest, partner)
        assert (largest == expected.T).all()


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("stepdown", [False, True])
@pytest.mark.parametrize("signal", [0.2, 1.0])
def test_sets_are_those_of_every_pair(signal: float, stepdown: bool, dependent: bool) -> None:
    n, draws = 40, 400
    estimate, se = schools(n, signal)
    covariance = np.diag(se**2)
    if dependent:
        loadings = np.random.default_rng(3).normal(0.0, 0.1, (n, 2))
        covariance = covariance + loadings @ loadings.T
    errors = covariance if dependent else se
    units = noisy_estimates(estimate, errors)
    z = units.noise(draws, np.random.default_rng(1))
    for marginal, side in [(False, "two-sided"), (True, "two-sided"), (True, "lower"), (True, "upper")]:
        sides = (side != "lower", side != "upper")
        above, below = every_pair(units, z, 0.9, marginal=marginal, stepdown=stepdown, sides=sides)
        sets = confidence_sets(
            estimate, errors, 0.9, simultaneous=not marginal, stepdown=stepdown, side=side, draws=draws, seed=1
        )
        if side != "upper":
            assert (sets["lower"].to_numpy() == units.unsorted(1 + above)).all()
        if side != "lower":
            assert (sets["upper"].to_numpy() == units.unsorted(n - below)).all()
        if side != "two-sided":
            assert (sets["upper" if side == "lower" else "lower"] == (n if side == "lower" else 1)).all()
    assert above.sum() + below.sum() > 0


def test_one_sided_simultaneous_bounds_are_those_of_both_sides() -> None:
    estimate, se = schools(30, 0.5)
    both = confidence_sets(estimate, se, draws=500)
    assert (confidence_sets(estimate, se, side="lower", draws=500)["lower"] == both["lower"]).all()
    assert (confidence_sets(estimate, se, side="upper", draws=500)["upper"] == both["upper"]).all()
    assert (tau_best(estimate, se, tau=3, draws=500) == (both["lower"] <= 3)).all()
    assert (tau_worst(estimate, se, tau=3, draws=500) == (both["upper"] >= 28)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000), st.booleans())
def test_properties(n: int, seed: int, simultaneous: bool) -> None:
    """The order of units does not matter, more coverage and fewer steps give wider sets, and ranks lie inside."""
    rng = np.random.default_rng(seed)
    estimate, se = schools(n, rng.uniform(0.0, 1.0), seed)
    common = {"simultaneous": simultaneous, "draws": 200, "seed": seed}
    sets = confidence_sets(pd.Series(estimate), se, **common)
    assert (sets["lower"] <= sets["rank"]).all()
    assert (sets["rank"] <= sets["upper"]).all()
    assert sets["lower"].min() == 1
    assert sets["upper"].max() == n
    shuffled = pd.Series(estimate).sample(frac=1.0, random_state=seed)
    again = confidence_sets(shuffled, se[shuffled.index], **common)
    pd.testing.assert_frame_equal(again.sort_index(), sets)
    for wider in (
        confidence_sets(estimate, se, 0.99, **common),
        confidence_sets(estimate, se, stepdown=False, **common),
    ):
        assert (wider["lower"] <= sets["lower"]).all()
        assert (wider["upper"] >= sets["upper"]).all()


def test_simultaneous_coverage() -> None:
    """All ranks at once, 300 replications of 30 units: at least .95 where values differ, .95 where all are equal.

    Bounds are four Monte-Carlo standard errors, sqrt(.95 * .05 / 300) = .0126 each.
    """
    rng = np.random.default_rng(5)
    n, replications = 30, 300
    se = 0.15 * np.exp(rng.normal(0.0, 0.4, n))
    error = 4.0 * np.sqrt(0.95 * 0.05 / replications)
    for truth in (np.zeros(n), rng.normal(0.0, 0.6, n)):
        best_rank = 1 + (truth > truth[:, None]).sum(axis=1)
        worst_rank = n - (truth < truth[:, None]).sum(axis=1)
        covered = 0
        for replication in range(replications):
            sets = confidence_sets(truth + se * rng.normal(size=n), se, draws=400, seed=replication)
            covered += bool((sets["lower"] <= best_rank).all() and (sets["upper"] >= worst_rank).all())
        assert covered / replications > 0.95 - error
        if not truth.any():
            assert covered / replications < 0.95 + error


def test_marginal_coverage() -> None:
    """Each rank by itself, where all values are equal: .95 on average, within four Monte-Carlo errors of 200 means."""
    rng = np.random.default_rng(6)
    n, replications = 20, 200
    se = 0.15 * np.exp(rng.normal(0.0, 0.4, n))
    share = np.empty(replications)
    for replication in range(replications):
        sets = confidence_sets(se * rng.normal(size=n), se, simultaneous=False, draws=400, seed=replication)
        share[replication] = ((sets["lower"] == 1) & (sets["upper"] == n)).mean()
    assert share.mean() == pytest.approx(0.95, abs=4.0 * share.std() / np.sqrt(replications))


def test_what_all_units_share_does_not_matter() -> None:
    """An error that moves all estimates together leaves ranks alone; by Monte-Carlo error only few bounds move."""
    estimate, se = schools(30, 0.5)
    alone = confidence_sets(estimate, se)
    shared = confidence_sets(estimate, np.diag(se**2) + 25.0)
    difference = (alone - shared).abs().to_numpy()
    assert (difference > 0).mean() < 0.1
    assert difference.max() <= 2
    pd.testing.assert_frame_equal(confidence_sets(estimate, np.diag(se**2)), alone)


def test_singular_covariance() -> None:
    """Errors that sum to zero: of rank two, with three differences that all have a variance."""
    centring = np.eye(3) - 1.0 / 3.0
    sets = confidence_sets([3.0, 2.9, 0.0], 0.1 * centring)
    assert sets.to_numpy().tolist() == [[1, 1, 2], [1, 2, 2], [3, 3, 3]]


def test_cores_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate, se = schools(150, 0.5)
    several = [confidence_sets(estimate, se, simultaneous=together, draws=600) for together in (True, False)]
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    for sets, together in zip(several, (True, False), strict=True):
        pd.testing.assert_frame_equal(confidence_sets(estimate, se, simultaneous=together, draws=600), sets)


def test_ties() -> None:
    equal = confidence_sets(np.ones(6), np.linspace(0.1, 0.5, 6), draws=200)
    assert equal.to_numpy().tolist() == [[1, 1, 6]] * 6
    two = confidence_sets([1.0, 1.0], [0.1, 0.2], draws=200)
    assert two.to_numpy().tolist() == [[1, 1, 2]] * 2
    some = confidence_sets(pd.Series([5.0, 1.0, 1.0, 0.0], index=list("abcd")), [0.1] * 4, draws=500)
    assert some["rank"].tolist() == [1, 2, 2, 4]
    assert some.loc["b"].tolist() == some.loc["c"].tolist() == [2, 2, 3]


def test_two_units() -> None:
    """The critical value of one difference both ways is the normal one, 1.96: 1.9 does not reject and 2.1 does."""
    se = np.full(2, np.sqrt(0.5))
    assert confidence_sets([1.9, 0.0], se).to_numpy().tolist() == [[1, 1, 2], [1, 2, 2]]
    assert confidence_sets([2.1, 0.0], se).to_numpy().tolist() == [[1, 1, 1], [2, 2, 2]]
    assert confidence_sets([1.7, 0.0], se, simultaneous=False, side="lower")["lower"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("estimate", "errors", "settings", "message"),
    [
        ([1.0], [0.1], {}, "1 unit given, at least 2 needed"),
        ([], [], {}, "0 units given, at least 2 needed"),
        ([1.0, np.nan, np.inf], [0.1] * 3, {}, "estimate: .*finite.*rows 2, 3"),
        ([1.0, 2.0], [0.1, np.nan], {}, "se_or_cov: .*finite.*rows 2"),
        ([1.0, 2.0, 3.0], [0.1, 0.0, -1.0], {}, "se_or_cov: is zero or negative.*rows 2, 3; values 0.0, -1.0"),
        ([1.0, 2.0], [0.1] * 3, {}, r"shape \(3,\), and there are 2"),
        ([1.0, 2.0], np.eye(3), {}, r"shape \(3, 3\)"),
        ([[1.0, 2.0]], [0.1] * 2, {}, "2 dimensions"),
        (["a", "b"], [0.1] * 2, {}, "not numbers"),
        ([1.0, 2.0], [[1.0, np.nan], [np.nan, 1.0]], {}, "not finite"),
        ([1.0, 2.0], [[1.0, 0.5], [0.2, 1.0]], {}, "not symmetric"),
        ([1.0, 2.0], [[1.0, 0.0], [0.0, -1.0]], {}, "negative variance.*rows 2; values -1.0"),
        ([1.0, 2.0, 3.0], [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]], {}, r"units 0 and 2 \(rows 1 and 3\)"),
        ([1.0, 2.0, 3.0], np.eye(3) * 1.9 - 0.9, {}, "negative eigenvalue"),
        ([1.0, 2.0], [0.1] * 2, {"coverage": 1.0}, "coverage"),
        ([1.0, 2.0], [0.1] * 2, {"draws": 0}, "draws: at least 1"),
        ([1.0, 2.0], [0.1] * 2, {"side": "left"}, "'left'.*two-sided, lower, upper"),
        (np.zeros(100_000), np.ones(100_000), {"draws": 100_000}, "37.3 GiB.*draws=21,474"),
    ],
)
def test_what_is_refused(estimate: object, errors: object, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        confidence_sets(estimate, errors, **settings)


def test_too_large_a_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("send_va.ranking.noisy_estimates._MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"covariance matrix of 6 units.*standard errors"):
        confidence_sets(np.arange(6.0), np.eye(6))


def test_other_things_refused() -> None:
    units = pd.Series([1.0, 2.0], index=["a", "b"])
    with pytest.raises(InputError, match="index"):
        confidence_sets(units, pd.Series([0.1, 0.1], index=["b", "a"]))
    with pytest.raises(InputError, match="index"):
        confidence_sets(units, pd.DataFrame(np.eye(2), index=["a", "b"], columns=["b", "a"]))
    for tau in (0, 3):
        with pytest.raises(InputError, match="tau"):
            tau_best(units, [0.1, 0.1], tau=tau, draws=10)
        with pytest.raises(InputError, match="tau"):
            tau_worst(units, [0.1, 0.1], tau=tau, draws=10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"draws": 99.5}, "draws must be a whole number, not 99.5"),
        ({"draws": "many"}, "draws must be a whole number, not 'many'"),
        ({"seed": -1}, "seed must be a whole number from 0, not -1"),
        ({"coverage": "0.95"}, "coverage must lie between 0 and 1, not 0.95"),
    ],
)
def test_settings_that_are_no_numbers_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        confidence_sets([1.0, 2.0], [0.1, 0.2], **changed)


def test_whole_floats_count_as_whole_numbers():
    pd.testing.assert_frame_equal(
        confidence_sets([1.0, 2.0], [0.1, 0.2], draws=1e3), confidence_sets([1.0, 2.0], [0.1, 0.2], draws=1000)
    )
    with pytest.raises(InputError, match=r"tau must be a whole number, not 1\.5"):
        tau_best([1.0, 2.0], [0.1, 0.2], tau=1.5)


@pytest.mark.parametrize("among", [tau_best, tau_worst])
def test_a_bad_tau_is_refused_before_any_set_is_worked_out(monkeypatch: pytest.MonkeyPatch, among) -> None:
    monkeypatch.setattr(NoisyEstimates, "noise", lambda *_: pytest.fail("worked out"))
    for tau in (0, 3, 1.5, "two"):
        with pytest.raises(InputError, match="tau"):
            among([1.0, 2.0], [0.1, 0.2], tau=tau)


def test_a_whole_float_is_a_tau_and_one_unit_has_no_best() -> None:
    assert tau_best([1.0, 2.0], [0.1, 0.2], tau=1.0, draws=100).tolist() == [False, True]
    assert tau_worst([1.0, 2.0], [0.1, 0.2], tau=1.0, draws=100).tolist() == [True, False]
    with pytest.raises(InputError, match="1 unit given, at least 2 needed"):
        tau_best([1.0], [0.1])
