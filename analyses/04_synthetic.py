"""Synthetic cohorts: how near the simulator is to England, and how near the labelled estimator is to the truth.

**Everything here is synthetic**: no pupil or school exists. Writes ``synthetic_calibration.csv``,
``synthetic_recovery.csv`` and ``synthetic.json`` to analyses/results. The targets of the calibration are published
English figures, each with its source in the table: Crown copyright, Department for Education, Open Government Licence
v3.0.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import send_va as sv
from send_va.errors import BoundaryWarning
from send_va.records.design_columns import Context
from send_va.records.simulator import SimulatedCohort, calibration_table, write_cohort
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.labelled import fit_labelled

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
SEED, SCHOOLS, DRAWS = 2026, 1_000, 1_000
CONTEXT: Context = "cva"
BASE = "independent"
SCENARIOS = {
    BASE: "leniency unrelated to anything else",
    "magnets": "magnets, no leniency",
    "lenient_better": "magnets, lenient schools better",
    "delta_zero": "unseen need without effect",
    "skewed_need": "skewed need",
    "skewed_magnets": "skewed need, magnets, lenient schools better",
}


def simulated(scenario: str) -> SimulatedCohort:
    """Start every scenario from the same seed, so that they differ by what the scenario changes."""
    return sv.simulate(np.random.default_rng(SEED), schools=SCHOOLS, scenario=scenario)


def fit(cohort: SimulatedCohort, *, true_need: bool = False) -> ValueAddedFit:
    """Fit value-added from the files a study would have; `true_need` puts need itself in place of the label."""
    if true_need:
        status = np.where(cohort.pupil_truth["has_need"], "K", "N")
        cohort = replace(cohort, pupils=cohort.pupils.assign(sen_status=status))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)  # printed from the notes of the fit
        records = sv.read_cohort(write_cohort(cohort, Path(folder) / "cohort"))
        profile = records.profile()
        data = labelled_products(records, profile, context_columns(records, profile))
        return fit_labelled(data, CONTEXT, rng=np.random.default_rng(SEED), draws=DRAWS)


def slopes(error: np.ndarray, leniency: pd.Series, intake_need: pd.Series) -> tuple[tuple[float, float], ...]:
    """Slope of the error on one SD of leniency and of intake need, together, and its SE; missing where one is fixed."""
    columns = [(x - x.mean()) / x.std() if x.std() > 0 else None for x in (leniency, intake_need)]
    design = np.column_stack([np.ones(len(error)), *(x for x in columns if x is not None)])
    inverse = np.linalg.inv(design.T @ design)
    coefficient = inverse @ design.T @ error
    residual = error - design @ coefficient
    se = np.sqrt(np.diag(inverse) * (residual @ residual) / (len(error) - design.shape[1]))
    varying = iter(zip(coefficient[1:], se[1:], strict=True))
    return tuple((np.nan, np.nan) if x is None else next(varying) for x in columns)


def recovery(cohort: SimulatedCohort, fitted: ValueAddedFit) -> dict[str, float]:
    """Compare theta with the truth, in pupil SDs of the outcome."""
    estimated = fitted.effects.summary("theta")
    truth = cohort.truth.set_index(cohort.truth["school"].astype(str)).loc[estimated["school"]]
    known, pupil_sd = truth["theta"].to_numpy(), float(str(cohort.attrs["pupil_sd"]))
    mean, lower, upper = (estimated[name].to_numpy() for name in ("mean", "lower", "upper"))
    error = (mean - known) / pupil_sd
    (leniency, leniency_se), (magnet, magnet_se) = slopes(error, truth["leniency"], truth["intake_need"])
    between = fitted.variance_components.query("group == 'school' and term1 == 'need'")["sd_or_corr"].iloc[0]
    return {
        "correlation": np.corrcoef(mean, known)[0, 1],
        "rmse": np.sqrt((error**2).mean()),
        "mean_error": error.mean(),
        "leniency_bias": leniency,
        "leniency_bias_se": leniency_se,
        "magnet_bias": magnet,
        "magnet_bias_se": magnet_se,
        "coverage": ((lower < known) & (known < upper)).mean(),
        "stated_sd": np.sqrt((estimated["sd"] ** 2).mean()) / pupil_sd,
        "gap_sd": between / pupil_sd,
    }


def recover(scenario: str, cohort: SimulatedCohort) -> dict[str, object]:
    """One row: the labelled estimator, then the same model on true need (``true_need_*``)."""
    with_labels, with_need = fit(cohort), fit(cohort, true_need=True)
    for name, fitted in (("labels", with_labels), ("true need", with_need)):
        for note in fitted.notes:
            print(f"Note, {scenario}, {name}: {note}.")
    need, labelled = cohort.pupil_truth["has_need"], cohort.pupils["sen_status"] != "N"
    return {
        "scenario": scenario,
        "description": SCENARIOS[scenario],
        "pupils": len(cohort.pupils),
        "schools": len(cohort.truth),
        "share_of_need_labelled": labelled[need].mean(),
        "share_of_labelled_with_need": need[labelled].mean(),
        "gap_sd_truth": cohort.truth["s_sd"].std(),
        **recovery(cohort, with_labels),
        **{f"true_need_{name}": value for name, value in recovery(cohort, with_need).items()},
    }


def scalars(calibration: pd.DataFrame, table: pd.DataFrame) -> dict[str, object]:
    """Every number the paper takes, by name; those of the default scenario without its name."""
    base = table.set_index("scenario").loc[BASE]
    found: dict[str, object] = {
        "synthetic": True,
        "seed": SEED,
        "schools": SCHOOLS,
        "draws": DRAWS,
        "context": CONTEXT,
        "pupils": int(table["pupils"].iloc[0]),
        "n_targets": len(calibration),
        "n_targets_met": int(calibration["within"].sum()),
        "targets_missed": calibration.loc[~calibration["within"], "quantity"].to_list(),
        "coverage_lowest": table["coverage"].min(),
        "coverage_highest": table["coverage"].max(),
        "true_need_coverage_lowest": table["true_need_coverage"].min(),
        "true_need_coverage_highest": table["true_need_coverage"].max(),
        "coverage_se": np.sqrt(base["coverage"] * (1 - base["coverage"]) / base["schools"]),
    }
    measures = ("correlation", "rmse", "coverage", "leniency_bias", "leniency_bias_se", "stated_sd")
    found |= {f"{prefix}{name}_theta": base[f"{prefix}{name}"] for prefix in ("", "true_need_") for name in measures}
    shares = ("share_of_need_labelled", "share_of_labelled_with_need", "gap_sd_truth", "gap_sd", "true_need_gap_sd")
    found |= {name: base[name] for name in shares}
    for row in table.to_dict("records"):
        found[str(row["scenario"])] = {
            name: value for name, value in row.items() if isinstance(value, float) and np.isfinite(value)
        }
    return found


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return round(float(value), 6) if isinstance(value, float) else value


def report(calibration: pd.DataFrame, table: pd.DataFrame, found: dict[str, object]) -> None:
    print(f"SYNTHETIC: {SCHOOLS:,} schools and {found['pupils']:,} pupils a scenario, seed {SEED}; nobody exists.\n")
    print(f"The simulator meets {found['n_targets_met']} of {found['n_targets']} published figures within tolerance:")
    print(calibration[["quantity", "target", "achieved", "tolerance", "within"]].round(3).to_string(index=False))
    shown = ["correlation", "rmse", "leniency_bias", "magnet_bias", "coverage"]
    print(
        f"\nLabelled estimator, {CONTEXT} context, against the true theta (RMSE and biases in pupil SDs; biases per SD "
        "of leniency, of intake need):"
    )
    print(table[["scenario", *shown]].round(3).to_string(index=False, na_rep="-"))
    print("\nThe same model on need itself in place of the label:")
    names = {f"true_need_{name}": name for name in shown}
    print(table[["scenario", *names]].rename(columns=names).round(3).to_string(index=False, na_rep="-"))
    base = table.set_index("scenario").loc[BASE]
    print(
        f"\nIntervals built for 95 % cover hold the true theta in {base['coverage']:.0%} of schools with labels and in "
        f"{base['true_need_coverage']:.0%} with need itself (scenario {BASE}; one standard error "
        f"{found['coverage_se']:.1%}). The error is {base['rmse']:.3f} pupil SDs where the intervals state "
        f"{base['stated_sd']:.3f}."
    )
    print(
        f"Why: {base['share_of_need_labelled']:.0%} of pupils above the national threshold at transfer carry a label "
        f"now, and {base['share_of_labelled_with_need']:.0%} of those with a label were above it. Mixing the two "
        f"groups hides the gap: its SD between schools is {base['gap_sd_truth']:.2f} pupil SDs and is estimated at "
        f"{base['gap_sd']:.2f} ({base['true_need_gap_sd']:.2f} with need itself), so effects are shrunken too far and "
        "intervals are too short. It happens with delta = 0 too; the model knows nothing of it."
    )
    magnet_bias = table.loc[table["scenario"] == "magnets", "magnet_bias"].mean()
    print(
        f"A school one SD more lenient is shown {base['leniency_bias']:+.3f} pupil SDs (SE "
        f"{base['leniency_bias_se']:.3f}) from where it is; one whose intake has one SD more unseen need, in the "
        f"scenario magnets, {magnet_bias:+.3f}."
    )


def main() -> None:
    rows, calibration = [], pd.DataFrame()
    for scenario in SCENARIOS:
        cohort = simulated(scenario)
        if scenario == BASE:
            calibration = calibration_table(cohort)
        rows.append(recover(scenario, cohort))
    table = pd.DataFrame(rows)
    found = scalars(calibration, table)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, output in (("calibration", calibration), ("recovery", table)):
        output.to_csv(RESULTS / f"synthetic_{name}.csv", index=False, float_format="%.6g")
    (RESULTS / "synthetic.json").write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")
    report(calibration, table, found)
    print(
        f"\nWrote synthetic_calibration.csv, synthetic_recovery.csv and synthetic.json to {RESULTS.relative_to(ROOT)}."
    )


if __name__ == "__main__":
    main()
