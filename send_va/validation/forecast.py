"""Forecast bias: whether effects of later cohorts turn out, on average, as those of earlier ones foretold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.value_added.autocovariance import autocovariance, extended, held_share
from send_va.value_added.best_linear import best_linear, plain_average
from send_va.value_added.year_estimates import YearEstimates, academic_year

PLAIN, DRIFT = "plain", "drift"
Using = Literal["earlier", "others"]
SEES = (
    "A coefficient below 1 means predictions too bold (effects that drift while the prediction takes them to last, or "
    "too little shrinkage), above 1 too timid."
)
BLIND = (
    "It cannot see sorting that lasts: where the same schools get needier pupils every year, that is foretold as well "
    "as anything else and the coefficient stays at 1. A coefficient of 1 is no proof that effects are unbiased."
)
FEWEST_SCHOOLS = 10
FEW_SCHOOLS = 50  # below which the interval, though wider by Student's t, rests on few clusters
GROUPS = 60  # schools are left out one by one up to here, then in this many groups


@dataclass(frozen=True)
class ForecastBias:
    """How later cohorts compare with what earlier ones foretold.

    Attributes
    ----------
    table : DataFrame
        One row a prediction: prediction (``plain``: the average of earlier cohorts, shrunken as if effects lasted;
        ``drift``: the best linear predictor, which lets older cohorts count for less), measure, coefficient (1:
        forecast unbiased), se, lower, upper, p_value (of 1), se_given (clustered by school with the predictions taken
        as known), schools, targets (cohorts predicted), rows, coverage, verdict.
    rows : DataFrame
        One row a school and cohort: prediction, measure, school, cohort, predicted, shown (the later, unshrunken
        estimate, less the mean of its cohort), se (of the later estimate), weight. Outcome units.
    notes : tuple of str
    """

    table: pd.DataFrame
    rows: pd.DataFrame
    notes: tuple[str, ...]

    def __str__(self) -> str:
        shown = self.table.drop(columns=["verdict", "coverage"]).to_string(index=False, float_format="{:.3f}".format)
        said = [f"{row.prediction}, {row.measure}: {row.verdict}" for row in self.table.itertuples()]
        return "\n".join(["Forecast bias", shown, *said, SEES, BLIND, *self.notes])

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


@dataclass(frozen=True, eq=False)
class Foretold:
    """Predictions of one cohort: shapes (schools,), missing where there is no earlier estimate."""

    mean: FloatArray
    spread: FloatArray  # variance of the prediction error
    shared: FloatArray  # covariance of the prediction with the error of the estimate predicted


def forecast_bias(
    estimates: YearEstimates,
    *,
    measure: str = "theta",
    coverage: float = 0.95,
    rng: np.random.Generator | None = None,
    groups: int = GROUPS,
    using: Using = "earlier",
) -> ForecastBias:
    """Regress unshrunken estimates of later cohorts on predictions from the cohorts before.

    Every cohort with two or more before it is predicted (with two cohorts in all: the second, by the plain prediction
    only). What is known of drift comes from the earlier cohorts alone. Errors of the later estimate are noise in the
    outcome and do no harm; what errors of two cohorts share is taken out. Rows are weighted by their precision.

    The interval comes from the whole calculation with schools left out, one by one or in 60 groups: it contains the
    uncertainty of the shrinkage, and a school that appears in several cohorts counts once. Student's t, with one degree
    less than schools or groups.

    Parameters
    ----------
    estimates : YearEstimates
    measure : str
    coverage : float
    rng : numpy.random.Generator, optional
        Puts schools into groups, where there are more schools than groups; without, every 60th makes a group.
    groups : int
    using : str
        ``earlier``: cohorts before the one predicted. ``others``: all other cohorts, as Chetty, Friedman & Rockoff do;
        more cohorts are predicted, but none of it was known beforehand.

    Returns
    -------
    ForecastBias
        An interval that leaves out 1 says that predictions are off, in the direction of its verdict.

    Raises
    ------
    InputError
        One cohort; fewer than ten schools to predict; a measure that is not there.

    References
    ----------
    Chetty, Friedman & Rockoff (2014), doi:10.1257/aer.104.9.2593 (forecast bias, drift).
    Kane & Staiger (2008), doi:10.3386/w14607 (the coefficient on shrunken predictions).
    MacKinnon, Nielsen & Webb (2023), doi:10.1016/j.jeconom.2022.04.001 (leaving clusters out, few clusters).

    Examples
    --------
    >>> from send_va.validation.falsification_worlds import FalsificationWorld
    >>> world = FalsificationWorld(schools=200, cohorts=4, violation="drift", amount=0.4)
    >>> years = world.draw(np.random.default_rng(1)).year_estimates()
    >>> found = forecast_bias(years, rng=np.random.default_rng(1))
    >>> found.table[["prediction", "verdict"]].to_numpy().tolist()
    [['plain', 'too bold'], ['drift', 'nothing found']]
    """
    _require(estimates, measure, coverage)
    value, error, years = estimates.estimate[measure], estimates.error[measure], estimates.years
    kinds = (PLAIN, DRIFT) if len(years) > 2 else (PLAIN,)
    windows = _windows(len(years), using)
    group = _grouped(len(value), groups, rng)
    tables, frames = [], []
    for kind in kinds:
        rows = _rows(value, error, years, windows, kind)
        _require_schools(rows)
        kept = [group != g for g in np.unique(group)]
        without = [_slope(_rows(value[use], error[use], years, windows, kind)) for use in kept]
        tables.append({"prediction": kind, "measure": measure} | _summary(rows, np.array(without), coverage))
        frames.append(_frame(estimates, rows).assign(prediction=kind, measure=measure))
    return ForecastBias(pd.DataFrame(tables), pd.concat(frames, ignore_index=True), _notes(tables, len(years)))


def leave_year_out(estimates: YearEstimates, measure: str = "theta") -> FloatArray:
    """Best linear prediction of every cohort from all other ones, shape (schools, years); missing without any.

    With fewer than three cohorts there is no drift to estimate from the others, and the other cohort is shrunken as if
    effects lasted. For :func:`send_va.validation.falsification.falsify`.

    Raises
    ------
    InputError
        One cohort, or a measure that is not there.
    """
    _require(estimates, measure, 0.95)
    value, error, years = estimates.estimate[measure], estimates.error[measure], estimates.years
    kind = DRIFT if len(years) > 2 else PLAIN
    every = np.arange(len(years))
    return np.stack([_foretold(value, error, years, t, every != t, kind).mean for t in range(len(years))], axis=1)


def _windows(cohorts: int, using: Using) -> dict[int, NDArray[np.bool_]]:
    """Cohorts that are predicted, and those each is predicted from."""
    every = np.arange(cohorts)
    if using == "others":
        return {t: every != t for t in range(cohorts)}
    if using != "earlier":
        raise InputError(f"using cannot be {using!r}", "Choose from earlier, others.")
    return {t: every < t for t in range(min(2, cohorts - 1), cohorts)}


def _foretold(
    value: FloatArray,
    error: FloatArray,
    years: NDArray[np.int64],
    target: int,
    use: NDArray[np.bool_],
    kind: str,
) -> Foretold:
    """Predict one cohort from those in `use`."""
    before, noise, at = value[:, use], error[:, use][:, :, use], years[use]
    means, between, to_target, variance = (_lasting if kind == PLAIN else _drifting)(before, noise, at, years[target])
    centred = before - means

    def predicted(from_values: FloatArray) -> tuple[FloatArray, FloatArray]:
        found = best_linear(from_values, noise, between, to_target, variance)
        return found.mean, found.sd**2

    mean, spread = predicted(centred)
    shared, _ = predicted(np.where(np.isfinite(before), error[:, use, target], np.nan))  # the predictor is linear
    known = np.isfinite(before).any(axis=1)
    return Foretold(*(np.where(known, part, np.nan) for part in (mean, spread, shared)))


def _lasting(
    before: FloatArray, noise: FloatArray, years: NDArray[np.int64], target: int
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Effects that are the same in every cohort: the variance between schools is that of their averages."""
    variance = np.diagonal(noise, axis1=1, axis2=2)
    weights = np.where(np.isfinite(before), 1.0 / np.maximum(variance, np.finfo(np.float64).tiny), 0.0)
    means = np.nansum(weights * np.nan_to_num(before), axis=0) / weights.sum(axis=0)
    average, se, _ = plain_average(before - means, noise)
    known = np.isfinite(average)
    between = max(_between(average[known], se[known] ** 2), 0.0)
    n = len(years)
    return means, np.full((n, n), between), np.full(n, between), between


def _between(value: FloatArray, noise: FloatArray) -> float:
    """Variance beyond error, around the mean; weights settle in a few passes (Paule & Mandel's equation)."""
    left = float(value.var(ddof=1) - noise.mean())
    for _ in range(20):
        weights = 1.0 / (max(left, 0.0) + noise)
        mean = float(weights @ value / weights.sum())
        surplus = float(weights @ (value - mean) ** 2) - (len(value) - 1.0)
        left += surplus / float((weights**2 * (value - mean) ** 2).sum())
    return left


def _drifting(
    before: FloatArray, noise: FloatArray, years: NDArray[np.int64], target: int
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Autocovariances of the cohorts before; the one lag beyond them lies between staying and falling on."""
    found = autocovariance(before, noise, years)
    ahead = np.abs(target - years)
    farthest = max(int(ahead.max()), len(found.fitted) - 1)
    sigma = extended(found.fitted, found.last_lag, farthest, held_share("between"))
    gaps = np.abs(np.subtract.outer(years, years))
    return found.means, sigma[gaps], sigma[ahead], float(sigma[0])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Schools and cohorts that can be compared, arrays (rows,): later estimates against predictions."""

    school: NDArray[np.intp]
    target: NDArray[np.intp]
    predicted: FloatArray  # less the weighted mean of its cohort
    shown: FloatArray  # likewise
    weight: FloatArray
    error: FloatArray  # variance of the later estimate
    shared: FloatArray


def _rows(
    value: FloatArray, error: FloatArray, years: NDArray[np.int64], windows: Mapping[int, NDArray[np.bool_]], kind: str
) -> _Rows:
    parts: list[tuple[NDArray[Any], ...]] = []
    for t, window in windows.items():
        ahead = _foretold(value, error, years, t, window, kind)
        use = np.flatnonzero(np.isfinite(value[:, t]) & np.isfinite(ahead.mean))
        noise = error[use, t, t]
        weight = 1.0 / np.maximum(noise + ahead.spread[use], np.finfo(np.float64).tiny)
        x, y = (column - np.average(column, weights=weight) for column in (ahead.mean[use], value[use, t]))
        parts.append((use, np.full(len(use), t), x, y, weight, noise, ahead.shared[use]))
    return _Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _slope(rows: _Rows) -> float:
    """Weighted slope, with the covariance of the errors of both sides taken out."""
    spread = float(rows.weight @ rows.predicted**2)
    if not spread > 0.0:
        return float("nan")
    return float(rows.weight @ (rows.predicted * rows.shown - rows.shared)) / spread


def _summary(rows: _Rows, without: FloatArray, coverage: float) -> dict[str, Any]:
    slope = _slope(rows)
    if not (np.isfinite(slope) and np.isfinite(without).all()):
        raise InputError(
            "no variance between schools is left in earlier cohorts, so nothing is foretold that could be wrong",
            "There is no forecast to check: say so in place of a coefficient.",
        )
    groups = len(without)
    se = float(np.sqrt((groups - 1.0) / groups * ((without - slope) ** 2).sum()))
    reach = float(student.isf((1.0 - coverage) / 2.0, groups - 1)) * se
    p_value = float(2.0 * student.sf(abs(slope - 1.0) / se, groups - 1))
    off = "too bold" if slope < 1.0 else "too timid"
    return {
        "coefficient": slope,
        "se": se,
        "lower": slope - reach,
        "upper": slope + reach,
        "p_value": p_value,
        "se_given": _se_given(rows, slope),
        "schools": len(np.unique(rows.school)),
        "targets": len(np.unique(rows.target)),
        "rows": len(rows.school),
        "coverage": coverage,
        "verdict": off if p_value < 1.0 - coverage else "nothing found",
    }


def _se_given(rows: _Rows, slope: float) -> float:
    """Standard error clustered by school, predictions taken as known."""
    left = rows.predicted * (rows.shown - slope * rows.predicted) - rows.shared
    by_school = np.bincount(rows.school, weights=rows.weight * left)
    schools = len(np.unique(rows.school))
    spread = float(rows.weight @ rows.predicted**2)
    return float(np.sqrt((by_school**2).sum() * schools / (schools - 1.0))) / spread


def _frame(estimates: YearEstimates, rows: _Rows) -> pd.DataFrame:
    cohorts = [academic_year(int(year)) for year in estimates.years]
    return pd.DataFrame(
        {
            "school": [estimates.schools[at] for at in rows.school],
            "cohort": [cohorts[at] for at in rows.target],
            "predicted": rows.predicted,
            "shown": rows.shown,
            "se": np.sqrt(rows.error),
            "weight": rows.weight,
        }
    )


def _grouped(schools: int, groups: int, rng: np.random.Generator | None) -> NDArray[np.int64]:
    """Groups of schools that are left out together: each alone where there are few."""
    every = np.arange(schools, dtype=np.int64)
    if schools <= groups:
        return every
    return (every if rng is None else rng.permutation(every)) % groups


def _notes(tables: Sequence[Mapping[str, Any]], cohorts: int) -> tuple[str, ...]:
    notes = []
    if cohorts == 2:
        notes.append("two cohorts: drift cannot be estimated before the one predicted, so there is the plain one only")
    fewest = min(int(row["schools"]) for row in tables)
    if fewest < FEW_SCHOOLS:
        notes.append(f"{fewest} schools only: few clusters, which the interval allows for by its width alone")
    return tuple(notes)


def _require(estimates: YearEstimates, measure: str, coverage: float) -> None:
    if len(estimates.years) < 2:
        raise InputError(
            "one cohort foretells nothing: forecast bias needs two or more (three to allow for drift)",
            "Give the records of several cohorts in one file, and the role cohort.",
        )
    if measure not in estimates.estimate:
        raise InputError(f"no measure {measure!r}", f"These estimates hold {', '.join(estimates.estimate)}.")
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")


def _require_schools(rows: _Rows) -> None:
    schools = len(np.unique(rows.school))
    if schools < FEWEST_SCHOOLS:
        raise InputError(
            f"{schools} schools have an estimate in a later cohort and one before; forecast bias needs "
            f"{FEWEST_SCHOOLS} or more",
            "Check that a school has the same identifier in every cohort.",
        )
