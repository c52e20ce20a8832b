"""How long school effects last, and what can be said of the cohort a parent chooses for.

Real records: grade-8 mathematics of R package SGPdata (GPL-3, **semi-synthetic**), by IEP status as recorded; forecasts
of the last cohort are scored against what its own pupils show. Then synthetic cohorts whose effects drift by known
autocorrelations, with need estimated from labels (``entry``): error and cover of forecasts beside simpler ones.
"""

from __future__ import annotations

import json
import os
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sgpdata import GRADE, read

import send_va as sv
from send_va.errors import BoundaryWarning
from send_va.publish.drift_figure import drift_figure
from send_va.publish.figure_style import save_svg_png
from send_va.value_added.design import context_columns
from send_va.value_added.drift import Drift, estimate_drift
from send_va.value_added.year_estimates import YearEstimates
from send_va.value_added.year_groups import year_groups
from send_va.year_stages import estimates_by_year

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
SEED = 20250110
REPLICATES = int(os.environ.get("SEND_VA_REPLICATES", "5"))
SCHOOLS, PUPILS, COHORTS = 300, 100, 4
WORLDS = {"part_lasts": (0.6, 0.6), "nothing_lasts": (0.0, 0.84), "no_drift": (1.0, 0.0)}
ROLES = {
    "pupil": "pupil",
    "school": "school",
    "la": "la",
    "feeder": "feeder",
    "feeder_la": "feeder_la",
    "cohort": "cohort",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "sen_status_entry": "sen_status_entry",
    "context": ["C(sex)", "month_of_birth", "fsm6", "eal", "C(ethnicity)", "idaci", "looked_after"],
}
SGP_ROLES = {
    "pupil": "pupil",
    "school": "school",
    "cohort": "year",
    "outcome": "score",
    "prior": ["score_7"],
    "context": ["frl", "ell", "C(ethnicity)", "C(gender)"],
    "sen_status": "iep",
}
UNIT = "grade-8 mathematics points"


def grade8_cohorts(maths: pd.DataFrame) -> pd.DataFrame:
    """Grade 8 of every year with the score in grade 7 a year before; who repeats the year counts in the first."""
    years = sorted(maths["year"].unique())
    parts = []
    for before, year in pairwise(years):
        now = maths[(maths["year"] == year) & (maths["grade"] == GRADE)]
        then = maths[(maths["year"] == before) & (maths["grade"] == GRADE - 1)]
        scores = then[["pupil", "score"]].rename(columns={"score": "score_7"})
        parts.append(now.merge(scores, on="pupil", how="inner", validate="1:1"))
    return pd.concat(parts, ignore_index=True).drop_duplicates("pupil", ignore_index=True)


def sgp_records(frame: pd.DataFrame) -> sv.Cohort:
    kept = frame[["pupil", "school", "year", "score", "score_7", "frl", "ell", "ethnicity", "gender", "iep"]]
    codes = sv.SenCodes(none=("no",), support=("yes",), ehcp=())
    return sv.Cohort.from_pandas(kept, SGP_ROLES, sen=codes, outcome_range=(None, None), synthetic=True)


def forecast_check(estimates: YearEstimates, measure: str) -> dict[str, float | int]:
    """Regress estimates of the last cohort on forecasts from those before, and on simpler predictors.

    A coefficient of 1: forecasts are neither too bold nor too timid (Chetty, Friedman & Rockoff). Weights are the
    inverse variance of what is regressed.
    """
    earlier = _first_cohorts(estimates, len(estimates.years) - 1)
    rng = np.random.default_rng(SEED)
    drift = estimate_drift(earlier, rng=rng, horizon=int(estimates.years[-1] - earlier.years[-1]))
    table = drift.forecast[drift.forecast["measure"] == measure]
    average = drift.averages[drift.averages["measure"] == measure]
    shown, error = estimates.estimate[measure][:, -1], estimates.error[measure][:, -1, -1]
    spread = table["sd"].to_numpy() ** 2
    use = np.isfinite(shown) & (table["n_cohorts"].to_numpy() > 0)
    weights = np.where(use, 1.0 / (error + spread), 0.0)
    y = np.where(use, shown - np.average(shown[use], weights=weights[use]), 0.0)
    found: dict[str, float | int] = {"n_schools": int(use.sum())}
    last = earlier.estimate[measure][:, -1] - np.nanmean(earlier.estimate[measure][:, -1])
    predictors = {"forecast": table["mean"], "three_years": average["estimate"], "last_year": pd.Series(last)}
    for name, column in predictors.items():
        x = column.to_numpy(dtype=np.float64)
        good = use & np.isfinite(x)
        w, xc = weights[good], x[good] - np.average(x[good], weights=weights[good])
        slope = float((w * xc) @ y[good] / ((w * xc) @ xc))
        left = y[good] - slope * xc
        found[f"slope_{name}"] = slope
        found[f"slope_{name}_se"] = float(np.sqrt(((w * xc * left) ** 2).sum()) / ((w * xc) @ xc))
        found[f"error_{name}"] = float(np.average((y[good] - x[good]) ** 2 - error[good], weights=w))
    inside = np.abs(y - table["mean"].to_numpy()) <= 1.96 * np.sqrt(spread + error)
    found["cover_of_estimates"] = float(inside[use].mean())
    return found


def _first_cohorts(estimates: YearEstimates, n: int) -> YearEstimates:
    return YearEstimates(
        estimates.schools,
        estimates.years[:n],
        {name: values[:, :n] for name, values in estimates.estimate.items()},
        {name: values[:, :n, :n] for name, values in estimates.error.items()},
        estimates.n_pupils[:, :n],
        estimates.n_need[:, :n],
        estimates.not_compared,
        estimates.attrs,
    )


def synthetic_study() -> pd.DataFrame:
    """Score forecasts of every world, replicate, horizon and assumption against the truth."""
    rows = []
    for place, (world, (lasting, persistence)) in enumerate(WORLDS.items()):
        for replicate in range(REPLICATES):
            rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(place, replicate)))
            years = sv.simulate_years(
                rng,
                schools=SCHOOLS,
                pupils_per_school=PUPILS,
                cohorts=COHORTS,
                lasting=lasting,
                persistence=persistence,
            )
            estimates = synthetic_estimates(years, replicate + 1)
            rows += [row | {"world": world, "replicate": replicate} for row in scored(years, estimates)]
    return pd.DataFrame(rows)


def synthetic_estimates(years: sv.SimulatedYears, seed: int) -> YearEstimates:
    cohort = sv.Cohort.from_pandas(years.pupils, ROLES, synthetic=True)
    need = sv.fit_identification(cohort, seed=seed, draws=20)
    profile = cohort.profile(5)
    columns = context_columns(cohort, profile)
    return estimates_by_year(year_groups(cohort, profile), columns, need, "entry", "cva", attrs={"synthetic": 1})


def scored(years: sv.SimulatedYears, estimates: YearEstimates) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    sd = float(str(years.attrs["pupil_sd"]))
    for horizon in (1, 6):
        for beyond in ("between", "hold", "decay"):
            drift = estimate_drift(
                estimates, rng=np.random.default_rng(SEED), horizon=horizon, beyond=beyond, draws=2000
            )
            truth = years.truth[years.truth["cohort"] == drift.effects.attrs["cohort"]]
            for measure in ("theta", "u"):
                true = truth.set_index(truth["school"].astype(str)).loc[list(estimates.schools), measure].to_numpy()
                rows += [
                    {"measure": measure, "horizon": horizon, "beyond": beyond, **row}
                    for row in _predictors(drift, estimates, measure, true, sd, simple=beyond == "between")
                ]
    return rows


def _predictors(
    drift: Drift, estimates: YearEstimates, measure: str, true: NDArray[np.float64], sd: float, simple: bool
) -> list[dict[str, object]]:
    table = drift.forecast[drift.forecast["measure"] == measure]
    average = drift.averages[drift.averages["measure"] == measure]
    lags = drift.autocovariance[drift.autocovariance["measure"] == measure]
    centred = estimates.estimate[measure] - np.nanmean(estimates.estimate[measure], axis=0)
    last, noise = centred[:, -1], estimates.error[measure][:, -1, -1]
    between = float(lags["covariance"].iloc[0])
    candidates = {"forecast": table["mean"].to_numpy()}
    if simple:
        candidates |= {
            "last_year": last,
            "last_year_shrunken": last * between / (between + noise),
            "three_years": average["estimate"].to_numpy(),
            "three_years_shrunken": average["mean"].to_numpy(),
        }
    use = np.isfinite(last) & average["estimate"].notna().to_numpy()
    inside = (table["lower"].to_numpy() <= true) & (true <= table["upper"].to_numpy())
    rows = []
    for name, predicted in candidates.items():
        row: dict[str, object] = {"predictor": name, "rmse": float(np.sqrt(((predicted - true)[use] ** 2).mean())) / sd}
        if name == "forecast":
            row |= {
                "cover": float(inside.mean()),
                "r_squared": float(np.corrcoef(predicted[use], true[use])[0, 1] ** 2),
                "reliability": float(table["reliability"].mean()),
                "correlation_1": float(lags["correlation"].iloc[1]),
                "correlation_3": float(lags["correlation"].iloc[3]),
            }
        rows.append(row)
    return rows


def real_records(results: dict[str, object]) -> None:
    counts: dict[str, int | float | str] = {}
    frame = grade8_cohorts(read(counts))
    results["sgp_pupils"] = frame.groupby("year").size().to_dict()
    results["sgp_iep"] = frame[frame["iep"] == "yes"].groupby("year").size().to_dict()
    records = sgp_records(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        drift = sv.fit_drift(records, context="cva", horizon=6, seed=SEED, unit=UNIT)
        profile = records.profile(5)
        columns = context_columns(records, profile)
        estimates = estimates_by_year(year_groups(records, profile), columns, None, "labelled", "cva", attrs={})
    results["sgp_schools"] = len(estimates.schools)
    results["sgp_notes"] = list(drift.notes)
    results["sgp_outcome_sd"] = float(frame["score"].std())
    for measure in ("theta", "u"):
        results[f"sgp_check_{measure}"] = forecast_check(estimates, measure)
    lags = drift.autocovariance
    lags.to_csv(RESULTS / "drift_sgpdata.csv", index=False, float_format="%.6g")
    results["sgp_forecast_reliability"] = {
        measure: float(part["reliability"].median())
        for measure, part in drift.forecast[drift.forecast["n_cohorts"] > 0].groupby("measure")
    }
    figure = drift_figure(
        lags, drift.averages, drift.forecast, unit=UNIT, synthetic=True, title="SGPdata, semi-synthetic"
    )
    save_svg_png(figure, RESULTS / "drift_sgpdata")
    print("SGPdata is semi-synthetic: what follows shows the method and describes no real school.")
    print(
        f"Pupils by year {results['sgp_pupils']}, with an IEP {results['sgp_iep']}; {len(estimates.schools)} schools."
    )
    print(lags[lags["pairs"] > 0].drop(columns=["estimator", "context"]).round(3).to_string(index=False))
    for measure in ("theta", "u"):
        print(f"Last cohort against forecasts from those before, {measure}: {results[f'sgp_check_{measure}']}")


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {"seed": SEED, "replicates": REPLICATES}
    real_records(results)
    table = synthetic_study()
    table.to_csv(RESULTS / "drift_synthetic_replicates.csv", index=False, float_format="%.6g")
    keys = ["world", "measure", "horizon", "beyond", "predictor"]
    means = table.drop(columns="replicate").groupby(keys, sort=False).mean().reset_index()
    means.to_csv(RESULTS / "drift_synthetic.csv", index=False, float_format="%.6g")
    (RESULTS / "drift.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"Synthetic cohorts: {REPLICATES} replicates, {SCHOOLS} schools, {PUPILS} pupils a school and cohort.")
    print(means.round(3).to_string(index=False, na_rep=""))


if __name__ == "__main__":
    main()
