"""How strong an unmeasured confounder must be to change one coefficient of a linear regression.

An omitted variable Z is described by two numbers: the share of what is left of the treatment D, and the share of what
is left of the outcome Y, that it would explain beyond the covariates X (and, for Y, beyond D),

    R2_dz = R2(D ~ Z | X),    R2_yz = R2(Y ~ Z | X, D).

They fix its bias, ``|bias| = se * sqrt(dof) * sqrt(R2_yz * R2_dz / (1 - R2_dz))``, whatever Z is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from send_va.errors import Failure, InputError

Floats = NDArray[np.float64]


def robustness_value(
    estimate: ArrayLike, se: ArrayLike, dof: ArrayLike, q: float = 1.0, alpha: float = 1.0
) -> float | Floats:
    """Share of variation that a confounder must explain, of treatment and of outcome, to change a conclusion.

    Parameters
    ----------
    estimate, se : float or array
        Coefficient of the treatment and its standard error, classical least squares; in any unit.
    dof : float or array
        Residual degrees of freedom, above 1.
    q : float
        Share of the estimate that the confounder would have to explain away; 1: all of it.
    alpha : float
        1: the point estimate shrinks by the share `q`. Below 1: what is left can no longer be told from
        ``(1 - q) * estimate`` at that level of significance.

    Returns
    -------
    float or array
        Between 0 and 1. A confounder that explains less than this share of what is left of the treatment **and** of
        what is left of the outcome cannot explain the estimate away; one that explains more of both can. Compare it
        with what observed covariates explain (:func:`benchmark_bounds`): by itself .1 is neither much nor little.
        0 with `alpha` below 1: the estimate could not be told from ``(1 - q) * estimate`` to begin with.

    Raises
    ------
    InputError
        A standard error that is not positive, too few degrees of freedom, `q` below 0, `alpha` outside (0, 1].

    References
    ----------
    Cinelli & Hazlett (2020), doi:10.1111/rssb.12348.

    Examples
    --------
    >>> value = robustness_value(0.0973158, 0.0232565, 783)
    >>> f"{value:.3f}"
    '0.139'
    >>> f"{robustness_value(0.0973158, 0.0232565, 783, alpha=0.05):.3f}"
    '0.076'
    """
    _check(se, dof, q=q, alpha=alpha)
    dof = np.asarray(dof, dtype=np.float64)
    f = q * np.abs(np.asarray(estimate, dtype=np.float64) / np.asarray(se)) / np.sqrt(dof)
    least = np.abs(student.ppf(alpha / 2.0, dof - 1.0)) / np.sqrt(dof - 1.0)
    beyond = np.maximum(f - least, 0.0)
    both = 0.5 * (np.sqrt(beyond**4 + 4.0 * beyond**2) - beyond**2)
    # A confounder may shrink the standard error too: where its share of the outcome need not reach that of the
    # treatment for the t value to fall to the critical one, only the latter binds.
    treatment_only = (f**2 - least**2) / (1.0 + f**2)
    value = np.where((beyond > 0.0) & (f * least > 1.0), treatment_only, both)
    return _plain(value)


def partial_r2(estimate: ArrayLike, se: ArrayLike, dof: ArrayLike) -> float | Floats:
    """Share of what the other covariates leave of the outcome that this one explains.

    Returns
    -------
    float or array
        Between 0 and 1. For the treatment it is also the share of what is left of the treatment that a confounder
        which explained **all** that is left of the outcome would need.

    Examples
    --------
    >>> f"{partial_r2(0.0973158, 0.0232565, 783):.4f}"
    '0.0219'
    """
    f2 = np.asarray(partial_f2(estimate, se, dof))
    return _plain(f2 / (1.0 + f2))


def partial_f2(estimate: ArrayLike, se: ArrayLike, dof: ArrayLike) -> float | Floats:
    """Cohen's partial f squared, ``t^2 / dof``: partial R2 over one minus itself.

    Examples
    --------
    >>> f"{partial_f2(0.0973158, 0.0232565, 783):.4f}"
    '0.0224'
    """
    _check(se, dof)
    t = np.asarray(estimate, dtype=np.float64) / np.asarray(se, dtype=np.float64)
    return _plain(t**2 / np.asarray(dof, dtype=np.float64))


def group_partial_r2(estimates: ArrayLike, cov: ArrayLike, dof: float) -> float:
    """Share of what the other covariates leave of the outcome that a group of covariates explains together.

    Parameters
    ----------
    estimates : array, shape (k,)
    cov : array, shape (k, k)
        Their classical covariance.
    dof : float

    Raises
    ------
    InputError
        Shapes that do not match, or a covariance that is not positive definite.

    Examples
    --------
    A group of one has the partial R2 of its covariate:

    >>> f"{group_partial_r2([0.0973158], [[0.0232565**2]], 783):.4f}"
    '0.0219'
    """
    beta, spread = np.atleast_1d(np.asarray(estimates, dtype=np.float64)), np.asarray(cov, dtype=np.float64)
    if spread.shape != (len(beta), len(beta)):
        raise InputError(f"{len(beta)} coefficients have a covariance of shape {spread.shape}", "Give one k x k.")
    try:
        root = np.linalg.cholesky(spread)
    except np.linalg.LinAlgError:
        raise InputError("the covariance of the group is not positive definite", "Leave out repeats.") from None
    wald = float((np.linalg.solve(root, beta) ** 2).sum())
    _check(1.0, dof)
    return wald / (wald + dof)


def bias(se: ArrayLike, dof: ArrayLike, r2_dz: ArrayLike, r2_yz: ArrayLike) -> float | Floats:
    """Size of the bias that a confounder of this strength would cause, in units of the estimate.

    Parameters
    ----------
    se, dof
        Of the estimate without the confounder.
    r2_dz, r2_yz : float or array
        Shares of what is left of the treatment (below 1) and of the outcome that it explains.

    Examples
    --------
    >>> f"{bias(0.0232565, 783, 0.1, 0.1):.4f}"
    '0.0686'
    """
    _check(se, dof, r2_dz=r2_dz, r2_yz=r2_yz)
    d, y = np.asarray(r2_dz, dtype=np.float64), np.asarray(r2_yz, dtype=np.float64)
    spread = np.asarray(se, dtype=np.float64) * np.sqrt(np.asarray(dof, dtype=np.float64))
    return _plain(spread * np.sqrt(y * d / (1.0 - d)))


def adjusted_estimate(
    estimate: ArrayLike, se: ArrayLike, dof: ArrayLike, r2_dz: ArrayLike, r2_yz: ArrayLike, *, reduce: bool = True
) -> float | Floats:
    """Estimate with such a confounder taken into account.

    Parameters
    ----------
    reduce : bool
        The confounder works towards zero (and beyond); False: away from it.

    Examples
    --------
    >>> f"{adjusted_estimate(0.0973158, 0.0232565, 783, 0.1, 0.1):.4f}"
    '0.0287'
    """
    value, moved = np.asarray(estimate, dtype=np.float64), np.asarray(bias(se, dof, r2_dz, r2_yz))
    direction = np.where(value < 0.0, -1.0, 1.0)
    return _plain(direction * (np.abs(value) + (-moved if reduce else moved)))


def adjusted_se(se: ArrayLike, dof: ArrayLike, r2_dz: ArrayLike, r2_yz: ArrayLike) -> float | Floats:
    """Give the standard error with such a confounder taken into account.

    Examples
    --------
    >>> f"{adjusted_se(0.0232565, 783, 0.1, 0.1):.4f}"
    '0.0233'
    """
    _check(se, dof, r2_dz=r2_dz, r2_yz=r2_yz)
    d, y, n = (np.asarray(value, dtype=np.float64) for value in (r2_dz, r2_yz, dof))
    return _plain(np.asarray(se) * np.sqrt((1.0 - y) / (1.0 - d)) * np.sqrt(n / (n - 1.0)))


def adjusted_t(
    estimate: ArrayLike,
    se: ArrayLike,
    dof: ArrayLike,
    r2_dz: ArrayLike,
    r2_yz: ArrayLike,
    *,
    reduce: bool = True,
    null: float = 0.0,
) -> float | Floats:
    """Estimate less `null` over its standard error with such a confounder taken into account; ``dof - 1`` degrees.

    Examples
    --------
    >>> f"{adjusted_t(0.0973158, 0.0232565, 783, 0.1, 0.1):.2f}"
    '1.23'
    """
    moved = np.asarray(adjusted_estimate(estimate, se, dof, r2_dz, r2_yz, reduce=reduce))
    return _plain((moved - null) / np.asarray(adjusted_se(se, dof, r2_dz, r2_yz)))


@dataclass(frozen=True)
class BenchmarkBound:
    """The strongest confounder that is `kd` and `ky` times as strong as an observed covariate.

    Attributes
    ----------
    r2_dz, r2_yz : float
        Shares of what is left of treatment and outcome that it could explain at most.
    capped : bool
        `r2_yz` was cut to 1: a confounder so strong cannot exist.
    """

    r2_dz: float
    r2_yz: float
    capped: bool = False


def benchmark_bounds(r2_dx: float, r2_yx: float, *, kd: float = 1.0, ky: float | None = None) -> BenchmarkBound:
    """Bound a confounder by what an observed covariate explains.

    Parameters
    ----------
    r2_dx : float
        Share of what the other covariates leave of the treatment that the benchmark explains.
    r2_yx : float
        Share of what treatment and the other covariates leave of the outcome that it explains.
    kd, ky : float
        How many times as much of treatment and of outcome the confounder explains; `ky` is `kd` by default.

    Returns
    -------
    BenchmarkBound
        Give both shares to :func:`adjusted_estimate`.

    Raises
    ------
    InputError
        Shares outside [0, 1), multiples below 0, or a confounder that would explain all of the treatment.

    References
    ----------
    Cinelli & Hazlett (2020), doi:10.1111/rssb.12348, section 4.4.

    Examples
    --------
    >>> bound = benchmark_bounds(0.009081, 0.109, kd=2)
    >>> f"{bound.r2_dz:.4f} {bound.r2_yz:.3f}"
    '0.0183 0.249'
    """
    ky = kd if ky is None else ky
    _check(1.0, 2.0, r2_dz=r2_dx, r2_yz=r2_yx)
    if not (kd >= 0.0 and ky >= 0.0):
        raise InputError(f"a confounder cannot be {kd} and {ky} times as strong as a benchmark", "Give 0 or more.")
    if r2_yx >= 1.0:
        raise InputError("the benchmark explains all that is left of the outcome", "Choose another benchmark.")
    r2_dz = kd * r2_dx / (1.0 - r2_dx)
    shared = kd * r2_dx**2 / ((1.0 - kd * r2_dx) * (1.0 - r2_dx)) if kd * r2_dx < 1.0 else np.inf
    if r2_dz >= 1.0 or shared >= 1.0:
        raise InputError(
            f"a confounder {kd:g} times as strong as this benchmark would explain all that is left of the treatment",
            "Choose a lower kd.",
        )
    r2_yz = ((np.sqrt(ky) + np.sqrt(shared)) / np.sqrt(1.0 - shared)) ** 2 * r2_yx / (1.0 - r2_yx)
    return BenchmarkBound(float(r2_dz), float(min(r2_yz, 1.0)), bool(r2_yz > 1.0))


def _plain(value: Floats | np.floating) -> float | Floats:
    """Numbers in, a number out; arrays in, an array out."""
    array = np.asarray(value, dtype=np.float64)
    return float(array) if array.ndim == 0 else array


def _check(
    se: ArrayLike,
    dof: ArrayLike,
    *,
    q: float = 1.0,
    alpha: float = 1.0,
    r2_dz: ArrayLike = 0.0,
    r2_yz: ArrayLike = 0.0,
) -> None:
    """Refuse what is no number of the kind; a missing value stays missing."""
    given = {name: np.asarray(value, dtype=np.float64) for name, value in _named(se, dof, q, alpha, r2_dz, r2_yz)}
    out = {
        "se": (given["se"] <= 0.0, "is not positive", "A coefficient without error has no robustness value."),
        "dof": (given["dof"] <= 1.0, "is not above 1", "Residual degrees of freedom: records less coefficients."),
        "q": (~(given["q"] >= 0.0), "is below 0", "1 asks what explains all of the estimate away."),
        "alpha": (~((given["alpha"] > 0.0) & (given["alpha"] <= 1.0)), "is not in (0, 1]", "1: the point estimate."),
        "r2_dz": ((given["r2_dz"] < 0.0) | (given["r2_dz"] >= 1.0), "is not in [0, 1)", "It is a share."),
        "r2_yz": ((given["r2_yz"] < 0.0) | (given["r2_yz"] > 1.0), "is not in [0, 1]", "It is a share."),
    }
    failures = [
        Failure(rule, name, int(bad.sum()), values=tuple(f"{v:.6g}" for v in given[name][bad].ravel()[:10]), remedy=fix)
        for name, (bad, rule, fix) in out.items()
        if bad.any()
    ]
    if failures:
        raise InputError(failures)


def _named(*values: ArrayLike) -> list[tuple[str, ArrayLike]]:
    return list(zip(("se", "dof", "q", "alpha", "r2_dz", "r2_yz"), values, strict=True))
