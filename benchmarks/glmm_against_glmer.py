"""Time of a random-intercept logit: fit_glmm beside lme4's glmer, on the same records in one run.

Run: python benchmarks/glmm_against_glmer.py [--pupils 60000] [--schools 340] [--national]   (needs Rscript with lme4)
Both sides maximise the Laplace approximation and report standard errors from numerical second derivatives. Prints the
ratio, the difference in log-likelihood, and with --national our time for 593,000 pupils in 3,400 schools (there glmer
takes about half an hour, so it is not run). Records are synthetic.
"""

import argparse
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.multilevel import GlmmFit, fit_glmm

SHARES = {"fsm": 0.25, "eal": 0.16, "male": 0.51, **{f"e{k}": 0.1 for k in range(1, 6)}}
FORMULA = "sen ~ prior + fsm + eal + male + month + idaci + e1 + e2 + e3 + e4 + e5"


def records(rng: np.random.Generator, pupils: int, schools: int) -> pd.DataFrame:
    """Synthetic pupils: school SD 0.54 in log-odds, 12 columns with the intercept, about a quarter identified."""
    school = rng.integers(0, schools, pupils)
    data = {"school": school, "prior": rng.standard_normal(pupils).round(4)}
    data |= {name: (rng.random(pupils) < share).astype(float) for name, share in SHARES.items()}
    data |= {"month": rng.integers(1, 13, pupils).astype(float), "idaci": rng.random(pupils).round(4)}
    eta = -2.0 - 0.8 * data["prior"] + 0.4 * data["fsm"] - 0.2 * data["eal"] + 0.5 * data["male"]
    eta += 0.05 * data["month"] + 0.2 * data["idaci"] + rng.normal(0.0, 0.54, schools)[school]
    data["sen"] = (rng.random(pupils) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
    return pd.DataFrame(data)


def timed(data: pd.DataFrame) -> tuple[float, GlmmFit]:
    start = time.perf_counter()
    fit = fit_glmm(FORMULA, data, {"school": "1"})
    return time.perf_counter() - start, fit


def glmer_calls(data: pd.DataFrame) -> dict[int, list[str]]:
    script = Path(__file__).with_suffix(".R").resolve()
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "records.csv", index=False)
        output = subprocess.run(["Rscript", str(script)], cwd=folder, capture_output=True, text=True, check=True).stdout
    return {int(line.split()[0]): line.split()[1:] for line in output.splitlines()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pupils", type=int, default=60_000)
    parser.add_argument("--schools", type=int, default=340)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--national", action="store_true")
    options = parser.parse_args()
    timed(records(np.random.default_rng(2), 2_000, 20))
    data = records(np.random.default_rng(1), options.pupils, options.schools)
    peer = glmer_calls(data)
    runs = [timed(data) for _ in range(options.repeats)]
    ours, fit = statistics.median(seconds for seconds, _ in runs), runs[0][1]
    print(f"{options.pupils:,} pupils, {options.schools:,} schools, 12 columns, random-intercept logit")
    for points, (seconds, llf, sd, version) in peer.items():
        what = "Laplace" if points else "nAGQ=0, not maximum likelihood"
        print(
            f"lme4 {version} glmer ({what}) {float(seconds):7.2f} s   fit_glmm {ours:5.2f} s   "
            f"ratio {float(seconds) / ours:6.1f}   log-likelihood ours - theirs {fit.llf - float(llf):+.2e}   "
            f"SD {fit.variance_components['sd_or_corr'][0]:.5f} and {float(sd):.5f}"
        )
    if options.national:
        seconds, fit = timed(records(np.random.default_rng(1), 593_000, 3_400))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"593,000 pupils, 3,400 schools: fit_glmm {seconds:.2f} s, log-likelihood {fit.llf:.3f}, "
            f"SD {fit.variance_components['sd_or_corr'][0]:.5f}, peak memory of the process {memory:.1f} GB"
        )


if __name__ == "__main__":
    main()
