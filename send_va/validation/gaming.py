"""What a school gains by labelling more pupils, under every estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from send_va.identification.labels import read_labels
from send_va.identification.model import fit_now
from send_va.identification.need import Need, estimate_need
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.validation.recovery import CONTEXT, ROLES, world_of
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import fit_need
from send_va.value_added.pupil_design import pupil_design

LOOSER = 0.6  # by which the school's threshold moves, in SDs of unexplained need (statistical design, section 8)


def gaming_gain(
    scenario: str, seed: int, *, schools: int, tried: Sequence[int], looser: float = LOOSER
) -> pd.DataFrame:
    """Loosen one school's threshold at a time and estimate everything again.

    Parameters
    ----------
    scenario : str
    seed : int
    schools : int
        Of the simulated cohort.
    tried : sequence of int
        Places of the schools that loosen their threshold.
    looser : float
        By how much, need scale.

    Returns
    -------
    DataFrame
        school, estimator, relabelled (pupils), gain: change of the school's mean theta in pupil SDs. What a school does
        for its pupils has not changed, so any gain is reward for labelling.
    """
    world = simulate(np.random.default_rng(seed), schools=schools, scenario=world_of(scenario))
    need, before = estimated(world.pupils, None, seed)
    rows = []
    for place in tried:
        school = world.truth["school"].iloc[place]
        more = (
            (world.pupils["school"] == school)
            & (world.pupils["sen_status"] == "N")
            & (world.pupil_truth["now_margin"] > -looser)
        )
        pupils = world.pupils.assign(sen_status=world.pupils["sen_status"].mask(more, "K"))
        _, after = estimated(pupils, need, seed)
        for name in before:
            gain = (after[name][str(school)] - before[name][str(school)]) / float(world.attrs["pupil_sd"])  # type: ignore[arg-type]
            rows.append({"school": str(school), "estimator": name, "relabelled": int(more.sum()), "gain": gain})
    return pd.DataFrame(rows)


def estimated(pupils: pd.DataFrame, known: Need | None, seed: int) -> tuple[Need, dict[str, pd.Series[float]]]:
    """Estimate theta of every school from records, by every estimator, with identification at its estimates.

    Parameters
    ----------
    pupils : DataFrame
        Records as those of :func:`send_va.records.simulator.simulate`.
    known : Need, optional
        Of the same pupils with other labels now: the equation of labels before transfer is not fitted again.
    seed : int

    Returns
    -------
    need : Need
    means : dict of estimator to Series
        Conditional means of theta by school, outcome units.
    """
    cohort = Cohort.from_pandas(pupils, ROLES)
    profile = cohort.profile(5)
    context = context_columns(cohort, profile)
    labels = read_labels(cohort, profile, context)
    if known is None:
        need = estimate_need(labels, seed=seed, draws=0)
    else:
        now = fit_now(labels, known.entry_fit, known.parameters)
        assert now is not None  # one school's labels do not undo the others' changes
        parameters = now.complete(known.parameters, now.solution)
        need = replace(known, labels=labels, now_fit=now, parameters=parameters)
    design = pupil_design(cohort, profile, context)
    data = labelled_products(cohort, profile, context)
    effects = {"labelled": fit_labelled(data, CONTEXT, rng=np.random.default_rng(seed), draws=2).effects}
    for name in need.estimators:
        fit = fit_need(
            design, need.scores(name), name, [CONTEXT], rng=np.random.default_rng(seed), draws=2, plug_in=True
        )
        effects[name] = fit[CONTEXT].effects
    return need, {
        name: pd.Series(part.data["mean"].sel(measure="theta").to_numpy(), index=part.schools)
        for name, part in effects.items()
    }
