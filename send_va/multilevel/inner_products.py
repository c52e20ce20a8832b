"""The part of cross-products that a likelihood needs: small, so that models whose columns change are fitted quickly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.multilevel.elimination import Level, sum_over_parents


@dataclass(frozen=True)
class InnerProducts:
    """All that the likelihood needs of cross-products: much smaller than they are, so a change of columns is cheap.

    Attributes
    ----------
    rows : array, shape (q, groups, m)
        Rows of the innermost random-effects columns, group by group.
    summed : array, shape (m, m) or (parents, m, m)
        Cross-products summed over the innermost groups (of each parent).
    total : array, shape (m, m)
        Cross-products summed over all groups.
    counts : array, shape (groups,)
        Number of records.
    log_weights : float
        As of :class:`send_va.multilevel.crossproducts.CrossProducts`.
    """

    rows: FloatArray
    summed: FloatArray
    total: FloatArray
    counts: FloatArray
    log_weights: float = 0.0

    @classmethod
    def of(cls, data: CrossProducts | InnerProducts, level: Level, size: FloatArray | None = None) -> InnerProducts:
        """Take them from cross-products with groups of `level`, columns divided by `size` (m,)."""
        square = None if size is None else size[:, None] * size
        if isinstance(data, InnerProducts):
            if size is None or square is None:
                return data
            rows = data.rows / (size[level.z][:, None, None] * size)
            return replace(data, rows=rows, summed=data.summed / square, total=data.total / square)
        products = data.products if square is None else data.products / square
        rows = np.ascontiguousarray(products[:, level.z, :].transpose(1, 0, 2))
        summed = sum_over_parents(products, level)
        total = summed if level.parent is None else products.sum(axis=0)
        return cls(rows, summed, total, data.counts, data.log_weights)
