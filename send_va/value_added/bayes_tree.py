"""Everything of a Bayesian fit as one ArviZ tree, with named dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from send_va.multilevel.collapsed_posterior import CollapsedPosterior, prior_draws
from send_va.multilevel.crossproducts import FloatArray
from send_va.value_added.bayes import BayesFit, named_coefficients
from send_va.value_added.bayes_checks import STATUS
from send_va.value_added.readout import CONTRASTS

MEASURES = ("theta", "u", "gap")
_PRIOR_DRAWS = 1000
_DIMS = ("chain", "draw")
Groups = dict[str, xr.Dataset]


def posterior_groups(
    fit: BayesFit, checked: CollapsedPosterior, observed: FloatArray, replicated: FloatArray, rng: np.random.Generator
) -> Groups:
    """Lay out one estimator in one context.

    Parameters
    ----------
    fit : BayesFit
    checked : CollapsedPosterior
        Its posterior thinned to the draws that replicates and log-likelihoods are worked out for.
    observed, replicated : array, shape (chains, draws, schools, 2)
        Mean residuals of these draws, from :func:`send_va.value_added.bayes_checks.mean_residuals`.
    rng : numpy.random.Generator
        For the prior.

    Returns
    -------
    dict of str to Dataset
        ``posterior``: theta, u, gap by school (outcome units), their SD between schools by ``measure``, and all
        parameters; ``prior``: the parameters; ``posterior_predictive`` and ``observed_data``: mean residuals by school
        and ``status``; ``log_likelihood``: of every school given the others; ``log_prior``; ``sample_stats``.
    """
    posterior = fit.posterior
    schools = np.array(list(posterior.model.data.groups), dtype=object)
    chains, draws = posterior.shape
    by_school = {
        name: ((*_DIMS, "school"), fit.fit.effects.draws(name).reshape(chains, draws, -1).astype(np.float32))
        for name in MEASURES
    }
    coords = {"chain": np.arange(chains), "draw": np.arange(draws), "school": schools}
    few = {"chain": np.arange(chains), "draw": np.arange(checked.shape[1]), "school": schools, "status": list(STATUS)}
    residuals = (*_DIMS, "school", "status")
    return {
        "posterior": _parameters(posterior, fit.coefficients).merge(xr.Dataset(by_school, coords=coords)),
        "prior": _prior(posterior, rng),
        "posterior_predictive": xr.Dataset({"mean_residual": (residuals, replicated.astype(np.float32))}, coords=few),
        "observed_data": xr.Dataset(
            {"mean_residual": (residuals[2:], observed.mean(axis=(0, 1)).astype(np.float32))},
            coords={name: few[name] for name in residuals[2:]},
        ),
        "log_likelihood": xr.Dataset(
            {"outcome": ((*_DIMS, "school"), checked.log_likelihood().astype(np.float32))},
            coords={name: few[name] for name in ("chain", "draw", "school")},
        ),
        "log_prior": xr.Dataset({name: (_DIMS, values) for name, values in posterior.log_prior().items()}),
        "sample_stats": _stats(posterior),
    }


def _parameters(posterior: CollapsedPosterior, coefficients: FloatArray) -> xr.Dataset:
    """Parameters, the intercept that of columns as given, and the SD between schools of each measure."""
    named = posterior.parameters()
    named["beta"] = (named["beta"].dims, coefficients)
    return named.merge(_measure_sd(posterior.between_cov))


def _measure_sd(between: FloatArray) -> xr.Dataset:
    q = between.shape[-1]
    weights = np.array([CONTRASTS[name][:q] for name in MEASURES])
    sd = np.sqrt(np.einsum("...ab,ma,mb->...m", between, weights, weights))
    return xr.Dataset({"school_sd": ((*_DIMS, "measure"), sd)}, coords={"measure": list(MEASURES)})


def _prior(posterior: CollapsedPosterior, rng: np.random.Generator) -> xr.Dataset:
    drawn = prior_draws(posterior.model, _PRIOR_DRAWS, rng)
    return _parameters(drawn, named_coefficients(drawn))


def _stats(posterior: CollapsedPosterior) -> xr.Dataset:
    """Sampler statistics with one number a draw, as plain types."""
    stats = posterior.sample_stats
    kept = {
        str(name): values
        for name, values in stats.data_vars.items()
        if values.dims == _DIMS and values.dtype.kind in "bif"
    }
    return xr.Dataset({name: (_DIMS, values.to_numpy()) for name, values in kept.items()})


def combined_tree(parts: Sequence[tuple[str, str, Groups]], known: xr.Dataset, attrs: dict[str, object]) -> xr.DataTree:
    """Put estimators and contexts beside one another.

    Parameters
    ----------
    parts : sequence of (estimator, context, groups)
    known : Dataset
        What is known of schools, for the group ``constant_data``.
    attrs : dict
        Of the posterior.

    Returns
    -------
    DataTree
        Every variable has the dims estimator and context; missing where a context has no such covariate.
        ``tree.sel(estimator="entry", context="cva")`` is one fit, on which functions of ArviZ work.
    """
    groups: dict[str, xr.Dataset] = {}
    for name in parts[0][2]:
        by_estimator: dict[str, list[xr.Dataset]] = {}
        for estimator, context, held in parts:
            by_estimator.setdefault(estimator, []).append(held[name].expand_dims(context=[context]))
        together = [
            xr.concat(rows, dim="context", join="outer").expand_dims(estimator=[estimator])
            for estimator, rows in by_estimator.items()
        ]
        whole = xr.concat(together, dim="estimator", join="outer")
        first = [dim for dim in (*_DIMS, "estimator", "context") if dim in whole.dims]
        groups[name] = whole.transpose(*first, ...)
    groups["posterior"].attrs = attrs
    groups["constant_data"] = known
    return xr.DataTree.from_dict(groups)
