"""Value-added with need estimated for every pupil: ``standardised``, ``entry`` and ``label_free``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.identification.need import NeedEstimator
from send_va.identification.tables import NOT_CONNECTED
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.gaussian import uncentred, variance_table
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import CONTEXTS, Context, check_contexts
from send_va.records.profile import NO_COMPLETE_PUPIL, ONE_PUPIL
from send_va.value_added.changing_products import ChangingProducts, NeedColumns
from send_va.value_added.fit_result import ValueAddedFit, fit_notes, marked
from send_va.value_added.need_draws import PlugInFit, Pooled, plugged_in, pooled_over_draws
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.readout import CONTRASTS, stated
from send_va.value_added.residual_variance import WeightedFit, fit_weighted
from send_va.value_added.scores import NeedScores, check_estimator, scores_table

FEW_EXPECTED = "less than one pupil with need expected"
_NORMAL_95 = 1.959963984540054


@one_blas_thread
def fit_need(
    design: PupilDesign,
    scores: NeedScores,
    estimator: str,
    contexts: Sequence[str] = CONTEXTS,
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    identification_draws: int | None = None,
    prior_slope: bool = True,
    residual_by_need: bool = True,
    curved: bool = False,
    plug_in: bool = False,
    workers: int = 2,
    attrs: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[Context, ValueAddedFit]:
    """Estimate value-added for pupils with need, by school, with need known by its probability.

    The outcome depends on the context, on ``severity`` (coefficient ``delta``) and on ``pi``, the probability that need
    exceeds the national threshold; schools differ in level (`u`), in the extra with need (`gap`, on ``pi``) and in the
    slope on prior attainment, all correlated. A label replaced by its expectation is regression calibration: the slope
    on it is not attenuated. Residual variance is a function of ``pi``. ``theta = u + gap`` is the effect at ``pi`` of
    one, stated at the mean prior attainment of pupils with need (weighted by ``pi``).

    Parameters
    ----------
    design : PupilDesign
    scores : NeedScores
        Of this estimator, for the pupils of `design`.
    estimator : str
        ``standardised``, ``entry`` or ``label_free``.
    contexts : sequence of str
    rng : numpy.random.Generator
        Spawns a generator for every context and draw: same seed, same bytes, whatever `workers` and `contexts`.
    draws : int
        Draws of the school effects in all.
    identification_draws : int, optional
        How many joint draws of the identification parameters to use; all there are by default, at most `draws`.
    prior_slope : bool
        Let schools differ in their slope on prior attainment. Left out, such differences leak into `gap`.
    residual_by_need : bool
        Residual variance as a function of ``pi``; otherwise one for all.
    curved : bool
        Let the outcome bend with severity, by a square: expected need is off by a curve where unexplained need is not
        normal. `delta` is then the slope at a severity of zero.
    plug_in : bool
        Take the identification parameters as known. Intervals are too short; for exploration only, and marked so.
    workers : int
        Threads for the draws.
    attrs : mapping, optional
        Added to the attributes of the effects.
    progress : callable, optional
        Called with the number of identification draws done.

    Returns
    -------
    dict of context to ValueAddedFit
        In ``effects``, ``n_need`` is the expected number of pupils with need, the sum of ``pi``, rounded; `estimate`
        and `se` include identification error and are missing where less than one pupil with need is expected or all
        pupils of a school have the same ``pi``; ``reliability`` counts identification error as error. ``label_free``
        has a further measure ``at_mean_p0``, the effect at the stated ``attrs["mean_p0"]``, which is no extrapolation.
        In ``coefficients`` the term ``severity`` is ``delta``: its interval says how much unobserved need matters under
        these labels, not what need does. Read it in ``cva``: without background held constant it stands in for that.

    Raises
    ------
    InputError
        Unknown estimator or context; scores that do not fit the records; no joint draws and no `plug_in`.
    CollinearityError
        A covariate is constant or a combination of others; they are named.

    Warns
    -----
    BoundaryWarning
        A variance between schools was estimated at zero.

    References
    ----------
    Carroll, Ruppert, Stefanski & Crainiceanu (2006), Measurement Error in Nonlinear Models, 2nd ed., chapter 4,
    doi:10.1201/9781420010138 (regression calibration).
    Plummer (2015), doi:10.1007/s11222-014-9503-z (cuts).
    Rubin (1987), Multiple Imputation for Nonresponse in Surveys, doi:10.1002/9780470316696 (total variance).

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from send_va.records.reader import Cohort
    >>> from send_va.records.simulator import simulate
    >>> from send_va.value_added.design import context_columns
    >>> from send_va.value_added.pupil_design import pupil_design
    >>> world = simulate(np.random.default_rng(2), schools=40, pupils_per_school=60)
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status"}
    >>> cohort = Cohort.from_pandas(world.pupils, roles)
    >>> profile = cohort.profile(0)
    >>> design = pupil_design(cohort, profile, context_columns(cohort, profile))
    >>> entry = (world.pupils["sen_status_entry"] != "N").to_numpy()
    >>> stand_in = 0.05 + 0.8 * entry, 1.5 * entry + 0.2 * np.random.default_rng(1).standard_normal(len(entry))
    >>> scores = SimpleNamespace(n_draws=0, plug_in=lambda: stand_in)  # in place of those of identification
    >>> rng = np.random.default_rng(1)
    >>> fit = fit_need(design, scores, "entry", ["prior"], rng=rng, draws=100, plug_in=True)["prior"]
    >>> fit.effects.attrs["identification"], len(fit.effects.schools)
    ('plug-in', 40)
    """
    known = check_estimator(estimator)
    wanted = check_contexts(contexts)
    used = used_identification_draws(scores, draws, identification_draws, plug_in)
    if workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    table = scores_table(design.ordered(scores.plug_in()), len(design.rows), known, curved)
    reference = design.prior_at(table[:, 0])
    starts = plug_in_fits(design, wanted, table, reference, prior_slope, residual_by_need)
    rngs = {c: child for c, child in zip(CONTEXTS, rng.spawn(len(CONTEXTS)), strict=True) if c in wanted}
    if plug_in:
        pools = {context: plugged_in(start, draws, rngs[context]) for context, start in starts.items()}
    else:
        pools = pooled_over_draws(
            design,
            scores,
            known,
            starts,
            rngs,
            draws=draws,
            identification_draws=used,
            workers=workers,
            progress=progress,
        )
    shared = need_attributes(design, known, table, draws=draws, identification_draws=used)
    return {c: _result(design, starts[c], pools[c], c, dict(attrs or {}) | shared) for c in wanted}


def need_attributes(
    design: PupilDesign, estimator: NeedEstimator, table: FloatArray, *, draws: int, identification_draws: int
) -> dict[str, Any]:
    """What effects say of themselves; `table` holds the scores, `identification_draws` is 0 where plugged in."""
    attrs: dict[str, Any] = {
        "estimator": estimator,
        "draws": draws,
        "identification": f"{identification_draws} joint draws" if identification_draws else "plug-in",
        "outcome_sd": design.outcome_sd,
        "prior_reference": design.prior_at(table[:, 0]),
        "n_left_out": design.n_left_out,
        "measurement_error": "not corrected",
    }
    if estimator == "label_free":
        attrs["mean_p0"] = float(table[:, 0] @ table[:, 0] / table[:, 0].sum())
    return attrs


def used_identification_draws(scores: NeedScores, draws: int, wanted: int | None, plug_in: bool) -> int:
    """How many joint draws of the identification parameters are used; refuses a number there is not."""
    if draws < 2:
        raise InputError(f"draws must be at least 2, not {draws}")
    if plug_in:
        return 0
    there = scores.n_draws
    if there < 2:
        raise InputError(
            f"identification has {there} joint draws of its parameters, so their uncertainty cannot be carried through",
            "Draw them, or ask for plug_in = True and say so wherever the result is shown.",
        )
    used = min(there, draws) if wanted is None else wanted
    if not 2 <= used <= min(there, draws):
        raise InputError(
            f"identification_draws is {used}, but must lie between 2 and {min(there, draws)}",
            "There cannot be more than identification offers, nor more than draws of the effects.",
        )
    return used


def plug_in_fits(
    design: PupilDesign,
    contexts: Sequence[Context],
    table: FloatArray,
    reference: float,
    prior_slope: bool,
    residual_by_need: bool,
) -> dict[Context, PlugInFit]:
    """Settle the residual variance of each context; each starts where the one before it ended."""
    expected = design.by_school(table[:, 0])
    starts: dict[Context, PlugInFit] = {}
    last: WeightedFit | None = None
    for context in contexts:
        columns = NeedColumns.of(design, context, table.shape[1] > 1, prior_slope, table.shape[1] > 2)
        last = fit_weighted(design, columns, table, reference, by_need=residual_by_need, start=last)
        changing = ChangingProducts.of(design, columns, last.products, reference)
        starts[context] = PlugInFit(columns, last, changing, design.n_pupils - expected, expected)
    return starts


def _result(
    design: PupilDesign, start: PlugInFit, pooled: Pooled, context: Context, attrs: dict[str, Any]
) -> ValueAddedFit:
    estimator, fit = str(attrs["estimator"]), start.fit
    solution = replace(fit.solution, beta=pooled.beta, beta_cov=pooled.beta_cov, covariances=(pooled.covariance,))
    beta, cov = uncentred(solution, fit.products, start.columns.fixed)
    se = np.sqrt(np.diag(cov))
    coefficients = pd.DataFrame({"term": start.columns.fixed, "estimate": beta, "se": se})
    coefficients = coefficients.assign(lower=beta - _NORMAL_95 * se, upper=beta + _NORMAL_95 * se)
    between = variance_table(solution, {"school": start.columns.random}).iloc[:-1]
    notes = _notes(start, pooled)
    return ValueAddedFit(
        effects=_effects(design, start, pooled, attrs | {"context": context, "llf": fit.solution.llf}),
        coefficients=marked(coefficients, estimator, context),
        variance_components=marked(pd.concat([between, _residual_rows(fit)], ignore_index=True), estimator, context),
        converged=fit.solution.convergence.converged and fit.settled and pooled.not_converged == 0,
        notes=notes,
    )


def _effects(design: PupilDesign, start: PlugInFit, pooled: Pooled, attrs: dict[str, Any]) -> SchoolEffects:
    contrasts = dict(CONTRASTS)
    if "mean_p0" in attrs:
        contrasts["at_mean_p0"] = (1.0, float(attrs["mean_p0"]), 0.0)
    by_measure, known = stated(pooled.effects, pooled.modes, pooled.spread, pooled.covariance, pooled.own, contrasts)
    return school_effects(
        design.schools,
        by_measure,
        known,
        n_pupils=design.n_pupils,
        n_need=np.rint(start.n_with).astype(np.int64),
        flag=need_flags(design, start, str(attrs.get("assumes") or "")),
        attrs=attrs,
        not_compared=not_compared(design),
    )


def not_compared(design: PupilDesign) -> NDArray[np.bool_]:
    """Schools left out of the design, shape (schools,)."""
    return np.isin(np.arange(len(design.schools)), design.left_out)


def need_flags(design: PupilDesign, start: PlugInFit, assumes: str) -> list[str]:
    """What is unusual about each school, and what every value rests on."""
    flags = np.select(
        [not_compared(design), design.n_pupils == 0, design.n_pupils == 1, start.n_with < 1.0],
        [NOT_CONNECTED, NO_COMPLETE_PUPIL, ONE_PUPIL, FEW_EXPECTED],
        default="",
    )
    return ["; ".join(filter(None, [str(flag), assumes])) for flag in flags]


def _residual_rows(fit: WeightedFit) -> pd.DataFrame:
    """Coefficients of ``v0 + v1 pi + v2 pi (1 - pi)``; only the first is a variance by itself."""
    names, values = ["v0", "v1 * pi", "v2 * pi * (1 - pi)"], list(fit.residual.coefficients)
    sd = [float(np.sqrt(values[0])), np.nan, np.nan]
    return pd.DataFrame({"group": "Residual", "term1": names, "term2": None, "variance": values, "sd_or_corr": sd})


def _notes(start: PlugInFit, pooled: Pooled) -> tuple[str, ...]:
    fit = start.fit
    largest = max(fit.residual.without, fit.residual.between, fit.residual.with_need)
    notes = list(fit_notes(fit.solution, start.columns.random, largest))
    if not fit.settled:
        notes.append(f"the residual variance function still moved after {fit.passes} passes")
    if pooled.draws == 0:
        notes.append("plug-in: intervals do not know that the probability of need is itself estimated")
    if pooled.not_converged:
        notes.append(f"REML did not converge for {pooled.not_converged} of {pooled.draws} identification draws")
    return tuple(notes)
