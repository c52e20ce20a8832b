"""Missing prior attainment of a study, from its file to tables and a figure in a directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from send_va.beside_run import earlier_manifest, finish_beside
from send_va.estimation import read_cohort
from send_va.progress import Progress
from send_va.publish.figure_style import save_svg_png
from send_va.publish.manifest import installed_versions
from send_va.publish.missing_prior_figure import missing_prior_figure
from send_va.records.design_columns import CONTEXTS, shown_context
from send_va.records.reader import Cohort
from send_va.run_directory import RunDirectory, refuse_foreign
from send_va.sensitivity.missing_prior import MissingPrior, missing_prior
from send_va.stage_files import csv_writer
from send_va.stage_inputs import StageInputs
from send_va.study import Study, load_study, validated
from send_va.study_check import check_study, headline, wanted_estimators
from send_va.study_missing import ESTIMATORS

_MOST_DRAWS = 8  # of the identification parameters, in every completed data set
TABLES = {
    "missing_patterns": "patterns",
    "missing_prior": "by_delta",
    "missing_prior_tipping": "tipping",
    "missing_prior_schools": "schools",
    "missing_prior_information": "information",
    "missing_prior_coefficients": "coefficients",
}


def run_missing(
    study: str | Path | Study, out: str | Path, *, seed: int | None = None, quiet: bool = True
) -> MissingPrior:
    """Impute missing prior attainment, shift what is imputed, and see what that does to the table.

    Parameters
    ----------
    study : str, Path or Study
    out : str or Path
        New or empty directory, or one that holds a run of the same records, to which this is added.
    seed : int, optional
        In place of that of the study.
    quiet : bool
        Report no progress.

    Returns
    -------
    MissingPrior

    Raises
    ------
    StudyError, InputError
        Nothing is missing, or a score is missing for all pupils of some kind. Nothing has been written then.
    """
    study = study if isinstance(study, Study) else load_study(study)
    if seed is not None:
        study = validated(replace(study, study=replace(study.study, seed=seed)))
    refuse_foreign(Path(out))
    section, progress = study.missing_prior, Progress(3, quiet=quiet)
    with progress.stage("check the records"):
        cohort = read_cohort(study)
        check_study(study, cohort).raise_if_failed()
    earlier = earlier_manifest(Path(out), cohort.source.sha256)
    versions = installed_versions()
    contexts = tuple(context for context in CONTEXTS if context in study.value_added.contexts)
    with progress.stage("impute and fit", section.imputations * len(section.deltas)) as tick:
        found = missing_prior(
            cohort,
            estimators=section.estimators or _usual(study, cohort),
            context=shown_context(contexts),
            imputations=section.imputations,
            deltas=section.deltas,
            shifted=section.shifted,
            bounded=section.bounded,
            refit_identification=section.refit_identification,
            identification_draws=0 if study.identification.plug_in else min(study.identification.draws, _MOST_DRAWS),
            draws=study.value_added.draws,
            prior_knots=study.prior.knots,
            tolerance=section.tolerance,
            seed=study.study.seed,
            progress=tick,
        )
    directory = RunDirectory.open(out, study.fingerprint(cohort.source.sha256, versions, "missing prior"))
    with progress.stage("write tables and draw"):
        _write(directory, found, study)
    finish_beside(
        StageInputs(study, cohort, contexts, directory, progress),
        "missing_prior",
        earlier,
        versions=versions,
        settings=study.settings(),
        notes={"missing_prior": {"converged": True, "notes": list(found.notes)}},
    )
    return found


def _usual(study: Study, cohort: Cohort) -> tuple[str, ...]:
    """The headline, of those that are carried through imputations, and the label as recorded."""
    wanted = [name for name in wanted_estimators(study, cohort) if name in ESTIMATORS]
    return tuple(dict.fromkeys([*([headline(wanted)] if wanted else []), "labelled"]))


def _write(directory: RunDirectory, found: MissingPrior, study: Study) -> None:
    synthetic = study.study.synthetic
    for name, field in TABLES.items():
        directory.write(f"{name}.csv", csv_writer(getattr(found, field).assign(synthetic=synthetic)))
    figure = missing_prior_figure(
        found.patterns, found.by_delta, tolerance=found.tolerance, synthetic=synthetic, title=study.study.title
    )
    (directory.work / "figures").mkdir(exist_ok=True)
    save_svg_png(figure, directory.work / "figures" / "missing_prior")
