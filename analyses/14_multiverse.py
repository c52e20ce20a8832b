"""How much of a table of schools is chosen: 576 defensible specifications of one national synthetic cohort.

Writes ``multiverse_specifications.csv`` (one row a specification, with its correlation with the truth),
``multiverse_schools.csv`` (one row a school), ``multiverse_choices.csv`` (which choice matters), ``multiverse.json``
and figures to analyses/results. All of it is synthetic.

``python analyses/14_multiverse.py [--schools 3400] [--fresh]``. Fits are kept in results/multiverse_fits, by the source
they were made with, so that an interrupted analysis goes on; ``--fresh`` forgets them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.estimation import read_cohort
from send_va.publish.multiverse_figure import save_multiverse_figures
from send_va.records.simulator import simulate, write_cohort
from send_va.sensitivity.choice_fits import FitOptions
from send_va.sensitivity.fit_store import FolderStore
from send_va.sensitivity.multiverse import Multiverse, multiverse
from send_va.sensitivity.specifications import CHOICES
from send_va.study import load_study
from send_va.study_multiverse import MultiverseSection

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
KEPT = RESULTS / "multiverse_fits"
SEED = 20260822
SECTION = MultiverseSection(minimum_cohort=(10, 1))


def source_hash(schools: int) -> str:
    """Hash of the package's source and of what is asked for."""
    digest = hashlib.sha256(json.dumps([schools, SEED, vars(SECTION)]).encode())
    for path in sorted((ROOT / "send_va").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def analysed(schools: int) -> tuple[Multiverse, pd.DataFrame]:
    """The multiverse of one synthetic cohort, and the truth of its schools."""
    world = simulate(np.random.default_rng(SEED), schools=schools)
    with tempfile.TemporaryDirectory() as name:
        write_cohort(world, Path(name) / "cohort")
        cohort = read_cohort(load_study(Path(name) / "cohort" / "study.toml"))
        found = multiverse(
            lambda outcome: cohort,
            SECTION.choices("outcome"),
            options=FitOptions(seed=SEED),
            store=FolderStore(KEPT / source_hash(schools)),
            synthetic=True,
            progress=lambda done: print(f"{done} fits done", flush=True) if done % 12 == 0 else None,
        )
    return found, world.truth.assign(school=world.truth["school"].astype(str)).set_index("school")


def against_truth(found: Multiverse, truth: pd.DataFrame) -> pd.DataFrame:
    """Specifications with the correlation of their effects with the true ones, and the share in the right fifth.

    The truth is that of pupils with need of any kind, so specifications of plans alone have none.
    """
    theta = truth["theta_sd"].reindex(found.effects.columns)
    rows = []
    of_any = found.specifications.loc[found.specifications["send"] == "any", "number"]
    for number, own in found.effects[found.effects.index.isin(of_any)].iterrows():
        there = own.notna()
        fifth = (-own[there]).rank(), (-theta[there]).rank()
        right = np.equal(*(((rank - 1) * 5 // there.sum()).to_numpy() for rank in fifth)).mean()
        rows.append({"number": number, "truth_correlation": own[there].corr(theta[there]), "right_fifth": right})
    return found.specifications.merge(pd.DataFrame(rows), on="number", how="left")


def numbers(found: Multiverse, table: pd.DataFrame) -> dict[str, object]:
    """Everything the paper takes, by name."""
    done = table[table["status"] == "done"]
    record: dict[str, object] = {"synthetic": True, "specifications": len(table), "failed": len(found.failed)}
    record |= {name: round(float(value), 6) for name, value in found.headline.items()}
    for row in found.choices.itertuples():
        term = str(row.term).replace(" ", "_")
        record[f"{row.result}_{term}"] = round(float(row.share), 6)
    for name in CHOICES:
        for value, own in done[done["right_fifth"].notna()].groupby(name, sort=False):
            record[f"right_fifth_{name}_{value}"] = round(float(own["right_fifth"].mean()), 6)
    first = done[done["number"] == found.reference].iloc[0]
    single = done[(done[list(CHOICES)] != first[list(CHOICES)]).sum(axis=1) == 1]
    for row in single.itertuples():
        (name,) = [name for name in CHOICES if getattr(row, name) != first[name]]
        record[f"moved_{name}_{getattr(row, name)}"] = round(1.0 - float(row.same_quintile), 6)
    record["exact_schools"] = int(found.choices["n_exact"].iloc[0])
    record["schools"] = int(found.choices["n_schools"].iloc[0])
    return record


def main() -> None:
    """Fit what is missing, then write the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schools", type=int, default=3400)
    parser.add_argument("--fresh", action="store_true", help="forget fits made before")
    chosen = parser.parse_args()
    if chosen.fresh and KEPT.exists():
        shutil.rmtree(KEPT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    wall, processor = time.monotonic(), time.process_time()
    found, truth = analysed(chosen.schools)
    table = against_truth(found, truth)
    frames = {"specifications": table, "schools": found.by_school, "choices": found.choices}
    for name, frame in frames.items():
        path = RESULTS / f"multiverse_{name}.csv"
        frame.assign(synthetic=True).to_csv(path, index=False, lineterminator="\n", float_format="%.6g")
    record = numbers(found, table)
    (RESULTS / "multiverse.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    save_multiverse_figures(found, RESULTS, title="One national synthetic cohort")
    print(found)
    print(json.dumps(record, indent=1))
    print(f"{time.monotonic() - wall:.0f} s, {time.process_time() - processor:.0f} s of processor time")


if __name__ == "__main__":
    main()
