"""Would another defensible choice have given another table: school effects under every combination of choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import Failure, InputError
from send_va.multilevel.crossproducts import FloatArray
from send_va.records.profile import sort_codes
from send_va.records.reader import Cohort
from send_va.sensitivity.base_fits import BaseKey
from send_va.sensitivity.choice_fits import FitOptions, base_fits
from send_va.sensitivity.fit_store import FitStore, MemoryStore
from send_va.sensitivity.school_places import by_school, places, quintiles
from send_va.sensitivity.specifications import CHOICES, Choices
from send_va.sensitivity.specified_effects import (
    NEARLY_ALWAYS,
    compared_with,
    effects_under,
    headline_of,
    variances_of,
)

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Multiverse:
    """Effects of all schools under all specifications.

    Attributes
    ----------
    specifications : DataFrame
        One row a specification: number (from 1), one column a choice, status (``done``, ``failed``), n_schools in its
        table, sd (of effects over schools, pupil SDs), llf (not comparable between outcomes, records or fixed
        effects), rank_correlation with the reference (Spearman, schools in both tables), same_quintile (share of those
        schools in the same fifth as in the reference), reason (why it failed).
    effects : DataFrame
        theta in pupil SDs: one row a finished specification (by number), one column a school; missing where the school
        is not in its table.
    by_school : DataFrame
        As :func:`send_va.sensitivity.school_places.by_school` makes it.
    choices : DataFrame
        result (``effect``, or ``place`` as a share of the table), then as in
        :class:`send_va.sensitivity.choice_variance.ChoiceVariance`: term, order, share; method, variance,
        n_specifications, n_schools, n_exact.
    headline : mapping of str to float
        Over the schools of the reference table: share_depends (not in the same fifth under all specifications),
        share_top_and_bottom (in the highest fifth under one and in the lowest under another), share_nearly_always and
        share_mostly (in one fifth under 95 % and 80 % of specifications or more), median_place_range (places lost and
        won, as a share of the table); over specifications: median_same_quintile, lowest_same_quintile and
        median_rank_correlation.
    reference : int
        Number of the reference specification.
    synthetic : bool
    notes : tuple of str
    """

    specifications: pd.DataFrame
    effects: pd.DataFrame
    by_school: pd.DataFrame
    choices: pd.DataFrame
    headline: Mapping[str, float]
    reference: int
    synthetic: bool
    notes: tuple[str, ...] = field(default=())

    @property
    def failed(self) -> pd.DataFrame:
        """Specifications that could not run, with the reason."""
        rows = self.specifications[self.specifications["status"] == FAILED]
        return rows[["number", *CHOICES, "reason"]].reset_index(drop=True)

    @property
    def typical_school(self) -> str:
        """The school of the reference table whose places spread as those of the median school do."""
        own = self.by_school[self.by_school["reference_quintile"].notna()]
        return str(own.sort_values(["place_range", "school"], ignore_index=True)["school"].iloc[len(own) // 2])

    def curve(self, school: str) -> pd.DataFrame:
        """The specification curve of one school.

        Returns
        -------
        DataFrame
            One row a specification whose table the school is in, sorted by effect: number, effect (pupil SDs), quintile
            (1 the highest), place (share of the table, 0 the top), then one column a choice.

        Raises
        ------
        InputError
            There is no such school, or it is in no table.

        References
        ----------
        Simonsohn, Simmons & Nelson (2020), doi:10.1038/s41562-020-0912-z.
        """
        if school not in self.effects.columns:
            raise InputError(f"there is no school {school!r}", "Schools are the columns of .effects, as text.")
        theta = self.effects.to_numpy()
        at = self.effects.columns.get_loc(school)
        rows = self.specifications.set_index("number").loc[self.effects.index, list(CHOICES)].reset_index()
        found = {"effect": theta[:, at], "quintile": quintiles(theta)[:, at], "place": places(theta)[:, at]}
        table = rows.assign(**found)[["number", *found, *CHOICES]]
        table = table[table["quintile"] > 0].sort_values(["effect", "number"], ignore_index=True)
        if not len(table):
            raise InputError(f"school {school} is in no table", "It has too few pupils with need for any of them.")
        return table

    def __str__(self) -> str:
        told = self.headline
        lines = [
            f"{len(self.effects):,} specifications of {told['n_schools']:,.0f} schools, {len(self.failed):,} failed",
            f"{told['share_depends']:.0%} of schools are not in the same fifth under all of them; "
            f"{told['share_top_and_bottom']:.0%} are in the highest under one and in the lowest under another; "
            f"{told['share_nearly_always']:.0%} are in one fifth under {NEARLY_ALWAYS:.0%} or more",
            *self.notes,
        ]
        return "\n".join(["Synthetic records.", *lines] if self.synthetic else lines)

    def _repr_html_(self) -> str:
        return f"<p>{str(self).replace(chr(10), '<br>')}</p>{self.specifications.to_html(index=False)}"


def multiverse(
    open_records: Callable[[str], Cohort],
    choices: Choices,
    *,
    options: FitOptions | None = None,
    store: FitStore | None = None,
    synthetic: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Multiverse:
    """Estimate school effects under every combination of choices.

    Every specification gives a whole vector of effects, with identification parameters taken as known (plug-in), so
    there are effects and places but no intervals: the spread over specifications is that of choices, not of chance.

    Parameters
    ----------
    open_records : callable
        Called with the column of the outcome; opens the records with it. What it refuses makes specifications fail.
    choices : Choices
    options : FitOptions, optional
        What no choice varies.
    store : FitStore, optional
        Where finished fits are kept and, if they are there already, taken from.
    synthetic : bool
        The records are simulated.
    progress : callable, optional
        Called with the number of fits done, of ``choices.n_fits``.

    Returns
    -------
    Multiverse
        A school whose fifth changes with the specification has a grade that somebody chose. One whose fifth does not
        change has a grade that these choices do not decide; chance may still.

    Raises
    ------
    InputError
        No specification could run; the reasons are listed.

    References
    ----------
    Steegen, Tuerlinckx, Gelman & Vanpaemel (2016), doi:10.1177/1745691616658637. Simonsohn, Simmons & Nelson (2020),
    doi:10.1038/s41562-020-0912-z.

    Examples
    --------
    >>> from send_va.records.simulator import simulate
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status"}
    >>> world = simulate(np.random.default_rng(1), schools=20, pupils_per_school=60)
    >>> choices = Choices(("outcome",), ("prior",), estimator=("labelled",), prior=("model", "none"), years=(0, 1))
    >>> found = multiverse(lambda outcome: Cohort.from_pandas(world.pupils, roles), choices, synthetic=True)
    >>> found.specifications[["prior", "years", "status"]].to_numpy().tolist()[:2]
    [['model', 0, 'done'], ['none', 0, 'done']]
    >>> found.failed["reason"].iloc[0].partition(".")[2].partition(".")[0]
    'years: the records have no role cohort, so years cannot be told apart'
    """
    options, store = options or FitOptions(), store if store is not None else MemoryStore()
    table = choices.table()
    fits = base_fits(open_records, table, options, store, progress)
    schools = np.array(sort_codes({str(name) for fit in fits.values() for name in fit.schools}), dtype=np.str_)
    theta, reasons = effects_under(table, fits, schools)
    done = np.array([reason == "" for reason in reasons])
    if not done.any():
        raise InputError(Failure(f"no specification could run: {reason}") for reason in dict.fromkeys(reasons))
    first = int(np.argmax(done))  # position of the reference
    finished, numbers = theta[done], table.index.to_numpy()
    compared = compared_with(finished, 0)
    rows = table.reset_index().assign(status=np.where(done, DONE, FAILED))
    for name, values in compared.items():
        rows[name] = _spread_out(values, done)
    rows["n_schools"] = rows["n_schools"].fillna(0).astype(np.int64)
    rows["llf"] = [fits[BaseKey.of(row)].llf for row in table.itertuples()]
    schools_table = by_school(schools, finished, 0)
    return Multiverse(
        specifications=rows.assign(reason=reasons),
        effects=pd.DataFrame(finished, index=table.index[done], columns=schools),
        by_school=schools_table,
        choices=variances_of(table[done], finished),
        headline=headline_of(schools_table, compared),
        reference=int(numbers[first]),
        synthetic=synthetic,
        notes=_notes(first, numbers, reasons),
    )


def _spread_out(values: FloatArray, done: NDArray[np.bool_]) -> FloatArray:
    out = np.full(len(done), np.nan)
    out[done] = values
    return out


def _notes(first: int, numbers: NDArray[np.integer], reasons: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if first:
        notes.append(f"the reference specification failed; number {numbers[first]} stands in for it")
    failed = Counter(reason for reason in reasons if reason)
    notes += [f"{n:,} of {len(reasons):,} specifications failed: {reason}" for reason, n in failed.items()]
    return tuple(notes)
