"""Priors of the collapsed model, on the outcome's own scale, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.stats import halfnorm, norm

from send_va.errors import InputError
from send_va.multilevel.collapsed_data import CollapsedData
from send_va.multilevel.collapsed_robust import log_prior_nu
from send_va.multilevel.crossproducts import FloatArray

REASONS = {
    "coefficient": "normal: one SD of a covariate moves the outcome by more than this many SDs in one case of three; "
    "keeps coefficients of nearly empty categories finite",
    "intercept": "normal around the mean outcome: hardly informative",
    "group_sd": "half-normal: schools rarely differ by more than a pupil SD; published school SDs are .1 to .4",
    "outer_sd": "half-normal: authorities account for 2 to 4 % of variance (EPI 2021), an SD of about .15 to .2",
    "correlation": "LKJ: level, gap and slope of a school need not go together; +1 and -1 are discouraged",
    "residual_sd": "half-normal: pupils of one kind vary about as much as all pupils do",
    "nu": "2 + Gamma(2, 0.1) (Juarez & Steel 2010, moved up by two): mean 22, so schools are nearly normal unless they "
    "say otherwise, and effects have a variance",
}


@dataclass(frozen=True)
class Priors:
    """Scales of the priors, in SDs of the outcome between records.

    Attributes
    ----------
    coefficient : float
        SD of a coefficient, per SD of its column.
    intercept : float
        SD of the intercept (of centred columns) around the mean outcome.
    group_sd, outer_sd : float
        Scale of the half-normal prior of an SD between groups, and between outer groups.
    correlation : float
        Shape of the LKJ prior; 1 is uniform over correlation matrices.
    residual_sd : float
        Scale of the half-normal prior of a residual SD.

    References
    ----------
    Gelman (2006), doi:10.1214/06-BA117A (half-normal and half-t priors on standard deviations).
    Lewandowski, Kurowicka & Joe (2009), doi:10.1016/j.jmva.2009.04.008 (LKJ).

    Examples
    --------
    >>> Priors().wider(10).group_sd
    5.0
    """

    coefficient: float = 2.5
    intercept: float = 2.5
    group_sd: float = 0.5
    outer_sd: float = 0.25
    correlation: float = 2.0
    residual_sd: float = 1.0

    def __post_init__(self) -> None:
        """Refuse scales that are no scales."""
        for item in fields(self):
            value = getattr(self, item.name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise InputError(f"the prior scale {item.name} must be a positive number, not {value!r}")

    def wider(self, factor: float) -> Priors:
        """All scales times a factor, and correlations uniform: priors that say next to nothing."""
        scaled = {item.name: float(getattr(self, item.name)) * factor for item in fields(self)}
        return replace(self, **(scaled | {"correlation": 1.0}))


@dataclass(frozen=True)
class PriorDraws:
    """Parameters drawn from their prior, in outcome units.

    Attributes
    ----------
    beta : array, shape (draws, p)
        Coefficients of the centred columns.
    group_sd : array, shape (draws, q)
    group_corr : array, shape (draws, q, q)
    outer_sd : array, shape (draws, q2)
    residual_sd : array, shape (draws, S)
    """

    beta: FloatArray
    group_sd: FloatArray
    group_corr: FloatArray
    outer_sd: FloatArray
    residual_sd: FloatArray


@dataclass(frozen=True)
class PriorScales:
    """Priors of one data set, in outcome units.

    Attributes
    ----------
    mean, sd : array, shape (p,)
        Of the coefficients of the centred columns.
    group_sd : array, shape (q,)
    outer_sd : array, shape (q2,)
    correlation : float
    residual_sd : float
    strata : int
        Residual SDs, S.
    """

    mean: FloatArray
    sd: FloatArray
    group_sd: FloatArray
    outer_sd: FloatArray
    correlation: float
    residual_sd: float
    strata: int = 1

    @classmethod
    def of(cls, priors: Priors, data: CollapsedData) -> PriorScales:
        """On the scale of this outcome.

        Raises
        ------
        InputError
            The outcome does not vary, or a column is constant.
        """
        sizes = data.column_sds()
        outcome = float(sizes[-1])
        if not outcome > 0.0:
            raise InputError("the outcome is constant", "Check that it is a result of the records.")
        intercept = np.array([name == "Intercept" for name in data.columns])
        flat = [name for name, size in zip(data.columns, sizes[:-1], strict=True) if size == 0 and name != "Intercept"]
        if flat:
            raise InputError(f"{', '.join(flat)} is constant, so it has no coefficient", "Leave it out.")
        sd = priors.coefficient * outcome / np.where(intercept, 1.0, sizes[:-1])
        return cls(
            mean=np.where(intercept, data.outcome_mean, 0.0),
            sd=np.where(intercept, priors.intercept * outcome, sd),
            group_sd=np.full(len(data.effects), priors.group_sd * outcome),
            outer_sd=np.full(len(data.outer_effects), priors.outer_sd * outcome),
            correlation=priors.correlation,
            residual_sd=priors.residual_sd * outcome,
            strata=len(data.strata),
        )

    def draw(self, rng: np.random.Generator, count: int) -> PriorDraws:
        """Draw parameters from their prior.

        Parameters
        ----------
        rng : numpy.random.Generator
        count : int

        Returns
        -------
        PriorDraws

        Raises
        ------
        InputError
            `count` below one.

        Examples
        --------
        >>> scales = PriorScales(np.zeros(1), np.ones(1), np.full(2, 0.5), np.zeros(0), 2.0, 1.0)
        >>> scales.draw(np.random.default_rng(1), 3).group_corr.shape
        (3, 2, 2)
        """
        if count < 1:
            raise InputError(f"draws must be at least 1, not {count}")
        return PriorDraws(
            beta=self.mean + self.sd * rng.standard_normal((count, len(self.mean))),
            group_sd=self.group_sd * np.abs(rng.standard_normal((count, len(self.group_sd)))),
            group_corr=lkj_correlations(rng, count, len(self.group_sd), self.correlation),
            outer_sd=self.outer_sd * np.abs(rng.standard_normal((count, len(self.outer_sd)))),
            residual_sd=self.residual_sd * np.abs(rng.standard_normal((count, self.strata))),
        )

    def log_density(
        self,
        beta: FloatArray,
        group_sd: FloatArray,
        corr: FloatArray,
        outer_sd: FloatArray,
        residual_sd: FloatArray,
        nu: FloatArray | None = None,
    ) -> dict[str, FloatArray]:
        """Log prior density of draws (..., size), by kind of parameter, but for the constant of the LKJ density."""
        tails = {} if nu is None else {"nu": log_prior_nu(nu)}
        return tails | {
            "coefficients": np.asarray(norm.logpdf(beta, self.mean, self.sd)).sum(axis=-1),
            "group_sd": np.asarray(halfnorm.logpdf(group_sd, scale=self.group_sd)).sum(axis=-1),
            "correlation": (self.correlation - 1.0) * np.log(np.linalg.det(corr)),
            "outer_sd": np.asarray(halfnorm.logpdf(outer_sd, scale=self.outer_sd)).sum(axis=-1),
            "residual_sd": np.asarray(halfnorm.logpdf(residual_sd, scale=self.residual_sd)).sum(axis=-1),
        }


def lkj_correlations(rng: np.random.Generator, count: int, q: int, shape: float) -> FloatArray:
    """Draw correlation matrices (count, q, q) from the LKJ distribution, by their partial correlations.

    Each correlation is ``2 Beta(a, a) - 1`` with ``a = shape + q / 2 - 1``.

    References
    ----------
    Lewandowski, Kurowicka & Joe (2009), doi:10.1016/j.jmva.2009.04.008, section 2.4.
    """
    lower = np.zeros((count, q, q))
    left = np.ones((count, q))  # of each row's squared length
    for column in range(q):
        lower[:, column, column] = np.sqrt(left[:, column])
        below = slice(column + 1, q)
        size = shape + 0.5 * (q - 2 - column)
        partial = 2.0 * rng.beta(size, size, (count, max(q - 1 - column, 0))) - 1.0 if column + 1 < q else 0.0
        lower[:, below, column] = partial * np.sqrt(left[:, below])
        left[:, below] -= lower[:, below, column] ** 2
    return np.asarray(lower @ np.swapaxes(lower, -1, -2))
