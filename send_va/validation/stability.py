"""Stability between years: how much of what schools change from one cohort to the next is chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.ranking.table_places import FIFTHS, fifths
from send_va.value_added.autocovariance import FEWEST_SCHOOLS, Autocovariance, autocovariance
from send_va.value_added.year_estimates import YearEstimates

_DRAWS = 500  # of schools that do not change; the share in the same quintile is known to a fraction of a point


@dataclass(frozen=True)
class Stability:
    """How results of schools in two cohorts go together.

    Attributes
    ----------
    correlations : DataFrame
        One row an estimator and lag: estimator, measure, lag (years), schools (with estimates in two such cohorts),
        raw (correlation of unshrunken estimates, over all pairs of cohorts so far apart), reliability (share of the
        variance of estimates that is not error), corrected (correlation of true effects), lower, upper (its interval).
    quintiles : DataFrame
        One row an estimator, for cohorts one step apart: estimator, measure, pairs, same (share of schools in the same
        quintile), extremes (share of those in the top or bottom quintile who are in the opposite one), same_chance,
        same_lower, same_upper, extremes_chance (what there would be if no school changed and estimates had their
        errors: mean and 95 % range), verdict.
    transitions : DataFrame
        estimator, measure, before, after (quintile, 1 highest), share (of schools in `before` that go to `after`),
        chance (the same if no school changed), random (if results meant nothing).
    notes : tuple of str
    """

    correlations: pd.DataFrame
    quintiles: pd.DataFrame
    transitions: pd.DataFrame
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [
            "Stability between years",
            self.correlations.to_string(index=False, float_format="{:.3f}".format),
            self.quintiles.to_string(index=False, float_format="{:.3f}".format),
        ]
        return "\n".join([*parts, *self.notes])

    def _repr_html_(self) -> str:
        return str(self.correlations.to_html(index=False)) + str(self.quintiles.to_html(index=False))


def stability(
    by_estimator: Mapping[str, YearEstimates],
    *,
    rng: np.random.Generator,
    measure: str = "theta",
    coverage: float = 0.95,
) -> Stability:
    """Compare schools between cohorts, by estimator.

    Correlations of estimates fall short of those of true effects by their reliability; autocovariances with the error
    taken out give the latter. Quintiles change by chance alone even where no school does: how often is found by drawing
    schools with one effect each, of the estimated variance, and estimates with their errors.

    Parameters
    ----------
    by_estimator : mapping of estimator to YearEstimates
    rng : numpy.random.Generator
    measure : str
    coverage : float
        Of the intervals of corrected correlations.

    Returns
    -------
    Stability
        ``same`` inside the range of chance: quintiles of two cohorts differ no more than they would if schools did not
        change. Below it: schools do change, or the errors are understated.

    Raises
    ------
    InputError
        No estimator; one cohort; fewer than ten schools in two cohorts; a measure that is not there.

    References
    ----------
    Leckie & Goldstein (2009), doi:10.1111/j.1467-985X.2009.00597.x (what instability means for a choice of school).
    Chetty, Friedman & Rockoff (2014), doi:10.1257/aer.104.9.2593 (autocovariances).

    Examples
    --------
    >>> from send_va.validation.falsification_worlds import FalsificationWorld
    >>> years = FalsificationWorld(schools=200, cohorts=3, pupils=90).draw(np.random.default_rng(1)).year_estimates()
    >>> found = stability({"entry": years}, rng=np.random.default_rng(1))
    >>> found.correlations[["lag", "raw", "corrected"]].round(1).to_numpy().tolist()
    [[1.0, 0.9, 1.0], [2.0, 0.9, 1.0]]
    >>> found.quintiles["verdict"].item()
    'as chance alone would have it'
    """
    if not by_estimator:
        raise InputError("there is no estimator to compare between years", "Give one or more.")
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")
    correlations, quintiles, transitions, notes = [], [], [], []
    for (name, estimates), child in zip(by_estimator.items(), rng.spawn(len(by_estimator)), strict=True):
        _require(estimates, measure)
        value, error = estimates.estimate[measure], estimates.error[measure]
        found = autocovariance(value, error, estimates.years)
        named = {"estimator": name, "measure": measure}
        correlations.append(_correlations(found, value, error, estimates.years, coverage).assign(**named))
        row, moved = _quintiles(found, value, error, child)
        quintiles.append(named | row)
        transitions.append(moved.assign(**named))
        if found.moments[0] <= 0.0:
            notes.append(f"{name}: no variance between schools is left beyond error, so nothing can be stable")
    first = ["estimator", "measure"]
    return Stability(
        _in_front(pd.concat(correlations, ignore_index=True), first),
        pd.DataFrame(quintiles),
        _in_front(pd.concat(transitions, ignore_index=True), first),
        tuple(notes),
    )


def _require(estimates: YearEstimates, measure: str) -> None:
    if len(estimates.years) < 2:
        raise InputError(
            "one cohort says nothing of stability between years",
            "Give the records of two cohorts or more in one file, and the role cohort.",
        )
    if measure not in estimates.estimate:
        raise InputError(f"no measure {measure!r}", f"These estimates hold {', '.join(estimates.estimate)}.")


def _correlations(
    found: Autocovariance, value: FloatArray, error: FloatArray, years: NDArray[np.int64], coverage: float
) -> pd.DataFrame:
    """By lag: the correlation of estimates, over pairs of cohorts, and that of true effects with its interval."""
    centred = value - found.means
    noise = np.diagonal(error, axis1=1, axis2=2)[np.isfinite(value)].mean()
    spread = float((centred[np.isfinite(value)] ** 2).mean())
    wide = float(norm.isf((1.0 - coverage) / 2.0))
    gap = np.abs(np.subtract.outer(years, years))
    rows = []
    for lag in range(1, len(found.moments)):
        first, second = np.nonzero(np.triu(gap == lag))
        x, y = centred[:, first], centred[:, second]
        both = np.isfinite(x * y)
        if both.any(axis=1).sum() < FEWEST_SCHOOLS:
            continue
        corrected, se = float(found.correlation[lag]), float(found.correlation_se[lag])
        rows.append(
            {
                "lag": lag,
                "schools": int(both.any(axis=1).sum()),
                "raw": float((x[both] * y[both]).sum() / np.sqrt((x[both] ** 2).sum() * (y[both] ** 2).sum())),
                "reliability": 1.0 - noise / spread,
                "corrected": corrected,
                "lower": corrected - wide * se,
                "upper": corrected + wide * se,
            }
        )
    return pd.DataFrame(rows)


def _quintiles(
    found: Autocovariance, value: FloatArray, error: FloatArray, rng: np.random.Generator
) -> tuple[dict[str, object], pd.DataFrame]:
    """Quintiles of cohorts one step apart, beside those of schools that do not change."""
    centred = value - found.means
    seen = _moves(centred)
    variance = max(float(found.fitted[0]), 0.0)
    chance = np.stack([_moves(_unchanging(centred, error, variance, rng)) for _ in range(_DRAWS)])
    same, extremes = _same(seen), _extremes(seen)
    drawn = np.array([_same(moves) for moves in chance])
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    row: dict[str, object] = {
        "pairs": int(seen.sum()),
        "same": same,
        "extremes": extremes,
        "same_chance": float(drawn.mean()),
        "same_lower": float(lower),
        "same_upper": float(upper),
        "extremes_chance": float(np.mean([_extremes(moves) for moves in chance])),
        "verdict": _verdict(same, float(lower), float(upper)),
    }
    before, after = np.indices((FIFTHS, FIFTHS)) + 1
    mean = chance.mean(axis=0)
    table = pd.DataFrame(
        {
            "before": before.ravel(),
            "after": after.ravel(),
            "share": (seen / np.maximum(seen.sum(axis=1, keepdims=True), 1.0)).ravel(),
            "chance": (mean / np.maximum(mean.sum(axis=1, keepdims=True), 1.0)).ravel(),
            "random": 1.0 / FIFTHS,
        }
    )
    return row, table


def _unchanging(centred: FloatArray, error: FloatArray, variance: float, rng: np.random.Generator) -> FloatArray:
    """Estimates of schools with one effect each, in the cohorts in which they have an estimate."""
    schools, years = centred.shape
    known = np.isfinite(centred)
    both = known[:, :, None] & known[:, None, :]
    values, vectors = np.linalg.eigh(np.where(both, error, 0.0))
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    noise = np.einsum("jts,js->jt", root, rng.standard_normal((schools, years)))
    return np.where(known, np.sqrt(variance) * rng.standard_normal((schools, 1)) + noise, np.nan)


def _moves(centred: FloatArray) -> FloatArray:
    """Counts of schools by quintile in one cohort and in the next, among those with estimates in both."""
    counts = np.zeros((FIFTHS, FIFTHS))
    for t in range(centred.shape[1] - 1):
        both = np.isfinite(centred[:, t] * centred[:, t + 1])
        first, second = (_quintile(centred[both, at]) for at in (t, t + 1))
        np.add.at(counts, (first, second), 1.0)
    return counts


def _quintile(values: FloatArray) -> NDArray[np.intp]:
    """0 highest to 4, of equal size."""
    return fifths(values).astype(np.intp) - 1


def _same(moves: FloatArray) -> float:
    return float(np.trace(moves) / max(moves.sum(), 1.0))


def _extremes(moves: FloatArray) -> float:
    """Share of schools in the top or bottom quintile who are in the opposite one next."""
    return float((moves[0, -1] + moves[-1, 0]) / max(moves[0].sum() + moves[-1].sum(), 1.0))


def _verdict(same: float, lower: float, upper: float) -> str:
    if same < lower:
        return "less stable than chance alone would have it"
    return "more stable than chance alone would have it" if same > upper else "as chance alone would have it"


def _in_front(table: pd.DataFrame, first: list[str]) -> pd.DataFrame:
    return table[first + [name for name in table.columns if name not in first]]
