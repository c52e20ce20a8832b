"""The main job: records in, value-added with its uncertainty out, stage after stage."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import xarray as xr

from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning, ConvergenceError, InputError, NotSupportedError
from send_va.identification.labels import read_labels
from send_va.identification.need import Need, estimate_need
from send_va.identification.scores import Assumptions
from send_va.need_stages import IDENTIFICATION_NOTE, headline, need_stages, wanted_estimators
from send_va.progress import Progress
from send_va.publish.figure_style import save_svg_png
from send_va.publish.figures import save_figures
from send_va.publish.lottery_figure import identification_shares
from send_va.publish.manifest import describe_machine, installed_versions, manifest, write_json_atomic
from send_va.ranking import PublicationRule, rank
from send_va.records.check import check_cohort
from send_va.records.design_columns import CONTEXTS, Context, check_contexts
from send_va.records.reader import Cohort, open_cohort
from send_va.run_directory import RunDirectory, refuse_foreign
from send_va.stage_files import TABLES, csv_writer, load_effects, save_fit, stage_files
from send_va.study import ESTIMATORS, Study, load_study, validated
from send_va.value_added.design import LabelledProducts, context_columns, labelled_products
from send_va.value_added.disagreement import disagreements
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import pupil_design

_ORDER = ("entry", "standardised", "labelled", "label_free")  # headline first
_LOTTERY_CAUTION = (
    "Upper bounds on leniency: unobserved need of the pupils of feeders, schools and authorities is in them."
)
_MEASURES = ["theta", "u", "gap"]
_OF_ONE_FIT = ("context", "estimator", "llf", "mean_p0", "prior_reference")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    directory : Path
    school_effects, rankings : DataFrame
        As written to ``private/school_effects.csv`` and ``private/rankings.csv``.
    manifest : dict
        As written to ``private/manifest.json``.
    converged : bool
    notes : tuple of str
        What a reader of the tables must know.
    """

    directory: Path
    school_effects: pd.DataFrame
    rankings: pd.DataFrame
    manifest: dict[str, Any]
    converged: bool
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.school_effects['school'].nunique():,} schools, results in {self.directory.name}/private"]
        return "\n".join([*lines, *self.notes])


def read_cohort(study: str | Path | Study) -> Cohort:
    """Open the records of a study, lazily.

    Parameters
    ----------
    study : str, Path or Study
        A study file, or a study already loaded.

    Returns
    -------
    Cohort

    Raises
    ------
    StudyError
        The study file cannot be used.
    InputError
        The file of records is missing, unreadable or lacks columns.
    """
    study = study if isinstance(study, Study) else load_study(study)
    return open_cohort(
        study.folder / study.data.file,
        study.roles,
        columns=study.columns,
        sen=study.sen,
        table=study.data.table,
        outcome_range=(study.outcome.minimum, study.outcome.maximum),
        synthetic=study.study.synthetic,
    )


def run(
    study: str | Path | Study,
    out: str | Path,
    *,
    engine: str = "reml",
    draws: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> Run:
    """Run all stages of a study: check, estimate, rank, draw, write.

    Parameters
    ----------
    study : str, Path or Study
    out : str or Path
        New or empty directory, or one that holds an earlier run (which is replaced when this one is finished).
    engine : str
        ``reml``. The Bayesian engine is not part of this version.
    draws, seed : int, optional
        In place of those of the study file.
    resume : bool
        Go on from the finished stages of an interrupted run of the same study, records, draws and seed.
    quiet : bool
        Report no progress.

    Returns
    -------
    Run

    Raises
    ------
    StudyError, InputError
        Nothing has been written then.
    ConvergenceError
        An estimate did not converge; results are in ``private/``, no school is given a position.
    """
    if engine != "reml":
        raise NotSupportedError(f"no engine {engine!r} in this version; use engine 'reml'.")
    study = study if isinstance(study, Study) else load_study(study)
    study = _overridden(study, draws, seed)
    refuse_foreign(Path(out))
    contexts = tuple(context for context in CONTEXTS if context in study.value_added.contexts)
    progress = Progress(3, quiet=quiet)
    with progress.stage("check the records"):
        cohort = read_cohort(study)
        check_cohort(cohort, baseline=study.prior.baseline).raise_if_failed()
    wanted = wanted_estimators(study, cohort)
    progress.stages += (1 + len(contexts)) * _labelled(study) + (4 + len(wanted)) * bool(wanted)
    versions = installed_versions()
    directory = RunDirectory.open(out, study.fingerprint(cohort.source.sha256, versions), resume=resume)
    try:
        finished = _stages(study, cohort, contexts, versions, directory, progress)
    except (InputError, NotSupportedError):
        directory.discard()
        raise
    if not finished.converged:
        kept = f"Results are kept in {directory.out.name}/private; no school is given a position."
        raise ConvergenceError("\n".join([*finished.notes, kept]))
    return finished


def _stages(
    study: Study,
    cohort: Cohort,
    contexts: tuple[Context, ...],
    versions: dict[str, str],
    directory: RunDirectory,
    progress: Progress,
) -> Run:
    """Estimate, rank, draw, and put the finished directory in place."""
    effects = _estimate(study, cohort, contexts, directory, progress)
    with progress.stage("rank and write tables"):
        notes = json.loads((directory.work / "notes.json").read_text())
        converged = all(note["converged"] for note in notes.values())
        school_table, ranking_table = _write_tables(study, effects, directory, converged)
    with progress.stage("draw figures"):
        save_figures(
            school_table,
            ranking_table,
            directory.work / "figures",
            unit=study.outcome.unit,
            synthetic=study.study.synthetic,
            title=study.study.title,
        )
        _draw_lottery(study, directory)
    record = manifest(
        versions=versions,
        seed=study.study.seed,
        settings=study.settings(),
        input_hash=cohort.source.sha256,
        convergence=notes,
        timings=progress.timings,
        machine=describe_machine(),
    )
    write_json_atomic(directory.work / "manifest.json", record)
    (directory.work / "notes.json").unlink()
    directory.finish()
    said = tuple(f"{name}: {text}" for name, note in notes.items() for text in note["notes"])
    return Run(directory.out, school_table, ranking_table, record, converged, said)


def _draw_lottery(study: Study, directory: RunDirectory) -> None:
    """Draw where the variation in who is labelled lies, if identification was estimated."""
    if not directory.has("identification_variance.csv"):
        return
    shares = pd.read_csv(directory.work / "identification_variance.csv", keep_default_na=False, na_values=[""])
    figure = identification_shares(
        shares, synthetic=study.study.synthetic, caution=_LOTTERY_CAUTION, title=study.study.title
    )
    save_svg_png(figure, directory.work / "figures" / "identification_lottery")


def fit_identification(
    cohort: Cohort, *, seed: int = 1, draws: int = 200, prior_knots: int = 5, assumptions: Assumptions | None = None
) -> Need:
    """Estimate the need of every pupil, and who labels leniently.

    Parameters
    ----------
    cohort : Cohort
        With the SEN status before transfer and the feeder of every pupil, leniency and intake need are told apart;
        without, they are not, and everything depends on ``assumptions.sorting_share``.
    seed : int
    draws : int
        Joint draws of the identification parameters; 0 for none.
    prior_knots : int
        Interior knots of the spline of each prior score.
    assumptions : Assumptions, optional
        What labels alone cannot tell.

    Returns
    -------
    Need
        ``.schools``, ``.pupils``, ``.variance``; give it to :func:`fit_value_added`.

    Raises
    ------
    InputError
        Records that cannot be used, labels that do not vary, a predictor that the rated school sets.
    """
    if draws < 0 or seed < 0:
        raise InputError(f"draws and seed must be 0 or more, not {draws} and {seed}")
    check_cohort(cohort, baseline="not stated").raise_if_failed()
    profile = cohort.profile(prior_knots)
    labels = read_labels(cohort, profile, context_columns(cohort, profile))
    return estimate_need(labels, seed=seed, draws=draws, assumptions=assumptions)


def fit_value_added(
    cohort: Cohort,
    need: Need | None = None,
    *,
    estimator: str | None = None,
    context: str = "cva",
    seed: int = 1,
    draws: int = 1000,
    prior_knots: int = 5,
    unit: str = "outcome points",
) -> SchoolEffects:
    """Estimate value-added for pupils with need, by school.

    Parameters
    ----------
    cohort : Cohort
    need : Need, optional
        From :func:`fit_identification` on the same cohort; every estimator but `labelled` needs it.
    estimator : str, optional
        ``labelled`` (SEN status now, as recorded), ``standardised`` (both labels), ``entry`` (only labels set before
        the pupil arrived) or ``label_free`` (none). By default ``entry``, or what comes closest, where `need` is given.
    context : str
        What is held constant: ``prior`` (attainment), ``cva`` (and background), ``composition`` (and school means).
    seed : int
    draws : int
    prior_knots : int
        Interior knots of the spline of each prior score; 0 for a line.
    unit : str
        Unit of the outcome, for labels.

    Returns
    -------
    SchoolEffects
        Draws of ``theta``, ``u`` and ``gap`` in outcome units. A `need` without draws gives plug-in intervals, marked
        ``plug-in`` in the attributes.

    Raises
    ------
    InputError
        An unknown context, records that cannot be used, or an estimator without `need`.
    NotSupportedError
        An unknown estimator, or one the records do not allow.
    """
    (chosen,) = check_contexts([context])
    if draws < 1 or seed < 0:
        raise InputError(f"draws must be 1 or more and seed 0 or more, not {draws} and {seed}")
    name = estimator or ("labelled" if need is None else headline(need.estimators))
    if name not in ESTIMATORS:
        raise NotSupportedError(f"no estimator {name!r}; there are {', '.join(ESTIMATORS)}.")
    check_cohort(cohort, baseline="not stated").raise_if_failed()
    profile = cohort.profile(prior_knots)
    columns = context_columns(cohort, profile)
    rng = context_generator(seed, chosen)
    attrs = {"seed": seed, "engine": "reml", "unit": unit, "synthetic": int(cohort.synthetic)}
    if name == "labelled":
        data = labelled_products(cohort, profile, columns)
        return fit_labelled(data, chosen, rng=rng, draws=draws, attrs=attrs).effects
    if need is None:
        raise InputError(f"the estimator {name!r} needs estimates of need", "need = fit_identification(cohort)")
    design = pupil_design(cohort, profile, columns)
    design = design.without_schools(np.flatnonzero(need.labels.component > 0))
    scores, plug_in = need.scores(name), need.n_draws < 2
    return fit_need(design, scores, name, [chosen], rng=rng, draws=draws, plug_in=plug_in, attrs=attrs)[chosen].effects


def context_generator(seed: int, context: Context) -> np.random.Generator:
    """A generator of its own for every context, so that a resumed run draws the same numbers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(get_args(Context).index(context),)))


def _overridden(study: Study, draws: int | None, seed: int | None) -> Study:
    if draws is not None:
        study = replace(study, value_added=replace(study.value_added, draws=draws))
    if seed is not None:
        study = replace(study, study=replace(study.study, seed=seed))
    return validated(study)


def _labelled(study: Study) -> bool:
    return study.value_added.estimators is None or "labelled" in study.value_added.estimators


def _estimate(
    study: Study, cohort: Cohort, contexts: tuple[Context, ...], directory: RunDirectory, progress: Progress
) -> list[SchoolEffects]:
    """Estimate everything, or take it from an interrupted run; the headline estimator comes first."""
    effects = need_stages(study, cohort, contexts, directory, progress)
    if _labelled(study):
        effects += _labelled_stages(study, cohort, contexts, directory, progress)
    effects.sort(key=lambda part: _ORDER.index(str(part.attrs["estimator"])))
    notes = {}
    if directory.has(f"{IDENTIFICATION_NOTE}.json"):
        notes["identification"] = json.loads((directory.work / f"{IDENTIFICATION_NOTE}.json").read_text())
    done = [(str(part.attrs["estimator"]), str(part.attrs["context"])) for part in effects]
    for estimator, context in done:
        file = directory.work / stage_files(estimator, context)[1]
        notes[f"{estimator}, {context}"] = json.loads(file.read_text())
    notes["records"] = {"converged": True, "notes": _notes_on_records(cohort, effects)}
    for name in TABLES:
        parts = [pd.read_csv(directory.work / f"stage-{name}-{a}-{b}.csv") for a, b in done]
        directory.write(f"{name}.csv", csv_writer(pd.concat(parts).assign(synthetic=study.study.synthetic)))
    directory.write("notes.json", lambda path: path.write_text(json.dumps(notes)))
    return effects


def _labelled_stages(
    study: Study, cohort: Cohort, contexts: tuple[Context, ...], directory: RunDirectory, progress: Progress
) -> list[SchoolEffects]:
    data: LabelledProducts | None = None
    with progress.stage("sum cross-products", cohort.n_rows) as tick:
        if not all(directory.has(*stage_files("labelled", context)) for context in contexts):
            profile = cohort.profile(study.prior.knots)
            columns = context_columns(cohort, profile, study.value_added.composition)
            data = labelled_products(cohort, profile, columns, tick)
    effects = []
    for context in contexts:
        with progress.stage(f"labelled, {context}"):
            if data is not None and not directory.has(*stage_files("labelled", context)):
                save_fit(directory, _fit_labelled(study, data, context))
            effects.append(load_effects(directory, "labelled", context))
    return effects


def _notes_on_records(cohort: Cohort, effects: list[SchoolEffects]) -> list[str]:
    """What a reader must know of the records and of the estimator."""
    left_out, flags = int(effects[0].attrs["n_left_out"]), effects[0].data["flag"].to_numpy().astype(str)
    notes = []
    if left_out:
        notes.append(
            f"{left_out:,} of {cohort.n_rows:,} pupils are left out because a value is missing (send-va check)"
        )
    for flag in sorted(set(flags) - {""}):
        notes.append(f"schools kept and flagged '{flag}': {int((flags == flag).sum()):,}")
    notes.append(
        "SEN status now is set by the rated school: intervals of the labelled estimator do not know of pupils labelled "
        "otherwise than their need and are too short (docs/identification.md)"
    )
    return notes


def _fit_labelled(study: Study, data: LabelledProducts, context: Context) -> ValueAddedFit:
    options = study.value_added
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)  # said in the notes of the run
        return fit_labelled(
            data,
            context,
            rng=context_generator(study.study.seed, context),
            draws=options.draws,
            residual_by_need=options.residual_by_need,
            prior_slope=options.prior_slope,
            correct_error=study.prior.correct_error,
            attrs={
                "seed": study.study.seed,
                "engine": "reml",
                "unit": study.outcome.unit,
                "title": study.study.title,
                "synthetic": int(study.study.synthetic),
            },
        )


def _write_tables(
    study: Study, effects: list[SchoolEffects], directory: RunDirectory, converged: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    coverage = study.value_added.coverage
    rule = PublicationRule(study.publication.minimum_need, study.publication.minimum_reliability)
    schools = pd.concat([part.table(coverage) for part in effects], ignore_index=True)
    rankings = pd.concat([rank(part, coverage=coverage, rule=rule).table for part in effects], ignore_index=True)
    if not converged:
        rankings["published"], rankings["reason"] = False, "the estimate did not converge"
    schools["synthetic"] = rankings["synthetic"] = study.study.synthetic
    directory.write("school_effects.csv", csv_writer(schools))
    directory.write("rankings.csv", csv_writer(rankings))
    _write_disagreements(study, effects, directory)
    directory.write("draws.nc", lambda path: draws_tree(effects).to_netcdf(path, engine="h5netcdf"))
    for file in directory.work.glob("stage-*"):
        file.unlink()
    return schools, rankings


def _write_disagreements(study: Study, effects: list[SchoolEffects], directory: RunDirectory) -> None:
    """Schools about which estimators disagree, where there are several."""
    first = headline([str(part.attrs["estimator"]) for part in effects])
    if len({str(part.attrs["estimator"]) for part in effects}) > 1:
        table = disagreements(effects, headline=first, amount=study.identification.disagreement)
        directory.write("disagreements.csv", csv_writer(table.assign(synthetic=study.study.synthetic)))


def draws_tree(effects: list[SchoolEffects]) -> xr.DataTree:
    """Draws of all contexts as an ArviZ tree.

    Returns
    -------
    DataTree
        Group ``posterior``: theta, u, gap with dims (chain, draw, estimator, context, school), in outcome units;
        group ``constant_data``: pupils and flags by school.
    """
    by_estimator: dict[str, list[xr.Dataset]] = {}
    for part in effects:
        kept = part.data[_MEASURES].astype(np.float32).drop_vars("measure", errors="ignore")
        kept = kept.expand_dims(context=[str(part.attrs["context"])])
        by_estimator.setdefault(str(part.attrs["estimator"]), []).append(kept)
    together = [xr.concat(parts, dim="context").expand_dims(estimator=[name]) for name, parts in by_estimator.items()]
    draws = xr.concat(together, dim="estimator").expand_dims(chain=[0])
    posterior = draws.transpose("chain", "draw", "estimator", "context", "school")
    posterior.attrs = {key: value for key, value in effects[0].attrs.items() if key not in _OF_ONE_FIT}
    known = effects[0].data[["n_pupils", "n_need", "flag"]]
    known.attrs = {}
    return xr.DataTree.from_dict({"posterior": posterior, "constant_data": known})
