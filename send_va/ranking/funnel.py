"""Funnel limits: which units lie further from a target than their size explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.estimate_inputs import (
    check_choice,
    check_estimates,
    check_fraction,
    refuse,
    same_length,
    same_units,
    unit_index,
    vector,
)
from send_va.ranking.funnel_scale import FunnelScale, Kind, Method
from send_va.ranking.overdispersion import Dispersion, Overdispersion, check_winsorise, dispersion, inflated


@dataclass(frozen=True)
class FunnelLimits:
    """Limits of every unit, and what the curve is drawn from.

    Attributes
    ----------
    table : DataFrame
        One row a unit: denominator (pupils, expected count, or precision ``1 / se**2``), value, target, z (with
        overdispersion counted); for every level lower_95, upper_95, outlier_95 and so on. An outlier is -1 (below the
        lower limit), 1 (above the upper) or 0.
    kind, method, overdispersion : str
    levels : tuple of float
    target : float
    phi : float
        Mean square of winsorised z scores, overdispersion counted or not.
    tau2 : float
        Variance between units on the scale of `method` (arcsine root of proportions, root of ratios, or of the values).
    winsorise : float
        Share of z scores winsorised at each end.
    """

    table: pd.DataFrame
    kind: Kind
    method: Method
    overdispersion: Overdispersion
    levels: tuple[float, ...]
    target: float
    phi: float
    tau2: float
    winsorise: float

    def curve(self, points: int = 200) -> pd.DataFrame:
        """Limits at evenly spaced denominators from the smallest to the largest, in logarithms, to draw lines from.

        Returns
        -------
        DataFrame
            denominator, target, and lower and upper for every level. Whole denominators for exact limits of
            proportions, and then there may be fewer rows than `points`.

        Raises
        ------
        InputError
            Fewer than two points.
        """
        if points < 2:
            raise InputError(f"a curve has at least 2 points, not {points}")
        sizes = self.table["denominator"]
        grid = np.geomspace(float(sizes.min()), float(sizes.max()), points)
        if self.kind == "proportion" and self.method == "exact":
            grid = np.unique(np.rint(grid))
        scale = FunnelScale(self.kind, self.method, self.target)
        found = Dispersion(self.phi, self.tau2)
        columns = {"denominator": grid, "target": np.full(len(grid), self.target)}
        return pd.DataFrame(columns | _limit_columns(scale, grid, found, self.overdispersion, self.levels))

    def __str__(self) -> str:
        outside = [
            f"{(self.table[f'outlier_{_name(level)}'] != 0).sum():,} outside {level:.4g}" for level in self.levels
        ]
        return (
            f"Funnel of {len(self.table):,} units around {self.target:.4g} ({self.kind}, {self.method} limits, "
            f"overdispersion {self.overdispersion}, phi {self.phi:.3g}): {', '.join(outside)}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html()}"


def funnel_limits(
    numerator: ArrayLike | None = None,
    denominator: ArrayLike | None = None,
    *,
    kind: Kind,
    value: ArrayLike | None = None,
    se: ArrayLike | None = None,
    target: float | None = None,
    overdispersion: Overdispersion = "none",
    levels: Sequence[float] = (0.95, 0.998),
    method: Method | None = None,
    winsorise: float = 0.10,
) -> FunnelLimits:
    """Control limits around a target, wider for smaller units.

    Parameters
    ----------
    numerator, denominator : array-like (units,)
        ``proportion``: how many of how many pupils. ``ratio``: observed and expected counts.
    kind : {"proportion", "ratio", "mean"}
    value, se : array-like (units,)
        ``mean``: values and their standard errors; `value` may be given in the place of `numerator`.
    target : float, optional
        Centre. Else all numerators over all denominators (proportion), 1 (ratio), or the inverse-variance mean, with
        `tau2` in the variances under additive overdispersion (mean).
    overdispersion : {"none", "additive", "multiplicative"}
        Additive adds a variance between units, multiplicative widens every limit by the root of `phi`, where above 1.
    levels : sequence of float
        Share of units in control that lie within each pair of limits.
    method : {"exact", "transformed", "score"}, optional
        ``exact``: binomial or Poisson, interpolated between counts; the default of proportions and ratios but with
        additive overdispersion, which has no exact limits. With multiplicative overdispersion the tail probability is
        that of the widened normal quantile. ``transformed``: arcsine root of a proportion, root of a ratio, normal
        there. ``score``: normal with the variance at the target; a unit is outside where its Wilson interval misses the
        target. Means have one method, recorded as ``score``.
    winsorise : float
        Share of z scores at each end set to the quantile there before `phi` and `tau2` are computed; 0 for none.

    Returns
    -------
    FunnelLimits
        Within the limits a unit's value is what chance gives a unit of its size. With many units some lie outside by
        chance: :func:`send_va.ranking.flags.false_discovery_flags` takes ``table["z"]``.

    Raises
    ------
    InputError
        Arrays that do not fit `kind`, lengths that differ, entries that are not finite, fewer than two units, a
        numerator below zero or above its denominator (proportion), denominators or standard errors of zero or below,
        fractions of a pupil with exact limits, a target outside what values can be, a pooled proportion of 0 or 1, an
        unknown option, exact limits with additive overdispersion or of means.

    References
    ----------
    Spiegelhalter (2005), Funnel plots for comparing institutional performance, doi:10.1002/sim.1970.

    Examples
    --------
    >>> from send_va.ranking.funnel import funnel_limits
    >>> funnel = funnel_limits([36, 12, 4], [100, 100, 10], kind="proportion", levels=[0.95])
    >>> funnel.table[["lower_95", "upper_95", "outlier_95"]].round(2).iloc[0].tolist()
    [0.16, 0.33, 1.0]
    """
    check_choice(kind, get_args(Kind), "kind")
    check_choice(overdispersion, get_args(Overdispersion), "overdispersion")
    check_winsorise(winsorise)
    chosen = _method(kind, method, overdispersion)
    centres = _levels(levels)
    given = value if value is not None else numerator
    if kind == "mean":
        values, sizes = _means(given, denominator, se)
    else:
        values, sizes = _counts(kind, chosen, numerator, denominator, value, se)
    centre = _target(kind, target, values, sizes)
    scale = FunnelScale(kind, chosen, centre)
    own = scale.standard_error(sizes)
    found = dispersion((scale.forward(values) - scale.forward(centre)) / own, own, winsorise)
    if kind == "mean" and target is None and overdispersion == "additive":
        weight = 1.0 / (own**2 + found.tau2)
        scale = FunnelScale(kind, chosen, float(weight @ values / weight.sum()))
    z = (scale.forward(values) - scale.forward(scale.target)) / inflated(own, found, overdispersion)
    columns = {"denominator": sizes, "value": values, "target": np.full(len(values), scale.target), "z": z}
    columns |= _limit_columns(scale, sizes, found, overdispersion, centres)
    for level in centres:
        low, high = columns[f"lower_{_name(level)}"], columns[f"upper_{_name(level)}"]
        columns[f"outlier_{_name(level)}"] = (values > high).astype(int) - (values < low).astype(int)
    table = pd.DataFrame(columns, index=unit_index(given if given is not None else values))
    return FunnelLimits(table, kind, chosen, overdispersion, centres, scale.target, found.phi, found.tau2, winsorise)


def _name(level: float) -> str:
    return f"{100.0 * level:.10g}"


def _limit_columns(
    scale: FunnelScale, sizes: FloatArray, found: Dispersion, overdispersion: str, levels: tuple[float, ...]
) -> dict[str, FloatArray]:
    columns = {}
    for level in levels:
        z = -NormalDist().inv_cdf(0.5 * (1.0 - level))
        if scale.method == "exact":
            widened = float(inflated(np.array([z]), found, overdispersion)[0])
            distinct, inverse = np.unique(sizes, return_inverse=True)
            lower, upper = (limit[inverse] for limit in scale.exact_limits(distinct, widened))
        else:
            lower, upper = scale.limits(inflated(scale.standard_error(sizes), found, overdispersion), z)
        columns[f"lower_{_name(level)}"], columns[f"upper_{_name(level)}"] = lower, upper
    return columns


def _method(kind: str, method: Method | None, overdispersion: str) -> Method:
    if method is not None:
        check_choice(method, get_args(Method), "method")
    if kind == "mean":
        if method not in (None, "score"):
            raise InputError(f"means have no {method} limits", "Leave method out: limits of means are normal.")
        return "score"
    if method == "exact" and overdispersion == "additive":
        raise InputError(
            "there are no exact limits with additive overdispersion",
            'Use method="transformed" or "score", or overdispersion="multiplicative".',
        )
    return method or ("transformed" if overdispersion == "additive" else "exact")


def _levels(levels: Sequence[float]) -> tuple[float, ...]:
    try:
        given = tuple(levels)
    except TypeError:
        raise InputError(f"levels is {levels!r}, not a sequence", "Give a list, such as [0.95, 0.998].") from None
    for level in given:
        check_fraction(level, "levels")
    if not given:
        raise InputError("no levels given", "Give one or more, such as 0.95.")
    return tuple(float(level) for level in given)


def _means(
    value: ArrayLike | None, denominator: ArrayLike | None, se: ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    if value is None or se is None or denominator is not None:
        raise InputError("kind mean needs value and se, and no denominator", 'Counts are kind="proportion" or "ratio".')
    values, errors = check_estimates(value, se)
    return values, 1.0 / errors**2


def _counts(
    kind: str,
    method: str,
    numerator: ArrayLike | None,
    denominator: ArrayLike | None,
    value: ArrayLike | None,
    se: ArrayLike | None,
) -> tuple[FloatArray, FloatArray]:
    if numerator is None or denominator is None or value is not None or se is not None:
        raise InputError(f"kind {kind} needs numerator and denominator only", 'Values with se are kind="mean".')
    top, bottom = vector(numerator, "numerator"), vector(denominator, "denominator")
    same_length(numerator=top, denominator=bottom)
    same_units(numerator=numerator, denominator=denominator)
    refuse(bottom <= 0.0, bottom, "denominator", "is zero or negative", "Leave units without pupils out.")
    refuse(top < 0.0, top, "numerator", "is negative", "It is a count.")
    if kind == "proportion":
        refuse(top > bottom, top, "numerator", "is above its denominator", 'Expected counts are kind="ratio".')
        if method == "exact":
            whole = 'Use method="transformed" where pupils are weighted.'
            refuse(bottom != np.rint(bottom), bottom, "denominator", "is not a whole number", whole)
    if len(top) < 2:
        raise InputError("a funnel of one unit shows nothing", "Give two units or more.")
    return top / bottom, bottom


def _target(kind: str, target: float | None, values: FloatArray, sizes: FloatArray) -> float:
    if target is None:
        centre = 1.0 if kind == "ratio" else float(sizes @ values / sizes.sum())
        if kind == "proportion" and not 0.0 < centre < 1.0:
            raise InputError(f"the pooled proportion is {centre:g}, around which there are no limits", "Give a target.")
        return centre
    inside = {"proportion": 0.0 < target < 1.0, "ratio": 0.0 < target < np.inf, "mean": bool(np.isfinite(target))}
    if not inside[kind]:
        raise InputError(f"target {target} is no {kind}", "It is in the unit of the values: 0.25, not 25, for 25 %.")
    return float(target)
