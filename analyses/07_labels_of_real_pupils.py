"""Who is labelled in real records, and whether adjusting for it moves schools.

Two files from ``SEND_VA_DATA``. SGPdata (R package, GPL-3; **semi-synthetic**): status in grade 5, before transfer,
the school that set it, and status now, so that `entry` and `standardised` stand beside `labelled`. testscores (R
package eivtools, GPL; real, anonymous, 21 schools): one status, set by the school that is rated, so that only the range
over the share of labelling that is need can be shown.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sgpdata import data_folder, last_cohort, read

import send_va as sv
from send_va.effects import SchoolEffects
from send_va.errors import BoundaryWarning
from send_va.identification.lottery import identification_lottery

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
SEED, DRAWS, IDENTIFICATION_DRAWS = 20250107, 1000, 50
CONTEXT = "cva"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEWEST = 5  # pupils with need, below which a school's place says nothing


def sgpdata() -> tuple[pd.DataFrame, dict[str, object]]:
    """Theta of every school under every estimator, and what moves."""
    counts: dict[str, int | float | str] = {}
    pupils = last_cohort(read(counts), counts)
    wanted = ["pupil", "school", "score", "score_7", "score_6", "frl", "ell", "ethnicity", "gender"]
    roles = {
        "pupil": "pupil",
        "school": "school",
        "outcome": "score",
        "prior": ["score_7", "score_6"],
        "context": ["frl", "ell", "C(ethnicity)", "C(gender)"],
        "sen_status": "iep",
        "sen_status_entry": "iep_5",
        "feeder": "school_5",
    }
    cohort = sv.Cohort.from_pandas(
        pupils[[*wanted, "iep", "iep_5", "school_5"]],
        roles,
        sen=sv.SenCodes(none=("no",), support=("yes",), ehcp=()),
        outcome_range=(None, None),
        synthetic=True,
    )
    need = sv.fit_identification(cohort, seed=SEED, draws=IDENTIFICATION_DRAWS)
    effects = {
        name: sv.fit_value_added(
            cohort, None if name == "labelled" else need, estimator=name, context=CONTEXT, seed=SEED, draws=DRAWS
        )
        for name in ("labelled", *need.estimators)
    }
    table = side_by_side(effects)
    schools, shares = need.schools, identification_lottery(need.labels)
    full = shares[(shares["label"] == "entry") & (shares["model"] == "full")].set_index("level")["share"]
    outcome_sd = float(pupils["score"].std())
    found: dict[str, object] = {
        "n_pupils": int(effects["labelled"].data["n_pupils"].sum()),
        "n_schools": len(table),
        "n_compared": len(compared(table)),
        "n_not_connected": int(schools["flag"].str.contains("not connected").sum()),
        "n_changed": int(((pupils["iep"] != pupils["iep_5"]) & pupils["iep_5"].notna()).sum()),
        "estimators": list(effects),
        "share_feeder_full": float(full["feeder"]),
        "share_school_full": float(full["school"]),
        "mean_intake_reliability": float(schools["intake_need_reliability"].mean()),
        "notes": [*need.warnings],
    }
    return table.assign(outcome_sd=outcome_sd), found | moves(table, outcome_sd)


def side_by_side(effects: dict[str, SchoolEffects]) -> pd.DataFrame:
    """One row a school: theta, its interval and pupils with need, by estimator."""
    parts = []
    for name, part in effects.items():
        summary = part.summary("theta").set_index("school")
        parts.append(summary[["mean", "lower", "upper", "reliability"]].add_prefix(f"{name}_"))
    counts = effects["labelled"].summary("theta").set_index("school")[["n_pupils", "n_need"]]
    return pd.concat([counts, *parts], axis=1).reset_index()


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Schools with enough pupils with need and an effect under every estimator."""
    means = [column for column in table if str(column).endswith("_mean")]
    return table[(table["n_need"] >= FEWEST) & table[means].notna().all(axis=1)]


def moves(table: pd.DataFrame, outcome_sd: float) -> dict[str, object]:
    """How far schools with enough pupils move between `labelled` and the others."""
    kept = compared(table)
    found: dict[str, object] = {}
    first = kept["labelled_mean"].rank(ascending=False)
    for name in ("standardised", "entry", "label_free"):
        if f"{name}_mean" not in kept:
            continue
        moved = (kept[f"{name}_mean"].rank(ascending=False) - first).abs()
        found |= {
            f"correlation_{name}": float(np.corrcoef(kept["labelled_mean"], kept[f"{name}_mean"])[0, 1]),
            f"median_places_{name}": float(moved.median()),
            f"most_places_{name}": int(moved.max()),
            f"sd_theta_{name}": float(kept[f"{name}_mean"].std() / outcome_sd),
            f"disagree_{name}": int(((kept[f"{name}_mean"] - kept["labelled_mean"]).abs() > 0.1 * outcome_sd).sum()),
        }
    return found


def testscores() -> tuple[pd.DataFrame, dict[str, object]]:
    """Theta of every school over the share of labelling that is need."""
    scores = pd.read_csv(data_folder() / "pupils" / "testscores.csv").reset_index(names="pupil")
    scores["status"] = np.where(scores["sped"] == 1, "yes", "no")
    cohort = sv.Cohort.from_pandas(
        scores[["pupil", "schoolid", "math", "math_lag1", "lang_lag1", "frl", "status"]],
        {
            "pupil": "pupil",
            "school": "schoolid",
            "outcome": "math",
            "prior": ["math_lag1", "lang_lag1"],
            "context": ["frl"],
            "sen_status": "status",
        },
        sen=sv.SenCodes(none=("no",), support=("yes",), ehcp=()),
        outcome_range=(None, None),
    )
    need = sv.fit_identification(cohort, seed=SEED, draws=IDENTIFICATION_DRAWS)
    labelled = sv.fit_value_added(cohort, estimator="labelled", context=CONTEXT, seed=SEED, draws=DRAWS)
    rows = [labelled.summary("theta").assign(sorting_share=np.nan)]
    for share in SHARES:
        effects = sv.fit_value_added(
            cohort,
            need.under(sorting_share=share),
            estimator="standardised",
            context=CONTEXT,
            seed=SEED,
            draws=DRAWS,
        )
        rows.append(effects.summary("theta").assign(sorting_share=share))
    table = pd.concat(rows, ignore_index=True)
    over = table.dropna(subset="sorting_share").pivot_table(index="school", columns="sorting_share", values="mean")
    places = over.rank(ascending=False)
    spread = (over.max(axis=1) - over.min(axis=1)) / float(scores["math"].std())
    leniency = need.under(sorting_share=0.0).schools["leniency"]
    return table, {
        "n_pupils": int(labelled.data["n_pupils"].sum()),
        "n_schools": len(over),
        "leniency_sd": float(leniency.std()),
        "largest_move_pupil_sd": float(spread.max()),
        "median_move_pupil_sd": float(spread.median()),
        "most_places_over_range": int((places.max(axis=1) - places.min(axis=1)).max()),
        "correlation_ends": float(over[SHARES[0]].corr(over[SHARES[-1]])),
        "notes": [*need.warnings],
    }


def main() -> None:
    """Write both tables and what the paper takes."""
    warnings.simplefilter("ignore", BoundaryWarning)
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {}
    for name, made in (("sgpdata", sgpdata), ("testscores", testscores)):
        table, record[name] = made()
        table.to_csv(RESULTS / f"labels_{name}.csv", index=False, lineterminator="\n", float_format="%.10g")
    (RESULTS / "labels.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
