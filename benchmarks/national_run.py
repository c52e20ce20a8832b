"""Time and memory of the whole job by number of pupils: `send-va run` as a process, on synthetic cohorts.

Run: python benchmarks/national_run.py [--schools 430 860 1720 3440] [--draws 1000]
The job: check, need of every pupil with 200 identification draws, four estimators in three contexts, 1,000 draws,
ranges of assumptions, tables and figures. Times are shown beside those of reading and summing the same file with pandas
in the same run, so that the machine's speed cancels.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.records.simulator import simulate, write_cohort


def run_process(study: Path, out: Path, draws: int) -> tuple[float, float]:
    """Wall seconds and peak memory (GB) of one process."""
    command = [sys.executable, "-m", "send_va", "run", str(study), "--out", str(out), "--draws", str(draws), "-q"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"send-va run failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


def pandas_pass(pupils: Path) -> float:
    """The peer: read the file and average every number by school, as any analysis does at least once."""
    start = time.perf_counter()
    frame = pd.read_parquet(pupils)
    frame.groupby(["school", "sen_status"]).mean(numeric_only=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schools", type=int, nargs="+", default=[430, 860, 1720, 3440])
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    print("four estimators, three contexts, 200 identification draws; synthetic cohorts;", end=" ")
    print(f"{options.draws:,} draws, {os.cpu_count()} processors")
    print("  pupils  schools  whole run s  peak GB  s per 100,000 pupils  pandas pass s  ratio")
    with tempfile.TemporaryDirectory() as name:
        for schools in options.schools:
            folder = Path(name) / f"cohort-{schools}"
            simulated = simulate(np.random.default_rng(1), schools=schools)
            write_cohort(simulated, folder)
            pupils = len(simulated.pupils)
            seconds, memory = run_process(folder / "study.toml", Path(name) / f"out-{schools}", options.draws)
            peer = pandas_pass(folder / "pupils.parquet")
            print(
                f"{pupils:8,d} {schools:8,d} {seconds:12.1f} {memory:8.2f} {seconds / pupils * 1e5:21.2f} "
                f"{peer:14.2f} {seconds / peer:6.1f}"
            )


if __name__ == "__main__":
    main()
