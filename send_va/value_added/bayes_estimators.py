"""The Bayesian engine for every estimator: need by its probability, or labels as recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from send_va.errors import NotSupportedError
from send_va.multilevel.inner_products import InnerProducts
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import CONTEXTS, Context, check_contexts
from send_va.value_added.bayes import Authorities, BayesFit, BayesInput, BayesOptions, SchoolFacts, fit_bayes
from send_va.value_added.bayes_inputs import Movement, movements
from send_va.value_added.design import STRATA, LabelledProducts
from send_va.value_added.full_rank import require_full_rank
from send_va.value_added.labelled import LabelledColumns, fit_labelled_columns, labelled_attributes
from send_va.value_added.need_draws import PlugInFit
from send_va.value_added.need_fit import (
    need_attributes,
    need_flags,
    not_compared,
    plug_in_fits,
    used_identification_draws,
)
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.readout import own_estimates
from send_va.value_added.scores import NeedScores, check_estimator, scores_table
from send_va.value_added.strata import combine


@one_blas_thread
def fit_need_bayes(
    design: PupilDesign,
    scores: NeedScores,
    estimator: str,
    contexts: Sequence[str] = CONTEXTS,
    *,
    authorities: Authorities | None = None,
    options: BayesOptions | None = None,
    rng: np.random.Generator,
    draws: int = 1000,
    identification_draws: int | None = None,
    prior_slope: bool = True,
    residual_by_need: bool = True,
    plug_in: bool = False,
    workers: int = 2,
    attrs: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[Context, BayesFit]:
    """Estimate value-added by the Bayesian engine, with need known by its probability.

    The model is that of :func:`send_va.value_added.need_fit.fit_need`, with priors and with authorities above schools.
    Its posterior is sampled at expected scores of need. How far conditional means of school effects move over joint
    draws of the identification parameters is added to the draws (a *cut*: outcomes say nothing about need).

    Parameters
    ----------
    design, scores, estimator, contexts, rng, draws, identification_draws, prior_slope, residual_by_need, plug_in
        As in :func:`send_va.value_added.need_fit.fit_need`.
    authorities : tuple, optional
        From :func:`send_va.value_added.authorities.school_authorities`.
    options : BayesOptions, optional
    workers : int
        Threads for the draws of identification.
    attrs : mapping, optional
        Added to the attributes of the effects.
    progress : callable, optional
        Called with the number of contexts done.

    Returns
    -------
    dict of context to BayesFit
        Read ``fit.converged`` before anything else.

    Raises
    ------
    InputError
        As ``fit_need``.
    NotSupportedError
        The sampler is not installed.
    """
    known, wanted = check_estimator(estimator), check_contexts(contexts)
    options = BayesOptions() if options is None else options
    used = used_identification_draws(scores, draws, identification_draws, plug_in)
    table = scores_table(design.ordered(scores.plug_in()), len(design.rows), known)
    starts = plug_in_fits(design, wanted, table, design.prior_at(table[:, 0]), prior_slope, residual_by_need)
    moved = movements(design, scores, known, starts, used, workers=workers) if used else {}
    shared = dict(attrs or {}) | need_attributes(design, known, table, draws=draws, identification_draws=used)
    assumes = str(shared.get("assumes") or "")
    fits: dict[Context, BayesFit] = {}
    rngs = dict(zip(CONTEXTS, rng.spawn(len(CONTEXTS)), strict=True))
    for done, (context, start) in enumerate(starts.items(), start=1):
        fits[context] = fit_bayes(
            _need_input(design, start, moved.get(context)),
            SchoolFacts(
                design.schools,
                design.n_pupils,
                np.rint(start.n_with).astype(np.int64),
                need_flags(design, start, assumes),
                not_compared(design),
            ),
            authorities,
            options,
            rng=rngs[context],
            draws=draws,
            context=context,
            attrs=shared,
        )
        if progress is not None:
            progress(done)
    return fits


def _need_input(design: PupilDesign, start: PlugInFit, moved: Movement | None) -> BayesInput:
    solution = start.fit.solution
    return BayesInput(
        strata=[start.fit.products],
        strata_names=["all"],
        fixed=start.columns.fixed,
        random=start.columns.random,
        solution=solution,
        residual_variance=np.array([solution.scale]),
        own=start.own(solution) if moved is None else moved.own,
        log_weights=design.by_school(np.log(start.fit.weights))[None],
        shifts=None if moved is None else moved.modes,
        beta_shifts=None if moved is None else moved.beta,
    )


@one_blas_thread
def fit_labelled_bayes(
    data: LabelledProducts,
    context: Context,
    *,
    authorities: Authorities | None = None,
    options: BayesOptions | None = None,
    rng: np.random.Generator,
    draws: int = 1000,
    residual_by_need: bool = True,
    prior_slope: bool = True,
    correct_error: bool = False,
    attrs: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> BayesFit:
    """Estimate value-added for pupils with recorded SEN by the Bayesian engine.

    Parameters
    ----------
    data, context, rng, draws, residual_by_need, prior_slope, attrs
        As in :func:`send_va.value_added.labelled.fit_labelled`; each status has a residual SD with its own posterior.
    authorities, options
        As in :func:`fit_need_bayes`.
    correct_error : bool
        Refused.
    progress : callable, optional
        Called with the number of draws of the sampler.

    Returns
    -------
    BayesFit

    Raises
    ------
    CollinearityError
        A covariate is constant or a combination of others; they are named.
    NotSupportedError
        `correct_error`, or the sampler is not installed.
    """
    if correct_error:
        raise NotSupportedError(
            "the Bayesian engine cannot take out the error of prior scores: use engine reml, or correct_error = false."
        )
    options = BayesOptions() if options is None else options
    columns = LabelledColumns.of(data, context, prior_slope)
    strata = [part.select(columns.held) for part in data.strata]
    x = columns.x()
    whole = combine(strata, np.ones(len(strata)))
    require_full_rank(whole.total[np.ix_(x, x)], columns.fixed, data.context, len(data.schools))
    fit = fit_labelled_columns(strata, columns, x, residual_by_need)
    inner = InnerProducts.of(fit.products, fit.solution.levels[0])
    there = [k for k, part in enumerate(strata) if part.counts.any()] if residual_by_need else [0]
    given = BayesInput(
        strata=[strata[k] for k in there] if residual_by_need else [whole],
        strata_names=[STRATA[k] for k in there] if residual_by_need else ["all"],
        fixed=columns.fixed,
        random=columns.random,
        solution=fit.solution,
        residual_variance=fit.residual_variance[there],
        own=own_estimates(fit.solution, inner, data.counts[:, 0], data.counts[:, 1:].sum(axis=1)),
    )
    schools = data.schools
    facts = SchoolFacts(
        schools,
        data.counts.sum(axis=1),
        data.counts[:, 1:].sum(axis=1),
        data.flags,
        np.zeros(len(schools), dtype=bool),
    )
    said = dict(attrs or {}) | labelled_attributes(data, fit, context, draws, correct_error)
    return fit_bayes(
        given, facts, authorities, options, rng=rng, draws=draws, context=context, attrs=said, progress=progress
    )
