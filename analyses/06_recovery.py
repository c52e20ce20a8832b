"""Recovery study: what every estimator makes of synthetic cohorts whose truth is known.

Writes ``recovery.csv`` (means over replicates with Monte-Carlo standard errors), ``recovery_deciles.csv``,
``recovery_gaming.csv``, ``recovery_variances.csv``, ``recovery.json`` and the figure ``recovery`` to analyses/results.
All of it is synthetic.

``python analyses/06_recovery.py [--replicates 20] [--schools 80] [--minutes 240] [--fresh]``. A replicate takes about
seven CPU seconds; each is kept in results/recovery_cells and not done again unless ``--fresh`` is given, so that an
interrupted study goes on. The source that made them is recorded by its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.errors import BoundaryWarning
from send_va.publish.figure_style import save_svg_png
from send_va.publish.recovery_figure import recovery_figure
from send_va.validation.gaming import LOOSER, gaming_gain
from send_va.validation.recovery import BOUNDED, CORRECT, cell, cover_by_decile, summarise, variance_study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
CELLS = RESULTS / "recovery_cells"
EVERYWHERE = ("independent", "magnets", "lenient_better")
GEOGRAPHIES = ("scattered", "five_feeders", "nearly_nested")
WRONG = (
    "skewed_need",
    "heavy_skew",
    "skewed_magnets",
    "noisy_labels",
    "feeder_need",
    "clustered_feeder_need",
    "evolving_need",
    "helpful_label",
    "missing_entry",
    "floor",
)
TWICE = ("small_schools", "unequal_variance", "noisy_labels", "heavy_skew")  # replicates, where they vary most
PUPILS_PER_SCHOOL, VARIANCE_SCHOOLS, VARIANCE_SEEDS = (70.0, 174.5), 300, 12  # about 15 and 37 pupils a feeder
GAMING_SCHOOLS, GAMING_TRIED, GAMING_SEEDS = 150, 8, 10


def cells() -> list[tuple[str, str]]:
    """Every scenario of the study with its geography; scattered where nothing else is said."""
    wide = [(scenario, geography) for geography in GEOGRAPHIES for scenario in EVERYWHERE]
    rest = [scenario for scenario in (*CORRECT, BOUNDED, *WRONG) if scenario not in EVERYWHERE]
    return wide + [(scenario, "scattered") for scenario in rest]


def replicates_of(scenario: str, replicates: int) -> int:
    """How many cohorts of a scenario: twice as many where 20 leave a Monte-Carlo error of cover above .01."""
    return (2 if scenario in TWICE else 1) * replicates


def one(job: tuple[str, str, int, int, float]) -> bool:
    """Do one replicate and keep it; False where it was there already or time is up."""
    scenario, geography, seed, schools, stop = job
    stem = CELLS / f"{scenario}-{geography}-{schools}-{seed}"
    if stem.with_suffix(".csv").exists() or time.monotonic() > stop:
        return False
    warnings.simplefilter("ignore", BoundaryWarning)
    found, table = cell(scenario, geography, seed, schools)
    table.to_parquet(stem.with_suffix(".parquet"), index=False)
    found.to_csv(stem.with_suffix(".csv"), index=False)
    return True


def source_hash() -> str:
    """Hash of the package's source."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "send_va").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def collect(schools: int, replicates: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the replicates that are there, in the order of the study."""
    stems = [
        CELLS / f"{scenario}-{geography}-{schools}-{seed}"
        for scenario, geography in cells()
        for seed in range(1, replicates_of(scenario, replicates) + 1)
    ]
    there = [stem for stem in stems if stem.with_suffix(".csv").exists()]
    found = pd.concat([pd.read_csv(stem.with_suffix(".csv")) for stem in there], ignore_index=True)
    return found, pd.concat([pd.read_parquet(stem.with_suffix(".parquet")) for stem in there], ignore_index=True)


def variances(workers: int) -> pd.DataFrame:
    """Variance components at two sizes of feeders: mean ratio to the truth, with its Monte-Carlo error."""
    jobs = [(size, seed) for size in PUPILS_PER_SCHOOL for seed in range(1, VARIANCE_SEEDS + 1)]
    with ProcessPoolExecutor(max_workers=workers) as cores:
        found = pd.concat(cores.map(_components, jobs), ignore_index=True)
    found["pupils_per_feeder"] = found.groupby("pupils_per_school")["pupils_per_feeder"].transform("mean").round(1)
    grouped = found.groupby(["pupils_per_feeder", "component"])["ratio"]
    return grouped.agg(ratio="mean", se="sem", replicates="size").reset_index()


def _components(job: tuple[float, int]) -> pd.DataFrame:
    size, seed = job
    return _kept(f"variances-{size}-{seed}", lambda: variance_study(size, seed, VARIANCE_SCHOOLS))


def gaming(workers: int) -> pd.DataFrame:
    """Loosen the threshold of single schools in a few cohorts."""
    with ProcessPoolExecutor(max_workers=workers) as cores:
        return pd.concat(cores.map(_game, range(1, GAMING_SEEDS + 1)), ignore_index=True)


def _game(seed: int) -> pd.DataFrame:
    tried = np.linspace(5, GAMING_SCHOOLS - 5, GAMING_TRIED).astype(int).tolist()
    return _kept(
        f"gaming-{GAMING_SCHOOLS}-{GAMING_TRIED}-{seed}",
        lambda: gaming_gain("independent", seed, schools=GAMING_SCHOOLS, tried=tried).assign(seed=seed),
    )


def _kept(name: str, made: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table that was made before, or made now and kept."""
    path = CELLS / f"{name}.parquet"
    if not path.exists():
        warnings.simplefilter("ignore", BoundaryWarning)
        made().to_parquet(path, index=False)
    return pd.read_parquet(path)


def numbers(table: pd.DataFrame, deciles: pd.DataFrame, game: pd.DataFrame, schools: int) -> dict[str, object]:
    """Everything the paper takes, by name."""
    kept = table.set_index(["scenario", "geography", "estimator"])
    of = {
        f"{scenario}_{geography}_{estimator}": {
            name: round(float(value), 6) for name, value in row.items() if np.isfinite(value)
        }
        for (scenario, geography, estimator), row in kept.iterrows()
    }
    right = table[table["scenario"].isin(CORRECT) & table["estimator"].isin(["standardised", "entry"])]
    gain = game.groupby("estimator")["gain"]
    lowest = deciles.loc[deciles["cover"].idxmin()]
    return {
        "synthetic": True,
        "schools": schools,
        "replicates": int(table["replicates"].min()),
        "cells": len(table[["scenario", "geography"]].drop_duplicates()),
        "cover_lowest": float(right["cover"].min()),
        "cover_highest": float(right["cover"].max()),
        "cover_se_largest": float(table["cover_se"].max()),
        "decile_cover_lowest": float(lowest["cover"]),
        "decile_cover_lowest_where": " ".join(str(lowest[c]) for c in ("scenario", "estimator", "by", "decile")),
        "decile_cells": len(deciles),
        "decile_below_nine_tenths": int((deciles["cover"] < 0.9).sum()),
        "decile_below_by_two_errors": int((deciles["cover"] + 2.0 * deciles["cover_se"] < 0.9).sum()),
        "gaming": {
            name: {"mean": float(v.mean()), "se": float(v.sem()), "max": float(v.abs().max())} for name, v in gain
        },
        "gaming_looser": LOOSER,
        "gaming_relabelled": float(game["relabelled"].mean()),
        **of,
    }


def main() -> None:
    """Run what is missing, then write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--schools", type=int, default=80)
    parser.add_argument("--minutes", type=float, default=240.0, help="start no replicate after this time")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--fresh", action="store_true", help="forget replicates done before")
    chosen = parser.parse_args()
    if chosen.fresh and CELLS.exists():
        shutil.rmtree(CELLS)
    CELLS.mkdir(parents=True, exist_ok=True)
    (CELLS / "source.txt").open("a", encoding="utf-8").write(f"{source_hash()}\n")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    stop = time.monotonic() + 60.0 * chosen.minutes
    jobs = [
        (scenario, geography, seed, chosen.schools, stop)
        for seed in range(1, 2 * chosen.replicates + 1)
        for scenario, geography in cells()
        if seed <= replicates_of(scenario, chosen.replicates)
    ]
    with ProcessPoolExecutor(max_workers=chosen.workers) as cores:
        for done, new in enumerate(cores.map(one, jobs), start=1):
            if new:
                print(f"{done}/{len(jobs)}", flush=True)
    found, schools = collect(chosen.schools, chosen.replicates)
    table = summarise(found)
    deciles = pd.concat(
        [
            cover_by_decile(part).assign(scenario=scenario, geography=geography)
            for (scenario, geography), part in schools.groupby(["scenario", "geography"], sort=False)
        ],
        ignore_index=True,
    )
    right = deciles[deciles["scenario"].isin(CORRECT) & deciles["estimator"].isin(["standardised", "entry"])]
    game, components = gaming(chosen.workers), variances(chosen.workers)
    frames = {"": table, "_deciles": deciles, "_gaming": game, "_variances": components}
    for name, frame in frames.items():
        frame.assign(synthetic=True).to_csv(RESULTS / f"recovery{name}.csv", index=False, lineterminator="\n")
    record = numbers(table, right, game, chosen.schools)
    own = components[~components["component"].str.startswith("la")]
    record["variance_furthest"] = float((own["ratio"] - 1.0).abs().max())
    record["variance_small_feeders"] = float(components["pupils_per_feeder"].min())
    record["variance_large_feeders"] = float(components["pupils_per_feeder"].max())
    record["variance_la_entry"] = float(components[components["component"] == "la_entry"]["ratio"].mean())
    record["made_with"] = sorted(set((CELLS / "source.txt").read_text(encoding="utf-8").split()))
    (RESULTS / "recovery.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    save_svg_png(recovery_figure(table), RESULTS / "recovery")
    shown = ["scenario", "geography", "estimator", "replicates", "rmse_ratio", "cover", "cover_se", "leniency_bias"]
    print(table[[*shown, "magnet_bias", "delta", "leniency_r", "intake_r"]].round(3).to_string(index=False))
    print(game.groupby("estimator")["gain"].agg(["mean", "sem", "min", "max"]).round(4).to_string())
    print(components.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
