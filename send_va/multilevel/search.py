"""The search for variance parameters: where the deviance is least, and how that was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from send_va.multilevel.criterion import Criterion
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.elimination import unpack

_SINGULAR = 1e-6  # eigenvalue of a relative covariance, columns scaled to unit size, below which it counts as zero
# Largest gradient of the deviance, per square root of a record, at which the search ends, and at which an optimum
# counts as found where rounding ends the search first.
_FLAT, _STATIONARY = 1e-5, 2e-4
_NEWTON_STEPS, _ROUNDING = 8, 1e-12  # at most; relative error of a deviance
_NEAR = 1e-4  # deviance still to be gained at which Newton steps end: a hundredth of a standard error


@dataclass(frozen=True)
class Convergence:
    """What the optimiser did, as data.

    Attributes
    ----------
    converged : bool
        True when the gradient is flat at an optimum, a variance of zero included.
    gradient : float
        Largest absolute derivative of the criterion by a parameter, in the units in which the search runs.
    evaluations : int
        Evaluations of criterion and gradient.
    at_boundary : tuple of int
        Levels (0 = innermost) whose covariance is singular.
    message : str
        The optimiser's own words.
    """

    converged: bool
    gradient: float
    evaluations: int
    at_boundary: tuple[int, ...]
    message: str


def optimise(
    criterion: Criterion, theta: FloatArray, inverse_curvature: FloatArray
) -> tuple[FloatArray, FloatArray, Convergence]:
    """BFGS on the factor's elements, restarted where it stopped at a zero that is no optimum."""
    message = ""
    for _ in range(4):
        origin = criterion(theta)[0]

        def centred(point: FloatArray, origin: float = origin) -> tuple[float, FloatArray]:
            value, slope = criterion(point)
            return value - origin, slope

        options: Any = {"gtol": _FLAT * criterion.degrees**0.5, "maxiter": 500, "hess_inv0": inverse_curvature}
        result = minimize(centred, theta, jac=True, method="BFGS", options=options)
        theta, message = np.asarray(result.x), str(result.message)
        lopsided = np.asarray(result.hess_inv, dtype=np.float64)  # by rounding
        inverse_curvature = (lopsided + lopsided.T) / 2.0
        escape = _escape_from_zero(criterion, theta)
        if escape is None:
            break
        theta = escape
    gradient = float(np.abs(criterion(theta)[1]).max())
    converged = gradient < _STATIONARY * criterion.degrees**0.5
    found = Convergence(converged, gradient, criterion.evaluations, _at_boundary(criterion, theta), message)
    return theta, inverse_curvature, found


def _at_boundary(criterion: Criterion, theta: FloatArray) -> tuple[int, ...]:
    """Levels whose covariance is singular."""
    factors = unpack(theta, criterion.levels)
    return tuple(at for at, f in enumerate(factors) if np.linalg.eigvalsh(f @ f.T)[0] < _SINGULAR)


def newton_steps(
    criterion: Criterion, theta: FloatArray, inverse_curvature: FloatArray
) -> tuple[FloatArray, Convergence | None]:
    """Newton steps with a fixed curvature while the decrement falls (the deviance hides in rounding near the end).

    Returns
    -------
    theta : array
    Convergence or None
        Where they came as near as matters; otherwise the search must go on.
    """
    value, slope = criterion(theta)
    for _ in range(_NEWTON_STEPS):
        step = inverse_curvature @ slope
        if 0.0 <= slope @ step < _NEAR and not _at_boundary(criterion, theta):
            found = Convergence(True, float(np.abs(slope).max()), criterion.evaluations, (), "Newton steps settled.")
            return theta, found
        its_value, its_slope = criterion(theta - step)
        falls = its_slope @ inverse_curvature @ its_slope < 0.5 * slope @ step
        if not falls or its_value > value + _ROUNDING * abs(value):
            break
        theta, value, slope = theta - step, its_value, its_slope
    return theta, None


def _escape_from_zero(criterion: Criterion, theta: FloatArray) -> FloatArray | None:
    """A zero factor is stationary whatever the likelihood says: try a small variance in its null direction."""
    value = criterion(theta)[0]
    factors = unpack(theta, criterion.levels)
    for at, (level, factor) in enumerate(zip(criterion.levels, factors, strict=True)):
        values, vectors = np.linalg.eigh(factor @ factor.T)
        if values[0] >= _SINGULAR:
            continue
        bumped = np.linalg.cholesky(
            factor @ factor.T + 2e-5 * np.outer(vectors[:, 0], vectors[:, 0]) + 1e-12 * np.eye(level.q)
        )
        trial = [bumped if k == at else other for k, other in enumerate(factors)]
        point = np.concatenate([f[np.tril_indices(len(f))] for f in trial])
        if criterion(point)[0] < value - 1e-7:
            return point
    return None
