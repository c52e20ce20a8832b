"""The search for grades against every way of grading a few units, and its bounds."""

import itertools

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.stats import norm

from send_va.ranking.grade_bounds import LINE, lower_costs, smallest_possible_loss
from send_va.ranking.grade_exact import exact_loss, exact_tau
from send_va.ranking.grade_rate import largest_tau
from send_va.ranking.grade_search import best_cuts, borda_score, graded, move_units, pair_sums, smallest_loss


def weak_orders(n: int) -> np.ndarray:
    """Every way to grade n units, shape (ways, units)."""
    every = np.array(list(itertools.product(range(n), repeat=n)), dtype=np.int8)
    used = [(every == grade).any(axis=1) for grade in range(n)]
    whole = np.ones(len(every), dtype=bool)
    for grade in range(1, n):
        whole &= ~used[grade] | used[grade - 1]
    return every[whole]


@pytest.fixture(scope="module")
def ways() -> np.ndarray:
    found = weak_orders(7)
    assert len(found) == 47_293  # ordered Bell number
    return found


def brute(ways: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected pairs in the wrong and in the right order, of every way."""
    wrong, right = np.zeros(len(ways)), np.zeros(len(ways))
    for i, j in itertools.permutations(range(ways.shape[1]), 2):
        better = ways[:, i] < ways[:, j]
        wrong += better * above[j, i]
        right += better * above[i, j]
    return wrong, right


def posterior_like(n: int, rng: np.random.Generator) -> np.ndarray:
    mean, sd = 0.2 * rng.normal(size=n), rng.uniform(0.05, 0.2, n)
    above = norm.cdf((mean[:, None] - mean) / np.hypot(sd[:, None], sd))
    np.fill_diagonal(above, 0.0)
    return above


def arbitrary(n: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities of no order, with ties."""
    up, tie = rng.random((n, n)), rng.uniform(0, 0.3, (n, n))
    above = np.triu(up * (1 - tie), 1)
    return above + np.triu((1 - up) * (1 - tie), 1).T


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.6, 1.0])
def test_search_finds_the_best_of_seven(ways, seed, ratio):
    above = posterior_like(7, np.random.default_rng(seed))
    below = np.ascontiguousarray(above.T)
    wrong, right = brute(ways, above)
    best = (wrong - ratio * right).min()
    assert smallest_loss(above, below, ratio)[0].loss(ratio) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [posterior_like, arbitrary])
def test_exact_is_the_best_of_seven(ways, seed, make):
    above = make(7, np.random.default_rng(seed))
    below = np.ascontiguousarray(above.T)
    wrong, right = brute(ways, above)
    for ratio in (0.25, 0.8):
        found = exact_loss(above, below, ratio)
        assert found.loss(ratio) == pytest.approx((wrong - ratio * right).min(), abs=1e-9)
    for share in (0.02, 0.1, 0.3):
        limit = share * 21
        start, _, _ = largest_tau(above, below, limit)
        assert start.wrong <= limit
        found = exact_tau(above, below, limit, start)
        assert found.wrong <= limit + 1e-12
        assert found.tau == pytest.approx((right - wrong)[wrong <= limit].max(), abs=1e-9)


def test_exact_agrees_with_an_integer_programme():
    above = arbitrary(6, np.random.default_rng(8))
    n, ratio = 6, 0.5
    pairs = list(itertools.permutations(range(n), 2))
    at = {pair: k for k, pair in enumerate(pairs)}
    rows = []
    for i, j in itertools.combinations(range(n), 2):
        rows.append({at[i, j]: 1, at[j, i]: 1})
    for i, j, k in itertools.permutations(range(n), 3):
        rows.append({at[i, j]: 1, at[j, k]: 1, at[i, k]: -1})  # above is transitive
        rows.append({at[i, k]: 1, at[j, k]: -1, at[i, j]: -1})  # and so is sharing a grade
    matrix = np.zeros((len(rows), len(pairs)))
    for row, entries in enumerate(rows):
        matrix[row, list(entries)] = list(entries.values())
    upper = np.array([0.0 if min(entries.values()) < 0 and sum(entries.values()) < 0 else 1.0 for entries in rows])
    costs = np.array([above[j, i] - ratio * above[i, j] for i, j in pairs])
    solved = milp(
        costs, constraints=LinearConstraint(matrix, ub=upper), integrality=np.ones(len(pairs)), bounds=Bounds(0, 1)
    )
    found = exact_loss(above, np.ascontiguousarray(above.T), ratio)
    assert found.loss(ratio) == pytest.approx(solved.fun, abs=1e-7)


def test_cuts_are_the_best_that_keep_the_order(ways):
    cost = np.random.default_rng(3).normal(size=(7, 7))
    along = ways[(np.diff(ways, axis=1) >= 0).all(axis=1)]
    assert len(along) == 2**6
    losses = [sum(cost[k, a] for a, k in itertools.combinations(range(7), 2) if way[a] < way[k]) for way in along]
    labels, loss = best_cuts(cost)
    assert loss == pytest.approx(min(losses))
    assert labels.tolist() == along[int(np.argmin(losses))].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold(seed):
    rng = np.random.default_rng(seed)
    for make in (posterior_like, arbitrary):
        above = make(LINE + 4, rng)
        below = np.ascontiguousarray(above.T)
        order = np.argsort(-borda_score(above, below))
        for ratio in (0.1, 0.25, 0.7, 1.0):
            exact = exact_loss(above, below, ratio).loss(ratio)
            pairwise = np.minimum(np.minimum(below - ratio * above, above - ratio * below), 0.0).sum() / 2
            bound = smallest_possible_loss(above, below, order, ratio)
            assert bound <= exact + 1e-9
            assert bound >= pairwise - 1e-9  # at least as good as every pair by itself


def test_lowered_costs_rise_along_the_order():
    cost = np.random.default_rng(5).normal(size=(9, 9))
    lowered = cost.copy()
    lower_costs(lowered)
    off = ~np.eye(9, dtype=bool)
    assert (lowered <= cost)[off].all()
    assert (np.diff(lowered, axis=0) <= 0).all()
    assert (np.diff(lowered, axis=1) >= 0).all()


@pytest.mark.parametrize("new_grades", [True, False])
def test_moves_keep_count_and_the_limit(new_grades):
    rng = np.random.default_rng(6)
    above = posterior_like(60, rng)
    below = np.ascontiguousarray(above.T)
    labels = np.repeat(np.arange(6), 10)
    labels = labels[np.argsort(np.argsort(-borda_score(above, below), kind="stable"), kind="stable")]
    before = graded(above, below, labels.copy())
    limit = before.wrong + 5.0
    wrong = move_units(above, below, labels, 1.0, 1.0, before.wrong, limit, new_grades)
    after = pair_sums(above, below, labels)
    assert wrong == pytest.approx(after[0], abs=1e-8)
    assert wrong <= limit
    assert after[1] - after[0] > before.tau
    assert sorted(set(labels.tolist())) == list(range(labels.max() + 1))
