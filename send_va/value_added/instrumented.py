"""One prior score instrumented by another: a slope without attenuation where no standard error of measurement is known.

Two scores of the same pupil share attainment and not their errors, so the second tells which part of the first is
attainment. It assumes that the second score says nothing about the outcome that true attainment on the first, the
covariates and the school do not; a score in another subject may say more, and then the slope comes out too high.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from linearmodels.iv import IV2SLS
from linearmodels.iv.results import IVResults

from send_va.errors import CollinearityError, Failure, InputError
from send_va.multilevel.crossproducts import FloatArray, IntArray
from send_va.multilevel.formula import check_full_rank, random_design
from send_va.multilevel.grouping import nested_grouping
from send_va.value_added.given_slopes import PriorSlopes

# Rule of thumb for one instrument, Staiger & Stock (1997), doi:10.2307/2171753.
WEAK_F = 10.0
_SAME = 1e-9  # squared distance of two standardised scores below which they count as one


class WeakInstrumentWarning(UserWarning):
    """The instrument says little about the prior score; the slope and its interval cannot be relied on."""


@dataclass(frozen=True)
class InstrumentedSlope:
    """The slope on one prior score, instrumented by another.

    Attributes
    ----------
    prior, instrument : str
        Columns of the two scores.
    coefficient, se : float
        Two-stage least squares within schools, standard error clustered by school; outcome units per unit of score.
    coefficient_ols : float
        Least squares within schools on the same records.
    first_stage_f : float
        Cluster-robust F of the instrument; below 10 the instrument is weak.
    wu_hausman, wu_hausman_p : float
        Test that the two slopes agree (homoscedastic); a small p says that error in the score, or an instrument that
        acts on the outcome directly, matters.
    n_pupils, n_schools : int
    """

    prior: str
    instrument: str
    coefficient: float
    se: float
    coefficient_ols: float
    first_stage_f: float
    wu_hausman: float
    wu_hausman_p: float
    n_pupils: int
    n_schools: int

    @property
    def implied_reliability(self) -> float:
        """Least-squares slope as a share of the instrumented one: reliability of the score given the covariates."""
        return self.coefficient_ols / self.coefficient

    @property
    def slopes(self) -> PriorSlopes:
        """The slope in the form that :func:`send_va.value_added.given_slopes.adjust_outcome` takes."""
        return PriorSlopes((self.prior,), np.array([self.coefficient]), np.array([[self.se**2]]))

    def __str__(self) -> str:
        return (
            f"slope on {self.prior}, instrumented by {self.instrument}: {self.coefficient:.4f} (se {self.se:.4f}); "
            f"least squares {self.coefficient_ols:.4f}; first-stage F {self.first_stage_f:.1f}; Wu-Hausman "
            f"{self.wu_hausman:.2f} (p {self.wu_hausman_p:.3g}); {self.n_pupils:,} pupils, {self.n_schools:,} schools"
        )


def instrumented_slope(
    data: pd.DataFrame, *, outcome: str, prior: str, instrument: str | None, school: str, covariates: str = ""
) -> InstrumentedSlope:
    """Estimate the slope on true prior attainment by two-stage least squares within schools.

    Schools are taken out as fixed effects first: the instrument then need not be unrelated to schools' effects.

    Parameters
    ----------
    data : DataFrame, n rows
    outcome, prior, instrument : str
        Columns of numbers without missing values.
    school : str
        Fixed effects, and clusters of the standard error.
    covariates : str
        Right-hand side of a formula, such as ``"sped + frl"``; without the prior score.

    Returns
    -------
    InstrumentedSlope
        Compare `coefficient` with `coefficient_ols`: attenuation shows as a ratio below one (`implied_reliability`).

    Raises
    ------
    InputError
        Only one prior score; the same score twice; the prior score among the covariates; a column that is missing,
        has missing values or is text; fewer than two schools.
    CollinearityError
        A covariate, or a score, that does not vary within schools or is a combination of others.

    Warns
    -----
    WeakInstrumentWarning
        First-stage F below 10.

    References
    ----------
    Fuller (1987), doi:10.1002/9780470316665, section 2.4 (instrumental variables).
    Staiger & Stock (1997), doi:10.2307/2171753 (weak instruments).

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> true, noise = rng.normal(size=4000), rng.normal(size=(3, 4000))
    >>> data = pd.DataFrame({"school": np.arange(4000) % 40, "y": true + 0.5 * noise[0],
    ...                      "maths": true + noise[1], "reading": true + 0.5 * noise[2]})
    >>> slope = instrumented_slope(data, outcome="y", prior="maths", instrument="reading", school="school")
    >>> round(slope.coefficient_ols, 1), round(slope.coefficient, 1)
    (0.5, 1.0)
    """
    if instrument is None:
        raise InputError(
            Failure(
                rule="there is only one prior score, and an instrument is a second one with its own error",
                column=prior,
                remedy="Give the score's standard error of measurement instead (correct_cross_products).",
            )
        )
    _refuse_same_name(prior, instrument)
    grouping = nested_grouping(data, {school: "1"})
    codes, schools = grouping.codes, len(grouping.labels[0])
    if schools < 2:
        raise InputError(Failure("two schools or more are needed for a standard error by school", school, count=1))
    scores, _ = random_design(f"0 + `{outcome}` + `{prior}` + `{instrument}`", data, check_rank=False)
    X, names = random_design(f"1 + {covariates}" if covariates.strip() else "1", data, check_rank=False)
    if prior in names or instrument in names:
        raise InputError(
            Failure(
                rule="the prior score and its instrument cannot be covariates too",
                column=prior if prior in names else instrument,
                remedy="Take it out of `covariates`.",
            )
        )
    within = _demeaned(np.column_stack([scores, X[:, 1:]]), codes, schools)
    _refuse_degenerate(np.column_stack([scores, X[:, 1:]]), within, (outcome, prior, instrument, *names[1:]))
    return _two_stage(within, (outcome, prior, instrument, *names[1:]), codes, schools)


def _refuse_same_name(prior: str, instrument: str) -> None:
    if prior == instrument:
        raise InputError(
            Failure(
                rule="the instrument is the prior score itself, so it carries the same error",
                column=instrument,
                remedy="Name another score of the same pupils.",
            )
        )


def _demeaned(columns: FloatArray, codes: IntArray, groups: int) -> FloatArray:
    counts = np.bincount(codes, minlength=groups)
    means = np.column_stack([np.bincount(codes, weights=column, minlength=groups) for column in columns.T])
    return columns - (means / counts[:, None])[codes]


def _refuse_degenerate(columns: FloatArray, within: FloatArray, names: tuple[str, ...]) -> None:
    spread, left = (np.square(array - array.mean(axis=0)).sum(axis=0) for array in (columns, within))
    flat = [name for name, all_, own in zip(names, spread, left, strict=True) if own <= _SAME * max(all_, 1e-300)]
    if flat:
        raise CollinearityError(
            Failure("does not vary among pupils of the same school", name, remedy="Leave it out.") for name in flat
        )
    one, two = (within[:, k] / np.sqrt(left[k]) for k in (1, 2))
    if 1.0 - float(one @ two) ** 2 < _SAME:
        raise InputError(
            Failure(
                rule=f"the instrument is a copy or linear transform of {names[1]}, so it carries the same error",
                column=names[2],
                remedy="Name another score of the same pupils.",
            )
        )
    check_full_rank(within[:, 1:].T @ within[:, 1:], names[1:])


def _two_stage(within: FloatArray, names: tuple[str, ...], codes: IntArray, schools: int) -> InstrumentedSlope:
    frame = pd.DataFrame(within, columns=list(names))
    outcome, prior, instrument = frame.iloc[:, 0], frame.iloc[:, 1], frame.iloc[:, 2]
    exogenous = frame.iloc[:, 3:] if within.shape[1] > 3 else None
    model = IV2SLS(outcome, exogenous, prior, instrument)
    results = model.fit(cov_type="clustered", clusters=codes, debiased=True)
    assert isinstance(results, IVResults)  # least squares only where nothing is instrumented
    plain = np.linalg.lstsq(np.delete(within[:, 1:], 1, axis=1), within[:, 0])[0]
    first_stage = results.first_stage.diagnostics.iloc[0]
    hausman = results.wu_hausman()
    if first_stage["f.stat"] < WEAK_F:
        warnings.warn(
            f"{names[2]} is a weak instrument for {names[1]}: first-stage F {first_stage['f.stat']:.1f}, below "
            f"{WEAK_F:.0f}. The slope leans towards least squares and its interval is too short; use another score, or "
            "the standard error of measurement.",
            WeakInstrumentWarning,
            stacklevel=3,
        )
    return InstrumentedSlope(
        prior=names[1],
        instrument=names[2],
        coefficient=float(results.params[names[1]]),
        se=float(results.std_errors[names[1]]),
        coefficient_ols=float(plain[0]),
        first_stage_f=float(first_stage["f.stat"]),
        wu_hausman=float(hausman.stat),
        wu_hausman_p=float(hausman.pval),
        n_pupils=len(within),
        n_schools=schools,
    )
