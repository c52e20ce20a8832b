"""From fits to the effects of every specification, and how far these are from those of the reference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from send_va.errors import BoundaryWarning, InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.ranking.shrinkage import Prior, shrink
from send_va.ranking.table_places import FIFTHS
from send_va.sensitivity.base_fits import BaseFit, BaseKey
from send_va.sensitivity.choice_variance import choice_variance
from send_va.sensitivity.school_places import SHARES, places, quintiles
from send_va.sensitivity.specifications import MODEL, UNSHRUNKEN

MOSTLY, NEARLY_ALWAYS = 0.8, 0.95  # shares of specifications in one fifth
FEWEST_SCHOOLS = FIFTHS  # one a fifth
TOO_FEW = f"fewer than {FEWEST_SCHOOLS} schools have enough pupils with need to be in the table"


def effects_under(
    table: pd.DataFrame, fits: Mapping[BaseKey, BaseFit], schools: NDArray[np.str_]
) -> tuple[FloatArray, list[str]]:
    """Effects of every specification.

    Shrinkage priors are estimated from all schools with an estimate, whatever the minimum cohort.

    Parameters
    ----------
    table : DataFrame
        Specifications, as of :meth:`send_va.sensitivity.specifications.Choices.table`.
    fits : mapping of key to BaseFit
    schools : string array
        All schools of all fits.

    Returns
    -------
    theta : array, shape (specifications, schools)
        Pupil SDs; missing where a school is not in the table.
    reasons : list of str
        Why a specification failed; empty where it did not.
    """
    theta = np.full((len(table), len(schools)), np.nan)
    place = {name: k for k, name in enumerate(schools.tolist())}
    at = {key: np.array([place[name] for name in fit.schools.tolist()], dtype=np.intp) for key, fit in fits.items()}
    known: dict[tuple[BaseKey, str], FloatArray | str] = {}
    least = table["minimum_cohort"].to_numpy(dtype=np.int64)
    reasons = []
    for number, row in enumerate(table.itertuples()):
        key, prior = BaseKey.of(row), str(row.prior)
        fit = fits[key]
        if (key, prior) not in known:
            known[key, prior] = fit.reason or shrunken(fit, prior)
        found = known[key, prior]
        if isinstance(found, str):
            reasons.append(found)
            continue
        inside = (fit.n_need >= least[number]) & np.isfinite(found)
        reasons.append("" if inside.sum() >= FEWEST_SCHOOLS else TOO_FEW)
        if inside.sum() >= FEWEST_SCHOOLS:
            theta[number, at[key][inside]] = found[inside]
    return theta, reasons


def shrunken(fit: BaseFit, prior: str) -> FloatArray | str:
    """Effects of one fit under one prior, (schools,), missing where there is no estimate; or why there are none."""
    if prior == MODEL:
        return fit.theta
    if prior == UNSHRUNKEN:
        return fit.estimate
    there = np.isfinite(fit.estimate) & np.isfinite(fit.se)
    out = np.full(len(there), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)  # all means equal: seen in the SD of effects
        try:
            found = shrink(fit.estimate[there], fit.se[there], next(name for name in get_args(Prior) if name == prior))
        except InputError as error:
            return str(error)
    if not found.converged:
        return f"the prior {prior} did not converge"
    out[there] = found.table["mean"].to_numpy()
    return out


def compared_with(theta: FloatArray, reference: int) -> dict[str, FloatArray]:
    """Size and spread of every table, and its likeness to the reference.

    Returns
    -------
    dict of str to array, shape (specifications,)
        n_schools, sd, rank_correlation, same_quintile.
    """
    fifth, there = quintiles(theta), np.isfinite(theta)
    both = there & there[reference]
    same = ((fifth == fifth[reference]) & both).sum(axis=1) / np.where(both.any(axis=1), both.sum(axis=1), np.nan)
    correlation = [
        _rank_correlation(own[common], theta[reference, common]) for own, common in zip(theta, both, strict=True)
    ]
    return {
        "n_schools": there.sum(axis=1).astype(np.float64),
        "sd": np.nanstd(theta, axis=1, ddof=1),
        "rank_correlation": np.array(correlation),
        "same_quintile": same,
    }


def _rank_correlation(first: FloatArray, second: FloatArray) -> float:
    if len(first) < 2 or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return np.nan
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def headline_of(schools: pd.DataFrame, compared: Mapping[str, FloatArray]) -> dict[str, float]:
    """Numbers over the schools of the reference table, as :class:`send_va.sensitivity.multiverse.Multiverse` says."""
    own = schools[schools["reference_quintile"].notna()]
    shares = own[list(SHARES)].to_numpy()
    most = shares.max(axis=1)
    others = {name: compared[name][1:] for name in ("same_quintile", "rank_correlation")}
    return {
        "n_schools": float(len(own)),
        "n_specifications": float(len(compared["n_schools"])),
        "share_depends": float(own["depends"].mean()),
        "share_top_and_bottom": float(((shares[:, 0] > 0) & (shares[:, -1] > 0)).mean()),
        "share_nearly_always": float((most >= NEARLY_ALWAYS).mean()),
        "share_mostly": float((most >= MOSTLY).mean()),
        "median_place_range": float(own["place_range"].median()),
        "median_same_quintile": _middle(others["same_quintile"]),
        "lowest_same_quintile": float(np.nanmin(compared["same_quintile"])),
        "median_rank_correlation": _middle(others["rank_correlation"]),
    }


def _middle(values: FloatArray) -> float:
    """Median over specifications other than the reference; 1 where there is no other."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 1.0


def variances_of(table: pd.DataFrame, theta: FloatArray) -> pd.DataFrame:
    """Variance over specifications by choice, for effects and for places."""
    parts = []
    for result, values in (("effect", theta), ("place", places(theta))):
        found = choice_variance(table, values)
        parts.append(
            found.table.assign(
                result=result,
                method=found.method,
                variance=found.variance,
                n_specifications=found.n_specifications,
                n_schools=found.n_schools,
                n_exact=found.n_exact,
            )
        )
    whole = pd.concat(parts, ignore_index=True)
    return whole[["result", *(name for name in whole.columns if name != "result")]]
