"""Time on the roll: rows of schools that pupils attended before, and the share of the key stage each row stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from send_va.errors import Failure, InputError
from send_va.records.fields import TERMS
from send_va.records.roles import Roles
from send_va.records.sources import reading

if TYPE_CHECKING:
    from send_va.records.reader import Cohort

HOME_ROW = "home_row"  # row number of the pupil's row at the end of the key stage


def split_by_roll(table: ir.Table, roles: Roles) -> tuple[ir.Table, ir.Table | None]:
    """Part the rows at the end of the key stage from those of schools attended before.

    Parameters
    ----------
    table : ibis table
        Typed rows.
    roles : Roles

    Returns
    -------
    at_end, earlier : ibis table
        `earlier` is None without the role `on_roll_at_end`; then every row is at the end.
    """
    if roles.on_roll_at_end is None:
        return table, None
    left = (table[roles.on_roll_at_end] == 0).fill_null(False)
    return table.filter(~left), table.filter(left)


def count_earlier(cohort: Cohort) -> int:
    """Number of rows of schools attended before."""
    if cohort.earlier is None:
        return 0
    with reading(cohort.source.name):
        return int(cohort.connection.execute(cohort.earlier.count()))


def earlier_rows(cohort: Cohort, columns: Sequence[str] = ()) -> pa.RecordBatch:
    """Read the rows of schools attended before, with everything else taken from the pupil's row at the end.

    A pupil has one outcome, one background and one need, whichever school is looked at: only the school and the terms
    are those of the earlier row.

    Parameters
    ----------
    cohort : Cohort
        With the role `terms_on_roll`.
    columns : sequence of str
        Further columns wanted, of ``cohort.table``.

    Returns
    -------
    pyarrow.RecordBatch
        In file order: the columns asked for, the school, the terms, ``row_number`` and ``home_row`` (of the pupil's
        row at the end of the key stage). Rows are left out whose pupil has no complete row at the end, or whose school
        has no row at the end; none where the role `on_roll_at_end` is absent.

    Examples
    --------
    >>> import pandas as pd
    >>> from send_va.records.reader import Cohort
    >>> frame = pd.DataFrame({"pupil": [1, 2, 1], "school": [7, 8, 8], "outcome": [40.0, 51.0, None],
    ...                       "prior": [100, 99, None], "sen_status": ["N", "K", None], "terms": [5, 15, 10],
    ...                       "at_end": [1, 1, 0]})
    >>> roles = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "terms_on_roll": "terms", "on_roll_at_end": "at_end"}
    >>> cohort = Cohort.from_pandas(frame, roles)
    >>> cohort.n_rows, earlier_rows(cohort, ["outcome"]).to_pydict()
    (2, {'outcome': [40.0], 'school': ['8'], 'terms': [10.0], 'row_number': [3], 'home_row': [1]})
    """
    roles = cohort.roles
    terms = _terms_column(roles)
    own = (roles.school, terms, "row_number")
    of_pupil = [name for name in dict.fromkeys(columns) if name not in own]
    at_end = cohort.table.filter(cohort.table.complete)
    home = at_end.select(roles.pupil, *of_pupil, **{HOME_ROW: at_end.row_number})
    source = cohort.table.filter(False) if cohort.earlier is None else cohort.earlier
    known = source.semi_join(cohort.table, roles.school).select(roles.pupil, *own)
    joined = known.inner_join(home, roles.pupil).select(*of_pupil, *own, HOME_ROW).order_by("row_number")
    with reading(cohort.source.name):
        table: pa.Table = cohort.connection.to_pyarrow(joined).combine_chunks()
    return pa.RecordBatch.from_arrays(
        [pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type) for column in table],
        names=table.column_names,
    )


def roll_shares(batch: pa.RecordBatch, column: str, *, earlier: bool = False) -> NDArray[np.float64]:
    """Share of the 15 terms that each row of a batch stands for, shape (n,).

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    column : str
        Of the terms.
    earlier : bool
        Rows of schools attended before, in which terms may not be missing. Otherwise a missing number is 15.

    Raises
    ------
    InputError
        A number of terms that is not above 0 and at most 15, or a missing one among earlier rows.
    """
    terms = np.asarray(batch.column(column).to_numpy(zero_copy_only=False), dtype=np.float64)
    terms = terms if earlier else np.where(np.isnan(terms), float(TERMS), terms)
    bad = ~((terms > 0.0) & (terms <= TERMS))
    if bad.any():
        rule = f"is not above 0 and at most {TERMS}" + (", or is missing at a school attended before" * earlier)
        remedy = "Correct the terms; send-va check lists the rows."
        raise InputError(Failure(rule, column, int(bad.sum()), remedy=remedy))
    return np.asarray(terms / TERMS)


def batches_by_roll(cohort: Cohort, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float64]]]:
    """Stream complete rows with the share of the key stage each stands for; rows of schools attended before come last.

    Parameters
    ----------
    cohort : Cohort
        With the role `terms_on_roll`.
    columns : sequence of str

    Yields
    ------
    batch : pyarrow.RecordBatch
    share : array, shape (n,)
        Terms out of 15.

    Raises
    ------
    InputError
        No role `terms_on_roll`, or terms that cannot be used.
    """
    terms = _terms_column(cohort.roles)
    for batch in cohort.batches(list(dict.fromkeys([*columns, terms]))):
        yield batch, roll_shares(batch, terms)
    before = earlier_rows(cohort, columns)
    if before.num_rows:
        yield before, roll_shares(before, terms, earlier=True)


def _terms_column(roles: Roles) -> str:
    if roles.terms_on_roll is None:
        raise InputError(
            "the records hold no terms on roll, so pupils cannot be weighted by them",
            "Name the column under [roles] as terms_on_roll, or leave this analysis out.",
        )
    return roles.terms_on_roll
