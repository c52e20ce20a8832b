"""The stage of a run that looks over cohorts: how school effects drift, averages of years, and a forecast."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from send_va.errors import InputError, NotSupportedError
from send_va.identification.need import Need
from send_va.records.design_columns import Context, ContextColumns, shown_context
from send_va.records.reader import Cohort
from send_va.stage_files import csv_writer
from send_va.stage_inputs import StageInputs
from send_va.study import ESTIMATORS, Study
from send_va.study_check import headline
from send_va.value_added.drift import Drift, estimate_drift
from send_va.value_added.scores import NeedScores
from send_va.value_added.year_estimates import YearEstimates
from send_va.value_added.year_fits import LabelScores, fit_years
from send_va.value_added.year_groups import YearGroups, n_years, year_groups
from send_va.year_checks import write_year_checks

YEARS_NOTE = "stage-years"
YEAR_TABLES = ("autocovariance", "year_averages", "forecast")
_USUAL_COHORTS = 3  # from which on a run looks over cohorts unless told not to
_STREAM = 13  # spawn key of generators, apart from those of other stages


def wants_years(study: Study, cohort: Cohort) -> bool:
    """Whether a run looks over cohorts: as the study says, and by default from three cohorts on."""
    if study.years.forecast is not None:
        return study.years.forecast
    return cohort.roles.cohort is not None and n_years(cohort) >= _USUAL_COHORTS


def year_stages(inputs: StageInputs, need: Need | None, estimators: Sequence[str]) -> None:
    """Write the tables of drift, if they are wanted and not there.

    Where the records do not allow a forecast, the notes of the run say why; the rest of the run is not touched.

    Parameters
    ----------
    inputs : StageInputs
    need : Need or None
        None where only ``labelled`` is estimated.
    estimators : sequence of str
        Those of the run.
    """
    study, directory = inputs.study, inputs.directory
    if not wants_years(study, inputs.cohort):
        return
    with inputs.progress.stage("drift over cohorts, forecast") as tick:
        if directory.has(f"{YEARS_NOTE}.json"):
            return
        chosen = study.years.estimators or (headline(estimators),)
        notes = [f"[years] {name} is not among the estimators of this run" for name in chosen if name not in estimators]
        found: list[Drift] = []
        years: dict[str, YearEstimates] = {}
        try:
            groups = year_groups(inputs.cohort, inputs.profile)
            for name in [name for name in chosen if name in estimators]:
                estimates = _estimates(inputs, groups, need, name, tick)
                drift = _drift(inputs, estimates, name)
                found.append(drift)
                years[name] = estimates
                notes += [f"{name}: {note}" for note in drift.notes]
        except (InputError, NotSupportedError) as error:
            notes.append(f"no forecast: {error}")
        _write(inputs, found)
        notes += write_year_checks(inputs, years, {name: year_generator(study.study.seed, name) for name in years})
        said = {"converged": True, "notes": notes}
        directory.write(f"{YEARS_NOTE}.json", lambda path: path.write_text(json.dumps(said)))


def _estimates(
    inputs: StageInputs, groups: YearGroups, need: Need | None, estimator: str, tick: Callable[[int], None]
) -> YearEstimates:
    study = inputs.study
    return estimates_by_year(
        groups,
        inputs.columns,
        need,
        estimator,
        shown_context(inputs.contexts),
        prior_slope=study.value_added.prior_slope,
        residual_by_need=study.value_added.residual_by_need,
        attrs=inputs.attrs,
        progress=tick,
    )


def _drift(inputs: StageInputs, estimates: YearEstimates, estimator: str) -> Drift:
    study = inputs.study
    return estimate_drift(
        estimates,
        rng=year_generator(study.study.seed, estimator),
        horizon=study.years.horizon,
        average=study.years.average,
        beyond=study.years.beyond,
        draws=study.value_added.draws,
        coverage=study.value_added.coverage,
    )


def estimates_by_year(
    groups: YearGroups,
    columns: ContextColumns,
    need: Need | None,
    estimator: str,
    context: Context,
    *,
    attrs: dict[str, Any],
    prior_slope: bool = True,
    residual_by_need: bool = True,
    progress: Callable[[int], None] | None = None,
) -> YearEstimates:
    """Unshrunken estimates of one estimator by school and cohort.

    Raises
    ------
    InputError
        An estimator other than ``labelled`` without `need`.
    """
    scores: NeedScores = LabelScores.read(groups.cohort)
    left_out, assumes = np.zeros(0, dtype=np.intp), ""
    if estimator != "labelled":
        if need is None:
            raise InputError(
                f"the estimator {estimator!r} needs estimates of need", "need = fit_identification(cohort)"
            )
        scores, assumes = need.scores(estimator), need.assumes(estimator)
        left_out = np.flatnonzero(need.labels.component > 0)
    return fit_years(
        groups,
        columns,
        scores,
        estimator,
        context,
        left_out=left_out,
        prior_slope=prior_slope,
        residual_by_need=residual_by_need,
        attrs=attrs | {"assumes": assumes},
        progress=progress,
    )


def year_generator(seed: int, estimator: str) -> np.random.Generator:
    """A generator of its own for every estimator, so that a resumed run draws the same numbers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM, ESTIMATORS.index(estimator))))


def _write(inputs: StageInputs, found: list[Drift]) -> None:
    if not found:
        return
    for name, field in zip(YEAR_TABLES, ("autocovariance", "averages", "forecast"), strict=True):
        table = pd.concat([getattr(drift, field) for drift in found], ignore_index=True)
        inputs.directory.write(f"{name}.csv", csv_writer(table.assign(synthetic=inputs.study.study.synthetic)))
