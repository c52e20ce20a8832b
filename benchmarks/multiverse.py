"""Time and memory of a multiverse of a national synthetic cohort, beside one naive specification after another.

Run: python benchmarks/multiverse.py [--schools 3400] [--minimum-cohort 10]
The multiverse: 288 specifications (3 contexts x 2 definitions of SEND x 4 adjustments x 4 estimators x 3 priors), every
fit made anew. The peer: one specification from the records with the public functions, as an analyst would write it
(read, identify, one fit, shrink), once for each estimator; its mean times the number of specifications is what 288 of
them take. Both are plug-in, average the same number of identification draws, and run in this process; the peer first,
so that compiled functions are loaded for both. Peak memory is that of the whole process.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from send_va.estimation import fit_identification, read_cohort
from send_va.ranking.shrinkage import shrink
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate, write_cohort
from send_va.sensitivity.choice_fits import FitOptions
from send_va.sensitivity.multiverse import multiverse
from send_va.study import load_study
from send_va.study_multiverse import MultiverseSection
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import pupil_design

DRAWS = 24


def naive(open_records: Callable[[], Cohort], estimator: str) -> None:
    """One specification by itself."""
    cohort, rng = open_records(), np.random.default_rng(1)
    profile = cohort.profile(5)
    columns = context_columns(cohort, profile)
    if estimator == "labelled":
        fit = fit_labelled(labelled_products(cohort, profile, columns), "cva", rng=rng, draws=2)
    else:
        need = fit_identification(cohort, draws=DRAWS)
        design = pupil_design(cohort, profile, columns)
        scores = need.scores(estimator)
        fit = fit_need(design, scores, estimator, ["cva"], rng=rng, draws=2, plug_in=True)["cva"]
    data = fit.effects.data.sel(measure="theta")
    known = np.isfinite(data["estimate"].to_numpy())
    shrink(data["estimate"].to_numpy()[known], data["se"].to_numpy()[known])


def timed(job: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schools", type=int, default=3400)
    parser.add_argument("--minimum-cohort", type=int, nargs="+", default=[10])
    options = parser.parse_args()
    section = MultiverseSection(minimum_cohort=tuple(options.minimum_cohort))
    choices = section.choices("outcome")
    world = simulate(np.random.default_rng(1), schools=options.schools)
    print(f"{len(world.pupils):,} pupils, {options.schools:,} schools, {os.cpu_count()} processors; synthetic")
    with tempfile.TemporaryDirectory() as name:
        write_cohort(world, Path(name) / "cohort")
        study = load_study(Path(name) / "cohort" / "study.toml")
        print("job                             wall s  processor s")
        single = []
        for estimator in section.estimators:
            single.append(timed(lambda estimator=estimator: naive(lambda: read_cohort(study), estimator)))
            print(f"naive, {estimator:20} {single[-1][0]:10.1f} {single[-1][1]:12.1f}", flush=True)
        records = FitOptions(identification_draws=DRAWS)
        whole = timed(lambda: multiverse(lambda outcome: read_cohort(study), choices, options=records))
    print(f"multiverse, {choices.n} specifications {whole[0]:10.1f} {whole[1]:12.1f}")
    each = np.mean(single, axis=0) * choices.n
    print(f"naive, {choices.n} specifications      {each[0]:10.1f} {each[1]:12.1f}   (mean times {choices.n})")
    print(f"ratio: {each[0] / whole[0]:.0f} (wall), {each[1] / whole[1]:.0f} (processor)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
