"""Calibration: posteriors against their own prior and simulator, intervals against the truth they should hold.

Simulation-based calibration of posteriors of one model, with controls whose answer is known; frequentist cover of 50,
80 and 95 % intervals of REML and of the cut, which are no posteriors of one model. Writes ``calibration_ranks.csv``,
``calibration_problems.csv``, ``calibration_cover.csv``, ``calibration.json`` and a figure for every part to
analyses/results. All of it is synthetic.

``python analyses/08_calibration.py [--only reml cut] [--simulations 500] [--fresh]``. Simulations are kept in blocks in
results/calibration_cells and not done again unless ``--fresh`` is given; parts that are not run keep their results. The
source that made them is recorded by its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

# One thread for the array program of the joint model: threads inside of one chain slow it down.
os.environ.setdefault("NPROC", "1")

import numpy as np
import pandas as pd

from send_va.errors import BoundaryWarning
from send_va.publish.calibration_figure import coverage_figure, rank_figure
from send_va.publish.figure_style import save_svg_png
from send_va.validation.calibration import Calibration, GenerativeModel, SimulatedRanks, calibration, simulated_ranks
from send_va.validation.collapsed_calibration import collapsed_model
from send_va.validation.conjugate_model import conjugate_model
from send_va.validation.coverage import Coverage
from send_va.validation.cut_coverage import SCENARIOS, cut_cover
from send_va.validation.joint_calibration import joint_ranks
from send_va.validation.reml_coverage import NestedWorld, reml_cover

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
CELLS = RESULTS / "calibration_cells"
SEED = 20260801
BLOCK = 20  # simulations kept together
Ranker = Callable[[Sequence[np.random.Generator]], SimulatedRanks]


def ranked[Data](model: GenerativeModel[Data]) -> Ranker:
    """Ranks of one simulation for every generator given."""
    return lambda rngs: simulated_ranks(model, rngs)


def joint(rngs: Sequence[np.random.Generator]) -> SimulatedRanks:
    """Ranks of the joint model of need, labels and outcomes, which is compiled once for all of them."""
    found = joint_ranks(rngs[0], simulations=len(rngs))
    problems = tuple(("divergences",) if count else () for count in found.divergences)
    return SimulatedRanks(found.names, found.draws, found.ranks, found.effective, problems)


# Posteriors to calibrate: what they are called in figures, how to build what ranks them, and how many simulations. What
# ranks takes one generator a simulation; a study that draws its own takes the first and how many there are.
CONTROLS = {
    "exact": ("an exact posterior", lambda: ranked(conjugate_model()), 500),
    "too_narrow": ("a posterior 20 % too narrow", lambda: ranked(conjugate_model(sd_factor=0.8)), 500),
    "shifted": ("a posterior shifted by 0.3 SD", lambda: ranked(conjugate_model(shift=0.3)), 500),
    "prior_only": ("a posterior that ignores the data", lambda: ranked(conjugate_model(ignore_data=True)), 500),
}
POSTERIORS = {
    "collapsed": ("the collapsed posterior", lambda: ranked(collapsed_model()), 500),
    "joint": ("the joint posterior", lambda: joint, 100),
}
WORLDS = (NestedWorld(schools=30), NestedWorld(schools=150))
REML_SIMULATIONS, CUT_SIMULATIONS = 400, 20
PARTS = ("controls", *POSTERIORS, "reml", "cut")


def source_hash() -> str:
    """Hash of the package's source."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "send_va").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def kept(name: str, simulations: int, made: Callable[[list[int]], pd.DataFrame]) -> pd.DataFrame:
    """Blocks of simulations that were done before, or done now and kept."""
    parts = []
    for first in range(0, simulations, BLOCK):
        block = list(range(first, min(first + BLOCK, simulations)))
        path = CELLS / f"{name}-{SEED}-{first}-{block[-1]}.parquet"
        if not path.exists():
            made(block).to_parquet(path, index=False)
            print(f"{name}: {block[-1] + 1}/{simulations}", flush=True)
        parts.append(pd.read_parquet(path))
    return pd.concat(parts, ignore_index=True)


def generators(part: int, simulations: int) -> list[np.random.Generator]:
    """One generator a simulation of a part, the same however many are run."""
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(part,))).spawn(simulations)


def calibrated(name: str, part: int, build: Callable[[], Ranker], simulations: int) -> Calibration:
    """Ranks of one posterior, and their test."""
    rngs, ranks = generators(part, simulations), build()

    def made(block: list[int]) -> pd.DataFrame:
        return ranks([rngs[k] for k in block]).to_frame()

    frame = kept(name, simulations, made)
    return calibration(SimulatedRanks.from_frame(frame, draws=99))


def reml(simulations: int) -> Coverage:
    """Cover of REML in worlds with few and with many schools."""
    parts = []
    for at, world in enumerate(WORLDS):
        rngs = generators(100 + at, simulations)

        def made(block: list[int], world: NestedWorld = world, rngs: list[np.random.Generator] = rngs) -> pd.DataFrame:
            done = [reml_cover(world, rngs[k], k) for k in block]
            return pd.concat([table.assign(converged=converged) for table, converged in done], ignore_index=True)

        parts.append(kept(f"reml-{world.schools}", simulations, made).assign(schools=world.schools))
    rows = pd.concat(parts, ignore_index=True)
    fits = rows.groupby(["schools", "simulation"])["converged"].first()
    return Coverage(rows, problems=int((~fits).sum()))


def cut(simulations: int) -> Coverage:
    """Cover of theta by the cut, in worlds in which its assumptions hold."""
    parts = [
        kept(
            f"cut-{scenario}",
            simulations,
            lambda block, scenario=scenario: pd.concat(
                [cut_cover(scenario, seed + 1) for seed in block], ignore_index=True
            ),
        )
        for scenario in SCENARIOS
    ]
    return Coverage(pd.concat(parts, ignore_index=True))


def run_posteriors(
    known: dict[str, tuple[str, Callable[[], Ranker], int]],
    chosen: Sequence[str],
    first: int,
    simulations: int | None,
) -> dict[str, Calibration]:
    """Calibrate the chosen ones of the posteriors known, and draw each."""
    found = {}
    for k, (name, (subject, build, wanted)) in enumerate(known.items()):
        if name not in chosen:
            continue
        result = calibrated(name, first + k, build, simulations or wanted)
        failed = int(result.ranks.failed.sum())
        troubled = sum(bool(kinds) for kinds in result.ranks.problems)
        said = f"Failed: {failed}. With problems: {troubled - failed}."
        save_svg_png(rank_figure(result.uniformity, subject, problems=said), RESULTS / f"calibration_{name}")
        print(f"\n{name}\n{result}", flush=True)
        found[name] = result
    return found


def replace_parts(name: str, tables: dict[str, pd.DataFrame]) -> None:
    """Write tables of the parts that were run over those parts of a results file, and leave its other parts."""
    path = RESULTS / f"{name}.csv"
    new = pd.concat([table.assign(part=part, synthetic=True) for part, table in tables.items()], ignore_index=True)
    if path.exists():
        before = pd.read_csv(path)
        new = pd.concat([before[~before["part"].isin(list(tables))], new], ignore_index=True)
    new.to_csv(path, index=False, lineterminator="\n")


def record_posteriors(found: dict[str, Calibration], record: dict[str, object]) -> None:
    """Write ranks' tests and problems, and the numbers the paper takes."""
    if not found:
        return
    replace_parts("calibration_ranks", {name: result.table() for name, result in found.items()})
    replace_parts("calibration_problems", {name: result.ranks.problem_table() for name, result in found.items()})
    for name, result in found.items():
        table = result.table()
        record[name] = {
            "calibrated": result.calibrated,
            "simulations": len(result.ranks.ranks),
            "failed": int(result.ranks.failed.sum()),
            "parameters": len(table),
            "inside": int(table["inside"].sum()),
            "p_smallest": float(table["p_value"].min()),
            "threshold": float(table["threshold"].iloc[0]),
        }


def record_cover(found: dict[str, Coverage], record: dict[str, object]) -> None:
    """Write cover, draw it, and keep the numbers the paper takes."""
    if not found:
        return
    tables = {}
    for name, result in found.items():
        table = result.table()
        save_svg_png(coverage_figure(table, {"reml": "REML", "cut": "the cut"}[name]), RESULTS / f"calibration_{name}")
        print(f"\n{name}\n{result}", flush=True)
        tables[name] = table
        record[name] = {
            "not_converged": result.problems,
            "off": int((table["diagnosis"] != "as stated").sum()),
            **{
                f"{row.what}, {row.level:.0%}": {"cover": round(row.cover, 6), "se": round(row.se, 6)}
                for row in table.itertuples()
            },
        }
    replace_parts("calibration_cover", tables)


def main() -> None:
    """Run what is missing, then write the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--simulations", type=int, help="of every part chosen; by default what each part needs")
    parser.add_argument("--fresh", action="store_true", help="forget simulations done before")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore", BoundaryWarning)
    if chosen.fresh and CELLS.exists():
        shutil.rmtree(CELLS)
    CELLS.mkdir(parents=True, exist_ok=True)
    (CELLS / "source.txt").open("a", encoding="utf-8").write(f"{source_hash()}\n")
    start = time.monotonic()
    controls = list(CONTROLS) if "controls" in chosen.only else []
    posteriors = run_posteriors(CONTROLS, controls, 0, chosen.simulations)
    posteriors |= run_posteriors(POSTERIORS, chosen.only, 50, chosen.simulations)
    covers = {}
    if "reml" in chosen.only:
        covers["reml"] = reml(chosen.simulations or REML_SIMULATIONS)
    if "cut" in chosen.only:
        covers["cut"] = cut(chosen.simulations or CUT_SIMULATIONS)
    path = RESULTS / "calibration.json"
    record: dict[str, object] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record |= {"synthetic": True, "seed": SEED}
    record["made_with"] = sorted(set((CELLS / "source.txt").read_text(encoding="utf-8").split()))
    record_posteriors(posteriors, record)
    record_cover(covers, record)
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")
    print(f"{(time.monotonic() - start) / 60.0:.1f} minutes")


if __name__ == "__main__":
    main()
