"""Random effects of any groupings, nested or crossed: codes and designs ready for the latent model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from send_va.errors import CollinearityError, Failure, InputError
from send_va.multilevel.formula import random_design
from send_va.multilevel.grouping import group_codes
from send_va.multilevel.latent_system import Term

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class RandomTerm:
    """Random effects of one grouping.

    Attributes
    ----------
    name : str
        Grouping as the user wrote it.
    labels : Index, length groups
    codes : integer array, shape (n,)
    columns : array, shape (n, q)
        Uncorrelated unit-size combinations of the effects' columns: the search is as easy whatever their units.
    names : tuple of str
        Of the q effects.
    basis : array, shape (q, q)
        ``columns = Z @ basis``: effects of the named columns are `basis` times the effects of `columns`.
    """

    name: str
    labels: pd.Index[str]
    codes: IntArray
    columns: FloatArray
    names: tuple[str, ...]
    basis: FloatArray

    def term(self, rows: IntArray | slice, predictors: int) -> Term:
        """Return the term of the latent model for some rows: effects move all predictors of a row together."""
        columns = self.columns[rows]
        constant = len(self.names) == 1 and bool((columns == columns[0]).all())
        design = np.repeat((columns[:1] if constant else columns)[:, None, :], predictors, axis=1)
        return Term(self.codes[rows], len(self.labels), np.ascontiguousarray(design))


def random_terms(data: pd.DataFrame, groups: Mapping[str, str]) -> list[RandomTerm]:
    """Code every grouping and build the design of its effects.

    Parameters
    ----------
    data : DataFrame, n rows
    groups : mapping
        Grouping to random-effects formula; ``"lea:school"`` is the combination of two columns.

    Returns
    -------
    list of RandomTerm
        In the order of `groups`.

    Raises
    ------
    InputError
        No grouping; a column is absent or has missing values; a grouping has one group only, or two groupings hold the
        same groups.
    CollinearityError
        Columns of one grouping's effects are combinations of each other.
    """
    if not isinstance(groups, Mapping) or not groups:
        raise InputError("groups must map grouping columns to formulas", 'Write, for example, groups={"school": "1"}.')
    terms = [_random_term(data, name, formula) for name, formula in groups.items()]
    for one, other in itertools.combinations(terms, 2):
        pairs = len(np.unique(one.codes * len(other.labels) + other.codes))
        if pairs == len(one.labels) == len(other.labels):
            raise InputError(f"groupings {one.name} and {other.name} hold the same groups", "Leave one of them out.")
    return terms


def _random_term(data: pd.DataFrame, name: str, formula: str) -> RandomTerm:
    codes, labels = group_codes(data, name)
    if len(labels) < 2:
        raise InputError(
            f"there is one group only in {name}, so no difference between groups can be estimated",
            "Give two groups or more.",
        )
    try:
        Z, names = random_design(formula, data)
    except CollinearityError as error:
        raise CollinearityError(
            Failure(rule=f"random effects of {name}: {f.rule}", column=f.column, remedy=f.remedy)
            for f in error.failures
        ) from error
    basis = np.asarray(solve_triangular(np.linalg.cholesky(Z.T @ Z / len(Z)), np.eye(len(names)), lower=True).T)
    return RandomTerm(name, labels, codes, Z @ basis, names, basis)
