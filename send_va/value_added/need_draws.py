"""Value-added for every joint draw of the identification parameters, pooled: the uncertainty of need carried through.

Identification feeds value-added and not the other way round (a *cut*): for each draw of its parameters the scores are
recomputed, the model is fitted again from the last estimate, its variance parameters are drawn, and then the effects of
schools given all that. Pooled draws have the total variance; precision weights stay what they were at the estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from send_va.identification.need import NeedEstimator
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.multilevel.prediction import draw_effects, effect_covariances
from send_va.multilevel.variance_draws import inverse_curvature, variance_curvature, variance_draws
from send_va.records.design_columns import Context
from send_va.value_added.changing_products import ChangingProducts, NeedColumns, changed_sums
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.readout import CONTRASTS, effect_draws, own_estimates, shared_out, variance_runs
from send_va.value_added.residual_variance import WeightedFit
from send_va.value_added.row_coder import SEVERITY_SQUARED
from send_va.value_added.scores import NeedScores, scores_table
from send_va.value_added.within_school import WithinSchool


@dataclass(frozen=True)
class PlugInFit:
    """One context at the estimates of the identification parameters: where every draw starts.

    Attributes
    ----------
    columns : NeedColumns
    fit : WeightedFit
    changing : ChangingProducts
    n_without, n_with : array, shape (schools,)
        Expected pupils without and with need.
    """

    columns: NeedColumns
    fit: WeightedFit
    changing: ChangingProducts
    n_without: FloatArray
    n_with: FloatArray

    def own(self, solution: NestedSolution) -> WithinSchool:
        """Unshrunken estimates at a solution of the same products."""
        return own_estimates(solution, self.changing.base, self.n_without, self.n_with)


@dataclass(frozen=True)
class Pooled:
    """What is known of schools and coefficients, pooled over draws of the identification parameters.

    Centred at the fit to expected scores (their mean over draws); the draws give the spread. A draw's score differs
    from the expected one by an error of its own, which as a regressor would pull `delta` and the gap towards zero.

    Attributes
    ----------
    effects : array, shape (draws, schools, q)
    modes : array, shape (schools, q)
        Conditional means at the expected scores.
    spread : array, shape (schools, q, q)
        Conditional covariance, averaged over the draws, and that of the conditional means between draws.
    covariance : array, shape (q, q)
        Of the effects between schools, averaged over the draws.
    own : WithinSchool
        At the expected scores; the variance between draws is in the standard errors.
    beta, beta_cov : array
        Coefficients at the expected scores; their mean covariance plus that between draws (Rubin 1987, without his
        factor ``1 + 1/M``: more draws can always be had).
    draws : int
        Draws of the identification parameters; 0 when plugged in.
    not_converged : int
        Draws whose fit did not converge.
    """

    effects: FloatArray
    modes: FloatArray
    spread: FloatArray
    covariance: FloatArray
    own: WithinSchool
    beta: FloatArray
    beta_cov: FloatArray
    draws: int
    not_converged: int


def plugged_in(start: PlugInFit, draws: int, rng: np.random.Generator) -> Pooled:
    """Take the identification parameters as known: for exploration only, intervals are too short."""
    solution = start.fit.solution
    return Pooled(
        effects=effect_draws(start.fit.products, solution, draws, rng),
        modes=solution.modes[0],
        spread=effect_covariances(solution, fixed=True)[0],
        covariance=solution.covariances[0],
        own=start.own(solution),
        beta=solution.beta,
        beta_cov=solution.beta_cov,
        draws=0,
        not_converged=0,
    )


def pooled_over_draws(
    design: PupilDesign,
    scores: NeedScores,
    estimator: NeedEstimator,
    starts: Mapping[Context, PlugInFit],
    rngs: Mapping[Context, np.random.Generator],
    *,
    draws: int,
    identification_draws: int,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> dict[Context, Pooled]:
    """Fit all contexts for every draw of the identification parameters.

    Parameters
    ----------
    design, scores, estimator
        As in :func:`send_va.value_added.need_fit.fit_need`.
    starts : mapping of context to PlugInFit
    rngs : mapping of context to numpy.random.Generator
        Each spawns one generator a draw, so results do not depend on the number of workers or of contexts.
    draws : int
        Draws of the effects in all; as equally as possible for each draw of the identification parameters.
    identification_draws : int
    workers : int
        Threads; linear algebra and compiled passes leave Python free.
    progress : callable, optional
        Called with the number of draws done.

    Returns
    -------
    dict of context to Pooled
    """
    weights = np.stack([start.fit.weights for start in starts.values()])
    begin = {context: _Start.of(start, draws, identification_draws) for context, start in starts.items()}
    pools = {context: _Pool.empty(start, draws, identification_draws) for context, start in starts.items()}
    sizes = shared_out(draws, identification_draws)
    children = {context: rng.spawn(identification_draws) for context, rng in rngs.items()}

    curved = any(SEVERITY_SQUARED in start.columns.changing for start in starts.values())

    def one(d: int) -> list[_Draw]:
        table = scores_table(design.ordered(scores.draw(d)), len(design.rows), estimator, curved)
        sums = changed_sums(design.rows, design.starts, weights, table)
        return [begin[c].draw(part, sizes[d], children[c][d]) for c, part in zip(starts, sums, strict=True)]

    with ThreadPoolExecutor(workers) as pool:
        for d, drawn in enumerate(pool.map(one, range(identification_draws))):
            for context, result in zip(starts, drawn, strict=True):
                pools[context].add(result)
            if progress is not None:
                progress(d + 1)
    return {context: part.pooled() for context, part in pools.items()}


@dataclass(frozen=True)
class _Draw:
    effects: FloatArray  # (size, schools, q)
    modes: FloatArray  # (schools, q)
    spread: FloatArray  # (schools, q, q)
    own: FloatArray  # (2, measures, schools): estimate, squared error
    beta: FloatArray
    beta_cov: FloatArray
    covariance: FloatArray
    converged: bool


@dataclass(frozen=True)
class _Start:
    """One context, with the curvature that makes every further fit a few steps."""

    plug_in: PlugInFit
    solution: NestedSolution
    curvature: FloatArray
    runs: int  # draws of the variance parameters for each draw of the identification parameters

    @classmethod
    def of(cls, start: PlugInFit, draws: int, identification_draws: int) -> _Start:
        curvature = variance_curvature(start.changing.base, start.fit.solution)
        solution = replace(start.fit.solution, inverse_curvature=inverse_curvature(curvature))
        runs = -(-variance_runs(draws, len(solution.modes[0])) // identification_draws)
        return cls(start, solution, curvature, runs)

    def draw(self, sums: FloatArray, size: int, rng: np.random.Generator) -> _Draw:
        columns = self.plug_in.columns
        inner = self.plug_in.changing.at(sums)
        solution = fit_nested(inner, [columns.level], columns.x, columns.y, start=self.solution, newton=True)
        own = own_estimates(solution, inner, self.plug_in.n_without, self.plug_in.n_with)
        runs = min(size, self.runs)
        drawn = variance_draws(inner, solution, runs, rng, curvature=self.curvature)
        parts = [draw_effects(at, part, rng) for at, part in zip(drawn, shared_out(size, runs), strict=True)]
        return _Draw(
            effects=np.concatenate(parts),
            modes=solution.modes[0],
            spread=effect_covariances(solution, fixed=True)[0],
            own=_own_array(own),
            beta=solution.beta,
            beta_cov=solution.beta_cov,
            covariance=solution.covariances[0],
            converged=solution.convergence.converged,
        )


def _own_array(own: WithinSchool) -> FloatArray:
    return np.stack([np.stack([own.estimate[m] for m in CONTRASTS]), np.stack([own.se[m] for m in CONTRASTS]) ** 2])


class _Pool:
    """Running sums over draws, as deviations from the estimates at the expected scores."""

    def __init__(self, start: PlugInFit, effects: FloatArray, identification_draws: int) -> None:
        solution = start.fit.solution
        self.effects, self.filled, self.of = effects, 0, identification_draws
        self.within = np.zeros((len(solution.modes[0]), *solution.covariances[0].shape))
        self.modes = _Sums(solution.modes[0])
        self.beta = _Sums(solution.beta[None])
        self.own = _Sums(_own_array(start.own(solution))[0][..., None])
        self.own_variance = np.zeros_like(self.own.reference[..., 0])
        self.beta_cov = np.zeros_like(solution.beta_cov)
        self.covariance = np.zeros_like(solution.covariances[0])
        self.not_converged = 0

    @classmethod
    def empty(cls, start: PlugInFit, draws: int, identification_draws: int) -> _Pool:
        return cls(start, np.empty((draws, *start.fit.solution.modes[0].shape)), identification_draws)

    def add(self, draw: _Draw) -> None:
        self.effects[self.filled : self.filled + len(draw.effects)] = draw.effects
        self.filled += len(draw.effects)
        self.modes.add(draw.modes)
        self.beta.add(draw.beta[None])
        self.own.add(draw.own[0][..., None])
        self.own_variance += draw.own[1] / self.of
        self.within += draw.spread / self.of
        self.beta_cov += draw.beta_cov / self.of
        self.covariance += draw.covariance / self.of
        self.not_converged += not draw.converged

    def pooled(self) -> Pooled:
        self.effects += self.modes.reference - self.modes.mean
        se = np.sqrt(self.own_variance + self.own.covariance[..., 0, 0])
        return Pooled(
            effects=self.effects,
            modes=self.modes.reference,
            spread=self.within + self.modes.covariance,
            covariance=self.covariance,
            own=WithinSchool(_by_measure(self.own.reference[..., 0]), _by_measure(se)),
            beta=self.beta.reference[0],
            beta_cov=self.beta_cov + self.beta.covariance[0],
            draws=self.of,
            not_converged=self.not_converged,
        )


def _by_measure(rows: FloatArray) -> dict[str, FloatArray]:
    return dict(zip(CONTRASTS, rows, strict=True))


class _Sums:
    """Mean and covariance, over draws, of vectors along the last axis."""

    def __init__(self, reference: FloatArray) -> None:
        self.reference, self.n = reference, 0
        self.first = np.zeros_like(reference)
        self.second = np.zeros((*reference.shape, reference.shape[-1]))

    def add(self, values: FloatArray) -> None:
        deviation = values - self.reference
        self.n += 1
        self.first += deviation
        self.second += deviation[..., :, None] * deviation[..., None, :]

    @property
    def mean(self) -> FloatArray:
        return np.asarray(self.reference + self.first / self.n)

    @property
    def covariance(self) -> FloatArray:
        about = self.second - self.first[..., :, None] * self.first[..., None, :] / self.n
        return np.asarray(about / max(self.n - 1, 1))
