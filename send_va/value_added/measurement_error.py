r"""Known measurement error in prior attainment: taken out of the cross-products.

A score measured with error pulls its own slope towards zero, and what the slope no longer explains falls to the
schools: those with high intakes look better than they are. The effects of schools follow in a second step,
:mod:`send_va.value_added.given_slopes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from send_va.errors import Failure, InputError, NotSupportedError
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, IntArray
from send_va.multilevel.elimination import Level
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.value_added.given_slopes import PriorSlopes

_SINGULAR = 1e-9  # eigenvalue of the total, columns at unit size, that counts as zero


def prior_reliability(score: FloatArray, sem: FloatArray) -> float:
    """Reliability of a score: the share of its variance that is not measurement error.

    Parameters
    ----------
    score, sem : array, shape (n,)
        Scores and their standard errors of measurement, in the same unit.

    Returns
    -------
    float
        ``1 - mean(sem^2) / var(score)``: 1 means no error. Alone in a regression, the score's slope is the true slope
        times this number; beside other covariates it is attenuated further.

    Raises
    ------
    InputError
        A standard error is missing or negative, or the error variance exceeds the variance of the scores.

    References
    ----------
    Fuller (1987), Measurement Error Models, section 1.1, doi:10.1002/9780470316665.

    Examples
    --------
    >>> round(prior_reliability(np.array([90.0, 100.0, 110.0]), np.array([5.0, 5.0, 5.0])), 2)
    0.75
    """
    error = float(np.mean(_checked_sem(sem) ** 2))
    variance = float(np.var(score, ddof=1))
    if not error < variance:
        raise InputError(
            f"the mean error variance {error:.4g} is not smaller than the variance of the scores {variance:.4g}",
            "Check that score and standard error of measurement are in the same unit.",
        )
    return 1.0 - error / variance


def error_sums(
    sem: FloatArray, codes: NDArray[np.integer], n_groups: int, weights: FloatArray | None = None
) -> FloatArray:
    """Sum ``weight * sem^2`` over the records of each group, shape (n_groups,).

    Parameters
    ----------
    sem : array, shape (n,)
        Standard error of measurement of each record's score, in score units.
    codes : integer array, shape (n,)
    n_groups : int
    weights : array, shape (n,), optional
        The weights the cross-products were made with.

    Returns
    -------
    array, shape (n_groups,)
        In squared score units; divided by a group's records it is their mean error variance.

    Raises
    ------
    InputError
        A standard error is missing or negative.

    Examples
    --------
    >>> error_sums(np.array([3.0, 4.0, 5.0]), np.array([0, 0, 1]), 2)
    array([25., 25.])
    """
    squares = _checked_sem(sem) ** 2
    return np.bincount(codes, weights=squares if weights is None else squares * weights, minlength=n_groups)


def _checked_sem(sem: FloatArray) -> FloatArray:
    bad = np.flatnonzero(~(np.isfinite(sem) & (np.asarray(sem) >= 0)))
    if len(bad):
        rule = "a standard error of measurement is no number, or below zero"
        remedy = "Fill it in from the test's table of conditional standard errors, or leave the record out."
        raise InputError(Failure.of_rows(rule, "", bad.tolist(), values=np.asarray(sem)[bad].tolist(), remedy=remedy))
    return np.asarray(sem, dtype=np.float64)


def correct_cross_products(
    products: CrossProducts,
    error_variance: Mapping[str, FloatArray],
    *,
    aliases: Mapping[str, tuple[str, float]] | None = None,
    error_free: Sequence[str] = (),
) -> CrossProducts:
    """Take the measurement error of prior scores out of the cross-products.

    Errors of different scores are taken to be independent of each other, of the outcome and of all other columns.

    Parameters
    ----------
    products : CrossProducts
    error_variance : mapping of column to array, shape (groups,)
        Summed error variance of each group's records, from :func:`error_sums`.
    aliases : mapping of column to (score, factor), optional
        Columns that are a linear transform of a score and so carry `factor` times its error, such as the random-slope
        column ``(prior - reference) / sd``: ``{"prior_slope": ("prior", 1 / sd)}``.
    error_free : sequence of str
        Columns that are named after a score and carry (practically) none of its error, such as school means.

    Returns
    -------
    CrossProducts
        Expected cross-products of the true scores. Fixed effects estimated from them are not attenuated. For effects
        of schools go on with :func:`send_va.value_added.given_slopes.adjust_outcome`.

    Raises
    ------
    InputError
        An array of the wrong shape, or error variance larger than the scores' own: the corrected total is no longer
        positive definite.
    NotSupportedError
        A spline, power or interaction of a score: a nonlinear function of a score with error is not corrected so.

    References
    ----------
    Fuller (1987), doi:10.1002/9780470316665, chapter 2. Lockwood & McCaffrey (2014), doi:10.3102/1076998613509405
    (conditional standard errors of measurement).

    Examples
    --------
    >>> raw = CrossProducts(("prior", "y"), np.array([[[10.0, 4.0], [4.0, 6.0]]]), np.array([5.0]), np.zeros(2))
    >>> correct_cross_products(raw, {"prior": np.array([2.0])}).products[0]
    array([[8., 4.],
           [4., 6.]])
    """
    transforms = dict(aliases or {})
    _refuse_nonlinear(products.columns, error_variance, [*transforms, *error_free])
    corrected = products.products.copy()
    for score, sums in error_variance.items():
        _require_sums(score, sums, products.n_groups)
        carried = np.zeros(len(products.columns))
        carried[products.index([score])] = 1.0
        for column, (of, factor) in transforms.items():
            if of == score and column in products.columns:
                carried[products.index([column])] = factor
        corrected -= sums[:, None, None] * np.outer(carried, carried)
    result = replace(products, products=corrected)
    _refuse_indefinite(products, result, error_variance)
    return result


def _require_sums(score: str, sums: FloatArray, groups: int) -> None:
    if np.shape(sums) != (groups,) or not np.all(np.isfinite(sums)) or np.any(np.asarray(sums) < 0):
        raise InputError(
            Failure(
                rule=f"error variance must be one sum for each of {groups} groups, zero or more",
                column=score,
                remedy="Make it with error_sums from the standard errors of measurement.",
            )
        )


def _refuse_nonlinear(columns: Sequence[str], scores: Mapping[str, FloatArray], declared: Sequence[str]) -> None:
    for score in scores:
        named = re.compile(rf"(?<![\w.]){re.escape(score)}(?![\w.])")
        derived = [name for name in columns if name != score and name not in declared and named.search(name)]
        if derived:
            raise NotSupportedError(
                f"{', '.join(derived[:10])}: a spline, power or product of {score}, which is measured with error, "
                "cannot be corrected by its error variance. Enter the score as a line, declare a linear transform of "
                "it in `aliases`, or instrument the score by another (instrumented_slope)."
            )


def _refuse_indefinite(raw: CrossProducts, corrected: CrossProducts, scores: Mapping[str, FloatArray]) -> None:
    size = np.sqrt(np.diag(raw.total))
    size[size == 0.0] = 1.0
    before, after = (float(np.linalg.eigvalsh(item.total / np.outer(size, size))[0]) for item in (raw, corrected))
    if after > _SINGULAR or (before <= _SINGULAR and after > -_SINGULAR):
        return
    implied = []
    for score, sums in scores.items():
        at = int(raw.index([score])[0])
        spread = float(raw.total[at, at])
        if "Intercept" in raw.columns:
            one = int(raw.index(["Intercept"])[0])
            spread -= float(raw.total[at, one] ** 2 / raw.total[one, one])
        implied.append(f"{score} {1.0 - float(sums.sum()) / spread:.2f}")
    raise InputError(
        "the error variance taken out leaves cross-products that no scores can have (not positive definite); the "
        f"reliability it implies is {', '.join(implied)}",
        "Either the standard errors of measurement are too large for these scores (check their unit), or the "
        "reliability is too low to correct: leave the score out or instrument it.",
    )


def corrected_slopes(
    products: CrossProducts,
    error_variance: Mapping[str, FloatArray],
    levels: Sequence[Level],
    x: IntArray,
    y: int,
    *,
    aliases: Mapping[str, tuple[str, float]] | None = None,
    error_free: Sequence[str] = (),
) -> PriorSlopes:
    """Estimate slopes on true prior attainment from corrected cross-products of a multilevel model.

    Random effects remove part of the error along with the differences between schools (about one pupil's worth a
    school and effect), so after a first fit the error variance is taken out again in that smaller measure.

    Parameters
    ----------
    products : CrossProducts
        Uncorrected.
    error_variance, aliases, error_free
        As in :func:`correct_cross_products`; the scores must be among the fixed effects.
    levels, x, y
        As in :func:`send_va.multilevel.nested.fit_nested`.

    Returns
    -------
    PriorSlopes
        With standard errors that take the standard errors of measurement as known.

    Raises
    ------
    InputError, NotSupportedError
        As :func:`correct_cross_products`; a score that is not among the fixed effects.

    References
    ----------
    Lockwood & McCaffrey (2014), doi:10.3102/1076998613509405 (method of moments with conditional standard errors).
    Liang & Zeger (1986), doi:10.1093/biomet/73.1.13 (the standard errors).

    Examples
    --------
    >>> from send_va.multilevel.crossproducts import cross_products
    >>> rng = np.random.default_rng(1)
    >>> school = np.repeat(np.arange(50), 40)
    >>> true = rng.normal(size=2000)
    >>> y = true + 0.3 * rng.normal(size=50)[school] + 0.5 * rng.normal(size=2000)
    >>> rows = np.column_stack([np.ones(2000), true + 0.6 * rng.normal(size=2000), y])
    >>> products = cross_products(rows, school, 50, ["Intercept", "prior", "y"])
    >>> level = [Level(np.array([0]))]
    >>> naive = fit_nested(products, level, np.arange(2), 2).beta[1]
    >>> error = {"prior": error_sums(np.full(2000, 0.6), school, 50)}
    >>> slopes = corrected_slopes(products, error, level, np.arange(2), 2)
    >>> round(float(naive), 1), round(float(slopes.estimate[0]), 1)
    (0.7, 1.0)
    """
    names = tuple(error_variance)
    fixed = [products.columns[at] for at in x]
    if absent := [name for name in names if name not in fixed]:
        raise InputError(f"{', '.join(absent)}: not among the fixed effects", "Add the score as a covariate.")
    corrected = correct_cross_products(products, error_variance, aliases=aliases, error_free=error_free)
    first = fit_nested(corrected, levels, x, y)
    inner = first.eliminated[0]
    czz = inner.cz[:, :, levels[0].z]
    used = np.einsum("gab,bga->g", inner.kernel, czz)  # effective number of effects of each group
    share = 1.0 - used / np.maximum(products.counts, 1.0)
    smaller = {name: sums * np.clip(share, 0.0, 1.0) for name, sums in error_variance.items()}
    corrected = correct_cross_products(products, smaller, aliases=aliases, error_free=error_free)
    solution = fit_nested(corrected, levels, x, y)
    at = [fixed.index(name) for name in names]
    return PriorSlopes(names, solution.beta[at], _clustered_cov(solution, corrected)[np.ix_(at, at)])


def _clustered_cov(solution: NestedSolution, products: CrossProducts) -> FloatArray:
    """Sandwich covariance of the fixed effects, clustered by the outermost groups, from their cross-products."""
    x, m = solution.x, len(products.columns)
    direction = np.zeros(m)
    direction[x], direction[solution.y] = -solution.beta, 1.0
    outer = solution.eliminated[-1]
    sums = products.products if len(solution.levels) == 1 else solution.eliminated[-2].schur
    z = solution.levels[-1].z
    reduced = sums @ direction - np.einsum("gmq,qgk,k->gm", sums[:, :, z], outer.modes, direction)
    scores = reduced[:, x]  # (groups, p); they add up to zero
    groups = len(scores)
    bread = solution.weight_of_beta
    return np.asarray(bread @ (scores.T @ scores) @ bread * groups / max(groups - 1, 1))
