"""Multilevel models of ordered categories, by formula."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import Failure, InputError
from send_va.multilevel.formula import random_design, refuse_absent
from send_va.multilevel.glmm_result import GlmmFit, ModelLabels, named_fit
from send_va.multilevel.identical_rows import identical_rows
from send_va.multilevel.likelihoods import RESIDUAL_VARIANCE, Link, Ordinal, marginal_predictors, require_link
from send_va.multilevel.marginal_fit import Method, estimate, refuse_separated, require_method, standardised
from send_va.multilevel.random_terms import random_terms

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


def fit_ordinal(
    formula: str,
    data: pd.DataFrame,
    groups: Mapping[str, str],
    levels: Sequence[object] | None = None,
    link: Link = "probit",
    method: Method = "laplace",
    points: int = 9,
) -> GlmmFit:
    """Fit a cumulative model of ordered categories with random effects.

    ``P(response <= c) = F(threshold_c - fixed effects - random effects)``: a positive coefficient moves records to
    higher categories, as in R's ``ordinal::clmm``. Groupings may be nested or crossed; effects of one grouping are
    correlated freely.

    Parameters
    ----------
    formula : str
        ``"status ~ prior"``; thresholds stand in for the intercept.
    data : DataFrame, n rows
    groups : mapping
        Grouping to the formula of its random effects, as in `fit_glmm`.
    levels : sequence, optional
        The categories, lowest first, e.g. ``["N", "K", "E"]``; by default those of an ordered categorical column.
    link : {"probit", "logit"}, default "probit"
        Distribution function F of the latent response.
    method : {"laplace", "agq"}, default "laplace"
        See `fit_glmm`.
    points : int, default 9
        Quadrature points a group.

    Returns
    -------
    GlmmFit
        `params` lists the thresholds first, named ``"N|K"``, ``"K|E"``.

    Raises
    ------
    InputError
        As `fit_glmm`; and a category that is not among the levels, or a level that no record has.
    CollinearityError
        A design column is constant or a combination of others.
    NotSupportedError
        Quadrature for several groupings or several effects.

    Warns
    -----
    BoundaryWarning
        A variance (or a correlation of one) was estimated at the boundary.

    References
    ----------
    McCullagh (1980), doi:10.1111/j.2517-6161.1980.tb01109.x. Hedeker & Gibbons (1994), doi:10.2307/2533433.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(1)
    >>> school = np.repeat(np.arange(400), 20)
    >>> need = 0.5 * rng.normal(size=400)[school] + rng.normal(size=8000)
    >>> status = np.array(["N", "K", "E"])[np.digitize(need, [1.0, 2.0])]
    >>> data = pd.DataFrame({"status": status, "school": school})
    >>> fit = fit_ordinal("status ~ 1", data, {"school": "1"}, levels=["N", "K", "E"])
    >>> fit.params.round(1).to_dict()
    {'N|K': 1.0, 'K|E': 2.0}
    """
    require_link(link)
    status, categories, response = _status(formula, data, levels)
    X, names = _covariates(formula, data)
    terms = random_terms(data, groups)
    require_method(method, terms, points)
    if any(len(term.labels) == len(status) for term in terms):
        raise InputError(
            "every group of a grouping has one record, so differences between groups cannot be told from chance",
            "Use a coarser grouping.",
        )
    last = len(categories) - 1
    refuse_separated(X, ("Intercept", *names), status == 0, status == last)
    from_columns, columns = standardised(X, ("Intercept", *names))
    rows, which = identical_rows([columns, *(t.columns for t in terms)], [status, *(t.codes for t in terms)])
    weights = np.bincount(which, minlength=len(rows)).astype(np.float64)
    likelihood = Ordinal(status[rows], last, link, weights)
    start = marginal_predictors(np.bincount(status) / len(status), link)
    found = estimate(likelihood, columns[rows, 1:], terms, rows, method, points, offset=start)
    thresholds = [f"{low}|{high}" for low, high in itertools.pairwise(categories)]
    model = ModelLabels(formula, response, link, method, len(data), RESIDUAL_VARIANCE[link])
    return named_fit(found, terms, [*thresholds, *names], _thresholds_first(from_columns, last), model)


def _thresholds_first(from_columns: FloatArray, d: int) -> FloatArray:
    """From slopes and cutpoints of standardised columns to thresholds (minus the cutpoints) and named slopes."""
    p = len(from_columns) - 1
    to_named = np.zeros((d + p, p + d))
    to_named[:d, :p] = -from_columns[0, 1:]
    to_named[:d, p:] = -np.eye(d)
    to_named[d:, :p] = from_columns[1:, 1:]
    return to_named


def _status(formula: str, data: pd.DataFrame, levels: Sequence[object] | None) -> tuple[IntArray, list[object], str]:
    """Category numbers of all rows, the categories, and the response's name."""
    left, tilde, _ = formula.partition("~")
    name = left.strip().strip("`")
    if not tilde or not name:
        raise InputError(f"the formula {formula!r} has no response", "Write it as 'status ~ prior + context'.")
    refuse_absent([name], data)
    column = data[name]
    if levels is None and isinstance(column.dtype, pd.CategoricalDtype) and column.cat.ordered:
        levels = column.cat.categories.to_list()
    categories = list(levels or [])
    if len(categories) < 2 or len(set(categories)) < len(categories):
        raise InputError(
            Failure(
                "needs two or more different levels", name, remedy='Name them lowest first: levels=["N", "K", "E"].'
            )
        )
    status = pd.Index(categories).get_indexer(pd.Index(column)).astype(np.intp)
    blank = np.flatnonzero(column.isna().to_numpy()).tolist()
    if blank:
        remedy = "Fill them in, or leave these rows out and say how many."
        raise InputError(Failure.of_rows("has missing values", name, blank, remedy=remedy))
    unknown = np.flatnonzero(status < 0).tolist()
    if unknown:
        remedy = f"The levels are {', '.join(map(str, categories))}: add it there, or correct the rows."
        values = column.iloc[unknown[:10]].tolist()
        raise InputError(Failure.of_rows("is not one of the levels", name, unknown, values=values, remedy=remedy))
    empty = [level for at, level in enumerate(categories) if not (status == at).any()]
    if empty:
        values_shown = tuple(str(level) for level in empty[:10])
        remedy = "Leave the level out of `levels`: its threshold cannot be estimated."
        raise InputError(
            Failure("has levels that no record has", name, len(empty), values=values_shown, remedy=remedy, unit="level")
        )
    return status, categories, name


def _covariates(formula: str, data: pd.DataFrame) -> tuple[FloatArray, tuple[str, ...]]:
    """Design matrix with the intercept, which the thresholds replace, and the names of the other columns."""
    X, names = random_design(formula.partition("~")[2], data)
    if not names or names[0] != "Intercept":
        raise InputError(
            f"the formula {formula!r} leaves out the intercept, which the thresholds stand for",
            "Leave out '0 +' or '- 1'.",
        )
    return X, names[1:]
