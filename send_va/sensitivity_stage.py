"""The stages of a run that ask what its headline rests on: tipping points, bounds, confounders, terms on the roll."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from send_va.identification.need import Need
from send_va.publish.confounding_figure import confounding_figure
from send_va.publish.figure_style import save_svg_png
from send_va.publish.tipping_figure import tipping_figure
from send_va.records.design_columns import Context, shown_context
from send_va.sensitivity.held_estimators import HeldLabelled, hold_labelled
from send_va.sensitivity.need_coefficient import NEED_ALONE, need_coefficients
from send_va.sensitivity.school_robustness import Robustness, robustness
from send_va.sensitivity.weighted_by_roll import roll_weighting
from send_va.stage_files import csv_writer, load_fit
from send_va.stage_inputs import StageInputs
from send_va.study_check import headline
from send_va.validation.constant_risk import ConstantRisk, constant_risk
from send_va.value_added.design import labelled_products
from send_va.value_added.pupil_design import PupilDesign

TABLES = ("robustness", "tipping", "need_confounding", "constant_risk")
ROLL = "roll_weighting"
_MULTIPLES = (1.0, 3.0)  # of an observed covariate's strength, that a confounder is supposed to have


def tipping_of_run(inputs: StageInputs, design: PupilDesign, need: Need, estimators: Sequence[str]) -> None:
    """Work out the tipping points of the headline, unless an interrupted run has done it.

    Parameters
    ----------
    inputs : StageInputs
        Its directory holds the fits of the estimators.
    design : PupilDesign
        Of all pupils, no school left out.
    need : Need
    estimators : sequence of str
        Those of the run that estimate need; the headline among them is taken.
    """
    directory, context = inputs.directory, shown_context(inputs.contexts)
    with inputs.progress.stage("tipping points, bounds, confounders"):
        if not estimators or directory.has(*(f"{name}.csv" for name in TABLES)):
            return
        first = headline(estimators)
        fit = load_fit(directory, first, context)
        standard = pd.read_csv(directory.work / "national_standard.csv", dtype={"name": str})
        found = robustness(design, need, fit, labelled=_labelled(inputs, design, need, context), standard=standard)
        compared = design.without_schools(np.flatnonzero(need.labels.component > 0))
        confounding = need_coefficients(compared, need.scores(first), first, context, kd=_MULTIPLES)
        bounds = pd.concat([part.table.assign(read=name) for name, part in confounding.items()])
        _write(inputs, found, bounds, _constant_risk(compared, need, context))


def _labelled(inputs: StageInputs, design: PupilDesign, need: Need, context: Context) -> HeldLabelled:
    options, labels = inputs.study.value_added, need.recorded or need.labels
    data = labelled_products(inputs.cohort, inputs.profile, inputs.columns)
    return hold_labelled(
        design,
        labels,
        data,
        [context],
        residual_by_need=options.residual_by_need,
        prior_slope=options.prior_slope,
    )


def _constant_risk(design: PupilDesign, need: Need, context: Context) -> pd.DataFrame:
    """Whether recorded SEN means the same in every school, and what its coefficient goes with."""
    places, school = np.unique(design.codes, return_inverse=True)
    sen = ((need.recorded or need.labels).now[design.order] > 0).astype(np.float64)
    held = [name for name in design.context.fixed(context) if name in design.columns]
    moderators = {"the share of pupils labelled": (design.by_school(sen) / np.maximum(design.n_pupils, 1))[places]}
    if need.now_fit is not None:
        moderators["the school's leniency"] = need.parameters.school[places, 0]
    found = constant_risk(
        design.rows[:, -1],
        sen,
        design.rows[:, [design.columns.index(name) for name in held]],
        school,
        moderators={name: values for name, values in moderators.items() if values.std() > 0.0},
    )
    return _risk_table(found, context)


def _risk_table(found: ConstantRisk, context: Context) -> pd.DataFrame:
    """One row for the spread of the coefficient, one for each moderator."""
    known = {
        "adjuster": found.adjuster,
        "context": context,
        "coefficient": found.coefficient,
        "coefficient_se": found.coefficient_se,
        "sd": found.sd,
        "lower": found.lower,
        "upper": found.upper,
        "statistic": found.statistic,
        "p_value": found.p_value,
        "verdict": found.verdict,
    }
    moderators = found.moderators.rename(columns=lambda name: name if name == "moderator" else f"moderator_{name}")
    return pd.DataFrame([known]).merge(moderators, how="cross") if len(moderators) else pd.DataFrame([known])


def _write(inputs: StageInputs, found: Robustness, confounding: pd.DataFrame, risk: pd.DataFrame) -> None:
    directory, study = inputs.directory, inputs.study
    synthetic, title = study.study.synthetic, study.study.title
    tables = dict(zip(TABLES, (found.table, found.shares, confounding, risk), strict=True))
    for name, table in tables.items():
        directory.write(f"{name}.csv", csv_writer(table.assign(synthetic=synthetic)))
    (directory.work / "figures").mkdir(exist_ok=True)
    figure = tipping_figure(found.shares, synthetic=synthetic, title=title)
    save_svg_png(figure, directory.work / "figures" / "tipping")
    read = NEED_ALONE if NEED_ALONE in set(confounding["read"]) else confounding["read"].iloc[0]
    figure = confounding_figure(
        confounding[confounding["read"] == read],
        unit=study.outcome.unit,
        synthetic=synthetic,
        treatment_name="need",
        title=title,
    )
    save_svg_png(figure, directory.work / "figures" / "need_confounding")


def roll_of_run(inputs: StageInputs, need: Need | None) -> None:
    """Estimate theta with pupils weighted by terms on roll, where the records have them."""
    if inputs.cohort.roles.terms_on_roll is None:
        return
    options, directory = inputs.study.value_added, inputs.directory
    with inputs.progress.stage("roll weighting") as tick:
        if directory.has(f"{ROLL}.csv"):
            return
        found = roll_weighting(
            inputs.cohort,
            inputs.profile,
            inputs.columns,
            need,
            contexts=inputs.contexts,
            prior_slope=options.prior_slope,
            residual_by_need=options.residual_by_need,
            progress=tick,
        )
        directory.write(f"{ROLL}.csv", csv_writer(found.table.assign(synthetic=inputs.study.study.synthetic)))
