"""Random effects given the data: conditional covariances and exact joint draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.elimination import Level, parent_slices
from send_va.multilevel.nested import NestedSolution


def effect_covariances(solution: NestedSolution, *, fixed: bool = False) -> tuple[FloatArray, ...]:
    """Conditional covariance of every level's effects, each (groups, q, q), innermost first.

    Parameters
    ----------
    solution : NestedSolution
    fixed : bool
        Include the uncertainty of the fixed effects (prediction error variance, Henderson's C22); without, it is the
        covariance given fixed effects at their estimates, lme4's ``condVar``.

    References
    ----------
    Bates et al. (2015), doi:10.18637/jss.v067.i01, equation 58.
    """
    return tuple(level.effects for level in _spreads(solution, fixed, directions=False))


def direction_moments(solution: NestedSolution) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance, given the data, of each innermost group's map from columns to residuals.

    A record's residual is its row times the direction: minus the fixed effects, minus the random effects of its
    groups, plus one at the outcome.

    Returns
    -------
    mean : array, shape (groups, m)
    covariance : array, shape (groups, m, m)
        Fixed and random effects jointly; random ones only after maximum likelihood, which takes fixed effects as known.
    """
    level = _spreads(solution, fixed=solution.reml, directions=True)[0]
    mean = np.zeros((len(level.effects), level.direction.shape[1]))
    mean[:, solution.x] = -solution.beta
    mean[:, solution.y] = 1.0
    group: NDArray[np.integer] = np.arange(len(mean))
    for at, known in enumerate(solution.levels):
        mean[:, known.z] -= solution.modes[at][group]
        if known.parent is not None:
            group = known.parent[group]
    return mean, solution.scale * level.direction


@dataclass(frozen=True)
class _Spread:
    effects: FloatArray  # (groups, q, q), in outcome units
    direction: FloatArray  # (groups, m, m), relative to the residual variance; empty where not asked for


def _spreads(solution: NestedSolution, fixed: bool, directions: bool) -> list[_Spread]:
    """From the outermost level inwards: covariance of the effects and of what they leave of the direction.

    That of the innermost level is by far the largest array, and left out unless `directions` are asked for.
    """
    m = solution.eliminated[0].cz.shape[2]
    above = np.zeros((1, m, m))
    if fixed:
        above[0][np.ix_(solution.x, solution.x)] = solution.weight_of_beta
    spreads: list[_Spread] = []
    for level, done in zip(reversed(solution.levels), reversed(solution.eliminated), strict=True):
        modes = done.modes.transpose(1, 0, 2)  # (groups, q, m)
        base = above if level.parent is None else above[level.parent]
        own = done.kernel
        effects = own + modes @ base @ modes.transpose(0, 2, 1)
        if len(spreads) == len(solution.levels) - 1 and not directions:
            spreads.insert(0, _Spread(solution.scale * effects, np.zeros((0, m, m))))
            break
        carry = np.broadcast_to(np.eye(m), (len(modes), m, m)).copy()
        carry[:, level.z, :] -= modes
        above = carry @ base @ carry.transpose(0, 2, 1)
        above[:, level.z[:, None], level.z] += own
        spreads.insert(0, _Spread(solution.scale * effects, above))
    return spreads


def draw_effects(solution: NestedSolution, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draw the innermost effects from their joint distribution given the data and the variance parameters.

    Fixed effects are drawn first, then the levels from the outside in, so that effects of schools that share a
    fixed-effects error move together as they should.

    Parameters
    ----------
    solution : NestedSolution
    draws : int
    rng : numpy.random.Generator

    Returns
    -------
    array, shape (draws, groups, q)
        Effects of the innermost groups. Their mean over draws is the conditional mean, their covariance
        ``effect_covariances(solution, fixed=True)[0]``.

    Raises
    ------
    InputError
        `draws` below one.
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, not {draws}")
    m = solution.eliminated[0].cz.shape[2]
    error = rng.standard_normal((draws, len(solution.beta))) @ _root(solution.beta_cov).T
    carried = np.zeros((draws, 1, m))
    carried[:, 0, solution.x] = -(solution.beta + error)
    carried[:, 0, solution.y] = 1.0
    effects = np.zeros((draws, 0, 0))
    for at in reversed(range(len(solution.levels))):
        level, done = solution.levels[at], solution.eliminated[at]
        effects = _modes(done.modes, carried, level)
        noise = float(np.sqrt(solution.scale)) * rng.standard_normal(effects.shape)
        for a in range(level.q):
            for b in range(level.q):
                effects[:, :, a] += done.root[b, a] * noise[:, :, b]
        if at > 0:
            carried = carried[:, np.zeros(effects.shape[1], dtype=np.intp) if level.parent is None else level.parent]
            carried[:, :, level.z] -= effects
    return effects


def _modes(modes: FloatArray, rows: FloatArray, level: Level) -> FloatArray:
    """Conditional means (draws, groups, q): `modes` (q, groups, m) times parents' directions (draws, parents, m)."""
    q, groups, m = modes.shape
    result = np.empty((len(rows), groups, q))
    for parent, run in enumerate(parent_slices(level) or [slice(0, groups)]):
        own = np.ascontiguousarray(modes[:, run].transpose(1, 0, 2))  # (groups of this parent, q, m)
        result[:, run] = (rows[:, parent] @ own.reshape(-1, m).T).reshape(len(rows), -1, q)
    return result


def _root(covariance: FloatArray) -> FloatArray:
    """Symmetric square roots; semi-definite matrices are allowed."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]) @ np.swapaxes(vectors, -1, -2))
