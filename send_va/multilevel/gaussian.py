"""Gaussian multilevel models by formula: named columns in, a frozen, named fit out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import CollinearityError, Failure, InputError
from send_va.multilevel.components import COMPONENT_COLUMNS, component_table, warn_singular
from send_va.multilevel.crossed import CrossedSolution, fit_crossed
from send_va.multilevel.crossed_products import CrossedProducts, crossed_products
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, IntArray, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.fitted_model import GroupedModel
from send_va.multilevel.formula import ResponseDesign, check_full_rank, random_design, response_and_design
from send_va.multilevel.grouping import CrossedGrouping, Grouping, nested_or_crossed
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.multilevel.prediction import effect_covariances
from send_va.multilevel.search import Convergence


@dataclass(frozen=True)
class GaussianFit(GroupedModel):
    """A fitted Gaussian multilevel model.

    Attributes
    ----------
    params, bse : Series, length p
        Fixed effects and their standard errors, in outcome units per unit of the column.
    cov_params : DataFrame, p x p
    variance_components : DataFrame
        One row per variance or covariance: group, term1, term2, variance, sd_or_corr; the last row is the residual.
    scale : float
        Residual variance, of a record of weight one.
    llf : float
        Log-likelihood; the restricted one when `reml` (comparable only between models with the same fixed effects).
    converged : bool
    convergence : Convergence
        What the optimiser did.
    n_obs : int
    n_groups : dict
    reml : bool
    formula : str
    """

    params: pd.Series[float]
    bse: pd.Series[float]
    cov_params: pd.DataFrame
    variance_components: pd.DataFrame
    scale: float
    llf: float
    converged: bool
    convergence: Convergence
    n_obs: int
    n_groups: dict[str, int]
    reml: bool
    formula: str
    solution: NestedSolution | CrossedSolution = field(repr=False)
    labels: dict[str, pd.Index[str]] = field(repr=False)
    terms: dict[str, tuple[str, ...]] = field(repr=False)

    def random_effects(self, group: str) -> pd.DataFrame:
        """Conditional means of one grouping's effects.

        Returns
        -------
        DataFrame
            level, term, estimate, se. `estimate` is shrunken towards zero; `se` is the conditional standard deviation
            given the fixed effects (as lme4's ``condsd``): estimate +- 2 se is where the effect probably lies.
        """
        modes = self.solution.modes[self._at(self._known(group))]
        return self._effects(group, modes, self.random_effects_cov(group))

    def random_effects_cov(self, group: str, *, fixed: bool = False) -> FloatArray:
        """Conditional covariance of one grouping's effects, shape (levels, q, q).

        Parameters
        ----------
        group : str
        fixed : bool
            Add the uncertainty of the fixed effects: then it is the prediction error variance of the effect.
        """
        at = self._at(self._known(group))
        if isinstance(self.solution, CrossedSolution):
            return self.solution.effect_covariances(fixed=fixed)[at]
        return effect_covariances(self.solution, fixed=fixed)[at]

    def _at(self, group: str) -> int:
        return list(self.labels).index(group)

    def _heading(self) -> list[str]:
        method = "REML" if self.reml else "maximum likelihood"
        sizes = ", ".join(f"{count:,} {name}" for name, count in self.n_groups.items())
        state = "converged" if self.converged else f"NOT CONVERGED ({self.convergence.message})"
        return [
            f"Gaussian multilevel model by {method}: {self.formula}",
            f"{self.n_obs:,} records, {sizes}; log-likelihood {self.llf:.4f}; {state}",
        ]


def fit_gaussian(
    formula: str,
    data: pd.DataFrame,
    groups: Mapping[str, str],
    reml: bool = True,
    weights: NDArray[np.float64] | str | None = None,
    frequencies: NDArray[np.float64] | str | None = None,
) -> GaussianFit:
    """Fit a Gaussian multilevel model with nested or crossed groups and correlated random slopes.

    One pass over the records makes cross-products; the rest costs as much as there are groups (nested), or as the links
    between groups demand (crossed: the grouping with most groups is eliminated, the equations of the others are
    factorised).

    Parameters
    ----------
    formula : str
        Fixed effects, e.g. ``"normexam ~ standLRT"``.
    data : DataFrame, n rows
    groups : mapping
        Grouping name to the formula of its random effects: ``{"lea": "1", "lea:school": "1 + standLRT"}``.
        ``"lea:school"`` means the combination. Effects of one grouping are correlated freely. Whether groupings are
        nested or crossed is found in the data.
    reml : bool, default True
        Restricted maximum likelihood; ``False`` for maximum likelihood, to compare models with other fixed effects.
    weights : array (n,) or column name, optional
        Precision weights: residual variance is ``scale / weight`` (lme4's ``weights``).
    frequencies : array (n,) or column name, optional
        How many identical records each row stands for.

    Returns
    -------
    GaussianFit

    Raises
    ------
    InputError
        A column is missing, has missing values or is not numeric where it must be; weights not positive.
    CollinearityError
        A design column is constant or a combination of others.
    NotSupportedError
        Crossed groups so many and so closely linked that their equations do not fit into memory.

    Warns
    -----
    BoundaryWarning
        A variance (or a correlation of one) was estimated at the boundary.

    References
    ----------
    Bates, Maechler, Bolker & Walker (2015), doi:10.18637/jss.v067.i01.
    Patterson & Thompson (1971), doi:10.1093/biomet/58.3.545.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(1)
    >>> school = np.repeat(np.arange(30), 20)
    >>> y = rng.normal(size=30)[school] + rng.normal(size=600)
    >>> fit = fit_gaussian("y ~ 1", pd.DataFrame({"y": y, "school": school}), {"school": "1"})
    >>> fit.converged, round(fit.scale, 1)
    (True, 0.9)
    """
    design = response_and_design(formula, data, check_rank=False)
    grouping = nested_or_crossed(data, groups)
    effects = {name: random_design(groups[name], data, check_rank=False) for name in grouping.names}
    if len(design.y) <= len(design.names):
        raise InputError(f"{len(design.y)} records cannot estimate {len(design.names)} coefficients", "Add records.")
    precision = _as_weights(weights, data, "weights")
    times = _as_weights(frequencies, data, "frequencies")
    products: CrossProducts | CrossedProducts
    solution: NestedSolution | CrossedSolution
    if isinstance(grouping, CrossedGrouping):
        products = _crossed_sums(design, grouping, effects, precision, times)
        solution = fit_crossed(products, reml=reml)
    else:
        products, levels = _nested_sums(design, grouping, effects, precision, times)
        solution = fit_nested(products, levels, np.arange(len(design.names)), len(products.columns) - 1, reml=reml)
    for at in solution.convergence.at_boundary:
        warn_singular(grouping.names[at], len(solution.covariances[at]))
    terms = {name: effects[name][1] for name in grouping.names}
    return _named(solution, products, design.names, grouping, terms, formula, len(design.y))


def _nested_sums(
    design: ResponseDesign,
    grouping: Grouping,
    effects: Mapping[str, tuple[FloatArray, tuple[str, ...]]],
    weights: FloatArray | None,
    frequencies: FloatArray | None,
) -> tuple[CrossProducts, list[Level]]:
    rows, columns, z = _columns(design.X, design.names, design.y, design.response, effects)
    products = cross_products(
        rows,
        grouping.codes,
        len(grouping.labels[0]),
        columns,
        center=_center(rows, design.names, z),
        weights=weights,
        frequencies=frequencies,
    )
    x = np.arange(len(design.names))
    total = products.total
    check_full_rank(total[np.ix_(x, x)], design.names)
    _check_random_terms([total[np.ix_(at, at)] for at in z], grouping.names, effects)
    return products, [Level(at, parent) for at, parent in zip(z, grouping.parents, strict=True)]


def _crossed_sums(
    design: ResponseDesign,
    grouping: CrossedGrouping,
    effects: Mapping[str, tuple[FloatArray, tuple[str, ...]]],
    weights: FloatArray | None,
    frequencies: FloatArray | None,
) -> CrossedProducts:
    rows = np.column_stack([design.X, design.y])
    products = crossed_products(
        rows,
        [*design.names, design.response],
        grouping.codes,
        [effects[name][0] for name in grouping.names],
        center=_center(rows, design.names, []),
        weights=weights,
        frequencies=frequencies,
    )
    check_full_rank(products.total[:-1, :-1], design.names)
    _check_random_terms([sums.own.sum(axis=0) for sums in products.groups], grouping.names, effects)
    return products


def _as_weights(given: NDArray[np.float64] | str | None, data: pd.DataFrame, role: str) -> FloatArray | None:
    if given is None:
        return None
    if isinstance(given, str):
        if given not in data.columns:
            raise InputError(Failure(rule=f"column for {role} is missing", column=given))
        given = data[given].to_numpy()
    values = pd.to_numeric(pd.Series(given), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0))).tolist()
    if bad:
        remedy = "They must be positive, finite numbers; leave out records of weight 0."
        raise InputError(Failure.of_rows(f"{role} that cannot be used", "", bad, remedy=remedy))
    return values


def _columns(
    X: FloatArray,
    names: tuple[str, ...],
    y: FloatArray,
    response: str,
    effects: Mapping[str, tuple[FloatArray, tuple[str, ...]]],
) -> tuple[FloatArray, list[str], list[IntArray]]:
    """All distinct columns side by side: fixed, random ones not among them, outcome."""
    columns, parts, positions = list(names), [X], []
    for Z, terms in effects.values():
        at = []
        for k, term in enumerate(terms):
            if term not in columns:
                columns.append(term)
                parts.append(Z[:, [k]])
            at.append(columns.index(term))
        positions.append(np.array(at, dtype=np.intp))
    return np.column_stack([*parts, y]), [*columns, response], positions


def _center(rows: FloatArray, names: tuple[str, ...], z: list[IntArray]) -> FloatArray:
    """Means of the columns that can move without changing the model: not the intercept, not random slopes."""
    center = np.zeros(rows.shape[1])
    if "Intercept" in names:
        center = rows.mean(axis=0)
        center[names.index("Intercept")] = 0.0
        center[(rows == rows[0]).all(axis=0)] = 0.0  # a constant column is to be refused by that name
        for at in z:
            center[at] = 0.0
    return center


def _check_random_terms(
    totals: Sequence[FloatArray],
    groupings: Sequence[str],
    effects: Mapping[str, tuple[FloatArray, tuple[str, ...]]],
) -> None:
    """Refuse random-effects columns, of cross-products `totals` (q, q), that are not linearly independent."""
    for total, name in zip(totals, groupings, strict=True):
        try:
            check_full_rank(total, effects[name][1])
        except CollinearityError as error:
            raise CollinearityError(
                [
                    Failure(rule=f"random effects of {name}: {f.rule}", column=f.column, remedy=f.remedy)
                    for f in error.failures
                ]
            ) from error


def _named(
    solution: NestedSolution | CrossedSolution,
    products: CrossProducts | CrossedProducts,
    names: tuple[str, ...],
    grouping: Grouping | CrossedGrouping,
    terms: dict[str, tuple[str, ...]],
    formula: str,
    n_obs: int,
) -> GaussianFit:
    beta, cov = uncentred(solution, products, names)
    index = pd.Index(names)
    return GaussianFit(
        params=pd.Series(beta, index=index, name="estimate"),
        bse=pd.Series(np.sqrt(np.diag(cov)), index=index, name="se"),
        cov_params=pd.DataFrame(cov, index=index, columns=index),
        variance_components=variance_table(solution, terms),
        scale=solution.scale,
        llf=solution.llf,
        converged=solution.convergence.converged,
        convergence=solution.convergence,
        n_obs=n_obs,
        n_groups={name: len(labels) for name, labels in zip(grouping.names, grouping.labels, strict=True)},
        reml=solution.reml,
        formula=formula,
        solution=solution,
        labels=dict(zip(grouping.names, grouping.labels, strict=True)),
        terms=terms,
    )


def uncentred(
    solution: NestedSolution | CrossedSolution, products: CrossProducts | CrossedProducts, names: tuple[str, ...]
) -> tuple[FloatArray, FloatArray]:
    """Coefficients and covariance with the intercept moved back to columns as they were given."""
    beta, cov = solution.beta.copy(), solution.beta_cov
    if "Intercept" not in names:
        return beta, cov
    at = names.index("Intercept")
    shift = np.eye(len(names))
    shift[at] -= products.center[solution.x]
    beta = shift @ beta
    beta[at] += products.center[solution.y]
    return beta, shift @ cov @ shift.T


def variance_table(solution: NestedSolution | CrossedSolution, terms: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Variances, covariances and correlations by group; the residual last."""
    residual = pd.DataFrame(
        [("Residual", "", None, solution.scale, float(np.sqrt(solution.scale)))], columns=COMPONENT_COLUMNS
    )
    return pd.concat([component_table(terms, solution.covariances), residual], ignore_index=True)
