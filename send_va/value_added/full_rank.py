"""Redundant covariates of a context, named with what can be done about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from send_va.errors import CollinearityError, Failure
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.formula import check_full_rank
from send_va.records.design_columns import ContextColumns, mean_name


def require_full_rank(total: FloatArray, fixed: Sequence[str], context: ContextColumns, n_schools: int) -> None:
    """Refuse fixed effects that are not linearly independent.

    Parameters
    ----------
    total : array, shape (p, p)
        Cross-products of the fixed-effects columns over all pupils.
    fixed : sequence of str, length p
    context : ContextColumns
    n_schools : int

    Raises
    ------
    CollinearityError
        Redundant columns by name; a spline that the scores cannot carry is named as one thing, with its remedy.
    """
    try:
        check_full_rank(total, fixed)
    except CollinearityError as error:
        of_spline = {name: s.column for s in context.splines for name in s.names if name != s.column}
        thin = dict.fromkeys(of_spline[f.column] for f in error.failures if f.column in of_spline)
        others = [_of_school_mean(failure, context, n_schools) for failure in error.failures]
        rule = "has too few different values between some knots of its spline"
        remedy = "Look for extreme values, or set fewer knots under [prior] (0 for a line)."
        spline_failures = [Failure(rule, name, remedy=remedy) for name in thin]
        raise CollinearityError([*spline_failures, *(f for f in others if f.column not in of_spline)]) from error


def _of_school_mean(failure: Failure, context: ContextColumns, n_schools: int) -> Failure:
    if failure.column not in [mean_name(name) for name in context.composition]:
        return failure
    remedy = (
        f"There are {n_schools} schools. Name fewer columns as composition under [value_added], or leave the "
        "composition context out."
    )
    return replace(failure, remedy=remedy)
