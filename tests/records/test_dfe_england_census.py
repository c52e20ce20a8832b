"""Census counts of mainstream schools over the years: what is kept, that England adds up, and which school is which."""

import pandas as pd
import pytest

from send_va.errors import InputError, NotSupportedError
from send_va.records.dfe_census import england_census

HEADER = {
    "2018-19": "URN,LA,ESTAB,SCHOOLTYPE,NOR,PNORG,TSENELSE,TSENELK,PNUMEAL,PNUMFSMEVER",
    "2022-23": "URN,LA,Estab,SCHOOLTYPE,NOR,PNORG,TSENELSE,TSENELK,PNUMEAL,PNUMFSMEVER",
}
BEFORE = [
    "100001,201,2001,State-funded primary,200,49.5,4,30,10,20",
    "100002,201,2002,State-funded primary,100,50,NA,NA,NA,NA",
    "100003,201,2003,State-funded primary,300,50,6,40,10,20",
    "100004,201,4004,State-funded secondary,900,50,20,100,10,NA",
    "100005,201,7005,State-funded special school,90,30,88,2,10,50",
    "100006,201,6006,Independent school,90,0,1,9,NA,NA",
]
AFTER = [
    "100001,201,2001,State-funded primary,210,49.5%,5,31,10.5%,20.0%",
    "140003,202,2003,State-funded primary,310,50.0%,7,41,10.0%,20.0%",
    "140013,202,2013,State-funded primary,0,0.0%,0,0,0.0%,0.0%",
    "140004,202,4014,State-funded secondary,950,50.0%,25,110,10.0%,20.0%",
]
LINKS = "URN,LinkURN,LinkName,LinkType\n{}"


def _write(folder, before=BEFORE, after=AFTER, links="140004,100004,A,Predecessor\n"):
    for year, rows in (("2018-19", before), ("2022-23", after)):
        path = folder / year / "england_census.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([HEADER[year], *rows]) + "\n", encoding="utf-8-sig")
    (folder / "links").mkdir(exist_ok=True)
    (folder / "links" / "links_edubasealldata20250422.csv").write_text(LINKS.format(links), encoding="latin-1")
    return folder


def test_only_mainstream_schools_are_kept_and_percent_signs_read(tmp_path):
    table = england_census(_write(tmp_path))
    assert table.data["urn"].tolist() == [100001, 100002, 100003, 100004, 100001, 140003, 140013, 140004]
    assert table.data["phase"].tolist() == ["primary"] * 3 + ["secondary"] + ["primary"] * 3 + ["secondary"]
    last = table.data[table.data["year"] == "2022-23"].iloc[0]
    assert last[["roll", "n_sen_support", "n_ehcp", "fsm6", "eal", "girls"]].tolist() == [210, 31, 5, 20, 10.5, 49.5]
    assert table.reasons["n_ehcp"].tolist() == ["", "not applicable"] + [""] * 6
    assert table.reasons["fsm6"].tolist()[:4] == ["", "not applicable", "", "not applicable"]


def test_a_school_keeps_its_last_number_over_conversion_and_links(tmp_path):
    table = england_census(_write(tmp_path))
    # 100003 became 140003 on the same establishment number, but in a new authority: its LAESTAB is another.
    assert table.data["school"].tolist()[:4] == [100001, 100002, 100003, 140004]
    same = _write(tmp_path, after=[row.replace(",202,2003,", ",201,2003,") for row in AFTER])
    assert england_census(same).data["school"].tolist()[:4] == [100001, 100002, 140003, 140004]
    (report,) = england_census(same).joins
    assert (report.by_urn, report.by_laestab, report.by_link) == (1, 1, 1)


def test_the_school_that_kept_its_urn_is_the_school_and_a_split_one_is_none(tmp_path):
    links = "140003,100001,A,Predecessor - Split School\n140004,100003,B,Predecessor\n140013,100003,C,Predecessor\n"
    table = england_census(_write(tmp_path, links=links))
    earlier = table.data[table.data["year"] == "2018-19"].set_index("urn")["school"]
    assert earlier[100001] == 100001
    assert earlier[100003] == 100003
    assert not table.data.duplicated(["school", "year"]).any()


def test_one_year_needs_no_links(tmp_path):
    _write(tmp_path)
    (tmp_path / "links" / "links_edubasealldata20250422.csv").unlink()
    table = england_census(tmp_path, ["2022-23"])
    assert (table.data["school"] == table.data["urn"]).all()
    assert table.joins == ()
    with pytest.raises(InputError, match=r"no links_edubasealldata\*\.csv"):
        england_census(tmp_path)


def test_schools_must_add_up_to_the_national_row(tmp_path):
    national = "NAT,,PRI,State-funded primary,600,50,10,71,10,20"
    with pytest.raises(InputError) as caught:
        england_census(_write(tmp_path, before=[*BEFORE, national]))
    assert str(caught.value) == (
        "TSENELK: primary schools of 2018-19 add up to 70, the national row to 71. Download the file again."
    )
    right = national.replace(",71,", ",70,")
    assert len(england_census(_write(tmp_path, before=[*BEFORE, right])).totals) == 1


def test_other_years_and_orders_are_refused(tmp_path):
    with pytest.raises(NotSupportedError, match="2018-19, 2022-23, not for 2020-21"):
        england_census(tmp_path, ["2020-21"])
    with pytest.raises(NotSupportedError, match="not for no year"):
        england_census(tmp_path, [])
    for years in (["2022-23", "2018-19"], ["2018-19", "2018-19"]):
        with pytest.raises(InputError, match="do not ascend"):
            england_census(tmp_path, years)
    with pytest.raises(InputError, match=r"there is no file england_census\.csv in 2018-19"):
        england_census(tmp_path)


@pytest.fixture(scope="module")
def england(shared_data):
    return england_census(shared_data / "england")


def test_england_has_every_state_funded_school_once_a_year(england):
    counted = england.data.groupby(["year", "phase"]).agg(
        schools=("urn", "size"), support=("n_sen_support", "sum"), ehcp=("n_ehcp", "sum"), roll=("roll", "sum")
    )
    # Rows of the files, and DfE's national rows (PRI, SEC).
    assert counted.to_numpy(dtype=int).tolist() == [
        [16_769, 595_708, 74_404, 4_727_089],
        [3_448, 358_555, 55_233, 3_327_970],
        [16_783, 629_184, 117_757, 4_647_851],
        [3_444, 448_967, 87_219, 3_630_171],
    ]
    assert not england.data.duplicated(["school", "year"]).any()
    complete = england.data.dropna(subset=["roll", "fsm6"]).groupby(["year", "phase"]).size()
    assert complete["2018-19", "secondary"] == 3_394  # those with a percentage of pupils eligible for free meals


def test_england_schools_are_followed_over_the_years(england):
    (report,) = england.joins
    assert [round(100 * rate, 1) for rate in report.rates] == [91.0, 96.9, 99.2]
    followed = england.data.groupby("school")["year"].nunique()
    assert ((followed == 2).sum(), (followed == 1).sum()) == (20_042, 360)
    wide = england.data.pivot_table(index="school", columns="year", values="la").dropna()
    moved = wide[wide["2018-19"] != wide["2022-23"]]
    # Bournemouth, Poole and Dorset were reorganised in 2019, Northamptonshire in 2021; nobody else moved.
    assert set(moved["2018-19"]) == {835, 836, 837, 928}
    assert isinstance(england.data["school"].dtype, pd.Int64Dtype)
