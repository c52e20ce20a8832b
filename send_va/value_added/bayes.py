"""Value-added by the collapsed Bayesian model: the same columns as by REML, with priors and an authority level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import school_effects
from send_va.multilevel.collapsed import CollapsedModel, Start
from send_va.multilevel.collapsed_data import CollapsedData, collapsed_data
from send_va.multilevel.collapsed_posterior import CollapsedPosterior, EffectDraws, sample_posterior
from send_va.multilevel.collapsed_priors import Priors
from send_va.multilevel.collapsed_robust import GroupDistribution
from send_va.multilevel.convergence import Convergence, Limits, check_convergence
from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.multilevel.nested import NestedSolution
from send_va.multilevel.nuts import Sampling
from send_va.records.design_columns import INTERCEPT, OUTCOME, Context
from send_va.value_added.fit_result import ValueAddedFit, marked
from send_va.value_added.readout import CONTRASTS, stated
from send_va.value_added.row_coder import NEED
from send_va.value_added.within_school import WithinSchool

Authorities = tuple[NDArray[np.intp], tuple[str, ...]]
_TAIL = 0.025
_GROUPS = {"group": "school", "outer": "la"}


@dataclass(frozen=True)
class BayesOptions:
    """How the Bayesian engine works.

    Attributes
    ----------
    priors : Priors
    sampling : Sampling
    limits : Limits
        Beyond which nothing is published.
    la_level : bool
        Let authorities differ in level and gap, so that a school with few pupils is shrunken towards its authority.
        Without effect where schools are ``student_t``: the effects of an authority could not be integrated out.
    schools : str
        ``normal`` effects of schools, or ``student_t``: one outlying school neither widens the distribution of all
        others nor is drawn in as far as they are.
    """

    priors: Priors = field(default_factory=Priors)
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    la_level: bool = True
    schools: GroupDistribution = "normal"

    @property
    def authorities_differ(self) -> bool:
        """Whether the model has an authority level."""
        return self.la_level and self.schools == "normal"


@dataclass(frozen=True)
class SchoolFacts:
    """What is known of schools beside outcomes.

    Attributes
    ----------
    schools : tuple of str
    n_pupils, n_need : integer array, shape (schools,)
    flags : sequence of str
    not_compared : bool array, shape (schools,)
    """

    schools: tuple[str, ...]
    n_pupils: NDArray[np.integer]
    n_need: NDArray[np.integer]
    flags: Sequence[str]
    not_compared: NDArray[np.bool_]


@dataclass(frozen=True)
class BayesFit:
    """One estimator in one context.

    Attributes
    ----------
    fit : ValueAddedFit
        In the form that every engine returns.
    schools : SchoolFacts
    posterior : CollapsedPosterior
        Thinned to the draws of the effects.
    effects : EffectDraws
        Before identification uncertainty was added.
    coefficients : array, shape (chains, draws, p)
        Of columns as given, identification uncertainty included.
    convergence : Convergence
        Of all draws.
    """

    fit: ValueAddedFit
    schools: SchoolFacts
    posterior: CollapsedPosterior
    effects: EffectDraws
    coefficients: FloatArray
    convergence: Convergence


@dataclass(frozen=True)
class BayesInput:
    """What the Bayesian engine takes over from a fit by REML.

    Attributes
    ----------
    strata : sequence of CrossProducts
        Each with its own residual variance; precision-weighted where weights are settled beforehand.
    strata_names : sequence of str
    fixed, random : tuple of str
    solution : NestedSolution
        Where sampling starts.
    residual_variance : array, shape (S,)
    own : WithinSchool
        Unshrunken estimates, with identification error in their SEs.
    log_weights : array, shape (S, schools), optional
        Sums of the logarithms of precision weights.
    shifts : array, shape (d, schools, q), optional
        How far effects move over draws of the identification parameters, around zero.
    beta_shifts : array, shape (d, p), optional
    """

    strata: Sequence[CrossProducts]
    strata_names: Sequence[str]
    fixed: tuple[str, ...]
    random: tuple[str, ...]
    solution: NestedSolution
    residual_variance: FloatArray
    own: WithinSchool
    log_weights: FloatArray | None = None
    shifts: FloatArray | None = None
    beta_shifts: FloatArray | None = None


def fit_bayes(
    given: BayesInput,
    schools: SchoolFacts,
    authorities: Authorities | None,
    options: BayesOptions,
    *,
    rng: np.random.Generator,
    draws: int,
    context: Context,
    attrs: Mapping[str, Any],
    progress: Callable[[int], None] | None = None,
) -> BayesFit:
    """Sample the posterior of one estimator in one context and state it as theta, u and gap.

    Parameters
    ----------
    given : BayesInput
    schools : SchoolFacts
    authorities : tuple, optional
        Authority of each school and names of authorities; left out of the model where None.
    options : BayesOptions
    rng : numpy.random.Generator
    draws : int
        Draws of the school effects, over all chains.
    context : str
    attrs : mapping
        Must name ``estimator``.
    progress : callable, optional
        Called with the number of draws of the sampler.

    Returns
    -------
    BayesFit
        ``fit.converged`` is False where the limits are not met. Effects are those of schools against the national
        average, with the part they share with their authority.

    Raises
    ------
    InputError
        The outcome or a column is constant, or one school only has pupils.
    NotSupportedError
        The sampler is not installed.
    """
    data = _data(given, schools, authorities if options.authorities_differ else None)
    outer = np.full(len(data.outer_effects), 0.02 * float(given.residual_variance.mean()))
    solution = given.solution
    start = Start(solution.beta, solution.beta_cov, solution.covariances[0], given.residual_variance, outer)
    model = CollapsedModel.of(data, start, options.priors, groups=options.schools)
    enough = max(options.sampling.draws, -(-draws // options.sampling.chains))
    sampling = replace(options.sampling, draws=enough)
    whole = sample_posterior(model, sampling, seed=int(rng.integers(2**31)), progress=progress)
    convergence = check_convergence(whole, options.limits)
    posterior = whole.thinned(draws)
    effects, coefficients = posterior.effects(rng), _coefficients(posterior, given)
    drawn, spread = _with_identification(effects, given.shifts)
    between = posterior.between_cov.mean(axis=(0, 1))
    contrasts = dict(CONTRASTS)
    if "mean_p0" in attrs:
        contrasts["at_mean_p0"] = (1.0, float(attrs["mean_p0"]), 0.0)
    by_measure, known = stated(drawn, effects.mean, spread, between, given.own, contrasts)
    fit = ValueAddedFit(
        effects=school_effects(
            schools.schools,
            by_measure,
            known,
            n_pupils=schools.n_pupils,
            n_need=schools.n_need,
            flag=schools.flags,
            attrs={
                **attrs,
                "context": context,
                "draws": len(drawn),
                "llf": solution.llf,
                "engine": "bayes",
                "groups": options.schools,
            },
            not_compared=schools.not_compared,
        ),
        coefficients=marked(_coefficient_table(coefficients, given.fixed), str(attrs["estimator"]), context),
        variance_components=marked(_components(posterior), str(attrs["estimator"]), context),
        converged=convergence.converged,
        notes=(str(convergence), *convergence.failures, *_said(options, authorities)),
    )
    return BayesFit(fit, schools, posterior, effects, coefficients, convergence)


def _said(options: BayesOptions, authorities: Authorities | None) -> tuple[str, ...]:
    """What a reader must know of the distribution of schools."""
    if options.schools == "normal":
        return ()
    left_out = "; no authority level with these" if options.la_level and authorities is not None else ""
    return (f"effects of schools are Student-t: their covariance is nu / (nu - 2) times group_sd squared{left_out}",)


def _data(given: BayesInput, schools: SchoolFacts, authorities: Authorities | None) -> CollapsedData:
    return collapsed_data(
        given.strata,
        fixed=given.fixed,
        random=given.random,
        outcome=OUTCOME,
        groups=schools.schools,
        strata_names=given.strata_names,
        parent=None if authorities is None else authorities[0],
        outer=() if authorities is None else authorities[1],
        outer_random=(INTERCEPT, NEED),
        log_weights=given.log_weights,
    )


def _with_identification(effects: EffectDraws, shifts: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Widen the posterior at expected scores by how far effects move over draws of the identification parameters."""
    if shifts is None:
        return effects.draws, effects.covariance
    between = np.einsum("dga,dgb->gab", shifts, shifts) / (len(shifts) - 1)
    return _moved(effects.draws, shifts), effects.covariance + between


def _moved(draws: FloatArray, shifts: FloatArray) -> FloatArray:
    """Move every draw by one of the shifts, in turn: chains follow one another, so each meets all of them."""
    at = np.arange(len(draws)) % len(shifts)
    return np.asarray(draws + shifts[at] - shifts[at].mean(axis=0))


def named_coefficients(posterior: CollapsedPosterior) -> FloatArray:
    """Coefficients with the intercept moved back to columns as they were given, shape (chains, draws, p)."""
    data = posterior.model.data
    beta = posterior.beta.copy()
    if INTERCEPT in data.columns:
        at = data.columns.index(INTERCEPT)
        beta[..., at] += data.center[-1] - posterior.beta @ data.center[:-1]
    return beta


def _coefficients(posterior: CollapsedPosterior, given: BayesInput) -> FloatArray:
    """Draws (chains, draws, p), each moved as one of the draws of the identification parameters moves them."""
    named = named_coefficients(posterior)
    if given.beta_shifts is None:
        return named
    return _moved(named.reshape(-1, len(given.fixed)), given.beta_shifts).reshape(named.shape)


def _coefficient_table(draws: FloatArray, names: Sequence[str]) -> pd.DataFrame:
    beta = draws.reshape(-1, len(names))
    lower, upper = np.quantile(beta, [_TAIL, 1.0 - _TAIL], axis=0)
    return pd.DataFrame(
        {
            "term": names,
            "estimate": beta.mean(axis=0),
            "se": beta.std(axis=0, ddof=1),
            "lower": lower,
            "upper": upper,
        }
    )


def _components(posterior: CollapsedPosterior) -> pd.DataFrame:
    """Posterior means of variances, and intervals of SDs and correlations; covariances of Student-t effects."""
    data, covariance = posterior.model.data, posterior.effect_cov
    rows: list[dict[str, Any]] = []

    def add(group: str, first: str, second: str | None, variance: FloatArray, shown: FloatArray) -> None:
        lower, upper = np.quantile(shown, [_TAIL, 1.0 - _TAIL])
        rows.append(
            {
                "group": group,
                "term1": first,
                "term2": second,
                "variance": float(variance.mean()),
                "sd_or_corr": float(shown.mean()),
                "lower": float(lower),
                "upper": float(upper),
            }
        )

    for a, name in enumerate(data.effects):
        add("school", name, None, covariance[..., a, a], np.sqrt(covariance[..., a, a]))
    for a, name in enumerate(data.effects):
        for b in range(a):
            add("school", data.effects[b], name, covariance[..., a, b], posterior.group_corr[..., a, b])
    for k, at in enumerate(data.outer_effects):
        add("la", data.effects[at], None, posterior.outer_sd[..., k] ** 2, posterior.outer_sd[..., k])
    for s, name in enumerate(data.strata):
        add("Residual", name, None, posterior.residual_sd[..., s] ** 2, posterior.residual_sd[..., s])
    return pd.DataFrame(rows)
