"""The incentive audit: what every school would gain, under every measure, by acts that help no pupil."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from send_va.errors import InputError, NotSupportedError
from send_va.identification.labels import LabelRecords
from send_va.identification.need import NEED_ESTIMATORS, Need, best_estimator
from send_va.identification.scores import background_need
from send_va.identification.tables import NOT_CONNECTED
from send_va.multilevel.crossproducts import FloatArray
from send_va.ranking.table_places import fifths_of_places, places_if_moved, table_places
from send_va.records.design_columns import CONTEXTS, Context
from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.held_estimators import HeldEstimator, hold_labelled, hold_need
from send_va.sensitivity.held_identification import HeldIdentification
from send_va.sensitivity.held_national import HeldEquation, SchoolValues
from send_va.sensitivity.incentive_summary import cheapest_acts, incentive_summary, incentive_verdicts, said_audit
from send_va.sensitivity.school_acts import ACTIONS, Act, SchoolKnowledge, consequences, foresee, school_act
from send_va.value_added.design import LabelledProducts
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.readout import CONTRASTS

ESTIMATORS = ("labelled", *NEED_ESTIMATORS)
NOT_SETTLED = "the school's own intake need or leniency was not found"
_STREAM = 17  # spawn key of what schools foresee


@dataclass(frozen=True)
class IncentiveAudit:
    """What schools would gain by acting on a measure, and whether the measure passes.

    Attributes
    ----------
    table : DataFrame
        One row a school, estimator, context, measure, action and weighting: ``school``, ``estimator``, ``context``,
        ``measure`` (theta, u, gap), ``action``, ``roll_weighted``, ``applicable``, ``reason`` (why not), ``n_acted``
        (pupils), ``share_acted`` (of the school's pupils in the measure), ``before`` and ``gain`` (outcome units),
        ``gain_sd`` (pupil SDs), ``gain_effect_sd`` (SDs of the true effect between schools, as estimated),
        ``places_gained`` (positive is better), ``quintile_before``, ``quintile_after`` (1 is the highest fifth). Gains
        are missing where an action is not applicable. Other schools stay where they were.
    summary : DataFrame
        See `send_va.sensitivity.incentive_summary.incentive_summary`.
    verdicts : DataFrame
        See `send_va.sensitivity.incentive_summary.incentive_verdicts`.
    cheapest : DataFrame
        See `send_va.sensitivity.incentive_summary.cheapest_acts`.
    settings : AuditSettings
    borderline : str
        By what pupils are near the line.
    forecast : str
        By what model outcomes are forecast.
    """

    table: pd.DataFrame = field(repr=False)
    summary: pd.DataFrame = field(repr=False)
    verdicts: pd.DataFrame = field(repr=False)
    cheapest: pd.DataFrame = field(repr=False)
    settings: AuditSettings
    borderline: str
    forecast: str

    def __str__(self) -> str:
        return said_audit(self.verdicts, self.cheapest, self.settings, self.borderline, self.forecast)

    def _repr_html_(self) -> str:
        return str(self.verdicts.to_html(index=False)) + str(self.cheapest[["words"]].to_html(index=False))


def audit_incentives(
    design: PupilDesign,
    labels: LabelRecords,
    *,
    data: LabelledProducts | None = None,
    need: Need | None = None,
    contexts: Sequence[str] = ("cva",),
    estimators: Sequence[str] | None = None,
    seed: int,
    settings: AuditSettings | None = None,
    residual_by_need: bool = True,
    prior_slope: bool = True,
    progress: Callable[[int], None] | None = None,
) -> IncentiveAudit:
    """Work out what every school would gain by each of five acts under every estimator.

    All national parameters are held at their estimates, so that schools are independent blocks and one pass in which
    every school acts gives what each would gain by acting alone. A school's own intake need and leniency follow its
    acts. Identification parameters are at their estimates, not averaged over draws.

    Parameters
    ----------
    design : PupilDesign
        All complete pupils; schools that cannot be compared are left out here.
    labels : LabelRecords
        Of the same pupils, as recorded.
    data : LabelledProducts, optional
        Of the same pupils: for ``labelled``.
    need : Need, optional
        For the other estimators.
    contexts : sequence of str
        The first one's model makes the forecasts that schools act on.
    estimators : sequence of str, optional
        All that `data` and `need` allow by default.
    seed : int
        Of what schools foresee: same seed, same table.
    settings : AuditSettings, optional
    residual_by_need, prior_slope : bool
        As in the fits.
    progress : callable, optional
        Called with the number of estimators and actions done.

    Returns
    -------
    IncentiveAudit
        Print it: a measure fails where schools that act on 5 % of their pupils gain more than the tolerance on average.

    Raises
    ------
    InputError
        Neither `data` nor `need`, records that are not the same, an estimator or context that does not exist, settings
        out of range.
    NotSupportedError
        An estimator these records do not allow.

    References
    ----------
    Geruso & Layton (2020), doi:10.1086/704756 (coding that raises what is paid). Figlio & Getzler (2006),
    doi:10.1016/S0278-0984(06)14002-X (schools that reclassify pupils under accountability).

    Examples
    --------
    >>> import send_va as sv
    >>> from send_va.identification.labels import read_labels
    >>> from send_va.value_added.design import context_columns, labelled_products
    >>> from send_va.value_added.pupil_design import pupil_design
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=40, pupils_per_school=60)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> profile = cohort.profile(0)
    >>> columns = context_columns(cohort, profile)
    >>> records = pupil_design(cohort, profile, columns), read_labels(cohort, profile, columns)
    >>> audit = audit_incentives(*records, data=labelled_products(cohort, profile, columns), contexts=["prior"], seed=1)
    >>> len(audit.table), audit.verdicts.query("measure == 'theta' and acts == 'labelling'")["verdict"].tolist()
    (960, ['fail'])
    """
    settings = settings or AuditSettings()
    settings.require()
    if seed < 0:
        raise InputError(f"seed must be 0 or more, not {seed}")
    if not contexts:
        raise InputError("no context is named", f"Contexts are {', '.join(CONTEXTS)}.")
    _require_same_pupils(design, labels, data, need)
    fits = {"residual_by_need": residual_by_need, "prior_slope": prior_slope}
    held: list[HeldEstimator] = []
    for name in _wanted(estimators, data, need):
        if name == "labelled":
            assert data is not None  # or it would not be wanted
            held.append(hold_labelled(design, labels, data, contexts, **fits))
        else:
            assert need is not None
            held.append(hold_need(design, need, name, contexts, **fits))
    return audit_held(
        held, design, labels, need=need, seed=seed, settings=settings, context=contexts[0], progress=progress
    )


def audit_held(
    held: Sequence[HeldEstimator],
    design: PupilDesign,
    labels: LabelRecords,
    *,
    need: Need | None,
    seed: int,
    settings: AuditSettings,
    context: str,
    progress: Callable[[int], None] | None = None,
) -> IncentiveAudit:
    """Audit estimators that are fitted and held already; see :func:`audit_incentives`.

    Parameters
    ----------
    held : sequence of HeldEstimator
        The first one's model makes the forecasts.
    context : str
        In which it makes them.
    """
    known, borderline, forecast = knowledge(held, design, labels, need, seed, settings, context)
    blocks, done = [], 0
    for action in ACTIONS:
        act = school_act(action, known, settings)
        changes = list(consequences(act, known.now, settings))
        for one in held:
            for roll_weighted, labels_now, weight in changes:
                after = one.at(labels_now, weight)
                blocks += list(_blocks(one, act, roll_weighted, after))
            done += 1
            if progress is not None:
                progress(done)
    table = _table(design, blocks)
    summary = incentive_summary(table)
    verdicts = incentive_verdicts(summary, settings)
    return IncentiveAudit(table, summary, verdicts, cheapest_acts(summary), settings, borderline, forecast)


def knowledge(
    held: Sequence[HeldEstimator],
    design: PupilDesign,
    labels: LabelRecords,
    need: Need | None,
    seed: int,
    settings: AuditSettings,
    context: str,
) -> tuple[SchoolKnowledge, str, str]:
    """What schools go by when they act, in words also: who is near the line, and how outcomes are forecast.

    Arguments as those of :func:`audit_held`.
    """
    now, entry = labels.now[design.order], labels.entry[design.order]
    near, by_background, borderline = _nearness(held, design, need, now)
    prediction, foreseen = _forecast(held[0], context, seed, settings.foresight)
    known = SchoolKnowledge(design.starts, now, entry, near, by_background, prediction, foreseen)
    return known, borderline, f"{held[0].estimator}, {context}"


def _wanted(estimators: Sequence[str] | None, data: LabelledProducts | None, need: Need | None) -> tuple[str, ...]:
    """Estimators in the order of the package; refuses what the inputs do not allow."""
    possible = (*(("labelled",) if data is not None else ()), *(need.estimators if need is not None else ()))
    if not possible:
        raise InputError("there is nothing to audit", "Give data for labelled, or need for the other estimators.")
    if estimators is None:
        return possible
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if unknown or not estimators:
        raise InputError(
            f"no estimator {', '.join(map(repr, unknown)) or 'is named'}", f"Choose from {', '.join(ESTIMATORS)}."
        )
    missing = [name for name in estimators if name not in possible]
    if missing and need is not None and missing[0] != "labelled":
        raise NotSupportedError(need.why_not(missing[0]))
    if missing:
        what = "data, the labelled products" if missing[0] == "labelled" else "need"
        raise InputError(f"the estimator {missing[0]!r} cannot be audited without {what}", "Give it, or leave it out.")
    return tuple(name for name in ESTIMATORS if name in estimators)


def _require_same_pupils(
    design: PupilDesign, labels: LabelRecords, data: LabelledProducts | None, need: Need | None
) -> None:
    if design.left_out:
        raise InputError("the design leaves schools out already", "Give that of all pupils: pupil_design(...).")
    same = len(labels.school) == len(design.rows) and labels.schools == design.schools
    same = same and np.array_equal(labels.school[design.order], design.codes)
    if need is not None and same:
        same = not (need.recorded or need.labels).differs_from(labels)
    if data is not None and same:
        counts = np.bincount(3 * labels.school + labels.now, minlength=3 * len(labels.schools)).reshape(-1, 3)
        same = data.schools == design.schools and np.array_equal(data.counts, counts)
    if not same:
        raise InputError(
            "design, labels, data and need are not all of the same pupils in the same order",
            "Read each from the same cohort.",
        )


def _nearness(
    held: Sequence[HeldEstimator], design: PupilDesign, need: Need | None, now: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray, str]:
    """How near each pupil is to the line, what decides where that is equal, and what it is."""
    if need is None:
        rows = design.rows[:, 1:-1] / np.maximum(design.rows[:, 1:-1].std(axis=0), 1e-12)
        fitted = LogisticRegression(C=1e4, max_iter=200).fit(rows, now > 0)
        chance = np.asarray(fitted.predict_proba(rows)[:, 1])
        return chance, chance, "the probability of a label now given background (need is not estimated)"
    p0 = background_need(need.labels, need.parameters, need.assumptions)[design.order]
    best = best_estimator(need)
    there = [one.columns_before[:, 0] for one in held if one.estimator == best]
    pi = there[0] if there else HeldIdentification(need).scores(best)[0][design.order]
    words = {"standardised": "labels before transfer and now", "entry": "the label before transfer"}[best]
    if not need.has_entry:
        words = "the label now"
    return np.where(np.isnan(pi), p0, pi), p0, f"the probability of need given {words}"


def _forecast(one: HeldEstimator, context: str, seed: int, foresight: float) -> tuple[FloatArray, FloatArray]:
    """Outcome expected of every pupil, and what is foreseen beyond it."""
    known = next(name for name in one.equations if name == context)
    equation = one.equations[known]
    prediction = one.predictions(known)
    sd = np.sqrt(equation.scale * one.relative_variance(known, one.columns_before))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM,)))
    return prediction, foresee(equation.outcome - prediction, sd, foresight, rng)


@dataclass(frozen=True, eq=False)
class _Block:
    """All schools, one measure of one equation, one act."""

    keys: tuple[str, str, str, str, bool]
    equation: HeldEquation
    act: Act
    before: FloatArray
    gain: FloatArray
    places: FloatArray
    quintiles: tuple[FloatArray, FloatArray]


def _blocks(
    one: HeldEstimator, act: Act, roll_weighted: bool, after: Mapping[Context, SchoolValues]
) -> Iterable[_Block]:
    idle = np.array([reason != "" for reason in act.reason])
    for context, equation in one.equations.items():
        for measure in CONTRASTS:
            before = one.before[context].mean(measure)
            moved = np.where(idle, np.nan, after[context].mean(measure))
            place, place_after = table_places(before), places_if_moved(before, moved)
            total = int(np.isfinite(before).sum())
            yield _Block(
                (one.estimator, context, measure, act.action, roll_weighted),
                equation,
                act,
                before,
                moved - before,
                place - place_after,
                (fifths_of_places(place, total), fifths_of_places(place_after, total)),
            )


def _table(design: PupilDesign, blocks: Sequence[_Block]) -> pd.DataFrame:
    schools, runs = len(design.schools), len(blocks)
    reasons = np.array([_reasons(block) for block in blocks])
    applicable = reasons == ""
    sizes = np.maximum(design.n_pupils, 1)
    n_acted = np.where(applicable, [block.act.n_acted for block in blocks], 0)
    gain = np.where(applicable, [block.gain for block in blocks], np.nan)
    outcome_sd = np.array([[block.equation.outcome_sd] for block in blocks])
    effect_sd = np.array([[block.equation.effect_sd(block.keys[2])] for block in blocks])
    columns: dict[str, object] = {"school": np.tile(np.array(design.schools, dtype=object), runs)}
    for at, name in enumerate(("estimator", "context", "measure", "action")):
        columns[name] = np.repeat(np.array([block.keys[at] for block in blocks], dtype=object), schools)
    columns |= {
        "roll_weighted": np.repeat([block.keys[4] for block in blocks], schools),
        "applicable": applicable.ravel(),
        "reason": reasons.ravel(),
        "n_acted": n_acted.ravel(),
        "share_acted": (n_acted / sizes).ravel(),
        "before": np.concatenate([block.before for block in blocks]),
        "gain": gain.ravel(),
        "gain_sd": (gain / outcome_sd).ravel(),
        "gain_effect_sd": np.divide(gain, effect_sd, out=np.full_like(gain, np.nan), where=effect_sd > 0).ravel(),
        "places_gained": np.where(applicable, [block.places for block in blocks], np.nan).ravel(),
        "quintile_before": np.concatenate([block.quintiles[0] for block in blocks]),
        "quintile_after": np.where(applicable, [block.quintiles[1] for block in blocks], np.nan).ravel(),
    }
    return pd.DataFrame(columns)


def _reasons(block: _Block) -> list[str]:
    known = np.array(block.act.reason, dtype=object)
    apart = ~block.equation.compared & (np.diff(block.equation.starts) > 0)
    known[apart] = NOT_CONNECTED
    known[(known == "") & ~np.isfinite(block.gain)] = NOT_SETTLED
    return [str(reason) for reason in known]
