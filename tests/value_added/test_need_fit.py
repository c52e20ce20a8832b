"""Value-added with need estimated: against simulated truth, against the labelled estimator, and its bookkeeping."""

import numpy as np
import pandas as pd
import pytest
from true_scores import ROLES, FixedScores, cover, design_of, entry_scores, label_free_scores

from send_va.errors import CollinearityError, InputError
from send_va.records.design_columns import CONTEXTS
from send_va.records.reader import Cohort
from send_va.records.simulator import SimulatedCohort, simulate
from send_va.value_added.design import context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled
from send_va.value_added.need_fit import FEW_EXPECTED, fit_need
from send_va.value_added.pupil_design import PupilDesign

SCHOOLS = 200
FOUR_MC_ERRORS = 4 * np.sqrt(0.95 * 0.05 / SCHOOLS)


@pytest.fixture(scope="module")
def world() -> SimulatedCohort:
    """Magnets and leniency; lenient schools do more for pupils with need."""
    return simulate(np.random.default_rng(12), schools=SCHOOLS, scenario="lenient_better")


@pytest.fixture(scope="module")
def design(world: SimulatedCohort) -> PupilDesign:
    return design_of(world.pupils)


@pytest.fixture(scope="module")
def scores(world: SimulatedCohort) -> FixedScores:
    """Leniency of feeders known up to an error of .2, as from some 40 pupils each."""
    rng = np.random.default_rng(5)
    drawn = [entry_scores(world, 0.2 * rng.standard_normal(len(world.feeders))) for _ in range(12)]
    return FixedScores((entry_scores(world), *drawn))


@pytest.fixture(scope="module")
def small() -> tuple[SimulatedCohort, PupilDesign, FixedScores]:
    world = simulate(np.random.default_rng(4), schools=50, scenario="lenient_better", pupils_per_school=100)
    rng = np.random.default_rng(1)
    drawn = [entry_scores(world, 0.3 * rng.standard_normal(len(world.feeders))) for _ in range(5)]
    return world, design_of(world.pupils), FixedScores((entry_scores(world), *drawn))


def truth_of(world: SimulatedCohort) -> pd.DataFrame:
    return world.truth.astype({"school": str}).set_index("school")


def test_covers_the_truth_and_finds_delta(world: SimulatedCohort, design: PupilDesign, scores: FixedScores) -> None:
    """At the true identification parameters: 95 % intervals cover 95 %, within four Monte-Carlo errors."""
    fit = fit_need(design, scores, "entry", ["cva"], rng=np.random.default_rng(1))["cva"]
    truth = truth_of(world)
    assert fit.converged
    for measure, name in (("theta", "theta"), ("u", "u"), ("gap", "s")):
        table = fit.effects.summary(measure)
        known = truth[name].loc[table["school"]].to_numpy()
        assert abs(cover(table, truth[name]) - 0.95) < FOUR_MC_ERRORS, measure
        z = (table["estimate"] - known) / table["se"]
        assert abs((np.abs(z) < 1.96).mean() - 0.95) < FOUR_MC_ERRORS, measure
        assert abs(z.mean()) < 4 / np.sqrt(SCHOOLS), measure
    theta = fit.effects.summary("theta")
    assert np.corrcoef(theta["mean"], truth["theta"].loc[theta["school"]])[0, 1] > 0.85
    delta = fit.coefficients.set_index("term").loc["severity"]
    known_delta = world.scenario.delta * world.scenario.outcome_sd
    assert abs(delta["estimate"] - known_delta) < 4 * delta["se"]
    assert delta["lower"] < delta["estimate"] < delta["upper"] < 0


def test_magnets_are_not_penalised_as_by_labels(
    world: SimulatedCohort, design: PupilDesign, scores: FixedScores
) -> None:
    """Bias per SD of intake need is smaller in size than with labels as recorded (design: -.011 against -.050)."""
    cohort = Cohort.from_pandas(world.pupils, ROLES)
    profile = cohort.profile(3)
    products = labelled_products(cohort, profile, context_columns(cohort, profile))
    labelled = fit_labelled(products, "cva", rng=np.random.default_rng(1), draws=100)
    entry = fit_need(design, scores, "entry", ["cva"], rng=np.random.default_rng(1), draws=100, plug_in=True)["cva"]
    truth = truth_of(world)

    def magnet_bias(effects: pd.DataFrame) -> float:
        own = truth.loc[effects["school"]]
        columns = [np.ones(SCHOOLS), own["theta"], own["leniency"], own["intake_need"] / own["intake_need"].std()]
        error = (effects["mean"].to_numpy() - own["theta"].to_numpy()) / world.scenario.outcome_sd
        return float(np.linalg.lstsq(np.column_stack(columns), error, rcond=None)[0][3])

    by_label, by_entry = (magnet_bias(fit.effects.summary("theta")) for fit in (labelled, entry))
    assert by_label < -0.03
    assert abs(by_entry) < abs(by_label) / 2


def test_certain_need_is_the_labelled_estimator() -> None:
    """Scores of 0 and 1 without severity: the same model, so the same effects to the tolerance of the passes."""
    pupils = simulate(np.random.default_rng(9), schools=60).pupils
    pupils["sen_status"] = pupils["sen_status"].replace("E", "K")
    cohort = Cohort.from_pandas(pupils, ROLES)
    profile = cohort.profile(3)
    products = labelled_products(cohort, profile, context_columns(cohort, profile))
    labels = FixedScores((((pupils["sen_status"] != "N").to_numpy(dtype=float), None),))
    design = design_of(pupils)
    fits = fit_need(design, labels, "label_free", rng=np.random.default_rng(1), draws=100, plug_in=True)
    for context in CONTEXTS:
        reference = fit_labelled(products, context, rng=np.random.default_rng(1), draws=100)
        for measure in ("theta", "u", "gap"):
            ours, theirs = fits[context].effects.summary(measure), reference.effects.summary(measure)
            np.testing.assert_allclose(ours["mean"], theirs["mean"], atol=5e-3)
            np.testing.assert_allclose(ours[["estimate", "se"]], theirs[["estimate", "se"]], rtol=5e-3, atol=5e-3)
            np.testing.assert_array_equal(ours["n_need"], theirs["n_need"])
        assert fits[context].effects.attrs["prior_reference"] == pytest.approx(products.prior_reference)
        ours, theirs = (fit.coefficients.set_index("term")["estimate"] for fit in (fits[context], reference))
        np.testing.assert_allclose(ours[theirs.index], theirs, rtol=1e-2, atol=1e-2)


def test_same_seed_same_bytes(small: tuple[SimulatedCohort, PupilDesign, FixedScores]) -> None:
    """Whatever the number of workers, and whichever other contexts are asked for."""
    _, design, scores = small
    one = fit_need(design, scores, "entry", rng=np.random.default_rng(1), draws=60, workers=1)
    two = fit_need(design, scores, "entry", rng=np.random.default_rng(1), draws=60, workers=2)
    for context in CONTEXTS:
        np.testing.assert_array_equal(one[context].effects.draws(), two[context].effects.draws())
        pd.testing.assert_frame_equal(one[context].effects.table(), two[context].effects.table(), check_exact=True)
        pd.testing.assert_frame_equal(one[context].coefficients, two[context].coefficients, check_exact=True)
    alone = fit_need(design, scores, "entry", ["prior"], rng=np.random.default_rng(1), draws=60)
    np.testing.assert_array_equal(one["prior"].effects.draws(), alone["prior"].effects.draws())


def test_identification_error_is_in_every_interval(small: tuple[SimulatedCohort, PupilDesign, FixedScores]) -> None:
    """Against the same fit with parameters taken as known: larger errors; only that one is marked."""
    _, design, scores = small
    carried = fit_need(design, scores, "entry", ["cva"], rng=np.random.default_rng(1), draws=50)["cva"]
    known = fit_need(design, scores, "entry", ["cva"], rng=np.random.default_rng(1), draws=50, plug_in=True)["cva"]
    ours, theirs = carried.effects.summary("gap"), known.effects.summary("gap")
    assert (ours["se"] ** 2).mean() > (theirs["se"] ** 2).mean()
    assert carried.effects.attrs["identification"] == "5 joint draws"
    assert known.effects.attrs["identification"] == "plug-in"
    assert any("plug-in" in note for note in known.notes)
    assert not any("plug-in" in note for note in carried.notes)
    same = FixedScores((scores.tables[0],) * 6)
    again = fit_need(design, same, "entry", ["cva"], rng=np.random.default_rng(1), draws=50)["cva"]
    pd.testing.assert_series_equal(again.effects.summary("gap")["se"], theirs["se"], rtol=1e-5)
    np.testing.assert_allclose(again.coefficients["se"], known.coefficients["se"], rtol=1e-4)
    np.testing.assert_allclose(again.effects.summary("gap")["reliability"], theirs["reliability"], atol=1e-4)


def test_total_variance_of_delta(small: tuple[SimulatedCohort, PupilDesign, FixedScores]) -> None:
    """At the expected scores; mean of the squared errors within draws plus the variance between them."""
    _, design, scores = small
    pooled = fit_need(design, scores, "entry", ["cva"], rng=np.random.default_rng(1), draws=50, residual_by_need=False)[
        "cva"
    ]
    delta = pooled.coefficients.set_index("term").loc["severity"]
    each = [
        fit_need(
            design,
            FixedScores((table,)),
            "entry",
            ["cva"],
            rng=np.random.default_rng(1),
            draws=2,
            residual_by_need=False,
            plug_in=True,
        )["cva"]
        .coefficients.set_index("term")
        .loc["severity"]
        for table in scores.tables
    ]
    expected, *each = each
    estimates, errors = (np.array([row[name] for row in each]) for name in ("estimate", "se"))
    assert delta["estimate"] == pytest.approx(expected["estimate"], rel=1e-6)
    assert delta["se"] == pytest.approx(np.sqrt((errors**2).mean() + estimates.var(ddof=1)), rel=1e-4)


def test_label_free_at_its_own_mean(world: SimulatedCohort, design: PupilDesign) -> None:
    """Stated at the p0-weighted mean it is far better known than extrapolated to p0 of one, and covers its estimand."""
    plain = simulate(np.random.default_rng(21), schools=SCHOOLS, scenario="independent")
    scores = FixedScores((label_free_scores(plain),))
    fit = fit_need(design_of(plain.pupils), scores, "label_free", ["cva"], rng=np.random.default_rng(1), plug_in=True)[
        "cva"
    ]
    truth, p0 = truth_of(plain), fit.effects.attrs["mean_p0"]
    at_mean = fit.effects.summary("at_mean_p0")
    assert 0.2 < p0 < 0.6
    assert abs(cover(at_mean, truth["u"] + p0 * truth["s"]) - 0.95) < FOUR_MC_ERRORS
    assert at_mean["sd"].mean() < fit.effects.summary("theta")["sd"].mean()
    assert "severity" not in set(fit.coefficients["term"])


def test_a_school_without_need(small: tuple[SimulatedCohort, PupilDesign, FixedScores]) -> None:
    """Nobody is likely to have need: kept, flagged, no estimate of its own for theta, and shrunken to the average."""
    world, design, scores = small
    pi, severity = (values.copy() for values in scores.tables[0])
    first = (world.pupils["school"] == world.pupils["school"].min()).to_numpy()
    pi[first] = 1e-4
    fit = fit_need(
        design, FixedScores(((pi, severity),)), "entry", ["cva"], rng=np.random.default_rng(1), draws=50, plug_in=True
    )["cva"]
    gap, u = fit.effects.summary("gap").iloc[0], fit.effects.summary("u").iloc[0]
    assert gap["flag"] == FEW_EXPECTED
    assert gap["n_need"] == 0
    assert np.isnan(gap["estimate"])
    assert np.isfinite(u["estimate"])
    assert gap["reliability"] < 0.2
    alike = pi.copy()
    alike[first] = 0.3
    fit = fit_need(
        design,
        FixedScores(((alike, severity),)),
        "entry",
        ["cva"],
        rng=np.random.default_rng(1),
        draws=50,
        plug_in=True,
    )["cva"]
    assert fit.effects.summary("theta")[["estimate", "se"]].iloc[0].isna().all()  # cannot be told from u
    assert np.isfinite(fit.effects.summary("theta")["mean"]).all()


def test_expected_need_is_rounded(small: tuple[SimulatedCohort, PupilDesign, FixedScores]) -> None:
    world, design, scores = small
    fit = fit_need(design, scores, "standardised", ["prior"], rng=np.random.default_rng(1), draws=50)["prior"]
    expected = pd.Series(scores.tables[0][0]).groupby(world.pupils["school"].to_numpy()).sum()
    assert fit.effects.data["n_need"].dtype == np.int64
    np.testing.assert_array_equal(fit.effects.summary()["n_need"], np.rint(expected))


def test_bad_input_is_refused(small: tuple[SimulatedCohort, PupilDesign, FixedScores]) -> None:
    _, design, scores = small
    rng = np.random.default_rng(1)
    only_estimates = FixedScores(scores.tables[:1])
    with pytest.raises(InputError, match=r"0 joint draws .*plug_in = True"):
        fit_need(design, only_estimates, "entry", rng=rng)
    with pytest.raises(InputError, match="identification_draws is 9, but must lie between 2 and 5"):
        fit_need(design, scores, "entry", rng=rng, identification_draws=9)
    with pytest.raises(InputError, match="draws must be at least 2"):
        fit_need(design, scores, "entry", rng=rng, draws=1)
    with pytest.raises(InputError, match="workers"):
        fit_need(design, scores, "entry", rng=rng, workers=0)
    with pytest.raises(InputError, match="no estimator 'oracle'"):
        fit_need(design, scores, "oracle", rng=rng)
    with pytest.raises(InputError, match="Contexts are"):
        fit_need(design, scores, "entry", ["all"], rng=rng)
    pi, severity = scores.tables[0]
    with pytest.raises(InputError, match="pi: is no probability"):
        broken = FixedScores((scores.tables[0], (pi * 2, severity), (pi, severity)))
        fit_need(design, broken, "entry", ["prior"], rng=rng, draws=20)
    with pytest.raises(CollinearityError, match="severity"):
        fit_need(design, FixedScores(((pi, 2 * pi - 1),)), "entry", ["prior"], rng=rng, plug_in=True)
    with pytest.raises(InputError, match="entry needs severity"):
        fit_need(design, FixedScores(((pi, None),)), "entry", rng=rng, plug_in=True)
