"""Cohorts against each other: forecast bias, and how stable schools are between years.

Real records: grade-8 mathematics of R package SGPdata (GPL-3, **semi-synthetic**), by IEP status as recorded, all of
its cohorts. Then synthetic cohorts whose truth is known: effects that last, effects that drift, and schools that get
the same unseen advantage every year (sorting that lasts, SD .1 pupil SD), which forecasts do not see.

Writes ``validation_forecast.csv``, ``validation_stability.csv``, ``validation_quintiles.csv``,
``validation_synthetic.csv``, ``validation.json`` and figures to analyses/results.

``python analyses/15_validation_on_cohorts.py [--replicates 2] [--runs 100] [--fresh]``. Synthetic cohorts that were
done are kept in results/validation_cells and not done again unless ``--fresh`` is given.
"""

from __future__ import annotations

import argparse
import json
import shutil
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from sgpdata import read

import send_va as sv
from send_va.errors import BoundaryWarning
from send_va.publish.figure_style import save_svg_png
from send_va.publish.forecast_figure import forecast_figure
from send_va.validation.falsification_worlds import FIRST_YEAR
from send_va.validation.forecast import forecast_bias
from send_va.validation.power import rejection_rates
from send_va.validation.stability import stability
from send_va.value_added.design import context_columns
from send_va.value_added.year_estimates import YearEstimates, diagonal
from send_va.value_added.year_groups import year_groups
from send_va.year_stages import estimates_by_year

drift_study = import_module("10_drift")
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
CELLS = RESULTS / "validation_cells"
SEED = 20260915
MEASURES = ("theta", "u")
SORTING_SD = 0.1  # pupil SDs
WORLDS = {"effects last": (1.0, 0.0, 0.0), "drift": (0.0, 0.8, 0.0), "sorting that lasts": (1.0, 0.0, SORTING_SD)}
SCHOOLS, PUPILS, COHORTS = 300, 100, 5
EFFECT_SD, ERROR_SD = 0.25, 0.15  # of the light study, pupil SDs


def real_estimates() -> tuple[YearEstimates, dict[str, int]]:
    """Unshrunken estimates of every school and cohort."""
    counts: dict[str, int | float | str] = {}
    frame = drift_study.grade8_cohorts(read(counts))
    records = drift_study.sgp_records(frame)
    profile = records.profile(5)
    columns = context_columns(records, profile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        made = estimates_by_year(year_groups(records, profile), columns, None, "labelled", "cva", attrs={})
    return made, {str(year): int(n) for year, n in frame.groupby("year").size().items()}


def real_records(results: dict[str, object]) -> None:
    """Forecast bias and stability of SGPdata."""
    estimates, results["sgp_pupils"] = real_estimates()
    results["sgp_schools"] = len(estimates.schools)
    results["sgp_cohorts"] = list(estimates.labels)
    tables, correlations, quintiles = [], [], []
    for measure in MEASURES:
        rng = np.random.default_rng(SEED)
        found = forecast_bias(estimates, measure=measure, rng=rng)
        others = forecast_bias(estimates, measure=measure, rng=rng, using="others")
        both = pd.concat([found.table.assign(using="earlier"), others.table.assign(using="others")])
        tables.append(both)
        steady = stability({"labelled": estimates}, rng=np.random.default_rng(SEED), measure=measure)
        correlations.append(steady.correlations)
        quintiles.append(steady.quintiles)
        print(f"{found}\n\nFrom all other cohorts: {others}\n\n{steady}\n")
        figure = forecast_figure(
            found.rows,
            found.table,
            unit=drift_study.UNIT,
            synthetic=True,
            title="SGPdata, semi-synthetic",
            bins=10,
        )
        save_svg_png(figure, RESULTS / f"validation_forecast_{measure}")
        for row in both.itertuples():
            said = {name: round(float(getattr(row, name)), 4) for name in ("coefficient", "se", "lower", "upper")}
            results[f"sgp_{measure}_{row.prediction}_{row.using}"] = said | {
                "p_value": round(row.p_value, 4),
                "rows": int(row.rows),
                "schools": int(row.schools),
                "targets": int(row.targets),
                "verdict": str(row.verdict),
            }
        results[f"sgp_{measure}_same_quintile"] = {
            name: round(float(steady.quintiles[name].iloc[0]), 4)
            for name in ("same", "same_chance", "same_lower", "same_upper", "extremes", "extremes_chance")
        }
    for name, parts in (("forecast", tables), ("stability", correlations), ("quintiles", quintiles)):
        pd.concat(parts).to_csv(RESULTS / f"validation_{name}.csv", index=False, float_format="%.6g")


def synthetic_cohorts(replicates: int) -> pd.DataFrame:
    """Forecast bias of whole synthetic records: need from labels, effects by `entry`."""
    rows = []
    for place, (world, (lasting, persistence, sorting)) in enumerate(WORLDS.items()):
        for replicate in range(replicates):
            path = CELLS / f"{place}-{replicate}-{SEED}.parquet"
            if not path.exists():
                one_cohort_set(place, replicate, lasting, persistence, sorting).to_parquet(path, index=False)
                print(f"{world}, replicate {replicate}: done", flush=True)
            rows.append(pd.read_parquet(path).assign(world=world, replicate=replicate))
    return pd.concat(rows, ignore_index=True)


def one_cohort_set(place: int, replicate: int, lasting: float, persistence: float, sorting: float) -> pd.DataFrame:
    """Forecast bias, and how estimates go with the truth, in one set of synthetic cohorts."""
    rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(place, replicate)))
    years = sv.simulate_years(
        rng, schools=SCHOOLS, pupils_per_school=PUPILS, cohorts=COHORTS, lasting=lasting, persistence=persistence
    )
    shift = sorting * float(str(years.attrs["pupil_sd"])) * rng.standard_normal(SCHOOLS)
    pupils = years.pupils
    place_of = pd.factorize(pupils["school"], sort=True)[0]
    moved = pupils.assign(outcome=pupils["outcome"] + shift[place_of])
    cohort = sv.Cohort.from_pandas(moved, drift_study.ROLES, synthetic=True, outcome_range=(None, None))
    need = sv.fit_identification(cohort, seed=replicate + 1, draws=20)
    profile = cohort.profile(5)
    columns = context_columns(cohort, profile)
    estimates = estimates_by_year(year_groups(cohort, profile), columns, need, "entry", "cva", attrs={"synthetic": 1})
    tables = [forecast_bias(estimates, measure=name, rng=np.random.default_rng(SEED)).table for name in MEASURES]
    return pd.concat(tables, ignore_index=True).drop(columns="verdict")


def light_study(runs: int) -> pd.DataFrame:
    """Forecast bias in many tables of estimates drawn directly, with 300 schools and with 35."""
    rows = []
    for place, (world, (lasting, persistence, sorting)) in enumerate(WORLDS.items()):
        for schools in (300, 35):
            children = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(9, place, schools))).spawn(runs)
            for child in children:
                table = forecast_bias(
                    drawn_estimates(child, schools, lasting, persistence, sorting), rng=child, groups=20
                ).table
                rows.append(table.assign(world=world, schools=schools))
    every = pd.concat(rows, ignore_index=True).rename(columns={"coefficient": "estimate"})
    rates = rejection_rates(every, ["world", "schools", "prediction"])
    return rates.rename(columns={"estimate": "coefficient", "estimate_sd": "coefficient_sd"})


def drawn_estimates(
    rng: np.random.Generator, schools: int, lasting: float, persistence: float, sorting: float
) -> YearEstimates:
    """Effects of schools in five cohorts, with error; what is unseen is the same in all of them."""
    always, path = rng.standard_normal((schools, 1)), [rng.standard_normal(schools)]
    for _ in range(COHORTS - 1):
        path.append(persistence * path[-1] + np.sqrt(1.0 - persistence**2) * rng.standard_normal(schools))
    true = EFFECT_SD * (np.sqrt(lasting) * always + np.sqrt(1.0 - lasting) * np.stack(path, axis=1))
    se = ERROR_SD * 2.0 ** rng.uniform(-1.0, 1.0, (schools, COHORTS))
    seen = true + sorting * rng.standard_normal((schools, 1)) + se * rng.standard_normal((schools, COHORTS))
    counts = np.full(seen.shape, 30)
    return YearEstimates(
        tuple(str(k) for k in range(schools)),
        FIRST_YEAR + np.arange(COHORTS),
        {"theta": seen},
        {"theta": diagonal(se**2)},
        counts,
        counts,
        np.zeros(schools, dtype=bool),
        {"estimator": "simulated", "context": "prior", "synthetic": 1},
    )


def main() -> None:
    """Check the real cohorts, then the method on cohorts with a known truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2, help="whole synthetic cohorts of every world")
    parser.add_argument("--runs", type=int, default=100, help="tables of estimates drawn directly, of every world")
    parser.add_argument("--fresh", action="store_true", help="forget synthetic cohorts done before")
    chosen = parser.parse_args()
    if chosen.fresh and CELLS.exists():
        shutil.rmtree(CELLS)
    CELLS.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {"seed": SEED, "replicates": chosen.replicates, "runs": chosen.runs}
    print("SGPdata is semi-synthetic: what follows shows the method and describes no real school.")
    real_records(results)
    light = light_study(chosen.runs)
    light.assign(synthetic=True).to_csv(RESULTS / "validation_light.csv", index=False, float_format="%.6g")
    print(light.round(3).to_string(index=False))
    for row in light.itertuples():
        name = f"light_{row.world}_{row.schools}_{row.prediction}".replace(" ", "_")
        results[name] = {"coefficient": round(row.coefficient, 4), "rejects": round(row.rejects, 4)}
    whole = synthetic_cohorts(chosen.replicates)
    whole.assign(synthetic=True).to_csv(RESULTS / "validation_synthetic.csv", index=False, float_format="%.6g")
    means = whole.groupby(["world", "prediction", "measure"], sort=False)[["coefficient", "se"]].mean().reset_index()
    print(means.round(3).to_string(index=False))
    for row in means.itertuples():
        results[f"synthetic_{row.world}_{row.prediction}_{row.measure}".replace(" ", "_")] = round(row.coefficient, 4)
    (RESULTS / "validation.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
