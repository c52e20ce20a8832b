"""The robustness statement of a run: how far its table moves, and what it is to be read with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from send_va.effects import SchoolEffects
from send_va.publish.robustness_statement import STATEMENT, robustness_statement
from send_va.publish.run_tables import RunTables
from send_va.records.design_columns import shown_context
from send_va.sensitivity.changed_tables import changes_of_a_run
from send_va.stage_files import csv_writer
from send_va.stage_inputs import StageInputs
from send_va.study_check import headline

CHANGES = "table_changes"


def write_table_changes(inputs: StageInputs, effects: Sequence[SchoolEffects], schools: pd.DataFrame) -> None:
    """Write how far the headline table moves under the other choices and assumptions of the run."""
    directory = inputs.directory
    ranges = None
    if directory.has("assumption_ranges.csv"):
        ranges = pd.read_csv(directory.work / "assumption_ranges.csv", dtype={"school": str})
    estimator = headline([str(part.attrs["estimator"]) for part in effects])
    changes = changes_of_a_run(schools, estimator, shown_context(inputs.contexts), ranges)
    keys = {"estimator": estimator, "context": shown_context(inputs.contexts)}
    changes = changes.assign(**keys, synthetic=inputs.study.study.synthetic)
    directory.write(f"{CHANGES}.csv", csv_writer(changes))


def write_statement(inputs: StageInputs) -> None:
    """Write ``robustness.md`` from the tables that are there; nothing where there is no run."""
    directory, study = inputs.directory, inputs.study
    if not directory.has(f"{CHANGES}.csv", "ranking_summary.csv"):
        return
    estimators = pd.read_csv(directory.work / "ranking_summary.csv")["estimator"].unique().tolist()
    tables = RunTables(directory.work, headline(estimators), shown_context(inputs.contexts))
    text = robustness_statement(
        tables, title=study.study.title, certain=study.ranking.certain, synthetic=study.study.synthetic
    )
    directory.write(STATEMENT, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))
