"""Value-added in grade-8 mathematics for pupils with an individual education plan (IEP), by school.

SGPdata (R package, GPL-3): schools and pupils of one state, **semi-synthetic**. Read from ``SEND_VA_DATA``; names of
pupils and schools are never read, school numbers are codes of that file.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sgpdata import last_cohort, read

import send_va as sv
from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning
from send_va.publish.figure_style import save_svg_png
from send_va.publish.figures import caterpillar
from send_va.records.design_columns import Context
from send_va.value_added.design import LabelledProducts, context_columns, labelled_products
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.labelled import fit_labelled

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
SEED, DRAWS = 20250102, 2000
UNIT = "grade-8 mathematics points"
ROLES = {
    "pupil": "pupil",
    "school": "school",
    "outcome": "score",
    "prior": ["score_7", "score_6"],
    "context": ["frl", "ell", "C(ethnicity)", "C(gender)"],
    "sen_status": "iep",
}
CODES = sv.SenCodes(none=("no",), support=("yes",), ehcp=())


def describe(cohort: pd.DataFrame) -> dict[str, int | float | str]:
    now, entry = cohort["iep"] == "yes", cohort["iep_5"] == "yes"
    known = cohort["iep_5"].notna()
    by_school = cohort[now].groupby("school").size()
    return {
        "n_pupils": len(cohort),
        "n_schools": cohort["school"].nunique(),
        "n_iep": int(now.sum()),
        "n_schools_with_iep": len(by_school),
        "median_iep_in_those": float(by_school.median()),
        "n_entry_known": int(known.sum()),
        "n_entry_elementary": int((cohort["type_5"] == "Elementary").sum()),
        "n_iep_entry": int(entry.sum()),
        "n_iep_both": int((now & entry).sum()),
        "n_iep_now_only": int((now & known & ~entry).sum()),
        "n_iep_entry_only": int((~now & entry).sum()),
        "outcome_sd": float(cohort["score"].std()),
    }


def products_of(cohort: pd.DataFrame) -> LabelledProducts:
    wanted = [ROLES["pupil"], ROLES["school"], ROLES["outcome"], *ROLES["prior"], "frl", "ell", "ethnicity", "gender"]
    frame = cohort[[*wanted, "iep"]]
    records = sv.Cohort.from_pandas(frame, ROLES, sen=CODES, outcome_range=(None, None), synthetic=True)
    profile = records.profile(5)
    return labelled_products(records, profile, context_columns(records, profile))


def fit(products: LabelledProducts, context: Context, estimator: str) -> ValueAddedFit:
    attrs = {"seed": SEED, "unit": UNIT, "synthetic": 1, "need": estimator}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)  # printed from the notes of the fit
        return fit_labelled(products, context, rng=np.random.default_rng(SEED), draws=DRAWS, attrs=attrs)


def school_sds(result: ValueAddedFit, outcome_sd: float) -> dict[str, float]:
    """SDs between schools in pupil SDs: level, gap, slope on prior mathematics (per SD of prior), theta."""
    table = result.variance_components
    rows = table[table["group"] == "school"]
    single = rows[rows["term2"].isna()].set_index("term1")["variance"]
    level, gap = float(single["Intercept"]), float(single["need"])
    pair = rows[
        rows["term2"].notna() & rows["term1"].isin(["Intercept", "need"]) & rows["term2"].isin(["Intercept", "need"])
    ]
    theta = max(level + gap + 2.0 * float(pair["variance"].iloc[0]), 0.0)
    found = {"u": level, "gap": gap, "prior_slope": float(single["prior_slope"]), "theta": theta}
    residual = table[table["group"] == "Residual"].set_index("term1")["variance"]
    found |= {"residual_without_iep": float(residual["none"]), "residual_with_iep": float(residual["support"])}
    return {name: float(np.sqrt(value)) / outcome_sd for name, value in found.items()}


def compare(first: SchoolEffects, second: SchoolEffects) -> dict[str, float | int]:
    """Correlation of theta and places moved, over schools that have pupils with an IEP in both."""
    table = first.summary("theta").merge(second.summary("theta"), on="school", suffixes=("_a", "_b"))
    table = table[(table["n_need_a"] > 0) & (table["n_need_b"] > 0)]
    places = (-table[["mean_a", "mean_b"]]).rank(method="first")
    moved = (places["mean_a"] - places["mean_b"]).abs()
    return {
        "n_schools_compared": len(table),
        "corr_theta": float(table["mean_a"].corr(table["mean_b"])),
        "largest_move": int(moved.max()),
        "mean_move": float(moved.mean()),
        "schools_moved": int((moved > 0).sum()),
    }


def theta_spread(effects: SchoolEffects, outcome_sd: float) -> dict[str, float | int]:
    table = effects.summary("theta")
    table = table[table["n_need"] > 0]
    return {
        "theta_lowest": float(table["mean"].min()) / outcome_sd,
        "theta_highest": float(table["mean"].max()) / outcome_sd,
        "median_reliability": float(table["reliability"].median()),
        "intervals_exclude_zero": int(((table["lower"] > 0) | (table["upper"] < 0)).sum()),
    }


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    results: dict[str, int | float | str] = {"source": "SGPdata (GPL-3), semi-synthetic", "seed": SEED}
    cohort = last_cohort(read(results), results)
    results |= describe(cohort)
    sd = float(results["outcome_sd"])
    now = products_of(cohort)
    with_entry = cohort[cohort["iep_5"].notna()]
    fits = {
        "prior": fit(now, "prior", "IEP now"),
        "cva": fit(now, "cva", "IEP now"),
        "entry_known_now": fit(products_of(with_entry), "cva", "IEP now, pupils with a grade-5 record"),
        "entry": fit(products_of(with_entry.assign(iep=with_entry["iep_5"])), "cva", "IEP in grade 5"),
    }
    for name, result in fits.items():
        results |= {f"sd_{key}_{name}": value for key, value in school_sds(result, sd).items()}
        results |= {f"{key}_{name}": value for key, value in theta_spread(result.effects, sd).items()}
        results[f"converged_{name}"] = int(result.converged)
        results[f"notes_{name}"] = "; ".join(result.notes)
    results |= {f"{key}_prior_cva": v for key, v in compare(fits["prior"].effects, fits["cva"].effects).items()}
    results |= {
        f"{key}_now_entry": v for key, v in compare(fits["entry_known_now"].effects, fits["entry"].effects).items()
    }
    (RESULTS / "sgpdata.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    table = pd.concat([fits[name].effects.table() for name in ("prior", "cva")], ignore_index=True)
    table.to_csv(RESULTS / "sgpdata_effects.csv", index=False, float_format="%.4f")
    with_iep = table[table["n_need"] > 0]
    figure = caterpillar(
        with_iep, estimator="labelled", context="cva", unit=UNIT, synthetic=True, title="SGPdata, semi-synthetic"
    )
    save_svg_png(figure, RESULTS / "sgpdata_caterpillar")
    report(results)


def report(r: dict[str, int | float | str]) -> None:
    def n(key: str, digits: int = 2) -> str:
        return f"{r[key]:.{digits}f}"

    print(
        "SGPdata is semi-synthetic: what follows shows the method and describes no real school.\n"
        f"{r['n_rows_file']:,} rows, {r['n_maths_rows']:,} in mathematics; left out: {r['n_maths_no_score']:,} without "
        f"a score, {r['n_maths_duplicates']:,} of a pupil twice in a year.\n"
        f"Grade 8 in {str(r['year']).replace('_', '/')}: {r['n_grade8']:,} pupils, {r['n_grade8_iep']:,} with an IEP, "
        f"{r['n_grade8_schools']} schools. Without a grade-7 score the year before {r['n_without_grade7']:,} "
        f"({r['n_iep_without_grade7']} with an IEP), without a grade-6 score two years before "
        f"{r['n_without_grade6']:,} ({r['n_iep_without_grade6']}).\n"
        f"Analysed: {r['n_pupils']:,} pupils in {r['n_schools']} schools, {r['n_iep']} with an IEP in "
        f"{r['n_schools_with_iep']} schools (median {n('median_iep_in_those', 0)}).\n"
        f"IEP in grade 5 (known for {r['n_entry_known']:,}, of whom {r['n_entry_elementary']:,} were in an elementary "
        f"school, so before transfer): {r['n_iep_entry']}; both "
        f"{r['n_iep_both']}, now only {r['n_iep_now_only']}, grade 5 only {r['n_iep_entry_only']}."
    )
    for name, words in {"prior": "prior scores only", "cva": "and background"}.items():
        print(
            f"Theta, {words}: SD between schools {n(f'sd_theta_{name}')} pupil SD (level {n(f'sd_u_{name}')}, gap "
            f"{n(f'sd_gap_{name}')}, slope on prior {n(f'sd_prior_slope_{name}')}), from {n(f'theta_lowest_{name}')} "
            f"to {n(f'theta_highest_{name}')}; median reliability {n(f'median_reliability_{name}')}; intervals that "
            f"exclude 0: {r[f'intervals_exclude_zero_{name}']} of {r['n_schools_with_iep']}."
            + (f" Note: {r[f'notes_{name}']}." if r[f"notes_{name}"] else "")
        )
    print(
        f"Residual SD: {n('sd_residual_without_iep_cva')} without and {n('sd_residual_with_iep_cva')} with an IEP.\n"
        f"Adding free lunch, English learners, ethnicity and gender: correlation {n('corr_theta_prior_cva', 3)}, "
        f"{r['schools_moved_prior_cva']} of {r['n_schools_compared_prior_cva']} schools change place, at most by "
        f"{r['largest_move_prior_cva']}.\n"
        f"Need in grade 5 instead of now, same pupils: correlation {n('corr_theta_now_entry', 3)}, at most "
        f"{r['largest_move_now_entry']} places of {r['n_schools_compared_now_entry']}."
    )


if __name__ == "__main__":
    main()
