"""The compiled density is that of the model stated in PyMC, but for a constant."""

import numpy as np
import pytest
from pytensor.compile.mode import Mode

from send_va.multilevel.collapsed import CollapsedModel, Start
from send_va.multilevel.collapsed_data import collapsed_data
from send_va.multilevel.collapsed_density import CollapsedDensity
from send_va.multilevel.crossproducts import cross_products

COLUMNS = ["Intercept", "need", "prior"]

PLAIN = Mode("py", "None")  # NumPy, nothing compiled


def model_of(effects: int, outer: int) -> CollapsedModel:
    rng = np.random.default_rng(1)
    n, schools = 400, 20
    rows = np.column_stack(
        [np.ones(n), rng.random(n) < 0.3, rng.standard_normal(n), 3.0 + rng.standard_normal(n)]
    ).astype(float)
    school, stratum = rng.integers(0, schools, n), rng.integers(0, 2, n)
    strata = [cross_products(rows[stratum == k], school[stratum == k], schools, [*COLUMNS, "y"]) for k in (0, 1)]
    data = collapsed_data(
        strata,
        fixed=COLUMNS,
        random=COLUMNS[:effects],
        outcome="y",
        groups=[str(at) for at in range(schools)],
        strata_names=("a", "b"),
        parent=np.arange(schools) % 4 if outer else None,
        outer=list("abcd"),
        outer_random=COLUMNS[:outer],
    )
    begin = np.array([3.0, 0.1, 0.1])
    return CollapsedModel.of(
        data, Start(begin, 0.01 * np.eye(3), 0.1 * np.eye(effects), np.ones(2), np.full(outer, 0.01))
    )


@pytest.mark.parametrize(("effects", "outer"), [(1, 0), (2, 1), (3, 0), (3, 2)])
def test_it_equals_pymc(effects: int, outer: int) -> None:
    model = model_of(effects, outer)
    density, built = CollapsedDensity(model), model.build().model
    value, slope = built.compile_logp(mode=PLAIN), built.compile_dlogp(mode=PLAIN)
    start, evaluate = built.initial_point(), density.of_thread()
    rng = np.random.default_rng(2)

    def point(x: np.ndarray) -> dict[str, np.ndarray]:
        named, at = {}, 0
        for variable in built.value_vars:
            first = start[variable.name]
            named[variable.name] = x[at : at + first.size].reshape(first.shape)
            at += first.size
        return named

    apart = []
    for seed in range(4):
        x = density.initial_point(seed) + 0.3 * rng.standard_normal(density.size)
        ours, gradient = evaluate(x)
        apart.append(float(value(point(x))) - ours)
        np.testing.assert_allclose(gradient, slope(point(x)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(apart, apart[0], atol=1e-9)
    begin = np.concatenate([np.ravel(start[variable.name]) for variable in built.value_vars])
    np.testing.assert_allclose(density.initial_point(1)[3:], begin[3:])
    assert density.names == [variable.name for variable in built.free_RVs]
    natural = density.natural(density.initial_point(1))
    assert [natural[name].shape for name in density.names] == density.shapes
