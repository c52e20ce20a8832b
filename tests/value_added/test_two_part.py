"""Two-part value-added: the share at the floor by status, and truth on records simulated from the model itself."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from send_va.errors import InputError, NotSupportedError
from send_va.multilevel.convergence import Limits
from send_va.multilevel.floor_part import sample_floor
from send_va.multilevel.nuts import Sampling
from send_va.records.reader import Cohort
from send_va.records.simulator import simulate
from send_va.value_added.bayes import BayesOptions
from send_va.value_added.bayes_checks import floor_check
from send_va.value_added.bayes_estimators import fit_labelled_bayes
from send_va.value_added.design import STRATA, context_columns, labelled_products
from send_va.value_added.two_part import TwoPartFit, fit_two_part, floor_cells

ROLES = {"pupil": "pupil", "school": "school", "outcome": "outcome", "prior": ["prior"], "sen_status": "sen_status"}
OPTIONS = BayesOptions(
    sampling=Sampling(chains=2, draws=150, tune=150), limits=Limits(rhat=1.1, ess=50, mcse=0.2, divergences=0.02)
)
FEW = replace(OPTIONS, sampling=Sampling(chains=2, draws=60, tune=80))


@dataclass(frozen=True)
class World:
    """Pupils simulated from the two-part model, with true expected outcomes of schools against the average one."""

    pupils: pd.DataFrame
    theta: np.ndarray
    u: np.ndarray


def two_part_world(seed: int, schools: int = 40, size: int = 100) -> World:
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(schools), size)
    status = rng.choice(3, len(school), p=[0.7, 0.15, 0.15])
    prior = rng.standard_normal(len(school)) - 0.5 * status
    band = np.searchsorted(np.quantile(prior, [1 / 3, 2 / 3]), prior)
    floor_effects = rng.standard_normal((schools, 2)) * [0.4, 0.6]
    above_effects = rng.standard_normal((schools, 2)) * [2.0, 1.5]
    log_odds = np.array([-4.0, -2.0, -0.3])[status] - 0.5 * band
    own = floor_effects[school, 0] + floor_effects[school, 1] * (status > 0)
    mean = 45.0 - np.array([0.0, 6.0, 10.0])[status] + 3.0 * prior
    effect = above_effects[school, 0] + above_effects[school, 1] * (status > 0)
    above = np.maximum(mean + effect + 5.0 * rng.standard_normal(len(school)), 0.1)
    at_floor = rng.random(len(school)) < expit(log_odds + own)
    pupils = pd.DataFrame(
        {
            "pupil": np.arange(len(school)),
            "school": school,
            "outcome": np.where(at_floor, 0.0, above),
            "prior": prior,
            "sen_status": np.array(["N", "K", "E"])[status],
        }
    )
    truth = {}
    for name, which, logit_own, own_above in (
        ("u", status == 0, floor_effects[:, 0], above_effects[:, 0]),
        ("theta", status > 0, floor_effects.sum(axis=1), above_effects.sum(axis=1)),
    ):
        here = (1 - expit(log_odds[which] + logit_own[:, None])) * (mean[which] + own_above[:, None])
        truth[name] = here.mean(axis=1) - ((1 - expit(log_odds[which])) * mean[which]).mean()
    return World(pupils, truth["theta"], truth["u"])


@pytest.fixture(scope="module")
def world() -> World:
    return two_part_world(1)


@pytest.fixture(scope="module")
def fitted(world: World) -> TwoPartFit:
    return fit_two_part(Cohort.from_pandas(world.pupils, ROLES), options=OPTIONS, seed=3, draws=300)


def test_recovers_truth(world: World, fitted: TwoPartFit) -> None:
    """Nine in ten of the 90 % intervals hold the true expected outcome; parts add up to the whole."""
    assert fitted.converged, (str(fitted.convergence), fitted.above.fit.notes)
    for name, truth in (("theta", world.theta), ("u", world.u)):
        table = fitted.effects.summary(name, coverage=0.9)
        order = [int(school) for school in table["school"]]
        inside = (table["lower"] <= truth[order]) & (truth[order] <= table["upper"])
        assert inside.mean() > 0.76  # 30 of 40: P < .005 under 90 %
        assert np.corrcoef(table["mean"], truth[order])[0, 1] > 0.75
        both = fitted.effects.draws(f"{name}_floor") + fitted.effects.draws(f"{name}_above")
        np.testing.assert_allclose(both, fitted.effects.draws(name), atol=1e-12)
    gap = fitted.effects.draws("theta") - fitted.effects.draws("u")
    np.testing.assert_allclose(fitted.effects.draws("gap"), gap, atol=1e-12)
    log_odds = fitted.floor.kind.mean(axis=(0, 1))
    np.testing.assert_allclose(log_odds, [-4.0, -2.0, -0.3], atol=0.5)


def test_floor_of_the_simulator_is_predicted_by_two_parts_only() -> None:
    """Scenario ``floor``: a third of pupils with an EHCP at 0; a normal outcome has fewer, and most of them below 0."""
    pupils = simulate(np.random.default_rng(4), schools=30, scenario="floor").pupils
    cohort = Cohort.from_pandas(pupils, ROLES)
    profile = cohort.profile()
    part = sample_floor(floor_cells(cohort, profile, 0.0), FEW.sampling, seed=3)
    table = part.share_table(np.random.default_rng(1)).set_index("kind")
    assert ((table["lower"] <= table["observed"]) & (table["observed"] <= table["upper"])).all()
    assert table.loc["ehcp", "observed"] == pytest.approx(1 / 3, abs=0.01)
    data = labelled_products(cohort, profile, context_columns(cohort, profile))
    normal = fit_labelled_bayes(data, "prior", options=FEW, rng=np.random.default_rng(2), draws=60)
    rows = floor_check(
        normal.posterior, table["observed"].reindex(STRATA).to_numpy(), 0.0, np.random.default_rng(1)
    ).set_index("group")
    assert rows.loc["ehcp", "reading"] == "more than the model makes"


def test_what_is_refused(world: World) -> None:
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    with pytest.raises(NotSupportedError, match="composition"):
        fit_two_part(cohort, context="composition", seed=1)
    with pytest.raises(InputError, match="nothing tells"):
        fit_two_part(cohort, seed=1, floor=-1.0)


def test_floor_cells_count_every_pupil_once(world: World) -> None:
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    cells = floor_cells(cohort, cohort.profile(), 0.0)
    by_status = world.pupils["sen_status"].value_counts()[["N", "K", "E"]].to_numpy()
    np.testing.assert_array_equal(cells.records.sum(axis=(0, 2)), by_status)
    assert cells.at_floor.sum() == (world.pupils["outcome"] == 0).sum()
    assert cells.records.sum(axis=(0, 1)).min() > 0.3 * len(world.pupils)
