"""Academic years as they are written in files, and the years without Key Stage 2 tests."""

from __future__ import annotations

import re

NO_KS2_REASON = "no KS2 tests were sat in 2020 and 2021"
# Year 11 in 2024/25 sat in Year 6 in 2019/20, Year 11 in 2025/26 in 2020/21: both rounds of tests were cancelled and
# DfE publishes no Progress 8 for these cohorts (DfE, Secondary accountability measures guidance, 2024/25 and 2025/26).
YEAR_11_ENDS_WITHOUT_KS2 = (2025, 2026)

_TWO_YEARS = re.compile(r"^(\d{4})\s*[/_-]?\s*(\d{4}|\d{2})$")
_ONE_YEAR = re.compile(r"^\d{4}$")


def academic_year_end(label: str) -> int | None:
    """Calendar year in which an academic year ends.

    Parameters
    ----------
    label : str
        ``"2024/25"``, ``"2024-25"``, ``"2024_25"``, ``"202425"``, the same with four digits twice (``"2024/2025"``), or
        one year, ``"2025"``, which is read as the year the academic year **ends**.

    Returns
    -------
    int or None
        2025 for each label above; None when the label is not an academic year (the two years must follow each other).

    Examples
    --------
    >>> [academic_year_end(label) for label in ("2024/25", "202425", "2024_2025", "2025", "2024/26")]
    [2025, 2025, 2025, 2025, None]
    """
    text = label.strip()
    if _ONE_YEAR.match(text):
        return int(text)
    match = _TWO_YEARS.match(text)
    if match is None:
        return None
    first, last = int(match.group(1)), match.group(2)
    end = first + 1
    return end if last in (str(end), f"{end % 100:02d}") else None
