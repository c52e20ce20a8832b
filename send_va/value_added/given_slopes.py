"""Effects of schools when the slopes on prior attainment come from elsewhere: the second step after measurement error.

Slopes on *true* attainment are known (from corrected cross-products or an instrument), but a school's effect is still
read off scores with error. So the model is fitted to ``outcome - slope * score`` on the remaining columns: the error,
times the slope, then belongs to the residual variance and so to the intervals. Leaving it out (taking effects straight
from corrected cross-products) makes the variance between schools too large and the intervals too short.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.multilevel.nested import NestedSolution, conditional_modes
from send_va.multilevel.prediction import draw_effects


@dataclass(frozen=True)
class PriorSlopes:
    """Slopes on true prior attainment.

    Attributes
    ----------
    names : tuple of str, length k
        Columns of the scores.
    estimate : array, shape (k,)
        Outcome units per unit of true score.
    cov : array, shape (k, k)
        Sampling covariance, robust to clustering by the outermost groups.
    """

    names: tuple[str, ...]
    estimate: FloatArray
    cov: FloatArray


def adjust_outcome(
    products: CrossProducts,
    outcome: str,
    slopes: PriorSlopes,
    error_variance: Mapping[str, FloatArray] | None = None,
) -> CrossProducts:
    """Replace the outcome by ``outcome - slope * score``, without another pass over the records.

    Fit the result on the remaining columns (the scores left out of the fixed effects): its school effects and residual
    variance are those of value-added given true slopes, with the error of the scores in the residual.

    Parameters
    ----------
    products : CrossProducts
        As they are; or corrected, where a random slope runs on a score with error.
    outcome : str
    slopes : PriorSlopes
    error_variance : mapping, optional
        What was taken out of `products`, so that it is put back into the residual.

    Returns
    -------
    CrossProducts
        Same columns; the column `outcome` now holds the adjusted outcome.

    Raises
    ------
    InputError
        A column is not there.

    Examples
    --------
    >>> one = CrossProducts(("prior", "y"), np.array([[[10.0, 4.0], [4.0, 6.0]]]), np.array([5.0]), np.zeros(2))
    >>> half = PriorSlopes(("prior",), np.array([0.5]), np.array([[0.01]]))
    >>> adjust_outcome(one, "y", half).products[0]
    array([[10. , -1. ],
           [-1. ,  4.5]])
    """
    at = int(products.index([outcome])[0])
    change = np.eye(len(products.columns))
    change[at, products.index(slopes.names)] = -slopes.estimate
    moved = np.asarray(change @ products.products @ change.T)
    for name, slope in zip(slopes.names, slopes.estimate, strict=True):
        if error_variance and name in error_variance:
            moved[:, at, at] += slope**2 * error_variance[name]
    return replace(products, products=moved, center=change @ products.center)


def draw_effects_with_slopes(
    solution: NestedSolution, products: CrossProducts, slopes: PriorSlopes, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Draw innermost effects of a model fitted after :func:`adjust_outcome`, uncertainty of the slopes included.

    Parameters
    ----------
    solution : NestedSolution
        Fitted without the scores among its fixed effects.
    products : CrossProducts
        What it was fitted to; still holds the scores.
    slopes : PriorSlopes
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (draws, groups, q)
        As :func:`send_va.multilevel.prediction.draw_effects`, each draw with its own slopes: effects of schools with
        high and with low intakes move against each other.

    Raises
    ------
    InputError
        `draws` below one.

    Examples
    --------
    >>> from send_va.multilevel.crossproducts import cross_products
    >>> from send_va.multilevel.elimination import Level
    >>> from send_va.multilevel.nested import fit_nested
    >>> rng = np.random.default_rng(1)
    >>> school = np.repeat(np.arange(20), 30)
    >>> rows = np.column_stack([np.ones(600), rng.normal(size=600), rng.normal(size=20)[school] + rng.normal(size=600)])
    >>> slopes = PriorSlopes(("prior",), np.array([0.1]), np.array([[0.01]]))
    >>> adjusted = adjust_outcome(cross_products(rows, school, 20, ["Intercept", "prior", "y"]), "y", slopes)
    >>> solution = fit_nested(adjusted, [Level(np.array([0]))], np.array([0]), 2)
    >>> draw_effects_with_slopes(solution, adjusted, slopes, 100, rng).shape
    (100, 20, 1)
    """
    effects = draw_effects(solution, draws, rng)
    values, vectors = np.linalg.eigh(slopes.cov)
    error = rng.standard_normal((draws, len(values))) @ (vectors * np.sqrt(np.clip(values, 0.0, None))).T
    schur = solution.eliminated[-1].schur
    for k, at in enumerate(products.index(slopes.names)):
        direction = np.zeros(len(products.columns))
        direction[solution.x] = -solution.weight_of_beta @ schur[solution.x, at]
        direction[at] = 1.0
        moves = conditional_modes(solution.eliminated, solution.levels, direction)[0]  # (groups, q)
        effects -= error[:, k, None, None] * moves
    return effects
