"""Time and memory of the incentive audit on a national synthetic cohort: five acts, four estimators, 3,400 schools.

Run: python benchmarks/incentives.py [--schools 3400] [--scenario magnets] [--context cva]
Prints processor and wall seconds of reading, identification, fits and audit separately, the peak of memory, mean gains
by estimator and act, and the verdicts. The audit is to take less than 60 seconds of wall time.
"""

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from send_va.errors import BoundaryWarning
from send_va.identification.labels import read_labels
from send_va.identification.need import estimate_need
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.held_estimators import HeldEstimator, hold_labelled, hold_need
from send_va.sensitivity.incentives import IncentiveAudit, audit_held
from send_va.validation.recovery import ROLES
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.pupil_design import pupil_design


def timed(what: str, job: Callable[[], Any]) -> Any:
    """Do a job and print what it took."""
    wall, processor = time.perf_counter(), time.process_time()
    done = job()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{what:34s} {time.process_time() - processor:7.1f} s processor {time.perf_counter() - wall:7.1f} s wall "
        f"{peak:5.2f} GB peak",
        flush=True,
    )
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schools", type=int, default=3400)
    parser.add_argument("--scenario", default="magnets")
    parser.add_argument("--context", default="cva")
    options = parser.parse_args()
    warnings.simplefilter("ignore", BoundaryWarning)
    world = timed(
        "simulate", lambda: simulate(np.random.default_rng(1), schools=options.schools, scenario=options.scenario)
    )
    print(f"synthetic: {len(world.pupils):,} pupils, {options.schools:,} schools, scenario {options.scenario}")
    cohort = Cohort.from_pandas(world.pupils, ROLES, synthetic=True)
    profile = cohort.profile(5)
    columns = context_columns(cohort, profile)
    labels = timed("read labels", lambda: read_labels(cohort, profile, columns))
    design = timed("read the design", lambda: pupil_design(cohort, profile, columns))
    data = timed("cross-products of labelled", lambda: labelled_products(cohort, profile, columns))
    need = timed("identification, no draws", lambda: estimate_need(labels, seed=1, draws=0))
    contexts = [options.context]

    def fits() -> list[HeldEstimator]:
        return [
            hold_labelled(design, labels, data, contexts),
            *(hold_need(design, need, name, contexts) for name in need.estimators),
        ]

    held = timed("fits of four estimators", fits)

    def audit() -> IncentiveAudit:
        return audit_held(held, design, labels, need=need, seed=1, settings=AuditSettings(), context=options.context)

    found = timed("audit: five acts, four estimators", audit)
    print(f"{len(found.table):,} rows")
    for one in held:
        for equation, values in zip(one.equations.values(), one.before.values(), strict=True):
            off = np.nanmax(np.abs(values.effects - equation.fitted)) / equation.outcome_sd
            print(f"{one.estimator}: with nothing changed, at most {off:.1e} pupil SDs from the fit's own means")
    shown = found.summary[found.summary["measure"] == "theta"]
    for name in ("mean_gain_sd", "share_gaining", "mean_places", "gradient_mean"):
        print(f"\n{name}, theta")
        table = shown.pivot(index=["action", "roll_weighted"], columns="estimator", values=name)
        print(table.round(4).to_string())
    print()
    print(found)


if __name__ == "__main__":
    main()
