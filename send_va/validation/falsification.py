"""Effects of schools must not predict earlier scores: a test that allows for error in the scores held constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from send_va.errors import InputError
from send_va.validation.corrected_regression import (
    Codes,
    CorrectedRegression,
    Floats,
    corrected_regression,
    error_variance_of,
    summed,
)

SEES = (
    "It sees what the schools compared differ by lastingly and what shows in earlier scores given the prior scores: "
    "sorting on need that lowered earlier scores, and a baseline that the school has moved."
)
BLIND = (
    "It does not see sorting on need that left no trace in earlier scores, and drift; a test that does not reject is "
    "no proof. What it can detect is the size stated beside it."
)
FEWEST_SCHOOLS = 10


@dataclass(frozen=True, eq=False)
class PupilScores:
    """What the test reads of pupils.

    Attributes
    ----------
    school : integer array, shape (n,)
        0 to schools - 1.
    fold : integer array, shape (n,)
        Cohort of the pupil: effects are taken from the other ones. With one cohort, halves (:func:`halves`).
    earlier : array, shape (n,)
        A score from before the prior scores, which the value-added model does not hold constant. Its own error of
        measurement does no harm.
    prior : array, shape (n, k)
        Prior scores that the model holds constant.
    error_variance : array, shape (n, k)
        Of the prior scores, squared score units; zeros make the uncorrected test.
    covariates : array, shape (n, p)
        Held constant besides; without a column of ones. May be empty.
    """

    school: NDArray[np.integer]
    fold: NDArray[np.integer]
    earlier: Floats
    prior: Floats
    error_variance: Floats
    covariates: Floats

    @classmethod
    def of(
        cls,
        *,
        school: Codes,
        fold: Codes,
        earlier: Floats | None,
        prior: Floats,
        reliability: float | None = None,
        sem: Floats | None = None,
        covariates: Floats | None = None,
    ) -> PupilScores:
        """Check arrays and work out error variances.

        Parameters
        ----------
        reliability : float, optional
            Of every prior score: the share of its variance that is no error.
        sem : array, shape (n,) or (n, k), optional
            Standard errors of measurement, in place of a reliability.

        Raises
        ------
        InputError
            No earlier score, neither or both of reliability and sem, values that are missing, a single fold.

        Examples
        --------
        >>> n = np.arange(8)
        >>> scores = PupilScores.of(school=n % 2, fold=n % 4 // 2, earlier=n * 1.0, prior=n[:, None] * 1.0,
        ...     reliability=0.9)
        >>> scores.error_variance.shape
        (8, 1)
        """
        if earlier is None:
            raise InputError(
                "there is no earlier score, so nothing to falsify with",
                "Name a score from before the prior scores (key stage 1, say) that the model does not hold constant.",
            )
        columns = prior.reshape(len(prior), -1)
        others = np.zeros((len(prior), 0)) if covariates is None else covariates.reshape(len(prior), -1)
        _check(school, fold, earlier, columns, others)
        if (reliability is None) == (sem is None):
            raise InputError("give either the reliability of prior scores or their standard errors of measurement")
        if sem is not None:
            if not (np.isfinite(sem).all() and (sem >= 0.0).all()):
                raise InputError("a standard error of measurement is no number, or below zero", "Leave the record out.")
            noise = np.broadcast_to(sem.reshape(len(prior), -1) ** 2, columns.shape)
        else:
            assert reliability is not None
            noise = np.column_stack([error_variance_of(columns[:, k], reliability) for k in range(columns.shape[1])])
        return cls(school, fold, earlier, columns, np.asarray(noise), others)


@dataclass(frozen=True)
class Falsification:
    """Whether effects of schools predict earlier scores, given prior scores.

    Attributes
    ----------
    coefficient, se : float
        Of the effect of the pupil's school (estimated without the pupil's cohort) in the earlier score given true prior
        scores: units of the earlier score per outcome unit. Zero where the test has nothing to object to. Shrinkage
        does not bring it to what it would be on true effects: it is for the test, not a size.
    p_value : float
        Two-sided, by Student's t with one degree less than schools.
    lower, upper : float
        Interval of the coefficient.
    schools, pupils : int
    coverage : float
    corrected : bool
        Whether any error variance was taken out.
    """

    coefficient: float
    se: float
    p_value: float
    lower: float
    upper: float
    schools: int
    pupils: int
    coverage: float
    corrected: bool

    @property
    def rejects(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.p_value < 1.0 - self.coverage

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.corrected:
            return "Not corrected for error in the prior scores: it rejects far too often unless they have none."
        if self.rejects:
            return "Effects predict scores from before the school had its pupils: they are not its doing alone."
        return "Nothing is found against the effects; see what the test can detect."

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for a table of tests."""
        names = ("coefficient", "se", "p_value", "lower", "upper", "schools", "pupils", "coverage", "corrected")
        return {name: getattr(self, name) for name in names} | {"rejects": self.rejects, "verdict": self.verdict}

    def __str__(self) -> str:
        return (
            f"Do effects predict earlier scores? Coefficient {self.coefficient:+.3f} ({self.lower:+.3f} to "
            f"{self.upper:+.3f}), p = {self.p_value:.3f}; {self.schools:,} schools, {self.pupils:,} pupils.\n"
            f"{self.verdict}\n{SEES}\n{BLIND}"
        )

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self.as_dict().items())
        return f"<table>{cells}</table>"


def falsify(
    scores: PupilScores,
    *,
    outcome: Floats | None = None,
    effects: Floats | None = None,
    coverage: float = 0.95,
) -> Falsification:
    """Test whether effects of schools predict earlier scores of pupils who are not in the estimates.

    Prior scores carry error, so that at given observed scores pupils of high intakes have higher true ones: both their
    earlier scores and the estimates of their schools are higher, and a plain regression rejects by itself. Here the
    error variance is taken out of the cross-products of both regressions. Errors of a pupil's own prior scores would
    still be in both, which is why effects come from other pupils.

    Parameters
    ----------
    scores : PupilScores
    outcome : array, shape (n,), optional
        Effects are estimated from it, by :func:`effects_without`.
    effects : array, shape (schools, folds), optional
        Effects estimated elsewhere, without the pupils of the fold (see
        :func:`send_va.validation.forecast.leave_year_out`); missing where there are none. In place of `outcome`.
    coverage : float

    Returns
    -------
    Falsification
        A p-value below .05 on records where assumptions hold comes up in 5 of 100 cases. Read with the power study:
        without the size of violation that is detected, a high p-value says nothing.

    Raises
    ------
    InputError
        Neither or both of outcome and effects; fewer than ten schools with effects.

    References
    ----------
    Rothstein (2010), doi:10.1162/qjec.2010.125.1.175 (the test).
    Fuller (1987), doi:10.1002/9780470316665 (the correction).

    Examples
    --------
    >>> from send_va.validation.falsification_worlds import FalsificationWorld
    >>> world = FalsificationWorld(schools=60, reliability=0.8)
    >>> drawn = world.draw(np.random.default_rng(1))
    >>> falsify(drawn.scores(corrected=True), outcome=drawn.outcome).rejects
    False
    """
    if (outcome is None) == (effects is None):
        raise InputError("give either the outcome of pupils or effects of schools estimated without them")
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")
    made = effects_without(scores, outcome) if outcome is not None else None
    effect = made.effect if made is not None else np.asarray(effects)[scores.school, scores.fold]
    kept = np.isfinite(effect)
    names, school = np.unique(scores.school[kept], return_inverse=True)
    if len(names) < FEWEST_SCHOOLS:
        raise InputError(
            f"{len(names)} schools have effects from other cohorts; the test needs {FEWEST_SCHOOLS} or more",
            "Give two cohorts or more of the same schools, or halves of one.",
        )
    held = _held(scores)[kept]
    x = np.column_stack([effect[kept], scores.prior[kept], held])
    noise = np.column_stack([np.zeros(kept.sum()), scores.error_variance[kept], np.zeros_like(held)])
    fit = corrected_regression(scores.earlier[kept], x, noise, school)
    influence = fit.influence[:, 0]
    if made is not None:
        influence = influence + _from_slopes(fit, made, kept, x, noise)[names]
    schools = len(names)
    se = float(np.sqrt((influence**2).sum() * schools / (schools - 1.0)))
    value = float(fit.coefficients[0])
    reach = float(student.isf((1.0 - coverage) / 2.0, schools - 1)) * se
    return Falsification(
        coefficient=value,
        se=se,
        p_value=float(2.0 * student.sf(abs(value) / se, schools - 1)),
        lower=value - reach,
        upper=value + reach,
        schools=schools,
        pupils=int(kept.sum()),
        coverage=coverage,
        corrected=bool(scores.error_variance.any()),
    )


@dataclass(frozen=True, eq=False)
class EffectsWithout:
    """Effects of each pupil's school, estimated without the pupil's fold.

    Attributes
    ----------
    effect : array, shape (n,)
        Shrunken; outcome units; missing where the school has pupils in one fold only.
    slope : CorrectedRegression
        Of the outcome on the columns held constant, within schools and folds.
    gradient : array, shape (n, k)
        Derivative of the effects by these slopes.
    """

    effect: Floats
    slope: CorrectedRegression
    gradient: Floats


def effects_without(scores: PupilScores, outcome: Floats) -> EffectsWithout:
    """Estimate effects of schools from the pupils of other folds, corrected for error in prior scores.

    Slopes come from differences within schools and folds, so that intakes may go with effects; taking means of ``n``
    pupils leaves the share ``1 - 1/n`` of the error variance.

    Parameters
    ----------
    scores : PupilScores
    outcome : array, shape (n,)

    Returns
    -------
    EffectsWithout
    """
    folds = int(scores.fold.max()) + 1
    cell = scores.school * folds + scores.fold
    schools = int(scores.school.max()) + 1
    counts = np.bincount(cell, minlength=schools * folds).astype(np.float64)
    columns = np.column_stack([scores.prior, scores.covariates, outcome])
    sums = summed(columns, cell, schools * folds)
    means = sums / np.maximum(counts, 1.0)[:, None]
    inside = columns - means[cell]
    left = 1.0 - 1.0 / counts[cell]
    noise = np.column_stack([scores.error_variance * left[:, None], np.zeros_like(scores.covariates)])
    slope = corrected_regression(inside[:, -1], inside[:, :-1], noise, scores.school)
    national = summed(columns, scores.fold, folds) / np.maximum(np.bincount(scores.fold), 1.0)[:, None]
    about = (means - np.tile(national, (schools, 1))).reshape(schools, folds, -1)
    size = counts.reshape(schools, folds)
    direction = np.append(-slope.coefficients, 1.0)
    variance = float((slope.residual**2).sum() / (counts - 1.0).clip(0.0).sum())
    shrink = _between(about @ direction, size, variance)
    others = size.sum(axis=1, keepdims=True) - size
    weight = np.where(others > 0, 1.0 / (others + variance / shrink), np.nan)  # (schools, folds)
    total = (size[:, :, None] * about).sum(axis=1, keepdims=True) - size[:, :, None] * about
    wide = weight[:, :, None] * total  # (schools, folds, columns): shrunken means without the fold
    at = wide[scores.school, scores.fold]
    return EffectsWithout(at @ direction, slope, -at[:, :-1])


def halves(school: Codes, rng: np.random.Generator) -> NDArray[np.int64]:
    """Two random halves of the pupils of every school, as folds of a single cohort.

    Examples
    --------
    >>> halves(np.array([0, 0, 0, 0, 1, 1]), np.random.default_rng(1)).sum()
    np.int64(3)
    """
    shuffled = rng.permutation(len(school))
    order = shuffled[np.argsort(school[shuffled], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(school))])
    fold = np.empty(len(school), dtype=np.int64)
    fold[order] = (np.arange(len(school)) - starts[school[order]]) % 2
    return fold


def _between(means: Floats, size: Floats, within: float) -> float:
    """Variance of effects, from the spread of school means beyond chance; at least a hundredth of what is within."""
    total = size.sum(axis=1)
    averages = (size * means).sum(axis=1) / np.maximum(total, 1.0)
    spread = float((total * averages**2).sum() - within * (total > 0).sum()) / float(total.sum())
    return max(spread, 0.01 * within)


def _held(scores: PupilScores) -> Floats:
    """Covariates and an indicator of every fold."""
    folds = np.arange(int(scores.fold.max()) + 1)
    used = folds[np.bincount(scores.fold) > 0]
    return np.column_stack([scores.covariates, (scores.fold[:, None] == used).astype(np.float64)])


def _from_slopes(
    fit: CorrectedRegression, made: EffectsWithout, kept: NDArray[np.bool_], x: Floats, noise: Floats
) -> Floats:
    """What uncertain slopes of the outcome add to the error of the coefficient, by school.

    At a true coefficient of zero it is small of second order; away from it, it is not.
    """
    bread = np.linalg.inv(x.T @ x - np.diag(noise.sum(axis=0)))
    gradient = made.gradient[kept]
    moved = gradient.T @ fit.residual - fit.coefficients[0] * (gradient.T @ x[:, 0])
    side = -fit.coefficients[0] * (x[:, 1:].T @ gradient)  # the other equations move as well
    change = bread[0, 0] * moved + bread[0, 1:] @ side
    return np.asarray(made.slope.influence @ change)


def _check(school: Codes, fold: Codes, earlier: Floats, prior: Floats, covariates: Floats) -> None:
    n = len(prior)
    if not len(school) == len(fold) == len(earlier) == len(covariates) == n:
        raise InputError("school, fold, earlier, prior and covariates must be of the same pupils, one row each")
    for name, values in (("earlier", earlier), ("prior", prior), ("covariates", covariates)):
        gone = int((~np.isfinite(values)).reshape(n, -1).any(axis=1).sum())
        if gone:
            raise InputError(f"{name} has no value for {gone:,} pupils", "Leave these pupils out, and say how many.")
    if len(np.unique(fold)) < 2:
        raise InputError(
            "all pupils are in one fold, so no effect is estimated without them",
            "Give two cohorts or more, or split one with halves().",
        )
