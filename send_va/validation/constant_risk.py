"""Constant risk: whether the case-mix adjuster means the same in every school."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from send_va.errors import InputError
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.nested import NestedSolution, fit_nested

FEWEST_SCHOOLS = 10
_SPLIT = 0.5  # of the adjuster: residual variances of pupils below it and from it on
_FEWEST_LEFT = 30  # degrees of freedom of a residual variance of its own


@dataclass(frozen=True)
class ConstantRisk:
    """Whether the relation of an adjuster with the outcome differs between schools.

    Attributes
    ----------
    adjuster : str
    coefficient, coefficient_se : float
        Of the adjuster, for the average school; outcome units.
    sd, lower, upper : float
        SD of that coefficient between schools, and the range that holds it for 95 % of schools.
    statistic, p_value : float
        Likelihood ratio of no such differences: half and half of one and two degrees of freedom, for a variance at the
        edge of its range.
    moderators : DataFrame
        moderator, coefficient (change of the adjuster's coefficient by SD of the moderator between schools), se,
        statistic, p_value (likelihood ratio, two-sided), explained (share of the variance of coefficients).
    schools, pupils : int
    coverage : float
    """

    adjuster: str
    coefficient: float
    coefficient_se: float
    sd: float
    lower: float
    upper: float
    statistic: float
    p_value: float
    moderators: pd.DataFrame
    schools: int
    pupils: int
    coverage: float

    @property
    def constant(self) -> bool:
        """Whether nothing is found against one coefficient for all schools."""
        level = 1.0 - self.coverage
        return self.p_value >= level and not bool((self.moderators["p_value"] < level).any())

    @property
    def verdict(self) -> str:
        """In words."""
        if self.constant:
            return f"Nothing is found against a coefficient of {self.adjuster} that is the same in every school."
        said = (
            f"The coefficient of {self.adjuster} is not the same in every school: as a covariate it adjusts schools by "
            "different things, and does not make them comparable."
        )
        clear = self.moderators[self.moderators["p_value"] < 1.0 - self.coverage]
        for name, change in zip(clear["moderator"], clear["coefficient"].to_numpy(dtype=np.float64), strict=True):
            way = "higher" if change > 0.0 else "lower"
            said += f" It is {way} where {name} is high: what schools decide themselves moves it."
        return said

    def __str__(self) -> str:
        head = (
            f"Constant risk of {self.adjuster}: coefficient {self.coefficient:+.3f}, for 95 % of schools between "
            f"{self.lower:+.3f} and {self.upper:+.3f} (SD {self.sd:.3f}; p = {self.p_value:.3g}); "
            f"{self.schools:,} schools, {self.pupils:,} pupils"
        )
        table = self.moderators.to_string(index=False, float_format="{:.3g}".format) if len(self.moderators) else ""
        return "\n".join(filter(None, [head, table, self.verdict]))

    def _repr_html_(self) -> str:
        return f"<p>{self.verdict}</p>{self.moderators.to_html(index=False)}"


def constant_risk(
    outcome: FloatArray,
    adjuster: FloatArray,
    covariates: FloatArray,
    school: NDArray[np.integer],
    *,
    moderators: Mapping[str, FloatArray] | None = None,
    name: str = "recorded SEN",
    coverage: float = 0.95,
) -> ConstantRisk:
    """Let the coefficient of the adjuster differ between schools, and ask what it goes with.

    Case-mix adjustment takes an adjuster to stand for the same risk everywhere. Where schools set it by different
    standards it does not: pupils labelled by generous schools have less need, the coefficient is nearer zero there, and
    one coefficient for all adjusts too much for them. Residual variances are those of pupils without and with the
    adjuster (from .5 on), so that unequal ones are not taken for differences between schools.

    Parameters
    ----------
    outcome : array, shape (n,)
    adjuster : array, shape (n,)
        Recorded SEN (0, 1) or the expected need of pupils.
    covariates : array, shape (n, p)
        Prior attainment and background, without a column of ones.
    school : integer array, shape (n,)
        0 to schools - 1.
    moderators : mapping of name to array, shape (schools,), optional
        The share of pupils labelled, the estimated leniency: one at a time, in SDs between schools. A shrunken estimate
        of leniency keeps the coefficient unbiased (regression calibration); its p-value stands.
    name : str
        What the adjuster is called.
    coverage : float

    Returns
    -------
    ConstantRisk
        ``constant`` False: do not publish the measure that holds this adjuster constant without saying so.

    Raises
    ------
    InputError
        Values that are missing, an adjuster that is the same for all, fewer than ten schools with and without it.

    References
    ----------
    Mohammed et al. (2009), doi:10.1136/bmj.b780 (the constant risk fallacy).
    Self & Liang (1987), doi:10.1080/01621459.1987.10478472 (the mixture at the edge).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> school = np.repeat(np.arange(60), 50)
    >>> sen = (rng.random(3000) < 0.3) * 1.0
    >>> gap = -0.5 + 0.3 * rng.standard_normal(60)
    >>> y = gap[school] * sen + rng.standard_normal(3000)
    >>> found = constant_risk(y, sen, rng.standard_normal((3000, 1)), school, moderators={"the gap": gap})
    >>> found.constant, round(found.sd, 1), round(float(found.moderators["explained"].item()), 1)
    (False, 0.3, 1.0)
    """
    moderators = dict(moderators or {})
    _check(outcome, adjuster, covariates, school, moderators, coverage)
    schools = int(school.max()) + 1
    plain = np.column_stack([np.ones(len(outcome)), adjuster, covariates, outcome])
    weights = _weights(plain, school)

    def fit(rows: FloatArray, slope: bool, reml: bool = True) -> NestedSolution:
        columns = [f"c{k}" for k in range(rows.shape[1])]
        products: CrossProducts = cross_products(rows, school, schools, columns, weights=weights)
        level = Level(np.array([0, 1]) if slope else np.array([0]))
        return fit_nested(products, [level], np.arange(rows.shape[1] - 1), rows.shape[1] - 1, reml=reml)

    free, one = fit(plain, True), fit(plain, False)
    ratio = max(2.0 * (free.llf - one.llf), 0.0)
    sd = float(np.sqrt(max(float(free.covariances[0][1, 1]), 0.0)))
    rows = []
    without = fit(plain, True, reml=False) if moderators else free
    for label, values in moderators.items():
        centred = (values - values.mean()) / values.std()
        of_pupil = centred[school]
        level_only = np.column_stack([plain[:, :-1], of_pupil, outcome])
        both = np.column_stack([plain[:, :-1], of_pupil, of_pupil * adjuster, outcome])
        rows.append({"moderator": label} | _moderated(fit(both, True, False), fit(level_only, True, False), without))
    centre, reach = float(free.beta[1]), float(norm.isf(0.025)) * sd
    return ConstantRisk(
        adjuster=name,
        coefficient=centre,
        coefficient_se=float(np.sqrt(free.beta_cov[1, 1])),
        sd=sd,
        lower=centre - reach,
        upper=centre + reach,
        statistic=ratio,
        p_value=0.5 * float(chi2.sf(ratio, 1) + chi2.sf(ratio, 2)),
        moderators=pd.DataFrame(rows, columns=["moderator", "coefficient", "se", "statistic", "p_value", "explained"]),
        schools=schools,
        pupils=len(outcome),
        coverage=coverage,
    )


def _moderated(both: NestedSolution, level_only: NestedSolution, without: NestedSolution) -> dict[str, float]:
    """What a moderator does to the coefficient of the adjuster: the last coefficient of `both`."""
    ratio = max(2.0 * (both.llf - level_only.llf), 0.0)
    before, after = (float(fit.covariances[0][1, 1]) for fit in (without, both))
    return {
        "coefficient": float(both.beta[-1]),
        "se": float(np.sqrt(both.beta_cov[-1, -1])),
        "statistic": ratio,
        "p_value": float(chi2.sf(ratio, 1)),
        "explained": float(np.clip(1.0 - after / before, 0.0, 1.0)) if before > 0.0 else float("nan"),
    }


def _weights(rows: FloatArray, school: NDArray[np.integer]) -> FloatArray:
    """Precision by adjuster, from what is left within schools and kinds of pupils; 1 for the pupils without."""
    kind = (rows[:, 1] >= _SPLIT).astype(np.intp)
    cell = school * 2 + kind
    counts = np.bincount(cell, minlength=2 * (int(school.max()) + 1))
    inside = np.column_stack([rows[:, 2:-1], rows[:, -1]])
    for k in range(inside.shape[1]):
        sums = np.bincount(cell, weights=inside[:, k], minlength=len(counts))
        inside[:, k] -= (sums / np.maximum(counts, 1))[cell]
    beta, *_ = np.linalg.lstsq(inside[:, :-1], inside[:, -1], rcond=None)
    left = np.bincount(kind, weights=(inside[:, -1] - inside[:, :-1] @ beta) ** 2, minlength=2)
    degrees = np.array([np.clip(counts[k::2] - 1, 0, None).sum() for k in (0, 1)])
    if degrees.min() < _FEWEST_LEFT or left.min() <= 0.0:
        return np.ones(len(rows))
    variance = left / degrees
    return np.asarray((variance[0] / variance)[kind])


def _check(
    outcome: FloatArray,
    adjuster: FloatArray,
    covariates: FloatArray,
    school: NDArray[np.integer],
    moderators: Mapping[str, FloatArray],
    coverage: float,
) -> None:
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")
    if not len(outcome) == len(adjuster) == len(covariates) == len(school):
        raise InputError("outcome, adjuster, covariates and school must be of the same pupils, one row each")
    for name, values in (("outcome", outcome), ("adjuster", adjuster), ("covariates", covariates)):
        gone = int((~np.isfinite(values)).reshape(len(school), -1).any(axis=1).sum())
        if gone:
            raise InputError(f"{name} has no value for {gone:,} pupils", "Leave these pupils out, and say how many.")
    schools = int(school.max()) + 1
    held = [np.bincount(school[part], minlength=schools) > 0 for part in (adjuster >= _SPLIT, adjuster < _SPLIT)]
    if (held[0] & held[1]).sum() < FEWEST_SCHOOLS:
        raise InputError(
            f"{int((held[0] & held[1]).sum())} schools have pupils with and without it; the check needs "
            f"{FEWEST_SCHOOLS} or more",
            "Take a wider definition of the adjuster, or more schools.",
        )
    for name, values in moderators.items():
        if len(values) != schools or not np.isfinite(values).all() or not values.std() > 0.0:
            raise InputError(
                f"{name} must be one number a school, known for all {schools:,} and not the same in all",
                "Leave out schools without one.",
            )
