"""Pupils without prior attainment: filled in by multiple imputation, then shifted to see what it would take."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning, InputError
from send_va.records.design_columns import check_contexts
from send_va.records.reader import Cohort
from send_va.sensitivity.completed_fits import CompletedFits, FitPlan, between_schools, complete_case_fits
from send_va.sensitivity.imputation import IMPUTATIONS, Imputations, impute
from send_va.sensitivity.incomplete_records import IncompleteRecords, n_imputed, pattern_table, read_incomplete
from send_va.sensitivity.missing_prior_tables import by_delta_table, school_rows, tipping_table
from send_va.sensitivity.rubin import pool_coefficients, pool_effects
from send_va.value_added.fit_result import ValueAddedFit

DELTAS = (-0.5, -0.25, 0.0, 0.25, 0.5)
STATUSES = ("none", "support", "ehcp")
MOSTLY_IMPUTED = "prior attainment imputed for half of the pupils or more"


@dataclass(frozen=True, eq=False)
class MissingPrior:
    """What missing prior attainment does to a table of schools.

    Attributes
    ----------
    patterns : DataFrame
        :func:`send_va.sensitivity.incomplete_records.pattern_table`.
    effects : mapping of (estimator, delta) to SchoolEffects
        Pooled by Rubin's rules into draws; delta 0 is plain multiple imputation.
    complete : mapping of estimator to SchoolEffects
        From complete records only.
    by_delta : DataFrame
        estimator, delta (SDs of the score), n_schools, correlation (of theta with that from complete records),
        mean_change (mean absolute difference from it, pupil SDs), changed (share of schools in another quintile of
        theta than from complete records), changed_from_mar (than at delta 0).
    tipping : DataFrame
        estimator, direction (``lower``, ``higher``), delta: the smallest shift in that direction at which more than
        `tolerance` of schools are in another quintile than at delta 0, between steps of the grid by a line; missing
        where no step of the grid does that, which is the reassuring answer. `largest` is the last step tried.
    schools : DataFrame
        school, estimator, delta, mean, sd (theta, outcome units), quintile (1 highest), quintile_complete, n_imputed.
    information : DataFrame
        school, estimator, measure, within_sd, between_sd, dof, fraction_missing, at delta 0.
    coefficients : DataFrame
        estimator, context, term, estimate, se, lower, upper, dof, fraction_missing, at delta 0.
    tolerance : float
    notes : tuple of str
    """

    patterns: pd.DataFrame
    effects: Mapping[tuple[str, float], SchoolEffects] = field(repr=False)
    complete: Mapping[str, SchoolEffects] = field(repr=False)
    by_delta: pd.DataFrame
    tipping: pd.DataFrame
    schools: pd.DataFrame
    information: pd.DataFrame
    coefficients: pd.DataFrame
    tolerance: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = self.by_delta[self.by_delta["delta"] == 0.0].iloc[0]
        return (
            f"Missing prior attainment ({first['estimator']}): {100.0 * first['changed']:.1f} % of "
            f"{first['n_schools']:,} schools change quintile when it is imputed rather than left out\n"
            f"{self.by_delta.round(3).to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        return str(self.by_delta.round(3).to_html(index=False))


def missing_prior(
    cohort: Cohort,
    *,
    estimators: Sequence[str] = ("labelled",),
    context: str = "cva",
    imputations: int = IMPUTATIONS,
    deltas: Sequence[float] = DELTAS,
    shifted: Sequence[str] = STATUSES,
    bounded: bool = False,
    refit_identification: bool = False,
    identification_draws: int = 8,
    draws: int = 1000,
    prior_knots: int = 5,
    tolerance: float = 0.05,
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> MissingPrior:
    """Estimate school effects with pupils who have no prior attainment, and what would follow if they differ.

    Everything else in the package rests on complete records. Here missing scores are drawn several times from what is
    known of each pupil (:func:`send_va.sensitivity.imputation.impute`), which is right if, given all that, pupils
    without a score do not differ from pupils with one. The shift `delta` says by how much they might differ all the
    same: it is added to every imputed score. Nothing in the records says which delta is true.

    The identification model is estimated once, from the labels of all pupils in the first completed data set, and every
    pupil's need is worked out anew from it in each: its parameters rest on all pupils, of whom few are imputed.

    Parameters
    ----------
    cohort : Cohort
    estimators : sequence of str
        ``labelled``, ``standardised``, ``entry``.
    context : str
        ``prior``, ``cva`` or ``composition``.
    imputations : int
        Completed data sets.
    deltas : sequence of float
        Shifts in SDs of the score; 0 has to be among them.
    shifted : sequence of str
        SEN status now of the pupils whose scores are shifted: ``none``, ``support``, ``ehcp``.
    bounded : bool
        Hold imputed scores, shifted ones too, to the range that was observed.
    refit_identification : bool
        Estimate the identification model in every completed data set.
    identification_draws : int
        Joint draws of its parameters; 0 takes them as known.
    draws : int
        Draws of the school effects in all.
    prior_knots : int
        Interior knots of the spline of each score, where observed scores have their quantiles.
    tolerance : float
        Share of schools in another quintile above which a shift is said to tip the table.
    seed : int
    progress : callable, optional
        Called with the number of fitted data sets.

    Returns
    -------
    MissingPrior
        If ``by_delta`` shows hardly a change over the grid, pupils without prior attainment do not decide the table.

    Raises
    ------
    InputError
        Nothing is missing; a column is missing for all pupils of some kind; settings out of range.
    NotSupportedError
        An estimator that is not carried through imputations.

    References
    ----------
    Rubin (1987), doi:10.1002/9780470316696 (multiple imputation; shifts of what is imputed, chapter 6).
    van Buuren (2018), Flexible Imputation of Missing Data, 2nd ed., section 3.8, doi:10.1201/9780429492259 (delta).

    Examples
    --------
    >>> from send_va.records.simulator import simulate
    >>> pupils = simulate(np.random.default_rng(1), schools=25, pupils_per_school=40).pupils
    >>> pupils.loc[::8, "prior"] = np.nan
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": "prior",
    ...          "sen_status": "sen_status"}
    >>> cohort = Cohort.from_pandas(pupils, roles, synthetic=True)
    >>> found = missing_prior(cohort, context="prior", imputations=2, deltas=(0.0, 0.5), draws=40, prior_knots=0)
    >>> found.by_delta["delta"].tolist(), found.effects["labelled", 0.0].attrs["imputations"]
    ([0.0, 0.5], 2)
    """
    steps = _checked(deltas, shifted, draws, tolerance)
    (chosen,) = check_contexts([context])
    plan = FitPlan(
        estimators=tuple(estimators),
        context=chosen,
        draws=max(-(-draws // imputations), identification_draws, 2) if imputations > 0 else draws,
        identification_draws=identification_draws,
        refit_identification=refit_identification,
        seed=seed,
        prior_knots=prior_knots,
    )
    records = read_incomplete(cohort)
    filled = impute(records, imputations=imputations, seed=seed, bounded=bounded)
    levels = [STATUSES.index(name) for name in shifted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)  # in the notes, once
        complete = complete_case_fits(records, replace(plan, draws=draws), _generator(seed, 0))
        fits = _all_fits(filled, plan, steps, levels, seed, progress)
    about = {"shifted": ", ".join(shifted), "bounded": int(bounded), "measurement_error": "not corrected"}
    about |= {"n_left_out": int((~records.usable).sum())}
    return _result(records, plan, steps, complete, fits, about, tolerance)


def _checked(deltas: Sequence[float], shifted: Sequence[str], draws: int, tolerance: float) -> tuple[float, ...]:
    steps = tuple(sorted({float(delta) for delta in deltas}))
    if 0.0 not in steps or not np.isfinite(steps).all():
        raise InputError(
            f"deltas are {', '.join(map(str, deltas)) or 'none'}",
            "They are finite shifts in SDs of the score, and 0 (no shift) has to be among them.",
        )
    unknown = [name for name in shifted if name not in STATUSES]
    if unknown or not shifted:
        raise InputError(f"shifted is {', '.join(shifted) or 'empty'}", f"Name some of {', '.join(STATUSES)}.")
    if draws < 2 or not 0.0 < tolerance < 1.0:
        raise InputError(f"draws must be at least 2 and tolerance between 0 and 1, not {draws} and {tolerance}")
    return steps


def _generator(seed: int, place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(18, place)))


def _all_fits(
    filled: Imputations,
    plan: FitPlan,
    steps: Sequence[float],
    levels: Sequence[int],
    seed: int,
    progress: Callable[[int], None] | None,
) -> dict[tuple[str, float], list[ValueAddedFit]]:
    """Every shift of an imputation has the same random numbers, so that shifts differ by the shift alone."""
    fitting = CompletedFits.of(filled.records, plan, filled.completed(0))
    fits: dict[tuple[str, float], list[ValueAddedFit]] = {(n, step): [] for n in plan.estimators for step in steps}
    for i in range(len(filled)):
        for k, step in enumerate(steps):
            found = fitting.fit(filled.completed(i, step, levels), _generator(seed, i + 1))
            for name, fit in found.items():
                fits[name, step].append(fit)
            if progress is not None:
                progress(i * len(steps) + k + 1)
    return fits


def _result(
    records: IncompleteRecords,
    plan: FitPlan,
    steps: Sequence[float],
    complete: Mapping[str, ValueAddedFit],
    fits: Mapping[tuple[str, float], list[ValueAddedFit]],
    about: Mapping[str, object],
    tolerance: float,
) -> MissingPrior:
    effects: dict[tuple[str, float], SchoolEffects] = {}
    information, coefficients, schools = [], [], []
    counts = n_imputed(records, records.schools)
    for (name, step), of in fits.items():
        flags = _flags(of[0].effects, counts)
        pooled, known = pool_effects(
            [fit.effects for fit in of],
            between_schools=[between_schools(fit) for fit in of],
            flag=flags,
            attrs=dict(about) | {"delta": step},
        )
        effects[name, step] = pooled
        if step == 0.0:
            information.append(known.assign(estimator=name))
            coefficients.append(pool_coefficients(of))
        schools.append(school_rows(pooled, complete[name].effects, name, step, counts))
    table = pd.concat(schools, ignore_index=True)
    by_delta = by_delta_table(effects, {name: fit.effects for name, fit in complete.items()})
    order = ["school", "estimator", "measure", "within_sd", "between_sd", "dof", "fraction_missing"]
    return MissingPrior(
        patterns=pattern_table(records),
        effects=effects,
        complete={name: fit.effects for name, fit in complete.items()},
        by_delta=by_delta,
        tipping=tipping_table(by_delta, tolerance),
        schools=table,
        information=pd.concat(information, ignore_index=True)[order],
        coefficients=pd.concat(coefficients, ignore_index=True),
        tolerance=tolerance,
        notes=_notes(records, plan, steps, complete, fits),
    )


def _flags(effects: SchoolEffects, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    said = effects.data["flag"].to_numpy().astype(str)
    most = (counts > 0) & (2 * counts >= effects.data["n_pupils"].to_numpy())
    return ["; ".join(filter(None, [flag, MOSTLY_IMPUTED * bool(x)])) for flag, x in zip(said, most, strict=True)]


def _notes(
    records: IncompleteRecords,
    plan: FitPlan,
    steps: Sequence[float],
    complete: Mapping[str, ValueAddedFit],
    fits: Mapping[tuple[str, float], list[ValueAddedFit]],
) -> tuple[str, ...]:
    """What a reader must know, each thing once and with how often it was so."""
    notes = [
        f"{int(records.to_fill.sum()):,} of {int(records.usable.sum()):,} records with school, outcome and SEN status "
        "have something missing that is imputed"
    ]
    if records.source.roles.prior_sem:
        notes.append("known error of measurement is not taken out: imputed scores have no standard error of their own")
    if plan.needs_identification and not plan.refit_identification:
        notes.append("the identification model is that of the first completed data set")
    for name in plan.estimators:
        of = [fit for step in steps for fit in fits[name, step]]
        said = pd.Series([note for fit in of for note in fit.notes], dtype=object).value_counts()
        notes += [f"{name}: {note} ({count} of {len(of)} completed data sets)" for note, count in said.items()]
        notes += [f"{name}, complete records: {note}" for note in complete[name].notes]
        failed = sum(not fit.converged for fit in of)
        if failed:
            notes.append(f"{name}: {failed} of {len(of)} completed data sets did not converge")
    return tuple(notes)
