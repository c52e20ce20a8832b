"""Missing prior attainment: what leaving pupils out does to school effects, and what imputation gives back.

Simulates cohorts in which prior scores are missing at random or not, and compares theta with the truth: nothing
missing, complete records, imputed, imputed with the shift that is known to be right. A further cohort is taken through
:func:`send_va.sensitivity.missing_prior.missing_prior` as a study would be, with the identification model kept and
estimated again. Writes ``missing_check.csv`` (one row a mechanism, method and quantity), ``missing_patterns.csv``,
``missing_by_delta.csv``, ``missing_prior.json`` and the figure ``missing_prior`` to analyses/results. All of it is
synthetic.

``python analyses/17_missing_prior.py [--replications 40] [--schools 100] [--imputations 10] [--fresh]``. A replication
takes about five CPU seconds; each is kept in results/missing_cells and not done again unless ``--fresh`` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.errors import BoundaryWarning
from send_va.publish.figure_style import save_svg_png
from send_va.publish.missing_prior_figure import missing_prior_figure
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.sensitivity.missing_prior import MissingPrior, missing_prior
from send_va.validation.missing_check import MECHANISMS, MissingWorld, check_missing
from send_va.validation.ranking_check import summarised
from send_va.validation.recovery import ROLES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
CELLS = RESULTS / "missing_cells"
SEED = 20261107
EXAMPLE_SCHOOLS, EXAMPLE_SIZE, EXAMPLE_IMPUTATIONS = 150, 120.0, 10
ODDS, WITH_SEND, NEW = -4.0, 1.0, 1.2  # log odds of a missing score: about 3 % of all pupils


def one(job: tuple[str, int, int, int]) -> list[dict[str, object]]:
    """One replication of a mechanism: kept, and read where it was kept."""
    mechanism, schools, imputations, number = job
    path = CELLS / f"{mechanism}-{schools}-{imputations}-{number}.json"
    if not path.exists():
        warnings.simplefilter("ignore", BoundaryWarning)
        key = (MECHANISMS.index(mechanism), number)  # type: ignore[arg-type]
        rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=key))
        found = check_missing(MissingWorld(mechanism, schools=schools), rng, imputations=imputations)  # type: ignore[arg-type]
        path.write_text(json.dumps(found), encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    return [{"mechanism": mechanism, "method": method} | values for method, values in found.items()]


def checked(replications: int, schools: int, imputations: int) -> pd.DataFrame:
    """Means over replications with their Monte-Carlo standard errors."""
    jobs = [(mechanism, schools, imputations, k) for mechanism in MECHANISMS for k in range(replications)]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as cores:
        rows = pd.DataFrame([row for rows in cores.map(one, jobs) for row in rows])
    parts = []
    for (mechanism, method), part in rows.groupby(["mechanism", "method"], sort=False):
        values = part.drop(columns=["mechanism", "method"]).to_dict("records")
        parts.append(summarised(values).assign(mechanism=mechanism, method=method))
    table = pd.concat(parts, ignore_index=True)
    return table[["mechanism", "method", "what", "mean", "se", "replications"]]


def example_cohort() -> Cohort:
    """A cohort with the share of missing scores England has, more of pupils with SEND and of new arrivals."""
    world = simulate(np.random.default_rng(SEED), schools=EXAMPLE_SCHOOLS, pupils_per_school=EXAMPLE_SIZE)
    pupils = world.pupils
    odds = ODDS + WITH_SEND * (pupils["sen_status"] != "N") + NEW * pupils["eal"]
    rng = np.random.default_rng([SEED, 1])
    gone = rng.random(len(pupils)) < 1.0 / (1.0 + np.exp(-odds.to_numpy(np.float64)))
    pupils = pupils.assign(
        prior=pupils["prior"].astype(float).mask(gone),
        idaci=pupils["idaci"].mask(rng.random(len(pupils)) < 0.01),
    )
    return Cohort.from_pandas(pupils, ROLES, synthetic=True)


def example(refit: bool) -> MissingPrior:
    """The whole table of one cohort, under two estimators."""
    return missing_prior(
        example_cohort(),
        estimators=("labelled", "entry") if not refit else ("entry",),
        imputations=EXAMPLE_IMPUTATIONS,
        deltas=(-0.5, -0.25, 0.0, 0.25, 0.5) if not refit else (0.0,),
        refit_identification=refit,
        identification_draws=4,
        draws=400,
        seed=SEED,
    )


def identification_difference(kept: MissingPrior, refitted: MissingPrior) -> dict[str, float]:
    """How far theta of `entry` moves when identification is estimated in every completed data set."""
    effects = kept.effects["entry", 0.0], refitted.effects["entry", 0.0]
    mean, sd = ([part.data[name].sel(measure="theta").to_numpy() for part in effects] for name in ("mean", "sd"))
    scale = float(effects[0].attrs["outcome_sd"])
    return {
        "mean_difference": float(np.abs(mean[0] - mean[1]).mean() / scale),
        "largest_difference": float(np.abs(mean[0] - mean[1]).max() / scale),
        "sd_ratio": float((sd[1] / sd[0]).mean()),
    }


def main() -> None:
    """Simulate, count, draw, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=40)
    parser.add_argument("--schools", type=int, default=100)
    parser.add_argument("--imputations", type=int, default=10)
    parser.add_argument("--fresh", action="store_true")
    chosen = parser.parse_args()
    start = time.monotonic()
    if chosen.fresh and CELLS.exists():
        shutil.rmtree(CELLS)
    CELLS.mkdir(parents=True, exist_ok=True)
    found = checked(chosen.replications, chosen.schools, chosen.imputations)
    found.assign(synthetic=True).to_csv(RESULTS / "missing_check.csv", index=False, float_format="%.6g")
    print(found.pivot_table("mean", ["mechanism", "method"], "what", sort=False).round(3).to_string())
    warnings.simplefilter("ignore", BoundaryWarning)
    shown = example(refit=False)
    shown.patterns.assign(synthetic=True).to_csv(RESULTS / "missing_patterns.csv", index=False, float_format="%.6g")
    shown.by_delta.assign(synthetic=True).to_csv(RESULTS / "missing_by_delta.csv", index=False, float_format="%.6g")
    figure = missing_prior_figure(shown.patterns, shown.by_delta, tolerance=shown.tolerance, synthetic=True)
    save_svg_png(figure, RESULTS / "missing_prior")
    record: dict[str, object] = {"synthetic": True, "imputations": chosen.imputations, "schools": chosen.schools}
    for row in found.itertuples():
        name = f"{row.mechanism}_{str(row.method).replace(' ', '_')}_{row.what}"
        record[name] = {"mean": round(float(row.mean), 6), "se": round(float(row.se), 6)}
    record["identification"] = identification_difference(shown, example(refit=True))
    record["replications"] = chosen.replications
    (RESULTS / "missing_prior.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(shown)
    print(record["identification"])
    print(f"{(time.monotonic() - start) / 60.0:.1f} minutes")


if __name__ == "__main__":
    main()
