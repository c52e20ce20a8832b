r"""Schools as fixed effects: a comparison beside the multilevel estimate, never the headline.

Every school has two free means, of its pupils without and with need; slopes come from differences between pupils of
the same school and need status only. Nothing is shrunken, so small schools spread widely; nothing is assumed about how
intake and school effects go together, so slopes carry no bias from sorting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from linearmodels.panel import PanelOLS
from numpy.typing import NDArray

from send_va.effects import MEASURES, SchoolEffects, school_effects
from send_va.errors import CollinearityError, Failure, InputError
from send_va.multilevel.crossproducts import FloatArray, IntArray
from send_va.multilevel.formula import check_full_rank, random_design
from send_va.multilevel.grouping import nested_grouping

StandardErrors = Literal["clustered", "homoscedastic"]
_WITHIN = 1e-11  # share of a covariate's squares left inside cells below which it counts as constant there
_REASONS = {"none_with": "no pupil with need", "none_without": "no pupil without need"}


@dataclass(frozen=True)
class _Cells:
    """Means by school (rows) and need status (columns: without, with); cells without pupils hold zeros."""

    counts: NDArray[np.int64]  # (schools, 2)
    adjusted: FloatArray  # (schools, 2): mean of outcome minus covariates times slopes
    covariates: FloatArray  # (schools, 2, p)


@dataclass(frozen=True)
class _Slopes:
    estimate: FloatArray  # (p,)
    cov: FloatArray  # (p, p)
    residual_variance: FloatArray  # (2,): of pupils without and with need


def fit_fixed_effects(
    data: pd.DataFrame,
    *,
    outcome: str,
    school: str,
    need: str,
    covariates: str = "",
    rng: np.random.Generator,
    draws: int = 1000,
    standard_errors: StandardErrors = "clustered",
    context: str = "prior",
    attrs: Mapping[str, Any] | None = None,
) -> SchoolEffects:
    r"""Estimate what pupils with need gain at each school, with schools and school-by-need as fixed effects.

    ``y_i = x_i'beta + cell(school_i, need_i) + eps_i``; ``theta_j`` is the cell of pupils with need less the average of
    such cells over schools, ``u_j`` likewise for pupils without need, ``gap_j = theta_j - u_j``. As slopes are the
    same in all schools, theta does not depend on the prior attainment at which it is stated.

    Parameters
    ----------
    data : DataFrame, n rows
        One row a pupil.
    outcome, school, need : str
        Columns: a number; an identifier; 0 or 1.
    covariates : str
        Right-hand side of a formula, such as ``"prior + frl"``. Columns that do not vary between pupils of the same
        school and need status (school means, need itself) are refused: the fixed effects take them up.
    rng : numpy.random.Generator
    draws : int
        Draws from the normal sampling distribution of the estimates, errors of the slopes included.
    standard_errors : {"clustered", "homoscedastic"}
        ``clustered``: slopes robust to clustering by school, and one residual variance for each need status in the
        cell means. (The cell means themselves cannot be clustered by school: residuals of a cell add up to zero.)
        ``homoscedastic``: one residual variance; exactly least squares with a dummy for every cell.
    context : str
        Recorded in the attributes.
    attrs : mapping, optional
        Added to the attributes.

    Returns
    -------
    SchoolEffects
        ``mean`` and ``estimate`` are the same unshrunken number, ``sd`` and ``se`` its standard error. Reliability is
        ``between / (between + se^2)`` with the moment estimate of the variance between schools: near 0, the estimate
        is mostly chance. Holds the schools that have pupils with and without need; the others contribute to the slopes
        and are listed in ``attrs["not_estimable"]`` with the reason in ``attrs["not_estimable_reason"]``. Averages are
        over the schools held, each counted once.

    Raises
    ------
    InputError
        A column is missing, has missing values or is text; need is not 0 or 1; fewer than two schools have pupils with
        and without need; an unknown kind of standard error.
    CollinearityError
        A covariate is constant within cells, or a combination of others.

    References
    ----------
    Wooldridge (2010), Econometric Analysis of Cross Section and Panel Data, 2nd ed., section 10.5 (MIT Press).
    Goldstein & Spiegelhalter (1996), doi:10.2307/2983325 (why unshrunken league tables mislead).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> data = pd.DataFrame({"school": np.repeat(["a", "b"], 40), "need": np.tile([0, 1], 40)})
    >>> data["y"] = (data["school"] == "b") * data["need"] * 2.0 + rng.normal(0, 0.1, 80)
    >>> effects = fit_fixed_effects(data, outcome="y", school="school", need="need", rng=rng)
    >>> effects.summary("theta")["estimate"].round(1).tolist()
    [-1.0, 1.0]
    """
    if standard_errors not in get_args(StandardErrors):
        raise InputError(f"no standard errors {standard_errors!r}", f"Give {' or '.join(get_args(StandardErrors))}.")
    if draws < 1:
        raise InputError(f"draws must be at least 1, not {draws}")
    grouping = nested_grouping(data, {school: "1"})
    y = random_design(f"0 + `{outcome}`", data, check_rank=False)[0][:, 0]
    status = _need_status(data, need)
    X, names = random_design(f"1 + {covariates}" if covariates.strip() else "1", data, check_rank=False)
    X, names = X[:, 1:], names[1:]
    n_schools = len(grouping.labels[0])
    cell = 2 * grouping.codes + status
    _refuse_absorbed(X, names, cell, n_schools)
    slopes = _fit_slopes(y, X, names, cell, standard_errors)
    cells = _cell_means(y - X @ slopes.estimate, X, cell, n_schools)
    labels = grouping.labels[0].astype(str).to_numpy()
    about = {
        "estimator": "fixed_effects",
        "context": context,
        "standard_errors": standard_errors,
        "covariates": list(names),
        "slopes": slopes.estimate.tolist(),
        "slope_se": np.sqrt(np.diag(slopes.cov)).tolist(),
        "residual_sd_without_need": float(np.sqrt(slopes.residual_variance[0])),
        "residual_sd_with_need": float(np.sqrt(slopes.residual_variance[1])),
        "reference": "average of the schools held, each counted once",
        "outcome_sd": float(y.std(ddof=1)),
        "draws": draws,
    }
    return _as_effects(labels, cells, slopes, draws, rng, about | dict(attrs or {}))


def _need_status(data: pd.DataFrame, need: str) -> IntArray:
    values = random_design(f"0 + `{need}`", data, check_rank=False)[0]
    bad = np.flatnonzero(~np.isin(values[:, 0], (0.0, 1.0)) if values.shape[1] == 1 else np.ones(len(values)))
    if len(bad):
        values_there = data[need].iloc[bad].tolist()
        remedy = "Recode it: 1 for a pupil with need, 0 without."
        raise InputError(Failure.of_rows("is not 0 or 1", need, bad.tolist(), values=values_there, remedy=remedy))
    return values[:, 0].astype(np.intp)


def _refuse_absorbed(X: FloatArray, names: tuple[str, ...], cell: IntArray, n_schools: int) -> None:
    means = _means(X, cell, 2 * n_schools)
    within = X - means[cell]
    spread = np.square(X - X.mean(axis=0)).sum(axis=0)
    left = np.square(within).sum(axis=0)
    absorbed = [name for name, own, all_ in zip(names, left, spread, strict=True) if own <= _WITHIN * max(all_, 1e-300)]
    if absorbed:
        raise CollinearityError(
            Failure(
                "does not vary among pupils of the same school and need status, so the fixed effects take it up",
                name,
                remedy="Leave it out; school-level covariates need the multilevel estimator.",
            )
            for name in absorbed
        )
    check_full_rank(within.T @ within, names)


def _means(columns: FloatArray, cell: IntArray, n_cells: int) -> FloatArray:
    counts = np.maximum(np.bincount(cell, minlength=n_cells), 1)
    sums = [np.bincount(cell, weights=column, minlength=n_cells) for column in columns.T]
    return np.column_stack(sums) / counts[:, None] if sums else np.zeros((n_cells, 0))


def _fit_slopes(
    y: FloatArray, X: FloatArray, names: tuple[str, ...], cell: IntArray, standard_errors: StandardErrors
) -> _Slopes:
    """Slopes within cells by linearmodels; residual variances with the degrees of freedom that cells and slopes use."""
    status, n_cells = cell % 2, len(np.unique(cell))
    if X.shape[1]:
        index = pd.MultiIndex.from_arrays([cell, np.arange(len(cell))])
        frame = pd.DataFrame(X, index=index, columns=list(names))
        model = PanelOLS(pd.Series(y, index=index, name="outcome of the fit"), frame, entity_effects=True)
        if standard_errors == "clustered":
            clusters = pd.DataFrame({"school": cell // 2}, index=index)
            fit = model.fit(cov_type="clustered", clusters=clusters, group_debias=True)
        else:
            fit = model.fit(cov_type="unadjusted")
        estimate, cov = fit.params.to_numpy(), fit.cov.to_numpy()
    else:
        estimate, cov = np.zeros(0), np.zeros((0, 0))
    adjusted = y - X @ estimate
    residual = adjusted - _means(adjusted[:, None], cell, int(cell.max()) + 1)[cell, 0]
    squares = np.bincount(status, weights=residual**2, minlength=2)
    pooled = squares.sum() / max(len(y) - n_cells - X.shape[1], 1)
    if standard_errors == "homoscedastic":
        return _Slopes(estimate, cov, np.array([pooled, pooled]))
    pupils = np.bincount(status, minlength=2)
    cells = np.bincount(np.unique(cell) % 2, minlength=2)
    degrees = pupils - cells - X.shape[1] * pupils / len(y)
    return _Slopes(estimate, cov, np.where(degrees > 0, squares / np.maximum(degrees, 1.0), pooled))


def _cell_means(adjusted: FloatArray, X: FloatArray, cell: IntArray, n_schools: int) -> _Cells:
    counts = np.bincount(cell, minlength=2 * n_schools).reshape(n_schools, 2)
    means = _means(np.column_stack([adjusted, X]), cell, 2 * n_schools).reshape(n_schools, 2, -1)
    return _Cells(counts.astype(np.int64), means[:, :, 0], means[:, :, 1:])


def _as_effects(
    labels: NDArray[Any],
    cells: _Cells,
    slopes: _Slopes,
    draws: int,
    rng: np.random.Generator,
    attrs: dict[str, Any],
) -> SchoolEffects:
    held = (cells.counts > 0).all(axis=1)
    if held.sum() < 2:
        raise InputError(
            f"{held.sum()} of {len(held)} schools have pupils with and without need; two are needed for a comparison",
            "Pool cohort years, or check the need column.",
        )
    counts = cells.counts[held].astype(np.float64)
    noise = np.sqrt(slopes.residual_variance / counts)  # (schools, 2)
    contrasts = {"theta": np.array([0.0, 1.0]), "u": np.array([1.0, 0.0]), "gap": np.array([-1.0, 1.0])}
    values, vectors = np.linalg.eigh(slopes.cov)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    slope_error = rng.standard_normal((draws, len(slopes.estimate))) @ root.T
    cell_error = rng.standard_normal((draws, *noise.shape)) * noise  # (draws, schools, 2)
    drawn: dict[str, FloatArray] = {}
    known: dict[str, dict[str, FloatArray]] = {}
    for measure in MEASURES:
        c = contrasts[measure]
        at = cells.covariates[held].transpose(0, 2, 1) @ c  # (schools, p)
        at = at - at.mean(axis=0)
        mean = cells.adjusted[held] @ c
        mean = mean - mean.mean()
        error = cell_error @ c
        drawn[measure] = mean + error - error.mean(axis=1, keepdims=True) - slope_error @ at.T
        se = _standard_error(noise**2 @ c**2, at, slopes.cov)
        between = max(float(mean.var(ddof=1) - np.mean(se**2)), 0.0)
        known[measure] = {
            "mean": mean,
            "sd": se,
            "estimate": mean,
            "se": se,
            "reliability": between / (between + se**2),
        }
    missing = cells.counts[~held]
    return school_effects(
        [str(label) for label in labels[held]],
        drawn,
        known,
        n_pupils=cells.counts[held].sum(axis=1),
        n_need=cells.counts[held, 1],
        flag=["" for _ in range(int(held.sum()))],
        attrs=attrs
        | {
            "not_estimable": [str(label) for label in labels[~held]],
            "not_estimable_reason": [_REASONS["none_with" if n[1] == 0 else "none_without"] for n in missing],
        },
    )


def _standard_error(noise: FloatArray, at: FloatArray, cov: FloatArray) -> FloatArray:
    """Of an estimate less the average: own noise, a share of everybody's, and the slopes' error."""
    schools = len(noise)
    own = noise * (1.0 - 2.0 / schools) + noise.sum() / schools**2
    return np.asarray(np.sqrt(own + np.einsum("gp,pk,gk->g", at, cov, at)))
