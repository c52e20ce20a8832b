"""What a posterior leaves to be checked: predictive checks that matter for SEND, leave-one-school-out, priors' pull."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from send_va.multilevel.collapsed_posterior import CollapsedPosterior, root_of
from send_va.multilevel.crossproducts import FloatArray
from send_va.value_added.bayes import SchoolFacts

STATUS = ("without", "with")
_FEWEST = 5  # pupils with need of a school whose mean residual enters a check
_QUARTERS = 4
_SENSITIVE = 0.05  # power-scaling sensitivity above which a prior or likelihood is informative
_TAIL = 0.025
_LOUD = 0.2  # sensitivity to a prior that is said where a run ends, not only in its report
_SHOWN = 5
_KEYS = {
    "beta": "prior_coefficient",
    "group_sd": "prior_school_sd",
    "group_corr": "prior_correlation",
    "outer_sd": "prior_la_sd",
    "residual_sd": "prior_residual_sd",
}


@dataclass(frozen=True)
class Checks:
    """Checks of one posterior.

    Attributes
    ----------
    predictive : DataFrame
        check, group, observed, replicated, lower, upper, p (share of replicates at or above the observed), reading.
    loo : DataFrame
        school, elpd, pareto_k, reading: how well a school is predicted from all others.
    loo_summary : DataFrame
        elpd, se, p_loo, schools, unreliable (Pareto k above .7), reading.
    priors : DataFrame
        parameter, prior, likelihood, reading: how far the posterior moves when either is raised to a power.
    """

    predictive: pd.DataFrame
    loo: pd.DataFrame
    loo_summary: pd.DataFrame
    priors: pd.DataFrame


def mean_residuals(posterior: CollapsedPosterior, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Mean residuals of pupils without and with need, by school: as observed, and as the model replicates them.

    Parameters
    ----------
    posterior : CollapsedPosterior
        Effects in the order level, need and, where schools differ in it, slope on prior attainment.
    rng : numpy.random.Generator

    Returns
    -------
    observed, replicated : array, shape (chains, draws, schools, 2)
        In outcome units, at the coefficients of each draw; replicates are of new schools in the same places. Missing
        where a school has no pupil of the kind.
    """
    data = posterior.model.data
    q, groups = len(data.effects), len(data.groups)
    shape = (*posterior.shape, groups, len(STATUS))
    observed, replicated = np.empty(shape), np.empty(shape)
    for at in np.ndindex(*posterior.shape):
        sums, products = posterior.residual_sums(at)
        effects = rng.standard_normal((groups, q)) @ root_of(posterior.group_cov[at]).T
        if posterior.nu is not None:
            nu = float(posterior.nu[at])
            effects /= np.sqrt(rng.gamma(nu / 2.0, 2.0 / nu, groups))[:, None]
        if data.parent is not None:
            for k, column in enumerate(data.outer_effects):
                own = posterior.outer_sd[at][k] * rng.standard_normal(len(data.outer))
                effects[:, column] += own[data.parent]
        values, vectors = np.linalg.eigh(products)
        root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
        noise = np.einsum("gab,gb->ga", root, rng.standard_normal((groups, q)))
        again = np.einsum("gab,gb->ga", products, effects) + noise
        observed[at], replicated[at] = _by_status(sums, products), _by_status(again, products)
    return observed, replicated


def _by_status(sums: FloatArray, products: FloatArray) -> FloatArray:
    """Means over pupils without and with need from sums over all and over those with need."""
    with_need, weight = sums[:, 1], products[:, 0, 1]
    without, rest = sums[:, 0] - with_need, products[:, 0, 0] - weight
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [np.where(rest > 0, without / rest, np.nan), np.where(weight > 0, with_need / weight, np.nan)], axis=1
        )


def predictive_checks(
    observed: FloatArray, replicated: FloatArray, schools: SchoolFacts, floor: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compare schools as they are with schools as the model would make them.

    Parameters
    ----------
    observed, replicated : array, shape (chains, draws, schools, 2)
        From :func:`mean_residuals`.
    schools : SchoolFacts
    floor : DataFrame, optional
        Rows of the same columns on the share of outcomes at the floor, to be appended.

    Returns
    -------
    DataFrame
        A p near 0 or 1 says that the model does not make schools that look like these in that respect.

    References
    ----------
    Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness, Statistica Sinica 6, 733-807.
    """
    used = np.flatnonzero((schools.n_need >= _FEWEST) & ~schools.not_compared)
    flat = [values.reshape(-1, *values.shape[2:])[:, used] for values in (observed, replicated)]
    rows = []
    if len(used) >= 2 * _QUARTERS:
        spread = [np.nanstd(values[..., 1], axis=1, ddof=1) for values in flat]
        rows.append(_row("SD between schools of mean residuals with need", "all", *spread))
        order = np.argsort(np.argsort(schools.n_need[used], kind="stable"), kind="stable")
        quarter = order * _QUARTERS // len(used)
        for k in range(_QUARTERS):
            own = schools.n_need[used][quarter == k]
            gap = [np.nanmean((values[..., 1] - values[..., 0])[:, quarter == k], axis=1) for values in flat]
            rows.append(_row("mean gap by school size", f"{own.min()} to {own.max()} pupils with need", *gap))
    table = pd.DataFrame(rows)
    return table if floor is None else pd.concat([table, floor], ignore_index=True)


def _row(check: str, group: str, observed: FloatArray, replicated: FloatArray) -> dict[str, Any]:
    p = float((replicated >= observed).mean())
    lower, upper = np.quantile(replicated, [_TAIL, 1.0 - _TAIL])
    return {
        "check": check,
        "group": group,
        "observed": float(observed.mean()),
        "replicated": float(replicated.mean()),
        "lower": float(lower),
        "upper": float(upper),
        "p": p,
        "reading": _reading(p),
    }


def _reading(p: float) -> str:
    if p < _TAIL:
        return "more than the model makes"
    return "less than the model makes" if p > 1.0 - _TAIL else "as the model makes"


def floor_check(
    posterior: CollapsedPosterior, observed: FloatArray, floor: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Share of outcomes at the floor beside what a normal outcome would have at or below it, by stratum.

    Parameters
    ----------
    posterior : CollapsedPosterior
    observed : array, shape (S,)
        Share of records of each stratum at the floor.
    floor : float
        In outcome units.
    rng : numpy.random.Generator
        For the counts of replicates.

    Returns
    -------
    DataFrame
        Predicted from the mean and the variance of expected outcomes of a stratum, as if these were normal.
    """
    data = posterior.model.data
    one = data.columns.index("Intercept")
    rows = []
    for s, name in enumerate(data.strata):
        total, n = data.own[s].sum(axis=0), float(data.own[s].sum(axis=0)[one, one])
        mean = total[one] / n
        spread = total / n - np.outer(mean, mean)
        beta = posterior.beta.reshape(-1, posterior.beta.shape[-1])
        z = data.zz[:, s].sum(axis=0)[: len(data.effects), : len(data.effects)] / n
        between = np.einsum("dab,ab->d", posterior.effect_cov.reshape(-1, *z.shape), z)
        variance = np.einsum("da,ab,db->d", beta, spread[:-1, :-1], beta) + between
        variance += posterior.residual_sd[..., s].reshape(-1) ** 2
        at = (floor - data.center[-1] - beta @ mean[:-1]) / np.sqrt(variance)
        below = np.asarray(norm.cdf(at))
        records = round(data.counts[s].sum())
        again = rng.binomial(records, below) / records
        rows.append(
            _row("share of outcomes at the floor (normal approximation)", name, np.full(len(again), observed[s]), again)
        )
    return pd.DataFrame(rows)


def leave_one_out(log_likelihood: xr.DataArray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well every school is predicted from all others.

    Parameters
    ----------
    log_likelihood : DataArray
        Dims (chain, draw, school): of each school given the others, its effects integrated out.

    Returns
    -------
    schools, summary : DataFrame
        A Pareto k above ArviZ's limit for this number of draws (at most .7) says that a school matters so much that its
        own prediction cannot be told from these draws: fit again without it to score it, and keep it in the study.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), doi:10.1007/s11222-016-9696-4 (PSIS-LOO).
    """
    import arviz_stats

    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(coords={name: log_likelihood[name] for name in ("chain", "draw")}),
            "log_likelihood": xr.Dataset({"outcome": log_likelihood}),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large k are said in the tables, school by school
        found = arviz_stats.loo(tree, var_name="outcome", pointwise=True, reff=1.0)
    k = np.asarray(found.pareto_k).ravel()
    elpd = np.asarray(found.elpd_i).ravel()
    bad = k > float(found.good_k)
    reading = np.where(bad, "too influential to tell", "predicted from the others")
    schools = pd.DataFrame(
        {"school": log_likelihood["school"].to_numpy().astype(str), "elpd": elpd, "pareto_k": k, "reading": reading}
    )
    named = ", ".join(schools.loc[bad, "school"].head(_SHOWN))
    said = "usable" if not bad.any() else f"too influential to be scored so, which is no reason to drop them: {named}"
    summary = {
        "elpd": float(found.elpd),
        "se": float(found.se),
        "p_loo": float(found.p),
        "schools": len(k),
        "unreliable": int(bad.sum()),
        "reading": said,
    }
    return schools, pd.DataFrame([summary])


def prior_sensitivity(posterior: CollapsedPosterior) -> pd.DataFrame:
    """How far the posterior moves when the prior, or the likelihood, is made a little stronger or weaker.

    Returns
    -------
    DataFrame
        parameter, key (of ``[bayes]``), prior, likelihood, reading; most sensitive first. Above .05 a prior matters.
        Where the likelihood matters more, the two may be in conflict: with few groups or authorities, or because the
        scale is wrong; elsewhere the prior outweighs the records.

    References
    ----------
    Kallioinen, Paananen, Burkner & Vehtari (2024), doi:10.1007/s11222-023-10366-5.
    """
    import arviz_stats

    dims = ("chain", "draw")
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior.free_parameters(),
            "log_prior": xr.Dataset({name: (dims, values) for name, values in posterior.log_prior().items()}),
            "log_likelihood": xr.Dataset({"outcome": (dims, posterior.joint_log_likelihood())}),
        }
    )
    said = logging.getLogger("arviz_stats")
    level = said.level
    said.setLevel(logging.ERROR)  # what is found is said in the table, row by row
    table = arviz_stats.psense_summary(tree, threshold=_SENSITIVE, round_to=6)
    said.setLevel(level)
    prior, likelihood = table["prior"].to_numpy(dtype=float), table["likelihood"].to_numpy(dtype=float)
    reading = np.select(
        [(prior > _SENSITIVE) & (likelihood > prior), prior > _SENSITIVE],
        ["possible conflict: prior and records pull apart", "the prior outweighs the records"],
        default="the prior hardly matters",
    )
    keys = [_KEYS.get(str(name).partition("[")[0], "") for name in table.index]
    found = pd.DataFrame(
        {"parameter": table.index, "key": keys, "prior": prior, "likelihood": likelihood, "reading": reading}
    )
    return found.sort_values("prior", ascending=False, kind="stable", ignore_index=True)


def loud_priors(sensitivity: pd.DataFrame) -> list[str]:
    """Notes on priors that move the posterior a great deal, for where a run ends; one a key of the study file."""
    loud = sensitivity[sensitivity["prior"] > _LOUD].drop_duplicates("key")
    return [
        f"{key or parameter}: {reading} (sensitivity {float(prior):.2f} of {parameter}); see diagnostics.md"
        for key, parameter, reading, prior in loud[["key", "parameter", "reading", "prior"]].itertuples(index=False)
    ]
