"""The diagnostics of a Bayesian run as one page of words, numbers and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from send_va.publish.diagnostics_figure import chain_ranks, predictive_figure
from send_va.publish.figure_style import save_png
from send_va.run_directory import RunDirectory

REPORT = "diagnostics.md"
_SHOWN = {"group_sd": "SD between schools", "outer_sd": "SD between authorities", "residual_sd": "residual SD"}
_EFFECTS = {"Intercept": "level", "need": "gap", "prior_slope": "slope"}
_DPI = 150
_NO_MATTER = "the prior hardly matters"  # as send_va.value_added.bayes_checks reads it
_COEFFICIENTS = ("need", "ehcp", "severity")


def write_report(directory: RunDirectory, *, title: str, unit: str, synthetic: bool) -> None:
    """Write ``diagnostics.md`` and its pictures from the tables and draws of a run.

    Parameters
    ----------
    directory : RunDirectory
        Holds ``draws.nc``, ``convergence.csv``, ``predictive_checks.csv``, ``leave_one_out_summary.csv`` and
        ``prior_sensitivity.csv``.
    title : str
        Of the study.
    unit : str
        Of the outcome.
    synthetic : bool
    """
    work = directory.work
    (work / "figures").mkdir(exist_ok=True)
    names = ("convergence", "predictive_checks", "leave_one_out_summary", "prior_sensitivity")
    tables = {name: pd.read_csv(work / f"{name}.csv") for name in names}
    stamp = ["**Synthetic data: no school here exists.**", ""] if synthetic else []
    parts = [f"# Diagnostics: {title}", "", *stamp, *_how_to_read()]
    with xr.open_datatree(work / "draws.nc", engine="h5netcdf") as tree:
        for estimator, context in (
            tables["convergence"][["estimator", "context"]].drop_duplicates().itertuples(index=False)
        ):
            own = {
                name: table[(table["estimator"] == estimator) & (table["context"] == context)]
                for name, table in tables.items()
            }
            name = f"{estimator}, {context}"
            stem = f"{estimator}_{context}"
            posterior = tree["posterior"].to_dataset().sel(estimator=estimator, context=context)
            figure = chain_ranks(_key_parameters(posterior), name, synthetic=synthetic)
            save_png(figure, work / "figures" / f"diagnostics_ranks_{stem}.png", _DPI)
            figure = predictive_figure(own["predictive_checks"], name, unit=unit, synthetic=synthetic)
            save_png(figure, work / "figures" / f"diagnostics_predictive_{stem}.png", _DPI)
            parts += _section(name, stem, own)
    directory.write(REPORT, lambda path: Path(path).write_text("\n".join(parts) + "\n", encoding="utf-8"))


def _how_to_read() -> list[str]:
    return [
        "Read from the top: a posterior whose chains disagree is not used, whatever follows. Then: does the model make "
        "schools like these; can every school be predicted from the others; how much do priors matter.",
        "",
        "Parameters are those of the sampler: the intercept is that of centred columns, and where need is estimated "
        "the spread that identification adds is not in them, but in school_effects.csv, coefficients.csv and draws.nc.",
        "",
    ]


def _key_parameters(posterior: xr.Dataset) -> dict[str, NDArray[np.floating]]:
    """Draws (chains, draws) of SDs and of the coefficients on need."""
    found: dict[str, NDArray[np.floating]] = {}
    for name, words in _SHOWN.items():
        values = posterior[name]
        for at in values[values.dims[-1]].to_numpy():
            found[f"{words}: {_EFFECTS.get(str(at), at)}"] = values.sel({values.dims[-1]: at}).to_numpy()
    for at in _COEFFICIENTS:
        if at in posterior["coefficient"]:
            found[f"coefficient of {at}"] = posterior["beta"].sel(coefficient=at).to_numpy()
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _section(name: str, stem: str, own: dict[str, pd.DataFrame]) -> list[str]:
    chains, checks = own["convergence"], own["predictive_checks"]
    loo, priors = own["leave_one_out_summary"].iloc[0], own["prior_sensitivity"]
    bad = chains[chains["diagnosis"] != "converged"]
    agree = (
        "All parameters are within the limits." if bad.empty else f"{len(bad)} parameter(s) fail; no school is ranked."
    )
    off = checks[checks["reading"] != "as the model makes"]
    fits = f"The model makes schools like these in all respects checked ({len(checks)})."
    if len(off):
        said = "; ".join(f"{row.check}, {row.group} ({row.reading})" for row in off.itertuples())
        fits = f"It does not in: {said}."
    if not checks["check"].str.startswith("SD between").any():
        fits += " Too few schools have five pupils with need or more for checks by school."
    moved = priors.loc[priors["reading"] != _NO_MATTER, ["parameter", "key", "reading", "prior"]]
    most = "; ".join(
        f"{parameter}, key {key} ({reading}, {float(prior):.2f})"
        for parameter, key, reading, prior in moved.head(3).itertuples(index=False)
    )
    pull = f"{len(moved)} of {len(priors)} parameters are sensitive to a prior{'; most: ' if most else ''}{most}."
    return [
        f"## {name}",
        "",
        f"**Chains.** {agree} R-hat at most {float(chains['rhat'].max()):.3f}; effective draws at least "
        f"{float(chains[['ess_bulk', 'ess_tail']].to_numpy().min()):,.0f}.",
        "",
        f"![Ranks by chain](figures/diagnostics_ranks_{stem}.png)",
        "",
        _table(_shown(chains)[["parameter", "mean", "sd", "mcse", "ess_bulk", "ess_tail", "rhat", "diagnosis"]]),
        "",
        *_left_out(chains, "convergence"),
        f"**Does the model make schools like these?** {fits}",
        "",
        f"![Predictive checks](figures/diagnostics_predictive_{stem}.png)",
        "",
        _table(checks[["check", "group", "observed", "replicated", "lower", "upper", "p", "reading"]]),
        "",
        f"**Leave one school out.** Expected log predictive density {float(loo['elpd']):,.1f} (SE "
        f"{float(loo['se']):,.1f}, mostly because schools differ in size), effective parameters "
        f"{float(loo['p_loo']):.1f}, {int(loo['unreliable'])} of {int(loo['schools'])} schools unreliable: "
        f"{loo['reading']}.",
        "",
        f"**Priors.** {pull}",
        "",
        _table(_shown(priors)[["parameter", "key", "prior", "likelihood", "reading"]]),
        "",
        *_left_out(priors, "prior_sensitivity"),
    ]


def _of_spline(table: pd.DataFrame) -> pd.Series:
    """Coefficients of splines about which there is nothing to say: by themselves they mean nothing."""
    quiet = table["diagnosis"] == "converged" if "diagnosis" in table else table["reading"] == _NO_MATTER
    return table["parameter"].str.contains("spline(", regex=False) & quiet


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    return table[~_of_spline(table)]


def _left_out(table: pd.DataFrame, file: str) -> list[str]:
    """How many coefficients of splines the table leaves out, and where they are."""
    out = table[_of_spline(table)]
    if out.empty:
        return []
    if "rhat" in out:
        least = float(out[["ess_bulk", "ess_tail"]].to_numpy().min())
        said = f"R-hat at most {float(out['rhat'].max()):.3f}, effective draws at least {least:,.0f}"
    else:
        said = f"sensitivity at most {float(out['prior'].max()):.3f}"
    return [f"And {len(out)} coefficients of splines: {said} ({file}.csv).", ""]


def _table(table: pd.DataFrame) -> str:
    """A table in Markdown, four digits."""
    cells = table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells.to_numpy())])
