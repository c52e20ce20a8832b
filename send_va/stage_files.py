"""Files that a finished stage leaves, so that an interrupted run can go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import xarray as xr

from send_va.effects import SchoolEffects
from send_va.run_directory import RunDirectory
from send_va.value_added.fit_result import ValueAddedFit

TABLES = ("coefficients", "variance_components")


def stage_files(estimator: str, context: str) -> tuple[str, ...]:
    """Names of the files of one estimator in one context: effects, note, tables."""
    stem = f"{estimator}-{context}"
    return (f"stage-{stem}.nc", f"stage-{stem}.json", *(f"stage-{table}-{stem}.csv" for table in TABLES))


def save_fit(directory: RunDirectory, fit: ValueAddedFit) -> None:
    """Write the files of a fit."""
    attrs = fit.effects.attrs
    stem = f"{attrs['estimator']}-{attrs['context']}"
    directory.write(f"stage-{stem}.nc", lambda path: fit.effects.data.to_netcdf(path, engine="h5netcdf"))
    for table in TABLES:
        directory.write(f"stage-{table}-{stem}.csv", csv_writer(getattr(fit, table)))
    said = {"converged": fit.converged, "notes": list(fit.notes)}
    directory.write(f"stage-{stem}.json", lambda path: path.write_text(json.dumps(said)))


def load_fit(directory: RunDirectory, estimator: str, context: str) -> ValueAddedFit:
    """Read a fit."""
    stem = f"{estimator}-{context}"
    said = json.loads((directory.work / f"stage-{stem}.json").read_text())
    tables = {name: pd.read_csv(directory.work / f"stage-{name}-{stem}.csv") for name in TABLES}
    return ValueAddedFit(
        effects=load_effects(directory, estimator, context),
        converged=said["converged"],
        notes=tuple(said["notes"]),
        **tables,
    )


def load_effects(directory: RunDirectory, estimator: str, context: str) -> SchoolEffects:
    """Read the effects of a fit."""
    return SchoolEffects(xr.load_dataset(directory.work / f"stage-{estimator}-{context}.nc", engine="h5netcdf"))


def csv_writer(table: pd.DataFrame) -> Callable[[Path], object]:
    """Write a table as CSV, ten digits, the same bytes on every system."""
    return lambda path: table.to_csv(path, index=False, lineterminator="\n", float_format="%.10g")
