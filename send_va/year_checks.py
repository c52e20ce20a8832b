"""What later cohorts say of earlier ones: forecast bias, and how stable schools are between years."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from send_va.errors import InputError
from send_va.stage_files import csv_writer
from send_va.stage_inputs import StageInputs
from send_va.validation.forecast import forecast_bias
from send_va.validation.stability import stability
from send_va.value_added.year_estimates import YearEstimates


def write_year_checks(
    inputs: StageInputs, years: Mapping[str, YearEstimates], generators: Mapping[str, np.random.Generator]
) -> list[str]:
    """Write ``forecast_bias.csv`` and the tables of stability.

    Parameters
    ----------
    inputs : StageInputs
    years : mapping of estimator to YearEstimates
    generators : mapping of estimator to numpy.random.Generator
        Each spawns its own for each check.

    Returns
    -------
    list of str
        What the notes of the run say; why not, where the records do not allow a check.
    """
    if not years:
        return []
    spawned = {name: rng.spawn(2) for name, rng in generators.items()}
    try:
        biases = {name: forecast_bias(part, rng=spawned[name][0]) for name, part in years.items()}
        stable = stability(years, rng=spawned[next(iter(years))][1])
    except InputError as error:
        return [f"no check of forecasts and of stability: {error}"]
    tables = {
        "forecast_bias": pd.concat([part.table.assign(estimator=name) for name, part in biases.items()]),
        "stability_correlations": stable.correlations,
        "stability": stable.quintiles,
        "stability_transitions": stable.transitions,
    }
    for name, table in tables.items():
        inputs.directory.write(f"{name}.csv", csv_writer(table.assign(synthetic=inputs.study.study.synthetic)))
    return [
        f"{name}, forecast bias ({row['prediction']}): {row['coefficient']:.2f} "
        f"({row['lower']:.2f} to {row['upper']:.2f}), {row['verdict']}"
        for name, part in biases.items()
        for row in part.table.to_dict("records")
    ]
