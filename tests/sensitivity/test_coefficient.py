"""Every number of two programs of Cinelli & Hazlett on the survey in Darfur."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from send_va.errors import CollinearityError, InputError
from send_va.sensitivity.coefficient import CoefficientSensitivity, Regression, ols_sensitivity
from send_va.sensitivity.unmeasured import (
    adjusted_estimate,
    adjusted_se,
    adjusted_t,
    bias,
    group_partial_r2,
    partial_f2,
    partial_r2,
    robustness_value,
)

FORMULA = (
    "peacefactor ~ directlyharmed + C(village) + female + age + farmer_dar + herder_dar + pastvoted + hhsize_darfur"
)
CLOSE: dict[str, float] = {"abs": 1e-9, "rel": 0.0}  # least squares by two other programs, all printed digits
COLUMNS = {
    "r2_dz": ("r2dz.x", "r2dz_x"),
    "r2_yz": ("r2yz.dx", "r2yz_dx"),
    "adjusted_estimate": ("adjusted_estimate",) * 2,
    "adjusted_se": ("adjusted_se",) * 2,
    "adjusted_t": ("adjusted_t",) * 2,
    "adjusted_lower": ("adjusted_lower_CI",) * 2,
    "adjusted_upper": ("adjusted_upper_CI",) * 2,
}


@pytest.fixture(scope="module")
def fit(shared_reference: Path) -> Any:
    return smf.ols(FORMULA, pd.read_csv(shared_reference / "sensemakr" / "darfur_input.csv")).fit()


@pytest.fixture(scope="module")
def found(fit: Any) -> CoefficientSensitivity:
    return ols_sensitivity(fit, "directlyharmed", ["female"])


@pytest.fixture(scope="module")
def by_r(shared_reference: Path) -> dict[str, Any]:
    """R's sensemakr 0.1.6."""
    return dict(json.loads((shared_reference / "sensemakr" / "sensemakr_R_darfur.json").read_text()))


@pytest.fixture(scope="module")
def by_python(shared_reference: Path) -> dict[str, Any]:
    """PySensemakr 0.0.8."""
    return dict(json.loads((shared_reference / "sensemakr" / "pysensemakr_darfur.json").read_text()))


def test_the_coefficient_and_its_robustness(
    found: CoefficientSensitivity, by_r: dict[str, Any], by_python: dict[str, Any]
) -> None:
    of = found.estimate, found.se, found.dof
    half, at_5 = robustness_value(*of, q=0.5), robustness_value(*of, alpha=0.05)
    r = by_r["stats"][0]
    ours = (*of, found.t, partial_r2(*of), partial_f2(*of), robustness_value(*of), at_5)
    keys = ("estimate", "se", "dof", "t_statistic", "r2yd.x", "f2yd.x", "rv_q", "rv_qa")
    assert ours == pytest.approx([r[key] for key in keys], **CLOSE)
    assert [found.robustness, found.robustness_significance, half, found.partial_r2] == pytest.approx(
        [by_r["rv"], by_r["rv_a05"], by_r["rv_q05"], by_r["pr2"]], **CLOSE
    )
    python = by_python["sensitivity_stats"]
    assert ours == pytest.approx([python[key.replace(".", "_")] for key in keys], **CLOSE)
    coef = by_python["coef"]
    assert [*of, found.t] == pytest.approx([coef["est"], coef["se"], coef["dof"], coef["t"]], **CLOSE)
    assert [partial_r2(*of), partial_f2(*of), robustness_value(*of), at_5, half] == pytest.approx(
        [
            by_python["partial_r2"],
            by_python["partial_f2"][0],
            by_python["rv_q1"][0],
            by_python["rv_q1_a05"][0],
            by_python["rv_q05_a1"][0],
        ],
        **CLOSE,
    )


@pytest.mark.parametrize("row", [0, 1, 2])
def test_bounds_by_the_benchmark_female(
    found: CoefficientSensitivity, by_r: dict[str, Any], by_python: dict[str, Any], row: int
) -> None:
    ours = found.benchmarks.iloc[row]
    for column, (in_r, in_python) in COLUMNS.items():
        assert ours[column] == pytest.approx(by_r["bounds"][row][in_r], **CLOSE)
        assert ours[column] == pytest.approx(by_python["bounds"][row][in_python], **CLOSE)
    assert ours["label"] == by_r["bounds"][row]["bound_label"] == by_python["bounds"][row]["bound_label"]
    assert found.treatment == by_r["bounds"][row]["treatment"] == by_python["bounds"][row]["treatment"]


def test_a_confounder_that_explains_a_tenth_of_both_and_a_group_of_covariates(
    fit: Any, found: CoefficientSensitivity, by_r: dict[str, Any], by_python: dict[str, Any]
) -> None:
    of = found.estimate, found.se, found.dof
    tenth = 0.1, 0.1
    ours = adjusted_estimate(*of, *tenth), adjusted_se(*of[1:], *tenth), adjusted_t(*of, *tenth)
    assert ours == pytest.approx([by_r["adj_est"], by_r["adj_se"], by_r["adj_t"]], **CLOSE)
    names = [f"adjusted_{what}_r2dz.1_r2yz.1" for what in ("estimate", "se", "t")]
    assert ours == pytest.approx([by_python[name] for name in names], **CLOSE)
    assert bias(*of[1:], *tenth) == pytest.approx(by_python["bias_r2dz.1_r2yz.1"], **CLOSE)
    group = ["female", "pastvoted"]
    share = group_partial_r2(fit.params[group], fit.cov_params().loc[group, group], found.dof)
    assert share == pytest.approx(by_r["group"], **CLOSE)
    assert share == pytest.approx(by_python["group_partial_r2"], **CLOSE)
    assert Regression.of_ols(fit).share(group) == pytest.approx(share, abs=1e-12)


def test_cross_products_give_the_same_regression_as_rows(shared_reference: Path) -> None:
    data = pd.read_csv(shared_reference / "sensemakr" / "darfur_input.csv")
    names = ["directlyharmed", "female", "age", "peacefactor"]
    rows = data[names].to_numpy(dtype=np.float64)
    rows = rows - rows.mean(axis=0)
    ours = Regression.of_products(rows.T @ rows, names, "peacefactor", names[:3], len(rows) - 4)
    theirs = smf.ols("peacefactor ~ directlyharmed + female + age", data).fit()
    np.testing.assert_allclose(ours.beta, theirs.params[names[:3]], rtol=1e-10)
    np.testing.assert_allclose(ours.cov, theirs.cov_params().loc[names[:3], names[:3]], rtol=1e-8, atol=1e-16)


def test_words_and_table_say_the_same(found: CoefficientSensitivity) -> None:
    assert "13.9 % of what is left of both directlyharmed and the outcome" in str(found)
    assert "as strong as female" in str(found) and "<table" in found._repr_html_()
    first = found.table.iloc[0]
    assert first["adjusted_estimate"] == found.estimate and first["label"] == "unadjusted" and len(found.table) == 4


def test_a_benchmark_that_would_explain_all_is_named_and_bad_input_refused(fit: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    data = pd.DataFrame({"x": x, "d": x + 0.3 * rng.normal(size=200)})
    data["y"] = data["d"] + rng.normal(size=200)
    close = smf.ols("y ~ d + x", data).fit()
    found = ols_sensitivity(close, "d", {"the twin": ["x"]}, kd=[0.01, 1.0])
    assert found.impossible == ("1x the twin",) and "No confounder can be 1x the twin" in str(found)
    assert ols_sensitivity(close, "d", ["x"], kd=[0.05], ky=[0.1]).benchmarks["label"].tolist() == ["0.05x/0.1x x"]
    for treatment, benchmarks, match in (
        ("nobody", ["x"], "no column"),
        ("d", ["z"], "no covariate z"),
        ("d", {"none": []}, "has no covariate"),
    ):
        with pytest.raises(InputError, match=match):
            ols_sensitivity(close, treatment, benchmarks)
    with pytest.raises(InputError, match="times as strong"):
        ols_sensitivity(close, "d", ["x"], kd=[-1.0])
    with pytest.raises(InputError, match="no fit of statsmodels' OLS"):
        ols_sensitivity(smf.wls("y ~ d + x", data, weights=np.arange(1, 201)).fit(), "d", ["x"])
    with pytest.raises(CollinearityError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels says it too
        ols_sensitivity(smf.ols("y ~ d + x + again", data.assign(again=data["x"])).fit(), "d", ["x"])
    with pytest.raises(InputError, match="degrees of freedom"):
        Regression.of_products(np.eye(2), ["d", "y"], "y", ["d"], 1.0)
