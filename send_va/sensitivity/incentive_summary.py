"""An incentive audit in a few rows and sentences: gains by act, verdicts by measure, and the cheapest act that pays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.school_acts import ACTIONS, IN_WORDS, LABELLING_ACTS, ROLL_ACTS

MEASURE = ["estimator", "context", "measure"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NOTHING = 1e-12  # pupil SDs: a gain below it is rounding
# What a verdict is about: a name, its acts, and whether pupils are weighted by their terms on the roll.
_GROUPS = (
    ("labelling", LABELLING_ACTS, False),
    ("roll", ROLL_ACTS, False),
    ("roll", ROLL_ACTS, True),
    ("all", ACTIONS, False),
    ("all", ACTIONS, True),
)


def incentive_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Sum up gains over schools.

    Parameters
    ----------
    table : DataFrame
        Of :class:`send_va.sensitivity.incentives.IncentiveAudit`.

    Returns
    -------
    DataFrame
        One row an estimator, context, measure, action and weighting: ``n_schools`` and ``n_not_applicable``; over the
        schools to which the action applies ``mean_acted`` (pupils), ``mean_share_acted``, ``mean_gain_sd``,
        ``sd_gain_sd``, ``q05`` to ``q95`` and ``largest`` of the gain (pupil SDs), ``share_gaining``, ``mean_places``,
        ``share_quintile_changed``; and the gaming gradient, the gain per 1 % of the school's pupils acted on:
        ``gradient_mean`` and ``gradient_q05`` to ``gradient_q95``. Missing where it applies to no school.
    """
    keys = [*MEASURE, "action", "roll_weighted"]
    rows = []
    for key, part in table.groupby(keys, sort=False, observed=True):
        gained = part[part["applicable"]]
        gain = gained["gain_sd"].to_numpy(dtype=np.float64)
        gradient = gain / (100.0 * gained["share_acted"].to_numpy(dtype=np.float64))
        moved = gained["quintile_before"].to_numpy() != gained["quintile_after"].to_numpy()
        rows.append(
            dict(zip(keys, key, strict=True))
            | {
                "n_schools": len(gained),
                "n_not_applicable": len(part) - len(gained),
                "mean_acted": _mean(gained["n_acted"].to_numpy(dtype=np.float64)),
                "mean_share_acted": _mean(gained["share_acted"].to_numpy(dtype=np.float64)),
                "mean_gain_sd": _mean(gain),
                "sd_gain_sd": float(gain.std(ddof=1)) if len(gain) > 1 else np.nan,
                **_quantiles(gain, ""),
                "largest": float(gain.max()) if len(gain) else np.nan,
                "share_gaining": _mean(gain > _NOTHING),
                "mean_places": _mean(gained["places_gained"].to_numpy(dtype=np.float64)),
                "share_quintile_changed": _mean(moved),
                "gradient_mean": _mean(gradient),
                **_quantiles(gradient, "gradient_"),
            }
        )
    return pd.DataFrame(rows)


def incentive_verdicts(summary: pd.DataFrame, settings: AuditSettings) -> pd.DataFrame:
    """Say which measures pass: those under which every act gains the average school less than the tolerance.

    Returns
    -------
    DataFrame
        One row an estimator, context, measure, kind of act (``acts``: ``labelling``, ``roll`` or ``all``) and weighting
        of the roll acts: ``worst_action``, ``worst_gain_sd`` (its mean gain at the share acted on, pupil SDs),
        ``tolerance``, ``tolerance_given`` (False where it is the default) and ``verdict``: ``pass``, ``fail``, or
        ``not applicable`` where no school can act.
    """
    rows = []
    for key, part in summary.groupby(MEASURE, sort=False):
        for acts, actions, roll_weighted in _GROUPS:
            worst = _weighting(part[part["action"].isin(actions)], roll_weighted).dropna(subset="mean_gain_sd")
            worst = worst.sort_values("mean_gain_sd", ascending=False, kind="stable")
            gain = float(worst["mean_gain_sd"].iloc[0]) if len(worst) else np.nan
            passes = "pass" if gain < settings.used_tolerance else "fail"
            rows.append(
                dict(zip(MEASURE, key, strict=True))
                | {
                    "acts": acts,
                    "roll_weighted": roll_weighted,
                    "worst_action": str(worst["action"].iloc[0]) if len(worst) else "",
                    "worst_gain_sd": gain,
                    "tolerance": settings.used_tolerance,
                    "tolerance_given": settings.tolerance is not None,
                    "verdict": passes if len(worst) else "not applicable",
                }
            )
    return pd.DataFrame(rows)


def cheapest_acts(summary: pd.DataFrame) -> pd.DataFrame:
    """Find the act that gains most places for the pupils it is done to.

    Returns
    -------
    DataFrame
        One row an estimator, context, measure and weighting of the roll acts: ``action`` with the fewest pupils for a
        place among those with a mean gain above zero (empty where none has one), ``n_acted``, ``share_acted``,
        ``gain_sd`` and ``places`` (means over the schools to which it applies), ``pupils_per_place``, ``words``.
    """
    rows = []
    for key, part in summary.groupby(MEASURE, sort=False):
        for roll_weighted in (False, True):
            paying = _weighting(part, roll_weighted)
            paying = paying[(paying["mean_gain_sd"] > _NOTHING) & (paying["mean_places"] > 0.0)]
            rate = (paying["mean_acted"] / paying["mean_places"]).to_numpy(dtype=np.float64)
            best = paying.iloc[int(rate.argmin())] if len(paying) else None
            rows.append(
                dict(zip(MEASURE, key, strict=True))
                | {
                    "roll_weighted": roll_weighted,
                    "action": "" if best is None else str(best["action"]),
                    "n_acted": np.nan if best is None else float(best["mean_acted"]),
                    "share_acted": np.nan if best is None else float(best["mean_share_acted"]),
                    "gain_sd": np.nan if best is None else float(best["mean_gain_sd"]),
                    "places": np.nan if best is None else float(best["mean_places"]),
                    "pupils_per_place": np.nan if best is None else float(rate.min()),
                    "words": _in_words(key, roll_weighted, best),
                }
            )
    return pd.DataFrame(rows)


def said_audit(
    verdicts: pd.DataFrame, cheapest: pd.DataFrame, settings: AuditSettings, borderline: str, forecast: str
) -> str:
    """The verdicts on theta and what pays, in lines of text."""
    lines = [
        f"Incentive audit: acts on {100.0 * settings.share:g} % of each school's pupils; a measure passes where every "
        f"act gains the average school less than {settings.said_tolerance}.",
        f"Near the line: {borderline}. Forecasts: {forecast}, foresight {settings.foresight:g}. Roll weighting: "
        f"{settings.terms_kept:g} of 15 terms count.",
    ]
    shown = verdicts[verdicts["measure"] == "theta"]
    for (estimator, context), part in shown.groupby(["estimator", "context"], sort=False):
        said = [_said_verdict(row) for row in part[part["acts"] != "all"].to_dict("records")]
        lines.append(f"{estimator}, {context}: {'; '.join(said)}.")
    plain = cheapest[(cheapest["measure"] == "theta") & ~cheapest["roll_weighted"]]
    return "\n".join([*lines, *plain["words"]])


def _said_verdict(row: Mapping[Hashable, Any]) -> str:
    weighting = ", roll weighted" if row["roll_weighted"] else ""
    if row["verdict"] == "not applicable":
        return f"{row['acts']} acts{weighting}: not applicable"
    if abs(row["worst_gain_sd"]) <= _NOTHING:
        return f"{row['acts']} acts{weighting}: {row['verdict']} (nothing to gain)"
    return (
        f"{row['acts']} acts{weighting}: {row['verdict']} "
        f"({IN_WORDS[row['worst_action']]} {said_gain(row['worst_gain_sd'], row['tolerance'])})"
    )


def said_gain(gain_sd: float, tolerance: float) -> str:
    """A mean gain in words; with a digit more where three do not tell it from the tolerance.

    Examples
    --------
    >>> said_gain(0.0314, 0.02), said_gain(0.02016, 0.02), said_gain(0.0, 0.02)
    ('+0.031 SD', '+0.0202 SD', 'nothing to gain')
    """
    if gain_sd <= _NOTHING:
        return "nothing to gain"
    return f"{gain_sd:+.{4 if abs(gain_sd - tolerance) < 0.0005 else 3}f} SD"


def _weighting(rows: pd.DataFrame, roll_weighted: bool) -> pd.DataFrame:
    """Labelling acts, which know no weighting, and roll acts with one weighting."""
    return rows[rows["action"].isin(LABELLING_ACTS) | (rows["roll_weighted"] == roll_weighted)]


def _in_words(key: tuple[object, ...], roll_weighted: bool, best: pd.Series | None) -> str:
    estimator, context, measure = key
    where = f"Under `{estimator}`" + ("" if measure == "theta" else f" ({measure})")
    where += f" in context {context}" + (" with roll weighting" if roll_weighted else "")
    if best is None:
        return f"{where}, no act pays on average."
    pupils, places = float(best["mean_acted"]), float(best["mean_places"])
    return (
        f"{where}, the cheapest profitable act is {IN_WORDS[str(best['action'])]}: {pupils:.2g} pupils "
        f"({100.0 * float(best['mean_share_acted']):.1f} %) gain {float(best['mean_gain_sd']):+.3f} SD, "
        f"{places:,.0f} places."
    )


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def _quantiles(values: NDArray[np.float64], prefix: str) -> dict[str, float]:
    found = np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)
    return {f"{prefix}q{round(100 * q):02d}": float(value) for q, value in zip(QUANTILES, found, strict=True)}
