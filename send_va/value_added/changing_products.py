"""Cross-products of a model in which only the columns of need change from draw to draw.

Of a model with schools as its one grouping, the likelihood needs the rows of the random-effects columns (ones, ``pi``,
slope on prior attainment) by school and the total. A draw of the identification parameters changes ``pi`` and
``severity`` only: their products with all columns are summed in one pass over the pupils, for all contexts at once, and
the rest stays. Precision weights stay what they are at the estimates of the identification parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import CrossProducts, FloatArray, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.inner_products import InnerProducts
from send_va.records.design_columns import INTERCEPT, OUTCOME, Context
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.row_coder import NEED, PRIOR_SLOPE, SEVERITY, SEVERITY_SQUARED


@dataclass(frozen=True)
class NeedColumns:
    """Columns of one context with need estimated.

    Attributes
    ----------
    fixed, random, held : tuple of str
        Fixed effects; effects that differ between schools; all columns of the cross-products, the outcome last.
    changing : tuple of str
        ``need`` (the column of ``pi``) and, where the estimator has it, ``severity``, and its square if asked for.
    """

    fixed: tuple[str, ...]
    random: tuple[str, ...]
    held: tuple[str, ...]
    changing: tuple[str, ...]

    @classmethod
    def of(
        cls, design: PupilDesign, context: Context, severity: bool, prior_slope: bool, curved: bool = False
    ) -> NeedColumns:
        """Lay out a context.

        School means of ``pi`` or ``severity`` are no part of `composition`: under ``standardised`` they depend on
        labels that the rated school set, and with them intake need would count as composition twice.
        """
        changing = (NEED, *((SEVERITY,) if severity else ()), *((SEVERITY_SQUARED,) if severity and curved else ()))
        fixed = (INTERCEPT, *changing, *design.context.fixed(context))
        random = (INTERCEPT, NEED, PRIOR_SLOPE) if prior_slope else (INTERCEPT, NEED)
        return cls(fixed, random, (*fixed, *(name for name in random if name not in fixed), OUTCOME), changing)

    @property
    def level(self) -> Level:
        """Schools as the grouping."""
        return Level(np.array([self.held.index(name) for name in self.random], dtype=np.intp))

    @property
    def x(self) -> NDArray[np.intp]:
        """Positions of the fixed effects."""
        return np.arange(len(self.fixed), dtype=np.intp)

    @property
    def y(self) -> int:
        """Position of the outcome."""
        return len(self.held) - 1


def design_rows(design: PupilDesign, columns: NeedColumns, scores: FloatArray, prior_reference: float) -> FloatArray:
    """Rows of the columns held but school means, shape (n, ...), with the slope column at its reference.

    Parameters
    ----------
    scores : array, shape (n, k)
        The changing columns, in order of ``design.rows``.
    prior_reference : float
        Prior attainment at which effects are stated, in units of the first score.
    """
    pupil = [name for name in columns.held if name not in design.mean_names]
    rows = np.empty((len(scores), len(pupil)))
    for at, name in enumerate(pupil):
        if name in columns.changing:
            rows[:, at] = scores[:, columns.changing.index(name)]
        else:
            rows[:, at] = design.rows[:, design.columns.index(name)]
    if PRIOR_SLOPE in pupil:
        rows[:, pupil.index(PRIOR_SLOPE)] -= slope_shift(design, prior_reference)
    return rows


def weighted_products(
    design: PupilDesign, columns: NeedColumns, rows: FloatArray, weights: FloatArray
) -> CrossProducts:
    """Cross-products by school of :func:`design_rows`, school means included, with precision `weights` (n,).

    Rows count as often as ``design.frequencies`` says.
    """
    pupil = [name for name in columns.held if name not in design.mean_names]
    products = cross_products(
        rows, design.codes, len(design.schools), pupil, weights=weights, frequencies=design.frequencies
    )
    center = np.array(
        [0.0 if name in columns.changing else design.center[design.columns.index(name)] for name in pupil]
    )
    products = replace(products, center=center)
    if len(pupil) < len(columns.held):
        products = products.with_group_constants(design.mean_names, design.means, INTERCEPT)
    return products.select(columns.held)


@dataclass(frozen=True)
class ChangingProducts:
    """Cross-products of one context, ready for other scores.

    Attributes
    ----------
    columns : NeedColumns
    base : InnerProducts
        At the scores they were made with.
    source : integer array
        For every held column its place among the design's and the changing ones; the intercept for school means.
    factor : array, shape (schools, m)
        What the products with that column are multiplied by: the (centred) school mean, or one.
    slope_shift : float
        What was subtracted from the design's slope column.
    """

    columns: NeedColumns
    base: InnerProducts
    source: NDArray[np.intp]
    factor: FloatArray
    slope_shift: float

    @classmethod
    def of(
        cls, design: PupilDesign, columns: NeedColumns, products: CrossProducts, prior_reference: float
    ) -> ChangingProducts:
        """Keep what does not change of `products`, made by :func:`weighted_products`."""
        offered = (*design.columns, *columns.changing)
        known = dict(zip(design.mean_names, (design.means - design.means.mean(axis=0)).T, strict=True))
        source = [offered.index(name) if name not in known else 0 for name in columns.held]
        one = np.ones(len(design.schools))
        factor = np.column_stack([known.get(name, one) for name in columns.held])
        base = InnerProducts.of(products, columns.level)
        return cls(columns, base, np.array(source, dtype=np.intp), factor, slope_shift(design, prior_reference))

    def at(self, sums: FloatArray) -> InnerProducts:
        """With other scores, from their :func:`changed_sums` of this context, shape (schools, k, ...)."""
        held, level = self.columns.held, self.columns.level
        rows, total = self.base.rows.copy(), self.base.total.copy()
        for k, name in enumerate(self.columns.changing):
            at = held.index(name)
            block = sums[:, k, self.source] * self.factor  # (schools, m)
            if PRIOR_SLOPE in held:
                block[:, held.index(PRIOR_SLOPE)] -= self.slope_shift * sums[:, k, 0]
            for z, column in enumerate(level.z):
                rows[z, :, at] = block[:, column]
            if at in level.z:
                rows[int(np.flatnonzero(level.z == at)[0])] = block
            total[at] = total[:, at] = block.sum(axis=0)
        return InnerProducts(rows, total, total, self.base.counts, self.base.log_weights)


def slope_shift(design: PupilDesign, prior_reference: float) -> float:
    """What the design's slope column must lose to be zero at a prior attainment, in units of the first score."""
    return (prior_reference - design.prior_mean) / design.prior_sd


@numba.njit(cache=True, nogil=True)
def changed_sums(
    rows: FloatArray, starts: NDArray[np.int64], weights: FloatArray, scores: FloatArray
) -> FloatArray:  # pragma: no cover (compiled)
    """Sum products of the scores with all columns by school, once for every set of weights, in one pass.

    Parameters
    ----------
    rows : array, shape (n, m)
        Sorted by school.
    starts : integer array, shape (schools + 1,)
    weights : array, shape (sets, n)
    scores : array, shape (n, k)

    Returns
    -------
    array, shape (sets, schools, k, m + k)
        Products with the m columns, then with the scores themselves.
    """
    m, k, sets = rows.shape[1], scores.shape[1], weights.shape[0]
    out = np.zeros((sets, len(starts) - 1, k, m + k))
    for school in range(len(starts) - 1):
        for i in range(starts[school], starts[school + 1]):
            for s in range(sets):
                for a in range(k):
                    w = weights[s, i] * scores[i, a]
                    for c in range(m):
                        out[s, school, a, c] += w * rows[i, c]
                    for b in range(k):
                        out[s, school, a, m + b] += w * scores[i, b]
    return out
