"""School effects that drift over cohorts: averages of several years, and the cohort a parent would choose for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.value_added.autocovariance import Autocovariance, autocovariance, extended, held_share
from send_va.value_added.best_linear import Prediction, best_linear, plain_average
from send_va.value_added.year_estimates import YearEstimates, academic_year

HORIZON = 6
AVERAGE = 3
ONE_COHORT = "estimate in one cohort only"
NO_COHORT = "no estimate in any cohort"
_COVARIANCE_DRAWS = 100
_ASSUMED = {
    "hold": "schools are assumed to drift no further",
    "decay": "they are assumed to fall on by the factor of the last year",
    "between": "anything from no further drift to a fall by the last year's factor every year is allowed for",
}


@dataclass(frozen=True)
class Drift:
    """How school effects drift, averages of the last cohorts, and a forecast.

    Attributes
    ----------
    autocovariance : DataFrame
        estimator, context, measure, lag (years), covariance (squared outcome units), correlation, se (of the
        correlation), covariance_se, fitted (the sequence forecasts use, as a correlation), pairs of estimates. A
        correlation of .6 at lag 3: true effects of three years before foretell 36 % of what schools differ by in a
        cohort. Lags without pairs are assumed (``beyond``); their estimates are missing.
    averages : DataFrame
        school, estimator, context, measure, cohorts (first to last), n_cohorts (with an estimate); estimate, se: the
        precision-weighted average of these and its sampling error, missing where there is none; mean, sd, lower,
        upper, reliability: the best linear predictor of the average true effect over all of the cohorts.
    forecast : DataFrame
        school, estimator, context, measure, cohort, horizon (years after the last), mean, sd, lower, upper,
        reliability (expected R squared; 0 where nothing is known), n_cohorts, last_cohort (the latest with an
        estimate), beyond (what was assumed of lags beyond the records; empty where none is needed), flag.
    effects : SchoolEffects
        Draws of the forecast, for :func:`send_va.rank`. Measures are forecast one by one, so that in a draw theta is
        not the sum of u and gap. There are no unshrunken estimates of a cohort to come.
    notes : tuple of str
    """

    autocovariance: pd.DataFrame
    averages: pd.DataFrame
    forecast: pd.DataFrame
    effects: SchoolEffects
    notes: tuple[str, ...]

    def __str__(self) -> str:
        about = self.effects.attrs
        lags = self.autocovariance
        theta = lags[(lags["measure"] == self.effects.measures[0]) & (lags["pairs"] > 0)]
        theta = theta[["lag", "correlation", "se", "fitted", "pairs"]]
        return "\n".join(
            [
                f"Drift of school effects ({about['estimator']}, {about['context']}), cohorts {about['cohorts']}; "
                f"forecast for {about['cohort']}",
                theta.to_string(index=False, float_format=lambda value: f"{value:.3f}"),
                *self.notes,
            ]
        )

    def _repr_html_(self) -> str:
        return str(self.autocovariance.to_html(index=False))


def estimate_drift(
    estimates: YearEstimates,
    *,
    rng: np.random.Generator,
    horizon: int = HORIZON,
    average: int = AVERAGE,
    beyond: str = "between",
    draws: int = 1000,
    coverage: float = 0.95,
) -> Drift:
    """Estimate autocovariances of school effects over cohorts, and predict.

    The effect of a school in a cohort ``horizon`` years after the last is predicted from the estimates of all its
    cohorts, weighted by their precision and by how far autocovariances say that they still count. Draws carry the
    uncertainty of the autocovariances.

    Parameters
    ----------
    estimates : YearEstimates
    rng : numpy.random.Generator
    horizon : int
        Years from the last cohort to the one predicted. 6 by default: who takes the results of summer t to choose a
        school in the autumn, for entry in September t + 1, has a child in Year 11 in summer t + 6. (Final tables come
        out after the choice: who has only those of the year before is 7 years away, Leckie & Goldstein 2009.)
    average : int
        Calendar years, the last ones, that averages are taken over.
    beyond : str
        What is assumed of autocovariances at lags longer than the records, which cannot tell. ``hold``: no further
        drift (Chetty, Friedman & Rockoff, whose records reach seven years); too sure of itself where drift goes on.
        ``decay``: they fall on by the factor of the last year; too cautious where part of an effect lasts.
        ``between``: halfway, and draws take anything between the two. Marked in the forecast.
    draws : int
    coverage : float

    Returns
    -------
    Drift

    Raises
    ------
    InputError
        One cohort, fewer than ten schools in two cohorts, or an option out of range.

    References
    ----------
    Chetty, Friedman & Rockoff (2014), doi:10.1257/aer.104.9.2593.
    Leckie & Goldstein (2009), doi:10.1111/j.1467-985X.2009.00597.x.

    Examples
    --------
    >>> from send_va.value_added.year_estimates import diagonal
    >>> world = np.random.default_rng(1)
    >>> true = world.standard_normal((300, 1)) + 0.5 * world.standard_normal((300, 3))
    >>> seen = {"theta": true + 0.5 * world.standard_normal((300, 3))}
    >>> counts = np.full((300, 3), 20)
    >>> three = YearEstimates(tuple(map(str, range(300))), np.array([2022, 2023, 2024]), seen,
    ...     {"theta": diagonal(np.full((300, 3), 0.25))}, counts, counts, np.zeros(300, dtype=bool),
    ...     {"estimator": "entry", "context": "cva"})
    >>> drift = estimate_drift(three, rng=np.random.default_rng(1), horizon=1)
    >>> print(drift.autocovariance[["lag", "correlation", "fitted", "pairs"]].round(1).to_string(index=False))
     lag  correlation  fitted  pairs
       0          1.0     1.0    900
       1          0.8     0.8    600
       2          0.8     0.8    300
       3          NaN     0.7      0
    >>> print(drift.forecast[["school", "cohort", "n_cohorts"]].head(1).to_string(index=False))
    school  cohort  n_cohorts
         0 2024/25          3
    """
    held = held_share(beyond)
    _check_options(horizon, average, draws, coverage)
    found = {
        name: autocovariance(estimates.estimate[name], estimates.error[name], estimates.years)
        for name in estimates.estimate
    }
    children = rng.spawn(len(found))
    predicted = {
        name: _predicted(estimates, name, found[name], horizon, beyond, draws, child)
        for name, child in zip(found, children, strict=True)
    }
    attrs = _attributes(estimates, found, horizon, beyond, draws)
    effects = _effects(estimates, predicted, attrs)
    return Drift(
        autocovariance=_autocovariance_table(found, horizon, held, attrs),
        averages=_averages_table(estimates, found, average, held, coverage, attrs),
        forecast=_forecast_table(estimates, effects, found, horizon, beyond, coverage),
        effects=effects,
        notes=_notes(estimates, found, horizon, beyond, effects),
    )


def _check_options(horizon: int, average: int, draws: int, coverage: float) -> None:
    for name, value, least in (("horizon", horizon, 1), ("average", average, 1), ("draws", draws, 2)):
        if value < least:
            raise InputError(f"{name} must be {least} or more, not {value}")
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")


@dataclass(frozen=True, eq=False)
class _Predicted:
    draws: FloatArray  # (draws, schools)
    mean: FloatArray
    reliability: FloatArray


def _predicted(
    estimates: YearEstimates,
    measure: str,
    found: Autocovariance,
    horizon: int,
    beyond: str,
    draws: int,
    rng: np.random.Generator,
) -> _Predicted:
    """Predict at the estimated autocovariances; draws go through sequences drawn from their sampling distribution."""
    centred, error = estimates.estimate[measure] - found.means, estimates.error[measure]
    years = estimates.years
    gaps, ahead = np.abs(np.subtract.outer(years, years)), years[-1] + horizon - years

    def at(sequence: FloatArray, held: float) -> Prediction:
        sigma = extended(sequence, found.last_lag, int(ahead.max()), held)
        return best_linear(centred, error, sigma[gaps], sigma[ahead], float(sigma[0]))

    point = at(found.fitted, held_share(beyond))
    runs = min(draws, _COVARIANCE_DRAWS)
    evenly = rng.permutation(runs) + 0.5
    shares = evenly / runs if beyond == "between" else np.full(runs, held_share(beyond))
    parts = []
    for run, sequence in enumerate(found.drawn(runs, rng)):
        size = draws // runs + (run < draws % runs)
        drawn = at(sequence, float(shares[run]))
        parts.append(drawn.mean + drawn.sd * rng.standard_normal((size, len(drawn.mean))))
    return _Predicted(np.concatenate(parts), point.mean, point.reliability)


def _attributes(
    estimates: YearEstimates, found: dict[str, Autocovariance], horizon: int, beyond: str, draws: int
) -> dict[str, Any]:
    years = estimates.years
    return estimates.attrs | {
        "draws": draws,
        "cohorts": f"{academic_year(int(years[0]))} to {academic_year(int(years[-1]))}",
        "cohort": academic_year(int(years[-1]) + horizon),
        "horizon": horizon,
        "beyond": beyond if _is_beyond(found, horizon) else "",
    }


def _is_beyond(found: dict[str, Autocovariance], horizon: int) -> bool:
    return any(len(of.fitted) - 1 + horizon > of.last_lag for of in found.values())


def _effects(estimates: YearEstimates, predicted: dict[str, _Predicted], attrs: dict[str, Any]) -> SchoolEffects:
    known = {name: {"mean": of.mean, "reliability": of.reliability} for name, of in predicted.items()}
    main = next(iter(estimates.estimate))
    assumed = str(attrs.get("assumes") or "")
    flags = ["; ".join(filter(None, [flag, assumed])) for flag in _flags(estimates, main)]
    return school_effects(
        estimates.schools,
        {name: of.draws for name, of in predicted.items()},
        known,
        n_pupils=estimates.n_pupils.sum(axis=1),
        n_need=estimates.n_need.sum(axis=1),
        flag=flags,
        attrs=attrs,
        not_compared=estimates.not_compared,
    )


def _flags(estimates: YearEstimates, measure: str) -> list[str]:
    n = np.isfinite(estimates.estimate[measure]).sum(axis=1)
    words = np.select([estimates.not_compared, n == 0, n == 1], ["not compared", NO_COHORT, ONE_COHORT], default="")
    return [str(word) for word in words]


def _autocovariance_table(
    found: dict[str, Autocovariance], horizon: int, held: float, attrs: dict[str, Any]
) -> pd.DataFrame:
    """Lags of the records, then those that forecasts need beyond them, which have no pairs."""
    parts = []
    for measure, of in found.items():
        first, n = of.fitted[0], len(of.moments)
        sequence = extended(of.fitted, of.last_lag, n - 1 + horizon, held)
        known = {
            "covariance": of.moments,
            "correlation": of.correlation,
            "se": of.correlation_se,
            "covariance_se": np.sqrt(np.diag(of.covariance)),
        }
        padded = {name: np.pad(values, (0, horizon), constant_values=np.nan) for name, values in known.items()}
        parts.append(
            pd.DataFrame(
                {
                    "estimator": attrs["estimator"],
                    "context": attrs["context"],
                    "measure": measure,
                    "lag": np.arange(n + horizon),
                }
                | padded
                | {
                    "fitted": sequence / first if first > 0 else np.nan,
                    "pairs": np.pad(of.pairs, (0, horizon)),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _named(estimates: YearEstimates, measure: str, attrs: dict[str, Any]) -> dict[str, Any]:
    return {
        "school": estimates.schools,
        "estimator": attrs["estimator"],
        "context": attrs["context"],
        "measure": measure,
    }


def _averages_table(
    estimates: YearEstimates,
    found: dict[str, Autocovariance],
    average: int,
    held: float,
    coverage: float,
    attrs: dict[str, Any],
) -> pd.DataFrame:
    last = int(estimates.years[-1])
    window = np.arange(last - average + 1, last + 1)
    inside = np.isin(estimates.years, window)
    wide = float(norm.ppf(0.5 + coverage / 2.0))
    parts = []
    for measure, of in found.items():
        years = estimates.years[inside]
        centred = (estimates.estimate[measure] - of.means)[:, inside]
        error = estimates.error[measure][:, inside][:, :, inside]
        plain, se, n = plain_average(centred, error)
        sigma = extended(of.fitted, of.last_lag, max(average - 1, len(of.fitted) - 1), held)
        to_target = sigma[np.abs(np.subtract.outer(years, window))].mean(axis=1)
        variance = float(sigma[np.abs(np.subtract.outer(window, window))].mean())
        best = best_linear(centred, error, sigma[np.abs(np.subtract.outer(years, years))], to_target, variance)
        known: dict[str, FloatArray] = {"estimate": plain, "se": se, "mean": best.mean, "sd": best.sd}
        known |= {"lower": best.mean - wide * best.sd, "upper": best.mean + wide * best.sd}
        known["reliability"] = best.reliability
        span = {"cohorts": f"{academic_year(int(window[0]))} to {academic_year(last)}", "n_cohorts": n}
        missing = (n == 0) | estimates.not_compared
        shown = {name: np.where(missing, np.nan, values) for name, values in known.items()}
        parts.append(pd.DataFrame(_named(estimates, measure, attrs) | span | shown))
    return pd.concat(parts, ignore_index=True)


def _forecast_table(
    estimates: YearEstimates,
    effects: SchoolEffects,
    found: dict[str, Autocovariance],
    horizon: int,
    beyond: str,
    coverage: float,
) -> pd.DataFrame:
    parts = []
    for measure, of in found.items():
        known = np.isfinite(estimates.estimate[measure])
        first, last = _first_and_last(known)
        farthest = estimates.years[-1] + horizon - estimates.years[first]
        summary = effects.summary(measure, coverage)
        named = _named(estimates, measure, effects.attrs)
        named |= {"cohort": effects.attrs["cohort"], "horizon": horizon}
        named |= {name: summary[name] for name in ("mean", "sd", "lower", "upper", "reliability")}
        labels = np.array(estimates.labels, dtype=object)
        named |= {
            "n_cohorts": known.sum(axis=1),
            "last_cohort": pd.Series(labels[last]).where(known.any(axis=1), None),
            "beyond": np.where(known.any(axis=1) & (farthest > of.last_lag), beyond, ""),
            "flag": summary["flag"],
        }
        parts.append(pd.DataFrame(named))
    return pd.concat(parts, ignore_index=True)


def _first_and_last(known: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return known.argmax(axis=1), known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)


def _notes(
    estimates: YearEstimates,
    found: dict[str, Autocovariance],
    horizon: int,
    beyond: str,
    effects: SchoolEffects,
) -> tuple[str, ...]:
    notes = []
    shortest = min(of.last_lag for of in found.values())
    if _is_beyond(found, horizon):
        notes.append(
            f"the forecast for {effects.attrs['cohort']} needs autocovariances at lags of {horizon} years and more; "
            f"records reach to {shortest}, and beyond them {_ASSUMED[beyond]}"
        )
    for measure, of in found.items():
        if of.fitted[0] <= 0:
            notes.append(f"schools do not differ in {measure} beyond chance: it is forecast as average for all")
        moved = np.abs(of.fitted - of.moments) / np.sqrt(np.diag(of.covariance))
        if np.nanmax(np.where(np.isfinite(moved), moved, 0.0)) > 2.0:
            notes.append(
                f"{measure}: autocovariances are farther than two standard errors from any that fall ever more slowly; "
                "look whether one cohort is unlike the others"
            )
    for flag in (ONE_COHORT, NO_COHORT):
        n = sum(flag == name for name in _flags(estimates, next(iter(found))))
        if n:
            notes.append(f"schools kept in the forecast and flagged '{flag}': {n:,}")
    return tuple(notes)
