"""Leniency of schools must not predict need before transfer: a test that allows for error in both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2, norm

from send_va.errors import InputError, NotSupportedError
from send_va.validation.corrected_regression import summed
from send_va.validation.label_pairs import LabelPairs, fit_pairs

if TYPE_CHECKING:
    from send_va.identification.need import Need

_MOST_DRAWS = 40  # for two variances, averaged over all pupils
FEWEST_SCHOOLS = 30  # with two variances and their correlation to estimate
_LEAST_SD = 0.05  # of either, SDs of unexplained need, below which their correlation means nothing


@dataclass(frozen=True)
class LeniencyCheck:
    """Whether lenient schools had needier pupils before they had them.

    Attributes
    ----------
    correlation, lower, upper : float
        Of the leniency of a school (its authority's policy included) with the need of its intake that background does
        not explain. 0 is what the identification model assumes.
    p_value : float
        Of a correlation of 0, by the likelihood ratio.
    intake_sd, leniency_sd : float
        SDs of unexplained need.
    kappa, rho : float
        What need and a label before transfer say of the label now.
    schools, pupils : int
    coverage : float
    converged : bool
    """

    correlation: float
    lower: float
    upper: float
    p_value: float
    intake_sd: float
    leniency_sd: float
    kappa: float
    rho: float
    schools: int
    pupils: int
    coverage: float
    converged: bool

    @property
    def rejects(self) -> bool:
        """Whether the p-value is below what coverage leaves."""
        return self.p_value < 1.0 - self.coverage

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.rejects:
            return "Nothing is found against leniency that is unrelated to need before transfer."
        way = "more" if self.correlation > 0.0 else "less"
        return (
            f"Schools that label generously had intakes with {way} need: generous schools attract it, or "
            "leniency and intake need are not told apart."
        )

    def __str__(self) -> str:
        return (
            f"Does leniency predict need before transfer? Correlation {self.correlation:+.2f} ({self.lower:+.2f} to "
            f"{self.upper:+.2f}), p = {self.p_value:.3f}; {self.schools:,} schools, {self.pupils:,} pupils.\n"
            f"{self.verdict}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{str(self).replace(chr(10), '<br>')}</p>"


def check_leniency(pairs: LabelPairs, *, coverage: float = 0.95) -> LeniencyCheck:
    """Estimate how leniency and intake need go together, from labels before transfer and now of the same pupils.

    Estimates of leniency and of intake need cannot simply be correlated: they are shrunken, and where intake need is
    taken too high, leniency comes out too low. Here both are integrated out: of a school's pupils, the pair of labels
    has a probability given its intake need (which moves both labels) and its leniency (which moves the label now), the
    two being normal with a correlation. Its likelihood ratio against none is the test.

    Parameters
    ----------
    pairs : LabelPairs
        From :func:`label_pairs_of` or :meth:`LabelPairs.of`.
    coverage : float

    Returns
    -------
    LeniencyCheck
        The interval is Wald's, on the scale of Fisher's z.

    Raises
    ------
    InputError
        Fewer than 30 schools with pupils; schools that do not differ in one of the two.

    References
    ----------
    Rothstein (2010), doi:10.1162/qjec.2010.125.1.175 (what happens later must not predict what was before).
    Self & Liang (1987), doi:10.1080/01621459.1987.10478472: the correlation is inside its range, so chi-squared holds.
    """
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")
    used = pairs.counts.sum(axis=(1, 2)) > 0
    if used.sum() < FEWEST_SCHOOLS:
        raise InputError(
            f"{int(used.sum())} schools have both labels; the check needs {FEWEST_SCHOOLS} or more",
            "Give more schools, or leave the check out.",
        )
    pairs = replace(pairs, counts=pairs.counts[used])
    null = fit_pairs(pairs, correlated=False)
    fit = fit_pairs(pairs, correlated=True, start=null.parameters)
    intake_sd, leniency_sd = np.exp(fit.parameters[4:6])
    if min(intake_sd, leniency_sd) < _LEAST_SD:
        raise InputError(
            f"schools hardly differ in intake need (SD {intake_sd:.3f}) or leniency (SD {leniency_sd:.3f}), so "
            "there is no correlation to test",
            "Say so in place of the check.",
        )
    ratio = max(2.0 * (fit.log_likelihood - null.log_likelihood), 0.0)
    reach = norm.isf((1.0 - coverage) / 2.0) * float(fit.se[-1])
    turned = float(fit.parameters[-1])
    return LeniencyCheck(
        correlation=float(np.tanh(turned)),
        lower=float(np.tanh(turned - reach)),
        upper=float(np.tanh(turned + reach)),
        p_value=float(chi2.sf(ratio, 1)),
        intake_sd=float(intake_sd),
        leniency_sd=float(leniency_sd),
        kappa=float(np.exp(fit.parameters[2])),
        rho=float(fit.parameters[3]),
        schools=int(used.sum()),
        pupils=int(pairs.counts.sum()),
        coverage=coverage,
        converged=null.converged and fit.converged,
    )


def label_pairs_of(need: Need) -> LabelPairs:
    """Labels of the pupils behind an identification fit, with what it says of background and of feeders.

    Parameters
    ----------
    need : Need
        With labels before transfer; draws of its parameters give the error of feeders' leniency.

    Raises
    ------
    NotSupportedError
        No labels before transfer.
    """
    if not need.has_entry:
        raise NotSupportedError("leniency and need before transfer cannot be told apart without labels before transfer")
    labels, at = need.labels, need.parameters
    rows = np.flatnonzero(labels.used_at_entry)
    lenient = at.leniency_before(labels)[rows, 0]
    school, error, shared = labels.school[rows], 0.0, 0.0
    if need.n_draws > 1:
        drawn = np.stack([draw.leniency_before(labels)[rows, 0] for draw in need.draws[:_MOST_DRAWS]], axis=1)
        error = float(drawn.var(axis=1, ddof=1).mean())
        size = np.maximum(np.bincount(school), 1)
        shared = float((summed(drawn, school, len(size)) / size[:, None])[school].var(axis=1, ddof=1).mean())
    return LabelPairs.of(
        school=school,
        before=labels.entry[rows] > 0,
        now=labels.now[rows] > 0,
        expected=labels.x[rows] @ at.gamma,
        leniency_before=lenient,
        error_variance=error,
        shared_variance=min(shared, error),
    )
