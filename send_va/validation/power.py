"""How often checks on cohorts reject, in worlds whose violation is known, and what they can detect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from send_va.errors import InputError
from send_va.validation.corrected_regression import Floats
from send_va.validation.falsification import falsify
from send_va.validation.falsification_worlds import FalsificationWorld
from send_va.validation.forecast import forecast_bias
from send_va.validation.leniency_check import check_leniency
from send_va.validation.leniency_worlds import LeniencyWorld

POWER = 0.8
_COARSE = 20  # groups of schools left out in a simulated forecast check: a third of the time, the same cover


def falsification_run(world: FalsificationWorld, rng: np.random.Generator) -> pd.DataFrame:
    """The test of earlier scores in one simulated world, corrected and not: test, estimate, p_value."""
    drawn = world.draw(rng)
    found = {
        name: falsify(drawn.scores(corrected=corrected), outcome=drawn.outcome)
        for name, corrected in (("earlier scores", True), ("earlier scores, uncorrected", False))
    }
    return pd.DataFrame([{"test": k, "estimate": v.coefficient, "p_value": v.p_value} for k, v in found.items()])


def forecast_run(world: FalsificationWorld, rng: np.random.Generator) -> pd.DataFrame:
    """Forecast bias in one simulated world, plain and with drift: test, estimate, p_value (of a coefficient of 1)."""
    years = world.draw(rng).year_estimates()
    table = forecast_bias(years, rng=rng, groups=_COARSE).table
    return pd.DataFrame(
        {"test": "forecast, " + table["prediction"], "estimate": table["coefficient"], "p_value": table["p_value"]}
    )


def leniency_run(world: LeniencyWorld, rng: np.random.Generator) -> pd.DataFrame:
    """The check of leniency in one simulated world: test, estimate (the correlation), p_value."""
    found = check_leniency(world.draw(rng))
    return pd.DataFrame([{"test": "leniency", "estimate": found.correlation, "p_value": found.p_value}])


def rejection_rates(runs: pd.DataFrame, by: Sequence[str], level: float = 0.05) -> pd.DataFrame:
    """Share of runs that reject, with its Monte-Carlo error.

    Parameters
    ----------
    runs : DataFrame
        p_value, estimate and the columns of `by`.
    by : sequence of str
    level : float
        Nominal size of the tests.

    Returns
    -------
    DataFrame
        The columns of `by`, runs, rejects (share), se (Monte-Carlo, of that share; where none or all reject, of one
        run more), estimate (mean), estimate_sd (over runs).

    Examples
    --------
    >>> made = pd.DataFrame({"test": "t", "p_value": [0.01, 0.5], "estimate": [2.0, 0.0]})
    >>> rejection_rates(made, ["test"])[["test", "runs", "rejects"]].to_numpy().tolist()
    [['t', 2, 0.5]]
    """
    grouped = runs.assign(hit=(runs["p_value"] < level).astype(float)).groupby(list(by), sort=False, dropna=False)
    table = grouped.agg(
        runs=("hit", "size"), rejects=("hit", "mean"), estimate=("estimate", "mean"), estimate_sd=("estimate", "std")
    ).reset_index()
    n, share = table["runs"], table["rejects"]
    safe = share.clip(lower=1.0 / (n + 1), upper=1.0 - 1.0 / (n + 1))
    table["se"] = np.sqrt(safe * (1.0 - safe) / n)
    return table[[*by, "runs", "rejects", "se", "estimate", "estimate_sd"]]


def detectable(amount: Floats, rejects: Floats, power: float = POWER) -> float:
    """The size of a violation at which a test rejects with the stated power; missing where no size tried does.

    Between sizes tried, on a line through rates made monotone.

    Raises
    ------
    InputError
        Sizes that do not ascend, or a power outside (0, 1).

    Examples
    --------
    >>> detectable(np.array([0.0, 0.2, 0.4]), np.array([0.05, 0.6, 1.0]))
    0.3
    """
    if not 0.0 < power < 1.0 or len(amount) < 2 or np.any(np.diff(amount) <= 0):
        raise InputError("sizes must ascend, two or more, and the power lie between 0 and 1")
    rising = np.asarray(isotonic_regression(rejects).x)
    if rising[-1] < power:
        return float("nan")
    at = int(np.argmax(rising >= power))
    if at == 0:
        return float(amount[0])
    share = (power - rising[at - 1]) / (rising[at] - rising[at - 1])
    return round(float(amount[at - 1] + share * (amount[at] - amount[at - 1])), 12)
