"""The labelled estimator: against the formula engine on the same columns, and on truth with perfect labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from send_va.errors import CollinearityError, InputError, NotSupportedError
from send_va.multilevel import fit_gaussian
from send_va.records.design_columns import SplineColumn, check_contexts
from send_va.records.reader import Cohort
from send_va.records.simulator import SCENARIOS, simulate
from send_va.value_added.design import LabelledProducts, context_columns, labelled_products
from send_va.value_added.labelled import fit_labelled

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "la": "la",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "context": ["C(sex)", "fsm6", "idaci", "C(ethnicity)"],
}


def products_of(pupils: pd.DataFrame, *, knots: int = 3, roles: dict | None = None) -> LabelledProducts:
    cohort = Cohort.from_pandas(pupils, roles or ROLES)
    profile = cohort.profile(knots)
    return labelled_products(cohort, profile, context_columns(cohort, profile))


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    return simulate(np.random.default_rng(4), schools=60).pupils


@pytest.fixture(scope="module")
def products(pupils: pd.DataFrame) -> LabelledProducts:
    return products_of(pupils)


def by_formula(pupils: pd.DataFrame, products: LabelledProducts, context: str):
    """The same model written as columns of a data frame, for the engine that is checked against lme4."""
    data = pupils.assign(
        need=(pupils["sen_status"] != "N") * 1.0,
        ehcp=(pupils["sen_status"] == "E") * 1.0,
        prior_slope=(pupils["prior"] - products.prior_reference) / products.prior_sd,
    )
    spline = products.context.splines[0]
    names = [f"k{k}" for k in range(len(spline.names))]
    data[names] = spline.columns(pupils["prior"].to_numpy(dtype=float))
    terms = ["need", "ehcp", *names]
    if context != "prior":
        terms += ["fsm6", "idaci", "sex", "ethnicity"]
    if context == "composition":
        for column in ("prior", "fsm6", "idaci"):
            data[f"mean_{column}"] = data.groupby("school")[column].transform("mean")
            terms.append(f"mean_{column}")
    return fit_gaussian(f"outcome ~ {' + '.join(terms)}", data, {"school": "1 + need + prior_slope"})


@pytest.mark.parametrize("context", ["prior", "cva", "composition"])
def test_equals_the_engine_on_the_same_columns(pupils: pd.DataFrame, products: LabelledProducts, context: str) -> None:
    """One streamed pass with frozen knots, levels and school means gives the model a formula gives."""
    fit = fit_labelled(products, context, rng=np.random.default_rng(1), draws=100, residual_by_need=False)
    reference = by_formula(pupils, products, context)
    assert fit.converged
    assert fit.effects.attrs["llf"] == pytest.approx(reference.llf, abs=1e-5)
    modes = reference.random_effects("school").pivot_table("estimate", "level", "term")
    table = fit.effects.summary("theta").set_index("school")
    both = (modes["Intercept"] + modes["need"]).loc[table.index]
    np.testing.assert_allclose(table["mean"], both, atol=2e-3)
    np.testing.assert_allclose(fit.effects.summary("u").set_index("school")["mean"], modes["Intercept"], atol=2e-3)


def test_batches_do_not_matter(pupils: pd.DataFrame, products: LabelledProducts) -> None:
    """Ten small files of the same pupils add up to the same cross-products."""
    moments = sum(part.total for part in products.strata)
    shuffled = products_of(pupils.sample(frac=1.0, random_state=2))
    other = sum(part.total for part in shuffled.strata)
    size = np.sqrt(np.outer(np.diag(moments), np.diag(moments))) + 1.0
    center = (products.strata[0].center, shuffled.strata[0].center)
    assert products.schools == shuffled.schools
    if np.array_equal(*center):
        np.testing.assert_allclose(moments / size, other / size, atol=1e-10)
    fits = [
        fit_labelled(data, "cva", rng=np.random.default_rng(1), draws=100).effects.summary("theta")["mean"]
        for data in (products, shuffled)
    ]
    np.testing.assert_allclose(*fits, atol=1e-4)


def test_with_perfect_labels_intervals_cover_the_truth() -> None:
    """Labels equal to need at transfer: 95 % intervals of theta, u and gap cover 95 %, within four MC errors."""
    scenario = replace(SCENARIOS["independent"], delta=0.0)
    world = simulate(np.random.default_rng(11), schools=400, scenario=scenario)
    world.pupils["sen_status"] = np.where(world.pupil_truth["has_need"], "K", "N")
    context = ["C(sex)", "month_of_birth", "fsm6", "eal", "C(ethnicity)", "idaci", "looked_after"]
    fit = fit_labelled(
        products_of(world.pupils, knots=5, roles=ROLES | {"context": context}), "cva", rng=np.random.default_rng(1)
    )
    truth = world.truth.astype({"school": str}).set_index("school")
    for measure, name in (("theta", "theta"), ("u", "u"), ("gap", "s")):
        table = fit.effects.summary(measure).set_index("school")
        known = truth[name].loc[table.index]
        cover = ((table["lower"] < known) & (known < table["upper"])).mean()
        assert abs(cover - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400), (measure, cover)
        with_estimate = table["estimate"].notna()
        z = ((table["estimate"] - known) / table["se"])[with_estimate]
        assert abs((np.abs(z) < 1.96).mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400), measure
        assert abs(z.mean()) < 4 / np.sqrt(400), measure
    assert np.corrcoef(fit.effects.summary("theta")["mean"], truth["theta"])[0, 1] > 0.85


def test_unshrunken_estimate_is_gls_within_the_school(pupils: pd.DataFrame, products: LabelledProducts) -> None:
    """One school's estimate, written out densely on its pupils, to rounding."""
    fit = fit_labelled(products, "prior", rng=np.random.default_rng(1), draws=100)
    table = fit.effects.summary("gap").set_index("school")
    school = pupils["school"].iloc[0]
    own = pupils.query("school == @school")
    beta = fit.coefficients.set_index("term")["estimate"]
    spline = products.context.splines[0]
    prior = own["prior"].to_numpy(dtype=float)
    fixed = beta["Intercept"] + spline.columns(prior) @ beta[list(spline.names)].to_numpy()
    need, ehcp = (own["sen_status"] != "N").to_numpy(float), (own["sen_status"] == "E").to_numpy(float)
    residual = own["outcome"].to_numpy() - fixed - need * beta["need"] - ehcp * beta["ehcp"]
    components = fit.variance_components
    variance = components[components["group"] == "Residual"].set_index("term1")["variance"]
    slope = components.query("group == 'school' and term1 == 'prior_slope' and term2.isna()")["variance"].item()
    z = (prior - products.prior_reference) / products.prior_sd
    v = own["sen_status"].map({"N": variance["none"], "K": variance["support"], "E": variance["ehcp"]}).to_numpy()
    inverse = np.linalg.inv(np.diag(v) + slope * np.outer(z, z))
    design = np.column_stack([np.ones(len(own)), need])
    covariance = np.linalg.inv(design.T @ inverse @ design)
    expected = covariance @ design.T @ inverse @ residual
    assert table.loc[str(school), "estimate"] == pytest.approx(expected[1], rel=1e-5)
    assert table.loc[str(school), "se"] == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-5)


def test_unusual_schools_are_kept_and_flagged(pupils: pd.DataFrame) -> None:
    """One pupil, only pupils with SEND, none with SEND, and no complete record: none is dropped."""
    odd = pupils.copy()
    first, second, third, fourth = odd["school"].unique()[:4]
    odd = odd.drop(odd.index[odd["school"] == first][1:])
    odd.loc[odd["school"] == second, "sen_status"] = "K"
    odd.loc[odd["school"] == third, "sen_status"] = "N"
    odd.loc[odd["school"] == fourth, "outcome"] = np.nan
    fit = fit_labelled(products_of(odd), "prior", rng=np.random.default_rng(1), draws=100)
    table = fit.effects.summary("theta").set_index("school")
    assert len(table) == 60
    flags = table["flag"]
    assert flags[str(first)] == "one pupil"
    assert flags[str(second)] == "only pupils with SEND"
    assert flags[str(third)] == "no pupil with SEND"
    assert flags[str(fourth)] == "no complete pupil"
    assert np.isnan(table.loc[str(third), "estimate"])
    assert np.isnan(table.loc[str(fourth), "estimate"])
    assert table.loc[str(fourth), "mean"] == pytest.approx(0.0, abs=1e-9)
    assert table.loc[str(fourth), "reliability"] == pytest.approx(0.0, abs=0.02)
    assert np.isnan(fit.effects.summary("gap").set_index("school").loc[str(second), "estimate"])


def test_constant_and_collinear_covariates_are_named(pupils: pd.DataFrame) -> None:
    twice = pupils.assign(double=pupils["fsm6"] * 2.0)
    with pytest.raises(CollinearityError, match="double"):
        fit_labelled(
            products_of(twice, roles=ROLES | {"context": ["fsm6", "double"]}), "cva", rng=np.random.default_rng(1)
        )
    with pytest.raises(InputError, match="composition cannot use eal"):
        cohort = Cohort.from_pandas(pupils, ROLES)
        context_columns(cohort, cohort.profile(3), ("eal",))
    with pytest.raises(InputError, match="Contexts are prior, cva, composition"):
        check_contexts(["everything"])


def test_a_spline_the_scores_cannot_carry_is_named_as_one_thing(pupils: pd.DataFrame) -> None:
    outlier = pupils.assign(prior=pupils["prior"].where(pupils.index > 0, 1e6))
    with pytest.raises(CollinearityError, match=r"^prior: has too few different values .*fewer knots"):
        fit_labelled(products_of(outlier, knots=5), "prior", rng=np.random.default_rng(1))


def test_too_few_schools_for_their_means_are_told_what_to_leave_out(pupils: pd.DataFrame) -> None:
    few = pupils[pupils["school"].isin(pupils["school"].unique()[:3])]
    with pytest.raises(CollinearityError, match=r"school mean of .*There are 3 schools.*composition"):
        fit_labelled(products_of(few), "composition", rng=np.random.default_rng(1))


def test_a_category_of_identifiers_is_refused(pupils: pd.DataFrame) -> None:
    named = pupils.assign(code=[f"c{k}" for k in range(len(pupils))])
    with pytest.raises(InputError, match=r"code: has [\d,]+ levels, more than the 200"):
        products_of(named, roles=ROLES | {"context": ["C(code)"]})


def test_a_spline_is_fixed_by_its_knots() -> None:
    """The columns of a score do not depend on which other scores are in the batch, and span lines."""
    spline = SplineColumn("prior", (80.0, 95.0, 103.0, 120.0))
    scores = np.linspace(80, 120, 41)
    together = spline.columns(scores)
    alone = np.vstack([spline.columns(scores[k : k + 1]) for k in range(41)])
    np.testing.assert_array_equal(together, alone)
    assert together.shape == (41, len(spline.names))
    basis = np.column_stack([np.ones(41), together])
    residual = scores - basis @ np.linalg.lstsq(basis, scores, rcond=None)[0]
    assert np.abs(residual).max() < 1e-9


def test_known_error_of_the_prior_score_is_taken_out() -> None:
    """Error of known size is added to a score: corrected, its slope is that of the clean score, within 3 SE."""
    pupils = simulate(np.random.default_rng(5), schools=150).pupils
    rng = np.random.default_rng(6)
    sem = rng.uniform(2.0, 5.0, len(pupils))
    noisy = pupils.assign(prior=pupils["prior"] + sem * rng.standard_normal(len(pupils)), sem=sem)
    roles = ROLES | {"prior_sem": ["sem"]}

    def slope(data: LabelledProducts, **options: bool) -> pd.Series:
        fit = fit_labelled(data, "cva", rng=np.random.default_rng(1), draws=100, **options)
        return fit.coefficients.set_index("term").loc["prior"]

    clean = slope(products_of(pupils, knots=0))
    error_prone = products_of(noisy, knots=0, roles=roles)
    naive, corrected = slope(error_prone), slope(error_prone, correct_error=True)
    assert naive["estimate"] < clean["estimate"] - 10 * clean["se"]
    assert abs(corrected["estimate"] - clean["estimate"]) < 3 * corrected["se"]
    assert corrected["se"] > clean["se"]


def test_error_that_cannot_be_taken_out_is_refused(pupils: pd.DataFrame, products: LabelledProducts) -> None:
    with pytest.raises(InputError, match="prior_sem"):
        fit_labelled(products, "prior", rng=np.random.default_rng(1), correct_error=True)
    with_errors = ROLES | {"prior_sem": ["sem"]}
    with pytest.raises(NotSupportedError, match="spline"):
        data = products_of(pupils.assign(sem=1.0), roles=with_errors)
        fit_labelled(data, "prior", rng=np.random.default_rng(1), correct_error=True)
    with pytest.raises(InputError, match=r"sem: has missing values.* 2 rows fail"):
        sem = np.where(np.arange(len(pupils)) < 2, np.nan, 1.0)
        products_of(pupils.assign(sem=sem), knots=0, roles=with_errors)
    with pytest.raises(InputError, match="reliab"):
        data = products_of(pupils.assign(sem=30.0), knots=0, roles=with_errors)
        fit_labelled(data, "prior", rng=np.random.default_rng(1), correct_error=True)
