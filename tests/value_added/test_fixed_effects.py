"""Fixed effects: equal to least squares with a dummy a cell, right on simulated truth, clear about bad input."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import CollinearityError, InputError
from send_va.value_added.fixed_effects import fit_fixed_effects


def simulate(seed, schools=30, pupils=40, share=0.25):
    """Intake goes with effects (r about .5), and pupils with need vary more: what fixed effects must survive."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(schools), pupils)
    need = (rng.random(code.size) < share).astype(int)
    need[:: pupils // 2] = np.tile([1, 0], schools)  # every school has pupils with and without need
    u, gap = rng.normal(0, 0.3, schools), rng.normal(0, 0.2, schools)
    prior = (u + rng.normal(0, 0.4, schools))[code] + rng.normal(size=code.size)
    frl = (rng.random(code.size) < 0.3).astype(int)
    noise = rng.normal(size=code.size) * np.where(need == 1, 0.9, 0.5)
    y = 0.7 * prior - 0.1 * frl + u[code] + (gap[code] - 0.3) * need + noise
    data = pd.DataFrame({"y": y, "school": [f"s{c:02d}" for c in code], "need": need, "prior": prior, "frl": frl})
    return data, u + gap, u


def fit(data, **changes):
    given = {"outcome": "y", "school": "school", "need": "need", "covariates": "prior + frl"}
    return fit_fixed_effects(data, **(given | {"rng": np.random.default_rng(0)} | changes))


def contrast(names, schools, school, measure):
    """Weights on the dummies of statsmodels: a school's cell (or difference of cells) less the average over schools."""
    weights = pd.Series(0.0, index=names)
    for other in schools:
        share = float(other == school) - 1.0 / len(schools)
        if measure in ("theta", "gap"):
            weights[f"C(cell)[{other}:1]"] += share
        if measure in ("u", "gap"):
            weights[f"C(cell)[{other}:0]"] += share if measure == "u" else -share
    return weights.to_numpy()


@pytest.mark.parametrize("measure", ["theta", "u", "gap"])
def test_equals_dummy_regression(measure):
    """statsmodels OLS with explicit dummies, same data; both exact, so 1e-8."""
    data, _, _ = simulate(1, schools=6, pupils=12)
    data["cell"] = data["school"] + ":" + data["need"].astype(str)
    dummies = smf.ols("y ~ 0 + C(cell) + prior + frl", data).fit()
    effects = fit(data, standard_errors="homoscedastic")
    table = effects.summary(measure).set_index("school")
    for school in table.index:
        weights = contrast(dummies.params.index, list(table.index), school, measure)
        assert table.loc[school, "estimate"] == pytest.approx(weights @ dummies.params, abs=1e-8)
        assert table.loc[school, "se"] == pytest.approx(np.sqrt(weights @ dummies.cov_params() @ weights), rel=1e-8)
    assert effects.attrs["slopes"] == pytest.approx(dummies.params[["prior", "frl"]].tolist(), abs=1e-8)
    assert effects.attrs["slope_se"] == pytest.approx(dummies.bse[["prior", "frl"]].tolist(), rel=1e-8)


def test_clustered_slopes_equal_statsmodels():
    """Same sandwich by school; the factors for few clusters differ (both documented), so they are taken out."""
    data, _, _ = simulate(2, schools=8, pupils=20)
    data["cell"] = data["school"] + ":" + data["need"].astype(str)
    model = smf.ols("y ~ 0 + C(cell) + prior + frl", data)
    groups = {"groups": data["school"].astype("category").cat.codes, "use_correction": False}
    plain = model.fit(cov_type="cluster", cov_kwds=groups).bse[["prior", "frl"]].to_numpy()
    ratio = np.array(fit(data).attrs["slope_se"]) / plain
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-8)
    assert ratio[0] ** 2 == pytest.approx(8 / 7 * 159 / 158, rel=1e-8)


def test_residual_sd_by_need_and_draws():
    data, _, _ = simulate(3, schools=40, pupils=90)
    effects = fit(data, draws=2000)
    assert effects.attrs["residual_sd_with_need"] == pytest.approx(0.9, abs=0.06)  # 900 pupils: SE .02
    assert effects.attrs["residual_sd_without_need"] == pytest.approx(0.5, abs=0.03)
    table = effects.summary("theta")
    drawn = effects.draws("theta")
    assert drawn.mean(axis=0) == pytest.approx(table["estimate"].to_numpy(), abs=5 * table["se"].max() / 2000**0.5)
    assert drawn.std(axis=0) == pytest.approx(table["se"].to_numpy(), rel=0.08)  # 2,000 draws: 1.6 %, five of them
    assert drawn == pytest.approx(effects.draws("u") + effects.draws("gap"), abs=1e-12)
    assert np.abs(drawn.mean(axis=1)).max() < 1e-10


def test_recovers_truth_although_intake_goes_with_effects():
    covered, slopes = [], []
    for seed in range(25):
        data, theta, u = simulate(seed)
        effects = fit(data, draws=1)
        slopes.append(effects.attrs["slopes"][0])
        for measure, truth in (("theta", theta), ("u", u), ("gap", theta - u)):
            table = effects.summary(measure)
            covered.append(np.mean(np.abs(table["estimate"] - (truth - truth.mean())) < 1.96 * table["se"]))
    assert abs(np.mean(slopes) - 0.7) < 2 * np.std(slopes, ddof=1) / 5
    assert 0.93 < np.mean(covered) < 0.97  # 2,250 intervals in 25 data sets: SE about .006


def test_reliability_rises_with_pupils():
    small, large = fit(simulate(5, pupils=20)[0]), fit(simulate(5, pupils=200)[0])
    both = [item.summary("theta")["reliability"].mean() for item in (small, large)]
    assert 0.0 <= both[0] < both[1] < 1.0


def test_schools_without_a_kind_of_pupil_are_named():
    data, _, _ = simulate(6, schools=5, pupils=20)
    data.loc[data["school"] == "s01", "need"] = 0
    data.loc[data["school"] == "s03", "need"] = 1
    effects = fit(data)
    assert effects.schools == ["s00", "s02", "s04"]
    assert effects.attrs["not_estimable"] == ["s01", "s03"]
    assert effects.attrs["not_estimable_reason"] == ["no pupil with need", "no pupil without need"]
    assert not np.isnan(effects.draws("theta")).any()
    complete = fit(data[~data["school"].isin(["s01", "s03"])])
    assert effects.attrs["slopes"] != pytest.approx(complete.attrs["slopes"], abs=1e-6)  # they still inform the slopes


def test_without_covariates_it_is_cell_means():
    data, _, _ = simulate(7, schools=4, pupils=20)
    means = data[data["need"] == 1].groupby("school")["y"].mean()
    table = fit(data, covariates="").summary("theta")
    assert table["estimate"].to_numpy() == pytest.approx((means - means.mean()).to_numpy(), abs=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.floats(-100, 100), st.floats(0.1, 50), st.integers(0, 1000))
def test_shift_and_scale_of_the_outcome(shift, scale, seed):
    """Adding a constant changes nothing; a change of unit scales estimates and errors alike."""
    data, _, _ = simulate(seed, schools=4, pupils=12)
    base = fit(data, draws=1).summary("gap")
    moved = fit(data.assign(y=shift + scale * data["y"]), draws=1).summary("gap")
    assert moved["estimate"].to_numpy() == pytest.approx(scale * base["estimate"].to_numpy(), abs=1e-7 * scale)
    assert moved["se"].to_numpy() == pytest.approx(scale * base["se"].to_numpy(), rel=1e-6)


def test_refusals():
    data, _, _ = simulate(8, schools=4, pupils=20)
    with pytest.raises(InputError, match=r"need: is not 0 or 1; 2 rows fail; rows 1, 3; values 2, 2"):
        fit(data.assign(need=[2, data["need"][1], 2, *data["need"][3:]]))
    with pytest.raises(CollinearityError, match="prior_mean: does not vary among pupils of the same school and need"):
        fit(data.assign(prior_mean=data.groupby("school")["prior"].transform("mean")), covariates="prior + prior_mean")
    with pytest.raises(CollinearityError, match="need: does not vary"):
        fit(data, covariates="prior + need")
    with pytest.raises(CollinearityError, match="twice: is a combination"):
        fit(data.assign(twice=2 * data["prior"]), covariates="prior + twice")
    with pytest.raises(InputError, match="prior: has missing values; 1 row fails; rows 2"):
        fit(data.assign(prior=[0.1, np.nan, *data["prior"][2:]]))
    with pytest.raises(InputError, match="0 of 4 schools have pupils with and without need"):
        fit(data.assign(need=0))
    with pytest.raises(InputError, match="clustered or homoscedastic"):
        fit(data, standard_errors="hc3")
    with pytest.raises(InputError, match=r"shool.*Did you mean 'school'"):
        fit(data, school="shool")
    with pytest.raises(InputError, match="draws must be at least 1"):
        fit(data, draws=0)
