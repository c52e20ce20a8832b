"""What the pins on sqlglot and duckdb, and the h5py requirement, are for: these calls break without them."""

from pathlib import Path

import duckdb
import ibis
import numpy as np
import pandas as pd
import xarray as xr


def test_ibis_creates_overwrites_and_drops_a_table() -> None:
    connection = ibis.duckdb.connect()
    connection.create_table("t", pd.DataFrame({"x": [1, 2]}))
    connection.create_table("t", pd.DataFrame({"x": [3, 4, 5]}), overwrite=True)
    assert connection.table("t").count().to_pyarrow().as_py() == 3
    connection.drop_table("t")
    assert connection.list_tables() == []


def test_ibis_lists_the_tables_of_a_duckdb_file(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "pupils.duckdb")) as connection:
        connection.execute("CREATE TABLE b AS SELECT 1 AS x; CREATE VIEW a AS SELECT * FROM b")
    assert sorted(ibis.duckdb.connect(tmp_path / "pupils.duckdb", read_only=True).list_tables()) == ["a", "b"]


def test_xarray_reloads_a_netcdf_through_h5netcdf(tmp_path: Path) -> None:
    draws = xr.Dataset(
        {"theta": (("draw", "school"), np.arange(6.0).reshape(2, 3))}, {"school": ["7", "8", "9"]}, {"seed": 1}
    )
    draws.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "draws.nc", engine="h5netcdf") as reloaded:
        xr.testing.assert_identical(reloaded.load(), draws)
