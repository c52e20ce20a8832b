"""A hierarchical model whose posterior is known exactly, right or wrong on purpose: what a calibration check must say.

``y_gi ~ N(theta_g, v)``, ``theta_g ~ N(mu, v / 2)``, ``mu ~ N(0, v)``, ``v ~ InverseGamma(6, 5)``: given the data, v is
inverse gamma and (mu, theta) normal given v.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.validation.calibration import DRAWS, GenerativeModel, PosteriorDraws

Floats = NDArray[np.float64]

GROUPS, RECORDS = 6, 5
SHAPE, RATE = 6.0, 5.0
BETWEEN = 0.5  # variance of theta around mu, relative to that of records


def conjugate_model(
    *, sd_factor: float = 1.0, shift: float = 0.0, ignore_data: bool = False, draws: int = DRAWS
) -> GenerativeModel[Floats]:
    """Build the model with its exact posterior, or one that is wrong by a known amount.

    Parameters
    ----------
    sd_factor : float, default 1
        Multiplies the posterior SD of mu and theta: 0.8 is 20 % too narrow.
    shift : float, default 0
        Moves the posterior of mu and theta, in posterior SDs.
    ignore_data : bool
        Return draws from the prior, which every parameter lets pass and the log-likelihood does not.
    draws : int

    Returns
    -------
    GenerativeModel
        Ranks mu, theta of two groups, the log SD of records, and the log-likelihood of the two groups' records.

    Raises
    ------
    InputError
        `sd_factor` that is not positive.

    References
    ----------
    Gelman et al. (2013), Bayesian Data Analysis, 3rd ed., doi:10.1201/b16018, chapter 3 (normal-inverse-gamma).

    Examples
    --------
    >>> from send_va.validation.calibration import simulation_based_calibration
    >>> rng = np.random.default_rng(1)
    >>> simulation_based_calibration(conjugate_model(), 100, rng).calibrated
    True
    >>> simulation_based_calibration(conjugate_model(shift=0.7), 100, rng).table()["diagnosis"].iloc[0]
    'posterior shifted up'
    """
    if not sd_factor > 0.0:
        raise InputError(f"sd_factor must be positive, not {sd_factor}")

    def posterior(y: Floats, rng: np.random.Generator) -> PosteriorDraws:
        mean, covariance, shape, rate = _known(y, ignore_data)
        variance = rate / rng.gamma(shape, size=draws)
        error = rng.standard_normal((draws, len(mean))) @ np.linalg.cholesky(covariance).T
        moved = sd_factor * error + shift * np.sqrt(np.diag(covariance))
        effects = mean + np.sqrt(variance)[:, None] * moved
        drawn = np.column_stack([effects[:, :3], 0.5 * np.log(variance)])
        return PosteriorDraws(drawn[None], independent=True)

    return GenerativeModel(
        names=("mu", "theta_1", "theta_2", "log_sd"),
        draw_prior=_draw_prior,
        simulate=_simulate,
        posterior=posterior,
        quantities={"log_likelihood": _log_likelihood},
    )


def _draw_prior(rng: np.random.Generator) -> Floats:
    sd = np.sqrt(RATE / rng.gamma(SHAPE))
    mu = sd * rng.standard_normal()
    theta = mu + sd * np.sqrt(BETWEEN) * rng.standard_normal(2)
    return np.array([mu, *theta, np.log(sd)])


def _simulate(parameters: Floats, rng: np.random.Generator) -> Floats:
    """Records of all groups, shape (groups, records); the first two have their effects given."""
    mu, sd = parameters[0], np.exp(parameters[3])
    others = mu + sd * np.sqrt(BETWEEN) * rng.standard_normal(GROUPS - 2)
    theta = np.concatenate([parameters[1:3], others])
    return np.asarray(theta[:, None] + sd * rng.standard_normal((GROUPS, RECORDS)))


def _known(y: Floats, ignore_data: bool) -> tuple[Floats, Floats, float, float]:
    """Mean and relative covariance of (mu, theta), then shape and rate of the inverse-gamma variance, given y."""
    precision = np.zeros((GROUPS + 1, GROUPS + 1))
    precision[0, 0] = 1.0 + GROUPS / BETWEEN
    precision[0, 1:] = precision[1:, 0] = -1.0 / BETWEEN
    precision[1:, 1:] = np.eye(GROUPS) / BETWEEN
    if ignore_data:
        return np.zeros(GROUPS + 1), np.linalg.inv(precision), SHAPE, RATE
    precision[1:, 1:] += RECORDS * np.eye(GROUPS)
    covariance = np.linalg.inv(precision)
    mean = covariance @ np.concatenate([[0.0], y.sum(axis=1)])
    left = float((y**2).sum() - mean @ precision @ mean)
    return mean, covariance, SHAPE + 0.5 * y.size, RATE + 0.5 * left


def _log_likelihood(parameters: Floats, y: Floats) -> Floats:
    """Of the two groups whose effects are among the parameters (k, 4), shape (k,), but for a constant."""
    squares = ((y[:2] - parameters[:, 1:3, None]) ** 2).sum(axis=(1, 2))
    return np.asarray(-2 * RECORDS * parameters[:, 3] - 0.5 * squares / np.exp(2.0 * parameters[:, 3]))
