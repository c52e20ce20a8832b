"""Coverage of the cut: intervals of theta with need estimated first and carried into value-added by its draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from send_va.validation.coverage import cover_of
from send_va.validation.recovery import Replicate, replicate

ESTIMATORS = ("entry", "standardised")
# Worlds in which everything the two estimators assume is true.
SCENARIOS = ("independent", "magnets", "lenient_better")


def cut_cover(
    scenario: str, seed: int, *, schools: int = 80, draws: int = 500, geography: str = "scattered"
) -> pd.DataFrame:
    """Simulate one cohort, estimate it by the cut, and see which intervals of theta hold the truth.

    Parameters
    ----------
    scenario, geography : str
        Of the simulator.
    seed : int
        Of the cohort; also its number as a simulation.
    schools, draws : int

    Returns
    -------
    DataFrame
        Rows of :func:`send_va.validation.coverage.cover_of`, one for estimator and level; give those of many seeds to
        :class:`send_va.validation.coverage.Coverage`.

    References
    ----------
    Plummer (2015), doi:10.1007/s11222-014-9503-z (a cut is no posterior of one model, so calibration has no meaning).
    """
    found = replicate(scenario, geography, seed, schools=schools, draws=draws)
    return theta_cover(found, scenario, seed)


def theta_cover(
    found: Replicate, scenario: str, simulation: int, estimators: Sequence[str] = ESTIMATORS
) -> pd.DataFrame:
    """Cover of theta, against the average school, by the estimators of one replicate."""
    truth = found.world.truth.astype({"school": str}).set_index("school")["theta"]
    theta = truth - truth.mean()
    rows = []
    for name in estimators:
        effects = found.effects[name]
        drawn = effects.draws("theta")
        there = np.isfinite(drawn).all(axis=0)
        own = theta.loc[list(effects.schools)].to_numpy(dtype=np.float64)
        rows.append(cover_of(f"theta by {name}, {scenario.replace('_', ' ')}", own[there], drawn[:, there], simulation))
    return pd.concat(rows, ignore_index=True)
