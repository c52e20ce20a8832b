"""Who counts as having need: schools' quintiles when the national threshold moves between support and EHCP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import InputError, NotSupportedError
from send_va.identification.need import Need
from send_va.identification.scores import background_need, both_need, entry_need
from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import check_contexts
from send_va.sensitivity.quintiles import Quintiles, answers, whole
from send_va.value_added.need_fit import plug_in_fits
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.scores import check_estimator, scores_table

Floats = NDArray[np.float64]
THRESHOLDS = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class DefinitionSensitivity:
    """Quintiles of schools under other national thresholds of need.

    Attributes
    ----------
    table : DataFrame
        One row a school: school, quintile (at the support threshold), higher and lower (first threshold tried above and
        below it at which the quintile differs, as a share of the way from support to EHCP; missing: none does),
        higher_to, lower_to (quintile there), robust (the same at all thresholds tried).
    quintiles : DataFrame
        school, threshold, quintile, theta (outcome units).
    thresholds : DataFrame
        threshold (share of the way), above (SDs of unexplained need above the support threshold), share_with_need (of
        all pupils), share_changed (of schools, against the support threshold), correlation (of theta with that there).
    estimator, context : str
    """

    table: pd.DataFrame
    quintiles: pd.DataFrame
    thresholds: pd.DataFrame
    estimator: str
    context: str

    @property
    def headline(self) -> str:
        """One sentence on all schools."""
        last = self.thresholds.iloc[-1]
        changed = 100.0 * (1.0 - float(self.table.loc[self.table["quintile"].notna(), "robust"].astype(bool).mean()))
        share = float(last["threshold"])
        where = "the threshold of EHCPs" if share == 1.0 else f"{share:g} of the way from support to EHCP"
        return (
            f"{changed:.0f} % of schools change quintile at some national threshold of need tried ({self.estimator}, "
            f"{self.context}); at {where}, above which {100 * float(last['share_with_need']):.1f} % of pupils are "
            f"expected, {100 * float(last['share_changed']):.0f} % are in another one (correlation of theta "
            f"{float(last['correlation']):.2f})."
        )

    def __str__(self) -> str:
        return self.headline

    def _repr_html_(self) -> str:
        return f"<p>{self.headline}</p>{self.thresholds.to_html(index=False)}"


@one_blas_thread
def need_definitions(
    design: PupilDesign,
    need: Need,
    estimator: str,
    context: str = "cva",
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> DefinitionSensitivity:
    """Move the national threshold of need, and estimate everything of value-added again.

    Need is counted from a threshold between those of support and of EHCP before transfer, and from a bit below support;
    ``pi`` is recomputed for all pupils and the model refitted (plug-in, at the estimates of the identification
    parameters). Severity does not depend on the threshold.

    Parameters
    ----------
    design : PupilDesign
        All complete pupils of the records of `need`.
    need : Need
    estimator : str
        ``entry``, ``standardised`` or ``label_free``.
    context : str
    thresholds : sequence of float
        Shares of the way from the support threshold (0) to that of EHCPs (1); ascending, zero among them.

    Returns
    -------
    DefinitionSensitivity
        A quintile that differs at .25 hangs on where among pupils with SEN support need is said to begin.

    Raises
    ------
    NotSupportedError
        Records without EHCPs before transfer, so that there is one threshold only; an estimator they do not allow.
    InputError
        Thresholds without zero, not ascending, or above which less than one pupil is expected.

    Examples
    --------
    >>> import send_va as sv
    >>> from send_va.value_added.design import context_columns
    >>> from send_va.value_added.pupil_design import pupil_design
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=30, pupils_per_school=60)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles, synthetic=True)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> profile = cohort.profile(5)
    >>> design = pupil_design(cohort, profile, context_columns(cohort, profile))
    >>> found = need_definitions(design, need, "entry", "prior", thresholds=[0.0, 0.5])
    >>> found.thresholds["threshold"].tolist(), found.thresholds["share_with_need"].is_monotonic_decreasing
    ([0.0, 0.5], True)
    """
    grid = np.asarray(thresholds, dtype=np.float64)
    known, (chosen,) = check_estimator(estimator), check_contexts([context])
    if known not in need.estimators:
        raise NotSupportedError(need.why_not(known))
    if len(grid) < 2 or not (np.diff(grid) > 0).all() or 0.0 not in grid:
        raise InputError(
            f"thresholds {list(thresholds)} are not ascending, or lack zero", "0 is the support threshold."
        )
    tau = need.parameters.tau
    if len(tau) < 2:
        raise NotSupportedError("hardly any EHCP before transfer: there is one threshold, and no way to another.")
    compared = design.without_schools(np.flatnonzero(need.labels.component > 0))
    by_threshold, rows = {}, []
    for share in grid.tolist():
        above = share * float(tau[1] - tau[0])
        scores = compared.ordered(_scores(need, known, above))
        table = scores_table(scores, len(compared.rows), known)
        reference = compared.prior_at(table[:, 0])
        fit = plug_in_fits(compared, [chosen], table, reference, True, True)[chosen].fit
        theta = fit.solution.modes[0][:, 0] + fit.solution.modes[0][:, 1]
        by_threshold[share] = np.where(compared.n_pupils > 0, theta, np.nan)
        rows.append({"threshold": share, "above": above, "share_with_need": float(table[:, 0].mean())})
    return _gathered(design.schools, by_threshold, rows, known, chosen)


def _scores(need: Need, estimator: str, above: float) -> tuple[Floats, Floats | None]:
    records, known, assumptions = need.labels, need.parameters, need.assumptions
    if estimator == "label_free":
        return background_need(records, replace(known, tau=known.tau + above), assumptions), None
    both = estimator == "standardised" and need.now_fit is not None
    return (both_need if both else entry_need)(records, known, assumptions, records.entry, above)


def _gathered(
    schools: tuple[str, ...],
    theta: dict[float, Floats],
    rows: list[dict[str, float]],
    estimator: str,
    context: str,
) -> DefinitionSensitivity:
    quintile = {share: Quintiles.of(values).quintile for share, values in theta.items()}
    base, there = quintile[0.0], quintile[0.0] > 0
    for row in rows:
        share = row["threshold"]
        row["share_changed"] = float((quintile[share] != base)[there].mean())
        row["correlation"] = float(np.corrcoef(theta[share][there], theta[0.0][there])[0, 1])
    ways = {
        "higher": sorted(share for share in theta if share > 0),
        "lower": sorted((share for share in theta if share < 0), reverse=True),
    }
    table = pd.DataFrame({"school": schools, "quintile": whole(base)})
    robust = np.ones(len(schools), dtype=bool)
    for way, shares in ways.items():
        first, to = np.full(len(schools), np.nan), np.zeros(len(schools), dtype=np.int64)
        for share in reversed(shares):
            differs = there & (quintile[share] != base)
            first, to = np.where(differs, share, first), np.where(differs, quintile[share], to)
        table[way], table[f"{way}_to"] = first, whole(to)
        robust &= np.isnan(first)
    table["robust"] = answers(robust, there)
    long = pd.concat(
        [
            pd.DataFrame({"school": schools, "threshold": share, "quintile": whole(quintile[share]), "theta": values})
            for share, values in theta.items()
        ],
        ignore_index=True,
    )
    return DefinitionSensitivity(table, long, pd.DataFrame(rows), estimator, context)
