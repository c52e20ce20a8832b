"""Opening what holds the records: a Parquet, CSV or DuckDB file, or a data frame, as one lazy Ibis table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
from ibis.backends.duckdb import Backend

from send_va.errors import BrokenRule, Failure, InputError
from send_va.records.roles import nearest_name

READABLE = (".parquet", ".csv", ".csv.gz", ".duckdb", ".db")
# Empty cells and R's NA are missing in CSV files, for codes as for numbers.
_CSV_MISSING = ("", "NA")
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Source:
    """Where records came from, without the folder they lie in.

    Attributes
    ----------
    name : str
        File name, or ``"data frame"``.
    format : str
        ``"parquet"``, ``"csv"``, ``"duckdb"`` or ``"pandas"``.
    sha256 : str
        Hash of the file's bytes (of the used columns in Arrow form for a data frame), 64 hexadecimal digits.
    table : str or None
        Table of the DuckDB file.
    """

    name: str
    format: str
    sha256: str
    table: str | None = None

    def __str__(self) -> str:
        table = f", table {self.table}" if self.table else ""
        return f"{self.name}{table} (sha256 {self.sha256[:12]}...)"


@dataclass(frozen=True)
class OpenedSource:
    """A source and the connection it is read through.

    Attributes
    ----------
    source : Source
        Description for manifests and messages.
    connection : ibis DuckDB backend
        Private to the cohort; it never spills records to disk.
    table : ibis table
        All columns as recorded, and ``row_number`` counted from 1 in file order.
    """

    source: Source
    connection: Backend
    table: ir.Table


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn an engine error while reading records into an `InputError` that repeats no record.

    Parameters
    ----------
    name : str
        File name for the message.

    Raises
    ------
    InputError
        When DuckDB cannot read the file; the line is named where DuckDB knows it, its content is not.
    """
    try:
        yield
    except duckdb.Error as error:
        line = re.search(r"CSV Error on Line: (\d+)", str(error))
        where = f" at line {line.group(1)}" if line else ""
        remedy = "Check the encoding (UTF-8), the separator, the number of fields, and that the file is complete."
        kind = type(error).__name__
        raise InputError(BrokenRule(f"{name} can be read{where} ({kind})", remedy=remedy)) from None


def open_file(path: Path, table: str | None) -> OpenedSource:
    """Open a file of records lazily.

    Parameters
    ----------
    path : pathlib.Path
        A .parquet, .csv, .csv.gz, .duckdb or .db file.
    table : str or None
        Table (or ``schema.table``) of a DuckDB file; needed there, refused elsewhere.

    Returns
    -------
    OpenedSource
        Nothing has been read but the header and the hash.

    Raises
    ------
    InputError
        When the file is absent, empty, of another kind than its name says, or the table is not in it.
    """
    suffix = next((s for s in sorted(READABLE, key=len, reverse=True) if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(f"{path.name} is not a kind of file that can be read", f"Use one of {', '.join(READABLE)}.")
    if not path.is_file():
        raise InputError(f"there is no file {path.name}", "Check [data] file; it is relative to the study file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty (0 bytes)", "Export the records again.")
    if table is not None and suffix not in (".duckdb", ".db"):
        raise InputError(f"{path.name} has no tables, but table {table!r} was named", "Leave table out.")
    if suffix == ".parquet":
        return _open_parquet(path)
    if suffix in (".csv", ".csv.gz"):
        return _open_csv(path)
    return _open_duckdb(path, table)


def open_frame(frame: pd.DataFrame, columns: Sequence[str]) -> OpenedSource:
    """Copy the needed columns of a data frame into a private in-memory database.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per pupil; the index is ignored.
    columns : sequence of str
        Columns to carry; all others stay out.

    Returns
    -------
    OpenedSource
        Its hash is over the Arrow form of these columns.

    Raises
    ------
    InputError
        When the frame has no rows or a column name occurs twice.
    """
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()] if name in columns})
    if twice:
        raise InputError(Failure("occurs more than once", ", ".join(twice), remedy="Rename the repeated one."))
    if frame.empty:
        raise InputError("the data frame has no rows", "Pass one row per pupil.")
    arrow = pa.table({name: _arrow_column(frame[name]) for name in columns})
    digest = hashlib.sha256()
    for batch in arrow.to_batches():
        digest.update(batch.serialize())
    arrow = arrow.append_column("row_number", pa.array(np.arange(1, len(frame) + 1, dtype=np.int64)))
    connection = _private_connection()
    return OpenedSource(
        Source("data frame", "pandas", digest.hexdigest()), connection, connection.create_table("pupils", arrow)
    )


def require_columns(table: ir.Table, wanted: Sequence[str], source: Source) -> None:
    """Refuse a table that lacks needed columns, naming all of them at once.

    Parameters
    ----------
    table : ibis table
        As recorded.
    wanted : sequence of str
        Column names in the file.
    source : Source
        For the message.

    Raises
    ------
    InputError
        One failure per missing column, with the nearest existing name.
    """
    present = [name for name in table.columns if name != "row_number"]
    if wanted and not set(wanted) & set(present):
        # What stands there may be the first pupil's record, so it is not shown.
        raise InputError(
            f"{source.name} has none of the columns {', '.join(wanted)}",
            "Check that its first line names the columns, that commas separate them, and that every row has as many "
            "fields; map other names under [columns].",
        )
    listed = ", ".join(present[:30]) + (f", ... ({len(present)} in all)" if len(present) > 30 else "")
    failures = []
    for name in wanted:
        if name not in present:
            hint = nearest_name(name, present)
            hint = f"{hint[0].upper()}{hint[1:]} " if hint else ""
            remedy = f"{hint}The file has: {listed}. Map a column of another name under [columns]."
            failures.append(Failure(f"is not a column of {source.name}", name, remedy=remedy))
    if failures:
        raise InputError(failures)


def _private_connection() -> Backend:
    return ibis.duckdb.connect(temp_directory="")


def _open_parquet(path: Path) -> OpenedSource:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-min(4, path.stat().st_size), 2)
        tail = file.read(4)
    if head != _PARQUET_MAGIC or tail != _PARQUET_MAGIC:
        raise InputError(
            f"{path.name} is not a Parquet file, or it is cut short", "Export it again, or name it .csv if it is text."
        )
    scan = (
        "SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS row_number "
        f"FROM read_parquet({_literal(path)}, file_row_number = true)"
    )
    return _scanned(path, "parquet", scan)


def _open_csv(path: Path) -> OpenedSource:
    missing = ", ".join(f"'{text}'" for text in _CSV_MISSING)
    scan = (
        "SELECT *, row_number() OVER () AS row_number "
        f"FROM read_csv({_literal(path)}, header = true, all_varchar = true, nullstr = [{missing}])"
    )
    return _scanned(path, "csv", scan)


def _scanned(path: Path, kind: str, scan: str) -> OpenedSource:
    connection = _private_connection()
    source = Source(path.name, kind, _file_hash(path))
    with reading(path.name):
        table = connection.sql(scan)
        if connection.con.execute(f"SELECT 1 FROM ({scan}) LIMIT 1").fetchone() is None:
            raise InputError(f"{path.name} has a header but no rows", "Export the records again.")
    return OpenedSource(source, connection, table)


def _open_duckdb(path: Path, table: str | None) -> OpenedSource:
    try:
        connection = ibis.duckdb.connect(path, read_only=True, temp_directory="")
    except duckdb.Error:
        remedy = "Check the file, and close the program that writes to it."
        raise InputError(
            f"{path.name} is not a DuckDB file, or another program has it open for writing", remedy
        ) from None
    tables = _table_names(connection)
    if table is None or table not in tables:
        problem = (
            f"{path.name} has no table {table!r}" if table else f"{path.name} is a database: its table is not named"
        )
        raise InputError(problem, f"Name one of its tables under [data] table: {', '.join(tables) or 'it has none'}.")
    *schema, name = table.split(".") if table not in connection.list_tables() else [table]
    recorded = connection.table(name, database=schema[0] if schema else None)
    recorded = recorded.mutate(row_number=ibis.row_number() + 1)
    if recorded.limit(1).to_pyarrow().num_rows == 0:
        raise InputError(f"table {table} of {path.name} has no rows", "Load the records again.")
    return OpenedSource(Source(path.name, "duckdb", _file_hash(path), table), connection, recorded)


def _table_names(connection: Backend) -> list[str]:
    query = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
    rows = connection.con.execute(query).fetchall()
    return [name if schema == "main" else f"{schema}.{name}" for schema, name in rows]


def _literal(path: Path) -> str:
    """Write a path as SQL text, with the characters that DuckDB would read as a pattern made literal."""
    pattern_free = re.sub(r"([\[*?])", r"[\1]", str(path.absolute()))
    return "'" + pattern_free.replace("'", "''") + "'"


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _arrow_column(series: pd.Series) -> pa.ChunkedArray | pa.Array:
    values = series.astype(object) if isinstance(series.dtype, pd.CategoricalDtype) else series
    try:
        array = pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        # Numbers and text in one column: kept as text, so that the check can name the rows.
        return pa.Array.from_pandas([None if pd.isna(value) else str(value) for value in values], type=pa.string())
    # DuckDB has no column without a type.
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array
