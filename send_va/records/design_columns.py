"""What is held constant: the nested contexts of value-added, as frozen design columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.preprocessing import SplineTransformer

from send_va.errors import InputError

FloatArray = NDArray[np.float64]
Context = Literal["prior", "cva", "composition"]
CONTEXTS: tuple[Context, ...] = get_args(Context)
INTERCEPT, OUTCOME = "Intercept", "outcome"


@dataclass(frozen=True)
class SplineColumn:
    """A cubic B-spline of one prior score on frozen knots.

    Attributes
    ----------
    column : str
        Name of the score.
    knots : tuple of float
        Boundary knots (lowest and highest score) and the interior ones, ascending. Two knots or fewer: a line.
    """

    column: str
    knots: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the design columns."""
        if len(self.knots) <= 2:
            return (self.column,)
        return tuple(f"spline({self.column})[{k}]" for k in range(1, len(self.knots) + 2))

    def columns(self, values: FloatArray) -> FloatArray:
        """Design columns, shape (n, number of names), for scores of shape (n,)."""
        if len(self.knots) <= 2:
            return values[:, None]
        spline = SplineTransformer(
            knots=np.array(self.knots)[:, None], degree=3, include_bias=False, extrapolation="linear"
        )
        return np.asarray(spline.fit(np.array(self.knots)[:, None]).transform(values[:, None]))


@dataclass(frozen=True)
class CategoryColumn:
    """Indicators of a category, the first level being the reference."""

    column: str
    levels: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the design columns."""
        return tuple(f"{self.column}[T.{level}]" for level in self.levels[1:])

    def columns(self, codes: NDArray[np.integer]) -> FloatArray:
        """Indicator columns for codes 0 (reference) to ``len(levels) - 1``."""
        return np.asarray(codes[:, None] == np.arange(1, len(self.levels)), dtype=np.float64)


@dataclass(frozen=True)
class ContextColumns:
    """The design columns of all contexts, so that one pass over the records serves each.

    Attributes
    ----------
    splines : tuple of SplineColumn
        Prior attainment, one a score.
    numeric : tuple of str
        Background columns that enter as they are.
    categories : tuple of CategoryColumn
        Background columns that enter as indicators.
    composition : tuple of str
        Design columns whose school means are added in the ``composition`` context.
    """

    splines: tuple[SplineColumn, ...]
    numeric: tuple[str, ...]
    categories: tuple[CategoryColumn, ...]
    composition: tuple[str, ...]

    @property
    def prior_names(self) -> tuple[str, ...]:
        """Columns of prior attainment."""
        return tuple(name for spline in self.splines for name in spline.names)

    @property
    def background_names(self) -> tuple[str, ...]:
        """Columns of pupil background."""
        return (*self.numeric, *(name for category in self.categories for name in category.names))

    def fixed(self, context: Context) -> tuple[str, ...]:
        """Covariates of a context, without intercept and need."""
        names = self.prior_names
        if context in ("cva", "composition"):
            names += self.background_names
        if context == "composition":
            names += tuple(mean_name(name) for name in self.composition)
        return names

    @property
    def prior_columns(self) -> tuple[str, ...]:
        """Columns of the records that prior attainment is read from."""
        return tuple(spline.column for spline in self.splines)

    @property
    def background_columns(self) -> tuple[str, ...]:
        """Columns of the records that background is read from."""
        return (*self.numeric, *(category.column for category in self.categories))

    def prior_of(self, batch: pa.RecordBatch) -> list[FloatArray]:
        """Design columns of prior attainment of a batch, one array (n, k) a score."""
        return [spline.columns(numbers(batch, spline.column)) for spline in self.splines]

    def background_of(self, batch: pa.RecordBatch) -> list[FloatArray]:
        """Design columns of background of a batch, one array (n, k) a column of the records."""
        parts = [numbers(batch, name)[:, None] for name in self.numeric]
        for category in self.categories:
            codes = pc.index_in(batch.column(category.column), value_set=pa.array(category.levels, pa.string()))
            parts.append(category.columns(codes.to_numpy(zero_copy_only=False)))
        return parts


def numbers(batch: pa.RecordBatch, name: str) -> FloatArray:
    """One column of a batch as numbers."""
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)


def mean_name(column: str) -> str:
    """Name of a column's school mean."""
    return f"school mean of {column}"


def check_contexts(contexts: Sequence[str]) -> tuple[Context, ...]:
    """Refuse a context that does not exist.

    Raises
    ------
    InputError
        With the allowed values.
    """
    unknown = [context for context in contexts if context not in CONTEXTS]
    if unknown:
        raise InputError(f"no context {', '.join(map(repr, unknown))}", f"Contexts are {', '.join(CONTEXTS)}.")
    return tuple(context for context in CONTEXTS if context in contexts)


def shown_context[C: str](contexts: Sequence[C]) -> C:
    """The context that is shown where only one is: ``cva``, or the last where it is not among them.

    Examples
    --------
    >>> shown_context(["prior", "cva", "composition"]), shown_context(["prior"])
    ('cva', 'prior')
    """
    return next((context for context in contexts if context == "cva"), contexts[-1])
