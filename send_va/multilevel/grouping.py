"""Grouping columns to codes: which level is nested in which, and which are crossed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import Failure, InputError, NotSupportedError
from send_va.multilevel.formula import refuse_absent


@dataclass(frozen=True)
class Grouping:
    """Nested groups of the records.

    Attributes
    ----------
    names : tuple of str
        Grouping names, innermost first.
    labels : tuple of Index
        Labels of the groups of each level; innermost groups are ordered by their parent.
    codes : array, shape (n,)
        Innermost group of every record.
    parents : tuple of array or None
        For each level, the group of the next level; None for the outermost.
    """

    names: tuple[str, ...]
    labels: tuple[pd.Index[str], ...]
    codes: NDArray[np.intp]
    parents: tuple[NDArray[np.intp] | None, ...]


@dataclass(frozen=True)
class CrossedGrouping:
    """Groupings of which at least two are crossed; others may be nested in one of them.

    Attributes
    ----------
    names : tuple of str
        Grouping names, the one with most groups first.
    labels : tuple of Index
        Labels of the groups of each grouping.
    codes : tuple of array, shape (n,)
        Group of every record, in each grouping.
    """

    names: tuple[str, ...]
    labels: tuple[pd.Index[str], ...]
    codes: tuple[NDArray[np.intp], ...]


def nested_or_crossed(data: pd.DataFrame, groups: Mapping[str, str]) -> Grouping | CrossedGrouping:
    """Code the records by every grouping column, and find out whether each is nested in the next coarser one.

    Parameters
    ----------
    data : DataFrame, n rows
    groups : mapping
        Grouping name to random-effects formula; ``"lea:school"`` is the combination of two columns.

    Returns
    -------
    Grouping or CrossedGrouping
        `Grouping` where every group lies in one group of the next coarser grouping.

    Raises
    ------
    InputError
        A column is missing or has missing values, or no grouping is given.
    """
    coded, finest_first = _coded(data, groups)
    parents = [_parents(coded[inner], coded[outer])[0] for inner, outer in itertools.pairwise(finest_first)]
    nested = [parent for parent in parents if parent is not None]
    if len(nested) == len(parents):
        return _ordered(finest_first, coded, nested)
    return CrossedGrouping(
        tuple(finest_first),
        tuple(coded[name][1] for name in finest_first),
        tuple(coded[name][0] for name in finest_first),
    )


def nested_grouping(data: pd.DataFrame, groups: Mapping[str, str]) -> Grouping:
    """Order nested grouping columns from the finest to the coarsest and code the records.

    Parameters
    ----------
    data : DataFrame, n rows
    groups : mapping
        Grouping name to random-effects formula; ``"lea:school"`` is the combination of two columns.

    Raises
    ------
    InputError
        A column is missing or has missing values, or no grouping is given.
    NotSupportedError
        Groups are crossed: some group of one factor meets several groups of the other, both ways.
    """
    coded, finest_first = _coded(data, groups)
    parents: list[NDArray[np.intp]] = []
    for inner, outer in itertools.pairwise(finest_first):
        parent, crossed = _parents(coded[inner], coded[outer])
        if parent is None:
            raise NotSupportedError(
                f"{inner} and {outer} are crossed: {len(crossed)} of {len(coded[inner][1])} groups of {inner} meet "
                f"several groups of {outer} (for example {coded[inner][1][crossed[0]]}), and this estimate needs "
                f"nested groups. If groups of {inner} are distinct within each {outer}, write the combination "
                f'"{outer}:{inner}"; fit_gaussian estimates crossed groups.'
            )
        parents.append(parent)
    return _ordered(finest_first, coded, parents)


def _coded(
    data: pd.DataFrame, groups: Mapping[str, str]
) -> tuple[dict[str, tuple[NDArray[np.intp], pd.Index[str]]], list[str]]:
    """Codes and labels of every grouping, and the names from the finest to the coarsest."""
    if not isinstance(groups, Mapping) or not groups:
        raise InputError("groups must map grouping columns to formulas", 'Write, for example, groups={"school": "1"}.')
    coded = {name: _codes(data, name) for name in groups}
    return coded, sorted(coded, key=lambda name: -len(coded[name][1]))


def _codes(data: pd.DataFrame, name: str) -> tuple[NDArray[np.intp], pd.Index[str]]:
    columns = [part.strip() for part in name.split(":")]
    refuse_absent(columns, data)
    for column in columns:
        blank = np.flatnonzero(data[column].isna().to_numpy()).tolist()
        if blank:
            remedy = "Give every record its group or leave the record out."
            raise InputError(Failure.of_rows("grouping column has missing values", column, blank, remedy=remedy))
    if len(columns) == 1:
        codes, labels = pd.factorize(data[columns[0]], sort=True)
        return codes.astype(np.intp), pd.Index(labels.astype(str) if labels.dtype != object else labels.map(str))
    frame = data[columns]
    keys = frame.groupby(columns, sort=True, observed=True)
    labels = pd.Index([":".join(str(part) for part in key) for key in keys.size().index])
    return keys.ngroup().to_numpy().astype(np.intp), labels


def _parents(
    fine: tuple[NDArray[np.intp], pd.Index[str]], coarse: tuple[NDArray[np.intp], pd.Index[str]]
) -> tuple[NDArray[np.intp] | None, NDArray[np.intp]]:
    """Coarse group of every fine one, None where some meet several; and which do."""
    parent = np.empty(len(fine[1]), dtype=np.intp)
    parent[fine[0]] = coarse[0]
    crossed = np.unique(fine[0][parent[fine[0]] != coarse[0]])
    return (None if len(crossed) else parent), crossed


def _ordered(
    names: list[str], coded: Mapping[str, tuple[NDArray[np.intp], pd.Index[str]]], parents: list[NDArray[np.intp]]
) -> Grouping:
    """Renumber inner groups so that those of one parent stand together."""
    labels = [coded[names[-1]][1]]
    up: list[NDArray[np.intp]] = []
    position = np.arange(len(labels[0]))  # old code -> new code, of the level above
    for at in reversed(range(len(parents))):
        parent = position[parents[at]]
        order = np.argsort(parent, kind="stable")
        position = np.empty(len(order), dtype=np.intp)
        position[order] = np.arange(len(order))
        labels.insert(0, coded[names[at]][1][order])
        up.insert(0, parent[order])
    return Grouping(tuple(names), tuple(labels), position[coded[names[0]][0]], (*up, None))


def group_codes(data: pd.DataFrame, name: str) -> tuple[NDArray[np.intp], pd.Index[str]]:
    """Number the groups of one grouping, in sorted order.

    Parameters
    ----------
    data : DataFrame, n rows
    name : str
        Column, or ``"lea:school"`` for the combination of columns.

    Returns
    -------
    codes : array, shape (n,)
    labels : Index
        Label of every group.

    Raises
    ------
    InputError
        A column is absent or has missing values.

    Examples
    --------
    >>> import pandas as pd
    >>> codes, labels = group_codes(pd.DataFrame({"school": ["b", "a", "b"]}), "school")
    >>> codes.tolist(), labels.tolist()
    ([1, 0, 1], ['a', 'b'])
    """
    return _codes(data, name)
