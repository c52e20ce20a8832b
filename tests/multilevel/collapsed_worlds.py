"""Small nested data with known parameters, as cross-products, and the fit that a collapsed model starts from."""

from __future__ import annotations

import numpy as np

from send_va.multilevel.collapsed import Start
from send_va.multilevel.collapsed_data import CollapsedData, collapsed_data
from send_va.multilevel.crossproducts import cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.nested import NestedSolution, fit_nested

COLUMNS = ["Intercept", "need", "prior", "y"]


def world(
    seed: int = 1, *, groups: int = 40, size: int = 30, outer: int = 0, strata: int = 1, outer_sd: float = 0.0
) -> CollapsedData:
    """Records with a random intercept and need effect by group, residual SD 1 (1.5 with need if there are strata)."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(groups), size)
    parent = np.arange(groups) * outer // groups if outer else None
    need, prior = (rng.random(len(code)) < 0.3).astype(float), rng.standard_normal(len(code))
    effects = rng.standard_normal((groups, 2)) @ np.array([[0.5, 0.1], [0.0, 0.4]])
    if parent is not None:
        effects[:, 0] += outer_sd * rng.standard_normal(outer)[parent]
    sd = np.where((need > 0) & (strata > 1), 1.5, 1.0)
    y = 1.0 - 0.5 * need + 0.6 * prior + effects[code, 0] + effects[code, 1] * need
    y += sd * rng.standard_normal(len(y))
    rows = np.column_stack([np.ones(len(y)), need, prior, y])
    kinds = [need == 0, need == 1] if strata > 1 else [np.ones(len(y), dtype=bool)]
    products = [cross_products(rows[kind], code[kind], groups, COLUMNS) for kind in kinds]
    return collapsed_data(
        products,
        fixed=COLUMNS[:3],
        random=COLUMNS[:2],
        outcome="y",
        groups=[f"g{j}" for j in range(groups)],
        strata_names=("without", "with")[: len(kinds)] if strata > 1 else ("all",),
        parent=parent,
        outer=[f"a{k}" for k in range(outer)],
        outer_random=("Intercept",),
    )


def fitted(data: CollapsedData, *, reml: bool = False) -> NestedSolution:
    """The same records by the engine's likelihood; with an outer level, intercepts differ there."""
    total = data.own.sum(axis=0)
    products = cross_products(np.zeros((0, 4)), np.zeros(0, dtype=int), len(data.groups), COLUMNS)
    products = type(products)(tuple(COLUMNS), total, data.counts.sum(axis=0), np.zeros(4), 0.0)
    levels = [Level(np.array([0, 1]), None if data.parent is None else data.parent)]
    if data.parent is not None:
        levels.append(Level(np.array([0])))
    return fit_nested(products, levels, np.arange(3), 3, reml=reml)


def start(data: CollapsedData) -> Start:
    """Where sampling begins."""
    fit = fitted(data, reml=True)
    outer = np.array([fit.covariances[1][0, 0]]) if data.parent is not None else np.zeros(0)
    return Start(fit.beta, fit.beta_cov, fit.covariances[0], np.full(len(data.strata), fit.scale), outer)
