"""The manuscript is built from results alone: nothing missing, nothing typed, nothing loaded from outside."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from result_files import write_made_up_results

PAPER = Path(__file__).resolve().parents[2] / "paper"
MANUSCRIPT = (PAPER / "manuscript.md").read_text(encoding="utf-8")


def _load(name):
    specification = importlib.util.spec_from_file_location(f"paper_{name}", PAPER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


placeholders = _load("placeholders")
build = _load("build")


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    write_made_up_results(MANUSCRIPT, folder)
    return folder


def run(tmp_path, results, text=MANUSCRIPT):
    manuscript = tmp_path / "text.md"
    manuscript.write_text(text, encoding="utf-8")
    return build.main(["--manuscript", str(manuscript), "--results", str(results), "--out", str(tmp_path / "out")])


def fill(text, folder):
    return placeholders.fill(text, folder, "pictures")


def test_manuscript_has_no_typed_result():
    assert placeholders.typed_numbers(MANUSCRIPT) == []


def test_builds_pdf_and_a_page_that_needs_nothing_else(tmp_path, results):
    pytest.importorskip("pypandoc", reason="the extra [paper] is not installed")
    pytest.importorskip("typst", reason="the extra [paper] is not installed")
    write_made_up_results('{{figure:made_up "A picture"}}', results)
    text = MANUSCRIPT.replace("# Results\n", '# Results\n\n{{figure:made_up "A picture" width=60%}}\n', 1)
    assert run(tmp_path, results, text) == 0
    assert (tmp_path / "out" / "manuscript.pdf").read_bytes().startswith(b"%PDF-")
    page = (tmp_path / "out" / "manuscript.html").read_text(encoding="utf-8")
    assert "{{" not in page
    assert "<svg" in page or "data:image/svg+xml" in page
    loaded = re.findall(r'(?:src="|<link[^>]*href="|url\()([^")]+)', page)
    assert [address for address in loaded if not address.startswith(("data:", "#"))] == []
    assert "Leckie and Goldstein" in page and "Figure\u00a01." in page
    first = (tmp_path / "out" / "manuscript.pdf").read_bytes()
    assert run(tmp_path, results, text) == 0
    assert (tmp_path / "out" / "manuscript.pdf").read_bytes() == first


def test_everything_missing_is_listed_and_nothing_is_written(tmp_path, results, capsys):
    pytest.importorskip("pypandoc", reason="the extra [paper] is not installed")
    pytest.importorskip("typst", reason="the extra [paper] is not installed")
    (results / "study.json").write_text('{"n_schools": 12}')
    (results / "moves.csv").write_text("from,to\nprior,cva\n")
    text = MANUSCRIPT + (
        '\n{{figure:absent "A"}}\n\n{{table:absent "B"}}\n\n{{table:moves "C" columns="nowhere=N"}}\n\n'
        "{{study.n_pupils}} {{other.n}} [@nobody1999] {{ref:table:unshown}} {{study.n_schools:,q}} {{unclosed\n"
    )
    assert run(tmp_path, results, text) == 2
    printed = capsys.readouterr().err
    for problem in (
        "results/study.json: no number under the key n_pupils",
        "results/other.json: the file is missing (wanted for n)",
        "results/absent.svg: the figure is missing, and absent.png too",
        "results/absent.csv: the table is missing",
        "results/moves.csv: no column nowhere",
        "references.bib: no entry for the citation nobody1999",
        "{{ref:table:unshown}}: the manuscript shows no table unshown",
        "results/study.json: n_schools is 12, which the format ,q cannot write",
        "{{unclosed: not a placeholder",
        "Run python analyses/run_all.py first",
    ):
        assert problem in printed
    assert not (tmp_path / "out").exists()


def test_broken_bibliography_is_reported_with_its_line(tmp_path, results, capsys):
    pytest.importorskip("pypandoc", reason="the extra [paper] is not installed")
    broken = tmp_path / "references.bib"
    broken.write_text(
        (PAPER / "references.bib").read_text(encoding="utf-8").replace("year    = {1979},", "year = {1979", 1)
    )
    arguments = ["--bibliography", str(broken), "--results", str(results), "--out", str(tmp_path / "out")]
    assert build.main(arguments) == 2
    assert "references.bib" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("A gain of 0.17 points.", "0.17"),
        ("Some 3,135 schools.", "3,135"),
        ("We found $r = 0.8$.", "0.8"),
        ('{{table:x "All 12 schools" columns="a=A"}}', "12"),
        ('{{table:x "All" columns="a=Share of 40"}}', "40"),
    ],
)
def test_typed_numbers_are_found(line, number):
    text = f"# Data\n\nIn 2019 there were 5 files.\n\n# Results\n\n{line}\n\n# Next\n\n3 steps.\n"
    assert placeholders.typed_numbers(text) == [
        f"line 7, Results: the number {number} is typed; take it from analyses/results"
    ]


def test_names_citations_and_placeholders_may_hold_digits():
    text = (
        "# Results\n\nProgress 8 and Attainment 8 at Key Stage 4 (KS2, grade 8, Year 11) in 2018/19, by lme4, 95 % "
        'intervals [@leckie2019; see @bates2015]: {{england_2018_19.n:,.0f}}, {{table:t2 "A" columns="q1=B:.2f"}}.\n'
    )
    assert placeholders.typed_numbers(text) == []


@pytest.mark.parametrize(
    ("placeholder", "shown"),
    [
        ("{{a.n:,}}", "12,345"),
        ("{{a.deep.share:.0%}}", "26\u00a0%"),
        ("{{a.change:.2f}}", "\u22120.17"),
        ("{{a.tiny:.2f}}", "0.00"),
        ("{{a.name}}", "North East"),
    ],
)
def test_numbers_are_written_as_asked(tmp_path, placeholder, shown):
    values = {"n": 12345, "deep": {"share": 0.26}, "change": -0.17, "tiny": -0.001, "name": "North East"}
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert fill(placeholder, tmp_path).text == shown


def test_tables_take_columns_rows_and_formats(tmp_path):
    (tmp_path / "t.csv").write_text("level,name,share,n\nschool,A|B,0.25,10\nla,C,0.5,20\nschool,D,-0.5,\n")
    text = '{{table:t "Shares" columns="name=Name; share=Share:.0%; n=Number:,d" where="level=school"}} {{ref:table:t}}'
    filled = fill(text, tmp_path)
    assert filled.problems == []
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in filled.text.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in row] for row in (rows[0], *rows[2:])] == [
        ["Name", "Share", "Number"],
        ["A\\|B", "25\u00a0%", "10"],
        ["D", "\u221250\u00a0%", ""],
    ]
    assert ": **Table\u00a01.** Shares" in filled.text and filled.text.endswith("Table\u00a01")
    assert fill('{{table:t "S" rows=1}}', tmp_path).text.count("\n|") == 3
    assert fill('{{table:t "S" where="level=trust"}}', tmp_path).problems == [
        f"{tmp_path.name}/t.csv: no rows with level=trust"
    ]
    assert "could not convert" in fill('{{table:t "S" columns="name=N:.1f"}}', tmp_path).problems[0]
    (tmp_path / "long.csv").write_text("a\n" + "1\n" * 46)
    assert "46 rows do not fit on a page; choose at most 45" in fill('{{table:long "L"}}', tmp_path).problems[0]
    assert "is not an option" in fill('{{table:t "S" colour=red}}', tmp_path).problems[0]


def test_every_reference_has_what_a_reader_needs_and_is_cited():
    entries = re.findall(r"@(\w+)\{([^,]+),(.*?)\n\}", (PAPER / "references.bib").read_text(encoding="utf-8"), re.S)
    assert len(entries) == len({key for _, key, _ in entries})
    for kind, key, fields in entries:
        for field in ("author", "title", "year", *(["journal"] if kind == "article" else [])):
            assert re.search(rf"\n\s*{field}\s*=", fields), f"{key} lacks {field}"
        assert f"@{key}" in MANUSCRIPT, f"{key} is not cited"
        for doi in re.findall(r"doi\s*=\s*\{(.*?)\}", fields):
            assert re.fullmatch(r"10\.\d{4,5}/\S+", doi)
