"""The stages of a run that rest on identification: need, value-added with it, and what it cannot tell."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from send_va.audit_stage import audit_of_run
from send_va.bayes_stages import need_fits, save_bayes
from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning
from send_va.identification.form import NeedFormWarning, check_form
from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.lottery import identification_lottery
from send_va.identification.need import NEED_ESTIMATORS, Need, estimate_need
from send_va.identification.tables import national_standard, school_table
from send_va.multilevel.threads import one_blas_thread
from send_va.sensitivity_stage import roll_of_run, tipping_of_run
from send_va.stage_files import csv_writer, load_effects, save_fit, stage_files
from send_va.stage_inputs import StageInputs
from send_va.study import Study
from send_va.study_check import headline, wanted_estimators
from send_va.value_added.assumption_ranges import assumption_ranges
from send_va.value_added.feeder_sorting import estimate_feeder_sorting, feeders_differ
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design
from send_va.year_stages import year_stages

IDENTIFICATION_NOTE = "stage-identification"
_DONE = "stage-need.json"
_LABEL_FREE_DRAWS = 40  # ``p0`` hangs on national coefficients only, which hardly vary between draws
_LEAST_SHARE = 0.05  # of feeders' leniency that is need, below which the range over it says nothing
_FORM_STREAM, _VALUE_ADDED_STREAM = 11, 12  # spawn keys of generators, apart from those of the labelled estimator


def need_stages(inputs: StageInputs) -> list[SchoolEffects]:
    """Fit identification, estimate value-added with it, and vary what it cannot tell.

    Stages whose files an interrupted run has left are not done again; identification is, if anything after it is
    missing, and gives the same draws.
    """
    study, cohort, contexts, directory = inputs.study, inputs.cohort, inputs.contexts, inputs.directory
    progress, wanted = inputs.progress, wanted_estimators(study, cohort)
    if not wanted:
        return []
    if directory.has(_DONE):
        possible = json.loads((directory.work / _DONE).read_text())
        return [load_effects(directory, name, context) for name in possible for context in contexts]
    with progress.stage("need of every pupil, identification lottery"):
        labels = read_labels(cohort, inputs.profile, inputs.columns)
        need, shares = _need_and_lottery(study, labels)
    possible = tuple(name for name in wanted if name in need.estimators)
    with progress.stage("form of the need model, national standard"):
        said = _write_identification(inputs, need, shares)
        said["notes"] += [need.why_not(name) for name in wanted if name not in possible]
    with progress.stage("read the design", cohort.n_rows) as tick:
        whole = pupil_design(cohort, inputs.profile, inputs.columns, tick)
        design = whole.without_schools(np.flatnonzero(need.labels.component > 0))
        share = _write_feeder_sorting(inputs, need, design, said)
    directory.write(f"{IDENTIFICATION_NOTE}.json", lambda path: path.write_text(json.dumps(said)))
    effects = []
    for name in possible:
        steps = len(contexts) if inputs.engine == "bayes" else study.identification.draws
        with progress.stage(f"{name}, all contexts", steps) as tick:
            if not directory.has(*(file for context in contexts for file in stage_files(name, context))):
                _fit_and_save(inputs, design, need, name, tick)
            effects += [load_effects(directory, name, context) for context in contexts]
    with progress.stage("what labels cannot tell") as tick:
        _write_ranges(inputs, need, design, effects, tick, share)
    audit_of_run(inputs, whole, need)
    tipping_of_run(inputs, whole, need, possible)
    roll_of_run(inputs, need)
    del whole, design  # years read one of their own
    named = study.value_added.estimators
    year_stages(inputs, need, [*possible, *(["labelled"] if named is None or "labelled" in named else [])])
    directory.write(_DONE, lambda path: path.write_text(json.dumps(possible)))
    return effects


@one_blas_thread
def _need_and_lottery(study: Study, labels: LabelRecords) -> tuple[Need, pd.DataFrame]:
    """Two things that do not wait for one another: much of either runs on one core."""
    draws = 0 if study.identification.plug_in else study.identification.draws
    with ThreadPoolExecutor(max_workers=1) as other:
        lottery = other.submit(identification_lottery, labels)
        need = estimate_need(labels, seed=study.study.seed, draws=draws)
        return need, lottery.result()


def _write_feeder_sorting(inputs: StageInputs, need: Need, design: PupilDesign, said: dict[str, Any]) -> float:
    """Write the estimated share; returns the upper end of its interval, 0 where feeders do not differ."""
    if not feeders_differ(need):
        if need.has_entry and len(need.parameters.feeder):
            said["notes"].append("feeders hardly differ in leniency: how much of it is need does not matter")
        return 0.0
    context = inputs.contexts[-1]
    sorting = estimate_feeder_sorting(need, design, context)
    said["notes"].append(str(sorting))
    table = pd.DataFrame([{**vars(sorting), "context": context, "synthetic": inputs.study.study.synthetic}])
    inputs.directory.write("feeder_sorting.csv", csv_writer(table))
    return sorting.upper


def _with_delta(fit: ValueAddedFit, unit: str) -> ValueAddedFit:
    """Say among the notes how much unobserved need matters under these labels."""
    rows = fit.coefficients[fit.coefficients["term"] == "severity"]
    if not len(rows):
        return fit
    value, low, high = (float(rows[name].iloc[0]) for name in ("estimate", "lower", "upper"))
    said = f"delta {value:+.2f} ({low:+.2f} to {high:+.2f}) {unit} per SD of unexplained need, under these labels"
    return replace(fit, notes=(*fit.notes, said))


def _fit_and_save(inputs: StageInputs, design: PupilDesign, need: Need, name: str, tick: Callable[[int], None]) -> None:
    """Fit one estimator in all contexts by the engine of the run, and write its files."""
    study = inputs.study
    at = NEED_ESTIMATORS.index(next(known for known in NEED_ESTIMATORS if known == name))
    few = min(study.identification.draws, _LABEL_FREE_DRAWS) if name == "label_free" else None
    options: dict[str, Any] = {
        "rng": np.random.default_rng(np.random.SeedSequence(study.study.seed, spawn_key=(_VALUE_ADDED_STREAM, at))),
        "draws": study.value_added.draws,
        "prior_slope": study.value_added.prior_slope,
        "residual_by_need": study.value_added.residual_by_need,
        "identification_draws": few,
        "plug_in": study.identification.plug_in,
        "attrs": inputs.attrs | {"assumes": need.assumes(name)},
        "progress": tick,
    }
    if inputs.engine == "bayes":
        for fitted in need_fits(inputs, design, need, name, options).values():
            save_bayes(inputs, replace(fitted, fit=_with_delta(fitted.fit, study.outcome.unit)))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)  # said in the notes of the run
        fits = fit_need(design, need.scores(name), name, inputs.contexts, **options)
    for fit in fits.values():
        save_fit(inputs.directory, _with_delta(fit, study.outcome.unit))


def _write_identification(inputs: StageInputs, need: Need, shares: pd.DataFrame) -> dict[str, Any]:
    """Write the tables of identification; returns its note."""
    study, directory = inputs.study, inputs.directory
    labels, synthetic = need.labels, study.study.synthetic
    rng = np.random.default_rng(np.random.SeedSequence(study.study.seed, spawn_key=(_FORM_STREAM,)))
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=1) as other:
        warnings.simplefilter("ignore", NeedFormWarning)  # said in the notes of the run
        checked = other.submit(check_form, labels, rng)
        standard = national_standard(need, _areas(labels))
        schools = school_table(need, standard)
        form = checked.result()
    tables = {
        "identification": schools,
        "identification_variance": shares,
        "national_standard": standard,
        "need_form": form.calibration,
        "need_form_log_loss": form.log_loss,
    }
    for name, table in tables.items():
        directory.write(f"{name}.csv", csv_writer(table.assign(synthetic=synthetic)))
    pupils = pa.Table.from_pandas(need.pupils.assign(synthetic=synthetic), preserve_index=False)
    directory.write("pupil_need.parquet", lambda path: pq.write_table(pupils, path))
    converged = need.entry_fit.solution.convergence.converged
    if need.now_fit is not None:
        converged = converged and need.now_fit.solution.convergence.converged
    notes = [*need.warnings, *([str(form)] if form.loses else [])]
    if study.prior.correct_error:
        notes.append("the error of prior scores is taken out for 'labelled' only (correct_error)")
    for flag, n in schools["flag"].str.split("; ").explode().value_counts().items():
        if flag:
            notes.append(f"schools flagged '{flag}': {n:,}")
    return {"converged": converged, "notes": notes}


def _areas(labels: LabelRecords) -> dict[str, tuple[Any, tuple[str, ...]]]:
    areas: dict[str, tuple[Any, tuple[str, ...]]] = {"school": (labels.school, labels.schools)}
    if labels.las:
        areas["la"] = (labels.la, labels.las)
    if labels.regions:
        areas["region"] = (labels.region, labels.regions)
    return areas


def _write_ranges(
    inputs: StageInputs,
    need: Need,
    design: PupilDesign,
    effects: Sequence[SchoolEffects],
    tick: Callable[[int], None],
    feeder_share: float,
) -> None:
    study = inputs.study
    there = list(dict.fromkeys(str(part.attrs["estimator"]) for part in effects))
    first = headline(there) if there else None
    if first in (None, "label_free"):
        return
    options = study.identification
    ranges: dict[str, Sequence[float]] = {"label_reliability": options.label_reliability}
    if need.has_entry:
        if len(need.parameters.la_entry):
            ranges["area_sorting_share"] = options.area_sorting_share
        if feeder_share >= _LEAST_SHARE:
            ranges["feeder_sorting_share"] = (0.0, round(feeder_share, 2))
    else:
        ranges = {"sorting_share": options.sorting_share} | ranges
    heads: Mapping[Any, SchoolEffects] = {
        part.attrs["context"]: part for part in effects if part.attrs["estimator"] == first
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        table = assumption_ranges(
            need,
            design,
            heads,
            first,
            ranges,
            seed=study.study.seed,
            prior_slope=study.value_added.prior_slope,
            residual_by_need=study.value_added.residual_by_need,
            progress=tick,
        )
    inputs.directory.write("assumption_ranges.csv", csv_writer(table.assign(synthetic=study.study.synthetic)))
