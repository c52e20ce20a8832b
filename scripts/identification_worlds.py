"""Synthetic cohorts for the figures of docs/identification.md, with what identification makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import send_va as sv
from send_va.identification.need import Need
from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort
from send_va.records.simulator.scenarios import SCENARIOS
from send_va.validation.recovery import ROLES
from send_va.value_added.design import context_columns
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design

Floats = NDArray[np.float64]
FEWEST = 60  # pupils a cell of a table of feeders and schools
BOTH = replace(
    SCENARIOS["independent"],
    name="leniency and magnets",
    description="leniency and intake need, unrelated to what schools add",
    intake_need_sd=SCENARIOS["magnets"].intake_need_sd,
)


@dataclass(frozen=True)
class World:
    """A synthetic cohort, and what identification makes of it."""

    made: SimulatedCohort
    cohort: Cohort
    need: Need
    design: PupilDesign

    @property
    def truth(self) -> pd.DataFrame:
        """What only a simulation knows, by school."""
        return self.made.truth.astype({"school": str}).set_index("school")


def world(
    seed: int, schools: int, geography: str = "scattered", *, draws: int = 0, pupils_per_school: float | None = None
) -> World:
    """Simulate a cohort and fit identification to it."""
    rng = np.random.default_rng(seed)
    made = sv.simulate(rng, schools=schools, scenario=BOTH, geography=geography, pupils_per_school=pupils_per_school)
    cohort = Cohort.from_pandas(made.pupils, ROLES, synthetic=True)
    profile = cohort.profile(5)
    design = pupil_design(cohort, profile, context_columns(cohort, profile))
    return World(made, cohort, sv.fit_identification(cohort, seed=seed, draws=draws), design)


def theta_errors(of: World) -> pd.DataFrame:
    """Estimate less truth of theta in pupil SDs, by school, for `labelled` and `entry` (plug-in)."""
    truth, found = of.truth["theta_sd"] - of.truth["theta_sd"].mean(), {}
    for estimator in ("labelled", "entry"):
        effects = sv.fit_value_added(of.cohort, of.need, estimator=estimator, seed=1, draws=400)
        theta = effects.summary("theta").set_index("school")["mean"]
        found[estimator] = theta / float(str(of.made.attrs["pupil_sd"])) - truth
    return pd.DataFrame(found)


def error_slope(of: World, error: Floats, column: str) -> tuple[float, float]:
    """Coefficient of the error on a column, by SD, given theta and the other one, and its standard error."""
    other = "intake_need" if column == "leniency" else "leniency"
    x = np.column_stack([of.truth[name] / of.truth[name].std() for name in (column, other, "theta_sd")])
    x = np.column_stack([x - x.mean(axis=0), np.ones(len(x))])
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ error
    residual = error - x @ beta
    return float(beta[0]), float(np.sqrt(inverse[0, 0] * (residual @ residual) / (len(x) - x.shape[1])))


def well_crossed(size: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Seven feeders and five schools with the most filled cells."""
    filled = (size >= FEWEST).to_numpy(dtype=np.int64)
    found: tuple[int, list[int], list[int]] = (-1, [], [])
    for schools in combinations(range(filled.shape[1]), 5):
        shared = filled[:, list(schools)].sum(axis=1)
        feeders = np.argsort(-shared, kind="stable")[:7]
        if int(shared[feeders].sum()) > found[0]:
            found = int(shared[feeders].sum()), [int(k) for k in feeders], list(schools)
    return [int(size.index[k]) for k in found[1]], [int(size.columns[k]) for k in found[2]]


def three_schools(truth: pd.DataFrame) -> dict[str, str]:
    """A lenient school, a magnet and an average one, of ordinary size."""
    ordinary = truth[truth["n_pupils"].between(*truth["n_pupils"].quantile([0.4, 0.95]))]
    leniency, intake = (ordinary[name] / truth[name].std() for name in ("leniency", "intake_need"))
    return {
        "Lenient school": str((leniency - 2 * intake.abs()).idxmax()),
        "Magnet": str((intake - 2 * leniency.abs()).idxmax()),
        "Neither": str((leniency.abs() + intake.abs()).idxmin()),
    }


def entry_effects(of: World, draws: int, *, plug_in: bool = False) -> sv.SchoolEffects:
    """Value-added of estimator `entry`, context `cva`."""
    rng, scores = np.random.default_rng(1), of.need.scores("entry")
    return fit_need(of.design, scores, "entry", ["cva"], rng=rng, draws=draws, plug_in=plug_in)["cva"].effects
