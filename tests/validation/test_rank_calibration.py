"""Simulation-based calibration: an exact posterior passes, wrong ones are caught, nothing fails silently."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from send_va.errors import ConvergenceError, InputError
from send_va.validation.calibration import (
    AUTOCORRELATED,
    GenerativeModel,
    PosteriorDraws,
    SimulatedRanks,
    calibration,
    effective_draws,
    ranks_of,
    simulated_ranks,
    simulation_based_calibration,
    thinned,
)
from send_va.validation.conjugate_model import conjugate_model

MOVED = ["mu", "theta_1", "theta_2"]


def diagnoses(simulations: int, seed: int, **wrong) -> pd.Series:
    found = simulation_based_calibration(conjugate_model(**wrong), simulations, np.random.default_rng(seed))
    assert found.calibrated == (found.table()["diagnosis"] == "uniform").all()
    return found.table().set_index("parameter")["diagnosis"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_exact_posterior_passes(seed) -> None:
    assert (diagnoses(500, seed) == "uniform").all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_posterior_a_fifth_too_narrow_is_caught(seed) -> None:
    """One parameter is caught with probability .93 only: at least one of three must be, and called by its name."""
    found = diagnoses(500, seed, sd_factor=0.8)[MOVED]
    assert (found == "posterior too narrow").any()
    assert set(found) <= {"posterior too narrow", "uniform"}


@pytest.mark.parametrize(("shift", "word"), [(0.3, "posterior shifted up"), (-0.3, "posterior shifted down")])
def test_a_shifted_posterior_is_caught(shift, word) -> None:
    found = diagnoses(500, 1, shift=shift)
    assert (found[MOVED] == word).all()
    assert found["log_sd"] == "uniform"  # whose posterior is right


def test_a_posterior_too_wide_is_caught() -> None:
    assert (diagnoses(500, 2, sd_factor=1.4)[MOVED] == "posterior too wide").all()


def test_only_the_likelihood_sees_a_posterior_that_ignores_the_data() -> None:
    found = diagnoses(200, 1, ignore_data=True)
    assert (found.drop("log_likelihood") == "uniform").all()
    assert found["log_likelihood"] != "uniform"


def test_same_seed_same_ranks_in_any_order_and_in_parts() -> None:
    model = conjugate_model()
    whole = simulated_ranks(model, np.random.default_rng(5).spawn(6))
    children = np.random.default_rng(5).spawn(6)
    backwards = simulated_ranks(model, children[::-1])
    np.testing.assert_array_equal(whole.ranks, backwards.ranks[::-1])
    children = np.random.default_rng(5).spawn(20)  # the first of more
    parts = [simulated_ranks(model, children[a:b]).to_frame() for a, b in ((0, 4), (4, 6))]
    stacked = SimulatedRanks.from_frame(pd.concat(parts, ignore_index=True), 99)
    np.testing.assert_array_equal(whole.ranks, stacked.ranks)
    assert stacked.names == whole.names == model.ranked
    assert stacked.problems == whole.problems


def one_parameter(posterior) -> GenerativeModel:
    return GenerativeModel(
        names=("mu",),
        draw_prior=lambda rng: rng.standard_normal(1),
        simulate=lambda mu, rng: float(mu[0] + rng.standard_normal()),
        posterior=posterior,
    )


def exact(y: float, rng: np.random.Generator) -> PosteriorDraws:
    return PosteriorDraws(y / 2 + np.sqrt(0.5) * rng.standard_normal((4, 250, 1)))


def test_failures_and_problems_are_counted_and_the_rest_is_ranked() -> None:
    def posterior(y, rng):
        if y > 1.5:
            raise ConvergenceError("all chains stuck")
        found = exact(y, rng)
        return replace(found, problems=("divergences",)) if y < -1.5 else found

    counted = []
    found = simulation_based_calibration(
        one_parameter(posterior), 120, np.random.default_rng(1), progress=counted.append
    )
    assert counted == list(range(1, 121))
    table = found.ranks.problem_table().set_index("problem")["simulations"]
    assert 5 < table["divergences"] < 40 and 5 < table["failed: all chains stuck"] < 40
    failed = found.ranks.failed
    assert failed.sum() == table["failed: all chains stuck"] == found.table()["failed"].iloc[0]
    assert found.uniformity.simulations == 120 - failed.sum()
    assert np.isnan(found.ranks.effective[failed]).all()
    assert not found.calibrated  # whatever the others look like
    for shown in (str(found), found._repr_html_()):
        assert "all chains stuck" in shown and "divergences" in shown
    again = SimulatedRanks.from_frame(found.ranks.to_frame(), 99)
    assert again.problems == found.ranks.problems
    np.testing.assert_array_equal(again.ranks, found.ranks.ranks)


def test_chains_are_thinned_to_independent_draws() -> None:
    """An AR(1) chain with correlation .9 has a nineteenth of its draws: 4,000 suffice for 99, 400 do not."""

    def chain(draws):
        def posterior(y, rng):
            noise = rng.standard_normal((4, draws // 4)) * np.sqrt(1 - 0.9**2)
            noise[:, 0] = rng.standard_normal(4)
            for t in range(1, noise.shape[1]):
                noise[:, t] += 0.9 * noise[:, t - 1]
            return PosteriorDraws(y / 2 + np.sqrt(0.5) * noise[:, :, None])

        return one_parameter(posterior)

    long = simulated_ranks(chain(4000), np.random.default_rng(1).spawn(60))
    short = simulated_ranks(chain(400), np.random.default_rng(1).spawn(10))
    assert np.median(long.effective) == pytest.approx(4000 / 19, rel=0.25)
    assert sum(AUTOCORRELATED in kinds for kinds in long.problems) <= 2
    assert all(kinds == (AUTOCORRELATED,) for kinds in short.problems)
    assert calibration(long).uniformity.uniform


def test_effective_draws_pass_over_what_is_constant() -> None:
    draws = np.random.default_rng(1).standard_normal((4, 100, 2))
    draws[:, :, 1] = 3.0
    assert 250 < effective_draws(draws) <= 800
    assert effective_draws(draws[:, :, 1:]) == 400


def test_ties_are_broken_at_random() -> None:
    """All nine draws equal the truth: every rank from 0 to 9 is as likely."""
    rng = np.random.default_rng(1)
    ranks = np.array([ranks_of(np.zeros(1), np.zeros((9, 1)), rng)[0] for _ in range(2000)])
    share = np.bincount(ranks, minlength=10) / 2000
    np.testing.assert_allclose(share, 0.1, atol=4 * np.sqrt(0.09 / 2000))
    drawn = np.arange(9.0)[:, None]
    assert [ranks_of(np.array([x]), drawn, rng)[0] for x in (-1.0, 3.5, 9.0)] == [0, 4, 9]


def test_a_discrete_parameter_with_its_exact_posterior_passes() -> None:
    """A coin is fair or not, and three throws are seen: ranks are nearly all ties."""

    def posterior(heads, rng):
        odds = (0.8**heads * 0.2 ** (3 - heads)) / 0.5**3
        return PosteriorDraws((rng.random((1, 99, 1)) < odds / (1 + odds)) * 1.0, independent=True)

    model = GenerativeModel(
        names=("bent",),
        draw_prior=lambda rng: rng.integers(0, 2, 1) * 1.0,
        simulate=lambda bent, rng: int(rng.binomial(3, 0.8 if bent[0] else 0.5)),
        posterior=posterior,
    )
    assert simulation_based_calibration(model, 400, np.random.default_rng(3)).calibrated


def test_thinning_keeps_every_chain() -> None:
    draws = np.arange(400.0).reshape(4, 100, 1)
    kept = thinned(draws, 20)[:, 0]
    assert np.bincount((kept // 100).astype(int)).tolist() == [5, 5, 5, 5]
    assert (np.diff(kept) == 20).all()


@pytest.mark.parametrize(
    ("posterior", "message"),
    [
        (lambda y, rng: PosteriorDraws(np.zeros((1, 98, 1))), "98 draws cannot be thinned to 99"),
        (lambda y, rng: PosteriorDraws(np.zeros((99, 1))), "shape"),
        (lambda y, rng: PosteriorDraws(np.zeros((1, 99, 2))), r"Give \(chains, draws, 1\)"),
        (lambda y, rng: PosteriorDraws(np.full((1, 99, 1), np.nan)), "mu are not finite"),
    ],
)
def test_bad_draws_are_refused(posterior, message) -> None:
    with pytest.raises(InputError, match=message):
        simulation_based_calibration(one_parameter(posterior), 20, np.random.default_rng(1))


def test_bad_models_are_refused() -> None:
    short = replace(one_parameter(exact), draw_prior=lambda rng: np.zeros(2))
    with pytest.raises(InputError, match="for 1 names"):
        simulation_based_calibration(short, 20, np.random.default_rng(1))
    with pytest.raises(InputError, match="10 simulations"):
        simulation_based_calibration(one_parameter(exact), 10, np.random.default_rng(1))
    with pytest.raises(InputError, match="positive"):
        conjugate_model(sd_factor=0.0)
