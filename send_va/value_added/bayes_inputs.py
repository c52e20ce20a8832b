"""From fits by REML to what the Bayesian engine starts from, with and without labels taken at their word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from send_va.identification.need import NeedEstimator
from send_va.multilevel.criterion import Criterion, pack
from send_va.multilevel.crossproducts import FloatArray
from send_va.multilevel.gaussian import uncentred
from send_va.multilevel.inner_products import InnerProducts
from send_va.multilevel.nested import column_sizes, solve_at
from send_va.records.design_columns import Context
from send_va.value_added.changing_products import changed_sums
from send_va.value_added.need_draws import PlugInFit
from send_va.value_added.pupil_design import PupilDesign
from send_va.value_added.readout import CONTRASTS, own_estimates
from send_va.value_added.scores import NeedScores, scores_table
from send_va.value_added.within_school import WithinSchool


@dataclass(frozen=True)
class Movement:
    """How far one context's estimates move over draws of the identification parameters.

    Attributes
    ----------
    modes : array, shape (d, schools, q)
        Conditional means of school effects, about their mean.
    beta : array, shape (d, p)
        Coefficients of the columns as given, about their mean.
    own : WithinSchool
        Unshrunken estimates at the expected scores; the variance between draws is in the standard errors.
    """

    modes: FloatArray
    beta: FloatArray
    own: WithinSchool


def movements(
    design: PupilDesign,
    scores: NeedScores,
    estimator: NeedEstimator,
    starts: Mapping[Context, PlugInFit],
    draws: int,
    *,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> dict[Context, Movement]:
    """Solve all contexts for every draw of the identification parameters, variances held at their estimates.

    Parameters
    ----------
    design, scores, estimator
        As in :func:`send_va.value_added.need_fit.fit_need`.
    starts : mapping of context to PlugInFit
    draws : int
        Draws of the identification parameters.
    workers : int
    progress : callable, optional
        Called with the number of draws done.
    """
    weights = np.stack([start.fit.weights for start in starts.values()])

    def one(d: int) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        table = scores_table(design.ordered(scores.draw(d)), len(design.rows), estimator)
        sums = changed_sums(design.rows, design.starts, weights, table)
        return [_solved(start, part) for start, part in zip(starts.values(), sums, strict=True)]

    found: list[list[tuple[FloatArray, FloatArray, FloatArray]]] = []
    with ThreadPoolExecutor(workers) as pool:
        for d, solved in enumerate(pool.map(one, range(draws))):
            found.append(solved)
            if progress is not None:
                progress(d + 1)
    return {
        context: _movement(start, [solved[k] for solved in found]) for k, (context, start) in enumerate(starts.items())
    }


def _solved(start: PlugInFit, sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Modes (schools, q), coefficients (p,) and unshrunken estimates (measures, schools) at other scores."""
    solution, columns = start.fit.solution, start.columns
    inner = start.changing.at(sums)
    size = column_sizes(inner)
    criterion = Criterion(InnerProducts.of(inner, columns.level, size), [columns.level], columns.x, columns.y, True)
    relative = [covariance / solution.scale for covariance in solution.covariances]
    solved = solve_at(criterion, pack(criterion, relative, size), inner, size)
    moved = replace(solution, beta=solved.beta, modes=solved.modes)
    own = own_estimates(moved, inner, start.n_without, start.n_with)
    named, _ = uncentred(moved, start.fit.products, columns.fixed)
    return solved.modes[0], named, np.stack([own.estimate[measure] for measure in CONTRASTS])


def _movement(start: PlugInFit, solved: Sequence[tuple[FloatArray, FloatArray, FloatArray]]) -> Movement:
    modes = np.stack([part[0] for part in solved])
    beta = np.stack([part[1] for part in solved])
    moved = np.stack([part[2] for part in solved]).var(axis=0, ddof=1)  # (measures, schools)
    at_expected = start.own(start.fit.solution)
    se: dict[str, Any] = {
        measure: np.sqrt(at_expected.se[measure] ** 2 + extra) for measure, extra in zip(CONTRASTS, moved, strict=True)
    }
    return Movement(modes - modes.mean(axis=0), beta - beta.mean(axis=0), WithinSchool(at_expected.estimate, se))
