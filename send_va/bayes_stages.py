"""The parts of a run that only the Bayesian engine has: its fits, what is checked of them, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from send_va.identification.need import Need
from send_va.multilevel.collapsed_posterior import CollapsedPosterior
from send_va.multilevel.collapsed_priors import Priors
from send_va.multilevel.collapsed_robust import check_groups
from send_va.multilevel.convergence import Limits
from send_va.multilevel.nuts import SAMPLERS, Sampling
from send_va.records.design_columns import Context
from send_va.run_directory import RunDirectory
from send_va.stage_files import csv_writer, save_fit
from send_va.stage_inputs import StageInputs, context_generator
from send_va.study_bayes import BayesSection
from send_va.value_added.bayes import BayesFit, BayesOptions
from send_va.value_added.bayes_checks import (
    floor_check,
    leave_one_out,
    loud_priors,
    mean_residuals,
    predictive_checks,
    prior_sensitivity,
)
from send_va.value_added.bayes_estimators import fit_labelled_bayes, fit_need_bayes
from send_va.value_added.bayes_tree import combined_tree, posterior_groups
from send_va.value_added.design import LabelledProducts
from send_va.value_added.pupil_design import PupilDesign

CHECK_TABLES = ("convergence", "predictive_checks", "leave_one_out", "leave_one_out_summary", "prior_sensitivity")
_CHECKED = 400  # draws over all chains for which replicates and log-likelihoods are worked out and kept
_CHECK_STREAM = 21  # spawn key of generators of replicates and prior draws


def bayes_options(section: BayesSection) -> BayesOptions:
    """What a study file asks for, as the engine takes it."""
    sampler = next(name for name in SAMPLERS if name == section.sampler)
    return BayesOptions(
        priors=Priors(
            coefficient=section.prior_coefficient,
            intercept=section.prior_intercept,
            group_sd=section.prior_school_sd,
            outer_sd=section.prior_la_sd,
            correlation=section.prior_correlation,
            residual_sd=section.prior_residual_sd,
        ),
        sampling=Sampling(sampler, section.chains, section.draws, section.tune, section.target_accept),
        limits=Limits(section.rhat, section.ess, section.mcse, section.divergences),
        la_level=section.la_level,
        schools=check_groups(section.schools),
    )


def need_fits(
    inputs: StageInputs, design: PupilDesign, need: Need, name: str, options: Mapping[str, Any]
) -> dict[Context, BayesFit]:
    """Posteriors of one estimator with need estimated, in all contexts; `options` are those of either engine."""
    return fit_need_bayes(
        design,
        need.scores(name),
        name,
        inputs.contexts,
        authorities=inputs.authorities,
        options=bayes_options(inputs.study.bayes),
        **options,
    )


def labelled_fit(inputs: StageInputs, data: LabelledProducts, context: Context) -> BayesFit:
    """Posterior of the labelled estimator in one context."""
    study, options = inputs.study, inputs.study.value_added
    return fit_labelled_bayes(
        data,
        context,
        authorities=inputs.authorities,
        options=bayes_options(study.bayes),
        rng=context_generator(study.study.seed, context),
        draws=options.draws,
        residual_by_need=options.residual_by_need,
        prior_slope=options.prior_slope,
        correct_error=study.prior.correct_error,
        attrs=inputs.attrs,
    )


def save_bayes(inputs: StageInputs, fitted: BayesFit) -> None:
    """Check one posterior, and write its tree, its checks and, last, the files that mark it as done."""
    directory, attrs = inputs.directory, fitted.fit.effects.attrs
    stem = f"{attrs['estimator']}-{attrs['context']}"
    key = (_CHECK_STREAM, *stem.encode())
    rng = np.random.default_rng(np.random.SeedSequence(inputs.study.study.seed, spawn_key=key))
    checked = fitted.posterior.thinned(_CHECKED)
    observed, replicated = mean_residuals(checked, rng)
    groups = posterior_groups(fitted, checked, observed, replicated, rng)
    schools, summary = leave_one_out(groups["log_likelihood"]["outcome"].astype(np.float64))
    tables = {
        "convergence": fitted.convergence.table,
        "predictive_checks": predictive_checks(observed, replicated, fitted.schools, _floor(inputs, checked, rng)),
        "leave_one_out": schools,
        "leave_one_out_summary": summary,
        "prior_sensitivity": prior_sensitivity(fitted.posterior),
    }
    for name, table in tables.items():
        marked = table.copy()
        marked.insert(0, "estimator", attrs["estimator"])
        marked.insert(1, "context", attrs["context"])
        directory.write(f"stage-check-{name}-{stem}.csv", csv_writer(marked))
    tree = xr.DataTree.from_dict(dict(groups))
    directory.write(f"stage-tree-{stem}.nc", lambda path: tree.to_netcdf(path, engine="h5netcdf"))
    said = loud_priors(tables["prior_sensitivity"])
    save_fit(directory, replace(fitted.fit, notes=(*fitted.fit.notes, *said)))


def _floor(inputs: StageInputs, checked: CollapsedPosterior, rng: np.random.Generator) -> pd.DataFrame | None:
    """Share of outcomes at the lowest possible value beside what a normal outcome would have there."""
    floor = inputs.study.outcome.minimum
    if floor is None:
        return None
    shares = np.array([inputs.floor_shares[name] for name in checked.model.data.strata])
    return floor_check(checked, shares, floor, rng)


def write_bayes(inputs: StageInputs, done: list[tuple[str, str]], known: xr.Dataset, attrs: Mapping[str, Any]) -> None:
    """Put trees and checks of all fits together: ``draws.nc`` and the tables of checks."""
    directory = inputs.directory
    parts = [(estimator, context, _groups(directory, f"{estimator}-{context}")) for estimator, context in done]
    tree = combined_tree(parts, known, dict(attrs))
    directory.write("draws.nc", lambda path: tree.to_netcdf(path, engine="h5netcdf"))
    synthetic = inputs.study.study.synthetic
    for name in CHECK_TABLES:
        rows = [pd.read_csv(directory.work / f"stage-check-{name}-{a}-{b}.csv", dtype={"school": str}) for a, b in done]
        directory.write(f"{name}.csv", csv_writer(pd.concat(rows, ignore_index=True).assign(synthetic=synthetic)))


def _groups(directory: RunDirectory, stem: str) -> dict[str, xr.Dataset]:
    with xr.open_datatree(directory.work / f"stage-tree-{stem}.nc", engine="h5netcdf") as tree:
        return {str(name): _with_whole_labels(tree[name].to_dataset().load()) for name in tree.children}


def _with_whole_labels(dataset: xr.Dataset) -> xr.Dataset:
    """Labels as objects: of fixed width, those of one fit would be cut to the width of another's when put together."""
    text = {name: values.astype(object) for name, values in dataset.coords.items() if values.dtype.kind in "UST"}
    return dataset.assign_coords(text)
