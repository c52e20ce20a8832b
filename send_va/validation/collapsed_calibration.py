"""Calibration of the collapsed posterior: its priors, a simulator of records, and its draws, in a small design."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.collapsed import CollapsedModel, Start
from send_va.multilevel.collapsed_data import CollapsedData, collapsed_data
from send_va.multilevel.collapsed_posterior import CollapsedPosterior, sample_posterior
from send_va.multilevel.collapsed_priors import Priors, PriorScales
from send_va.multilevel.crossproducts import cross_products
from send_va.multilevel.nuts import Sampling
from send_va.validation.calibration import GenerativeModel, PosteriorDraws

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

EFFECTS = ("u", "gap", "slope")
COLUMNS = ("Intercept", "need", "prior")
OUTER = ("Intercept", "need")  # effects that differ between outer groups too
STRATA = ("without need", "with need")
DIVERGENCES, APART = "divergences", "R-hat above 1.05"
_APART = 1.05  # of a few hundred draws: 1.01 would be exceeded by chance
SAMPLING = Sampling(chains=2, draws=400, tune=300, cores=1)


@dataclass(frozen=True)
class NestedDesign:
    """Groups in outer groups, and what is known of their records before outcomes are.

    Attributes
    ----------
    groups, size, outer : int
        Groups, records of each, and outer groups.
    rows : array, shape (n, 3)
        Intercept, need and prior attainment.
    group : integer array, shape (n,)
    parent : integer array, shape (groups,)
    """

    groups: int
    size: int
    outer: int
    rows: Floats
    group: Integers
    parent: Integers

    @classmethod
    def of(
        cls, rng: np.random.Generator, *, groups: int = 24, size: int = 25, outer: int = 6, need_share: float = 0.3
    ) -> NestedDesign:
        """Draw need and prior attainment once: the design is the same in all simulations.

        Raises
        ------
        InputError
            Outer groups that do not hold equally many groups.
        """
        if outer < 2 or groups % outer:
            raise InputError(f"{groups} groups cannot be shared out evenly between {outer} outer groups")
        n = groups * size
        need = (rng.random(n) < need_share).astype(np.float64)
        rows = np.column_stack([np.ones(n), need, rng.standard_normal(n)])
        return cls(groups, size, outer, rows, np.repeat(np.arange(groups), size), np.arange(groups) * outer // groups)

    def products(self, y: Floats) -> CollapsedData:
        """Cross-products of records with outcomes (n,)."""
        rows, need = np.column_stack([self.rows, y]), self.rows[:, 1] > 0
        return collapsed_data(
            [cross_products(rows[at], self.group[at], self.groups, [*COLUMNS, "y"]) for at in (~need, need)],
            fixed=COLUMNS,
            random=COLUMNS,
            outcome="y",
            groups=[f"group {j + 1}" for j in range(self.groups)],
            strata_names=STRATA,
            parent=self.parent,
            outer=[f"outer {g + 1}" for g in range(self.outer)],
            outer_random=OUTER,
        )


@dataclass(frozen=True)
class Parameters:
    """Parameters in the order in which they are ranked.

    Attributes
    ----------
    beta : array, shape (k, 3)
    group_cov : array, shape (k, 3, 3)
    outer_sd : array, shape (k, 2)
    residual_sd : array, shape (k, 2)
    effects : array, shape (k, 2)
        Level and need gap of the first group, of both levels together.
    """

    beta: Floats
    group_cov: Floats
    outer_sd: Floats
    residual_sd: Floats
    effects: Floats

    NAMES = (
        *(f"coefficient of {name}" for name in COLUMNS),
        *(f"SD of {name}" for name in EFFECTS),
        "correlation of u, gap",
        "correlation of u, slope",
        "correlation of gap, slope",
        *(f"outer SD of {name}" for name in EFFECTS[:2]),
        *(f"residual SD {name}" for name in STRATA),
        "u of a group",
        "theta of a group",
    )

    def stated(self) -> Floats:
        """As ranked, shape (k, parameters); theta is level plus gap."""
        sd = np.sqrt(np.einsum("kaa->ka", self.group_cov))
        corr = self.group_cov / (sd[:, :, None] * sd[:, None, :])
        effects = np.column_stack([self.effects[:, 0], self.effects.sum(axis=1)])
        below = np.tril_indices(3, -1)
        pairs = corr[:, below[0], below[1]]
        return np.column_stack([self.beta, sd, pairs, self.outer_sd, self.residual_sd, effects])

    @classmethod
    def read(cls, stated: Floats) -> Parameters:
        """Undo :meth:`stated`."""
        beta, sd, pairs, outer, residual, effects = np.split(stated, np.cumsum([3, 3, 3, 2, 2]), axis=1)
        corr = np.tile(np.eye(3), (len(stated), 1, 1))
        for k, (a, b) in enumerate(zip(*np.tril_indices(3, -1), strict=True)):
            corr[:, a, b] = corr[:, b, a] = pairs[:, k]
        level = np.column_stack([effects[:, 0], effects[:, 1] - effects[:, 0]])
        return cls(beta, corr * sd[:, :, None] * sd[:, None, :], outer, residual, level)


def stated_scales(priors: Priors | None = None) -> PriorScales:
    """Priors in outcome SDs per unit of a column, whatever outcomes come out of them."""
    of = Priors() if priors is None else priors
    return PriorScales(
        mean=np.zeros(3),
        sd=np.array([of.intercept, of.coefficient, of.coefficient]),
        group_sd=np.full(3, of.group_sd),
        outer_sd=np.full(2, of.outer_sd),
        correlation=of.correlation,
        residual_sd=of.residual_sd,
        strata=len(STRATA),
    )


class CollapsedSampler:
    """The collapsed posterior of one design, given the outcomes of every simulation.

    Attributes
    ----------
    start : Start
        Sets the coordinates in which sampling is done; chains begin around least squares.
    scales : PriorScales
    sampling : Sampling
    """

    def __init__(self, design: NestedDesign, scales: PriorScales, sampling: Sampling) -> None:
        self.scales, self.sampling = scales, sampling
        data = design.products(np.zeros(len(design.rows)))
        group_cov, residual, outer = np.diag(scales.group_sd**2), 0.7 * scales.residual_sd, 0.5 * scales.outer_sd
        precision = data.total.sum(axis=0)[:3, :3] / residual**2
        # Coefficients are known no better than effects of groups vary: what the records alone would say is too narrow.
        spread = np.linalg.inv(precision) + group_cov / design.groups + np.diag([*outer**2, 0.0]) / design.outer
        self.start = Start(scales.mean, spread, group_cov, np.full(scales.strata, residual**2), outer**2)

    def model(self, data: CollapsedData) -> CollapsedModel:
        """The model of simulated records, with priors that know nothing of them."""
        total = data.total.sum(axis=0)
        beginning = np.linalg.solve(total[:-1, :-1], total[:-1, -1])
        return CollapsedModel.of(data, replace(self.start, beta=beginning), scales=self.scales)

    def __call__(self, data: CollapsedData, rng: np.random.Generator) -> CollapsedPosterior:
        """Sample the posterior of simulated records."""
        return sample_posterior(self.model(data), self.sampling, seed=int(rng.integers(2**31)))

    def log_likelihood(self, stated: Floats, data: CollapsedData) -> Floats:
        """Log-likelihood of all records, effects integrated out, at parameters (k, ...): shape (k,)."""
        model, of = self.model(data), Parameters.read(stated)
        rows = zip(of.beta, of.group_cov, of.residual_sd**2, of.outer_sd**2, strict=True)
        return np.array([model.log_likelihood(*row) for row in rows])


def collapsed_model(
    design: NestedDesign | None = None,
    *,
    priors: Priors | None = None,
    sampling: Sampling = SAMPLING,
) -> GenerativeModel[CollapsedData]:
    """Build the collapsed model's own priors, a simulator of records that shares no code with it, and its posterior.

    Parameters
    ----------
    design : NestedDesign, optional
        By default 24 groups of 25 records in 6 outer groups.
    priors : Priors, optional
        Those of the package by default, for outcomes of SD 1: worlds like those that are estimated.
    sampling : Sampling

    Returns
    -------
    GenerativeModel
        Ranks all coefficients, SDs and correlations, level and theta of one group, and the log-likelihood of all
        records with effects integrated out.

    Examples
    --------
    >>> model = collapsed_model()
    >>> rng = np.random.default_rng(1)
    >>> truth = model.draw_prior(rng)
    >>> len(truth) == len(model.names), model.simulate(truth, rng).n_records
    (True, 600.0)
    """
    design = NestedDesign.of(np.random.default_rng(1)) if design is None else design
    scales = stated_scales(priors)
    sampler = CollapsedSampler(design, scales, sampling)

    def posterior(data: CollapsedData, rng: np.random.Generator) -> PosteriorDraws:
        return _named(sampler(data, rng), rng)

    return GenerativeModel(
        names=Parameters.NAMES,
        draw_prior=lambda rng: _draw_prior(design, scales, rng),
        simulate=lambda stated, rng: design.products(_outcomes(design, stated, rng)),
        posterior=posterior,
        quantities={"log_likelihood": sampler.log_likelihood},
    )


def _draw_prior(design: NestedDesign, scales: PriorScales, rng: np.random.Generator) -> Floats:
    """Parameters and effects of the first group, as ranked."""
    drawn = scales.draw(rng, 1)
    group_cov = drawn.group_corr * drawn.group_sd[:, :, None] * drawn.group_sd[:, None, :]
    spread = group_cov[0, :2, :2] + np.diag(drawn.outer_sd[0] ** 2)
    effects = np.linalg.cholesky(spread) @ rng.standard_normal(2)
    stated = Parameters(drawn.beta, group_cov, drawn.outer_sd, drawn.residual_sd, effects[None]).stated()
    return np.asarray(stated[0])


def _outcomes(design: NestedDesign, stated: Floats, rng: np.random.Generator) -> Floats:
    """Outcomes (n,) at parameters, given level and gap of the first group."""
    of = Parameters.read(stated[None])
    own = np.linalg.cholesky(of.group_cov[0])
    effects = rng.standard_normal((design.groups, 3)) @ own.T
    above = of.outer_sd[0] * rng.standard_normal((design.outer, 2))
    effects[:, :2] += above[design.parent]
    # The first group and its outer group given the group's total effects: conditioning by a residual (Matheron's rule).
    outer_cov = np.diag(of.outer_sd[0] ** 2)
    gain = np.linalg.inv(of.group_cov[0][:2, :2] + outer_cov)
    wrong = of.effects[0] - effects[0, :2]
    siblings = design.parent == design.parent[0]
    effects[siblings, :2] += outer_cov @ gain @ wrong
    effects[0] += of.group_cov[0][:, :2] @ gain @ wrong
    residual = of.residual_sd[0][design.rows[:, 1].astype(np.intp)] * rng.standard_normal(len(design.rows))
    return np.asarray(design.rows @ of.beta[0] + (design.rows * effects[design.group]).sum(axis=1) + residual)


def _named(found: CollapsedPosterior, rng: np.random.Generator) -> PosteriorDraws:
    """Draws as ranked, with what went wrong in sampling them."""
    chains, draws = found.shape

    def flat(values: Floats) -> Floats:
        return values.reshape(chains * draws, *values.shape[2:])

    effects = found.effects(rng).draws[:, 0, :2]
    of = Parameters(flat(found.beta), flat(found.group_cov), flat(found.outer_sd), flat(found.residual_sd), effects)
    drawn = of.stated().reshape(chains, draws, -1)
    apart = np.asarray(array_stats.rhat(drawn, chain_axis=0, draw_axis=1)) > _APART
    diverged = bool(found.sample_stats["diverging"].any())
    problems = (*((DIVERGENCES,) if diverged else ()), *((APART,) if apart.any() else ()))
    return PosteriorDraws(drawn, problems)
