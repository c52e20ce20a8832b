"""Reading: the same rows from every kind of file, streamed in order, and clear refusals of what cannot be read."""

import gzip
import io
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError, StudyError
from send_va.records.reader import Cohort, open_cohort
from send_va.records.roles import Roles, SenCodes

ROLES = Roles(
    "pupil",
    "school",
    "outcome",
    ("prior",),
    "sen_status",
    "sen_status_entry",
    la="la",
    context=("C(ethnicity)", "fsm6"),
)
SHOWN = ["row_number", "school", "la", "outcome", "prior", "sen_level", "sen_level_entry", "ethnicity", "fsm6"]


def pupils(n: int = 50, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "pupil": [f"P{i:06d}" for i in rng.permutation(n)],
            "school": rng.integers(100, 104, n),
            "la": rng.choice(["021", "005"], n),
            "outcome": rng.normal(45, 15, n).round(1).clip(0, 90),
            "prior": (rng.normal(104, 8, n) * 2).round() / 2,
            "sen_status": rng.choice(["N", "K", "E"], n, p=[0.7, 0.2, 0.1]),
            "sen_status_entry": rng.choice(["N", "K", None], n, p=[0.8, 0.1, 0.1]),
            "ethnicity": rng.choice(["WHIT", "ASIA"], n),
            "fsm6": rng.integers(0, 2, n),
            "LAST_NAME": "Someone",
        }
    )
    frame.loc[frame.sample(frac=0.1, random_state=1).index, "outcome"] = np.nan
    return frame


def rows(cohort: Cohort, columns: list[str] | None = None, *, complete: bool = True, size: int = 2048) -> pa.Table:
    return pa.Table.from_batches(cohort.batches(columns or SHOWN, size, complete=complete))


def write(frame: pd.DataFrame, folder: Path, kind: str) -> tuple[Path, str | None]:
    path = folder / f"pupils.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "duckdb":
        with duckdb.connect(str(path)) as connection:
            connection.register("frame", frame)
            connection.execute("CREATE TABLE ks4 AS SELECT * FROM frame")
        return path, "ks4"
    else:
        frame.to_csv(path, index=False, compression="gzip" if kind == "csv.gz" else None)
    return path, None


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "duckdb"])
def test_every_kind_of_file_gives_the_rows_of_the_frame(kind: str, tmp_path: Path) -> None:
    frame = pupils()
    path, table = write(frame, tmp_path, kind)
    from_file = open_cohort(path, ROLES, table=table)
    assert rows(from_file).equals(rows(Cohort.from_pandas(frame, ROLES)))
    assert from_file.n_rows == 50
    assert from_file.source.name == path.name
    assert str(tmp_path) not in str(from_file.source)
    assert len(from_file.source.sha256) == 64


def test_rows_come_in_file_order_with_the_levels_of_need() -> None:
    frame = pupils(5_000)
    table = rows(Cohort.from_pandas(frame, ROLES), complete=False)
    assert table["row_number"].to_pylist() == list(range(1, 5_001))
    assert table["sen_level"].to_pylist() == frame["sen_status"].map({"N": 0, "K": 1, "E": 2}).tolist()
    assert table.schema.field("sen_level").type == pa.int8()
    assert table["sen_level_entry"].null_count == frame["sen_status_entry"].isna().sum()


def test_complete_leaves_out_rows_with_a_missing_value_an_estimate_needs() -> None:
    frame = pupils(6).assign(outcome=[1, None, 3, 4, 5, 6.0], ethnicity=["A", "A", None, "A", "", "A"], la=None)
    assert rows(Cohort.from_pandas(frame, ROLES))["row_number"].to_pylist() == [1, 4, 6]


def test_batches_have_equal_size_and_may_be_read_side_by_side() -> None:
    cohort = Cohort.from_pandas(pupils(10_000), ROLES)
    pairs = list(zip(cohort.batches(["row_number"], 2048), cohort.batches(["outcome"], 2048), strict=True))
    assert {left.num_rows for left, _ in pairs[:-1]} == {2048}
    assert all(left.num_rows == right.num_rows for left, right in pairs)
    assert cohort.n_rows == 10_000


def test_names_are_not_carried_and_pupil_ids_never_leave() -> None:
    cohort = Cohort.from_pandas(pupils(), ROLES)
    assert "LAST_NAME" not in cohort.table.columns
    assert "P0000" not in repr(cohort)
    with pytest.raises(InputError, match=r"pupil: is not a column that can be read.*pupil ids never leave it"):
        cohort.batches(["outcome", "pupil"])


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean 'sen_level'\?"):
        Cohort.from_pandas(pupils(), ROLES).batches(["sen_levl"])


def test_codes_with_leading_zeros_survive_csv(tmp_path: Path) -> None:
    path, _ = write(pupils(), tmp_path, "csv")
    assert set(rows(open_cohort(path, ROLES))["la"].to_pylist()) == {"021", "005"}


def test_na_and_blanks_of_csv_are_missing(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "pupil,school,outcome,prior,sen_status\n1,7,40,NA,N\n2,7,,100,K\n3,7, 41.5 ,101,K \n"
    )
    cohort = open_cohort(tmp_path / "p.csv", Roles("pupil", "school", "outcome", ("prior",), "sen_status"))
    kept = rows(cohort, ["row_number", "outcome", "sen_level"]).to_pylist()
    assert kept == [{"row_number": 3, "outcome": 41.5, "sen_level": 1}]


def test_columns_map_canonical_names_onto_the_file(tmp_path: Path) -> None:
    frame = pupils().rename(columns={"outcome": "KS4_ATT8", "school": "KS4_URN", "fsm6": "EVERFSM_6_SPR23"})
    path, _ = write(frame, tmp_path, "parquet")
    mapped = open_cohort(path, ROLES, columns={"outcome": "KS4_ATT8", "school": "KS4_URN", "fsm6": "EVERFSM_6_SPR23"})
    assert rows(mapped).equals(rows(Cohort.from_pandas(pupils(), ROLES)))


def test_integer_and_float_codes_are_the_same_text() -> None:
    roles = Roles("pupil", "school", "outcome", ("prior",), "sped", context=("C(band)",))
    sen = SenCodes(none=("0",), support=("1",), ehcp=())
    frame = pd.DataFrame({"pupil": [1, 2], "outcome": [1, 2], "prior": [1, 2], "school": [7, 8]})
    whole = Cohort.from_pandas(frame.assign(sped=[0, 1], band=[1, 2]), roles, sen=sen)
    floats = Cohort.from_pandas(frame.assign(sped=[0.0, 1.0], band=[1.0, 2.0]), roles, sen=sen)
    shown = ["school", "sen_level", "band"]
    assert rows(whole, shown).equals(rows(floats, shown))
    assert rows(whole, ["band"])["band"].to_pylist() == ["1", "2"]


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(0, 90, allow_nan=False)),
            st.sampled_from(["N", "K", "E", None]),
            st.sampled_from(["001", "2", "a b", "it's", 'quo"te', None]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_csv_and_frame_agree_on_any_values(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[float | None, str | None, str | None]]
) -> None:
    whole = (41.5, "N", "7")
    frame = pd.DataFrame([whole, *records], columns=["outcome", "sen_status", "school"]).astype(
        {"sen_status": object, "school": object}
    )
    frame = frame.assign(pupil=range(len(frame)), prior=1.5)
    roles = Roles("pupil", "school", "outcome", ("prior",), "sen_status")
    shown = ["row_number", "school", "outcome", "sen_level"]
    expected = frame[frame[["outcome", "sen_status", "school"]].notna().all(axis=1)]
    from_frame = rows(Cohort.from_pandas(frame, roles), shown)
    path, _ = write(frame, tmp_path_factory.mktemp("any"), "csv")
    assert rows(open_cohort(path, roles), shown).equals(from_frame)
    assert from_frame["row_number"].to_pylist() == [i + 1 for i in expected.index]
    assert from_frame["outcome"].to_pylist() == expected["outcome"].tolist()
    assert from_frame["school"].to_pylist() == expected["school"].tolist()


def refused(path: Path, roles: Roles = ROLES, table: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        for _ in open_cohort(path, roles, table=table).batches(["outcome"]):
            pass
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


def test_missing_columns_are_listed_with_the_nearest_names(tmp_path: Path) -> None:
    path, _ = write(pupils().rename(columns={"outcome": "outcom", "prior": "ks2", "la": "LA"}), tmp_path, "parquet")
    message = refused(path)
    assert "outcome: is not a column of pupils.parquet. Did you mean 'outcom'?" in message
    assert "Did you mean 'LA'?" in message
    assert "prior: is not a column" in message
    assert "[columns]" in message


def test_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    assert "a.parquet is empty (0 bytes)" in refused(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(",".join(pupils().columns) + "\n")
    assert "has a header but no rows" in refused(tmp_path / "b.csv")
    path, _ = write(pupils().iloc[:0], tmp_path, "parquet")
    assert "has a header but no rows" in refused(path)
    path, table = write(pupils().iloc[:0], tmp_path, "duckdb")
    assert "has no rows" in refused(path, table=table)
    with pytest.raises(InputError, match="data frame has no rows"):
        Cohort.from_pandas(pupils().iloc[:0], ROLES)


def test_what_is_not_parquet_is_refused(tmp_path: Path) -> None:
    pupils().to_csv(tmp_path / "pupils.parquet")
    assert "is not a Parquet file, or it is cut short" in refused(tmp_path / "pupils.parquet")
    whole, _ = write(pupils(), tmp_path, "parquet")
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-100])
    assert "is not a Parquet file, or it is cut short" in refused(tmp_path / "cut.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + bytes(200) + b"PAR1")
    assert "broken.parquet can be read" in refused(tmp_path / "broken.parquet")


def test_absent_and_foreign_files_are_refused(tmp_path: Path) -> None:
    assert "there is no file p.csv" in refused(tmp_path / "p.csv")
    assert "Use one of .parquet, .csv" in refused(tmp_path / "p.xlsx")
    path, _ = write(pupils(), tmp_path, "csv")
    assert "has no tables" in refused(path, table="ks4")


def test_a_database_needs_its_table_named(tmp_path: Path) -> None:
    path, _ = write(pupils(), tmp_path, "duckdb")
    assert "Name one of its tables under [data] table: ks4." in refused(path)
    assert "has no table 'ks5'" in refused(path, table="ks5")
    (tmp_path / "not.duckdb").write_bytes(bytes(5000))
    assert "not.duckdb is not a DuckDB file" in refused(tmp_path / "not.duckdb", table="ks4")


def test_a_broken_csv_names_the_line_but_not_its_content(tmp_path: Path) -> None:
    text = pupils(20).drop(columns="LAST_NAME").to_csv(index=False)
    (tmp_path / "p.csv").write_text(text + 'P-SECRET,100,021,"40,1\n')
    assert "SECRET" not in refused(tmp_path / "p.csv")
    latin = text.replace("ASIA", "AS\u00cdA").encode("latin-1")
    (tmp_path / "p.csv").write_bytes(latin)
    assert "encoding (UTF-8)" in refused(tmp_path / "p.csv")


def test_a_file_name_is_taken_literally(tmp_path: Path) -> None:
    path, _ = write(pupils(), tmp_path, "parquet")
    odd = path.rename(tmp_path / "pupil's [1] *.parquet")
    assert open_cohort(odd, ROLES).n_rows == 50


def test_a_gzip_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv.gz").write_bytes(b"pupil,school\n1,2\n")
    assert "p.csv.gz can be read" in refused(tmp_path / "p.csv.gz")
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as file:
        file.write(pupils().to_csv(index=False).encode())
    (tmp_path / "p.csv.gz").write_bytes(buffer.getvalue()[:200])
    refused(tmp_path / "p.csv.gz")


def test_an_unknown_key_of_columns_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"columns\.outcom.*did you mean 'outcome'\?"):
        Cohort.from_pandas(pupils(), ROLES, columns={"outcom": "outcome"})


def test_a_column_that_occurs_twice_is_refused() -> None:
    frame = pd.concat([pupils(), pupils()[["outcome"]]], axis=1)
    with pytest.raises(InputError, match="outcome: occurs more than once"):
        Cohort.from_pandas(frame, ROLES)


def test_the_hash_follows_the_content() -> None:
    first, same = Cohort.from_pandas(pupils(), ROLES), Cohort.from_pandas(pupils(), ROLES)
    other = Cohort.from_pandas(pupils().assign(outcome=1.0), ROLES)
    assert first.source == same.source
    assert first.source.sha256 != other.source.sha256


def test_names_of_real_pupils_stay_out(shared_data: Path) -> None:
    roles = Roles("ID", "SCHOOL_NUMBER", "SCALE_SCORE", ("GRADE",), "IEP_STATUS")
    sen = SenCodes(none=("IEP: No",), support=("IEP: Yes",), ehcp=())
    path = shared_data / "pupils" / "sgpdata_long.csv.gz"
    cohort = open_cohort(path, roles, sen=sen, outcome_range=(None, None), synthetic=True)
    assert not {"FIRST_NAME", "LAST_NAME"} & set(cohort.recorded.columns)
    assert cohort.n_rows == 368_301


def test_pupil_ids_are_not_read_as_anything_else() -> None:
    frame = pd.DataFrame(
        {"id": [1000001, 1000002], "school": [7, 8], "outcome": [1.0, 2.0], "prior": [1.0, 2.0], "sen": ["N", "K"]}
    )
    roles = Roles("id", "school", "outcome", ("prior",), "sen")
    with pytest.raises(StudyError, match=r"columns\.school: reads the column of the pupil ids") as caught:
        Cohort.from_pandas(frame, roles, columns={"school": "id"})
    assert "1000001" not in str(caught.value)
    with pytest.raises(StudyError, match="id: is the pupil id and has another role too"):
        Roles("id", "id", "outcome", ("prior",), "sen")


def test_a_file_without_header_shows_no_record(tmp_path: Path) -> None:
    path = tmp_path / "pupils.csv"
    path.write_text("1007387,900001,56.58,117.5,N\n1007388,900001,41.0,101.5,K\n")
    with pytest.raises(InputError, match=r"has none of the columns .*first line names the columns") as caught:
        open_cohort(path, Roles("id", "school", "outcome", ("prior",), "sen"))
    assert "1007387" not in str(caught.value)
