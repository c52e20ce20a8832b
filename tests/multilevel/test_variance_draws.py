"""Draws that carry the uncertainty of variances: coverage with few groups, agreement with plug-in draws with many."""

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.multilevel.crossproducts import CrossProducts, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.multilevel.prediction import draw_effects, effect_covariances
from send_va.multilevel.variance_draws import variance_draws

LEVEL = Level(np.array([0, 1]))


def world(rng: np.random.Generator, schools: int, pupils: int) -> tuple[CrossProducts, np.ndarray]:
    school = np.repeat(np.arange(schools), pupils)
    need = (rng.random(len(school)) < 0.2) * 1.0
    effects = rng.normal(0, [0.22, 0.20], (schools, 2))
    y = -0.3 * need + effects[school, 0] + effects[school, 1] * need + rng.normal(0, 0.75, len(school))
    rows = np.column_stack([np.ones(len(school)), need, y])
    return cross_products(rows, school, schools, ["Intercept", "need", "y"]), effects.sum(axis=1)


def fitted(data: CrossProducts) -> NestedSolution:
    return fit_nested(data, [LEVEL], np.arange(2), 2)


def intervals(data: CrossProducts, solution: NestedSolution, rng: np.random.Generator) -> np.ndarray:
    parts = [draw_effects(part, 25, rng).sum(axis=2) for part in variance_draws(data, solution, 40, rng)]
    return np.quantile(np.concatenate(parts), [0.025, 0.975], axis=0)


def test_coverage_with_fifteen_schools() -> None:
    """95 % intervals of theta over 150 worlds: at least .93 where plug-in intervals stay below .92."""
    rng = np.random.default_rng(12)
    inside, plug_in = [], []
    for _ in range(150):
        data, theta = world(rng, 15, 30)
        solution = fitted(data)
        lower, upper = intervals(data, solution, rng)
        inside.append(((lower < theta) & (theta < upper)).mean())
        sd = np.sqrt(effect_covariances(solution, fixed=True)[0].sum(axis=(1, 2)))
        plug_in.append((np.abs(solution.modes[0].sum(axis=1) - theta) < 1.96 * sd).mean())
    assert np.mean(plug_in) < 0.92
    assert 0.93 < np.mean(inside) < 0.985


def test_with_many_schools_nothing_changes() -> None:
    """600 schools: SDs of the draws within 3 % of the plug-in ones on average, variances centred on the estimate."""
    rng = np.random.default_rng(3)
    data, _ = world(rng, 600, 60)
    solution = fitted(data)
    solutions = variance_draws(data, solution, 60, rng)
    draws = np.concatenate([draw_effects(part, 20, rng).sum(axis=2) for part in solutions])
    plug_in = np.sqrt(effect_covariances(solution, fixed=True)[0].sum(axis=(1, 2)))
    assert draws.std(axis=0).mean() == pytest.approx(plug_in.mean(), rel=0.03)
    variances = np.array([np.diag(part.covariances[0]) for part in solutions])
    error = variances.std(axis=0) / np.sqrt(len(variances))
    assert (np.abs(variances.mean(axis=0) - np.diag(solution.covariances[0])) < 4 * error).all()
    # The sampling SD of a variance between 600 schools, were effects known exactly, is a lower bound.
    assert (variances.std(axis=0) > np.diag(solution.covariances[0]) * np.sqrt(2 / 600) * 0.8).all()


def test_same_seed_same_draws_and_bad_counts() -> None:
    data, _ = world(np.random.default_rng(1), 20, 20)
    solution = fitted(data)
    one, two = (variance_draws(data, solution, 3, np.random.default_rng(2)) for _ in range(2))
    assert [part.scale for part in one] == [part.scale for part in two]
    with pytest.raises(InputError, match="at least 1"):
        variance_draws(data, solution, 0, np.random.default_rng(2))
