"""The joint model on cohorts drawn from itself: it finds what they were made with."""

from functools import cache

import numpy as np
import pytest

from send_va.errors import InputError, NotSupportedError
from send_va.validation import joint_posterior as module
from send_va.validation.joint_calibration import (
    calibration_records,
    joint_ranks,
    prior_draws,
    simulate_from,
)
from send_va.validation.joint_model import joint_model
from send_va.validation.joint_posterior import JointPosterior, national, require_bayes, sample_joint
from send_va.validation.joint_records import JointRecords

TRUTH = {"delta": -0.4, "kappa": 0.8, "intake_sd": 0.3, "mu": 0.1}


@cache
def truth() -> dict[str, np.ndarray]:
    rng, schools, feeders = np.random.default_rng(4), 20, 20
    return {name: np.float64(value) for name, value in TRUTH.items()} | {
        "gamma": np.array([-0.5, 0.2]),
        "beta": np.array([0.6, 0.1]),
        "intake": rng.normal(0, 0.3, schools),
        "tau": np.array([0.8, 1.8]),
        "tau_now": np.array([1.5, 3.0]),
        "rho": np.array([1.7, 2.8]),
        "feeder_leniency": rng.normal(0, 0.4, (feeders, 2)),
        "school_leniency": rng.normal(0, 0.4, (schools, 2)),
        "u": rng.normal(0, 0.3, schools),
        "gap": rng.normal(0, 0.4, schools),
        "slope": rng.normal(0, 0.08, schools),
        "level": np.float64(0.0),
        "sigma": np.array([0.6, 0.7]),
    }


@cache
def made() -> JointRecords:
    rng = np.random.default_rng(5)
    return simulate_from(calibration_records(rng, schools=20, pupils=30, feeders=20), truth(), rng)


@cache
def posterior() -> JointPosterior:
    return sample_joint(made(), np.random.default_rng(6), draws=100, tune=150, progress=False, cores=2)


def test_simulated_labels_and_outcomes_follow_their_parameters() -> None:
    """Against a normal variable: shares of labels where nobody is lenient, mean outcome where hardly anything acts."""
    rng = np.random.default_rng(1)
    records = calibration_records(rng, schools=40, pupils=500, feeders=20)
    zero = {"gamma": np.zeros(2), "beta": np.zeros(2), "intake": np.zeros(40), "u": np.zeros(40), "gap": np.zeros(40)}
    zero |= {"slope": np.zeros(40), "feeder_leniency": np.zeros((20, 2)), "school_leniency": np.zeros((40, 2))}
    found = simulate_from(records, truth() | zero | {"kappa": np.float64(0.0)}, rng)
    shares = np.bincount(found.entry, minlength=3) / 20_000
    np.testing.assert_allclose(shares, [0.78814, 0.17593, 0.03593], atol=0.01)  # of N(0, 1) at .8 and 1.8
    assert found.outcome.mean() == pytest.approx(0.1 * 0.21186, abs=0.02)  # mu times the share above .8
    kept = (found.now > 0)[found.entry == 1].mean()
    assert kept == pytest.approx(0.57926, abs=0.03)  # of N(0, 1) below rho - tau_now


def test_truth_is_found() -> None:
    table = posterior().parameters().set_index("parameter")
    assert posterior().divergences <= 5
    for name, value in TRUTH.items():
        assert abs(table.loc[name, "mean"] - value) < 3.5 * table.loc[name, "sd"], name
    assert table.loc["delta", "sd"] < 0.2  # of a prior SD of .3
    theta = truth()["u"] + truth()["gap"]
    assert np.corrcoef(posterior().flat("theta").mean(axis=0), theta)[0, 1] > 0.5
    lower, upper = np.quantile(posterior().flat("theta"), [0.005, 0.995], axis=0)
    assert ((lower < theta) & (theta < upper)).sum() >= 17


def test_the_posterior_names_its_schools_and_parameters() -> None:
    assert posterior().draws["theta"].shape == (2, 100, 20)
    np.testing.assert_allclose(posterior().flat("theta"), posterior().flat("u") + posterior().flat("gap"), atol=1e-12)
    assert {"rho[ehcp]", "sigma[with]", "effect_sd[gap]"} <= set(national(posterior().draws))
    r_hat, ess = posterior().mixing()
    assert 0.98 < r_hat < 1.3
    assert ess > 15.0


def test_prior_draws_are_those_of_the_stated_priors() -> None:
    model = joint_model(calibration_records(np.random.default_rng(1)), centred=False)
    drawn = prior_draws(model, np.random.default_rng(2), 400)
    assert drawn["delta"].std() == pytest.approx(0.3, rel=0.15)
    assert drawn["tau"][:, 0].mean() == pytest.approx(1.0, abs=0.1)
    assert (drawn["tau"][:, 1] > drawn["tau"][:, 0]).all()
    assert drawn["theta"].shape == (400, 12)


def test_ranks_of_two_simulations_lie_in_range() -> None:
    ranks = joint_ranks(np.random.default_rng(7), simulations=2, draws=10, thin=1, tune=20)
    assert ranks.ranks.shape == (2, len(ranks.names))
    assert ((ranks.ranks >= 0) & (ranks.ranks <= 10)).all()
    assert ((ranks.normalised > 0) & (ranks.normalised < 1)).all()
    assert {"delta", "theta[0]", "tau[support]", "gamma[0]", "log_likelihood"} <= set(ranks.names)
    assert (ranks.effective > 1.0).all()


def test_too_few_draws_or_chains_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 chains"):
        sample_joint(made(), np.random.default_rng(1), chains=1)
    with pytest.raises(InputError, match="ask for 1, 10 and 1 at least"):
        joint_ranks(np.random.default_rng(1), simulations=0)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(NotSupportedError, match=r'nutpie and jax cannot be imported: pip install "send-va\[bayes\]"'):
        require_bayes()
