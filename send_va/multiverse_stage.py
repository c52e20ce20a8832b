"""The multiverse of a study, from its file to tables and figures in a directory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from send_va.beside_run import earlier_manifest, finish_beside
from send_va.errors import InputError, NotSupportedError
from send_va.estimation import read_cohort
from send_va.progress import Progress
from send_va.publish.manifest import installed_versions, write_json_atomic
from send_va.publish.multiverse_figure import save_multiverse_figures
from send_va.records.design_columns import CONTEXTS
from send_va.records.reader import Cohort
from send_va.run_directory import RunDirectory, refuse_foreign
from send_va.sensitivity.choice_fits import FitOptions
from send_va.sensitivity.fit_store import FolderStore
from send_va.sensitivity.multiverse import Multiverse, multiverse
from send_va.sensitivity.specifications import CHOICES
from send_va.stage_files import csv_writer
from send_va.stage_inputs import StageInputs
from send_va.study import Study
from send_va.study_check import check_study
from send_va.study_multiverse import MultiverseSection

_FITS = "fits"  # folder of finished fits, which a finished run does not keep
_MOST_DRAWS = 24  # that expected scores average


def run_multiverse(
    study: Study,
    out: str | Path,
    *,
    section: MultiverseSection | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> Multiverse:
    """Estimate every specification of a study and write what came of it.

    Writes, in ``out/private``: ``specifications.csv``, ``specification_effects.parquet`` (one row a school, one column
    a finished specification, pupil SDs), ``school_robustness.csv`` (one row a school), ``choice_variance.csv``,
    ``specification_curve.csv`` (of the school that is drawn), ``multiverse.json`` (headline numbers), ``manifest.json``
    and ``figures/``.

    Parameters
    ----------
    study : Study
    out : str or Path
        New or empty directory, or one that holds a run of the same records, to which this is added.
    section : MultiverseSection, optional
        In place of ``[multiverse]`` of the study.
    resume : bool
        Go on from the fits of an interrupted run of the same study, choices, records and versions.
    quiet : bool
        Report no progress.

    Returns
    -------
    Multiverse

    Raises
    ------
    StudyError, InputError
        Records that cannot be used, or no specification that can run. Nothing has been written then.
    """
    if section is not None:
        study = replace(study, multiverse=section)
    choices = study.multiverse.choices(study.roles.outcome)
    refuse_foreign(Path(out))
    progress = Progress(4, quiet=quiet)
    with progress.stage("check the records"):
        cohort = read_cohort(study)
        check_study(study, cohort).raise_if_failed()
    earlier = earlier_manifest(Path(out), cohort.source.sha256)
    versions = installed_versions()
    fingerprint = study.fingerprint(cohort.source.sha256, versions, "multiverse")
    directory = RunDirectory.open(out, fingerprint, resume=resume)
    if resume and not directory.resumed:
        progress.say(f"{directory.out.name} holds no interrupted multiverse of this study: starting anew")
    try:
        with progress.stage(f"fit {choices.n_fits:,} models", choices.n_fits) as tick:
            found = multiverse(
                lambda outcome: _opened(study, cohort, outcome),
                choices,
                options=_options(study),
                store=FolderStore(directory.work / _FITS),
                synthetic=study.study.synthetic,
                progress=tick,
            )
    except (InputError, NotSupportedError):
        directory.discard()
        raise
    with progress.stage("write tables"):
        _write_tables(directory, found)
    with progress.stage("draw figures"):
        save_multiverse_figures(found, directory.work / "figures", title=study.study.title)
    shutil.rmtree(directory.work / _FITS)
    contexts = tuple(context for context in CONTEXTS if context in study.value_added.contexts)
    notes = {"multiverse": {"converged": not len(found.failed), "notes": list(found.notes)}}
    finish_beside(
        StageInputs(study, cohort, contexts, directory, progress),
        "multiverse",
        earlier,
        versions=versions,
        settings=study.settings(),
        notes=notes,
    )
    return found


def _opened(study: Study, cohort: Cohort, outcome: str) -> Cohort:
    """The records with an outcome; its range is known for that of the study only."""
    if outcome == study.roles.outcome:
        return cohort
    free = replace(study.outcome, minimum=None, maximum=None)
    return read_cohort(replace(study, roles=replace(study.roles, outcome=outcome), outcome=free))


def _options(study: Study) -> FitOptions:
    known = study.identification
    return FitOptions(
        seed=study.study.seed,
        prior_knots=study.prior.knots,
        composition=study.value_added.composition,
        identification_draws=0 if known.plug_in else min(known.draws, _MOST_DRAWS),
        correct_error=study.prior.correct_error,
    )


def _write_tables(directory: RunDirectory, found: Multiverse) -> None:
    stamp: dict[str, Any] = {"synthetic": found.synthetic}
    tables: dict[str, pd.DataFrame] = {
        "specifications": found.specifications.assign(reference=found.specifications["number"] == found.reference),
        "school_robustness": found.by_school,
        "choice_variance": found.choices,
        "specification_curve": found.curve(found.typical_school).assign(school=found.typical_school),
    }
    for name, table in tables.items():
        directory.write(f"{name}.csv", csv_writer(table.assign(**stamp)))
    effects = found.effects.T.rename_axis("school").reset_index()
    effects.columns = effects.columns.astype(str)
    arrow = pa.Table.from_pandas(effects, preserve_index=False).replace_schema_metadata(
        {"unit": "pupil SDs", "columns": "specification numbers", "synthetic": str(found.synthetic).lower()}
    )
    directory.write("specification_effects.parquet", lambda path: pq.write_table(arrow, path, compression="zstd"))
    said = dict(found.headline) | {
        "synthetic": found.synthetic,
        "n_failed": len(found.failed),
        "reference": found.specifications.set_index("number").loc[found.reference, list(CHOICES)].to_dict(),
        "notes": list(found.notes),
    }
    directory.write("multiverse.json", lambda path: write_json_atomic(path, said))
