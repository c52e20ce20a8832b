"""The joint model of need, labels and outcome in PyMC, every prior proper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from send_va.validation.joint_likelihood import LabelData, PupilTerms, pupil_log_likelihood
from send_va.validation.joint_records import JointRecords

Tensor = Any  # of PyTensor, which has no types
EFFECTS = ("u", "gap", "slope")
LOG_LIKELIHOOD = "log_likelihood"  # of all labels and outcomes, given effects of schools
CENTRED_FROM = 60  # pupils a school, from which its level is known better than the spread between schools says


@dataclass(frozen=True)
class Priors:
    """Scales of the priors; need in SDs of its unexplained part, outcomes in pupil SDs.

    Attributes
    ----------
    direction : float
        SD of the coefficient of one uncorrelated direction of background, in both equations: prior attainment, the
        strongest, moves the outcome by about .7 pupil SDs.
    tau, tau_sd : tuple of float and float
        National support thresholds, before transfer and now: labelled shares of 2 to 50 % before. The threshold now is
        on a scale that adds what a label before is worth.
    apart, apart_now, apart_log_sd : float
        Median distance of the EHCP threshold from that of support and its log SD: a few per cent have an EHCP.
    kappa, kappa_sd : float
        A label now follows need: not at all is two SDs away.
    rho, rho_sd : tuple of float and float
        What a label before is worth now: most are kept, which needs 1 to 3.
    leniency_sd : float
        Half-normal, of feeders and schools; published spreads give .5.
    la_sd : float
        Half-normal, of authorities: differ less than schools (Hutchinson 2021).
    intake_sd : float
        Half-normal: magnets of .35 are strong ones.
    delta_sd, mu_sd : float
        About zero: labelled pupils are .3 below others like them (Crawford & Vignoles 2010).
    effect_sd : tuple of float
        Half-normal, of `u`, `gap` and the slope: value-added differs by .2 to .4 between schools.
    concentration : float
        Of an LKJ prior on correlations of effects, and of a symmetric beta one on the correlation of leniency at the
        two thresholds: 1 is flat, 2 doubts correlations near one.
    residual, residual_log_sd : float
        Median residual SD and its log SD.
    level_sd : float
        SD of the mean outcome without need, which is near zero by construction.
    """

    direction: float = 0.5
    tau: tuple[float, float] = (1.0, 1.5)
    tau_sd: float = 0.5
    apart: float = 1.0
    apart_now: float = 1.5
    apart_log_sd: float = 0.3
    kappa: float = 0.7
    kappa_sd: float = 0.35
    rho: tuple[float, float] = (1.7, 2.8)
    rho_sd: float = 0.7
    leniency_sd: float = 0.5
    la_sd: float = 0.3
    intake_sd: float = 0.3
    delta_sd: float = 0.3
    mu_sd: float = 0.3
    effect_sd: tuple[float, float, float] = (0.3, 0.3, 0.15)
    concentration: float = 2.0
    residual: float = 0.65
    residual_log_sd: float = 0.25
    level_sd: float = 0.5


def joint_model(
    records: JointRecords, *, priors: Priors | None = None, centred: bool | None = None, any_labels: bool = False
) -> pm.Model:
    """Build the joint model of one region.

    Need is ``x'gamma + m_school + e``, ``e`` standard normal. The label before transfer compares it, plus the leniency
    of feeder and authority, with national thresholds; the label now compares ``kappa * need + rho[label before]`` plus
    the leniency of school and authority plus noise with others. The outcome is ``level_school + x'beta + delta *
    (m_school + e) + N * (mu + gap_school) + slope_school * prior + residual``, ``N`` saying whether need is above the
    national support threshold, and the residual's variance depending on ``N``. ``e`` is integrated out.

    Parameters
    ----------
    records : JointRecords
    priors : Priors, optional
    centred : bool, optional
        Sample the levels of schools themselves, not standardised ones: mixes well where schools are large. By default
        so from a median of 60 pupils a school. The model is the same.
    any_labels : bool
        Lay the likelihood out so that labels and outcomes can be replaced without compiling again, at twice the work.

    Returns
    -------
    pymc.Model
        ``theta``, ``u`` and ``gap`` by school, in pupil SDs, and the ``log_likelihood``. Data ``outcome``, ``entry``
        and ``now`` can be replaced.

    Examples
    --------
    >>> from send_va.validation.joint_comparison import region
    >>> world = region("independent", seed=1, schools=12, pupils_per_school=30)
    >>> with joint_model(world.records()) as model:
    ...     pass
    >>> model.named_vars_to_dims["theta"]
    ('school',)
    """
    priors = priors or Priors()
    if centred is None:
        centred = float(np.median(np.bincount(records.school))) >= CENTRED_FROM
    with pm.Model(coords=_coords(records)) as model:
        labels = _label_data(records, any_labels)
        outcome = pm.Data("outcome", records.outcome, dims="pupil")
        needed = _need(records, priors)
        before = _before(records, priors, needed)
        index_now = _now(records, priors, needed, labels)
        terms = _outcome(records, priors, needed, before, index_now, centred)
        by_pupil = pupil_log_likelihood(outcome, labels, terms, records.levels)
        pm.Deterministic(LOG_LIKELIHOOD, by_pupil.sum())
        pm.Potential("pupils", by_pupil)
    return model


def _coords(records: JointRecords) -> dict[str, Any]:
    return {
        "pupil": np.arange(len(records.outcome)),
        "school": list(records.schools),
        "feeder": list(records.feeders),
        "la_entry": list(records.las_entry),
        "la_now": list(records.las_now),
        "threshold": list(records.thresholds),
        "need_direction": np.arange(records.x_need.shape[1]),
        "outcome_direction": np.arange(records.x_outcome.shape[1]),
        "effect": list(EFFECTS),
        "need": ["without", "with"],
    }


def _label_data(records: JointRecords, any_labels: bool) -> LabelData:
    data = LabelData.of(records.entry, records.now, records.levels, any_labels=any_labels)
    return LabelData(
        pm.Data("entry", data.entry, dims="pupil"),
        pm.Data("now", data.now, dims="pupil"),
        *(pt.as_tensor(rows) for rows in (data.bounded, data.between, data.bounded_between)),
    )


@dataclass(frozen=True)
class _Need:
    intake: Tensor  # by school
    base: Tensor  # by pupil
    kappa: Tensor


def _need(records: JointRecords, priors: Priors) -> _Need:
    gamma = pm.Normal("gamma", 0.0, priors.direction, dims="need_direction")
    sd = pm.HalfNormal("intake_sd", priors.intake_sd)
    intake = pm.Deterministic("intake", sd * pm.Normal("intake_z", dims="school"), dims="school")
    base = pt.dot(records.x_need, gamma) + intake[records.school]
    return _Need(intake, base, pm.Normal("kappa", priors.kappa, priors.kappa_sd))


def _thresholds(name: str, records: JointRecords, middle: float, apart: float, priors: Priors) -> Tensor:
    """National thresholds, the EHCP one above that of support."""
    support = pm.Normal(f"{name}_support", middle, priors.tau_sd)
    if records.levels == 1:
        return pm.Deterministic(name, pt.stack([support]), dims="threshold")
    distance = pm.LogNormal(f"{name}_apart", np.log(apart), priors.apart_log_sd)
    return pm.Deterministic(name, pt.stack([support, support + distance]), dims="threshold")


def _leniency(name: str, dim: str, scale: float, records: JointRecords, priors: Priors) -> Tensor:
    """Leniency of bodies at each threshold, (bodies, d): normal, correlated, not centred."""
    sd = pm.HalfNormal(f"{name}_sd", scale, dims="threshold")
    z = pm.Normal(f"{name}_z", dims=(dim, "threshold"))
    if records.levels == 2:
        r = _correlation(f"{name}_correlation", priors.concentration)
        z = pt.stack([z[:, 0], r * z[:, 0] + pt.sqrt(1.0 - r**2) * z[:, 1]], axis=1)
    return pm.Deterministic(name, sd * z, dims=(dim, "threshold"))


def _correlation(name: str, concentration: float) -> Tensor:
    share = pm.Beta(f"{name}_share", concentration, concentration)
    return pm.Deterministic(name, 2.0 * share - 1.0)


def _before(records: JointRecords, priors: Priors, need: _Need) -> tuple[Tensor, Tensor]:
    """National threshold of support, and what unexplained need is compared with, (n, d)."""
    tau = _thresholds("tau", records, priors.tau[0], priors.apart, priors)
    lenient = _leniency("feeder_leniency", "feeder", priors.leniency_sd, records, priors)[records.feeder]
    if records.several_las[0]:
        lenient += _leniency("la_entry_leniency", "la_entry", priors.la_sd, records, priors)[records.la_entry]
    return tau[0], tau - need.base[:, None] - lenient


def _now(records: JointRecords, priors: Priors, need: _Need, labels: LabelData) -> Tensor:
    """What is added to ``kappa * e`` now, (n, d)."""
    tau = _thresholds("tau_now", records, priors.tau[1], priors.apart_now, priors)
    rho = pm.Normal("rho", np.array(priors.rho[: records.levels]), priors.rho_sd, dims="threshold")
    kept = sum(pt.eq(labels.entry, level + 1) * rho[level] for level in range(records.levels))
    lenient = _leniency("school_leniency", "school", priors.leniency_sd, records, priors)[records.school]
    if records.several_las[1]:
        lenient += _leniency("la_now_leniency", "la_now", priors.la_sd, records, priors)[records.la_now]
    return (need.kappa * need.base + kept)[:, None] + lenient - tau


def _effects(records: JointRecords, priors: Priors, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Level, gap and slope of schools: an LKJ prior by canonical partial correlations (Lewandowski et al. 2009)."""
    sd = pm.HalfNormal("effect_sd", np.array(priors.effect_sd), dims="effect")
    first = priors.concentration + 0.5  # of three effects
    with_u = _correlation("u_gap_correlation", first), _correlation("u_slope_correlation", first)
    rest = _correlation("gap_slope_partial_correlation", priors.concentration)
    mean = pm.Normal("level", 0.0, priors.level_sd)
    if centred:
        level = pm.Normal("school_level", mean, sd[0], dims="school")
        z = (level - mean) / sd[0]
    else:
        z = pm.Normal("u_z", dims="school")
        level = mean + sd[0] * z
    z_gap, z_slope = pm.Normal("gap_z", dims="school"), pm.Normal("slope_z", dims="school")
    left = [pt.sqrt(1.0 - r**2) for r in with_u]
    gap = sd[1] * (with_u[0] * z + left[0] * z_gap)
    slope = sd[2] * (with_u[1] * z + left[1] * (rest * z_gap + pt.sqrt(1.0 - rest**2) * z_slope))
    u = pm.Deterministic("u", sd[0] * z, dims="school")
    pm.Deterministic("gap", gap, dims="school")
    pm.Deterministic("slope", slope, dims="school")
    pm.Deterministic("theta", u + gap, dims="school")
    return level, gap, slope


def _outcome(
    records: JointRecords,
    priors: Priors,
    need: _Need,
    before: tuple[Tensor, Tensor],
    index_now: Tensor,
    centred: bool,
) -> PupilTerms:
    beta = pm.Normal("beta", 0.0, priors.direction, dims="outcome_direction")
    delta = pm.Normal("delta", 0.0, priors.delta_sd)
    mu = pm.Normal("mu", 0.0, priors.mu_sd)
    sigma = pm.LogNormal("sigma", np.log(priors.residual), priors.residual_log_sd, dims="need")
    level, gap, slope = _effects(records, priors, centred)
    by_school = pt.stack([level + delta * need.intake, mu + gap, slope], axis=1)[records.school]
    without = pt.dot(records.x_outcome, beta) + by_school[:, 0] + by_school[:, 2] * records.prior
    return PupilTerms(
        base=need.base,
        tau=before[0],
        cuts=before[1],
        index_now=index_now,
        kappa=need.kappa,
        without=without,
        with_need=without + by_school[:, 1],
        delta=delta,
        sigma=sigma,
    )
