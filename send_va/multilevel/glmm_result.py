"""A fitted generalised linear multilevel model, named and in the user's units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.multilevel.components import component_covariance, component_table, warn_singular
from send_va.multilevel.fitted_model import GroupedModel
from send_va.multilevel.likelihoods import Link
from send_va.multilevel.random_terms import RandomTerm

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class GlmmConvergence:
    """What the optimiser did, as data.

    Attributes
    ----------
    converged : bool
    gradient : float
        Largest derivative of the log-likelihood, each parameter measured in its standard error.
    evaluations : int
        Evaluations of log-likelihood and gradient.
    at_boundary : tuple of str
        Groupings whose covariance is singular.
    message : str
        The optimiser's own words.
    """

    converged: bool
    gradient: float
    evaluations: int
    at_boundary: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class GlmmFit(GroupedModel):
    """A fitted multilevel model of a yes/no, count-out-of or ordered response.

    Attributes
    ----------
    params, bse : Series, length p
        Fixed effects and their standard errors on the scale of the link: log-odds (logit) or SDs of the latent normal
        response (probit). Ordinal models list their thresholds first, named ``"N|K"``:
        ``P(response <= N) = F(threshold - fixed - random effects)``.
    cov_params : DataFrame, p x p
        From the second derivatives of the log-likelihood, uncertainty of the variances included.
    variance_components : DataFrame
        One row per variance or covariance, on the squared scale of the link: group, term1, term2, variance, sd_or_corr.
    cov_variance_components : DataFrame
        Sampling covariance of the column `variance`, same rows. For an interval of a variance v work with log v, whose
        standard error is that of v divided by v.
    scale : float
        One: these responses have no residual variance of their own.
    residual_variance : float
        Variance of the latent response within groups: pi^2/3 (logit) or 1 (probit).
    llf : float
        Log-likelihood, constants included (for counts the binomial coefficients).
    converged : bool
    convergence : GlmmConvergence
    n_obs : int
        Records.
    n_groups : dict
    formula : str
    response : str
        What is modelled, e.g. ``"use = Y"``.
    link : {"logit", "probit"}
    method : str
        ``"laplace"`` or ``"agq"``.
    """

    params: pd.Series[float]
    bse: pd.Series[float]
    cov_params: pd.DataFrame
    variance_components: pd.DataFrame
    cov_variance_components: pd.DataFrame
    scale: float
    residual_variance: float
    llf: float
    converged: bool
    convergence: GlmmConvergence
    n_obs: int
    n_groups: dict[str, int]
    formula: str
    response: str
    link: Link
    method: str
    modes: dict[str, FloatArray] = field(repr=False)
    mode_covs: dict[str, FloatArray] = field(repr=False)
    labels: dict[str, pd.Index[str]] = field(repr=False)
    terms: dict[str, tuple[str, ...]] = field(repr=False)

    def random_effects(self, group: str) -> pd.DataFrame:
        """Conditional modes of one grouping's effects.

        Returns
        -------
        DataFrame
            level, term, estimate, se. `estimate` is shrunken towards zero, so it is finite where a group's responses
            are all the same; `se` is the conditional standard deviation given the parameters (lme4's ``condsd``).

        Raises
        ------
        InputError
            The model has no such grouping.
        """
        return self._effects(self._known(group), self.modes[group], self.mode_covs[group])

    def random_effects_cov(self, group: str) -> FloatArray:
        """Conditional covariance of one grouping's effects given the parameters, shape (levels, q, q).

        Raises
        ------
        InputError
            The model has no such grouping.
        """
        return self.mode_covs[self._known(group)]

    def _heading(self) -> list[str]:
        how = {"laplace": "Laplace approximation", "agq": "adaptive Gauss-Hermite quadrature"}[self.method]
        sizes = ", ".join(f"{count:,} {name}" for name, count in self.n_groups.items())
        state = "converged" if self.converged else f"NOT CONVERGED ({self.convergence.message})"
        return [
            f"Multilevel {self.link} model by {how}: {self.formula}",
            f"Response {self.response}; {self.n_obs:,} records, {sizes}; log-likelihood {self.llf:.4f}; {state}",
        ]


@dataclass(frozen=True)
class Estimates:
    """What both methods hand over, in the units of the engine's columns.

    Attributes
    ----------
    beta : array, shape (fixed,)
    beta_cov : array, shape (fixed, fixed)
    covariances, modes, mode_covs : list of array
        By term: (q, q), (groups, q), (groups, q, q).
    parameters, parameters_cov : array
        Of the variances.
    covariances_at : callable
        From parameters to `covariances`.
    llf : float
    convergence : GlmmConvergence
    """

    beta: FloatArray
    beta_cov: FloatArray
    covariances: Sequence[FloatArray]
    modes: Sequence[FloatArray]
    mode_covs: Sequence[FloatArray]
    parameters: FloatArray
    parameters_cov: FloatArray
    covariances_at: Callable[[FloatArray], Sequence[FloatArray]]
    llf: float
    convergence: GlmmConvergence


@dataclass(frozen=True)
class ModelLabels:
    """What a fit is called: see `GlmmFit`."""

    formula: str
    response: str
    link: Link
    method: str
    n_obs: int
    residual_variance: float


def named_fit(
    found: Estimates, terms: Sequence[RandomTerm], names: Sequence[str], to_named: FloatArray, model: ModelLabels
) -> GlmmFit:
    """Name the estimates and turn them back to the units of the user's columns.

    Parameters
    ----------
    found : Estimates
    terms : sequence of RandomTerm
    names : sequence of str, length p
    to_named : array, shape (p, p)
        From the engine's coefficients to the named ones.
    model : ModelLabels

    Warns
    -----
    BoundaryWarning
        A covariance of random effects is singular.
    """
    index = pd.Index(names)
    beta, cov = to_named @ found.beta, to_named @ found.beta_cov @ to_named.T
    bases = [term.basis for term in terms]
    columns = {term.name: term.names for term in terms}

    def back(covariances: Sequence[FloatArray]) -> list[FloatArray]:
        return [basis @ g @ basis.T for basis, g in zip(bases, covariances, strict=True)]

    components_cov = component_covariance(
        lambda parameters: back(found.covariances_at(parameters)), found.parameters, found.parameters_cov
    )
    for term in terms:
        if term.name in found.convergence.at_boundary:
            warn_singular(term.name, len(term.names))
    return GlmmFit(
        params=pd.Series(beta, index=index, name="estimate"),
        bse=pd.Series(np.sqrt(np.diag(cov)), index=index, name="se"),
        cov_params=pd.DataFrame(cov, index=index, columns=index),
        variance_components=component_table(columns, back(found.covariances)),
        cov_variance_components=pd.DataFrame(components_cov),
        scale=1.0,
        residual_variance=model.residual_variance,
        llf=found.llf,
        converged=found.convergence.converged,
        convergence=found.convergence,
        n_obs=model.n_obs,
        n_groups={term.name: len(term.labels) for term in terms},
        formula=model.formula,
        response=model.response,
        link=model.link,
        method=model.method,
        modes={t.name: modes @ t.basis.T for t, modes in zip(terms, found.modes, strict=True)},
        mode_covs={t.name: t.basis @ covs @ t.basis.T for t, covs in zip(terms, found.mode_covs, strict=True)},
        labels={term.name: term.labels for term in terms},
        terms=columns,
    )
