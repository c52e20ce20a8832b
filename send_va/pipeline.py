"""The main job: records in, value-added with its uncertainty out, stage after stage."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from send_va.audit_stage import audit_of_run
from send_va.bayes_stages import write_bayes
from send_va.effects import SchoolEffects
from send_va.errors import ConvergenceError, InputError, NotSupportedError
from send_va.estimation import read_cohort
from send_va.labelled_stages import labelled_stages
from send_va.need_stages import IDENTIFICATION_NOTE, need_stages
from send_va.progress import Progress
from send_va.publish.diagnostics_report import write_report
from send_va.publish.drift_figure import drift_figure
from send_va.publish.figure_style import save_svg_png
from send_va.publish.figures import save_figures
from send_va.publish.lottery_figure import identification_shares
from send_va.publish.manifest import describe_machine, installed_versions, manifest, write_json_atomic
from send_va.publish.ranking_pictures import save_ranking_pictures
from send_va.ranking.threads import in_threads
from send_va.ranking_stage import chances_of_pairs, rank_schools, said_of
from send_va.records.design_columns import CONTEXTS, shown_context
from send_va.records.reader import Cohort
from send_va.robustness_stage import write_statement, write_table_changes
from send_va.run_directory import RunDirectory, refuse_foreign
from send_va.sensitivity_stage import roll_of_run
from send_va.stage_files import TABLES, csv_writer, stage_files
from send_va.stage_inputs import StageInputs
from send_va.study import ENGINES, Study, load_study, validated
from send_va.study_check import check_study, headline, wanted_estimators
from send_va.value_added.disagreement import disagreements
from send_va.year_stages import YEAR_TABLES, YEARS_NOTE, wants_years, year_stages

_ORDER = ("entry", "standardised", "labelled", "label_free")  # headline first
_NOTHING_TO_RESUME = (
    "{} holds no interrupted run of this study with these records, settings, engine and versions: starting anew"
)
_LOTTERY_CAUTION = (
    "Upper bounds on leniency: unobserved need of the pupils of feeders, schools and authorities is in them."
)
_OVER_RANGE = (
    "No label before transfer: points assume one share of what a school adds to labels to be need; intervals of theta "
    "hold those at every share"
)
_PLACES = ("expected_rank", "rank_", "p_quintile_")
_MEASURES = ["theta", "u", "gap"]
_OF_ONE_FIT = ("context", "estimator", "assumes", "llf", "mean_p0", "prior_reference")


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
        ``reml``; or ``bayes``: the posterior by NUTS, with priors and an authority level (``[bayes]`` in the study).
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
    if engine not in ENGINES:
        raise NotSupportedError(f"there is no engine {engine!r}; use one of {', '.join(ENGINES)}.")
    study = study if isinstance(study, Study) else load_study(study)
    study = _overridden(study, draws, seed)
    refuse_foreign(Path(out))
    contexts = tuple(context for context in CONTEXTS if context in study.value_added.contexts)
    cohort = read_cohort(study)
    wanted = wanted_estimators(study, cohort)
    stages = 4 + (1 + len(contexts)) * _labelled(study) + (5 + len(wanted)) * bool(wanted)
    stages += wants_years(study, cohort) + (cohort.roles.terms_on_roll is not None)
    progress = Progress(stages, quiet=quiet)
    with progress.stage("check the records"):
        check_study(study, cohort).raise_if_failed()
    versions = installed_versions()
    directory = RunDirectory.open(out, study.fingerprint(cohort.source.sha256, versions, engine), resume=resume)
    if resume and not directory.resumed:
        progress.say(_NOTHING_TO_RESUME.format(directory.out.name))
    try:
        finished = _stages(StageInputs(study, cohort, contexts, directory, progress, engine), versions)
    except (InputError, NotSupportedError):
        directory.discard()
        raise
    if not finished.converged:
        kept = f"Results are kept in {directory.out.name}/private; no school is given a position."
        raise ConvergenceError("\n".join([*finished.notes, kept]))
    return finished


def _stages(inputs: StageInputs, versions: dict[str, str]) -> Run:
    """Estimate, rank, draw, and put the finished directory in place."""
    study, cohort, directory, progress = inputs.study, inputs.cohort, inputs.directory, inputs.progress
    effects = _estimate(inputs)
    with progress.stage("rank and write tables"):
        notes = json.loads((directory.work / "notes.json").read_text())
        converged = all(note["converged"] for note in notes.values())
        school_table, ranking_table, summary = _write_tables(inputs, effects, converged)
    with progress.stage("draw figures"):
        assumed = bool(effects[0].attrs.get("assumes"))
        save_figures(
            _over_range(school_table, directory) if assumed else school_table,
            ranking_table,
            directory.work / "figures",
            unit=study.outcome.unit,
            synthetic=study.study.synthetic,
            title=". ".join(filter(None, [study.study.title, _OVER_RANGE if assumed else ""])),
        )
        _draw_rankings(inputs, effects, school_table, ranking_table)
        _draw_lottery(study, directory)
        _draw_drift(study, directory)
        write_statement(inputs)
    record = manifest(
        versions=versions,
        seed=study.study.seed,
        settings=study.settings() | {"engine": inputs.engine},
        input_hash=cohort.source.sha256,
        convergence=notes,
        timings=progress.timings,
        machine=describe_machine(),
    )
    write_json_atomic(directory.work / "manifest.json", record)
    (directory.work / "notes.json").unlink()
    directory.finish()
    said = tuple(f"{name}: {text}" for name, note in notes.items() for text in note["notes"])
    first, context = str(effects[0].attrs["estimator"]), shown_context(inputs.contexts)
    told = said_of(summary, first, context, study.ranking.certain) if converged else ""
    said += (f"ranking, {first}, {context}: {told}",) if told else ()
    return Run(directory.out, school_table, ranking_table, record, converged, said)


def _over_range(schools: pd.DataFrame, directory: RunDirectory) -> pd.DataFrame:
    """Without a label before transfer, intervals of theta that hold those at every share of labelling that is need."""
    ranges = pd.read_csv(directory.work / "assumption_ranges.csv", dtype={"school": str})
    ranges = ranges[ranges["assumption"] == "sorting_share"].assign(measure="theta")
    keys = ["school", "estimator", "context", "measure"]
    widest = ranges.groupby(keys).agg(lower=("lower", "min"), upper=("upper", "max"))
    own = pd.MultiIndex.from_frame(schools[keys].astype({"school": str}))
    at = widest.reindex(own)
    lower = np.fmin(schools["lower"].to_numpy(), at["lower"].to_numpy())
    return schools.assign(lower=lower, upper=np.fmax(schools["upper"].to_numpy(), at["upper"].to_numpy()))


def _draw_rankings(
    inputs: StageInputs, effects: list[SchoolEffects], schools: pd.DataFrame, rankings: pd.DataFrame
) -> None:
    """Draw what the ranking of the first estimator can say, in the context that the other figures show."""
    study, estimator, context = inputs.study, str(effects[0].attrs["estimator"]), shown_context(inputs.contexts)
    shown = next(part for part in effects if part.attrs["estimator"] == estimator and part.attrs["context"] == context)
    rows = rankings[(rankings["estimator"] == estimator) & (rankings["context"] == context)]
    places = rows["expected_rank"].to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(places).any():
        return
    of = schools[schools["measure"].eq("theta") & schools["estimator"].eq(estimator) & schools["context"].eq(context)]
    save_ranking_pictures(
        rows,
        of[["school", "estimate"]].rename(columns={"estimate": "value"}),
        chances_of_pairs(shown, places),
        inputs.directory.work / "figures",
        unit=study.outcome.unit,
        coverage=study.value_added.coverage,
        certain=study.ranking.certain,
        synthetic=study.study.synthetic,
        title=f"{study.study.title}. Estimator: {estimator}. Context: {context}",
    )


def _draw_lottery(study: Study, directory: RunDirectory) -> None:
    """Draw where the variation in who is labelled lies, if identification was estimated."""
    if not directory.has("identification_variance.csv"):
        return
    shares = pd.read_csv(directory.work / "identification_variance.csv", keep_default_na=False, na_values=[""])
    figure = identification_shares(
        shares, synthetic=study.study.synthetic, caution=_LOTTERY_CAUTION, title=study.study.title
    )
    save_svg_png(figure, directory.work / "figures" / "identification_lottery")


def _draw_drift(study: Study, directory: RunDirectory) -> None:
    """Draw how long effects last, if the run looked over cohorts."""
    if not directory.has(*(f"{name}.csv" for name in YEAR_TABLES)):
        return
    tables = [pd.read_csv(directory.work / f"{name}.csv", dtype={"school": str}) for name in YEAR_TABLES]
    figure = drift_figure(*tables, unit=study.outcome.unit, synthetic=study.study.synthetic, title=study.study.title)
    save_svg_png(figure, directory.work / "figures" / "drift")


def _overridden(study: Study, draws: int | None, seed: int | None) -> Study:
    if draws is not None:
        study = replace(study, value_added=replace(study.value_added, draws=draws))
    if seed is not None:
        study = replace(study, study=replace(study.study, seed=seed))
    return validated(study)


def _labelled(study: Study) -> bool:
    return study.value_added.estimators is None or "labelled" in study.value_added.estimators


def _estimate(inputs: StageInputs) -> list[SchoolEffects]:
    """Estimate everything, or take it from an interrupted run; the headline estimator comes first."""
    study, directory = inputs.study, inputs.directory
    effects = need_stages(inputs)
    if _labelled(study):
        effects += labelled_stages(inputs)
    if not wanted_estimators(study, inputs.cohort):
        year_stages(inputs, None, ("labelled",))
        audit_of_run(inputs)
        roll_of_run(inputs, None)
    effects.sort(key=lambda part: _ORDER.index(str(part.attrs["estimator"])))
    notes = {}
    if directory.has(f"{IDENTIFICATION_NOTE}.json"):
        notes["identification"] = json.loads((directory.work / f"{IDENTIFICATION_NOTE}.json").read_text())
    done = [(str(part.attrs["estimator"]), str(part.attrs["context"])) for part in effects]
    for estimator, context in done:
        file = directory.work / stage_files(estimator, context)[1]
        notes[f"{estimator}, {context}"] = json.loads(file.read_text())
    if directory.has(f"{YEARS_NOTE}.json"):
        notes["years"] = json.loads((directory.work / f"{YEARS_NOTE}.json").read_text())
    notes["records"] = {"converged": True, "notes": _notes_on_records(inputs.cohort, effects)}
    for name in TABLES:
        parts = [pd.read_csv(directory.work / f"stage-{name}-{a}-{b}.csv") for a, b in done]
        directory.write(f"{name}.csv", csv_writer(pd.concat(parts).assign(synthetic=study.study.synthetic)))
    directory.write("notes.json", lambda path: path.write_text(json.dumps(notes)))
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


def _write_tables(
    inputs: StageInputs, effects: list[SchoolEffects], converged: bool
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    study, directory = inputs.study, inputs.directory
    coverage = study.value_added.coverage
    differ = _disagreements(study, effects)
    with ThreadPoolExecutor(max_workers=1) as disk:
        draws = disk.submit(_write_draws, inputs, effects)
        schools = pd.concat(in_threads(lambda part: part.table(coverage), effects), ignore_index=True)
        ranked = rank_schools(study, effects, differ)
        draws.result()
    rankings = ranked.rankings
    if not converged:
        places = rankings.columns[rankings.columns.str.startswith(_PLACES)]
        rankings = rankings.assign(**dict.fromkeys(places, None))
        rankings["published"], rankings["reason"] = False, "the estimate did not converge"
    schools["synthetic"] = rankings["synthetic"] = study.study.synthetic
    directory.write("school_effects.csv", csv_writer(schools))
    write_table_changes(inputs, effects, schools)
    directory.write("rankings.csv", csv_writer(rankings))
    tables = {"ranking_summary": ranked.summary, "publication": ranked.withheld, "disagreements": differ}
    for name, table in tables.items():
        if table is not None:
            directory.write(f"{name}.csv", csv_writer(table.assign(synthetic=study.study.synthetic)))
    for file in directory.work.glob("stage-*"):
        file.unlink()
    return schools, rankings, ranked.summary


def _write_draws(inputs: StageInputs, effects: list[SchoolEffects]) -> None:
    if inputs.engine == "bayes":
        done = [(str(part.attrs["estimator"]), str(part.attrs["context"])) for part in effects]
        write_bayes(inputs, done, _known(effects), _of_all_fits(effects))
        write_report(
            inputs.directory,
            title=inputs.study.study.title,
            unit=inputs.study.outcome.unit,
            synthetic=inputs.study.study.synthetic,
        )
        return
    inputs.directory.write("draws.nc", lambda path: draws_tree(effects).to_netcdf(path, engine="h5netcdf"))


def _disagreements(study: Study, effects: list[SchoolEffects]) -> pd.DataFrame | None:
    """Schools about which estimators disagree, where there are several."""
    first = headline([str(part.attrs["estimator"]) for part in effects])
    if len({str(part.attrs["estimator"]) for part in effects}) == 1:
        return None
    return disagreements(effects, headline=first, amount=study.identification.disagreement)


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
    posterior.attrs = _of_all_fits(effects)
    return xr.DataTree.from_dict({"posterior": posterior, "constant_data": _known(effects)})


def _of_all_fits(effects: list[SchoolEffects]) -> dict[str, Any]:
    return {key: value for key, value in effects[0].attrs.items() if key not in _OF_ONE_FIT}


def _known(effects: list[SchoolEffects]) -> xr.Dataset:
    known = effects[0].data[["n_pupils", "n_need", "flag"]]
    known.attrs = {}
    return known
