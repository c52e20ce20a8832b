"""The incentive audit: as a part of a run, and by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from send_va.beside_run import earlier_manifest, finish_beside
from send_va.errors import InputError
from send_va.estimation import read_cohort
from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need
from send_va.progress import Progress
from send_va.publish.figure_style import save_svg_png
from send_va.publish.incentives_figure import incentives_figure
from send_va.publish.manifest import installed_versions
from send_va.records.design_columns import CONTEXTS, shown_context
from send_va.run_directory import RunDirectory, refuse_foreign
from send_va.sensitivity.incentives import IncentiveAudit, audit_incentives
from send_va.stage_files import csv_writer
from send_va.stage_inputs import StageInputs
from send_va.study import Study, load_study, validated
from send_va.study_check import check_study, wanted_estimators
from send_va.value_added.design import labelled_products
from send_va.value_added.pupil_design import PupilDesign, pupil_design

AUDIT_TABLES = ("incentives", "incentive_summary", "incentive_verdicts", "incentive_cheapest")


@dataclass(frozen=True)
class AuditRun:
    """A finished audit.

    Attributes
    ----------
    directory : Path
    audit : IncentiveAudit
    """

    directory: Path
    audit: IncentiveAudit

    def __str__(self) -> str:
        return f"{self.audit}\nTables: {self.directory.name}/private/incentives.csv and incentive_*.csv"


def audit(study: str | Path | Study, out: str | Path, *, seed: int | None = None, quiet: bool = True) -> AuditRun:
    """Audit what schools would gain by acting on the measures of a study, without running the rest of it.

    Parameters
    ----------
    study : str, Path or Study
    out : str or Path
        New or empty directory, one that holds an earlier audit, or a run of the same records, to which it is added.
    seed : int, optional
        In place of that of the study.
    quiet : bool
        Report no progress.

    Returns
    -------
    AuditRun

    Raises
    ------
    StudyError, InputError
        Nothing has been written then. The directory holds a run of other records, among others.
    """
    study = study if isinstance(study, Study) else load_study(study)
    if seed is not None:
        study = validated(replace(study, study=replace(study.study, seed=seed)))
    refuse_foreign(Path(out))
    contexts = tuple(context for context in CONTEXTS if context in study.value_added.contexts)
    cohort = read_cohort(study)
    progress = Progress(4, quiet=quiet)
    with progress.stage("check the records"):
        check_study(study, cohort).raise_if_failed()
    earlier = earlier_manifest(Path(out), cohort.source.sha256)
    versions = installed_versions()
    directory = RunDirectory.open(out, study.fingerprint(cohort.source.sha256, versions, "audit"))
    inputs = StageInputs(study, cohort, contexts, directory, progress)
    try:
        result = _stages(inputs)
    except (InputError, KeyboardInterrupt):
        directory.discard()
        raise
    finish_beside(inputs, "audit", earlier, versions=versions, settings=study.settings(), notes={})
    return AuditRun(directory.out, result)


def audit_of_run(inputs: StageInputs, design: PupilDesign | None = None, need: Need | None = None) -> None:
    """Audit the measures of a run, unless an interrupted one has done it.

    Parameters
    ----------
    inputs : StageInputs
    design : PupilDesign, optional
        Of all pupils, no school left out; read where it is not given.
    need : Need, optional
        Where the run estimates need.
    """
    with inputs.progress.stage("incentive audit") as tick:
        if inputs.directory.has(*(f"{name}.csv" for name in AUDIT_TABLES)):
            return
        labels = (need.recorded or need.labels) if need else read_labels(inputs.cohort, inputs.profile, inputs.columns)
        write_audit(inputs, design or pupil_design(inputs.cohort, inputs.profile, inputs.columns), labels, need, tick)


def _stages(inputs: StageInputs) -> IncentiveAudit:
    study, cohort, progress = inputs.study, inputs.cohort, inputs.progress
    with progress.stage("need of every pupil"):
        labels = read_labels(cohort, inputs.profile, inputs.columns)
        need = estimate_need(labels, seed=study.study.seed, draws=0) if wanted_estimators(study, cohort) else None
    with progress.stage("read the design", cohort.n_rows) as tick:
        design = pupil_design(cohort, inputs.profile, inputs.columns, tick)
    with progress.stage("incentive audit") as tick:
        return write_audit(inputs, design, labels, need, tick)


def write_audit(
    inputs: StageInputs, design: PupilDesign, labels: LabelRecords, need: Need | None, tick: Callable[[int], None]
) -> IncentiveAudit:
    """Audit the estimators of a study and write the tables.

    Parameters
    ----------
    inputs : StageInputs
    design : PupilDesign
        Of all pupils, no school left out.
    labels : LabelRecords
        As recorded.
    need : Need or None
        None where the study asks for ``labelled`` only.
    """
    study, options = inputs.study, inputs.study.value_added
    named = options.estimators
    wanted = [*(["labelled"] if named is None or "labelled" in named else [])]
    if need is not None:
        wanted += [name for name in wanted_estimators(study, inputs.cohort) if name in need.estimators]
    labelled = "labelled" in wanted
    contexts = study.audit.contexts or (shown_context(inputs.contexts),)
    result = audit_incentives(
        design,
        labels,
        data=labelled_products(inputs.cohort, inputs.profile, inputs.columns) if labelled else None,
        need=need,
        contexts=contexts,
        estimators=wanted,
        seed=study.study.seed,
        settings=study.audit.settings,
        residual_by_need=options.residual_by_need,
        prior_slope=options.prior_slope,
        progress=tick,
    )
    tables = dict(zip(AUDIT_TABLES, (result.table, result.summary, result.verdicts, result.cheapest), strict=True))
    for name, table in tables.items():
        inputs.directory.write(f"{name}.csv", csv_writer(table.assign(synthetic=study.study.synthetic)))
    figure = incentives_figure(
        result.summary, study.audit.settings, context=contexts[0], synthetic=study.study.synthetic
    )
    (inputs.directory.work / "figures").mkdir(exist_ok=True)
    save_svg_png(figure, inputs.directory.work / "figures" / "incentives")
    return result
