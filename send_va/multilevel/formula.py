"""From a formula and a table to arrays: the response, the design matrix, and what stops a model from being fitted."""

from __future__ import annotations

import ast
import builtins
import difflib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec, ModelSpecs, model_matrix
from formulaic.errors import DataMismatchWarning, FormulaicError
from formulaic.transforms import TRANSFORMS
from numpy.typing import NDArray
from pandas.api import types

from send_va.errors import CollinearityError, Failure, InputError

FloatArray = NDArray[np.float64]

# Squared residual norm of a column on the columns before it, relative to its own, below which it counts as a
# combination of them. Cross-products of 600,000 rows carry a relative rounding error of about 1e-13.
RANK_TOLERANCE = 1e-11
MOST_LEVELS = 200
_BLOCK_ROWS = 8192
_NUMBERS_IN_OBJECTS = frozenset({"integer", "floating", "decimal", "mixed-integer-float", "boolean"})


@dataclass(frozen=True)
class ResponseDesign:
    """The arrays of one regression.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Response, float64.
    X : ndarray, shape (n, p)
        Design matrix, float64, C-contiguous.
    names : tuple of str
        Name of each column of `X`: ``"Intercept"``, ``"prior"``, ``"sex[T.M]"``.
    response : str
        Name of the response.
    spec : formulaic.ModelSpecs
        The formula with its levels and knots as found in the data; given to `response_and_design` in place of the
        formula, it makes the same columns from other records.
    """

    y: FloatArray
    X: FloatArray
    names: tuple[str, ...]
    response: str
    spec: Any = field(repr=False, compare=False)


def response_and_design(formula: str | ModelSpecs, data: pd.DataFrame, *, check_rank: bool = True) -> ResponseDesign:
    """Build response and design matrix from a formula.

    Text and categorical columns enter in treatment coding; the reference is the first level (the order of a pandas
    ``Categorical``, sorted order for text). No row is dropped: a missing value is an error.

    Parameters
    ----------
    formula : str or formulaic.ModelSpecs
        Two-sided formula, e.g. ``"normexam ~ standLRT + sex"``; or the `spec` of an earlier result, whose levels and
        knots are then used unchanged.
    data : DataFrame
        One row per record.
    check_rank : bool
        Refuse a rank-deficient design. Switch off only where `check_full_rank` is called on cross-products later.

    Returns
    -------
    ResponseDesign
        Row i of `y` and `X` is row i of `data`; columns follow the order of the formula, intercept first.

    Raises
    ------
    InputError
        The formula cannot be read or has no response; a column is absent, has missing or infinite values, is text where
        a number is needed, or has levels that `spec` does not know.
    CollinearityError
        A design column is zero, constant beside the intercept, or a combination of the columns before it.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"score": [1.0, 2.0, 4.0], "sex": ["F", "M", "F"]})
    >>> design = response_and_design("score ~ sex", table)
    >>> design.names
    ('Intercept', 'sex[T.M]')
    >>> design.X
    array([[1., 0.],
           [1., 1.],
           [1., 0.]])
    """
    spec = _parse(formula) if isinstance(formula, str) else formula
    if not (hasattr(spec, "lhs") and hasattr(spec, "rhs")):
        raise InputError(f"the formula {str(formula)!r} has no response", "Write it as 'outcome ~ prior + context'")
    sides = _materialise(spec, _prepared([*_factors(spec.lhs), *_factors(spec.rhs)], data))
    if sides.lhs.shape[1] != 1 or not _factors(spec.lhs):
        raise InputError(
            Failure(
                rule="the response must be one column of numbers, and this is not",
                column=", ".join(_factors(spec.lhs)).replace("`", ""),
                remedy="Turn symbols such as 'NE' or 'SUPP' into missing and the column into numbers",
            )
        )
    response = str(sides.lhs.columns[0])
    y = _as_matrix(sides.lhs)[:, 0]
    X, names = _checked(sides.rhs, check_rank)
    return ResponseDesign(y=y, X=X, names=names, response=response, spec=sides.model_spec)


def random_design(
    formula: str | ModelSpec, data: pd.DataFrame, *, check_rank: bool = True
) -> tuple[FloatArray, tuple[str, ...]]:
    """Build the design matrix of one grouping factor's random effects.

    Parameters
    ----------
    formula : str or formulaic.ModelSpec
        Right-hand side only, e.g. ``"1 + standLRT"`` or ``"0 + need"``.
    data : DataFrame
        One row per record.
    check_rank : bool
        Refuse a rank-deficient design.

    Returns
    -------
    Z : ndarray, shape (n, q)
        Float64, C-contiguous; row i belongs to row i of `data`.
    names : tuple of str
        Name of each column of `Z`.

    Raises
    ------
    InputError
        As `response_and_design`, and where the formula has a response or no term.
    CollinearityError
        As `response_and_design`.

    Examples
    --------
    >>> import pandas as pd
    >>> Z, names = random_design("1 + prior", pd.DataFrame({"prior": [0.5, -1.0]}))
    >>> names
    ('Intercept', 'prior')
    """
    spec = _parse(formula) if isinstance(formula, str) else formula
    if hasattr(spec, "lhs"):
        raise InputError(f"the random-effects formula {str(formula)!r} has a response", "Leave out the part up to '~'")
    columns = _materialise(spec, _prepared(_factors(spec), data))
    if columns.shape[1] == 0:
        raise InputError(f"the random-effects formula {str(formula)!r} has no term", "Write '1' for an intercept")
    return _checked(columns, check_rank)


def check_full_rank(matrix: FloatArray, names: Iterable[str]) -> None:
    """Refuse a design whose columns are not linearly independent, naming them.

    Columns are swept in order (a Cholesky decomposition of the scaled cross-products that skips dependent columns), so
    a combination is always stated in terms of earlier columns.

    Parameters
    ----------
    matrix : ndarray, shape (p, p) or (n, p)
        Cross-products X'X, weighted or not; a matrix that is not square is taken for X itself.
    names : iterable of str
        The p column names.

    Raises
    ------
    CollinearityError
        With one failure per dependent column: zero throughout, constant, or which columns it is a combination of.

    Examples
    --------
    >>> import numpy as np
    >>> check_full_rank(np.array([[3.0, 6.0], [6.0, 12.0]]), ["Intercept", "year"])
    Traceback (most recent call last):
    ...
    send_va.errors.CollinearityError: year: is constant. Leave it out: it cannot be told from the intercept.
    """
    labels = tuple(names)
    cross = matrix if matrix.shape[0] == matrix.shape[1] else matrix.T @ matrix
    norm = np.sqrt(np.diag(cross))
    scale = np.where(norm > 0, norm, 1.0)
    scaled = cross / np.outer(scale, scale)
    factor = np.zeros_like(scaled)
    independent: list[int] = []
    failures: list[Failure] = []
    for column in range(len(labels)):
        for row, pivot in enumerate(independent):
            done = factor[pivot, :row] @ factor[column, :row]
            factor[column, row] = (scaled[pivot, column] - done) / factor[pivot, row]
        rank = len(independent)
        residual = scaled[column, column] - factor[column, :rank] @ factor[column, :rank]
        if norm[column] > 0 and residual > RANK_TOLERANCE:
            factor[column, rank] = np.sqrt(residual)
            independent.append(column)
        else:
            failures.append(_dependent(labels, column, independent, factor, scale))
    if failures:
        raise CollinearityError(failures)


def _dependent(
    labels: tuple[str, ...], column: int, independent: list[int], factor: FloatArray, scale: FloatArray
) -> Failure:
    rank = len(independent)
    lower = factor[np.ix_(independent, range(rank))]
    weights = np.linalg.solve(lower.T, factor[column, :rank]) if rank else np.zeros(0)
    # Rounding in a residual of size RANK_TOLERANCE moves the scaled weights by about its square root.
    used = [(pivot, weight) for pivot, weight in zip(independent, weights, strict=True) if abs(weight) > 1e-4]
    name = labels[column]
    if not used:
        return Failure("is zero in every row", name, remedy="Leave it out, or remove the level that no row has.")
    if len(used) == 1 and labels[used[0][0]] == "Intercept":
        return Failure("is constant", name, remedy="Leave it out: it cannot be told from the intercept.")
    terms = " + ".join(f"{weight * scale[column] / scale[pivot]:.4g} {labels[pivot]}" for pivot, weight in used)
    return Failure(f"is a combination of other columns ({terms})", name, remedy="Leave out one of these columns.")


def _parse(formula: str) -> Any:
    try:
        return Formula(formula)
    except FormulaicError as error:
        reason = re.sub(r"\x1b\[[0-9;]*m|[⧛⧚]", "", str(error)).splitlines()[0].rstrip(".")
        raise InputError(
            f"the formula {formula!r} cannot be read: {reason}", "Write it as 'outcome ~ prior + context'."
        ) from error


def _factors(spec: Any) -> list[str]:
    """Return the expressions of one side, column names in back ticks where they are a plain look-up."""
    terms = spec.formula if isinstance(spec, ModelSpec) else spec
    found: dict[str, None] = {}
    for term in terms:
        for factor in term.factors:
            if factor.eval_method.value == "lookup":
                found[f"`{factor.expr}`"] = None
            elif factor.eval_method.value == "python":
                found[factor.expr] = None
    return list(found)


def _variables(expressions: Iterable[str], columns: Iterable[str]) -> list[str]:
    """Return every name an expression looks up that is a column, or ought to be one."""
    known = set(columns)
    found: dict[str, None] = {}
    for expression in expressions:
        found.update(dict.fromkeys(re.findall(r"`([^`]+)`", expression)))
        tree = ast.parse(re.sub(r"`[^`]+`", "0", expression), mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and (
                node.id in known or not (node.id in TRANSFORMS or hasattr(builtins, node.id))
            ):
                found[node.id] = None
    return list(found)


def refuse_absent(names: Iterable[str], data: pd.DataFrame) -> None:
    """Check that columns exist.

    Raises
    ------
    InputError
        One failure per absent column, with the nearest name the table has.
    """
    absent = [name for name in names if name not in data.columns]
    if absent:
        raise InputError(_absent(name, data.columns) for name in absent)


def _prepared(expressions: list[str], data: pd.DataFrame) -> pd.DataFrame:
    """Check the columns a formula needs and give every one a dtype that the formula library encodes as meant."""
    if len(data) == 0:
        raise InputError("the table has no rows", "Check the file, and any filter applied before the fit.")
    variables = _variables(expressions, data.columns)
    refuse_absent(variables, data)
    missing = [
        _bad_rows(name, "has missing values", blank, "Fill them in, or leave these rows out and say how many.")
        for name in variables
        if (blank := data[name].isna().to_numpy()).any()
    ]
    if missing:
        raise InputError(missing)
    return pd.DataFrame({name: _encodable(data[name]) for name in variables}, index=data.index, copy=False)


def _encodable(column: pd.Series[Any]) -> pd.Series[Any]:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "fiub":
        return column
    if isinstance(dtype, pd.CategoricalDtype):
        levels = column
    elif _holds_numbers(column):
        return column.astype("float64")
    elif types.is_string_dtype(dtype) or types.is_object_dtype(dtype):
        levels = column.astype("category")
    else:
        raise InputError(
            Failure(f"is {dtype}, not numbers or categories", str(column.name), remedy="Convert it before the fit.")
        )
    if len(levels.cat.categories) > MOST_LEVELS:
        raise InputError(
            Failure(
                rule=f"has {len(levels.cat.categories)} different texts, more than the {MOST_LEVELS} levels allowed",
                column=str(column.name),
                remedy="Convert it to numbers if it is a quantity; an identifier belongs in `groups`.",
            )
        )
    return levels


def _holds_numbers(column: pd.Series[Any]) -> bool:
    if types.is_object_dtype(column.dtype):
        return types.infer_dtype(column, skipna=False) in _NUMBERS_IN_OBJECTS
    return types.is_numeric_dtype(column.dtype) or types.is_bool_dtype(column.dtype)


def _materialise(spec: Any, data: pd.DataFrame) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            if isinstance(spec, ModelSpec | ModelSpecs):
                return spec.get_model_matrix(data, context={})
            return model_matrix(spec, data, output="pandas", na_action="ignore", context={})
        except DataMismatchWarning as error:
            unseen = "".join(re.findall(r"\{.*?\}", str(error)))
            raise InputError(
                f"a category has values that the specification does not know: {unseen}",
                "Make the specification from a table that has every level, or correct the values.",
            ) from error
        except FormulaicError as error:
            raise InputError(f"the formula cannot be evaluated: {error}", "Text cannot enter arithmetic.") from error


def _as_matrix(columns: pd.DataFrame) -> FloatArray:
    """Return a C-ordered copy, written in blocks of rows that stay in the cache."""
    arrays = [columns.iloc[:, position].to_numpy() for position in range(columns.shape[1])]
    matrix = np.empty((len(columns), len(arrays)))
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        for position, array in enumerate(arrays):
            block[:, position] = array[start : start + _BLOCK_ROWS]
    _refuse_not_finite(matrix, columns.columns)
    return matrix


def _checked(columns: pd.DataFrame, check_rank: bool) -> tuple[FloatArray, tuple[str, ...]]:
    single = [str(encoded.term) for encoded in columns.model_spec.structure if not encoded.columns]
    if single:
        raise CollinearityError(
            Failure("has one level only", name, remedy="Leave it out: it cannot be told from the intercept.")
            for name in single
        )
    matrix, names = _as_matrix(columns), tuple(str(name) for name in columns.columns)
    if check_rank:
        check_full_rank(matrix.T @ matrix, names)
    return matrix, names


def _refuse_not_finite(matrix: FloatArray, names: Iterable[str]) -> None:
    totals = matrix.sum(axis=0)
    if np.isfinite(totals).all():
        return
    raise InputError(
        _bad_rows(
            str(name),
            "is infinite or undefined",
            ~np.isfinite(matrix[:, position]),
            "Correct the values, or the transformation in the formula (the logarithm of zero, say).",
        )
        for position, name in enumerate(names)
        if not np.isfinite(totals[position])
    )


def _bad_rows(name: str, rule: str, bad: NDArray[np.bool_], remedy: str) -> Failure:
    return Failure.of_rows(rule, name, np.flatnonzero(bad).tolist(), remedy=remedy)


def _absent(name: str, columns: Iterable[str]) -> Failure:
    nearest = difflib.get_close_matches(name, [str(column) for column in columns], n=1)
    remedy = f"Did you mean {nearest[0]!r}?" if nearest else "Check the name against the table's columns."
    return Failure("is not a column of the table", name, remedy=remedy)
