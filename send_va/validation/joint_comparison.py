"""The cut against the joint model, on simulated regions whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.identification.labels import LabelRecords, read_labels
from send_va.identification.need import Need, estimate_need
from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.validation.joint_posterior import JointPosterior
from send_va.validation.joint_records import JointRecords, joint_records
from send_va.validation.recovery import CONTEXT, ROLES, world_of
from send_va.value_added.design import context_columns
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A simulated region: truth, labels and design."""

    world: SimulatedCohort
    labels: LabelRecords
    design: PupilDesign

    def records(self, prior_reference: float | None = None) -> JointRecords:
        """What the joint model reads; effects are stated at the true mean prior attainment of pupils with need."""
        reference = float(self.world.attrs["reference_prior"]) if prior_reference is None else prior_reference  # type: ignore[arg-type]
        return joint_records(self.labels, self.design, CONTEXT, prior_reference=reference)


def region(scenario: str, *, seed: int, schools: int, pupils_per_school: float | None = None) -> Region:
    """Simulate a region.

    Parameters
    ----------
    scenario : str
        Name of the simulator.
    seed, schools : int
    pupils_per_school : float, optional
        Mean; 174.5 by default.

    Examples
    --------
    >>> len(region("magnets", seed=1, schools=12, pupils_per_school=20).labels.schools)
    12
    """
    world = simulate(
        np.random.default_rng(seed),
        schools=schools,
        scenario=world_of(scenario),
        pupils_per_school=pupils_per_school,
    )
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    profile = cohort.profile(5)
    context = context_columns(cohort, profile)
    return Region(world, read_labels(cohort, profile, context), pupil_design(cohort, profile, context))


@dataclass(frozen=True)
class Cut:
    """The cut estimator of a region: identification first, value-added given its draws."""

    need: Need
    fit: ValueAddedFit

    @property
    def prior_reference(self) -> float:
        """Prior attainment at which its effects are stated."""
        return float(self.fit.effects.attrs["prior_reference"])

    @property
    def delta(self) -> float:
        """Coefficient of severity, in pupil SDs."""
        found = self.fit.coefficients.set_index("term")["estimate"]
        return float(found["severity"]) / float(self.fit.effects.attrs["outcome_sd"])


def fit_cut(of: Region, *, seed: int, draws: int = 1000, identification_draws: int = 100) -> Cut:
    """Fit ``standardised``, the estimator that uses both labels, in the context that the joint model has.

    Parameters
    ----------
    of : Region
    seed : int
    draws, identification_draws : int
        Of school effects, and of the identification parameters.
    """
    need = estimate_need(of.labels, seed=seed, draws=identification_draws)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    name = "standardised"
    return Cut(need, fit_need(of.design, need.scores(name), name, [CONTEXT], rng=rng, draws=draws, workers=1)[CONTEXT])


def starting_values(of: Region, records: JointRecords, need: Need) -> dict[str, Floats]:
    """Where chains start: the cut's estimates of thresholds and background, and a regression of the outcome."""
    parameters, n = need.parameters, len(records.outcome)
    explained = (of.labels.x @ parameters.gamma)[of.design.order]
    start = {
        "gamma": records.x_need.T @ explained / n,
        "beta": records.x_outcome.T @ records.outcome / n,
        "tau_support": parameters.tau[0],
        "delta": np.float64(-0.2),
    }
    if need.now_fit is not None:
        start |= {
            "kappa": np.float64(parameters.kappa),
            "rho": parameters.rho,
            "tau_now_support": parameters.tau_now[0],
        }
    for name, values in (("tau", parameters.tau), ("tau_now", parameters.tau_now)):
        if len(values) > 1:
            start[f"{name}_apart"] = np.maximum(np.diff(values)[0], 0.1)
    return start


def by_school(of: Region, cut: Cut, joint: JointPosterior) -> pd.DataFrame:
    """One row per school: theta by the cut and by the joint model beside the truth, in pupil SDs.

    Returns
    -------
    DataFrame
        school, theta (truth, against the average school), then mean, sd, lower and upper (95 %) of ``cut`` and of
        ``joint``; leniency, intake_need, n_need of the truth.
    """
    truth = of.world.truth.astype({"school": str}).set_index("school").loc[list(cut.fit.effects.schools)]
    table = truth[["leniency", "intake_need", "n_need"]].copy()
    table.insert(0, "theta", truth["theta_sd"] - truth["theta_sd"].mean())
    draws = {
        "cut": cut.fit.effects.draws("theta") / float(cut.fit.effects.attrs["outcome_sd"]),
        "joint": joint.flat("theta"),
    }
    for name, values in draws.items():
        table[f"mean_{name}"], table[f"sd_{name}"] = values.mean(axis=0), values.std(axis=0, ddof=1)
        table[f"lower_{name}"], table[f"upper_{name}"] = np.quantile(values, [0.025, 0.975], axis=0)
    return table.reset_index()


def compared(table: pd.DataFrame) -> dict[str, float]:
    """Where joint and cut differ, of a table of :func:`by_school`.

    Returns
    -------
    dict
        ``correlation`` of posterior means; ``sd_ratio``, median of the SD of the joint over that of the cut;
        ``largest_difference`` of means in pupil SDs and ``largest_share`` of the cut's SD; ``mean_difference``;
        ``rmse_``, ``cover_`` and ``truth_r_`` of both; ``difference_by_leniency`` and ``difference_by_intake``: slopes
        of the difference on the truth's, per SD over schools, 0 where these do not vary.

    Examples
    --------
    >>> made = pd.DataFrame({"theta": [0.0, 0.2, -0.2], "leniency": 0.0, "intake_need": [0.1, 0.0, -0.1]})
    >>> for name, shift in (("cut", 0.0), ("joint", 0.01)):
    ...     made[f"mean_{name}"], made[f"sd_{name}"] = made["theta"] + shift, 0.1
    ...     made[f"lower_{name}"], made[f"upper_{name}"] = made["theta"] - 0.2, made["theta"] + 0.2
    >>> found = compared(made)
    >>> round(found["largest_difference"], 3), round(found["correlation"], 3), found["cover_joint"]
    (0.01, 1.0, 1.0)
    """
    difference = (table["mean_joint"] - table["mean_cut"]).to_numpy()
    largest = int(np.abs(difference).argmax())
    out = {
        "schools": float(len(table)),
        "correlation": _correlation(table["mean_joint"], table["mean_cut"]),
        "sd_ratio": float((table["sd_joint"] / table["sd_cut"]).median()),
        "largest_difference": float(abs(difference[largest])),
        "largest_share": float((np.abs(difference) / table["sd_cut"]).max()),
        "mean_difference": float(difference.mean()),
    }
    for name in ("cut", "joint"):
        error = table[f"mean_{name}"] - table["theta"]
        inside = (table[f"lower_{name}"] <= table["theta"]) & (table["theta"] <= table[f"upper_{name}"])
        out |= {
            f"rmse_{name}": float(np.sqrt((error**2).mean())),
            f"cover_{name}": float(inside.mean()),
            f"truth_r_{name}": _correlation(table[f"mean_{name}"], table["theta"]),
        }
    for name, column in (("leniency", "leniency"), ("intake", "intake_need")):
        spread = table[column].std()
        by = np.cov(difference, table[column])[0, 1] / spread if spread > 1e-9 else 0.0
        out[f"difference_by_{name}"] = float(by)
    return out


def _correlation(a: pd.Series, b: pd.Series) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def parameters_of_the_cut(cut: Cut) -> Mapping[str, float]:
    """National parameters of the cut by the names of the joint model, as far as both have them; pupil SDs."""
    parameters, fit = cut.need.parameters, cut.need.now_fit
    out = {"delta": cut.delta, "kappa": parameters.kappa, "intake_sd": float(np.sqrt(parameters.intake_variance))}
    for c, threshold in enumerate(("support", "ehcp")[: len(parameters.tau)]):
        out[f"tau[{threshold}]"] = float(parameters.tau[c])
        if fit is not None:
            out[f"tau_now[{threshold}]"] = float(parameters.tau_now[c])
            out[f"rho[{threshold}]"] = float(parameters.rho[c])
    entry = cut.need.entry_fit
    found = {"feeder": "feeder_leniency_sd", "la": "la_entry_leniency_sd"}
    for name, covariance in zip(entry.names, entry.solution.covariances, strict=True):
        if name in found:
            out[f"{found[name]}[support]"] = float(np.sqrt(covariance[0, 0]))
    if fit is not None:
        for name, covariance in zip(fit.names, fit.solution.covariances, strict=True):
            out[f"{name}_leniency_sd[support]".replace("la_", "la_now_")] = float(np.sqrt(covariance[0, 0]))
    return out
