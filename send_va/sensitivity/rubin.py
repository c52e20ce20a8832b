"""Rubin's rules: estimates of several completed data sets become one, with the uncertainty of what was imputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from send_va.effects import PER_MEASURE, SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.value_added.fit_result import ValueAddedFit

_UNINFORMED = 1e-12  # share of the total variance below which imputations count as agreeing


@dataclass(frozen=True)
class PooledEstimates:
    """Estimates of m completed data sets, pooled; arrays have the shape of one estimate.

    Attributes
    ----------
    estimate : array
        Mean over data sets.
    within, between, total : array
        Mean variance; variance of the estimates over data sets; ``within + (1 + 1/m) between``.
    dof : array
        Degrees of freedom of the t interval (Barnard & Rubin 1999); infinite where all data sets agree and the complete
        data are large.
    fraction_missing : array
        Share of the information on the quantity that is missing with the data: 0, nothing was lost; .5, half of what
        complete records would say.
    """

    estimate: FloatArray
    within: FloatArray
    between: FloatArray
    total: FloatArray
    dof: FloatArray
    fraction_missing: FloatArray

    @property
    def se(self) -> FloatArray:
        """Standard errors."""
        return np.sqrt(self.total)

    def interval(self, coverage: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds by t with `dof`."""
        reach = student.ppf(0.5 + coverage / 2.0, self.dof) * self.se
        return self.estimate - reach, self.estimate + reach


def pool_estimates(
    estimates: NDArray[np.float64], variances: NDArray[np.float64], *, complete_dof: float = np.inf
) -> PooledEstimates:
    """Pool estimates of the same quantities from m completed data sets.

    Parameters
    ----------
    estimates, variances : array, shape (m, ...)
        Estimates and their squared standard errors, one data set a row.
    complete_dof : float
        Degrees of freedom there would be with complete records.

    Returns
    -------
    PooledEstimates
        ``.se`` is larger than any data set says by itself: what was imputed is not known.

    Raises
    ------
    InputError
        Fewer than two data sets, shapes that disagree, or negative variances.

    References
    ----------
    Rubin (1987), Multiple Imputation for Nonresponse in Surveys, doi:10.1002/9780470316696.
    Barnard & Rubin (1999), Biometrika 86, 948-955, doi:10.1093/biomet/86.4.948.

    Examples
    --------
    >>> pooled = pool_estimates(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0]))
    >>> float(pooled.estimate), round(float(pooled.total), 3), round(float(pooled.dof), 3)
    (2.0, 2.333, 6.125)
    """
    values, spread = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if len(values) < 2 or values.shape != spread.shape:
        raise InputError(
            f"estimates of shape {values.shape} and variances of shape {spread.shape} cannot be pooled",
            "Give both for the same two or more completed data sets.",
        )
    if (spread < 0.0).any() or not complete_dof > 0.0:
        raise InputError("variances cannot be negative, nor degrees of freedom zero or less")
    m = len(values)
    within, between = spread.mean(axis=0), values.var(axis=0, ddof=1)
    added = (1.0 + 1.0 / m) * between
    total = within + added
    share = np.divide(added, total, out=np.zeros_like(total), where=total > 0.0)
    dof = _degrees_of_freedom(share, m, complete_dof)
    ratio = np.divide(added, within, out=np.full_like(total, np.inf), where=within > 0.0)
    with np.errstate(invalid="ignore"):
        missing = np.where(np.isinf(ratio), 1.0, (ratio + 2.0 / (dof + 3.0)) / (1.0 + ratio))
    missing = np.where(np.isnan(total), np.nan, np.where(share <= _UNINFORMED, 0.0, missing))
    return PooledEstimates(values.mean(axis=0), within, between, total, dof, np.asarray(missing))


def _degrees_of_freedom(share: FloatArray, m: int, complete: float) -> FloatArray:
    """Of Rubin (1987), no more than the observed records allow (Barnard & Rubin 1999)."""
    safe = np.maximum(share, _UNINFORMED)
    large = np.where(share > _UNINFORMED, (m - 1) / safe**2, np.inf)
    if np.isinf(complete):
        return np.asarray(large)
    observed = (complete + 1.0) / (complete + 3.0) * complete * (1.0 - share)
    return np.asarray(1.0 / (1.0 / large + 1.0 / np.maximum(observed, _UNINFORMED)))


def pool_coefficients(fits: Sequence[ValueAddedFit], *, complete_dof: float = np.inf) -> pd.DataFrame:
    """Coefficients of all completed data sets pooled.

    Returns
    -------
    DataFrame
        estimator, context, term, estimate, se, lower, upper (95 %, t), dof, fraction_missing; in outcome units per unit
        of the column.
    """
    first = fits[0].coefficients
    pooled = pool_estimates(
        np.stack([fit.coefficients["estimate"].to_numpy(np.float64) for fit in fits]),
        np.stack([fit.coefficients["se"].to_numpy(np.float64) ** 2 for fit in fits]),
        complete_dof=complete_dof,
    )
    lower, upper = pooled.interval()
    return pd.DataFrame(
        {name: first[name].to_numpy() for name in ("estimator", "context", "term")}
        | {"estimate": pooled.estimate, "se": pooled.se, "lower": lower, "upper": upper}
        | {"dof": pooled.dof, "fraction_missing": pooled.fraction_missing}
    )


def pool_effects(
    fits: Sequence[SchoolEffects],
    *,
    between_schools: Sequence[Mapping[str, float]] | None = None,
    flag: Sequence[str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> tuple[SchoolEffects, pd.DataFrame]:
    """School effects of several completed data sets as one SchoolEffects, whose draws carry Rubin's variance.

    Draws of every data set are kept about their own mean, and the means are spread out so that the draws of all have
    mean and variance of Rubin's rules exactly: ``within + (1 + 1/m) between``, where m equally weighted means would
    give ``(1 - 1/m) between``. What holds within a draw (``theta = u + gap``, correlations of schools) goes on holding.

    Parameters
    ----------
    fits : sequence of SchoolEffects
        Of the same schools, measures and number of draws.
    between_schools : sequence of mapping of measure to float, optional
        Variance of the effects between schools in each data set (squared outcome units), by which uncertainty from
        imputation is taken off the reliability. Without it the reliability is the mean.
    flag : sequence of str, optional
        What is unusual about each school; that of the first data set by default.
    attrs : mapping, optional
        Added to the attributes of the first.

    Returns
    -------
    SchoolEffects
        ``mean``, ``sd``, ``estimate``, ``se`` pooled by the same rules. Any first part of the draws holds data sets in
        equal shares.
    DataFrame
        school, measure, within_sd, between_sd (outcome units), dof, fraction_missing.

    Raises
    ------
    InputError
        Fewer than two data sets, or effects of other schools, measures or numbers of draws.

    References
    ----------
    Rubin (1987), doi:10.1002/9780470316696.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> one = [school_effects(["1", "2"], {"theta": rng.normal(m, 1, (50, 2))}, {}, n_pupils=np.array([9, 9]),
    ...     n_need=np.array([2, 2]), flag=["", ""], attrs={"estimator": "labelled", "context": "cva"}) for m in (0, 1)]
    >>> pooled, information = pool_effects(one)
    >>> pooled.draws().shape, information["fraction_missing"].between(0, 1).all().item()
    ((100, 2), True)
    """
    _require_alike(fits)
    first, m = fits[0], len(fits)
    draws: dict[str, FloatArray] = {}
    known: dict[str, dict[str, FloatArray]] = {}
    rows = []
    for measure in first.measures:
        parts = {name: np.stack([_known(fit, name, measure) for fit in fits]) for name in PER_MEASURE}
        pooled = pool_estimates(parts["mean"], parts["sd"] ** 2)
        own = pool_estimates(parts["estimate"], parts["se"] ** 2)
        draws[measure] = _spread_draws([fit.draws(measure) for fit in fits], parts["mean"], parts["sd"], pooled)
        lost = np.zeros(len(first.schools))
        if between_schools is not None:
            variance = float(np.mean([of[measure] for of in between_schools]))
            lost = (1.0 + 1.0 / m) * pooled.between / variance if variance > 0.0 else lost
        known[measure] = {
            "mean": pooled.estimate,
            "sd": pooled.se,
            "reliability": np.clip(parts["reliability"].mean(axis=0) - lost, 0.0, 1.0),
            "estimate": own.estimate,
            "se": own.se,
        }
        rows.append(_information(first.schools, measure, pooled))
    effects = school_effects(
        first.schools,
        draws,
        known,
        n_pupils=first.data["n_pupils"].to_numpy(),
        n_need=np.rint(np.mean([fit.data["n_need"].to_numpy() for fit in fits], axis=0)).astype(np.int64),
        flag=list(first.data["flag"].to_numpy().astype(str) if flag is None else flag),
        attrs=first.attrs | {"imputations": m, "draws": m * first.data.sizes["draw"]} | dict(attrs or {}),
    )
    return effects, pd.concat(rows, ignore_index=True)


def _require_alike(fits: Sequence[SchoolEffects]) -> None:
    if len(fits) < 2:
        raise InputError(f"{len(fits)} completed data set cannot be pooled", "Impute at least twice.")
    first = fits[0]
    for fit in fits[1:]:
        same = fit.schools == first.schools and fit.measures == first.measures
        if not same or fit.data.sizes["draw"] != first.data.sizes["draw"]:
            raise InputError("effects of other schools, measures or numbers of draws cannot be pooled")


def _known(effects: SchoolEffects, name: str, measure: str) -> FloatArray:
    return np.asarray(effects.data[name].sel(measure=measure).to_numpy(), dtype=np.float64)


def _spread_draws(
    draws: Sequence[FloatArray], means: FloatArray, sds: FloatArray, pooled: PooledEstimates
) -> FloatArray:
    """Draws of all data sets, shape (m * draws, schools), with mean and population variance of Rubin's rules."""
    m = len(draws)
    apart = np.sqrt((m + 1.0) / (m - 1.0))  # population variance of m points is (1 - 1/m) of theirs with m - 1
    parts = []
    for drawn, mean, sd in zip(draws, means, sds, strict=True):
        about = drawn - drawn.mean(axis=0)
        size = about.std(axis=0)
        about *= np.divide(sd, size, out=np.zeros_like(size), where=size > 0.0)
        parts.append(pooled.estimate + apart * (mean - pooled.estimate) + about)
    return np.stack(parts, axis=1).reshape(-1, means.shape[1])


def _information(schools: Sequence[str], measure: str, pooled: PooledEstimates) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "school": list(schools),
            "measure": measure,
            "within_sd": np.sqrt(pooled.within),
            "between_sd": np.sqrt(pooled.between),
            "dof": pooled.dof,
            "fraction_missing": pooled.fraction_missing,
        }
    )
