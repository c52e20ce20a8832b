"""Gains of acting schools with national parameters held, next to those when everything is estimated again.

The audit holds what is national, so that each school is one block. Here single schools act, and thresholds, leniencies
of all others, variances, coefficients, knots and centres are estimated again from the changed records.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.identification.labels import read_labels
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.held_estimators import HeldEstimator, hold_labelled, hold_need
from send_va.sensitivity.incentives import audit_held, knowledge
from send_va.sensitivity.school_acts import ACTIONS, LABELLING_ACTS, school_act
from send_va.validation.gaming import estimated
from send_va.validation.recovery import CONTEXT, ROLES, world_of
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.pupil_design import pupil_design


def incentive_check(
    scenario: str,
    seed: int,
    *,
    schools: int,
    tried: Sequence[int],
    actions: Sequence[str] = ACTIONS,
    pupils_per_school: float | None = None,
    settings: AuditSettings | None = None,
) -> pd.DataFrame:
    """Let one school at a time act, and estimate everything again.

    Parameters
    ----------
    scenario : str
    seed : int
    schools : int
        Of the simulated cohort.
    tried : sequence of int
        Places of the schools that act.
    actions : sequence of str
    pupils_per_school : float, optional
        That of the scenario by default.
    settings : AuditSettings, optional

    Returns
    -------
    DataFrame
        school, action, estimator, n_acted, ``one_block`` and ``estimated_again``: the gain in theta in pupil SDs with
        national parameters held, and with everything estimated again; ``difference`` between them. Where an action is
        not applicable to a school there is no row.
    """
    settings = settings or AuditSettings()
    world = simulate(
        np.random.default_rng(seed),
        schools=schools,
        scenario=world_of(scenario),
        pupils_per_school=pupils_per_school,
    )
    need, before = estimated(world.pupils, None, seed)
    cohort = Cohort.from_pandas(world.pupils, ROLES, synthetic=True)
    profile = cohort.profile(5)
    columns = context_columns(cohort, profile)
    design, labels = pupil_design(cohort, profile, columns), read_labels(cohort, profile, columns)
    held: list[HeldEstimator] = [
        hold_labelled(design, labels, labelled_products(cohort, profile, columns), [CONTEXT]),
        *(hold_need(design, need, name, [CONTEXT]) for name in need.estimators),
    ]
    known, _, _ = knowledge(held, design, labels, need, seed, settings, CONTEXT)
    audit = audit_held(held, design, labels, need=need, seed=seed, settings=settings, context=CONTEXT)
    theta = audit.table[(audit.table["measure"] == "theta") & ~audit.table["roll_weighted"]]
    held_gain = theta.set_index(["school", "action", "estimator"])["gain_sd"]
    rows = []
    for action in actions:
        act = school_act(action, known, settings)
        for place in tried:
            school, n_acted = design.schools[place], int(act.n_acted[place])
            if not n_acted:
                continue
            chosen = design.order[act.chosen & (design.codes == place)]
            _, after = estimated(_changed(world.pupils, action, chosen), None, seed)
            for name in before:
                gain = float(after[name][school] - before[name][school]) / design.outcome_sd
                one_block = float(held_gain[school, action, name])
                rows.append((school, action, name, n_acted, one_block, gain, gain - one_block))
    names = ["school", "action", "estimator", "n_acted", "one_block", "estimated_again", "difference"]
    return pd.DataFrame(rows, columns=names)


def incentive_differences(check: pd.DataFrame) -> pd.DataFrame:
    """Sum up a check by estimator and action.

    Returns
    -------
    DataFrame
        estimator, action, ``n`` (schools), mean of ``one_block`` and ``estimated_again``, ``mean_absolute`` and
        ``largest`` difference; pupil SDs.
    """
    grouped = check.assign(absolute=check["difference"].abs()).groupby(["estimator", "action"], sort=False)
    return grouped.agg(
        n=("difference", "size"),
        one_block=("one_block", "mean"),
        estimated_again=("estimated_again", "mean"),
        mean_absolute=("absolute", "mean"),
        largest=("absolute", "max"),
    ).reset_index()


def _changed(pupils: pd.DataFrame, action: str, rows: NDArray[np.int64]) -> pd.DataFrame:
    if action not in LABELLING_ACTS:
        return pupils.drop(index=pupils.index[rows])
    status = pupils["sen_status"].to_numpy(dtype=object).copy()
    status[rows] = "K" if action == "label_more" else "N"
    return pupils.assign(sen_status=status)
