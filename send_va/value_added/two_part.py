"""Value-added where many outcomes lie exactly at the floor: whether a pupil is there, and how far above if not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.collapsed_posterior import CollapsedPosterior
from send_va.multilevel.convergence import Convergence, check_convergence
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.floor_part import FloorCells, FloorPosterior, sample_floor
from send_va.records.design_columns import Context, numbers
from send_va.value_added.authorities import school_authorities
from send_va.value_added.bayes import BayesFit, BayesOptions
from send_va.value_added.bayes_estimators import fit_labelled_bayes
from send_va.value_added.design import STRATA, context_columns, labelled_products

if TYPE_CHECKING:
    from send_va.records.profile import CohortProfile
    from send_va.records.reader import Cohort

_BANDS = 3  # of prior attainment, with about as many pupils each


@dataclass(frozen=True)
class TwoPartFit:
    """The labelled estimator in two parts, in one context.

    Attributes
    ----------
    effects : SchoolEffects
        Draws of ``theta``, ``u`` and ``gap`` in outcome units: differences of the expected outcome, the floor included,
        to the average school. Each is the sum of ``<measure>_floor``, what comes of more or fewer pupils at the floor,
        and ``<measure>_above``, what comes of outcomes above it.
    floor : FloorPosterior
    above : BayesFit
        Of pupils above the floor.
    convergence : Convergence
        Of `floor`; that of the other part is ``above.convergence``.
    """

    effects: SchoolEffects
    floor: FloorPosterior
    above: BayesFit
    convergence: Convergence

    @property
    def converged(self) -> bool:
        """Whether both parts did; otherwise nothing is to be used."""
        return self.convergence.converged and self.above.fit.converged


def fit_two_part(
    cohort: Cohort,
    *,
    context: Context = "prior",
    options: BayesOptions | None = None,
    seed: int,
    draws: int = 1000,
    floor: float | None = None,
    profile: CohortProfile | None = None,
) -> TwoPartFit:
    """Estimate value-added for pupils with recorded SEN where many outcomes are exactly the lowest possible.

    Whether a pupil is at the floor depends on status, third of prior attainment, and the school's effects on pupils
    without and with need (a logit model); how far above it the others are follows the labelled Gaussian model, fitted
    to them alone. Neither shares a parameter with the other, so their posteriors are independent and draws of both are
    paired. The expected outcome ``p * floor + (1 - p) * mu`` of a school is averaged over the statuses and thirds of
    the nation's pupils without need (`u`) or with (`theta`), and compared with a school whose effects are all zero.

    Parameters
    ----------
    cohort : Cohort
    context : str
        ``prior`` or ``cva``; background enters the second part only.
    options : BayesOptions, optional
    seed : int
        Same seed, same draws.
    draws : int
        Draws of the school effects, over all chains.
    floor : float, optional
        In outcome units; by default the lowest possible outcome of the cohort.
    profile : CohortProfile, optional
        First pass of the same cohort.

    Returns
    -------
    TwoPartFit
        Read ``converged`` first, then ``floor.share_table``.

    Raises
    ------
    InputError
        No pupil, or every pupil, is at the floor; the cohort has no lowest outcome and none is given.
    NotSupportedError
        Context ``composition``: school means would be those of pupils above the floor. The sampler is not installed.

    Notes
    -----
    Schools with more at the floor may lose their weakest pupils there, so the part above is not what these would have
    reached: only the sum compares schools. Prior attainment works within thirds as if it were constant.

    References
    ----------
    Duan, Manning, Morris & Newhouse (1983), doi:10.1080/07350015.1983.10509330.
    """
    if context == "composition":
        raise NotSupportedError("two-part value-added has no context composition: use prior or cva.")
    options = BayesOptions() if options is None else options
    lowest = _floor(cohort, floor)
    profile = cohort.profile() if profile is None else profile
    cells = floor_cells(cohort, profile, lowest)
    table = cohort.table
    above = replace(cohort, table=table.filter(table[cohort.roles.outcome] > lowest))
    data = replace(
        labelled_products(above, profile, context_columns(cohort, profile)),
        n_left_out=int(profile.n_rows - cells.records.sum()),
    )
    fitted = fit_labelled_bayes(
        data,
        context,
        authorities=school_authorities(cohort, profile.schools.schools),
        options=options,
        rng=np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))),
        draws=draws,
        attrs={"seed": seed, "synthetic": int(cohort.synthetic)},
    )
    part = sample_floor(cells, options.sampling, seed=seed)
    return TwoPartFit(_combined(part, fitted, lowest, draws), part, fitted, check_convergence(part, options.limits))


def _floor(cohort: Cohort, floor: float | None) -> float:
    lowest = cohort.outcome_range[0] if floor is None and cohort.outcome_range is not None else floor
    if lowest is None:
        raise InputError("the cohort has no lowest possible outcome", "Give floor.")
    return float(lowest)


def floor_cells(cohort: Cohort, profile: CohortProfile, floor: float) -> FloorCells:
    """Count pupils, and pupils at the floor, by school, status and third of the first prior score.

    Raises
    ------
    InputError
        No pupil, or every pupil, is at the floor.
    """
    roles, schools = cohort.roles, profile.schools.schools
    index = pd.Index(list(schools))
    cuts = np.array(cohort.profile(_BANDS - 1).priors[roles.prior[0]].knots)
    shape = (len(schools), len(STRATA), len(cuts) + 1)
    size = int(np.prod(shape))
    records, at_floor = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for batch in cohort.batches([roles.school, roles.outcome, roles.prior[0], "sen_level"]):
        school = index.get_indexer(pd.Index(batch.column(roles.school).to_pylist()))
        level = np.asarray(batch.column("sen_level").to_numpy(zero_copy_only=False), dtype=np.int64)
        band = np.searchsorted(cuts, numbers(batch, roles.prior[0]), side="right")
        cell = np.ravel_multi_index((school, level, band), shape)
        records += np.bincount(cell, minlength=size)
        at_floor += np.bincount(cell[numbers(batch, roles.outcome) <= floor], minlength=size)
    return FloorCells(
        tuple(schools),
        STRATA,
        np.array([name != "none" for name in STRATA]),
        at_floor.reshape(shape),
        records.reshape(shape),
    )


def _combined(part: FloorPosterior, fitted: BayesFit, floor: float, draws: int) -> SchoolEffects:
    """Pair draws of both parts and work out expected outcomes."""
    known = fitted.fit.effects
    above = {"u": known.draws("u"), "theta": known.draws("theta")}
    count = min(len(above["u"]), part.shape[0] * part.shape[1])
    means = _means_above(fitted.posterior)
    total = part.cells.records.sum(axis=0)  # (kinds, bands)
    kinds = {"u": ~part.cells.with_need, "theta": part.cells.with_need}
    out = {f"{name}{end}": np.empty((count, len(part.cells.groups))) for name in kinds for end in ("_floor", "_above")}
    places = list(np.ndindex(*part.shape))
    spaced = np.floor((np.arange(count) + 0.5) * len(places) / count).astype(int)
    for s, place in enumerate(spaced):
        own = part.probability(places[place])
        average = part.probability(places[place], average_group=True)
        for name, which in kinds.items():
            weight = total[which] / total[which].sum()
            height = means[s, which, None] - floor
            out[f"{name}_floor"][s] = np.einsum("gkb,kb->g", (average - own)[:, which], weight * height)
            out[f"{name}_above"][s] = above[name][s] * np.einsum("gkb,kb->g", 1.0 - own[:, which], weight)
    measures = _measures(out)
    return school_effects(
        known.schools,
        measures,
        {name: {"reliability": _reliability(values)} for name, values in measures.items()},
        n_pupils=part.cells.records.sum(axis=(1, 2)),
        n_need=part.cells.records[:, part.cells.with_need].sum(axis=(1, 2)),
        flag=known.data["flag"].to_numpy().astype(str).tolist(),
        attrs=known.attrs | {"draws": count, "floor": floor, "parts": 2},
    )


def _measures(parts: dict[str, FloatArray]) -> dict[str, FloatArray]:
    for end in ("_floor", "_above"):
        parts[f"gap{end}"] = parts[f"theta{end}"] - parts[f"u{end}"]
    whole = {name: parts[f"{name}_floor"] + parts[f"{name}_above"] for name in ("theta", "u", "gap")}
    return whole | parts


def _means_above(posterior: CollapsedPosterior) -> FloatArray:
    """Mean outcome above the floor of pupils of each status in the average school, shape (draws, 3).

    At mean covariates of these pupils; a status of which nobody is above the floor has the mean of all.
    """
    data = posterior.model.data
    one = data.columns.index("Intercept")
    beta = posterior.beta.reshape(-1, len(data.columns))
    mean = data.total.sum(axis=0)[one] / data.total.sum(axis=0)[one, one]
    out = np.repeat((beta @ mean[:-1] + data.center[-1])[:, None], len(STRATA), axis=1)
    for s, name in enumerate(data.strata):
        own = data.total[s][one] / data.total[s][one, one]
        out[:, STRATA.index(name)] = beta @ own[:-1] + data.center[-1]
    return out


def _reliability(values: FloatArray) -> FloatArray:
    """Share of the variance between schools that is known of each, from draws alone."""
    between = float(values.var())
    return np.clip(1.0 - values.var(axis=0) / between, 0.0, 1.0) if between > 0 else np.zeros(values.shape[1])
