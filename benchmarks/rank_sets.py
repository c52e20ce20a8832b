"""Time and memory of rank confidence sets, beside a plain NumPy program that looks at every pair in every draw.

Run: python benchmarks/rank_sets.py [--schools 20000] [--draws 10000]
Each line is a process of its own, with compiled functions loaded before the clock starts; its peak memory includes the
interpreter and libraries. csranks 1.2.3 needs R and is not run here: for 300 units and 1,000 draws it is said to take
22 s and 3 GB for simultaneous sets, 57 s for marginal ones. The NumPy program takes the same steps.
"""

import argparse
import multiprocessing
import os
import resource
import time

import numpy as np
import pandas as pd

from send_va.ranking.confidence_sets import confidence_sets


def schools(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Effects with SD .25 in pupil SDs, and standard errors of about .15."""
    rng = np.random.default_rng(1)
    se = 0.15 * np.exp(rng.normal(0.0, 0.4, n))
    return rng.normal(0.0, 0.25, n) + se * rng.normal(size=n), se


def critical_value(noise: np.ndarray, sd: np.ndarray, observed: np.ndarray) -> float:
    """Step-down over columns, one a pair and order: a quantile over draws, until no more pairs are rejected."""
    still_open = np.ones(len(sd), dtype=bool)
    while True:
        critical = float(np.quantile((noise[:, still_open] / sd[still_open]).max(axis=1), 0.95))
        rejected = still_open & (observed / sd > critical)
        if not rejected.any():
            return critical
        still_open &= ~rejected


def plain_numpy(estimate: np.ndarray, se: np.ndarray, draws: int, *, simultaneous: bool) -> pd.DataFrame:
    """The peer: a matrix of draws by ordered pairs."""
    n = len(se)
    z = np.random.default_rng(1).standard_normal((draws, n)) * se
    above, below = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    for unit in [None] if simultaneous else range(n):
        if unit is None:
            first, second = np.nonzero(~np.eye(n, dtype=bool))
        else:
            others = np.delete(np.arange(n), unit)
            first = np.concatenate([np.full(n - 1, unit), others])
            second = np.concatenate([others, np.full(n - 1, unit)])
        sd = np.hypot(se[first], se[second])
        observed = estimate[first] - estimate[second]
        significant = observed / sd > critical_value(z[:, first] - z[:, second], sd, observed)
        if unit is None:
            below, above = (np.bincount(side[significant], minlength=n) for side in (first, second))
        else:
            below[unit], above[unit] = (first[significant] == unit).sum(), (second[significant] == unit).sum()
    return pd.DataFrame({"lower": 1 + above, "upper": n - below})


def measure(program: str, n: int, draws: int, simultaneous: bool) -> tuple[float, float, float, float]:
    """Wall seconds, processor seconds, peak memory in GB, and the mean number of places in a set."""
    estimate, se = schools(n)
    if program == "send_va":
        confidence_sets(*schools(200), draws=300, simultaneous=simultaneous)
    wall, processor = time.perf_counter(), time.process_time()
    if program == "send_va":
        sets = confidence_sets(estimate, se, draws=draws, simultaneous=simultaneous)
    else:
        sets = plain_numpy(estimate, se, draws, simultaneous=simultaneous)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return wall, processor, peak, float((sets["upper"] - sets["lower"] + 1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schools", type=int, nargs="*", default=[], help="further numbers of schools")
    parser.add_argument("--draws", type=int, default=10_000, help="draws of all but the first")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1, maxtasksperchild=1) as pool:
        for simultaneous in (True, False):
            pool.apply(measure, ("send_va", 200, 300, simultaneous))  # compiles, where this was not done before
        print(f"{os.cpu_count()} processors; coverage .95, two-sided, step-down")
        print("units    draws  sets          program   wall s  processor s  peak GB  mean places")
        for n, draws in [(300, 1_000), *((n, options.draws) for n in (3_400, *options.schools))]:
            for simultaneous in (True, False):
                for program in ("send_va", "NumPy") if n <= 300 else ("send_va",):
                    wall, processor, peak, places = pool.apply(measure, (program, n, draws, simultaneous))
                    kind = "simultaneous" if simultaneous else "marginal"
                    print(
                        f"{n:6,d} {draws:7,d}  {kind:12}  {program:8} {wall:7.2f} {processor:12.2f} {peak:8.2f} "
                        f"{places:12,.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
