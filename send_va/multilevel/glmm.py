"""Multilevel models of yes/no responses and counts out of totals, by formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import Failure, InputError
from send_va.multilevel.binomial_response import BinomialResponse, binomial_response
from send_va.multilevel.formula import random_design, response_and_design
from send_va.multilevel.glmm_result import GlmmFit, ModelLabels, named_fit
from send_va.multilevel.identical_rows import identical_rows
from send_va.multilevel.likelihoods import RESIDUAL_VARIANCE, Binomial, Link, log_choose, require_link
from send_va.multilevel.marginal_fit import Method, estimate, refuse_separated, require_method, standardised
from send_va.multilevel.random_terms import RandomTerm, random_terms

FloatArray = NDArray[np.float64]


def fit_glmm(
    formula: str,
    data: pd.DataFrame,
    groups: Mapping[str, str],
    link: Link = "logit",
    method: Method = "laplace",
    points: int = 9,
) -> GlmmFit:
    """Fit a multilevel model of a yes/no response or of counts out of totals.

    ``P(yes) = F(fixed effects + random effects)``. Groupings may be nested or crossed, in any mixture; effects of one
    grouping are correlated freely. Maximum likelihood with the random effects integrated out.

    Parameters
    ----------
    formula : str
        ``"use ~ age + urban"``: the response holds 0 and 1, booleans, or two texts or categories, of which the second
        (in order) counts as yes. ``"cbind(send, roll - send) ~ fsm"``: numbers of successes and failures of each row;
        a grouping with one group a row then measures how rates vary beyond chance.
    data : DataFrame, n rows
    groups : mapping
        Grouping to the formula of its random effects: ``{"la": "1", "school": "1 + fsm"}``; ``"la:school"`` is the
        combination of two columns.
    link : {"logit", "probit"}, default "logit"
        F is the logistic or the normal distribution function.
    method : {"laplace", "agq"}, default "laplace"
        Laplace approximation (lme4's default), or adaptive Gauss-Hermite quadrature, for one grouping with one effect:
        better where groups have few records, for Laplace then underestimates variances (by a tenth of the SD with
        three yes/no records a group and an SD of 2).
    points : int, default 9
        Quadrature points a group.

    Returns
    -------
    GlmmFit

    Raises
    ------
    InputError
        A column is absent, has missing values or is text where numbers are needed; the response is not one of the
        above, or the same in all rows; a category whose records all have the same response; a grouping with one group;
        yes/no responses with a group for every row.
    CollinearityError
        A design column is constant or a combination of others.
    NotSupportedError
        Quadrature for several groupings or several effects.

    Warns
    -----
    BoundaryWarning
        A variance (or a correlation of one) was estimated at the boundary.

    Notes
    -----
    The Laplace approximation takes the observed curvature, as glmmTMB and ordinal (R) do. With the probit link lme4's
    ``glmer`` takes the expected one: its log-likelihood is another approximation of the same integral and differs a
    little (0.3 for 1,200 records); with the logit link the two are the same.

    References
    ----------
    Bates et al. (2015), doi:10.18637/jss.v067.i01. Pinheiro & Bates (1995), doi:10.1080/10618600.1995.10474663.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(2)
    >>> school = np.repeat(np.arange(400), 20)
    >>> p = 1 / (1 + np.exp(1 - rng.normal(size=400)[school]))
    >>> fit = fit_glmm("sen ~ 1", pd.DataFrame({"sen": rng.random(8000) < p, "school": school}), {"school": "1"})
    >>> fit.converged, round(float(fit.variance_components["sd_or_corr"][0]), 1)
    (True, 1.0)
    """
    require_link(link)
    response = binomial_response(formula, data)
    X, names = _covariates(formula, response, data)
    terms = random_terms(data, groups)
    require_method(method, terms, points)
    _check_response(response, terms)
    refuse_separated(X, names, response.successes == 0.0, response.successes == response.trials)
    to_named, columns = standardised(X, names)
    rows, which = identical_rows([columns, *(term.columns for term in terms)], [term.codes for term in terms])
    likelihood = Binomial(
        np.bincount(which, response.successes, len(rows)),
        np.bincount(which, response.trials, len(rows)),
        link,
        log_choose(response.successes, response.trials),
    )
    found = estimate(likelihood, columns[rows], terms, rows, method, points)
    model = ModelLabels(formula, response.name, link, method, len(data), RESIDUAL_VARIANCE[link])
    return named_fit(found, terms, names, to_named, model)


def _covariates(formula: str, response: BinomialResponse, data: pd.DataFrame) -> tuple[FloatArray, tuple[str, ...]]:
    if response.counts:
        return random_design(formula.partition("~")[2], data)
    design = response_and_design(formula, response.data)
    return design.X, design.names


def _check_response(response: BinomialResponse, terms: Sequence[RandomTerm]) -> None:
    total, trials = float(response.successes.sum()), float(response.trials.sum())
    if total in (0.0, trials):
        raise InputError(
            Failure(
                "is the same in every row, so there is nothing to explain", response.name, remedy="Check its coding."
            )
        )
    single = [term.name for term in terms if len(term.labels) == len(response.trials)]
    if single and response.trials.max() <= 1.0:
        raise InputError(
            f"every group of {single[0]} has one yes/no record: differences between groups cannot be told from chance",
            "Use a coarser grouping.",
        )
