"""Pupil records as a lazy table with named parts, streamed in batches whose memory does not grow with the pupils."""

# ruff: noqa: PD004 (Ibis expressions, whose notnull has no other name)
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import ibis.expr.types as ir
import pandas as pd
import pandera.pandas as pan
import pyarrow as pa
from ibis.backends.duckdb import Backend

from send_va.errors import BrokenRule, Failure, InputError, StudyError
from send_va.records.columns import as_code, as_number, as_sen_level
from send_va.records.fields import OutcomeRange
from send_va.records.profile import CohortProfile, profile_cohort
from send_va.records.roles import Roles, SenCodes, nearest_name
from send_va.records.roll import split_by_roll
from send_va.records.schema import column_kinds, pupil_schema
from send_va.records.sources import OpenedSource, Source, open_file, open_frame, reading, require_columns

_NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Cohort:
    """Pupil records of a study, not yet read.

    Made by `open_cohort` or `Cohort.from_pandas`. Printing one shows no record.

    Attributes
    ----------
    table : ibis table, one row per pupil (at the school at the end of the key stage) in file order
        Columns with a role and known fields, under canonical names, numbers as float64 and codes as text, and four
        derived columns: ``row_number`` (from 1), ``sen_level`` and ``sen_level_entry`` (int8; 0 none, 1 SEN support,
        2 EHC plan; the second only with that role) and ``complete`` (nothing missing that an estimate needs).
    recorded : ibis table
        The same columns as recorded, and ``row_number``: what `check_cohort` looks at.
    roles : Roles
        Which column plays which part.
    sen : SenCodes
        Codes of SEN status.
    source : Source
        File name and hash.
    outcome_range : tuple of float or None
        Lowest and highest possible outcome, in outcome points.
    columns : mapping of str to str
        Canonical name to name in the file, where they differ.
    synthetic : bool
        True when the records are simulated.
    earlier : ibis table or None
        Rows of schools that pupils attended before, as `table`; None without the role `on_roll_at_end`. In no estimate
        but the one weighted by terms on roll: see `send_va.records.roll`.
    """

    table: ir.Table = field(repr=False)
    recorded: ir.Table = field(repr=False)
    roles: Roles
    sen: SenCodes
    source: Source
    outcome_range: OutcomeRange
    columns: Mapping[str, str]
    synthetic: bool
    connection: Backend = field(repr=False)
    earlier: ir.Table | None = field(default=None, repr=False)

    @classmethod
    def from_pandas(
        cls,
        frame: pd.DataFrame,
        roles: Roles | Mapping[str, object],
        *,
        columns: Mapping[str, str] = _NO_COLUMNS,
        sen: SenCodes | None = None,
        outcome_range: OutcomeRange = (0.0, None),
        synthetic: bool = False,
    ) -> Cohort:
        """Take pupil records from a data frame.

        Parameters
        ----------
        frame : pandas.DataFrame
            One row per pupil. Only columns with a role and known fields are copied.
        roles : Roles or mapping
            Which column plays which part.
        columns : mapping of str to str
            Canonical name to the frame's column, where they differ.
        sen : SenCodes, optional
            Codes of SEN status; N, K, E unless given.
        outcome_range : tuple of float or None
            Lowest and highest possible outcome, in outcome points.
        synthetic : bool
            Whether the records are simulated; carried to every output.

        Returns
        -------
        Cohort
            The same interface as records read from a file.

        Raises
        ------
        InputError
            When a column is missing or the frame is empty.
        StudyError
            When the roles contradict each other or `columns` names an unknown field.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"pupil": [1, 2], "school": [7, 7], "outcome": [40.0, 55.5], "prior": [100, 104],
        ...                       "sen_status": ["N", "K"]})
        >>> Cohort.from_pandas(frame, Roles("pupil", "school", "outcome", ("prior",), "sen_status")).n_rows
        2
        """
        known = roles if isinstance(roles, Roles) else Roles.from_mapping(roles)
        schema = pupil_schema(known, sen=sen, outcome_range=outcome_range)
        used = [name for name in dict.fromkeys(columns.get(n, n) for n in schema.columns) if name in frame.columns]
        return _assemble(open_frame(frame, used), known, schema, columns, sen or SenCodes(), outcome_range, synthetic)

    @cached_property
    def n_rows(self) -> int:
        """Number of rows, incomplete ones included; rows of schools attended before are not."""
        with reading(self.source.name):
            return int(self.connection.execute(self.table.count()))

    def batches(
        self, columns: Sequence[str], size: int = 131_072, *, complete: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """Stream columns in file order.

        Parameters
        ----------
        columns : sequence of str
            Names in `table`, derived ones included; the pupil id is refused.
        size : int
            Rows per batch; DuckDB rounds it up to a multiple of 2,048.
        complete : bool
            Leave out rows in which the school, the outcome, a prior score, the SEN status or a context column is
            missing: the same filter for every estimate of the study.

        Returns
        -------
        iterator of pyarrow.RecordBatch
            Every batch but the last has the same number of rows, whatever the number of threads, so sums taken batch by
            batch are reproducible to the bit. Batches from several calls may be read side by side.

        Raises
        ------
        InputError
            When a column is not there or is the pupil id, or the file cannot be read to its end.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"pupil": [1, 2, 3], "school": [7, 7, 8], "outcome": [40.0, None, 51.0],
        ...                       "prior": [100, 104, 99], "sen_status": ["N", "K", "E"]})
        >>> cohort = Cohort.from_pandas(frame, Roles("pupil", "school", "outcome", ("prior",), "sen_status"))
        >>> [batch.to_pydict() for batch in cohort.batches(["row_number", "school", "sen_level"])]
        [{'row_number': [1, 3], 'school': ['7', '8'], 'sen_level': [0, 2]}]
        """
        offered = [name for name in self.table.columns if name != self.roles.pupil]
        listed = f"The cohort offers {', '.join(offered)}; pupil ids never leave it."
        failures = [
            Failure("is not a column that can be read", name, remedy=f"{nearest_name(name, offered)} {listed}".strip())
            for name in columns
            if name not in offered
        ]
        if failures:
            raise InputError(failures)
        rows = self.table.filter(self.table.complete) if complete else self.table
        return self._stream(rows.select(*columns), size)

    def _stream(self, rows: ir.Table, size: int) -> Iterator[pa.RecordBatch]:
        # A cursor of its own: another query on the connection would end the stream.
        cursor = self.connection.con.cursor()
        with reading(self.source.name):
            yield from cursor.execute(self.connection.compile(rows)).to_arrow_reader(size)

    def profile(self, prior_knots: int = 5) -> CohortProfile:
        """Take the first pass: counts, bounds, knots and levels that later passes are held to.

        Parameters
        ----------
        prior_knots : int
            Interior knots of each prior score, at equally spaced quantiles.

        Returns
        -------
        CohortProfile
            Everything a streamed design needs so that batches give the same columns.

        Raises
        ------
        InputError
            When a number column holds text, a SEN code is unknown, or no row is complete.
        """
        return profile_cohort(self, prior_knots)


def open_cohort(
    path: str | Path,
    roles: Roles | Mapping[str, object],
    *,
    columns: Mapping[str, str] = _NO_COLUMNS,
    sen: SenCodes | None = None,
    table: str | None = None,
    outcome_range: OutcomeRange = (0.0, None),
    synthetic: bool = False,
) -> Cohort:
    """Open a file of pupil records without reading them.

    Parameters
    ----------
    path : str or pathlib.Path
        A .parquet, .csv, .csv.gz, .duckdb or .db file. CSV files are read as text first, so that codes with leading
        zeros stay codes; empty cells and NA are missing.
    roles : Roles or mapping
        Which column plays which part.
    columns : mapping of str to str
        Canonical name (a role's column or a field of the data dictionary) to the name in the file.
    sen : SenCodes, optional
        Codes of SEN status; N, K, E unless given.
    table : str, optional
        Table of a DuckDB file (``"table"`` or ``"schema.table"``).
    outcome_range : tuple of float or None
        Lowest and highest possible outcome, in outcome points.
    synthetic : bool
        Whether the records are simulated; carried to every output.

    Returns
    -------
    Cohort
        Columns without a role that are no field of the data dictionary (names, addresses) are never read.

    Raises
    ------
    InputError
        When the file is absent, empty, not what its name says, or lacks columns (all are listed, with the
        nearest name).
    StudyError
        When the roles contradict each other or `columns` names an unknown field.
    """
    known = roles if isinstance(roles, Roles) else Roles.from_mapping(roles)
    schema = pupil_schema(known, sen=sen, outcome_range=outcome_range)
    return _assemble(open_file(Path(path), table), known, schema, columns, sen or SenCodes(), outcome_range, synthetic)


def _assemble(
    opened: OpenedSource,
    roles: Roles,
    schema: pan.DataFrameSchema,
    columns: Mapping[str, str],
    sen: SenCodes,
    outcome_range: OutcomeRange,
    synthetic: bool,
) -> Cohort:
    kinds = column_kinds(schema)
    _require_known(columns, kinds)
    wanted = [name for name in kinds if name in roles.columns or name in columns]
    require_columns(opened.table, [columns.get(name, name) for name in wanted], opened.source)
    _refuse_ids_elsewhere(roles, columns, wanted)
    in_file = {name: columns.get(name, name) for name in kinds if columns.get(name, name) in opened.table.columns}
    recorded = opened.table.select(
        "row_number", **{name: opened.table[file_name] for name, file_name in in_file.items()}
    )
    typed = recorded.select(
        "row_number",
        **{name: as_code(recorded[name]) if kinds[name] == "code" else as_number(recorded[name]) for name in in_file},
    )
    table, earlier = split_by_roll(_with_derived(typed, roles, sen), roles)
    return Cohort(
        table=table,
        recorded=recorded,
        roles=roles,
        sen=sen,
        source=opened.source,
        outcome_range=outcome_range,
        columns=MappingProxyType(dict(columns)),
        synthetic=synthetic,
        connection=opened.connection,
        earlier=earlier,
    )


def _refuse_ids_elsewhere(roles: Roles, columns: Mapping[str, str], wanted: Sequence[str]) -> None:
    """Values are shown in messages; pupil ids never are, so no other column may read them."""
    ids = columns.get(roles.pupil, roles.pupil)
    twice = [name for name in wanted if name != roles.pupil and columns.get(name, name) == ids]
    if twice:
        remedy = "Map it to a column of its own."
        raise StudyError(
            Failure("reads the column of the pupil ids", f"columns.{name}", remedy=remedy) for name in twice
        )


def _require_known(columns: Mapping[str, str], kinds: Mapping[str, str]) -> None:
    failures = []
    for name in columns:
        if name not in kinds:
            hint = nearest_name(name, kinds)
            remedy = (
                f"{hint} Keys of [columns] are columns named under [roles], or fields of data_dictionary.md.".strip()
            )
            failures.append(BrokenRule("is a column of a role or a known field", f"columns.{name}", remedy=remedy))
    if failures:
        raise StudyError(failures)


def _with_derived(typed: ir.Table, roles: Roles, sen: SenCodes) -> ir.Table:
    levels = {"sen_level": as_sen_level(typed[roles.sen_status], sen)}
    if roles.sen_status_entry is not None:
        levels["sen_level_entry"] = as_sen_level(typed[roles.sen_status_entry], sen)
    table = typed.mutate(**levels)
    present = [table[name].notnull() for name in roles.needed_for_estimation if name != roles.sen_status]
    complete = table.sen_level.notnull()
    for condition in present:
        complete &= condition
    return table.mutate(complete=complete)
