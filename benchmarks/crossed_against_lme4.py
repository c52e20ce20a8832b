"""Time of a crossed model (feeder x school) at national size: fit_gaussian beside lme4's lmer, same records, one run.

Run: python benchmarks/crossed_against_lme4.py [--map banded|realistic] [--pupils 593000] [--schools 3400]
     [--feeders 16000] [--repeats 1] [--patience 240]          (needs Rscript with lme4)

Synthetic records on two feeder maps. `banded`: schools and feeders stand on a line and a feeder sends pupils to the
five schools nearest to it. `realistic`: the same, but one pupil in ten comes from a feeder anywhere in the country.
`--patience` is the number of seconds after which lme4 is given up. Prints times, ratio and the log-likelihoods.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.errors import BoundaryWarning
from send_va.multilevel import fit_gaussian
from send_va.multilevel.crossed import CrossedSolution
from send_va.multilevel.gaussian import GaussianFit

COVARIATES = ["prior", "prior2", "need", "male", "fsm", "eal", "month", "idaci", "e1", "e2", "e3"]
FORMULA = "y ~ " + " + ".join(COVARIATES)  # 12 columns with the intercept
FAR = {"banded": 0.0, "realistic": 0.1}


def records(rng: np.random.Generator, pupils: int, schools: int, feeders: int, far: float) -> pd.DataFrame:
    """Synthetic pupils: school SD 0.22, feeder SD 0.12, residual SD 0.75; `far` is the share of far feeders."""
    feeder = rng.integers(0, feeders, pupils)
    school = np.clip(feeder * schools // feeders + rng.integers(-2, 3, pupils), 0, schools - 1)
    away = rng.random(pupils) < far
    school[away] = rng.integers(0, schools, away.sum())
    data = {"school": school, "feeder": feeder, "prior": rng.standard_normal(pupils).round(4)}
    data["prior2"] = data["prior"] ** 2
    shares = {"need": 0.16, "male": 0.51, "fsm": 0.25, "eal": 0.16, "e1": 0.1, "e2": 0.1, "e3": 0.1}
    for name, share in shares.items():
        data[name] = (rng.random(pupils) < share).astype(float)
    data |= {"month": rng.integers(1, 13, pupils).astype(float), "idaci": rng.random(pupils).round(4)}
    u, v = rng.normal(0, 0.22, schools), rng.normal(0, 0.12, feeders)
    mean = 0.65 * data["prior"] - 0.3 * data["need"] + 0.1 * data["male"] - 0.2 * data["fsm"]
    data["y"] = (mean + u[school] + v[feeder] + rng.normal(0, 0.75, pupils)).round(5)
    return pd.DataFrame(data)


def lmer_call(folder: Path, patience: float) -> tuple[float, float, str] | None:
    """Seconds of the call, log-likelihood and version; None where it did not end in time."""
    script = Path(__file__).with_suffix(".R").resolve()
    try:
        done = subprocess.run(
            ["Rscript", str(script)], cwd=folder, capture_output=True, text=True, check=True, timeout=patience
        )
    except subprocess.TimeoutExpired:
        return None
    seconds, llf, version = done.stdout.split()
    return float(seconds), float(llf), version


def our_call(data: pd.DataFrame) -> tuple[float, GaussianFit]:
    start = time.perf_counter()
    fit = fit_gaussian(FORMULA, data, {"feeder": "1", "school": "1"})
    return time.perf_counter() - start, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", choices=FAR, default="banded")
    parser.add_argument("--pupils", type=int, default=593_000)
    parser.add_argument("--schools", type=int, default=3_400)
    parser.add_argument("--feeders", type=int, default=16_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--patience", type=float, default=240.0)
    options = parser.parse_args()
    size = (options.pupils, options.schools, options.feeders)
    data = records(np.random.default_rng(1), *size, FAR[options.map])
    with warnings.catch_warnings():  # the loops are compiled before the clock starts
        warnings.simplefilter("ignore", BoundaryWarning)
        our_call(records(np.random.default_rng(2), 20_000, 700, 1_500, 0.0))
        our_call(records(np.random.default_rng(2), 20_000, 250, 600, 0.1))
    ours = [our_call(data) for _ in range(options.repeats)]
    seconds, fit = statistics.median(time for time, _ in ours), ours[0][1]
    assert isinstance(fit.solution, CrossedSolution)
    kind = "dense" if fit.solution.dense else "sparse"
    print(f"{options.map} map: {size[0]:,} pupils x {size[1]:,} schools x {size[2]:,} feeders, 12 columns, REML")
    print(f"fit_gaussian {seconds:7.2f} s ({kind}, {fit.convergence.evaluations} evaluations)   llf {fit.llf:.5f}")
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "records.csv", index=False)
        peer = [lmer_call(Path(folder), options.patience) for _ in range(options.repeats)]
    ended = [run for run in peer if run is not None]
    if len(ended) < len(peer):
        ratio = options.patience / seconds
        print(f"lmer had not ended after {options.patience:.0f} s: ratio above {ratio:.1f}")
        return
    theirs = statistics.median(run[0] for run in ended)
    print(f"lmer         {theirs:7.2f} s (lme4 {ended[0][2]})   llf {ended[0][1]:.5f}")
    print(f"ratio {theirs / seconds:.1f}   log-likelihood difference {fit.llf - ended[0][1]:.1e}")


if __name__ == "__main__":
    main()
