"""Recovery study: what every estimator makes of cohorts whose truth is known."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import SchoolEffects
from send_va.identification.labels import read_labels
from send_va.identification.need import Need, estimate_need
from send_va.identification.scores import Assumptions
from send_va.records.design_columns import Context
from send_va.records.reader import Cohort
from send_va.records.roles import Roles
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.records.simulator.scenarios import Scenario, find_scenario
from send_va.value_added.assumption_ranges import assumption_ranges
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import PupilDesign, pupil_design

Floats = NDArray[np.float64]
CONTEXT: Context = "cva"
# Scenarios in which everything the estimators assume is true. Their outcomes are not cut to the bounds of Attainment 8,
# which a Gaussian model does not know of; `bounded` is the first of them as pupils live it.
CORRECT = (
    "independent",
    "magnets",
    "lenient_better",
    "delta_zero",
    "leniency_with_u",
    "small_schools",
    "unequal_variance",
)
BOUNDED = "bounded"
# What each broken assumption is published as: the headline's intervals over these values should hold the truth.
RANGES: dict[str, dict[str, tuple[float, ...]]] = {
    "clustered_feeder_need": {"area_sorting_share": (0.0, 0.5, 1.0)},
    "feeder_need": {"feeder_sorting_share": (0.0, 0.26)},
    "noisy_labels": {"label_reliability": (1.0, 0.9, 0.8)},
}
SKEWED = ("skewed_need", "heavy_skew", "skewed_magnets")  # where a curve in severity is tried against the damage
LABEL_FREE_DRAWS = 8  # ``p0`` hangs on national coefficients only, which hardly vary between draws
_TAIL = 0.025
_DECILES = 10
ROLES = Roles(
    pupil="pupil",
    school="school",
    outcome="outcome",
    prior=("prior",),
    sen_status="sen_status",
    sen_status_entry="sen_status_entry",
    la="la",
    feeder="feeder",
    feeder_la="feeder_la",
    context=("C(sex)", "C(month_of_birth)", "fsm6", "eal", "C(ethnicity)", "idaci", "looked_after"),
)


@dataclass(frozen=True)
class Replicate:
    """One simulated cohort, estimated.

    Attributes
    ----------
    world : SimulatedCohort
    need : Need
    effects : dict of str to SchoolEffects
        By estimator.
    deltas : dict of str to float
        Coefficient of severity, in pupil SDs per SD of unexplained need.
    design : PupilDesign
    """

    world: SimulatedCohort
    need: Need
    effects: dict[str, SchoolEffects]
    deltas: dict[str, float]
    design: PupilDesign


@dataclass(frozen=True)
class _Known:
    """True scores in place of estimated ones: the oracle."""

    has_need: Floats
    severity: Floats
    n_draws: int = 0

    def plug_in(self) -> tuple[Floats, Floats | None]:
        return self.has_need, self.severity

    def draw(self, d: int) -> tuple[Floats, Floats | None]:
        raise IndexError(d)


def replicate(
    scenario: str,
    geography: str,
    seed: int,
    *,
    schools: int,
    draws: int = 300,
    identification_draws: int = 24,
    assumptions: Assumptions | None = None,
) -> Replicate:
    """Simulate one cohort and estimate theta with every estimator.

    Parameters
    ----------
    scenario, geography : str
        Names of the simulator.
    seed : int
    schools : int
    draws, identification_draws : int
        Draws of the school effects and of the identification parameters.
    assumptions : Assumptions, optional

    Returns
    -------
    Replicate
        Estimators ``labelled``, ``standardised``, ``entry``, ``label_free``, and ``oracle``, which knows need; where
        need is skewed also ``entry_curved``, ``entry`` with outcomes that bend with severity.
    """
    world = simulate(np.random.default_rng(seed), schools=schools, scenario=world_of(scenario), geography=geography)
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    profile = cohort.profile(5)
    context = context_columns(cohort, profile)
    need = estimate_need(
        read_labels(cohort, profile, context), seed=seed, draws=identification_draws, assumptions=assumptions
    )
    design = pupil_design(cohort, profile, context)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    labelled = fit_labelled(labelled_products(cohort, profile, context), CONTEXT, rng=rng, draws=draws)
    effects, deltas = {"labelled": labelled.effects}, {"labelled": float("nan")}
    truth = world.pupil_truth
    known = _Known(truth["has_need"].to_numpy(np.float64), truth["severity"].to_numpy(np.float64))
    tried: list[tuple[str, Any]] = [(name, need.scores(name)) for name in need.estimators]
    if scenario in SKEWED:
        tried.append(("entry_curved", need.scores("entry")))
    for name, scores in [*tried, ("oracle", known)]:
        fit = _fit(design, scores, name, rng, draws)
        effects[name] = fit.effects
        beta = fit.coefficients.set_index("term")["estimate"]
        deltas[name] = float(beta.get("severity", np.nan)) / float(world.attrs["pupil_sd"])  # type: ignore[arg-type]
    return Replicate(world, need, effects, deltas, design)


def world_of(scenario: str) -> Scenario:
    """Parameters of a scenario of the study.

    Examples
    --------
    >>> world_of("magnets").bounded, world_of("bounded").bounded, world_of("floor").bounded
    (False, True, True)
    """
    if scenario == BOUNDED:
        return find_scenario(CORRECT[0])
    return dataclasses.replace(find_scenario(scenario), bounded=scenario not in CORRECT)


def _fit(design: PupilDesign, scores: Any, name: str, rng: np.random.Generator, draws: int) -> Any:
    oracle = name == "oracle"
    few = LABEL_FREE_DRAWS if name == "label_free" and scores.n_draws > LABEL_FREE_DRAWS else None
    return fit_need(
        design,
        scores,
        "entry" if oracle or name == "entry_curved" else name,
        [CONTEXT],
        rng=rng,
        draws=draws,
        identification_draws=few,
        curved=name == "entry_curved",
        plug_in=oracle,
        workers=1,
    )[CONTEXT]


def scored(result: Replicate) -> pd.DataFrame:
    """One row per school and estimator: truth, estimate, interval, in pupil SDs.

    Returns
    -------
    DataFrame
        school, estimator, theta, mean, lower, upper (95 %), estimate and se (before shrinkage), leniency, intake_need,
        n_need, leniency_hat, intake_hat, reliability of intake need.
    """
    truth = result.world.truth.astype({"school": str}).set_index("school")
    sd = float(result.world.attrs["pupil_sd"])  # type: ignore[arg-type]
    table = result.need.schools.set_index("school")
    parts = []
    for name, effects in result.effects.items():
        draws = effects.draws("theta") / sd
        lower, upper = np.quantile(draws, [_TAIL, 1.0 - _TAIL], axis=0)
        unshrunken = effects.data[["estimate", "se"]].sel(measure="theta") / sd
        own = truth.loc[list(effects.schools)]
        theta = own["theta_sd"].to_numpy() - truth["theta_sd"].mean()
        parts.append(
            pd.DataFrame(
                {
                    "school": effects.schools,
                    "estimator": name,
                    "theta": theta,
                    "mean": draws.mean(axis=0),
                    "lower": lower,
                    "upper": upper,
                    "estimate": unshrunken["estimate"].to_numpy(),
                    "se": unshrunken["se"].to_numpy(),
                    "leniency": own["leniency"].to_numpy(),
                    "intake_need": own["intake_need"].to_numpy(),
                    "n_need": own["n_need"].to_numpy(),
                    "leniency_hat": table.loc[list(effects.schools), "leniency"].to_numpy(),
                    "intake_hat": table.loc[list(effects.schools), "intake_need"].to_numpy(),
                    "intake_reliability": table.loc[list(effects.schools), "intake_need_reliability"].to_numpy(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def measures(table: pd.DataFrame, deltas: dict[str, float]) -> pd.DataFrame:
    """Summarise one replicate: one row per estimator.

    Returns
    -------
    DataFrame
        estimator; correlation, rmse (pupil SDs), cover, width; leniency_bias and magnet_bias: coefficients of the error
        on leniency and intake need, each in SDs over schools, given theta; leniency_bias_unshrunken: the same of the
        estimate before shrinkage, weighted by its precision; delta; leniency_r, intake_r: correlations of
        estimated with true leniency and intake need; intake_reliability; cover_low: lowest cover over deciles of intake
        need, leniency and n_need.
    """
    rows = []
    for name, part in table.groupby("estimator", sort=False):
        error = (part["mean"] - part["theta"]).to_numpy()
        inside = ((part["lower"] <= part["theta"]) & (part["theta"] <= part["upper"])).to_numpy()
        bias = _biases(part, error, np.ones(len(part)))
        own = part[(part["se"] > 0.0) & part["estimate"].notna()]
        before = _biases(own, (own["estimate"] - own["theta"]).to_numpy(), own["se"].to_numpy() ** -2.0)
        rows.append(
            {
                "estimator": name,
                "correlation": _correlation(part["mean"], part["theta"]),
                "rmse": float(np.sqrt(np.mean(error**2))),
                "cover": float(inside.mean()),
                "width": float((part["upper"] - part["lower"]).mean()),
                "leniency_bias": bias["leniency"],
                "magnet_bias": bias["intake_need"],
                "leniency_bias_unshrunken": before["leniency"],
                "delta": deltas[str(name)],
                "leniency_r": _correlation(part["leniency_hat"], part["leniency"]),
                "intake_r": _correlation(part["intake_hat"], part["intake_need"]),
                "intake_reliability": float(part["intake_reliability"].mean()),
            }
        )
    return pd.DataFrame(rows)


def _correlation(a: pd.Series, b: pd.Series) -> float:
    if not (a.std() > 1e-9 and b.std() > 1e-9):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _biases(part: pd.DataFrame, error: Floats, weights: Floats) -> dict[str, float]:
    """Coefficients of the error per SD of leniency and of intake need, given theta; missing where they do not vary."""
    columns, names = [np.ones(len(part)), part["theta"].to_numpy()], []
    for name in ("leniency", "intake_need"):
        if part[name].std() > 1e-9:
            columns.append(((part[name] - part[name].mean()) / part[name].std()).to_numpy())
            names.append(name)
    root = np.sqrt(weights)
    beta = np.linalg.lstsq(root[:, None] * np.column_stack(columns), root * error, rcond=None)[0]
    found = dict(zip(names, beta[2:].tolist(), strict=True))
    return {name: found.get(name, float("nan")) for name in ("leniency", "intake_need")}


def variance_ratios(world: SimulatedCohort, need: Need) -> dict[str, float]:
    """Estimated variances over those realised in the cohort, at the support threshold; 1 is right.

    Returns
    -------
    dict
        feeder, intake, la_entry, school, la_now; those that are zero in the scenario are left out.
    """
    fits = [(need.entry_fit, {"feeder": "feeder", "school": "intake", "la": "la_entry"})]
    if need.now_fit is not None:
        fits.append((need.now_fit, {"school": "school", "la": "la_now"}))  # type: ignore[arg-type]
    met = world.feeders[world.feeders["n_pupils"] > 0]
    realised = {
        "feeder": met["leniency"].var(),
        "intake": world.truth["intake_need"].var(),
        "la_entry": world.las["leniency_entry"].var(),
        "school": world.truth["leniency"].var(),
        "la_now": world.las["leniency"].var(),
    }
    return {
        names[name]: float(cov[0, 0]) / float(realised[names[name]])
        for fit, names in fits
        for name, cov in zip(fit.names, fit.solution.covariances, strict=True)
        if realised[names[name]] > 1e-9
    }


def variance_study(pupils_per_school: float, seed: int, schools: int) -> pd.DataFrame:
    """Variances of leniency and intake need estimated in one cohort over those realised.

    Returns
    -------
    DataFrame
        component, ratio (1 is right), pupils_per_school, pupils_per_feeder, seed. The authority of every feeder is
        recorded here.
    """
    world = simulate(
        np.random.default_rng(seed),
        schools=schools,
        scenario=world_of("lenient_better"),  # every body differs
        pupils_per_school=pupils_per_school,
    )
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    profile = cohort.profile(5)
    need = estimate_need(read_labels(cohort, profile, context_columns(cohort, profile)), seed=seed, draws=0)
    ratios = variance_ratios(world, need)
    each = len(world.pupils) / int((world.feeders["n_pupils"] > 0).sum())
    return pd.DataFrame({"component": list(ratios), "ratio": list(ratios.values())}).assign(
        pupils_per_school=pupils_per_school, pupils_per_feeder=each, seed=seed
    )


def cover_by_decile(table: pd.DataFrame) -> pd.DataFrame:
    """Cover by deciles of what a measure must not depend on, over all replicates given.

    Returns
    -------
    DataFrame
        estimator, by (``intake_need``, ``leniency``, ``n_need``), decile (0 lowest), schools, cover, cover_se.
    """
    parts = []
    inside = (table["lower"] <= table["theta"]) & (table["theta"] <= table["upper"])
    for by in ("intake_need", "leniency", "n_need"):
        if table[by].std() < 1e-9:
            continue
        decile = ((table[by].rank(method="first") - 1) * _DECILES // len(table)).astype(int).rename("decile")
        grouped = inside.rename("cover").groupby([table["estimator"], decile])
        cover = grouped.agg(cover="mean", schools="size").reset_index()
        cover["cover_se"] = np.sqrt(cover["cover"] * (1.0 - cover["cover"]) / cover["schools"])
        parts.append(cover.assign(by=by)[["estimator", "by", "decile", "schools", "cover", "cover_se"]])
    return pd.concat(parts, ignore_index=True)


def summarise(replicates: pd.DataFrame) -> pd.DataFrame:
    """Means over replicates with their Monte-Carlo standard errors, and RMSE paired with `labelled`.

    Parameters
    ----------
    replicates : DataFrame
        Rows of :func:`measures` with columns scenario, geography and seed.

    Returns
    -------
    DataFrame
        One row per scenario, geography and estimator; every measure followed by ``<measure>_se``; ``rmse_ratio``: RMSE
        over that of `labelled` in the same replicates, below 1 is better.
    """
    keys = ["scenario", "geography", "estimator"]
    base = replicates[replicates["estimator"] == "labelled"].set_index(["scenario", "geography", "seed"])["rmse"]
    paired = replicates.join(base.rename("rmse_labelled"), on=["scenario", "geography", "seed"])
    paired["rmse_difference"] = paired["rmse"] - paired["rmse_labelled"]
    values = [c for c in paired if c not in (*keys, "seed", "rmse_labelled")]
    grouped = paired.groupby(keys, sort=False)
    mean = grouped[values].mean()
    se = grouped[values].std(ddof=1).div(np.sqrt(grouped.size()), axis=0)
    out = pd.concat([mean, se.add_suffix("_se")], axis=1)
    out.insert(0, "replicates", grouped.size())
    out["rmse_ratio"] = out["rmse"] / (out["rmse"] - out["rmse_difference"])
    summary: pd.DataFrame = out.reset_index()
    return summary


def cell(scenario: str, geography: str, seed: int, schools: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One replicate of a scenario and geography: measures by estimator, and the scored schools.

    Returns
    -------
    DataFrame
        :func:`measures` with ``variance_*`` (:func:`variance_ratios`), ``range_cover`` (of the headline, where the
        scenario breaks an assumption that is published as a range), scenario, geography, seed.
    DataFrame
        :func:`scored` with scenario, geography, seed.
    """
    result = replicate(scenario, geography, seed, schools=schools)
    table = scored(result)
    found = measures(table, result.deltas)
    for name, value in variance_ratios(result.world, result.need).items():
        found[f"variance_{name}"] = value
    found["range_cover"] = np.nan
    if scenario in RANGES:
        found.loc[found["estimator"] == "entry", "range_cover"] = range_cover(result, RANGES[scenario])
    for part in (found, table):
        part["scenario"], part["geography"], part["seed"] = scenario, geography, seed
    return found, table


def range_cover(result: Replicate, ranges: dict[str, tuple[float, ...]]) -> float:
    """Share of true theta inside the union of the headline's intervals over ranges of assumptions."""
    table = assumption_ranges(
        result.need, result.design, {CONTEXT: result.effects["entry"]}, "entry", ranges, seed=1
    ).groupby("school", sort=False)
    reach = pd.DataFrame({"lower": table["lower"].min(), "upper": table["upper"].max()})
    truth = result.world.truth.astype({"school": str}).set_index("school")
    theta = (truth["theta"] - truth["theta"].mean()).loc[reach.index]
    return float(((reach["lower"] <= theta) & (theta <= reach["upper"])).mean())
