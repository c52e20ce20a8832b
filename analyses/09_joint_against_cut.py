"""The joint model against the cut: what is lost when outcomes have no say in who has need.

Three simulated regions (plain, with magnets, with skewed need): the joint model of labels and outcome, sampled, beside
``standardised``, which uses the same labels and passes need on to value-added but nothing back. Writes
``joint_against_cut.csv`` (one row a region), ``joint_against_cut_schools.csv``, ``joint_against_cut_parameters.csv``,
``joint_against_cut.json`` and the figure ``joint_against_cut`` to analyses/results. All of it is synthetic.

``python analyses/09_joint_against_cut.py [--schools 30] [--pupils 100] [--draws 400] [--tune 400] [--only magnets]``.
Each region is kept in results/joint_regions and not sampled again unless ``--fresh`` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

# One thread for the array program: chains run side by side, and threads inside of one slow both down.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from send_va.errors import BoundaryWarning
from send_va.publish.figure_style import save_svg_png
from send_va.publish.joint_figure import joint_figure
from send_va.validation.joint_comparison import (
    by_school,
    compared,
    fit_cut,
    parameters_of_the_cut,
    region,
    starting_values,
)
from send_va.validation.joint_posterior import sample_joint

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
KEPT = RESULTS / "joint_regions"
REGIONS = ("independent", "magnets", "skewed_need")
SEED = 20261


def one(scenario: str, chosen: argparse.Namespace) -> None:
    """Fit a region by both and keep what is compared."""
    stem = KEPT / f"{scenario}-{chosen.schools}-{chosen.pupils:g}-{SEED}-{chosen.draws}-{chosen.tune}"
    if stem.with_suffix(".json").exists() and not chosen.fresh:
        return
    warnings.simplefilter("ignore", BoundaryWarning)
    begin = time.perf_counter()
    of = region(scenario, seed=SEED, schools=chosen.schools, pupils_per_school=chosen.pupils)
    cut = fit_cut(of, seed=SEED)
    cut_seconds = time.perf_counter() - begin
    records = of.records(cut.prior_reference)
    print(f"{scenario}: {len(records.outcome):,} pupils; the cut took {cut_seconds:.0f} s; sampling", flush=True)
    begin = time.perf_counter()
    joint = sample_joint(
        records,
        np.random.default_rng(SEED),
        draws=chosen.draws,
        tune=chosen.tune,
        start=starting_values(of, records, cut.need),
        cores=chosen.cores,
    )
    minutes = (time.perf_counter() - begin) / 60.0
    table, national = by_school(of, cut, joint), joint.parameters()
    national["cut"] = national["parameter"].map(parameters_of_the_cut(cut))
    r_hat, ess = joint.mixing()
    record = compared(table) | {
        "pupils": len(records.outcome),
        "delta_cut": cut.delta,
        "delta_joint": float(national.set_index("parameter").loc["delta", "mean"]),
        "delta_joint_sd": float(national.set_index("parameter").loc["delta", "sd"]),
        "delta_truth": of.world.scenario.delta,
        "divergences": joint.divergences,
        "r_hat_theta": r_hat,
        "ess_theta": ess,
        "r_hat_national": float(national["r_hat"].max()),
        "ess_national": float(national["ess_bulk"].min()),
        "steps": joint.gradient_steps,
        "minutes": minutes,
        "minutes_sampling": joint.seconds / 60.0,
        "seconds_cut": cut_seconds,
    }
    table.assign(region=scenario).to_csv(stem.with_suffix(".schools.csv"), index=False, lineterminator="\n")
    national.assign(region=scenario).to_csv(stem.with_suffix(".parameters.csv"), index=False, lineterminator="\n")
    stem.with_suffix(".json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    print(f"{scenario}: {minutes:.1f} minutes, {joint.divergences} divergences", flush=True)


def collected(chosen: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Tables of the regions that are there: one row a region, schools, parameters."""
    stems = {
        name: KEPT / f"{name}-{chosen.schools}-{chosen.pupils:g}-{SEED}-{chosen.draws}-{chosen.tune}"
        for name in REGIONS
    }
    there = {name: stem for name, stem in stems.items() if stem.with_suffix(".json").exists()}
    rows = [
        {"region": name} | json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        for name, stem in there.items()
    ]
    parts = {
        kind: pd.concat([pd.read_csv(stem.with_suffix(f".{kind}.csv")) for stem in there.values()], ignore_index=True)
        for kind in ("schools", "parameters")
    }
    return {"": pd.DataFrame(rows), "_schools": parts["schools"], "_parameters": parts["parameters"]}


def main() -> None:
    """Sample what is missing, then write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schools", type=int, default=30)
    parser.add_argument("--pupils", type=float, default=100.0, help="mean pupils a school")
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--tune", type=int, default=400)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", choices=REGIONS, help="sample this region only")
    parser.add_argument("--fresh", action="store_true", help="sample again")
    chosen = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    for scenario in REGIONS if chosen.only is None else (chosen.only,):
        one(scenario, chosen)
    frames = collected(chosen)
    for name, frame in frames.items():
        path = RESULTS / f"joint_against_cut{name}.csv"
        frame.assign(synthetic=True).to_csv(path, index=False, lineterminator="\n")
    rows = frames[""].set_index("region").to_dict(orient="index")
    record = {"synthetic": True, "seed": SEED, "draws": 2 * chosen.draws, **rows}
    (RESULTS / "joint_against_cut.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    save_svg_png(joint_figure(frames["_schools"]), RESULTS / "joint_against_cut")
    print(frames[""].set_index("region").T.round(4).to_string())
    print(frames["_parameters"].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
