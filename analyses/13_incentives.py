"""What schools would gain by acts that help no pupil, under every estimator: the incentive audit on national cohorts.

Two synthetic cohorts of 3,400 schools: intakes that differ in need (``magnets``), and none that do (``independent``).
Every school labels more or fewer pupils, takes the lowest forecast off the roll, admits fewer with an EHCP, withdraws
those forecast to fall; once as the table stands and once with pupils weighted by their terms on the roll, and with
schools that foresee nothing, some and all of what the records do not know. Beside it single schools of small cohorts
act and everything is estimated again. Writes ``incentives.csv`` (summary by act), ``incentives_verdicts.csv``,
``incentives_cheapest.csv``, ``incentives_foresight.csv``, ``incentives_check.csv``, ``incentives.json`` and the figure
``incentives`` to analyses/results. All of it is synthetic.

``python analyses/13_incentives.py [--schools 3400] [--fresh]``. A national cohort takes about three processor minutes;
what was done is kept in results/incentives_cells and not done again unless ``--fresh`` is given.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.errors import BoundaryWarning
from send_va.identification.labels import read_labels
from send_va.identification.need import estimate_need
from send_va.publish.figure_style import save_svg_png
from send_va.publish.incentives_figure import incentives_figure
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.held_estimators import hold_labelled, hold_need
from send_va.sensitivity.incentive_summary import cheapest_acts, incentive_verdicts
from send_va.sensitivity.incentives import audit_held
from send_va.validation.incentive_check import incentive_check, incentive_differences
from send_va.validation.recovery import ROLES
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.pupil_design import pupil_design

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
CELLS = RESULTS / "incentives_cells"
SEED, CONTEXT = 20261123, "cva"
SCENARIOS = ("magnets", "independent")
FORESIGHTS = (0.0, 0.5, 1.0)
CHECKED_SCHOOLS, CHECKED_PUPILS, CHECKED_PLACES = (50, 200), 80.0, (0.2, 0.6)  # places as shares of the schools


def kept(name: str, made: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table that was made before, or made now and kept."""
    path = CELLS / f"{name}.parquet"
    if not path.exists():
        start = time.monotonic()
        made().to_parquet(path, index=False)
        print(f"{name}: {(time.monotonic() - start) / 60.0:.1f} minutes", flush=True)
    return pd.read_parquet(path)


def audited(scenario: str, schools: int) -> pd.DataFrame:
    """Summaries of one cohort by foresight."""
    world = simulate(np.random.default_rng(SEED), schools=schools, scenario=scenario)
    cohort = Cohort.from_pandas(world.pupils, ROLES, synthetic=True)
    profile = cohort.profile(5)
    columns = context_columns(cohort, profile)
    labels, design = read_labels(cohort, profile, columns), pupil_design(cohort, profile, columns)
    need = estimate_need(labels, seed=SEED, draws=0)
    held = [
        hold_labelled(design, labels, labelled_products(cohort, profile, columns), [CONTEXT]),
        *(hold_need(design, need, name, [CONTEXT]) for name in need.estimators),
    ]
    found = []
    for foresight in FORESIGHTS:
        settings = AuditSettings(foresight=foresight)
        audit = audit_held(held, design, labels, need=need, seed=SEED, settings=settings, context=CONTEXT)
        found.append(audit.summary.assign(foresight=foresight))
        print(audit, flush=True)
    return pd.concat(found, ignore_index=True).assign(scenario=scenario, pupils=len(world.pupils))


def checked(schools: int) -> pd.DataFrame:
    """Single schools that act in a small cohort, everything estimated again."""
    tried = [int(share * schools) for share in CHECKED_PLACES]
    found = incentive_check("magnets", SEED, schools=schools, tried=tried, pupils_per_school=CHECKED_PUPILS)
    return found.assign(schools=schools)


def numbers(summary: pd.DataFrame, verdicts: pd.DataFrame, cheapest: pd.DataFrame, check: pd.DataFrame) -> dict:
    """Everything the paper takes, by name; gains in pupil SDs."""
    theta = summary[summary["measure"] == "theta"]
    record: dict[str, object] = {}
    for row in theta.to_dict("records"):
        weighting = "_roll_weighted" if row["roll_weighted"] else ""
        name = f"{row['scenario']}_{row['estimator']}_{row['action']}{weighting}"
        wanted = ("mean_gain_sd", "q05", "q95", "largest", "share_gaining", "mean_places", "gradient_mean")
        record[name] = {
            key: round(float(row[key]), 6) for key in (*wanted, "share_quintile_changed", "mean_acted", "n_schools")
        }
    for scenario, part in theta[~theta["roll_weighted"]].groupby("scenario", sort=False):
        gain = part.set_index(["estimator", "action"])["mean_gain_sd"]
        record[f"{scenario}_standardised_share_of_labelled"] = round(
            float(gain["standardised", "label_more"] / gain["labelled", "label_more"]), 4
        )
    for row in verdicts[verdicts["measure"] == "theta"].to_dict("records"):
        weighting = "_roll_weighted" if row["roll_weighted"] else ""
        record[f"{row['scenario']}_{row['estimator']}_verdict_{row['acts']}{weighting}"] = row["verdict"]
    plain = cheapest[(cheapest["measure"] == "theta") & ~cheapest["roll_weighted"]]
    record |= {f"{row['scenario']}_{row['estimator']}_cheapest": row["words"] for row in plain.to_dict("records")}
    for schools, part in check.groupby("schools"):
        record[f"check_{schools}_mean_absolute"] = round(float(part["difference"].abs().mean()), 6)
        record[f"check_{schools}_largest"] = round(float(part["difference"].abs().max()), 6)
        record[f"check_{schools}_mean_absolute_gain"] = round(float(part["estimated_again"].abs().mean()), 6)
        record[f"check_{schools}_rows"] = len(part)
    return record


def main() -> None:
    """Run what is missing, then write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schools", type=int, default=3400)
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    chosen = parser.parse_args()
    if chosen.fresh and CELLS.exists():
        shutil.rmtree(CELLS)
    CELLS.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", BoundaryWarning)
    everything = pd.concat(
        [kept(f"{name}-{chosen.schools}", lambda name=name: audited(name, chosen.schools)) for name in SCENARIOS],
        ignore_index=True,
    )
    check = pd.concat([kept(f"check-{size}", lambda size=size: checked(size)) for size in CHECKED_SCHOOLS])
    settings = AuditSettings()
    summary = everything[everything["foresight"] == settings.foresight]
    parts = dict(iter(summary.groupby("scenario", sort=False)))
    verdicts = pd.concat([incentive_verdicts(part, settings).assign(scenario=name) for name, part in parts.items()])
    cheapest = pd.concat([cheapest_acts(part).assign(scenario=name) for name, part in parts.items()])
    foresight = everything[everything["measure"] == "theta"].pivot_table(
        index=["scenario", "estimator", "action", "roll_weighted"], columns="foresight", values="mean_gain_sd"
    )
    foresight.columns = [f"gain_at_foresight_{value:g}" for value in foresight.columns]
    differences = pd.concat(
        [incentive_differences(part).assign(schools=schools) for schools, part in check.groupby("schools")]
    )
    tables = {
        "": summary,
        "_verdicts": verdicts,
        "_cheapest": cheapest,
        "_foresight": foresight.reset_index(),
        "_check": differences,
    }
    for name, table in tables.items():
        path = RESULTS / f"incentives{name}.csv"
        table.assign(synthetic=True).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    record: dict[str, object] = {
        "synthetic": True,
        "schools": chosen.schools,
        "pupils": {name: int(part["pupils"].iloc[0]) for name, part in parts.items()},
        "share": settings.share,
        "foresight": settings.foresight,
        "terms_kept": settings.terms_kept,
        "tolerance": settings.used_tolerance,
        "tolerance_is_default": settings.tolerance is None,
        **numbers(summary, verdicts, cheapest, check),
    }
    (RESULTS / "incentives.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    save_svg_png(
        incentives_figure(parts[SCENARIOS[0]], settings, context=CONTEXT, synthetic=True), RESULTS / "incentives"
    )
    print(foresight.round(4).to_string())
    print(differences.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
