"""Coverage of REML: intervals for variances, fixed effects and school effects of the nested Gaussian model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import CrossProducts, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.multilevel.prediction import draw_effects
from send_va.multilevel.threads import one_blas_thread
from send_va.multilevel.variance_draws import variance_draws
from send_va.validation.coverage import Coverage, cover_of

Floats = NDArray[np.float64]

FIXED = ("Intercept", "need", "prior")
RANDOM = ("u", "gap", "slope")
VARIANCE_DRAWS, EFFECTS_EACH = 500, 2


@dataclass(frozen=True)
class NestedWorld:
    """Schools with known parameters: level, need gap and slope on prior attainment differ between them.

    Attributes
    ----------
    schools, pupils : int
        Pupils of an average school; sizes run evenly from half to one and a half of it.
    beta : tuple of float
        Intercept, need, prior attainment, in outcome SDs (about).
    sds : tuple of float
        SDs between schools of u, gap and slope.
    correlation : float
        Of u and gap; the slope is independent.
    residual_sd, need_share : float
    """

    schools: int
    pupils: int = 60
    beta: tuple[float, float, float] = (0.0, -0.3, 0.6)
    sds: tuple[float, float, float] = (0.22, 0.20, 0.08)
    correlation: float = -0.2
    residual_sd: float = 0.75
    need_share: float = 0.2

    @property
    def covariance(self) -> Floats:
        """Covariance of u, gap and slope, shape (3, 3)."""
        correlations = np.eye(3)
        correlations[0, 1] = correlations[1, 0] = self.correlation
        return np.asarray(correlations * np.outer(self.sds, self.sds))

    def simulate(self, rng: np.random.Generator) -> tuple[CrossProducts, Floats]:
        """Draw schools and pupils: their cross-products, and true effects of shape (schools, 3)."""
        sizes = np.linspace(0.5 * self.pupils, 1.5 * self.pupils, self.schools).round().astype(np.intp)
        school = np.repeat(np.arange(self.schools), sizes)
        effects = rng.standard_normal((self.schools, 3)) @ np.linalg.cholesky(self.covariance).T
        prior = rng.standard_normal(len(school))
        need = (rng.random(len(school)) < self.need_share).astype(np.float64)
        z = np.column_stack([np.ones(len(school)), need, prior])
        y = z @ np.array(self.beta) + (z * effects[school]).sum(axis=1)
        y += self.residual_sd * rng.standard_normal(len(school))
        return cross_products(np.column_stack([z, y]), school, self.schools, (*FIXED, "y")), effects


@one_blas_thread
def reml_cover(world: NestedWorld, rng: np.random.Generator, simulation: int) -> tuple[pd.DataFrame, bool]:
    """Simulate one world, fit it by REML, and see which intervals hold the truth.

    Returns
    -------
    DataFrame
        Rows of :func:`send_va.validation.coverage.cover_of`.
    bool
        Whether REML converged.
    """
    data, effects = world.simulate(rng)
    solution = fit_nested(data, [Level(np.arange(3))], np.arange(3), 3)
    drawn = variance_draws(data, solution, VARIANCE_DRAWS, rng)
    names, truth = _stated_parameters(world)
    values = np.array([_parameters(part, rng) for part in drawn])  # (draws, parameters)
    rows = [
        cover_of(name, truth[k : k + 1], values[:, k : k + 1], simulation) for k, name in enumerate(names)
    ]  # one value each
    modes = np.concatenate([draw_effects(part, EFFECTS_EACH, rng) for part in drawn])  # (draws, schools, 3)
    for name, weights in (("theta", (1.0, 1.0, 0.0)), ("u", (1.0, 0.0, 0.0)), ("gap", (0.0, 1.0, 0.0))):
        rows.append(cover_of(name, effects @ np.array(weights), modes @ np.array(weights), simulation))
    table = pd.concat(rows, ignore_index=True)
    table["what"] = table["what"] + f", {world.schools} schools"
    return table, solution.convergence.converged


def _stated_parameters(world: NestedWorld) -> tuple[list[str], Floats]:
    names = [f"SD of {name}" for name in RANDOM] + ["correlation of u and gap", "residual SD"]
    truth = [*world.sds, world.correlation, world.residual_sd, *world.beta]
    return [*names, *(f"coefficient of {name}" for name in FIXED)], np.array(truth)


def _parameters(drawn: NestedSolution, rng: np.random.Generator) -> Floats:
    """Parameters at one draw of the variances, fixed effects drawn given them; order of `_stated_parameters`."""
    covariance = drawn.covariances[0]
    sds = np.sqrt(np.diag(covariance))
    correlation = covariance[0, 1] / (sds[0] * sds[1])
    beta = drawn.beta + np.linalg.cholesky(drawn.beta_cov) @ rng.standard_normal(len(drawn.beta))
    return np.array([*sds, correlation, np.sqrt(drawn.scale), *beta])


def reml_coverage(
    worlds: Sequence[NestedWorld],
    simulations: int,
    rng: np.random.Generator,
    *,
    progress: Callable[[int], None] | None = None,
) -> Coverage:
    """Cover of 50, 80 and 95 % intervals of REML with :func:`send_va.multilevel.variance_draws.variance_draws`.

    Parameters
    ----------
    worlds : sequence of NestedWorld
        Known parameters; the same in every simulation.
    simulations : int
        Of every world; 400 give a Monte-Carlo error of .011 at 95 % and .025 at 50 %.
    rng : numpy.random.Generator
        Spawns one generator a world and simulation.
    progress : callable, optional
        Called with the number of simulations done.

    Returns
    -------
    Coverage
        Of SDs between schools, their correlation, the residual SD, fixed effects, and theta, u and gap of all schools.
        These are intervals of a normal approximation on the scale of the covariance's root: with few schools, those of
        SDs near zero are the first to go wrong.

    Examples
    --------
    >>> import numpy as np
    >>> found = reml_coverage([NestedWorld(schools=20, pupils=20)], 3, np.random.default_rng(1))
    >>> found.table()["what"].iloc[-1], len(found.table())
    ('gap, 20 schools', 33)
    """
    tables, problems = [], 0
    for at, world in enumerate(worlds):
        for k, child in enumerate(rng.spawn(simulations)):
            table, converged = reml_cover(world, child, k)
            tables.append(table)
            problems += not converged
            if progress is not None:
                progress(at * simulations + k + 1)
    return Coverage(pd.concat(tables, ignore_index=True), problems)
