"""One coefficient, and the confounders that would change it: robustness values and bounds by observed covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from send_va.errors import CollinearityError, InputError
from send_va.multilevel.formula import check_full_rank
from send_va.sensitivity.unmeasured import (
    Floats,
    adjusted_estimate,
    adjusted_se,
    adjusted_t,
    benchmark_bounds,
    group_partial_r2,
    partial_r2,
    robustness_value,
)


@dataclass(frozen=True)
class Regression:
    """A least-squares fit with classical standard errors.

    Attributes
    ----------
    names : tuple of str, length p
    beta : array, shape (p,)
    cov : array, shape (p, p)
    dof : float
        Residual degrees of freedom.
    """

    names: tuple[str, ...]
    beta: Floats
    cov: Floats
    dof: float

    @classmethod
    def of_products(
        cls, products: Floats, names: Sequence[str], outcome: str, covariates: Sequence[str], dof: float
    ) -> Regression:
        """Fit from cross-products of columns from which means (of groups) have been taken.

        Parameters
        ----------
        products : array, shape (m, m)
        names : sequence of str, length m
        outcome : str
        covariates : sequence of str
        dof : float
            Of the residuals: records less covariates and less what was absorbed.

        Raises
        ------
        CollinearityError
            A covariate that is zero throughout (constant within groups) or a combination of others.
        InputError
            No degree of freedom left.
        """
        if dof <= 1:
            raise InputError(f"{dof:.0f} degrees of freedom are left", "Use fewer covariates or more records.")
        at = [list(names).index(name) for name in covariates]
        y = list(names).index(outcome)
        check_full_rank(products[np.ix_(at, at)], covariates)
        size = np.sqrt(np.diag(products)[at])
        scaled = products[np.ix_(at, at)] / np.outer(size, size)
        right = products[at, y] / size
        beta = np.linalg.solve(scaled, right)
        left = float(products[y, y] - beta @ (2.0 * right - scaled @ beta))
        cov = np.linalg.inv(scaled) * left / dof
        return cls(tuple(covariates), beta / size, cov / np.outer(size, size), float(dof))

    @classmethod
    def of_ols(cls, result: Any) -> Regression:
        """Read a fit of statsmodels' OLS; its standard errors are taken as classical, whatever it prints.

        Raises
        ------
        InputError
            Not an OLS fit, or one with covariates that are combinations of others.
        """
        if type(getattr(result, "model", None)).__name__ != "OLS":
            raise InputError("this is no fit of statsmodels' OLS", "Partial R2 is defined for least squares.")
        if int(result.model.rank) < len(result.model.exog_names):
            raise CollinearityError("covariates are combinations of others", "Leave out what the others say already.")
        cov = np.asarray(result.normalized_cov_params) * float(result.mse_resid)
        return cls(tuple(result.model.exog_names), np.asarray(result.params), cov, float(result.df_resid))

    def estimate(self, name: str) -> tuple[float, float]:
        """Coefficient and standard error."""
        k = self.names.index(name)
        return float(self.beta[k]), float(np.sqrt(self.cov[k, k]))

    def share(self, group: Sequence[str]) -> float:
        """Share of what the other covariates leave of the outcome that `group` explains."""
        at = [self.names.index(name) for name in group]
        return group_partial_r2(self.beta[at], self.cov[np.ix_(at, at)], self.dof)


_SAID = 3  # benchmarks named in words


def _percent(share: float) -> str:
    """Two digits, of small shares too."""
    return f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.2g}" if share >= 5e-5 else "less than 0.01"


@dataclass(frozen=True)
class CoefficientSensitivity:
    """How robust one coefficient is to a confounder nobody measured.

    Attributes
    ----------
    treatment : str
    estimate, se, dof : float
        Coefficient, classical standard error, residual degrees of freedom.
    q, alpha : float
        As in :func:`send_va.sensitivity.unmeasured.robustness_value`; `alpha` for :attr:`robustness_significance`.
    benchmarks : DataFrame
        One row a benchmark and multiple: benchmark, kd, ky, label (``1x fsm6``), r2_dz and r2_yz (most that a
        confounder as strong could explain of what is left of treatment and outcome), capped (`r2_yz` was cut to 1),
        adjusted_estimate, adjusted_se, adjusted_t, adjusted_lower, adjusted_upper (``1 - alpha`` interval).
    impossible : tuple of str
        Benchmarks and multiples that would explain all of the treatment: no such confounder exists.
    meaning : str
        What the coefficient is, and what these numbers do not say of it.
    """

    treatment: str
    estimate: float
    se: float
    dof: float
    q: float
    alpha: float
    benchmarks: pd.DataFrame
    impossible: tuple[str, ...] = ()
    meaning: str = ""

    @property
    def t(self) -> float:
        """Estimate over standard error."""
        return self.estimate / self.se

    @property
    def partial_r2(self) -> float:
        """Share of what is left of the outcome that the treatment explains."""
        return float(partial_r2(self.estimate, self.se, self.dof))

    @property
    def robustness(self) -> float:
        """Robustness value of the point estimate."""
        return float(robustness_value(self.estimate, self.se, self.dof, self.q))

    @property
    def robustness_significance(self) -> float:
        """Robustness value at which the coefficient is no longer significant at `alpha`."""
        return float(robustness_value(self.estimate, self.se, self.dof, self.q, self.alpha))

    @property
    def table(self) -> pd.DataFrame:
        """The estimate as it is, then its bounds: treatment, estimate, se, dof, robustness, then as `benchmarks`."""
        as_is = {"benchmark": "", "label": "unadjusted", "kd": 0.0, "ky": 0.0, "r2_dz": 0.0, "r2_yz": 0.0}
        reach = float(student.ppf(1.0 - self.alpha / 2.0, self.dof)) * self.se
        as_is |= {"capped": False, "adjusted_estimate": self.estimate, "adjusted_se": self.se, "adjusted_t": self.t}
        as_is |= {"adjusted_lower": self.estimate - reach, "adjusted_upper": self.estimate + reach}
        rows = pd.DataFrame([as_is, *self.benchmarks.to_dict("records")], columns=list(self.benchmarks.columns))
        known = {"treatment": self.treatment, "estimate": self.estimate, "se": self.se, "dof": self.dof}
        return pd.DataFrame(known | {"robustness": self.robustness}, index=rows.index).join(rows)

    @property
    def words(self) -> str:
        """How to read the numbers; of the benchmarks those that change the estimate most."""
        what = "bring it to zero" if self.q == 1.0 else f"reduce it by {100 * self.q:.0f} %"
        lines = [
            f"The coefficient of {self.treatment} is {self.estimate:.4g} (SE {self.se:.3g}). An unmeasured confounder "
            f"that explains less than {100 * self.robustness:.1f} % of what is left of both {self.treatment} and the "
            f"outcome cannot {what}; to leave it no longer significant at {100 * self.alpha:.3g} %, it must explain "
            f"{100 * self.robustness_significance:.1f} % of both. One that explains all that is left of the outcome "
            f"needs {100 * self.partial_r2:.2f} % of {self.treatment} to bring it to zero."
        ]
        first = self.benchmarks.drop_duplicates("benchmark")
        strongest = first.assign(left=(first["adjusted_estimate"] - self.estimate).abs()).nlargest(_SAID, "left")
        for row in strongest.to_dict("records"):
            number = {str(key): float(value) for key, value in row.items() if key not in ("benchmark", "label")}
            times = "" if number["kd"] == number["ky"] == 1.0 else f"{number['kd']:g} times "
            lines.append(
                f"A confounder {times}as strong as {row['benchmark']} would explain at most "
                f"{_percent(number['r2_dz'])} % of {self.treatment} and {_percent(number['r2_yz'])} % of the outcome "
                f"and leave {number['adjusted_estimate']:.4g} ({number['adjusted_lower']:.4g} to "
                f"{number['adjusted_upper']:.4g})."
            )
        if self.impossible:
            lines.append(f"No confounder can be {', '.join(self.impossible)}: it would explain all of the treatment.")
        return " ".join([*lines, self.meaning]).strip()

    def __str__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return f"<p>{self.words}</p>{self.benchmarks.to_html(index=False)}"


def coefficient_sensitivity(
    outcome: Regression,
    treatment: Regression,
    name: str,
    benchmarks: Mapping[str, Sequence[str]],
    *,
    kd: Sequence[float] = (1.0, 2.0, 3.0),
    ky: Sequence[float] | None = None,
    q: float = 1.0,
    alpha: float = 0.05,
    reduce: bool = True,
    meaning: str = "",
) -> CoefficientSensitivity:
    """Bound one coefficient by how much observed covariates explain.

    Parameters
    ----------
    outcome : Regression
        Of the outcome on treatment and covariates.
    treatment : Regression
        Of the treatment on the same covariates.
    name : str
        The treatment, as named in `outcome`.
    benchmarks : mapping of str to sequence of str
        What to call a benchmark, and its covariates (several for a spline or a category).
    kd, ky : sequence of float
        How many times as strong a confounder is, for treatment and outcome; `ky` as `kd` by default.
    q, alpha : float
    reduce : bool
        Confounders work towards zero; False: away from it.
    meaning : str

    Returns
    -------
    CoefficientSensitivity

    Raises
    ------
    InputError
        An unknown treatment or covariate.

    References
    ----------
    Cinelli & Hazlett (2020), doi:10.1111/rssb.12348.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x, d = rng.normal(size=(2, 400))
    >>> d += 0.3 * x
    >>> rows = np.column_stack([x, d, d + x + rng.normal(size=400)])
    >>> products = np.cov(rows.T) * 399
    >>> names = ["x", "d", "y"]
    >>> y_fit = Regression.of_products(products, names, "y", ["d", "x"], 397)
    >>> d_fit = Regression.of_products(products, names, "d", ["x"], 398)
    >>> found = coefficient_sensitivity(y_fit, d_fit, "d", {"x": ["x"]}, kd=[1.0])
    >>> 0.5 < found.robustness < 0.7, found.benchmarks["label"].tolist()
    (True, ['1x x'])
    """
    others = [covariate for covariate in outcome.names if covariate != name]
    unknown = sorted({c for group in benchmarks.values() for c in group} - set(others))
    if name not in outcome.names or unknown:
        missing = unknown if name in outcome.names else [name]
        raise InputError(
            f"no covariate {', '.join(missing)} in the regression", f"It holds {', '.join(map(str, outcome.names))}."
        )
    if any(not len(group) for group in benchmarks.values()):
        raise InputError("a benchmark has no covariate", "Give at least one a benchmark.")
    estimate, se = outcome.estimate(name)
    robustness_value(estimate, se, outcome.dof, q, alpha)  # refuses q and alpha before anything is shown
    rows, impossible = [], []
    for label, group in benchmarks.items():
        shares = treatment.share(group), outcome.share(group)
        for d, y in zip(kd, kd if ky is None else ky, strict=True):
            named = f"{d:g}x {label}" if d == y else f"{d:g}x/{y:g}x {label}"
            try:
                row = _bounded(estimate, se, outcome.dof, *shares, d, y, alpha, reduce)
            except InputError:
                if d < 0 or y < 0:
                    raise
                impossible.append(named)
                continue
            rows.append({"benchmark": label, "kd": d, "ky": y, "label": named} | row)
    table = pd.DataFrame(rows, columns=["benchmark", "kd", "ky", "label", *_BOUND])
    return CoefficientSensitivity(name, estimate, se, outcome.dof, q, alpha, table, tuple(impossible), meaning)


_BOUND = (
    "r2_dz",
    "r2_yz",
    "capped",
    "adjusted_estimate",
    "adjusted_se",
    "adjusted_t",
    "adjusted_lower",
    "adjusted_upper",
)


def _bounded(
    estimate: float, se: float, dof: float, r2_dx: float, r2_yx: float, kd: float, ky: float, alpha: float, reduce: bool
) -> dict[str, float | bool]:
    bound = benchmark_bounds(r2_dx, r2_yx, kd=kd, ky=ky)
    strength = bound.r2_dz, bound.r2_yz
    moved, spread = (
        float(adjusted_estimate(estimate, se, dof, *strength, reduce=reduce)),
        float(adjusted_se(se, dof, *strength)),
    )
    reach = float(student.ppf(1.0 - alpha / 2.0, dof)) * spread
    t = float(adjusted_t(estimate, se, dof, *strength, reduce=reduce)) if spread > 0 else float("nan")
    values = (*strength, bound.capped, moved, spread, t, moved - reach, moved + reach)
    return dict(zip(_BOUND, values, strict=True))


def ols_sensitivity(
    result: Any,
    treatment: str,
    benchmarks: Sequence[str] | Mapping[str, Sequence[str]],
    **wanted: Any,
) -> CoefficientSensitivity:
    """Bound one coefficient of a fit by statsmodels' OLS.

    Parameters
    ----------
    result : statsmodels results
        Of ``OLS``.
    treatment : str
        Name of its column.
    benchmarks : sequence or mapping
        Names of columns, or names of groups with their columns.
    **wanted
        ``kd``, ``ky``, ``q``, ``alpha``, ``reduce``, as in :func:`coefficient_sensitivity`.

    Returns
    -------
    CoefficientSensitivity

    Raises
    ------
    InputError
        Not an OLS fit, or an unknown column.

    References
    ----------
    Cinelli & Hazlett (2020), doi:10.1111/rssb.12348.

    Examples
    --------
    >>> import statsmodels.formula.api as smf
    >>> rng = np.random.default_rng(1)
    >>> data = pd.DataFrame(rng.normal(size=(300, 3)), columns=["x", "d", "y"])
    >>> data["y"] += 0.5 * data["d"] + data["x"]
    >>> found = ols_sensitivity(smf.ols("y ~ d + x", data).fit(), "d", ["x"], kd=[1.0])
    >>> f"{found.robustness:.2f}"
    '0.39'
    """
    from statsmodels.regression.linear_model import OLS

    outcome = Regression.of_ols(result)
    if treatment not in outcome.names:
        raise InputError(f"no column {treatment!r} in the fit", f"It holds {', '.join(outcome.names)}.")
    exog = pd.DataFrame(np.asarray(result.model.exog), columns=list(outcome.names))
    of_treatment = Regression.of_ols(OLS(exog[treatment], exog.drop(columns=treatment)).fit())
    groups = benchmarks if isinstance(benchmarks, Mapping) else {name: [name] for name in benchmarks}
    return coefficient_sensitivity(outcome, of_treatment, treatment, groups, **wanted)
