"""Cross-products with other scores: the same as from scratch."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from true_scores import design_of

from send_va.multilevel.inner_products import InnerProducts
from send_va.records.design_columns import CONTEXTS
from send_va.records.simulator import simulate
from send_va.value_added.changing_products import (
    ChangingProducts,
    NeedColumns,
    changed_sums,
    design_rows,
    weighted_products,
)


@pytest.mark.parametrize("prior_slope", [True, False])
@pytest.mark.parametrize("severity", [True, False])
def test_equals_one_pass_from_scratch(severity: bool, prior_slope: bool) -> None:
    """All contexts, from one pass over the pupils, to rounding of sums of some hundred products."""
    world = simulate(np.random.default_rng(6), schools=20, scenario="lenient_better", pupils_per_school=50)
    design = design_of(world.pupils.sample(frac=1.0, random_state=3))
    rng = np.random.default_rng(1)
    n, k = len(design.rows), 1 + severity
    first, second = rng.uniform(size=(n, k)), rng.uniform(size=(n, k))
    weights = np.stack([rng.uniform(0.5, 2.0, size=n) for _ in CONTEXTS])
    reference = 97.5
    sums = changed_sums(design.rows, design.starts, weights, second)
    for context, own_weights, own_sums in zip(CONTEXTS, weights, sums, strict=True):
        columns = NeedColumns.of(design, context, severity, prior_slope)
        known = weighted_products(design, columns, design_rows(design, columns, first, reference), own_weights)
        changed = ChangingProducts.of(design, columns, known, reference).at(own_sums)
        scratch = weighted_products(design, columns, design_rows(design, columns, second, reference), own_weights)
        expected = InnerProducts.of(scratch, columns.level)
        size = np.sqrt(np.diag(expected.total))
        assert np.abs((changed.total - expected.total) / np.outer(size, size)).max() < 1e-12
        np.testing.assert_allclose(changed.rows, expected.rows, rtol=1e-9, atol=1e-8)
        np.testing.assert_array_equal(changed.counts, expected.counts)
        assert changed.log_weights == expected.log_weights


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    m=st.integers(1, 4),
    k=st.integers(1, 2),
    sets=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
def test_sums_are_sums(sizes: list[int], m: int, k: int, sets: int, seed: int) -> None:
    """Any number of schools, empty ones included, columns, scores and sets of weights."""
    rng = np.random.default_rng(seed)
    starts, n = np.concatenate([[0], np.cumsum(sizes)]), sum(sizes)
    rows, weights, scores = rng.normal(size=(n, m)), rng.uniform(size=(sets, n)), rng.normal(size=(n, k))
    found = changed_sums(rows, starts, weights, scores)
    both = np.hstack([rows, scores])
    for school, (start, stop) in enumerate(itertools.pairwise(starts)):
        own = slice(start, stop)
        expected = np.einsum("si,ia,im->sam", weights[:, own], scores[own], both[own])
        np.testing.assert_allclose(found[:, school], expected, atol=1e-12)


def test_school_means_of_need_are_no_composition() -> None:
    """What the rated school's labels can move does not enter as composition."""
    world = simulate(np.random.default_rng(6), schools=12, pupils_per_school=20)
    columns = NeedColumns.of(design_of(world.pupils), "composition", True, True)
    means = [name for name in columns.fixed if name.startswith("school mean of")]
    assert means
    assert not any("need" in name or "severity" in name for name in means)
