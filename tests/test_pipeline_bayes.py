"""The main job by the Bayesian engine, end to end."""

import json
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest
from test_pipeline import files_of

import send_va as sv
from send_va import bayes_stages, labelled_stages
from send_va.errors import ConvergenceError, NotSupportedError, StudyError
from send_va.records.simulator import write_cohort

SECTIONS = """
[identification]
draws = 6
label_reliability = [1.0]
area_sorting_share = [0.0]

[bayes]
tune = 100
draws = 150
ess = 60
rhat = 1.1
mcse = 0.2
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty schools, need by labels before transfer, one context."""
    folder = tmp_path_factory.mktemp("bayes") / "cohort"
    write_cohort(sv.simulate(np.random.default_rng(2), schools=60, pupils_per_school=90), folder)
    text = (folder / "study.toml").read_text()
    text = text.replace("[value_added]\n", '[value_added]\nestimators = ["entry", "labelled"]\n')
    text = text.replace('contexts = ["prior", "cva", "composition"]', 'contexts = ["prior"]')
    (folder / "study.toml").write_text(text + SECTIONS)
    return folder / "study.toml"


@pytest.fixture(scope="module")
def finished(study: Path) -> sv.Run:
    return sv.run(study, study.parents[1] / "out", engine="bayes", draws=200)


def table(run: sv.Run, name: str) -> pd.DataFrame:
    return pd.read_csv(run.directory / "private" / f"{name}.csv", keep_default_na=False, na_values=[""])


def test_effects_are_those_of_reml_up_to_priors(finished: sv.Run, study: Path) -> None:
    reml = sv.run(study, study.parents[1] / "reml", draws=200).school_effects
    both = finished.school_effects.merge(reml, on=["school", "estimator", "context", "measure"])
    for _, rows in both.query("measure == 'theta'").groupby("estimator"):
        assert np.corrcoef(rows["mean_x"], rows["mean_y"])[0, 1] > 0.97
        assert 0.8 < (rows["sd_x"] / rows["sd_y"]).median() < 1.25
        np.testing.assert_allclose(rows["estimate_x"], rows["estimate_y"])


def test_draws_open_in_arviz_without_this_package(finished: sv.Run) -> None:
    tree = az.from_netcdf(finished.directory / "private" / "draws.nc")
    groups = {"posterior", "prior", "posterior_predictive", "observed_data", "log_likelihood", "log_prior"}
    assert groups | {"sample_stats", "constant_data"} <= set(tree.children)
    posterior = tree["posterior"]
    assert posterior["theta"].dims == ("chain", "draw", "estimator", "context", "school")
    assert posterior["school_sd"].dims == ("chain", "draw", "estimator", "context", "measure")
    assert posterior.sizes["chain"] == 4 and posterior.attrs["engine"] == "bayes"
    one = tree.sel(estimator="entry", context="prior")
    assert float(az.rhat(one, var_names=["group_sd"])["group_sd"].max()) < 1.2
    assert set(posterior["stratum"].to_numpy()) == {"all", "none", "support", "ehcp"}  # nothing is cut
    drawn = posterior["beta"].sel(estimator="entry", context="prior", coefficient="severity")
    published = table(finished, "coefficients").query("estimator == 'entry'").set_index("term")
    np.testing.assert_allclose(float(drawn.std()), published.loc["severity", "se"], rtol=0.01)
    found = az.loo(one, var_name="outcome", reff=1.0)
    summary = table(finished, "leave_one_out_summary").set_index("estimator")
    assert abs(found.elpd - summary.loc["entry", "elpd"]) < 0.01 * abs(found.elpd)


def test_draws_of_the_file_are_those_of_the_tables(finished: sv.Run) -> None:
    posterior = az.from_netcdf(finished.directory / "private" / "draws.nc")["posterior"]
    rows = finished.school_effects.query("estimator == 'entry' and measure == 'theta'").set_index("school")
    drawn = posterior["theta"].sel(estimator="entry", context="prior").mean(("chain", "draw")).to_series()
    np.testing.assert_allclose(drawn, rows["mean"].loc[drawn.index], atol=5 * rows["sd"].max() / np.sqrt(200))


def test_identification_error_widens_the_posterior(finished: sv.Run) -> None:
    rows = finished.school_effects.query("estimator == 'entry' and measure == 'theta'")
    assert (rows["se"] > 0).all() and (rows["sd"] > 0).all()
    coefficients = table(finished, "coefficients").query("estimator == 'entry'").set_index("term")
    assert coefficients.loc["severity", "lower"] < coefficients.loc["severity", "estimate"] < 0.0


def test_report_and_tables_of_diagnostics(finished: sv.Run) -> None:
    chains = table(finished, "convergence")
    assert (chains["diagnosis"] == "converged").all() and chains["rhat"].max() < 1.1
    assert {"group_sd[need]", "residual_sd[ehcp]", "outer_sd[Intercept]"} <= set(chains["parameter"])
    checks = table(finished, "predictive_checks")
    assert set(checks["check"].str.split(" ").str[0]) == {"SD", "mean", "share"}
    assert set(table(finished, "prior_sensitivity")["reading"]) <= {
        "the prior hardly matters",
        "the prior outweighs the records",
        "possible conflict: prior and records pull apart",
    }
    assert len(table(finished, "leave_one_out")) == 2 * 60
    report = (finished.directory / "private" / "diagnostics.md").read_text()
    assert "Synthetic data" in report and "## entry, prior" in report
    assert "| beta[need] |" in report and "| beta[spline" not in report
    assert "coefficients of splines: R-hat at most" in report
    figures = {path.name for path in (finished.directory / "private" / "figures").iterdir()}
    assert {"diagnostics_ranks_entry_prior.png", "diagnostics_predictive_labelled_prior.png"} <= figures


def test_manifest_names_the_engine_and_its_versions(finished: sv.Run) -> None:
    run = json.loads((finished.directory / "private" / "manifest.json").read_text())["run"]
    assert run["settings"]["engine"] == "bayes" and run["settings"]["bayes"]["sampler"] == "nutpie"
    assert {"pymc", "nutpie", "jax"} <= set(run["versions"])


def test_interrupted_sampling_resumes_to_the_same_bytes(
    finished: sv.Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = study.parents[1] / "resumed"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(labelled_stages, "labelled_fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sv.run(study, out, engine="bayes", draws=200)
    assert not (out / "private").exists()
    monkeypatch.setattr(bayes_stages, "fit_need_bayes", interrupted)  # what is done is not sampled again
    resumed = sv.run(study, out, engine="bayes", draws=200, resume=True)
    assert files_of(resumed.directory / "private") == files_of(finished.directory / "private")


def test_chains_that_fail_the_limits_publish_nothing(study: Path) -> None:
    strict = study.with_name("strict.toml")
    text = study.read_text().replace("ess = 60", "ess = 100000").replace('"entry", "labelled"', '"labelled"')
    strict.write_text(text)
    out = study.parents[1] / "failed"
    with pytest.raises(ConvergenceError, match=r"too few effective draws .* below 100,000") as raised:
        sv.run(strict, out, engine="bayes", draws=200)
    assert raised.value.exit_code == 3
    rankings = pd.read_csv(out / "private" / "rankings.csv")
    assert not rankings["published"].any()
    assert rankings.filter(regex="rank|quintile").isna().all(axis=None)


def test_unknown_engines_and_settings_are_refused(study: Path) -> None:
    with pytest.raises(NotSupportedError, match="there is no engine 'stan'; use one of reml, bayes"):
        sv.run(study, study.parents[1] / "none", engine="stan")
    bad = study.with_name("bad.toml")
    bad.write_text(study.read_text().replace("tune = 100", 'tune = 1\nsampler = "stan"\nprior_school_sd = 0.0'))
    with pytest.raises(StudyError) as raised:
        sv.run(bad, study.parents[1] / "none", engine="bayes")
    said = str(raised.value)
    assert all(part in said for part in ("bayes.tune", "one of nutpie, pymc", "bayes.prior_school_sd"))
    assert not (study.parents[1] / "none").exists()
