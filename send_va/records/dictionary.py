"""The data dictionary, generated from the schema: ``python -m send_va.records.dictionary data_dictionary.md``."""

from __future__ import annotations

import sys
from pathlib import Path

import pandera.pandas as pa

from send_va.records.fields import ORDERED_FIELDS, REQUIRED_FIELDS, field_definitions

_HEAD = """# Data dictionary: one pupil record

Generated from `send_va/records/fields.py` by `python -m send_va.records.dictionary data_dictionary.md`; a test fails
when this file is stale.

One row per pupil at the end of the key stage. A file may use its own names: `[columns]` in the study file maps a field
to the column of the file, for example `outcome = "KS4_ATT8"`. The names under "Source" are those typical of National
Pupil Database (NPD) extracts in England (yy is the year of the census); they differ between years and deliveries, so
compare with your own data supply. Columns that are neither a field below nor named under `[roles]` are never read.
"""

_NOTES = """## Notes

* **SEN status at entry** is the status at the last census *before* transfer. Autumn Year 7 status is the new school's
  own: it may not serve as `sen_status_entry`, and a column named as an autumn census (`..._AUTyy`) is refused.
* **Numbers** are read as 64-bit floats, **codes** as text (outer blanks removed; 301 and "301" are the same code).
  Empty cells are missing; in CSV files NA is too.
* **Prior attainment and its error** may be several columns each (`prior`, `prior_sem`), in the same order.
* **Context** may name columns that are not in this table: a plain name is a number, `C(name)` a category.
* **Left out of estimates** are rows in which the school, the outcome, a prior score, the SEN status or a context column
  is missing. They are counted and reported.
* **Cohorts without Key Stage 2**: Year 11 of 2024/25 and 2025/26 is refused with a KS2 baseline, because no KS2 tests
  were sat in 2020 and 2021.
* **May be published** says the most that may ever leave: a field marked "only aggregated" appears in counts, means and
  model results that pass disclosure control.
"""


def data_dictionary() -> str:
    """Write the data dictionary as Markdown.

    Returns
    -------
    str
        One table row per field: meaning, type, unit, allowed values, whether it is needed, typical source, and
        whether it may ever be published.

    Examples
    --------
    >>> print(data_dictionary().splitlines()[0])
    # Data dictionary: one pupil record
    """
    header = [
        "Field",
        "Meaning",
        "Type",
        "Unit",
        "Allowed values",
        "Needed",
        "Source (typical NPD name)",
        "May be published",
    ]
    rows = [_row(name, definition) for name, definition in field_definitions().items()]
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]
    ordered = [f"* `{left}` is never above `{right}`." for left, right in ORDERED_FIELDS]
    return "\n".join([_HEAD, *lines, "", _NOTES.rstrip(), *ordered]) + "\n"


def _row(name: str, definition: pa.Column) -> list[str]:
    about = definition.metadata or {}
    needed = "yes" if name in REQUIRED_FIELDS else "no"
    cells = [
        definition.description,
        about["kind"],
        about["unit"],
        about["allowed"],
        needed,
        about["source"],
        about["published"],
    ]
    return [f"`{name}`", *(str(cell).replace("|", "\\|") for cell in cells)]


def main(arguments: list[str]) -> None:
    """Write the dictionary to the file named, or to standard output.

    Parameters
    ----------
    arguments : list of str
        A path, or nothing.
    """
    if arguments:
        Path(arguments[0]).write_text(data_dictionary(), encoding="utf-8")
    else:
        sys.stdout.write(data_dictionary())


if __name__ == "__main__":
    main(sys.argv[1:])
