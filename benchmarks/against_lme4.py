"""Time of a national random-slope model: fit_gaussian beside lme4's lmer, on the same records in one run.

Run: python benchmarks/against_lme4.py [--pupils 593000] [--schools 3400] [--repeats 3]   (needs Rscript with lme4)
Prints ratios: the call from data frame to results, records sorted and shuffled, and the fit from cross-products.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.multilevel import cross_products, fit_gaussian
from send_va.multilevel.elimination import Level
from send_va.multilevel.formula import response_and_design
from send_va.multilevel.nested import fit_nested

COVARIATES = ["prior", "prior2", "prior3", "need", "male", "fsm", "eal", "month", "idaci", "e1", "e2", "e3", "e4", "e5"]
FORMULA = "y ~ " + " + ".join(COVARIATES)  # 15 columns with the intercept


def records(rng: np.random.Generator, pupils: int, schools: int) -> pd.DataFrame:
    """Synthetic pupils: school SD 0.22, SD of the extra for need 0.15, residual SD 0.75."""
    school = np.sort(rng.integers(0, schools, pupils))
    data = {"school": school, "prior": rng.standard_normal(pupils).round(4)}
    data |= {"prior2": data["prior"] ** 2, "prior3": data["prior"] ** 3}
    for name, share in {
        "need": 0.16,
        "male": 0.51,
        "fsm": 0.25,
        "eal": 0.16,
        **{f"e{k}": 0.1 for k in range(1, 6)},
    }.items():
        data[name] = (rng.random(pupils) < share).astype(float)
    data |= {"month": rng.integers(1, 13, pupils).astype(float), "idaci": rng.random(pupils).round(4)}
    u, s = rng.normal(0, 0.22, schools), rng.normal(0, 0.15, schools)
    mean = 0.65 * data["prior"] - 0.3 * data["need"] + 0.1 * data["male"] - 0.2 * data["fsm"]
    data["y"] = (mean + u[school] + s[school] * data["need"] + rng.normal(0, 0.75, pupils)).round(5)
    return pd.DataFrame(data)


def timed[T](call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def lmer_call(folder: Path) -> tuple[float, float, str]:
    script = Path(__file__).with_suffix(".R").resolve()
    output = subprocess.run(["Rscript", str(script)], cwd=folder, capture_output=True, text=True, check=True).stdout
    seconds, llf, version = output.split()
    return float(seconds), float(llf), version


def fit_only(data: pd.DataFrame) -> float:
    design = response_and_design(FORMULA, data)
    rows = np.column_stack([design.X, design.y])
    schools = data["school"].to_numpy()
    columns = [*design.names, "y"]
    sums = cross_products(rows, schools, int(schools.max()) + 1, columns)
    level = Level(np.array([0, columns.index("need")]))
    return timed(lambda: fit_nested(sums, [level], np.arange(len(design.names)), len(columns) - 1))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pupils", type=int, default=593_000)
    parser.add_argument("--schools", type=int, default=3_400)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ordered = records(np.random.default_rng(1), options.pupils, options.schools)
    shuffled = ordered.sample(frac=1.0, random_state=1).reset_index(drop=True)
    fit_gaussian(FORMULA, ordered.head(5000), {"school": "1 + need"})
    rows = []
    for name, data in (("sorted", ordered), ("shuffled", shuffled)):
        with tempfile.TemporaryDirectory() as folder:
            data.to_csv(Path(folder) / "records.csv", index=False)
            for _ in range(options.repeats):
                peer, peer_llf, version = lmer_call(Path(folder))
                ours, fit = timed(lambda data=data: fit_gaussian(FORMULA, data, {"school": "1 + need"}))
                rows.append((name, peer, ours, fit_only(data), abs(fit.llf - peer_llf)))
    print(f"{options.pupils:,} pupils, {options.schools:,} schools, 15 columns, random intercept and slope, REML")
    print(f"lme4 {version}, medians of {options.repeats} runs")
    for name in ("sorted", "shuffled"):
        peer, ours, fit, gap = (statistics.median(row[k] for row in rows if row[0] == name) for k in range(1, 5))
        print(
            f"{name:9s} lmer {peer:6.2f} s   fit_gaussian {ours:5.2f} s   ratio {peer / ours:5.1f}   "
            f"fit from cross-products {fit:5.3f} s   ratio {peer / fit:6.1f}   |log-likelihood difference| {gap:.1e}"
        )


if __name__ == "__main__":
    main()
