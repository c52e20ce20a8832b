"""Whether checks on cohorts hold their size, and what they can detect.

Simulates schools of which is known what is wrong with them, if anything, and counts how often checks reject at 5 %: the
test of earlier scores, corrected for error in prior scores and not, at three reliabilities; forecast bias with and
without drift; and the check that leniency does not go with need before transfer. Then the same in worlds with a
violation of a named kind and a stated size, and the size at which a check rejects in 80 % of runs.

Writes ``falsification.csv`` (one row a world and test), ``falsification_detectable.csv``, ``falsification.json`` and a
figure to analyses/results. All of it is synthetic. Cells that were done are kept in results/falsification_cells and not
done again unless ``--fresh`` is given.

``python analyses/16_falsification.py [--only size power forecast leniency] [--runs 500] [--fresh]``
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from send_va.publish.falsification_figure import falsification_figure
from send_va.publish.figure_style import save_svg_png
from send_va.validation.falsification_worlds import FalsificationWorld
from send_va.validation.leniency_worlds import LeniencyWorld
from send_va.validation.power import detectable, falsification_run, forecast_run, leniency_run, rejection_rates

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
CELLS = RESULTS / "falsification_cells"
SEED = 20260916
RELIABILITIES = (1.0, 0.9, 0.8)
PARTS = ("size", "power", "forecast", "leniency")
SIZE_WORLD = {"schools": 300, "pupils": 60, "intake_sd": 0.5}
POWER_WORLD = {"schools": 300, "pupils": 30, "reliability": 0.9}
AMOUNTS: dict[str, dict[str, tuple[float, ...]]] = {
    "power": {"sorting": (0.1, 0.2, 0.3, 0.4, 0.5), "baseline": (0.04, 0.08, 0.12, 0.16), "drift": (0.2, 0.4)},
    "forecast": {"drift": (0.05, 0.1, 0.2), "sorting": (0.4,), "baseline": (0.1,)},
}
CORRELATIONS = (0.0, 0.1, 0.2, 0.3)
RUNS = {
    "size": (500, 500),
    "power": (250, 250),
    "forecast": (200, 100),
    "leniency": (200, 100),
}  # without, with violation
_KEYS = ["part", "violation", "amount", "reliability", "test"]


@dataclass(frozen=True)
class Cell:
    """Runs of one check in one world."""

    part: str
    violation: str
    amount: float
    reliability: float
    run: Callable[[np.random.Generator], pd.DataFrame]
    world: dict[str, Any]


def cells(part: str) -> list[Cell]:
    """The worlds of one part."""
    if part == "leniency":
        return [lenient(LeniencyWorld(correlation=value)) for value in CORRELATIONS]
    if part == "size":
        return [cohorts(part, falsification_run, SIZE_WORLD | {"reliability": value}) for value in RELIABILITIES]
    run = falsification_run if part == "power" else forecast_run
    base = POWER_WORLD | {"cohorts": 2 if part == "power" else 4}
    worlds = [base] + [
        base | {"violation": violation, "amount": amount}
        for violation, amounts in AMOUNTS[part].items()
        for amount in amounts
    ]
    return [cohorts(part, run, world) for world in worlds]


def cohorts(
    part: str, run: Callable[[FalsificationWorld, np.random.Generator], pd.DataFrame], world: dict[str, Any]
) -> Cell:
    """A cell of schools with scores."""
    made = FalsificationWorld(**world)
    return Cell(part, made.violation, made.amount, made.reliability, lambda rng: run(made, rng), asdict(made))


def lenient(world: LeniencyWorld) -> Cell:
    """A cell of schools with labels."""
    violation = "lenient" if world.correlation else "none"
    return Cell("leniency", violation, world.correlation, np.nan, lambda rng: leniency_run(world, rng), asdict(world))


def done(cell: Cell, place: int, runs: int) -> pd.DataFrame:
    """Runs of a cell that were done before, or done now and kept."""
    path = CELLS / f"{cell.part}-{place}-{cell.violation}-{cell.amount}-{cell.reliability}-{SEED}-{runs}.parquet"
    if not path.exists():
        at = PARTS.index(cell.part)
        rngs = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(at, place))).spawn(runs)
        start = time.process_time()
        found = pd.concat([cell.run(rng).assign(run=k) for k, rng in enumerate(rngs)], ignore_index=True)
        found.assign(seconds=(time.process_time() - start) / runs).to_parquet(path, index=False)
        print(f"{path.stem}: {time.process_time() - start:.0f} s of processor time", flush=True)
    named = {"part": cell.part, "violation": cell.violation, "amount": cell.amount, "reliability": cell.reliability}
    return pd.read_parquet(path).assign(**named)


def smallest(rates: pd.DataFrame) -> pd.DataFrame:
    """The size of every violation at which each test rejects in 80 % of runs; missing where no size tried does.

    A test that rejects where nothing is wrong finds nothing: the uncorrected one has no such size.
    """
    rates = rates[~rates["test"].str.contains("uncorrected")]
    rows = []
    for part in ("power", "forecast", "leniency"):
        of_part = rates[rates["part"] == part]
        null = of_part[of_part["violation"] == "none"]
        for (violation, test), table in of_part[of_part["violation"] != "none"].groupby(
            ["violation", "test"], sort=False
        ):
            line = pd.concat([null[null["test"] == test], table])
            found = detectable(line["amount"].to_numpy(), line["rejects"].to_numpy())
            row = {"part": part, "violation": violation, "test": test, "detectable": found}
            rows.append(row | {"largest_tried": line["amount"].max(), "rejects_there": line["rejects"].iloc[-1]})
    return pd.DataFrame(rows)


def record(rates: pd.DataFrame, found: pd.DataFrame) -> dict[str, object]:
    """The numbers that the paper takes."""
    said: dict[str, object] = {"synthetic": True, "seed": SEED, "size_world": SIZE_WORLD, "power_world": POWER_WORLD}
    for row in rates.itertuples():
        name = "_".join(
            str(part).replace(",", "").replace(" ", "_")
            for part in (row.part, row.violation, row.amount, row.reliability, row.test)
        )
        said[name] = {"rejects": round(row.rejects, 6), "se": round(row.se, 6), "runs": int(row.runs)}
    for row in found.itertuples():
        name = f"detectable_{row.violation}_{row.test}".replace(",", "").replace(" ", "_")
        said[name] = None if np.isnan(row.detectable) else round(row.detectable, 4)
    return said


def main() -> None:
    """Run what is missing, then write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--runs", type=int, help="of every world; by default what each part needs")
    parser.add_argument("--fresh", action="store_true", help="forget runs done before")
    chosen = parser.parse_args()
    if chosen.fresh and CELLS.exists():
        shutil.rmtree(CELLS)
    CELLS.mkdir(parents=True, exist_ok=True)
    every = [
        done(cell, place, chosen.runs or RUNS[part][cell.violation != "none"])
        for part in PARTS
        if part in chosen.only
        for place, cell in enumerate(cells(part))
    ]
    rates = rejection_rates(pd.concat(every, ignore_index=True), _KEYS).assign(synthetic=True)
    if set(chosen.only) != set(PARTS):
        print(rates.round(3).to_string(index=False))
        return
    found = smallest(rates)
    rates.to_csv(RESULTS / "falsification.csv", index=False, float_format="%.6g")
    found.assign(synthetic=True).to_csv(RESULTS / "falsification_detectable.csv", index=False, float_format="%.6g")
    path = RESULTS / "falsification.json"
    path.write_text(json.dumps(record(rates, found), indent=2) + "\n", encoding="utf-8")
    save_svg_png(falsification_figure(rates, found), RESULTS / "falsification")
    print(rates.round(3).to_string(index=False))
    print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
