"""Simulation-based calibration of the joint model: ranks of true parameters among their posterior draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pymc as pm
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from pytensor.compile.mode import Mode

from send_va.errors import InputError
from send_va.validation.joint_model import LOG_LIKELIHOOD, joint_model
from send_va.validation.joint_posterior import compiled, national, sampled
from send_va.validation.joint_records import JointRecords, uncorrelated

Floats = NDArray[np.float64]
SCHOOLS_RANKED = 3  # schools whose theta and intake need are ranked: all are alike a priori
FEWEST_RANKS = 10


@dataclass(frozen=True)
class JointRanks:
    """Ranks of the truth of many simulated cohorts.

    Attributes
    ----------
    ranks : integer array, shape (simulations, parameters)
        How many of `draws` posterior draws lie below the truth, 0 to `draws`; uniform where everything is right.
    names : tuple of str
    draws : int
        Nearly independent posterior draws of each simulation, L.
    divergences : integer array, shape (simulations,)
    effective : array, shape (simulations,)
        Smallest bulk effective sample size over what is ranked, of all draws before thinning.
    seconds : float
        Of all fits.
    """

    ranks: NDArray[np.int64]
    names: tuple[str, ...]
    draws: int
    divergences: NDArray[np.int64]
    effective: Floats
    seconds: float

    @property
    def normalised(self) -> Floats:
        """Ranks between 0 and 1, (simulations, parameters)."""
        return np.asarray((self.ranks + 0.5) / (self.draws + 1))


def calibration_records(
    rng: np.random.Generator, *, schools: int = 12, pupils: int = 25, feeders: int = 20, covariates: int = 2
) -> JointRecords:
    """A small cohort without labels and outcomes: memberships and background only, one authority.

    Parameters
    ----------
    rng : numpy.random.Generator
    schools, pupils, feeders : int
        Pupils of each school; each comes from any feeder.
    covariates : int
        Of need, and of the outcome.

    Examples
    --------
    >>> calibration_records(np.random.default_rng(1)).x_need.shape
    (300, 2)
    """
    n = schools * pupils
    x = uncorrelated(rng.standard_normal((n, covariates)))
    nobody = np.zeros(n, dtype=np.intp)
    return JointRecords(
        x_need=x,
        x_outcome=x,
        prior=x[:, 0],
        outcome=np.zeros(n),
        outcome_sd=1.0,
        school=np.repeat(np.arange(schools), pupils),
        feeder=rng.integers(0, feeders, n),
        la_entry=nobody,
        la_now=nobody,
        entry=nobody,
        now=nobody,
        schools=tuple(f"school {j + 1}" for j in range(schools)),
        feeders=tuple(f"feeder {f + 1}" for f in range(feeders)),
        las_entry=("authority",),
        las_now=("authority",),
        levels=2,
    )


def simulate_from(records: JointRecords, parameters: Mapping[str, Floats], rng: np.random.Generator) -> JointRecords:
    """Labels and outcomes of the joint model itself, at given parameters.

    Parameters
    ----------
    records : JointRecords
        Memberships and background; its labels and outcomes are replaced.
    parameters : mapping of str to array
        By the names of the model.
    rng : numpy.random.Generator

    Returns
    -------
    JointRecords
    """
    of, n, d = parameters, len(records.school), records.levels
    e = rng.standard_normal(n)
    need = records.x_need @ of["gamma"] + of["intake"][records.school] + e
    lenient = of["feeder_leniency"][records.feeder]
    if records.several_las[0]:
        lenient = lenient + of["la_entry_leniency"][records.la_entry]
    entry = _levels(need[:, None] + lenient - of["tau"])
    index = of["kappa"] * need + np.concatenate([[0.0], of["rho"]])[entry] + rng.standard_normal(n)
    lenient = of["school_leniency"][records.school]
    if records.several_las[1]:
        lenient = lenient + of["la_now_leniency"][records.la_now]
    now = _levels(index[:, None] + lenient - of["tau_now"])
    above = (need > of["tau"][0]).astype(np.intp)
    mean = (
        of["level"]
        + records.x_outcome @ of["beta"]
        + of["delta"] * (of["intake"][records.school] + e)
        + of["u"][records.school]
        + above * (of["mu"] + of["gap"][records.school])
        + of["slope"][records.school] * records.prior
    )
    outcome = mean + of["sigma"][above] * rng.standard_normal(n)
    return replace(records, entry=np.minimum(entry, d), now=np.minimum(now, d), outcome=outcome)


def _levels(margins: Floats) -> NDArray[np.intp]:
    """Thresholds passed one after the other, from margins (n, d)."""
    return np.asarray(np.logical_and.accumulate(margins > 0.0, axis=1).sum(axis=1), dtype=np.intp)


def prior_draws(model: pm.Model, rng: np.random.Generator, draws: int) -> dict[str, Floats]:
    """Draws of everything the model names from its prior, each (draws, ...); of the log-likelihood there are none."""
    named = [variable.name for variable in (*model.free_RVs, *model.deterministics) if variable.name != LOG_LIKELIHOOD]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the likelihood is no part of it
        drawn = pm.sample_prior_predictive(
            draws=draws,
            model=model,
            var_names=named,
            random_seed=int(rng.integers(2**31)),
            compile_kwargs={"mode": Mode("py", "None")},  # a few small draws: compiling would take longer
        )["prior"]
    return {str(name): np.asarray(drawn[name].to_numpy(), dtype=np.float64)[0] for name in drawn.data_vars}


def joint_ranks(
    rng: np.random.Generator,
    *,
    simulations: int = 100,
    draws: int = 99,
    thin: int = 10,
    tune: int = 300,
    records: JointRecords | None = None,
    progress: Callable[[int], None] | None = None,
) -> JointRanks:
    """Draw parameters from the prior, simulate the joint model, fit it, and rank the truth; many times.

    The model is compiled once and given the data of every simulation. Beside parameters the log-likelihood of labels
    and outcomes is ranked, which sees a posterior that ignores part of them.

    Parameters
    ----------
    rng : numpy.random.Generator
        Same generator, same ranks.
    simulations : int
    draws, thin, tune : int
        Posterior draws kept of each simulation, every `thin`-th one so that they are nearly independent, after `tune`
        steps of warm-up; one chain.
    records : JointRecords, optional
        Memberships and background; 12 schools of 25 pupils by default.
    progress : callable, optional
        Called with the number of simulations done.

    Returns
    -------
    JointRanks

    Raises
    ------
    InputError
        Fewer than one simulation, or than ten draws.
    NotSupportedError
        nutpie or JAX is not installed.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari & Gelman (2018), doi:10.48550/arXiv.1804.06788.
    Sailynoja, Burkner & Vehtari (2022), doi:10.1007/s11222-022-10090-6 (simultaneous bands).
    Modrak et al. (2025), doi:10.1214/23-BA1404 (ranking the log-likelihood).
    """
    if simulations < 1 or draws < FEWEST_RANKS or thin < 1:
        raise InputError(f"{simulations} simulations of {draws} draws, every {thin}th: ask for 1, 10 and 1 at least")
    records = calibration_records(rng.spawn(1)[0]) if records is None else records
    model = joint_model(records, centred=False, any_labels=True)
    ready = compiled(model, replaceable=True)
    truths = prior_draws(model, rng.spawn(1)[0], simulations)
    likelihood = _log_likelihood_of(model)
    ranks: list[list[int]] = []
    divergences: list[int] = []
    effective: list[float] = []
    names: tuple[str, ...] = ()
    seconds = 0.0
    for done, own in enumerate(rng.spawn(simulations)):
        truth = {name: values[done] for name, values in truths.items()}
        made = simulate_from(records, truth, own)
        data: dict[str, NDArray[Any]] = {"outcome": made.outcome, "entry": made.entry, "now": made.now}
        truth[LOG_LIKELIHOOD] = likelihood(truth, data)
        fit = sampled(ready.with_data(**data), own, draws=draws * thin, tune=tune, chains=1, progress=False)
        known, drawn = _stated(truth), _stated(fit.draws)
        names = tuple(known)
        ranks.append([int((drawn[name][:, ::thin] < known[name]).sum()) for name in names])
        divergences.append(fit.divergences)
        effective.append(min(float(array_stats.ess(values, method="bulk")) for values in drawn.values()))
        seconds += fit.seconds
        if progress is not None:
            progress(done + 1)
    return JointRanks(
        np.array(ranks, dtype=np.int64), names, draws, np.array(divergences), np.array(effective), seconds
    )


def _log_likelihood_of(model: pm.Model) -> Callable[[Mapping[str, Floats], Mapping[str, NDArray[Any]]], Floats]:
    """What computes the model's log-likelihood at given parameters and data, in NumPy and not in JAX."""
    free = list(model.free_RVs)
    compute = model.compile_fn(model[LOG_LIKELIHOOD], inputs=free, point_fn=False, mode=Mode("py", "fast_compile"))

    def at(parameters: Mapping[str, Floats], data: Mapping[str, NDArray[Any]]) -> Floats:
        with model:
            pm.set_data(data)
        return np.asarray(compute(*(parameters[str(variable.name)] for variable in free)), dtype=np.float64)

    return at


def _stated(values: Mapping[str, Floats]) -> dict[str, Floats]:
    """What is ranked, by name."""
    out = national(values) | {LOG_LIKELIHOOD: values[LOG_LIKELIHOOD]}
    for name in ("gamma", "beta"):
        out[f"{name}[0]"] = values[name][..., 0]
    for name in ("theta", "intake"):
        out |= {f"{name}[{j}]": values[name][..., j] for j in range(SCHOOLS_RANKED)}
    return out
