"""The area model (Fay-Herriot): shrink and contextualise estimates that were published with standard errors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import BoundaryWarning, Failure, InputError
from send_va.multilevel.area_likelihood import AreaArrays, FloatArray, IntArray, fit_area_arrays
from send_va.multilevel.fitted_model import FittedModel
from send_va.multilevel.formula import refuse_absent, response_and_design


@dataclass(frozen=True)
class AreaFit(FittedModel):
    """A fitted area model ``y_j ~ N(theta_j, se_j**2)``, ``theta_j = x_j'b + v_area + u_j``.

    Attributes
    ----------
    params, bse : Series, length p
        Fixed effects and their standard errors given the variances, in outcome units per unit of the column.
    cov_params : DataFrame, p x p
    tau2, tau2_se : float
        Variance of ``u_j``, within areas where there is an area level, and its standard error (not a number at the
        boundary). Outcome units squared.
    variance_components : DataFrame
        One row per level: group, term1, term2, variance, sd_or_corr, se. The last row, ``unit``, is `tau2`.
    effects : DataFrame, n rows, index of the data
        `estimate`: ``v_area + u_j``, how far a unit lies from what its context predicts, shrunken; `se`: its root mean
        squared prediction error, fixed-effects uncertainty included, the variances taken as known; `reliability`:
        ``1 - se**2 / Var(v + u)``, 0 knows nothing and 1 everything; `unshrunken`, `unshrunken_se`: ``y_j - x_j'b`` and
        its error as an estimate of ``v + u`` (rank with these, so that shrinkage is not applied twice); `theta`,
        `theta_se`: shrunken ``theta_j`` and its error; `u`, `u_se`: shrunken ``u_j`` and its error.
    area_effects : DataFrame or None
        level, n_units, estimate, se, reliability of ``v_area``.
    llf : float
        Log-likelihood; restricted where `reml`, with metafor's constant ``log|X'X| / 2`` (lme4 leaves it out).
        Restricted ones compare only between models with the same fixed effects.
    converged : bool
    decrement : float
        Log-likelihood still to be gained at the last scoring step, roughly.
    n_obs : int
    area : str or None
    formula : str
    reml : bool
    """

    params: pd.Series[float]
    bse: pd.Series[float]
    cov_params: pd.DataFrame
    tau2: float
    tau2_se: float
    variance_components: pd.DataFrame
    effects: pd.DataFrame = field(repr=False)
    area_effects: pd.DataFrame | None = field(repr=False)
    llf: float
    converged: bool
    decrement: float
    n_obs: int
    area: str | None
    formula: str
    reml: bool
    arrays: AreaArrays = field(repr=False)

    def draw_effects(self, draws: int, rng: np.random.Generator) -> FloatArray:
        """Draw ``v_area + u_j`` of all units jointly from their conditional distribution.

        The fixed effects are drawn too; the variances are held at their estimates.

        Parameters
        ----------
        draws : int
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (draws, n)
            Column means approach ``effects["estimate"]``, column SDs ``effects["se"]``.
        """
        at = self.arrays.at
        root = np.linalg.cholesky(at.cov_params)
        params = at.params + rng.standard_normal((draws, len(at.params))) @ root.T
        residual = at.y - params @ at.X.T
        areas = len(at.area_weight)
        area_mean = at.by_area((at.weight * residual).T).T * at.shrink
        area_effect = area_mean + rng.standard_normal((draws, areas)) * np.sqrt(at.shrink)
        v = area_effect[:, at.area]
        gamma = at.tau2 * at.weight
        return v + gamma * (residual - v) + rng.standard_normal(residual.shape) * np.sqrt(gamma) * at.se

    def _heading(self) -> list[str]:
        method = "REML" if self.reml else "maximum likelihood"
        level = "" if self.area is None else f", units in {self.area}"
        state = "converged" if self.converged else f"NOT CONVERGED (decrement {self.decrement:.1e})"
        return [
            f"Area model (Fay-Herriot) by {method}: {self.formula}{level}",
            f"{self.n_obs:,} estimates; log-likelihood {self.llf:.4f}; {state}",
            f"median reliability of a unit {self.effects['reliability'].median():.2f}",
        ]


def fit_area(formula: str, data: pd.DataFrame, se: str, area: str | None = None, reml: bool = True) -> AreaFit:
    """Fit estimates published with standard errors on their context, with an optional area level.

    Parameters
    ----------
    formula : str
        Fixed part, e.g. ``"p8 ~ ks2 + fsm6"``; ``"p8 ~ 1"`` for none.
    data : DataFrame, n rows
        One row per unit (school, local authority); its index labels the rows of ``effects``.
    se : str
        Column of standard errors of the response, above zero. DfE's Progress 8 intervals use one pupil SD for every
        group, so their standard errors are too small or too large for groups whose pupils vary more or less.
    area : str, optional
        Column of the level above, e.g. local authority. Without it ``v_area`` is left out.
    reml : bool, default True
        Restricted maximum likelihood; ``False`` to compare models with other fixed effects.

    Returns
    -------
    AreaFit
        A unit whose ``effects`` interval ``estimate +- 2 se`` excludes zero differs from what its context predicts.

    Raises
    ------
    InputError
        A column is absent or has missing values; a standard error is not above zero; areas hold one unit each, or there
        is one area only.
    CollinearityError
        A design column is constant or a combination of others.

    Warns
    -----
    BoundaryWarning
        A variance was estimated at zero.

    References
    ----------
    Fay, R. E., & Herriot, R. A. (1979), doi:10.1080/01621459.1979.10482505.
    Rao, J. N. K., & Molina, I. (2015). Small Area Estimation, 2nd ed., chapter 6, doi:10.1002/9781118735855.

    Examples
    --------
    >>> import pandas as pd
    >>> schools = pd.DataFrame({"p8": [0.5, -0.3, 0.1, 0.9, -0.8], "se": 0.2}, index=list("ABCDE"))
    >>> fit = fit_area("p8 ~ 1", schools, se="se")
    >>> round(fit.tau2, 3)
    0.402
    >>> fit.effects.loc["D", ["unshrunken", "estimate", "se", "reliability"]].round(3).to_dict()
    {'unshrunken': 0.82, 'estimate': 0.746, 'se': 0.331, 'reliability': 0.728}
    """
    refuse_absent([se] if area is None else [se, area], data)
    design = response_and_design(formula, data)
    errors = _standard_errors(se, data)
    codes, levels = (None, None) if area is None else _areas(area, data)
    arrays = fit_area_arrays(design.y, design.X, errors, codes, reml=reml)
    _warn_at_boundary(arrays, area)
    names = pd.Index(design.names)
    at = arrays.at
    return AreaFit(
        params=pd.Series(at.params, index=names, name=design.response),
        bse=pd.Series(np.sqrt(np.diag(at.cov_params)), index=names, name="se"),
        cov_params=pd.DataFrame(at.cov_params, index=names, columns=names),
        tau2=arrays.tau2,
        tau2_se=_root_or_nan(arrays.variance_cov[0, 0]),
        variance_components=_variance_components(arrays, area),
        effects=_unit_effects(arrays, data.index),
        area_effects=None if levels is None else _area_effects(arrays, levels),
        llf=arrays.llf,
        converged=arrays.converged,
        decrement=arrays.decrement,
        n_obs=len(design.y),
        area=area,
        formula=formula,
        reml=reml,
        arrays=arrays,
    )


def _standard_errors(name: str, data: pd.DataFrame) -> FloatArray:
    errors = pd.to_numeric(data[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~((errors > 0) & np.isfinite(errors)))
    if len(bad):
        rule, given = "holds standard errors that are no number above zero", data[name].iloc[bad].tolist()
        remedy = "Leave out estimates without a standard error, and say how many."
        raise InputError(Failure.of_rows(rule, name, bad.tolist(), values=given, remedy=remedy))
    return errors


def _areas(name: str, data: pd.DataFrame) -> tuple[IntArray, pd.Index[str]]:
    codes, levels = pd.factorize(data[name], sort=True)
    blank = np.flatnonzero(codes < 0)
    if len(blank):
        remedy = "Fill the area in, or leave these rows out and say how many."
        raise InputError(Failure.of_rows("has missing values", name, blank.tolist(), remedy=remedy))
    if not 1 < len(levels) < len(codes):
        found = "one area only" if len(levels) == 1 else "one unit in every area"
        remedy = "Leave `area` out: the two levels cannot be told apart."
        raise InputError(Failure(f"has {found}", name, remedy=remedy))
    return codes.astype(np.int64), pd.Index(levels)


def _warn_at_boundary(arrays: AreaArrays, area: str | None) -> None:
    meanings = []
    if arrays.tau2 == 0:
        meanings.append(
            "tau2 is estimated at zero: after context (and area) the estimates differ no more than their standard "
            "errors explain, so every unit is shrunken onto its prediction and no ranking of units is supported"
        )
    if area is not None and arrays.area_variance == 0:
        meanings.append(
            f"the variance between {area} is estimated at zero: units of one {area} are no more alike than others, and "
            "all its effects are zero"
        )
    for meaning in meanings:
        warnings.warn(f"{meaning}. Results are kept.", BoundaryWarning, stacklevel=3)


def _root_or_nan(variance: float) -> float:
    return float(np.sqrt(variance)) if variance > 0 else float("nan")


def _variance_components(arrays: AreaArrays, area: str | None) -> pd.DataFrame:
    rows = [("unit", arrays.tau2, arrays.variance_cov[0, 0])]
    if area is not None:
        rows.insert(0, (area, arrays.area_variance, arrays.variance_cov[1, 1]))
    groups, variances, squared_errors = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "group": groups,
            "term1": "Intercept",
            "term2": None,
            "variance": variances,
            "sd_or_corr": np.sqrt(variances),
            "se": [_root_or_nan(value) for value in squared_errors],
        }
    )


def _root(mse: FloatArray) -> NDArray[np.float64]:
    """Root of mean squared errors, which rounding can turn minus 1e-17 where they are zero."""
    return np.sqrt(np.maximum(mse, 0.0))


def _unit_effects(arrays: AreaArrays, index: pd.Index[str]) -> pd.DataFrame:
    """Henderson's predictions; errors are the diagonal of ``G - G P G``, and of ``R - R P R`` for theta."""
    at, tau2, area_variance = arrays.at, arrays.tau2, arrays.area_variance
    total = tau2 + area_variance
    area_pull = at.by_area(at.weighted_residual)[at.area]
    gpg = tau2**2 * at.p_diagonal + 2 * tau2 * area_variance * at.pz_diagonal
    mse = total - gpg - area_variance**2 * at.zpz_diagonal[at.area]
    fixed = np.sum((at.X @ at.cov_params) * at.X, axis=1)
    own = np.sum((at.X @ at.cov_params) * at.weighted_design, axis=1)
    return pd.DataFrame(
        {
            "estimate": tau2 * at.weighted_residual + area_variance * area_pull,
            "se": _root(mse),
            "reliability": np.clip(1 - mse / total, 0, 1) if total > 0 else np.zeros(len(mse)),
            "unshrunken": at.y - at.X @ at.params,
            "unshrunken_se": _root(at.se**2 + fixed - 2 * at.se**2 * own),
            "theta": at.y - at.se**2 * at.weighted_residual,
            "theta_se": _root(at.se**2 - at.se**4 * at.p_diagonal),
            "u": tau2 * at.weighted_residual,
            "u_se": _root(tau2 - tau2**2 * at.p_diagonal),
        },
        index=index,
    )


def _area_effects(arrays: AreaArrays, levels: pd.Index[str]) -> pd.DataFrame:
    at, variance = arrays.at, arrays.area_variance
    mse = variance - variance**2 * at.zpz_diagonal
    return pd.DataFrame(
        {
            "level": levels,
            "n_units": np.bincount(at.area, minlength=len(levels)),
            "estimate": variance * at.by_area(at.weighted_residual),
            "se": _root(mse),
            "reliability": np.clip(1 - mse / variance, 0, 1) if variance > 0 else np.zeros(len(levels)),
        }
    )
