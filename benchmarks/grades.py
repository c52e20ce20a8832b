"""Time, memory and optimality gap of grades by number of schools, from estimates to grades.

Run: python benchmarks/grades.py [--schools 300 3400] [--seed 1]
Effects have SD 0.25, standard errors lie between 0.10 and 0.20. Each number of schools is run in a process of its own,
with compiled functions already in the cache: CPU seconds are the ones to compare where the machine is shared.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from send_va.ranking.deconvolution import deconvolve
from send_va.ranking.grades import Grades, grades
from send_va.ranking.pairwise import pairwise_probabilities


def timed[T](name: str, work: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    said = f"; {result}" if isinstance(result, Grades) else ""
    print(
        f"  {name:<34} {time.perf_counter() - wall:7.1f} s wall {time.process_time() - cpu:7.1f} s CPU{said}",
        flush=True,
    )
    return result


def simulated(schools: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    se = rng.uniform(0.10, 0.20, schools)
    return 0.25 * rng.normal(size=schools) + se * rng.normal(size=schools), se


def warm_up() -> None:
    """Load every compiled function."""
    estimate, se = simulated(70, 0)
    above = pairwise_probabilities(prior=deconvolve(estimate, se, grid=50), estimate=estimate, se=se)
    pairwise_probabilities(np.zeros((2, 2)))
    for few in (above, above[:9, :9]):
        grades(few)
        grades(few, discordance_rate=0.05)


def one(schools: int, seed: int) -> None:
    warm_up()
    estimate, se = simulated(schools, seed)
    print(f"{schools:,} schools", flush=True)
    prior = timed("prior, log-spline", lambda: deconvolve(estimate, se))
    timed("prior, mixture", lambda: deconvolve(estimate, se, method="mixture"))
    above = timed("pairwise from the prior", lambda: pairwise_probabilities(prior=prior, estimate=estimate, se=se))
    timed("grades, loss ratio 0.25", lambda: grades(above, loss_ratio=0.25))
    timed("grades, 5 % of pairs", lambda: grades(above, discordance_rate=0.05, counting="pairs"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    draws = prior.posterior(estimate, se).draws(1_000, np.random.default_rng(seed))
    timed("pairwise from 1,000 draws", lambda: pairwise_probabilities(draws))
    print(f"  peak memory before the draws {peak:.2f} GB, {os.cpu_count()} processors", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schools", type=int, nargs="+", default=[300, 3400])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if len(options.schools) == 1:
        one(options.schools[0], options.seed)
        return
    for schools in options.schools:
        subprocess.run([sys.executable, __file__, "--schools", str(schools), "--seed", str(options.seed)], check=True)


if __name__ == "__main__":
    main()
