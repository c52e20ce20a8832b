"""Calibration of the collapsed posterior: its simulator says what it is told, and its draws can be ranked."""

import numpy as np
import pytest

from send_va.errors import InputError
from send_va.multilevel.nuts import Sampling
from send_va.validation.calibration import simulated_ranks
from send_va.validation.collapsed_calibration import (
    NestedDesign,
    Parameters,
    _outcomes,
    collapsed_model,
)

NAMES = list(Parameters.NAMES)


def truth(**moved: float) -> np.ndarray:
    values = dict.fromkeys(NAMES, 0.5) | {name: 0.1 for name in NAMES if name.startswith("correlation")}
    return np.array(list((values | moved).values()))


def test_parameters_are_read_as_they_were_stated() -> None:
    stated = collapsed_model().draw_prior(np.random.default_rng(1))[None]
    np.testing.assert_allclose(Parameters.read(stated).stated(), stated, rtol=1e-12)


def test_the_first_group_has_the_effects_it_was_given() -> None:
    """With hardly any residual, its records give them back."""
    design = NestedDesign.of(np.random.default_rng(2))
    residual = {name: 1e-7 for name in NAMES if name.startswith("residual")}
    stated = truth(**residual, **{"u of a group": 0.7, "theta of a group": 0.2})
    y = _outcomes(design, stated, np.random.default_rng(3))
    own = design.group == 0
    found = np.linalg.lstsq(design.rows[own], (y - design.rows @ stated[:3])[own])[0]
    np.testing.assert_allclose(found[:2], [0.7, -0.5], atol=1e-5)


def test_outcomes_have_the_covariance_of_both_levels() -> None:
    """Over draws of the given effects too: level and gap of group, its sibling and a stranger."""
    design = NestedDesign.of(np.random.default_rng(2), groups=4, size=6, outer=2, need_share=0.5)
    outer = np.array([0.6, 0.3])
    stated = truth(**{"outer SD of u": outer[0], "outer SD of gap": outer[1]})
    stated[[NAMES.index(name) for name in NAMES if name.startswith("residual")]] = 1e-7
    known = Parameters.read(stated[None])
    spread = known.group_cov[0][:2, :2] + np.diag(outer**2)
    rng = np.random.default_rng(4)
    effects = []
    for _ in range(4000):
        level, gap = np.linalg.cholesky(spread) @ rng.standard_normal(2)
        stated[-2:] = level, level + gap
        y = _outcomes(design, stated, rng) - design.rows @ stated[:3]
        own = [np.linalg.lstsq(design.rows[design.group == j], y[design.group == j])[0] for j in range(3)]
        effects.append(np.concatenate(own))
    found = np.cov(np.array(effects).T)
    group, above = known.group_cov[0], np.diag([*outer**2, 0.0])
    for j, k in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        expected = (j == k) * group + (design.parent[j] == design.parent[k]) * above
        np.testing.assert_allclose(found[3 * j : 3 * j + 3, 3 * k : 3 * k + 3], expected, atol=0.06)


def test_a_simulation_is_ranked_and_the_same_again() -> None:
    model = collapsed_model(sampling=Sampling(chains=2, draws=60, tune=80, cores=1))
    rngs = [np.random.default_rng(5).spawn(2) for _ in range(2)]
    first, again = (simulated_ranks(model, given) for given in rngs)
    assert first.names == (*NAMES, "log_likelihood")
    assert not first.failed.any()
    np.testing.assert_array_equal(first.ranks, again.ranks)


def test_outer_groups_that_cannot_share_are_refused() -> None:
    with pytest.raises(InputError, match="7 groups cannot be shared"):
        NestedDesign.of(np.random.default_rng(1), groups=7, outer=3)
