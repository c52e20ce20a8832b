"""DfE's school tables: symbols, encodings, national rows; and known sums of the real files."""

import gzip
import math

import pytest

from send_va.errors import InputError
from send_va.records.dfe_symbols import symbol_map
from send_va.records.dfe_tables import read_school_table


def _write(folder, text, name="table.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_symbols_become_missing_values_that_keep_their_reason(tmp_path):
    rows = ["SUPP", "NE", "LOWCOV", "NP", "NA", "", "0.25", "-1"]
    text = "URN,LEA,ESTAB,P8MEA\n" + "\n".join(f"10000{i},201,400{i},{value}" for i, value in enumerate(rows))
    table = read_school_table(_write(tmp_path, text), columns=["P8MEA"])
    assert table.reasons["P8MEA"].tolist() == [
        "suppressed",
        "no entries",
        "low coverage",
        "not published",
        "not applicable",
        "blank",
        "",
        "",
    ]
    assert table.data["P8MEA"].tolist()[6:] == [0.25, -1.0]
    assert table.data["P8MEA"].isna().sum() == 6
    assert table.missing().loc["P8MEA", "suppressed"] == 1


def test_percent_signs_and_thousands_are_numbers(tmp_path):
    text = 'URN,LEA,ESTAB,PTFSM,NOR\n100001,201,4001,51.5%,"1,204"\n100002,201,4002,SUPP,980\n'
    table = read_school_table(_write(tmp_path, text))
    assert table.data["PTFSM"].iloc[0] == 51.5
    assert table.data["NOR"].tolist() == [1204.0, 980.0]


def test_keys_are_found_or_built(tmp_path):
    built = read_school_table(_write(tmp_path, "URN,LA,ESTAB,NOR\n100000,201,3614,285\n", "a.csv"))
    given = read_school_table(_write(tmp_path, "school_urn,school_laestab,n\n100000,2013614,285\n", "b.csv"))
    slash = read_school_table(_write(tmp_path, "URN,DfE number,n\n100000,201/3614,285\n", "c.csv"))
    for table in (built, given, slash):
        assert table.data["urn"].tolist() == [100000]
        assert table.data["laestab"].tolist() == [2013614]


def test_rows_that_are_not_schools_are_kept_apart(tmp_path):
    text = "URN,LEA,ESTAB,TSENELK\n100000,201,3614,50\n,201,,60\nNAT,,PRI,595708\n"
    table = read_school_table(_write(tmp_path, text))
    assert len(table.data) == 1
    assert table.totals["TSENELK"].tolist() == ["60", "595708"]


@pytest.mark.parametrize(("encoding", "said"), [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("latin-1", "Latin-1")])
def test_the_encoding_is_found_and_said(tmp_path, encoding, said):
    text = "URN,LEA,ESTAB,SCHNAME\n100001,201,4001,Sainte-Thérèse\n"
    table = read_school_table(_write(tmp_path, text, encoding=encoding))
    assert table.data.columns[0] == "urn"
    assert table.data["SCHNAME"].tolist() == ["Sainte-Thérèse"]
    assert table.sources == (f"table.csv ({said})",)


def test_a_gzipped_file_is_read(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"URN,LEA,ESTAB,NOR\n100001,201,4001,5\n"))
    assert read_school_table(path).data["NOR"].tolist() == [5.0]


def test_open_data_symbols_follow_the_release(tmp_path):
    text = "geographic_level,school_urn,school_laestab,n\nSchool,100001,2014001,z\nSchool,100002,2014002,x\n"
    text += "School,100003,2014003,low\nSchool,100004,2014004,7\nNational,,,12\n"
    path = _write(tmp_path, text)
    usual = read_school_table(path, "open_data", columns=["n"])
    assert usual.reasons["n"].tolist() == ["not applicable", "not available", "rounds to zero", ""]
    assert len(usual.totals) == 1
    sen = read_school_table(path, "sen_2024_25", columns=["n"])
    assert sen.reasons["n"].tolist()[:2] == ["not available", "not applicable"]
    changed = read_school_table(path, "open_data", columns=["n"], symbols={"low": "suppressed"})
    assert changed.reasons["n"].tolist()[2] == "suppressed"


def test_text_columns_stay_text(tmp_path):
    text = "URN,LEA,ESTAB,NFTYPE,P8MEA\n100001,201,4001,NE,0.1\n100002,201,4002,CY,0.2\n100003,201,4003,,0.3\n"
    table = read_school_table(_write(tmp_path, text))
    assert table.data["NFTYPE"].tolist()[:2] == ["NE", "CY"]
    assert table.reasons["NFTYPE"].tolist() == ["", "", "blank"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table.csv is empty"),
        ("SCHNAME,P8MEA\nA,0.1\n", "no column that identifies a school"),
        (
            "URN,P8MEA\n100001,0.1\n100001,0.2\n",
            r"urn: .*a school has one row; 2 rows fail; rows 1, 2; values 100001",
        ),
        (
            "URN,P8MEA\n100001,0.1\n100002,??\n100003,0.3\n",
            r"P8MEA: is a column of numbers and holds text .*; rows 2; values \?\?\. Look the symbol up",
        ),
    ],
)
def test_bad_files_are_refused_with_column_rows_and_remedy(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_school_table(_write(tmp_path, text))


def test_absent_files_and_columns_are_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file ks4\.csv"):
        read_school_table(tmp_path / "ks4.csv")
    path = _write(tmp_path, "URN,P8MEA\n100001,0.1\n")
    with pytest.raises(InputError, match=r"P8ME: is not a column of table\.csv\. Did you mean 'P8MEA'\?"):
        read_school_table(path, columns=["P8ME"])


def test_unknown_releases_and_reasons_are_refused():
    with pytest.raises(InputError, match="Known: performance_tables, open_data"):
        symbol_map("performance")
    with pytest.raises(InputError, match="unknown reason 'hidden'"):
        symbol_map("open_data", {"h": "hidden"})


def test_schools_of_the_census_sum_to_the_national_row(shared_data):
    table = read_school_table(
        shared_data / "england" / "2018-19" / "england_census.csv", columns=["SCHOOLTYPE", "TSENELK", "TSENELSE"]
    )
    primary = table.data[table.data["SCHOOLTYPE"] == "State-funded primary"]
    national = table.totals[table.totals["SCHOOLTYPE"] == "State-funded primary"]
    # The figure stands in the file's own national row: 595,708 primary pupils on SEN support.
    assert primary["TSENELK"].sum() == 595_708 == float(national["TSENELK"].iloc[0])
    assert primary["TSENELSE"].sum() == float(national["TSENELSE"].iloc[0])
    assert len(table.totals) == 3


def test_suppressed_exclusions_are_not_missing_at_random(shared_data):
    table = read_school_table(
        shared_data / "england" / "exclusions_2007_2017.csv.gz",
        "exclusions_2007_2017",
        columns=["time_period", "perm_excl"],
        unique=False,
    )
    last = table.data["time_period"] == 201617
    # National figure for 2016/17: 7,720 permanent exclusions.
    assert table.data.loc[last, "perm_excl"].sum() == 5_097
    assert (table.reasons.loc[last, "perm_excl"] == "suppressed").sum() > 1_000


def test_a_missing_value_is_not_a_number(tmp_path):
    table = read_school_table(_write(tmp_path, "URN,P8MEA\n100001,SUPP\n100002,0.1\n"))
    assert math.isnan(table.data["P8MEA"].iloc[0])
    kept = table.select(table.data["P8MEA"].notna())
    assert kept.data["urn"].tolist() == [100002]
    assert kept.missing().empty
