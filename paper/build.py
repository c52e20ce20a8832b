"""Build the manuscript to PDF and HTML: ``python paper/build.py``.

Every number, table and figure comes from ``analyses/results``; the build stops with exit code 2 and a list when one is
missing, when a citation has no entry in ``references.bib``, or when a number is typed into the results.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from placeholders import fill, typed_numbers

PAPER = Path(__file__).resolve().parent
READER = "markdown+pipe_tables+implicit_figures+tex_math_dollars-auto_identifiers"
PICTURES = "pictures"


class BuildError(Exception):
    """What keeps the manuscript from being built, one problem a line."""


def build(manuscript: Path, bibliography: Path, results: Path, out: Path) -> list[Path]:
    """Fill in the results and write ``manuscript.pdf`` and ``manuscript.html``.

    Parameters
    ----------
    manuscript, bibliography : pathlib.Path
        Markdown and BibTeX.
    results : pathlib.Path
        Folder of the analyses' results.
    out : pathlib.Path
        Made when it does not exist.

    Returns
    -------
    list of pathlib.Path
        The PDF and the HTML page; the page holds its pictures and opens anywhere.

    Raises
    ------
    BuildError
        Something is missing or cannot be typeset; nothing is written then.
    """
    try:
        import pypandoc
        import typst
    except ImportError as error:
        raise BuildError(f"{error.name} is not installed; install the package with its extra [paper]") from error
    source = manuscript.read_text(encoding="utf-8")
    filled = fill(source, results, PICTURES)
    problems = filled.problems + typed_numbers(source) + _unknown_citations(filled.text, bibliography, pypandoc)
    if problems:
        raise BuildError("\n".join(dict.fromkeys(problems)))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / PICTURES).mkdir()
        for picture in filled.figures:
            shutil.copyfile(picture, work / PICTURES / picture.name)
        (work / "manuscript.md").write_text(filled.text, encoding="utf-8")
        try:
            _typeset(work, bibliography.resolve(), pypandoc, typst)
        except (RuntimeError, typst.TypstError) as error:
            raise BuildError(str(error)) from error
        shutil.copytree(work, out, dirs_exist_ok=True)
    return [out / "manuscript.pdf", out / "manuscript.html"]


def _typeset(work: Path, bibliography: Path, pypandoc: Any, typst: Any) -> None:
    shared = ["--standalone", "--citeproc", f"--bibliography={bibliography}", "--number-sections", "--columns=160"]
    pypandoc.convert_file(
        str(work / "manuscript.md"),
        "typst",
        format=READER,
        outputfile=str(work / "manuscript.typ"),
        extra_args=[*shared, f"--include-in-header={PAPER / 'style.typ'}"],
    )
    pypandoc.convert_file(
        str(work / "manuscript.md"),
        "html5",
        format=READER,
        outputfile=str(work / "manuscript.html"),
        extra_args=[
            *shared,
            "--embed-resources",
            "--mathml",
            f"--css={PAPER / 'style.css'}",
            f"--resource-path={work}",
        ],
    )
    typst.compile(
        str(work / "manuscript.typ"),
        output=str(work / "manuscript.pdf"),
        root=str(work),
        ignore_system_fonts=True,
        timestamp=0,
    )


def _unknown_citations(text: str, bibliography: Path, pypandoc: Any) -> list[str]:
    known = set(re.findall(r"@\w+\{\s*([^,\s]+)\s*,", bibliography.read_text(encoding="utf-8")))
    document = json.loads(pypandoc.convert_text(text, "json", format=READER))
    return [
        f"{bibliography.name}: no entry for the citation {key}"
        for key in dict.fromkeys(_citations(document["blocks"]))
        if key not in known
    ]


def _citations(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("t") == "Cite":
            yield from (citation["citationId"] for citation in node["c"][0])
        node = node.get("c")
    if isinstance(node, list):
        for item in node:
            yield from _citations(item)


def main(arguments: list[str] | None = None) -> int:
    """Build, and say what was written or what is missing."""
    parser = argparse.ArgumentParser(description="Build the manuscript to PDF and HTML.")
    parser.add_argument("--manuscript", type=Path, default=PAPER / "manuscript.md")
    parser.add_argument("--bibliography", type=Path, default=PAPER / "references.bib")
    parser.add_argument("--results", type=Path, default=PAPER.parent / "analyses" / "results")
    parser.add_argument("--out", type=Path, default=PAPER / "build")
    chosen = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        written = build(chosen.manuscript, chosen.bibliography, chosen.results, chosen.out)
    except BuildError as error:
        print(f"The manuscript cannot be built:\n{error}", file=sys.stderr)
        print("Run python analyses/run_all.py first if results are missing.", file=sys.stderr)
        return 2
    for path in written:
        print(f"{path.name}: {path.stat().st_size / 1024:,.0f} KiB")
    print(f"{time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
