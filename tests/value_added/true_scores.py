"""Scores of need at the true identification parameters of a simulated cohort (statistical design, section 4)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort
from send_va.value_added.design import context_columns
from send_va.value_added.pupil_design import PupilDesign, pupil_design

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "la": "la",
    "feeder": "feeder",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "sen_status_entry": "sen_status_entry",
    "context": ["C(sex)", "month_of_birth", "fsm6", "eal", "C(ethnicity)", "idaci", "looked_after"],
}


@dataclass(frozen=True)
class FixedScores:
    """Scores that are given; every draw adds noise to the leniency of feeders, as a fitted model would."""

    tables: tuple[tuple[np.ndarray, np.ndarray | None], ...]  # the plug-in first, then the draws

    @property
    def n_draws(self) -> int:
        return len(self.tables) - 1

    def plug_in(self) -> tuple[np.ndarray, np.ndarray | None]:
        return self.tables[0]

    def draw(self, d: int) -> tuple[np.ndarray, np.ndarray | None]:
        return self.tables[d + 1]


def entry_scores(world: SimulatedCohort, leniency_error: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """``pi`` and ``severity`` given the label at entry: a normal variable known to lie in an interval."""
    pupils = world.pupils
    tau, tau_ehcp = float(world.attrs["threshold"]), float(world.attrs["threshold_ehcp"])
    feeders, las = world.feeders.set_index("feeder"), world.las.set_index("la")
    la = feeders["la"].loc[pupils["feeder"]].to_numpy()

    def leniency(at_feeder: str, at_la: str) -> np.ndarray:
        error = 0.0 if leniency_error is None else leniency_error[feeders.index.get_indexer(pupils["feeder"])]
        return feeders[at_feeder].loc[pupils["feeder"]].to_numpy() + las[at_la].loc[la].to_numpy() + error

    intake = world.truth.set_index("school")["intake_need"].loc[pupils["school"]].to_numpy()
    mean = expected_need(world) + intake
    status = pupils["sen_status_entry"].to_numpy()
    support = tau - leniency("leniency", "leniency_entry") - mean  # e above it: labelled
    ehcp = np.maximum(tau_ehcp - leniency("leniency_ehcp", "leniency_entry_ehcp") - mean, support)
    low = np.where(status == "E", ehcp, np.where(status == "K", support, -np.inf))
    high = np.where(status == "E", np.inf, np.where(status == "K", np.maximum(ehcp, support + 1e-6), support))
    inside = norm.cdf(high) - norm.cdf(low)
    above = norm.cdf(high) - norm.cdf(np.clip(tau - mean, low, high))
    return np.clip(above / inside, 0.0, 1.0), intake + (norm.pdf(low) - norm.pdf(high)) / inside


def label_free_scores(world: SimulatedCohort) -> tuple[np.ndarray, None]:
    """``p0`` given background alone."""
    spread = np.sqrt(1.0 + world.scenario.intake_need_sd**2)
    return norm.cdf((expected_need(world) - float(world.attrs["threshold"])) / spread), None


def expected_need(world: SimulatedCohort) -> np.ndarray:
    """``x'gamma``: what background says of need."""
    return (world.pupil_truth["need"] - world.pupil_truth["severity"]).to_numpy()


def design_of(pupils: pd.DataFrame, knots: int = 3, roles: dict | None = None) -> PupilDesign:
    cohort = Cohort.from_pandas(pupils, roles or ROLES)
    profile = cohort.profile(knots)
    return pupil_design(cohort, profile, context_columns(cohort, profile))


def cover(table: pd.DataFrame, truth: pd.Series) -> float:
    known = truth.loc[table["school"]].to_numpy()
    return float(((table["lower"] < known) & (known < table["upper"])).mean())
