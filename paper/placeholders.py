"""Numbers, tables and figures of the manuscript, filled in from the results of the analyses and from nowhere else.

In the text:

``{{england_2018_19.n_schools:,}}``
    the key ``n_schools`` of ``england_2018_19.json``; deeper keys by further dots; after the colon a format
    specification of Python's `format`.
``{{table:england_moves "Caption" columns="context=Context; share=Share:.0%" where="level=school; year=2019" rows=8}}``
    ``england_moves.csv`` as a numbered table. All columns when ``columns`` is left out.
``{{figure:england_moves "Caption" width=90%}}``
    ``england_moves.svg``, or ``.png``, as a numbered figure.
``{{ref:table:england_moves}}``, ``{{ref:figure:england_moves}}``
    "Table 1", "Figure 1".
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"\{\{\s*(figure|table):([^{}]+?)\s*\}\}")
_INLINE = re.compile(r"\{\{\s*(?!figure:|table:)([^{}]+?)\s*\}\}")
_LEFT_OVER = re.compile(r"\{\{[^}\n]{0,40}")  # closing braces alone occur in formulas

_MOST_ROWS = 45

# Names that contain a digit and are not results; 95 % is the coverage that intervals are built for.
_NAMES = re.compile(
    r"Progress 8|Attainment 8|Key Stage \d|KS\d|[Gg]rades? \d|Year \d+|lme4|section \d|95\s%|\b(?:19|20)\d\d/\d\d\b"
)
_CITATION = re.compile(r"-?@[\w:.#$%&+?<>~/-]*\w")
_CHECKED_SECTIONS = ("Abstract", "Results")


@dataclass
class Filled:
    """The manuscript with its results.

    Attributes
    ----------
    text : str
        Markdown without placeholders.
    figures : list of pathlib.Path
        Picture files the text shows, in order.
    problems : list of str
        One sentence for each placeholder that could not be filled: the file, and the key or column.
    """

    text: str = ""
    figures: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def fill(text: str, results: Path, picture_folder: str) -> Filled:
    """Replace every placeholder of a manuscript by its result.

    Parameters
    ----------
    text : str
        Markdown.
    results : pathlib.Path
        Folder of the analyses' results.
    picture_folder : str
        Folder the Markdown names for pictures.

    Returns
    -------
    Filled
        Usable only when `problems` is empty.
    """
    filled = Filled()
    numbers = _numbering(text)
    loaded: dict[str, Any] = {}

    def inline(match: re.Match[str]) -> str:
        content = match.group(1)
        if content.startswith("ref:"):
            label = content.removeprefix("ref:").strip()
            if label not in numbers:
                filled.problems.append(f"{{{{{content}}}}}: the manuscript shows no {label.replace(':', ' ')}")
            return numbers.get(label, "")
        return _number(content, results, loaded, filled.problems)

    def block(match: re.Match[str]) -> str:
        kind, content = match.groups()
        try:
            stem, options = _options(content)
        except ValueError as error:
            filled.problems.append(f"{{{{{kind}:{content}}}}}: {error}")
            return ""
        if kind == "table":
            return _table(stem, options, results, numbers[f"table:{stem}"], filled.problems)
        return _figure(stem, options, results, numbers[f"figure:{stem}"], filled, picture_folder)

    filled.text = re.sub(r"(?<=\d) %", "\u00a0%", _BLOCK.sub(block, _INLINE.sub(inline, text)))
    filled.problems.extend(f"{left}: not a placeholder" for left in _LEFT_OVER.findall(filled.text))
    return filled


def typed_numbers(text: str) -> list[str]:
    """List digits typed into the abstract and the results instead of taken from the analyses.

    Placeholders, citations and a short list of names (Progress 8, Key Stage 2, school years, ...) may hold digits;
    captions and column headings may not.

    Parameters
    ----------
    text : str
        The manuscript, with its placeholders.

    Returns
    -------
    list of str
        One sentence for each line with a typed number: line number, section and the number.
    """
    found = []
    section = ""
    bare = _BLOCK.sub(_headings_and_caption, _INLINE.sub("", text))
    for number, line in enumerate(bare.splitlines(), start=1):
        if heading := re.match(r"#\s+(.+?)\s*(?:\{.*\})?$", line):
            section = heading.group(1)
        if section not in _CHECKED_SECTIONS:
            continue
        for digits in re.findall(r"[\d.,]*\d", _NAMES.sub("", _CITATION.sub("", line))):
            found.append(f"line {number}, {section}: the number {digits} is typed; take it from analyses/results")
    return found


def _headings_and_caption(match: re.Match[str]) -> str:
    lines = match.group(0).count("\n") * "\n"
    try:
        _, options = _options(match.group(2))
    except ValueError:
        return match.group(0)
    headings = " ".join(heading for _, heading, _ in _columns(options.get("columns", "")))
    return f"{options.get('caption', '')} {headings}".replace("\n", " ") + lines


def _numbering(text: str) -> dict[str, str]:
    numbers: dict[str, str] = {}
    counts = {"figure": 0, "table": 0}
    for kind, content in _BLOCK.findall(_INLINE.sub("", text)):
        label = f"{kind}:{content.split()[0]}"
        if label not in numbers:
            counts[kind] += 1
            numbers[label] = f"{kind.capitalize()}\u00a0{counts[kind]}"
    return numbers


def _number(content: str, results: Path, loaded: dict[str, Any], problems: list[str]) -> str:
    name, _, specification = content.partition(":")
    stem, _, key = name.strip().partition(".")
    file = f"{stem}.json"
    if stem not in loaded:
        path = results / file
        loaded[stem] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if loaded[stem] is None:
        problems.append(f"{results.name}/{file}: the file is missing (wanted for {key})")
        return ""
    value = loaded[stem]
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None or isinstance(value, dict | list):
        problems.append(f"{results.name}/{file}: no number under the key {key}")
        return ""
    try:
        return _typeset(format(value, specification))
    except ValueError:
        problems.append(f"{results.name}/{file}: {key} is {value!r}, which the format {specification} cannot write")
        return ""


def _typeset(number: str) -> str:
    number = re.sub(r"^-(?=0*\.?0*%?$)", "", number)  # no minus before a number that rounds to zero
    number = re.sub(r"^-(?=[\d.])", "\u2212", number)
    return re.sub(r"(?<=\d)%$", "\u00a0%", number)


def _options(content: str) -> tuple[str, dict[str, str]]:
    stem, *rest = shlex.split(content.replace("'", "\u2019"))
    options: dict[str, str] = {}
    for item in rest:
        name, equals, value = item.partition("=")
        if equals and name in ("columns", "where", "rows", "width"):
            options[name] = value
        elif "caption" in options:
            raise ValueError(f"{item} is not an option; use columns, where, rows or width")
        else:
            options["caption"] = " ".join(item.split())
    return stem, options


def _columns(text: str) -> list[tuple[str, str, str]]:
    """Read ``"name=Heading:format; ..."``."""
    columns = []
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, _, heading = item.partition("=")
        heading, _, specification = heading.partition(":")
        columns.append((name.strip(), heading.strip() or name.strip().replace("_", " "), specification.strip()))
    return columns


def _table(stem: str, options: dict[str, str], results: Path, number: str, problems: list[str]) -> str:
    path = results / f"{stem}.csv"
    where = f"{results.name}/{path.name}"
    if not path.is_file():
        problems.append(f"{where}: the table is missing")
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows, names = list(reader), list(reader.fieldnames or ())
    columns = _columns(options.get("columns", "")) or [(name, name.replace("_", " "), "") for name in names]
    wanted = [name for name, _, _ in columns]
    conditions = {name: value for name, value, _ in _columns(options.get("where", ""))}
    absent = [name for name in dict.fromkeys([*wanted, *conditions]) if name not in names]
    if absent:
        problems.extend(f"{where}: no column {name}" for name in absent)
        return ""
    rows = [row for row in rows if all(row[name] == value for name, value in conditions.items())]
    rows = rows[: int(options["rows"])] if "rows" in options else rows
    if not rows:
        problems.append(f"{where}: no rows" + (f" with {options['where']}" if conditions else ""))
        return ""
    if len(rows) > _MOST_ROWS:
        problems.append(f"{where}: {len(rows)} rows do not fit on a page; choose at most {_MOST_ROWS} by rows or where")
        return ""
    try:
        cells = [[_cell(row[name], specification) for name, _, specification in columns] for row in rows]
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return ""
    return _pipe_table([heading for _, heading, _ in columns], cells, f"**{number}.** {options.get('caption', '')}")


def _cell(text: str, specification: str) -> str:
    if not specification or not text:
        return text.replace("|", "\\|")
    value = float(text)
    return _typeset(format(int(value) if specification.endswith("d") else value, specification))


def _pipe_table(headings: list[str], cells: list[list[str]], caption: str) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    numeric = [
        all(re.fullmatch(r"[\u2212+-]?[\d.,]+(\u00a0%)?|", cell) for cell in column)
        for column in zip(*cells, strict=True)
    ]
    rule = ["-" * max(2, w) + ":" if right else ":" + "-" * max(2, w) for w, right in zip(widths, numeric, strict=True)]
    lines = [headings, rule, *cells]
    return "\n".join(["", *("| " + " | ".join(line) + " |" for line in lines), "", f": {caption}", ""])


def _figure(stem: str, options: dict[str, str], results: Path, number: str, filled: Filled, picture_folder: str) -> str:
    for suffix in (".svg", ".png"):
        path = results / f"{stem}{suffix}"
        if path.is_file():
            filled.figures.append(path)
            width = options.get("width", "100%")
            return f"\n![**{number}.** {options.get('caption', '')}]({picture_folder}/{path.name}){{width={width}}}\n"
    filled.problems.append(f"{results.name}/{stem}.svg: the figure is missing, and {stem}.png too")
    return ""
