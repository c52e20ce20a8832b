"""Does imputation give back what missing prior attainment took away? Cohorts whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import SchoolEffects
from send_va.errors import InputError
from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.sensitivity.completed_fits import FitPlan, complete_case_fits
from send_va.sensitivity.incomplete_records import read_incomplete
from send_va.sensitivity.missing_prior import missing_prior
from send_va.validation.recovery import CONTEXT, ROLES, world_of

Floats = NDArray[np.float64]
Mechanism = Literal["mcar", "mar", "mnar"]
MECHANISMS: tuple[Mechanism, ...] = ("mcar", "mar", "mnar")
SELECTION = -0.75  # log odds of a missing score per SD of the score itself, under ``mnar``
_SCENARIO = "delta_zero"
_ROLES = replace(ROLES, context=("C(sex)", "fsm6", "eal", "idaci"))
_WITH_NEED, _NEW, _OUTCOME, _SCHOOLS = 1.0, 1.0, -0.5, 0.5  # log odds of a missing score; the last an SD over schools
_KNOTS = 3
_MOST = 0.25  # share of schools with the most missing, whose cover is looked at by itself


@dataclass(frozen=True)
class MissingWorld:
    """Cohorts in which SEN status is true need and prior scores are missing.

    Labels are need itself, and unexplained need does not touch the outcome: `labelled` is then exactly right on
    complete records, and whatever goes wrong comes from the missing scores.

    Attributes
    ----------
    mechanism : str
        ``mcar``: any pupil alike. ``mar``: more pupils with need, more who speak another language at home (stand-ins
        for new arrivals), more with low outcomes, more in some schools. ``mnar``: the same, and more with low scores.
    schools : int
    pupils_per_school : float
    share : float
        Of scores that are missing, about.
    """

    mechanism: Mechanism = "mar"
    schools: int = 100
    pupils_per_school: float = 120.0
    share: float = 0.15

    def __post_init__(self) -> None:
        """Refuse a mechanism there is not."""
        if self.mechanism not in MECHANISMS:
            raise InputError(f"there is no mechanism {self.mechanism!r}", f"Use one of {', '.join(MECHANISMS)}.")

    def draw(self, rng: np.random.Generator) -> tuple[SimulatedCohort, pd.DataFrame, NDArray[np.bool_]]:
        """The cohort, its pupils with true need as SEN status, and whose score is missing."""
        world = simulate(
            rng, schools=self.schools, scenario=world_of(_SCENARIO), pupils_per_school=self.pupils_per_school
        )
        status = np.where(world.pupil_truth["has_need"], "K", "N")
        pupils = world.pupils.assign(sen_status=status, sen_status_entry=status)
        odds = np.zeros(len(pupils))
        if self.mechanism != "mcar":
            code = pupils["school"].to_numpy() - int(pupils["school"].min())
            odds = (
                _WITH_NEED * (status == "K") + _NEW * pupils["eal"].to_numpy() + _OUTCOME * _scaled(pupils["outcome"])
            )
            odds = odds + rng.normal(0.0, _SCHOOLS, self.schools)[code]
        if self.mechanism == "mnar":
            odds = odds + SELECTION * _scaled(pupils["prior"])
        return world, pupils, rng.random(len(pupils)) < _logistic(odds + _level(odds, self.share))


def _scaled(values: pd.Series[float]) -> Floats:
    return np.asarray((values - values.mean()) / values.std(), dtype=np.float64)


def _logistic(odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-odds)))


def _level(odds: Floats, share: float) -> float:
    """Constant at which the mean chance is `share`, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _logistic(odds + middle).mean() > share else (middle, high)
    return 0.5 * (low + high)


def known_delta(pupils: pd.DataFrame) -> float:
    """The shift that is right under ``mnar``, in SDs of the score.

    Where the log odds of a missing score are linear in the score, scores that are missing have the distribution of
    those that are seen, tilted; of a normal one with variance v given all else, the mean moves by the coefficient
    times v.
    """
    prior, outcome = _scaled(pupils["prior"]), _scaled(pupils["outcome"])
    need = (pupils["sen_status"] == "K").to_numpy(np.float64)
    male = (pupils["sex"] == "M").to_numpy(np.float64)
    background = [pupils[name].to_numpy(np.float64) for name in ("fsm6", "eal", "idaci")]
    columns = np.column_stack([np.ones(len(pupils)), outcome, outcome**2, need, need * outcome, male, *background])
    residual = prior - columns @ np.linalg.lstsq(columns, prior, rcond=None)[0]
    return float(SELECTION * residual.var())


def check_missing(
    world: MissingWorld, rng: np.random.Generator, *, imputations: int = 10, draws: int = 300
) -> dict[str, dict[str, float]]:
    """Theta of one cohort against the truth: nothing missing, complete records, imputed, imputed and shifted rightly.

    Returns
    -------
    dict of method to dict
        Methods ``nothing missing``, ``complete records``, ``imputed`` and, under ``mnar``, ``shifted``. Of each:
        correlation, rmse (pupil SDs), cover (of 95 % intervals), cover_most (in the quarter of schools with the
        largest share of scores missing), width (pupil SDs), missing_bias: coefficient of the error on the share
        missing, per SD over schools and given theta; 0 is right; from_whole: RMS difference from the estimates with
        nothing missing (pupil SDs). `delta`: the shift.
    """
    cohort, pupils, gone = world.draw(rng)
    seed = int(rng.integers(2**31))
    plan = FitPlan(draws=draws, context=CONTEXT, prior_knots=_KNOTS, seed=seed)
    whole = complete_case_fits(
        read_incomplete(Cohort.from_pandas(pupils, _ROLES, outcome_range=(None, None), synthetic=True)),
        plan,
        np.random.default_rng(seed),
    )
    delta = known_delta(pupils) if world.mechanism == "mnar" else 0.0
    found = missing_prior(
        Cohort.from_pandas(
            pupils.assign(prior=pupils["prior"].astype(float).mask(gone)),
            _ROLES,
            outcome_range=(None, None),
            synthetic=True,
        ),
        context=CONTEXT,
        imputations=imputations,
        deltas=(0.0, delta),
        draws=draws,
        prior_knots=_KNOTS,
        seed=seed,
    )
    share = pd.Series(gone).groupby(pupils["school"].astype(str).to_numpy()).mean()
    methods = {"nothing missing": whole["labelled"].effects, "complete records": found.complete["labelled"]}
    methods["imputed"] = found.effects["labelled", 0.0]
    if delta != 0.0:
        methods["shifted"] = found.effects["labelled", delta]
    known = methods["nothing missing"]
    return {
        name: _against_truth(effects, known, cohort, share) | {"delta": delta if name == "shifted" else 0.0}
        for name, effects in methods.items()
    }


def _against_truth(
    effects: SchoolEffects, whole: SchoolEffects, cohort: SimulatedCohort, share: pd.Series[float]
) -> dict[str, float]:
    table = effects.summary("theta").set_index("school")
    sd = float(cohort.attrs["pupil_sd"])  # type: ignore[arg-type]
    truth = cohort.truth.astype({"school": str}).set_index("school")["theta"]
    theta = (truth - truth.mean()).loc[table.index].to_numpy() / sd
    mean, lower, upper = (table[name].to_numpy() / sd for name in ("mean", "lower", "upper"))
    missing = share.loc[table.index].to_numpy()
    inside = (lower <= theta) & (theta <= upper)
    apart = mean - whole.summary("theta").set_index("school").loc[table.index, "mean"].to_numpy() / sd
    columns = np.column_stack([np.ones(len(theta)), theta, (missing - missing.mean()) / missing.std()])
    return {
        "correlation": float(np.corrcoef(mean, theta)[0, 1]),
        "rmse": float(np.sqrt(np.mean((mean - theta) ** 2))),
        "cover": float(inside.mean()),
        "cover_most": float(inside[missing >= np.quantile(missing, 1.0 - _MOST)].mean()),
        "width": float((upper - lower).mean()),
        "from_whole": float(np.sqrt(np.mean(apart**2))),
        "missing_bias": float(np.linalg.lstsq(columns, mean - theta, rcond=None)[0][2]),
    }
