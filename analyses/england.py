"""What the analyses of England's published Progress 8 share: the folder, and what each context holds constant.

Read from ``SEND_VA_DATA``. Contains public sector information: Crown copyright, Department for Education, Open
Government Licence v3.0; part of it as collated by FFT Education Datalab.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SEND_VA_DATA", ROOT / "../shared/data")) / "england"

# Each context adds to the one before: the test at entry, poverty and language, shares of pupils with SEND.
ADDED: dict[str, list[str]] = {"none": [], "prior": ["ks2"], "intake": ["fsm6", "eal"], "sen": ["sen_support", "ehcp"]}


def covariates(added: Mapping[str, Sequence[str]]) -> list[str]:
    """Columns that any context holds constant."""
    return [name for names in added.values() for name in names]


def formulas(added: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Formula of every context."""
    found, terms = {}, ["1"]
    for context, names in added.items():
        terms = [*terms, *names]
        found[context] = f"p8 ~ {' + '.join(terms)}"
    return found


def complete(schools: pd.DataFrame, added: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Schools with Progress 8, its error and every covariate, so that all rankings have the same number of places."""
    return schools.dropna(subset=["p8", "p8_se", *covariates(added)]).reset_index(drop=True)
