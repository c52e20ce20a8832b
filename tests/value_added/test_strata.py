"""Residual variance by status against nlme, the reference program for variance functions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.multilevel.crossproducts import cross_products
from send_va.multilevel.elimination import Level
from send_va.value_added.strata import fit_strata

NLME = Path(__file__).parents[1] / "reference" / "nlme_strata"


def strata_of(data: pd.DataFrame):
    rows = np.column_stack([np.ones(len(data)), data[["need", "ehcp", "prior", "y"]]])
    schools = data["school"].to_numpy() - 1
    columns = ["Intercept", "need", "ehcp", "prior", "y"]
    center = np.array([0.0, 0.0, 0.0, 100.0, 45.0])
    n = schools.max() + 1
    parts = [data["status"].to_numpy() == status for status in ("N", "K", "E")]
    return [cross_products(rows[at], schools[at], n, columns, center=center) for at in parts]


# nlme stops when its own iterations change less than 1e-10 relative; its variances carry about 1e-5 of slack.
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_matches_nlme(method: str) -> None:
    reference = json.loads((NLME / "reference.json").read_text())[method]
    fit = fit_strata(
        strata_of(pd.read_csv(NLME / "input.csv")), [Level(np.array([0, 1]))], np.arange(4), 4, reml=method == "reml"
    )
    assert fit.settled
    assert fit.solution.llf == pytest.approx(reference["logLik"], abs=1e-4)
    np.testing.assert_allclose(np.sqrt(fit.residual_variance), list(reference["residual_sd"].values()), rtol=1e-4)
    covariance = fit.solution.covariances[0]
    np.testing.assert_allclose(covariance[[0, 0, 1], [0, 1, 1]], reference["G"], rtol=2e-3)
    np.testing.assert_allclose(fit.solution.beta[1:], list(reference["fixef"].values())[1:], rtol=1e-4)
    # nlme multiplies its REML standard errors by nothing, its ML ones by sqrt(n / (n - p)) (summary.lme, adjustSigma).
    np.testing.assert_allclose(
        np.sqrt(np.diag(fit.solution.beta_cov))[1:], list(reference["se"].values())[1:], rtol=2e-3
    )
    np.testing.assert_allclose(fit.solution.modes[0], reference["ranef"], atol=5e-3)


def test_a_stratum_without_records_changes_nothing() -> None:
    data = pd.read_csv(NLME / "input.csv").query("status != 'E'")
    level, x = Level(np.array([0, 1])), np.array([0, 1, 3])
    three = fit_strata(strata_of(data), [level], x, 4)
    two = fit_strata(strata_of(data)[:2], [level], x, 4)
    assert three.solution.llf == two.solution.llf
