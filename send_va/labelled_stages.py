"""The stages of a run that take SEN status as recorded."""

from __future__ import annotations

import warnings

from send_va.bayes_stages import labelled_fit, save_bayes
from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning
from send_va.records.design_columns import Context
from send_va.stage_files import load_effects, save_fit, stage_files
from send_va.stage_inputs import StageInputs, context_generator
from send_va.value_added.design import LabelledProducts, labelled_products
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.labelled import fit_labelled


def labelled_stages(inputs: StageInputs) -> list[SchoolEffects]:
    """Estimate value-added from SEN status now, context after context; finished ones are not done again."""
    cohort, directory = inputs.cohort, inputs.directory
    data: LabelledProducts | None = None
    with inputs.progress.stage("sum cross-products", cohort.n_rows) as tick:
        if not all(directory.has(*stage_files("labelled", context)) for context in inputs.contexts):
            data = labelled_products(cohort, inputs.profile, inputs.columns, tick)
    effects = []
    for context in inputs.contexts:
        with inputs.progress.stage(f"labelled, {context}"):
            if data is not None and not directory.has(*stage_files("labelled", context)):
                if inputs.engine == "bayes":
                    save_bayes(inputs, labelled_fit(inputs, data, context))
                else:
                    save_fit(directory, _fit(inputs, data, context))
            effects.append(load_effects(directory, "labelled", context))
    return effects


def _fit(inputs: StageInputs, data: LabelledProducts, context: Context) -> ValueAddedFit:
    study, options = inputs.study, inputs.study.value_added
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
            attrs=inputs.attrs,
        )
