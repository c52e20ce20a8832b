"""Rank sets and grades against schools whose order is known: do they hold what they promise.

Simulates tables of 300 schools with independent estimates, and counts how often simultaneous rank sets hold all true
ranks, whether schools said to be apart are in that order, and what share of pairs grades put in the wrong order, with
the prior right, wrong and estimated. Writes ``ranking_check.csv`` (one row a world, method and quantity) and
``ranking_check.json`` to analyses/results. All of it is synthetic.

``python analyses/12_ranking_check.py [--replications 500] [--schools 300]``. Priors are estimated in 100 of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.validation.ranking_check import PRIORS, SHAPES, RankingWorld, check_grades, check_rank_sets, summarised

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
SEED = 20260815
COVERAGE, DISCORDANCE = 0.95, 0.05
MOST_DECONVOLVED = 100  # replications with a prior estimated anew, which take eight times as long


def generators(*key: int, replications: int) -> list[np.random.Generator]:
    """One generator a replication of a part, the same however many are run."""
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=key)).spawn(replications)


def checked(world: RankingWorld, part: int, replications: int) -> list[pd.DataFrame]:
    """Rank sets and, by prior, grades in one world."""
    rngs = generators(part, 0, replications=replications)
    sets = [check_rank_sets(world, rng, coverage=COVERAGE) for rng in rngs]
    tables = [summarised(sets).assign(method="rank sets", prior="")]
    for prior in PRIORS:
        wanted = min(replications, MOST_DECONVOLVED) if prior == "spline" else replications
        rngs = generators(part, 1, replications=wanted)  # the same worlds for every prior
        rows = [check_grades(world, rng, discordance_rate=DISCORDANCE, prior=prior) for rng in rngs]
        tables.append(summarised(rows).assign(method="grades", prior=prior))
        print(f"{world.shape}, grades with prior {prior}: done", flush=True)
    return [table.assign(shape=world.shape) for table in tables]


def main() -> None:
    """Simulate, count, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=500)
    parser.add_argument("--schools", type=int, default=300)
    chosen = parser.parse_args()
    start = time.monotonic()
    worlds = [RankingWorld(schools=chosen.schools, shape=shape) for shape in SHAPES]
    parts = [table for part, world in enumerate(worlds) for table in checked(world, part, chosen.replications)]
    found = pd.concat(parts, ignore_index=True)[["shape", "method", "prior", "what", "mean", "se", "replications"]]
    RESULTS.mkdir(parents=True, exist_ok=True)
    found.assign(synthetic=True).to_csv(RESULTS / "ranking_check.csv", index=False, float_format="%.6g")
    record: dict[str, object] = {"synthetic": True, "coverage": COVERAGE, "discordance": DISCORDANCE}
    for row in found.itertuples():
        name = "_".join(filter(None, (str(row.shape).replace(" ", "_"), str(row.prior), str(row.what))))
        record[name] = {"mean": round(float(row.mean), 6), "se": round(float(row.se), 6)}
    record |= {"replications": chosen.replications, "schools": chosen.schools}
    (RESULTS / "ranking_check.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(found.round(4).to_string(index=False))
    print(f"{(time.monotonic() - start) / 60.0:.1f} minutes")


if __name__ == "__main__":
    main()
