"""School effects with every pupil counted at each school attended, by the terms on its roll."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from send_va.errors import InputError
from send_va.identification.need import Need
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.nested import NestedSolution
from send_va.multilevel.threads import one_blas_thread
from send_va.ranking.table_places import fifths, table_places
from send_va.records.design_columns import CONTEXTS, Context, ContextColumns, check_contexts
from send_va.records.fields import TERMS
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.sensitivity.roll_design import RollTerms, design_by_roll, read_roll, strata_by_roll
from send_va.value_added.design import LabelledProducts, labelled_products
from send_va.value_added.full_rank import require_full_rank
from send_va.value_added.labelled import LabelledColumns, fit_labelled_columns
from send_va.value_added.need_fit import not_compared, plug_in_fits
from send_va.value_added.pupil_design import PupilDesign, pupil_design
from send_va.value_added.readout import CONTRASTS
from send_va.value_added.scores import check_estimator, scores_table
from send_va.value_added.strata import combine

NOT_A_FINDING = (
    "The weighting counts the time of pupils who changed school at the schools that had them. Why a pupil left is not "
    "in the records and cannot be told pupil by pupil (Education Policy Institute, unexplained pupil exits), so a "
    "change is no finding about how any school came to lose pupils."
)


@dataclass(frozen=True)
class RollWeighting:
    """The table with and without weighting by terms on roll.

    Attributes
    ----------
    table : DataFrame, one row a school, estimator and context
        school, estimator, context, theta and theta_roll_weighted (conditional means, outcome units), change (outcome
        units) and change_sd (pupil SDs; above zero: the school stands better with weighting), place and
        place_roll_weighted (1 is the highest theta), quintile and quintile_roll_weighted (1 is the fifth of schools
        with the highest theta), mean_terms (on its roll, of the pupils it is counted by at the end), share_left (of its
        pupil-terms, those of pupils counted elsewhere at the end). Missing for schools that cannot be compared.
    headline : DataFrame, one row an estimator and context
        estimator, context, schools, quintile_changes (share of schools), rank_correlation (Spearman),
        mean_absolute_change_sd, largest_gain_sd, largest_loss_sd (pupil SDs), change_with_mean_terms and
        change_with_share_left (correlations over schools of the change; missing where these do not vary), converged.
    pupils : int
        Complete pupils.
    part_time : int
        Of these, pupils with fewer than 15 terms on the roll of the school at the end.
    earlier : int
        Rows of schools attended before that were counted.
    unused : int
        Such rows that were not: their pupil has no complete record at the end, or nobody is counted at that school.
    synthetic : bool
    """

    table: pd.DataFrame
    headline: pd.DataFrame
    pupils: int
    part_time: int
    earlier: int
    unused: int
    synthetic: bool

    def __str__(self) -> str:
        made_up = "Synthetic records. " if self.synthetic else ""
        rows = [
            f"{row['estimator']}, {row['context']}: {row['quintile_changes']:.1%} of {row['schools']:,} schools change "
            f"quintile, rank correlation {row['rank_correlation']:.3f}"
            for row in self.headline.to_dict("records")
        ]
        unused = f"; {self.unused:,} more could not be counted" if self.unused else ""
        alone = "" if self.earlier else " Without rows of schools attended before, nobody counts where they left."
        head = (
            f"{made_up}Pupils weighted by terms on roll, of {TERMS}: {self.part_time:,} of {self.pupils:,} have fewer "
            f"at the school at the end, and {self.earlier:,} rows of schools attended before count{unused}.{alone}"
        )
        return "\n".join([head, *rows, NOT_A_FINDING])

    def _repr_html_(self) -> str:
        return str(self.headline.to_html(index=False))


@one_blas_thread
def roll_weighting(
    cohort: Cohort,
    profile: CohortProfile,
    columns: ContextColumns,
    need: Need | None = None,
    *,
    estimators: Sequence[str] | None = None,
    contexts: Sequence[str] = CONTEXTS,
    prior_slope: bool = True,
    residual_by_need: bool = True,
    progress: Callable[[int], None] | None = None,
) -> RollWeighting:
    """Estimate theta with pupils weighted by terms on roll, next to theta as published.

    A pupil who was on the roll of a school for t of the 15 terms from Year 7 to Year 11 counts as t/15 of a pupil
    there, and in the national parameters, which are estimated again (a weighted pseudo-likelihood; precision weights by
    the probability of need stay). Where the records hold rows of schools attended before (`on_roll_at_end`), the rest
    of the pupil counts at those; without them, late joiners count for less and nobody counts where they left. Outcome,
    background, SEN status and need are the pupil's own in every row, and need is estimated without weights. Effects are
    stated at the same prior attainment with and without weighting.

    Parameters
    ----------
    cohort : Cohort
        With the role `terms_on_roll`.
    profile : CohortProfile
    columns : ContextColumns
        From :func:`send_va.value_added.design.context_columns`.
    need : Need, optional
        Of the same records; without it ``labelled`` only.
    estimators : sequence of str, optional
        Among ``labelled`` and those of `need`; all by default.
    contexts : sequence of str
    prior_slope, residual_by_need : bool
        As of the published effects.
    progress : callable, optional
        Called with the number of estimators done.

    Returns
    -------
    RollWeighting
        Where few schools change quintile, it hardly matters to the table at whose door moves of pupils are laid.
        ``change_with_share_left`` below zero says that schools whose pupils left for others stand worse once these
        count again: those who left did worse than those who stayed. Both are about the table, not about one school.
        Identification is plugged in, so ``theta`` of estimators with need differs a little from the published mean.

    Raises
    ------
    InputError
        No role `terms_on_roll`, terms that are not above 0 and at most 15, an unknown estimator or context, or `need`
        of other records.
    CollinearityError
        A covariate is constant or a combination of others; they are named.

    References
    ----------
    FFT Education Datalab (2017), Who's left: how do pupils count in league tables and how does our reweighting approach
    work? (results weighted by terms on roll, leavers included).
    Rabe-Hesketh & Skrondal (2006), doi:10.1111/j.1467-985X.2006.00426.x (weights in multilevel models).
    Goldstein, Burgess & McConnell (2007), doi:10.1111/j.1467-985X.2007.00491.x (the alternative: effects of all schools
    attended added up in one model).

    Examples
    --------
    >>> from send_va.records.simulator import simulate, with_moves
    >>> from send_va.value_added.design import context_columns
    >>> still = simulate(np.random.default_rng(2), schools=30, pupils_per_school=40)
    >>> world = with_moves(still, np.random.default_rng(1))
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "terms_on_roll": "terms_on_roll", "on_roll_at_end": "on_roll_at_end"}
    >>> cohort = Cohort.from_pandas(world.pupils, roles, synthetic=True)
    >>> profile = cohort.profile(0)
    >>> found = roll_weighting(cohort, profile, context_columns(cohort, profile), contexts=["prior"])
    >>> found.headline["estimator"].tolist(), len(found.table), found.earlier > 100
    (['labelled'], 30, True)
    """
    chosen, names = check_contexts(contexts), _estimators(estimators, need)
    roll = read_roll(cohort, profile)
    options = _Options(chosen, prior_slope, residual_by_need)
    parts, headlines = [], []
    for done, (name, fit) in enumerate(_fits(cohort, profile, columns, need, roll, names, options), start=1):
        for context in chosen:
            table = _compared(profile, fit.plain[context], fit.weighted[context], roll)
            about = {"estimator": name, "context": context}
            headlines.append(about | _headline(table) | {"converged": fit.converged})
            parts.append(table.assign(**about))
        if progress is not None:
            progress(done)
    table = pd.concat(parts, ignore_index=True)
    first = ["school", "estimator", "context"]
    return RollWeighting(
        table=table[[*first, *(name for name in table if name not in first)]],
        headline=pd.DataFrame(headlines),
        pupils=len(roll.share),
        part_time=int((roll.share < 1.0).sum()),
        earlier=len(roll.earlier_share),
        unused=roll.unused,
        synthetic=cohort.synthetic,
    )


@dataclass(frozen=True)
class _Options:
    contexts: tuple[Context, ...]
    prior_slope: bool
    residual_by_need: bool


@dataclass(frozen=True)
class _Pair:
    """Theta of every school by context, without weights and with."""

    plain: dict[Context, FloatArray]
    weighted: dict[Context, FloatArray]
    converged: bool


def _estimators(wanted: Sequence[str] | None, need: Need | None) -> tuple[str, ...]:
    there = ("labelled", *(() if need is None else need.estimators))
    unknown = [name for name in wanted or () if name not in there]
    if unknown:
        raise InputError(
            f"no estimator {', '.join(map(repr, unknown))} for these records",
            f"There {'is' if len(there) == 1 else 'are'} {', '.join(there)}"
            + (": the others need estimates of need." if need is None else "."),
        )
    return there if wanted is None else tuple(name for name in there if name in wanted)


def _fits(
    cohort: Cohort,
    profile: CohortProfile,
    columns: ContextColumns,
    need: Need | None,
    roll: RollTerms,
    names: Sequence[str],
    options: _Options,
) -> Iterator[tuple[str, _Pair]]:
    if "labelled" in names:
        data = labelled_products(cohort, profile, columns)
        weighted = replace(data, strata=strata_by_roll(cohort, profile, columns))
        yield "labelled", _pair(_labelled(data, options), _labelled(weighted, options))
    scored = [name for name in names if name != "labelled"]
    if need is None or not scored:
        return
    design = pupil_design(cohort, profile, columns)
    left_out = np.flatnonzero(need.labels.component > 0)
    by_roll = design_by_roll(design, roll).without_schools(left_out)
    design = design.without_schools(left_out)
    for name in scored:
        scores, known = need.scores(name).plug_in(), check_estimator(name)
        table = scores_table(design.ordered(scores), len(design.rows), known)
        reference = design.prior_at(table[:, 0])
        again = scores_table(by_roll.ordered(scores), len(by_roll.rows), known)
        yield name, _pair(_scored(design, table, reference, options), _scored(by_roll, again, reference, options))


def _pair(plain: dict[Context, tuple[FloatArray, bool]], weighted: dict[Context, tuple[FloatArray, bool]]) -> _Pair:
    return _Pair(
        {context: theta for context, (theta, _) in plain.items()},
        {context: theta for context, (theta, _) in weighted.items()},
        all(converged for fits in (plain, weighted) for _, converged in fits.values()),
    )


def _labelled(data: LabelledProducts, options: _Options) -> dict[Context, tuple[FloatArray, bool]]:
    found = {}
    for context in options.contexts:
        columns = LabelledColumns.of(data, context, options.prior_slope)
        strata, x = [part.select(columns.held) for part in data.strata], columns.x()
        total = combine(strata, np.ones(len(strata))).total[np.ix_(x, x)]
        require_full_rank(total, columns.fixed, data.context, len(data.schools))
        fit = fit_labelled_columns(strata, columns, x, options.residual_by_need)
        found[context] = _theta(fit.solution), fit.solution.convergence.converged and fit.settled
    return found


def _scored(
    design: PupilDesign, table: FloatArray, reference: float, options: _Options
) -> dict[Context, tuple[FloatArray, bool]]:
    starts = plug_in_fits(design, options.contexts, table, reference, options.prior_slope, options.residual_by_need)
    return {
        context: (
            np.where(not_compared(design), np.nan, _theta(start.fit.solution)),
            start.fit.solution.convergence.converged and start.fit.settled,
        )
        for context, start in starts.items()
    }


def _theta(solution: NestedSolution) -> FloatArray:
    modes = solution.modes[0]
    return np.asarray(modes @ np.array(CONTRASTS["theta"][: modes.shape[1]]))


def _compared(profile: CohortProfile, plain: FloatArray, weighted: FloatArray, roll: RollTerms) -> pd.DataFrame:
    nobody = profile.schools.complete == 0
    theta, again = (np.where(nobody, np.nan, values) for values in (plain, weighted))
    table = pd.DataFrame({"school": profile.schools.schools, "theta": theta, "theta_roll_weighted": again})
    table["change"] = again - theta
    table["change_sd"] = table["change"] / profile.outcome.sd
    for end, values in (("", theta), ("_roll_weighted", again)):
        table[f"place{end}"] = _whole(table_places(values))
    for end, values in (("", theta), ("_roll_weighted", again)):
        table[f"quintile{end}"] = _whole(fifths(values))
    return table.assign(mean_terms=roll.mean_terms, share_left=roll.share_left)


def _whole(values: FloatArray) -> pd.Series[Any]:
    return pd.Series(values).astype("Int64")


def _headline(table: pd.DataFrame) -> dict[str, Any]:
    known = table[table["theta"].notna()]
    change = known["change_sd"]
    moved = known["quintile"] != known["quintile_roll_weighted"]
    return {
        "schools": len(known),
        "quintile_changes": float(moved.mean()),
        "rank_correlation": _correlation(known["place"].astype(float), known["place_roll_weighted"].astype(float)),
        "mean_absolute_change_sd": float(change.abs().mean()),
        "largest_gain_sd": float(change.max()),
        "largest_loss_sd": float(change.min()),
        "change_with_mean_terms": _correlation(change, known["mean_terms"]),
        "change_with_share_left": _correlation(change, known["share_left"]),
    }


def _correlation(a: pd.Series[Any], b: pd.Series[Any]) -> float:
    """Pearson's, of places Spearman's; missing where one of them does not vary."""
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
