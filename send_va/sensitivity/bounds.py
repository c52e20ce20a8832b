"""Trimming bounds: what a comparison says of those who are in it on both sides, where selection differs (Lee 2009)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from send_va.errors import Failure, InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LeeBounds:
    """Bounds of a mean difference among the always selected, in outcome units.

    Attributes
    ----------
    estimate : float
        Difference of the means of the selected, untrimmed.
    lower, upper : float
        Bounds of the difference for those who would be selected on either side.
    lower_se, upper_se : float
        Standard errors of the bounds, the error of the share trimmed included.
    share_trimmed : float
        Of the selected of the group with the higher share selected.
    trimmed : str
        That group: ``treated`` or ``control``; empty where nothing is trimmed.
    interval : tuple of float
        Covers the difference itself (not the whole range between the bounds) with probability `coverage`.
    coverage : float
    """

    estimate: float
    lower: float
    upper: float
    lower_se: float
    upper_se: float
    share_trimmed: float
    trimmed: str
    interval: tuple[float, float]
    coverage: float

    @property
    def sign_known(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval[0] > 0.0 or self.interval[1] < 0.0

    def __str__(self) -> str:
        side = f"{100 * self.share_trimmed:.1f} % of the {self.trimmed} trimmed" if self.trimmed else "nothing trimmed"
        return (
            f"difference {self.estimate:.4g}; among those selected on either side between {self.lower:.4g} (SE "
            f"{self.lower_se:.2g}) and {self.upper:.4g} (SE {self.upper_se:.2g}), {side}; "
            f"{100 * self.coverage:.0f} % interval {self.interval[0]:.4g} to {self.interval[1]:.4g}"
        )


def lee_bounds(outcome: ArrayLike, selected: ArrayLike, treated: ArrayLike, *, coverage: float = 0.95) -> LeeBounds:
    """Bound the difference between treated and control where treatment changes who is selected.

    Assumes that treatment is as good as random and moves selection one way only (monotonicity): nobody drops out of
    the selected because of it while others come in. Then the selected of the group with the higher share are those who
    would be selected on either side and some more; the latter are at worst all at the top, or all at the bottom.

    Parameters
    ----------
    outcome : array, shape (n,)
        Ignored (may be missing) where not selected.
    selected, treated : array, shape (n,)
        0 or 1.
    coverage : float

    Returns
    -------
    LeeBounds
        Narrow bounds: the share trimmed is small. ``interval`` without zero: the sign holds whoever the extra ones
        are. The trimmed mean counts the pupil at the cut with the part that makes the share exact.

    Raises
    ------
    InputError
        Shapes that differ, other values than 0 and 1, a missing outcome of somebody selected, or fewer than two
        selected in a group.

    References
    ----------
    Lee (2009), doi:10.1111/j.1467-937X.2009.00536.x, proposition 3.
    Imbens & Manski (2004), doi:10.1111/j.1468-0262.2004.00555.x (the interval).

    Examples
    --------
    >>> outcome = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 0.0, 0.0]
    >>> selected = [1, 1, 1, 1, 1, 1, 0, 0]
    >>> bounds = lee_bounds(outcome, selected, [1, 1, 1, 1, 0, 0, 0, 0])
    >>> bounds.share_trimmed, bounds.lower, bounds.upper
    (0.5, 0.0, 2.0)
    """
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")
    y, s, d = _checked(outcome, selected, treated)
    share = {1: float(s[d].mean()), 0: float(s[~d].mean())}
    more = 1 if share[1] >= share[0] else 0
    cut, kept = y[s & (d == bool(more))], y[s & (d != bool(more))]
    p = 1.0 - share[1 - more] / share[more]
    base = float(kept.mean())
    bottom, top = trimmed_mean(cut, p, "top"), trimmed_mean(cut, p, "bottom")
    of_share = (share[1 - more] / share[more]) ** 2 * sum(
        (1.0 - share[g]) / (share[g] * np.count_nonzero(d == bool(g))) for g in (0, 1)
    )
    errors = [float(np.sqrt(mean.variance(of_share) + kept.var() / len(kept))) for mean in (bottom, top)]
    ends = [bottom.mean - base, top.mean - base]
    estimate = float(cut.mean()) - base
    if not more:
        ends, errors, estimate = [-ends[1], -ends[0]], errors[::-1], -estimate
    trimmed = ("control", "treated")[more] if p > 0.0 else ""
    reach = imbens_manski(ends[1] - ends[0], errors[0], errors[1], coverage)
    interval = ends[0] - reach * errors[0], ends[1] + reach * errors[1]
    return LeeBounds(estimate, ends[0], ends[1], errors[0], errors[1], p, trimmed, interval, coverage)


@dataclass(frozen=True)
class TrimmedMean:
    """Mean of what is left when a share is cut off one end.

    Attributes
    ----------
    mean, cut : float
        The mean, and the value at which it was cut (the most extreme value kept).
    spread : float
        Variance of what is left.
    share : float
        Cut off.
    n : int
        Values before the cut.
    """

    mean: float
    cut: float
    spread: float
    share: float
    n: int

    def variance(self, of_share: float = 0.0) -> float:
        """Sampling variance; `of_share` is that of the share (Lee 2009, proposition 3)."""
        left = 1.0 - self.share
        away = (self.cut - self.mean) ** 2
        return self.spread / (self.n * left) + away * self.share / (self.n * left) + away / left**2 * of_share


def trimmed_mean(values: ArrayLike, share: float, end: str) -> TrimmedMean:
    """Cut a share of the values off one end; the value at the cut counts with the part that makes it exact.

    Parameters
    ----------
    values : array, shape (n,)
    share : float
        In [0, 1).
    end : {"top", "bottom"}

    Raises
    ------
    InputError
        No value, a share outside [0, 1), another end.

    Examples
    --------
    >>> trimmed_mean([4.0, 1.0, 2.0, 3.0], 0.25, "top").mean
    2.0
    >>> trimmed_mean([4.0, 1.0, 2.0, 3.0], 0.375, "top").mean
    1.8
    """
    y = np.sort(np.asarray(values, dtype=np.float64))
    if end not in ("top", "bottom"):
        raise InputError(f"no end {end!r}", "Cut off 'top' or 'bottom'.")
    if not len(y) or not 0.0 <= share < 1.0:
        raise InputError(f"a share of {share} cannot be cut off {len(y)} values", "Give a share in [0, 1).")
    if end == "bottom":
        y = y[::-1]
    weight = kept_weights(len(y), share)
    mean = float(y @ weight / weight.sum())
    spread = float(((y - mean) ** 2) @ weight / weight.sum())
    return TrimmedMean(mean, float(y[np.flatnonzero(weight > 0.0)[-1]]), spread, share, len(y))


def kept_weights(n: int, share: float) -> Floats:
    """Weights of n ordered values when the last `share` of them is cut off: 1, a part at the cut, then 0.

    Examples
    --------
    >>> kept_weights(4, 0.375).tolist()
    [1.0, 1.0, 0.5, 0.0]
    """
    left = n * (1.0 - share)
    weight = np.clip(left - np.arange(n), 0.0, 1.0)
    return np.asarray(np.where(weight < 1e-12 * n, 0.0, weight))


def imbens_manski(width: float, lower_se: float, upper_se: float, coverage: float = 0.95) -> float:
    """Standard errors by which to extend bounds so that the interval covers the bounded number itself.

    Returns
    -------
    float
        Between the one-sided normal quantile (wide bounds) and the two-sided one (a point).

    References
    ----------
    Imbens & Manski (2004), doi:10.1111/j.1468-0262.2004.00555.x.

    Examples
    --------
    >>> f"{imbens_manski(0.0, 1.0, 1.0):.3f} {imbens_manski(50.0, 1.0, 1.0):.3f}"
    '1.960 1.645'
    """
    largest = max(lower_se, upper_se)
    if largest <= 0.0:
        return 0.0
    apart = max(width, 0.0) / largest
    high = float(norm.ppf(0.5 + coverage / 2.0))
    return float(brentq(lambda c: norm.cdf(c + apart) - norm.cdf(-c) - coverage, 0.0, high + 1e-9))


def _checked(
    outcome: ArrayLike, selected: ArrayLike, treated: ArrayLike
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    y = np.asarray(outcome, dtype=np.float64)
    s, d = np.asarray(selected), np.asarray(treated)
    if y.ndim != 1 or s.shape != y.shape or d.shape != y.shape:
        raise InputError(f"outcome, selected and treated have shapes {y.shape}, {s.shape} and {d.shape}")
    failures = [
        Failure("holds other values than 0 and 1", name, int(bad.sum()), remedy="Code it as 0 and 1.")
        for name, values in (("selected", s), ("treated", d))
        if (bad := ~np.isin(values, (0, 1))).any()
    ]
    if failures:
        raise InputError(failures)
    chosen, given = s.astype(bool), d.astype(bool)
    lost = int((chosen & ~np.isfinite(y)).sum())
    if lost:
        raise InputError(Failure("is missing for somebody selected", "outcome", lost, remedy="They are not selected."))
    for name, group in (("treated", given), ("control", ~given)):
        if np.count_nonzero(chosen & group) < 2:
            raise InputError(f"fewer than two of the {name} are selected", "There is nothing to compare.")
    return y, chosen, given
