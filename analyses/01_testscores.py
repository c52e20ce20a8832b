"""Whether measurement error in prior scores changes which schools do well by pupils in special education.

Real, anonymous pupils of one US district: grade-6 mathematics, two grade-5 scores with the standard error of
measurement of each pupil's score, special-education status (`sped`), free or reduced-price lunch (`frl`), 21 schools.
Source: ``testscores.csv`` of the R package eivtools (GPL-2 or later), read from ``SEND_VA_DATA``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sgpdata import data_folder

from send_va.effects import MEASURES, SchoolEffects
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, cross_products
from send_va.multilevel.elimination import Level
from send_va.multilevel.gaussian import GaussianFit, fit_gaussian
from send_va.publish.figure_style import save_svg_png
from send_va.publish.figures import caterpillar
from send_va.records.design_columns import INTERCEPT, SplineColumn
from send_va.value_added.design import NEED, PRIOR_SLOPE
from send_va.value_added.fixed_effects import fit_fixed_effects
from send_va.value_added.given_slopes import PriorSlopes, adjust_outcome
from send_va.value_added.instrumented import instrumented_slope
from send_va.value_added.measurement_error import (
    correct_cross_products,
    corrected_slopes,
    error_sums,
    prior_reliability,
)
from send_va.value_added.readout import CONTRASTS, read_effects
from send_va.value_added.strata import StratifiedSolution, combine, fit_strata

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
SEED, DRAWS = 20250101, 2000
UNIT = "grade-6 mathematics points"
MATHS, LANGUAGE, SLOPE = "math_lag1", "lang_lag1", PRIOR_SLOPE
RANDOM = (INTERCEPT, NEED, SLOPE)  # what differs between schools; need is `sped`


@dataclass(frozen=True)
class Records:
    """Cross-products by special-education status (without, with), and the error variance of the prior scores.

    The column on which schools' slopes run is prior mathematics, less its mean among special-education pupils, in SDs:
    theta is stated at that mean.
    """

    data: pd.DataFrame
    schools: list[str]
    strata: tuple[CrossProducts, ...]
    errors: tuple[dict[str, FloatArray], ...]
    aliases: dict[str, tuple[str, float]]
    spline: tuple[str, ...]


@dataclass(frozen=True)
class Version:
    """One way to treat the prior scores: its slopes, its fit and its school effects."""

    name: str
    slopes: dict[str, float]
    slope_se: dict[str, float]
    fit: StratifiedSolution
    effects: SchoolEffects


def read() -> pd.DataFrame:
    columns = ["schoolid", "math", MATHS, f"{MATHS}_csem", LANGUAGE, f"{LANGUAGE}_csem", "sped", "frl"]
    return pd.read_csv(data_folder() / "pupils" / "testscores.csv", usecols=columns)


def summarise(data: pd.DataFrame) -> Records:
    codes, labels = pd.factorize(data["schoolid"], sort=True)
    scores = data[MATHS].to_numpy(dtype=float)
    spline = SplineColumn(MATHS, tuple(np.quantile(scores, np.linspace(0.0, 1.0, 7)).tolist()))
    names = (*RANDOM, "frl", MATHS, LANGUAGE, "math", *spline.names)
    sd = float(data[MATHS].std())
    slope = (data[MATHS] - data.loc[data["sped"] == 1, MATHS].mean()) / sd
    known = data[["frl", MATHS, LANGUAGE, "math"]].to_numpy(dtype=float)
    rows = np.column_stack([np.ones(len(data)), data["sped"], slope, known, spline.columns(scores)])
    center = np.concatenate([np.zeros(3), rows[:, 3:].mean(axis=0)])
    strata, errors = [], []
    for status in (0, 1):
        at = data["sped"].to_numpy() == status
        strata.append(cross_products(rows[at], codes[at], len(labels), names, center=center))
        sem = {score: data.loc[at, f"{score}_csem"].to_numpy(dtype=float) for score in (MATHS, LANGUAGE)}
        errors.append({score: error_sums(values, codes[at], len(labels)) for score, values in sem.items()})
    aliases = {SLOPE: (MATHS, 1.0 / sd)}
    return Records(data, [str(label) for label in labels], tuple(strata), tuple(errors), aliases, spline.names)


def columns_of(scores: tuple[str, ...]) -> tuple[str, ...]:
    return (*RANDOM, "frl", *scores, "math")


def fixed_of(columns: tuple[str, ...], without: tuple[str, ...] = ()) -> np.ndarray:
    left_out = (SLOPE, "math", *without)
    return np.array([at for at, name in enumerate(columns) if name not in left_out])


LEVEL = Level(np.arange(len(RANDOM)))


def naive(records: Records, scores: tuple[str, ...], rng: np.random.Generator) -> Version:
    columns = columns_of(scores)
    x = fixed_of(columns)
    fit = fit_strata([part.select(columns) for part in records.strata], [LEVEL], x, len(columns) - 1)
    at = [int(np.flatnonzero(x == columns.index(score))[0]) for score in scores]
    return Version(
        "labelled",
        dict(zip(scores, fit.solution.beta[at].tolist(), strict=True)),
        dict(zip(scores, np.sqrt(np.diag(fit.solution.beta_cov)[at]).tolist(), strict=True)),
        fit,
        effects_of(records, fit, None, rng, estimator="labelled", context=context_name(scores)),
    )


def corrected(records: Records, scores: tuple[str, ...], start: Version, rng: np.random.Generator) -> Version:
    """Known standard errors of measurement: slopes from corrected cross-products, then the second step."""
    columns = columns_of(scores)
    precision = start.fit.residual_variance.mean() / start.fit.residual_variance
    pooled = combine([part.select(columns) for part in records.strata], precision)
    summed = {
        score: sum(weight * part[score] for weight, part in zip(precision, records.errors, strict=True))
        for score in scores
    }
    slopes = corrected_slopes(pooled, summed, [LEVEL], fixed_of(columns), len(columns) - 1, aliases=records.aliases)
    return second_step(records, scores, slopes, rng, "labelled_corrected")


def instrumented(records: Records, rng: np.random.Generator) -> tuple[Version, dict[str, float]]:
    slope = instrumented_slope(
        records.data, outcome="math", prior=MATHS, instrument=LANGUAGE, school="schoolid", covariates="sped + frl"
    )
    said = {
        "first_stage_f": slope.first_stage_f,
        "wu_hausman_p": slope.wu_hausman_p,
        "implied_reliability_instrument": slope.implied_reliability,
    }
    return second_step(records, (MATHS,), slope.slopes, rng, "labelled_instrumented"), said


def second_step(
    records: Records, scores: tuple[str, ...], slopes: PriorSlopes, rng: np.random.Generator, estimator: str
) -> Version:
    """The model of ``math - slope * score``; schools' slopes run on the score with its known error taken out."""
    columns, adjusted = columns_of(scores), []
    for part, errors in zip(records.strata, records.errors, strict=True):
        taken = {score: errors[score] for score in scores}
        products = correct_cross_products(part.select(columns), taken, aliases=records.aliases)
        adjusted.append(adjust_outcome(products, "math", slopes, taken))
    fit = fit_strata(adjusted, [LEVEL], fixed_of(columns, scores), len(columns) - 1)
    return Version(
        estimator,
        dict(zip(slopes.names, slopes.estimate.tolist(), strict=True)),
        dict(zip(slopes.names, np.sqrt(np.diag(slopes.cov)).tolist(), strict=True)),
        fit,
        effects_of(records, fit, slopes, rng, estimator=estimator, context=context_name(scores)),
    )


def context_name(scores: tuple[str, ...]) -> str:
    return {(MATHS,): "one_prior", (MATHS, LANGUAGE): "two_priors"}.get(scores, "one_prior_spline")


def effects_of(
    records: Records,
    fit: StratifiedSolution,
    slopes: PriorSlopes | None,
    rng: np.random.Generator,
    *,
    estimator: str,
    context: str,
) -> SchoolEffects:
    counts = np.column_stack([part.counts for part in records.strata]).astype(np.int64)
    attrs = {"estimator": estimator, "context": context, "seed": SEED, "unit": UNIT}
    flags = ["" for _ in records.schools]
    return read_effects(fit, records.schools, counts, flags, draws=DRAWS, rng=rng, attrs=attrs, slopes=slopes)


def spread_of(version: Version, outcome_sd: float) -> dict[str, float]:
    """SDs between schools of theta, u, gap and the slope (per SD of prior), and residual SDs, in pupil SDs."""
    cov = version.fit.solution.covariances[0]
    contrasts = {name: np.array(weights) for name, weights in CONTRASTS.items()}
    found = {f"sd_{name}": float(np.sqrt(c @ cov @ c)) / outcome_sd for name, c in contrasts.items()}
    residual = np.sqrt(version.fit.residual_variance) / outcome_sd
    found["sd_prior_slope"] = float(np.sqrt(cov[2, 2])) / outcome_sd
    return found | {"residual_sd_without_sped": float(residual[0]), "residual_sd_with_sped": float(residual[1])}


def compare(first: SchoolEffects, second: SchoolEffects, measure: str = "theta") -> dict[str, float]:
    """Correlation, and places moved, of the schools' posterior means."""
    table = first.summary(measure).merge(second.summary(measure), on="school", suffixes=("_a", "_b"))
    places = (-table[["mean_a", "mean_b"]]).rank(method="first")
    moved = (places["mean_a"] - places["mean_b"]).abs()
    return {
        "corr": float(table["mean_a"].corr(table["mean_b"])),
        "largest_move": int(moved.max()),
        "mean_move": float(moved.mean()),
    }


def intervals(effects: SchoolEffects, outcome_sd: float) -> dict[str, float]:
    table = effects.summary("theta")
    return {
        "theta_lowest": float(table["mean"].min()) / outcome_sd,
        "theta_highest": float(table["mean"].max()) / outcome_sd,
        "intervals_exclude_zero": int(((table["lower"] > 0) | (table["upper"] < 0)).sum()),
        "mean_reliability": float(table["reliability"].mean()),
    }


def plain_models(data: pd.DataFrame) -> tuple[GaussianFit, GaussianFit]:
    """One residual variance, no correction, as lme4 fits them: ``(1 + sped | schoolid)``, and with a prior slope."""
    scaled = data.assign(**{SLOPE: (data[MATHS] - data.loc[data["sped"] == 1, MATHS].mean()) / data[MATHS].std()})
    formula = f"math ~ {MATHS} + sped + frl"
    return (
        fit_gaussian(formula, scaled, {"schoolid": "1 + sped"}),
        fit_gaussian(formula, scaled, {"schoolid": f"1 + sped + {SLOPE}"}),
    )


def curve_gain(records: Records) -> float:
    """Maximum log-likelihood (not restricted: fixed effects differ) of the spline less that of the line."""
    found = []
    for scores in (records.spline, (MATHS,)):
        columns = columns_of(scores)
        strata = [part.select(columns) for part in records.strata]
        found.append(fit_strata(strata, [LEVEL], fixed_of(columns), len(columns) - 1, reml=False).solution.llf)
    return float(found[0] - found[1])


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    data = read()
    records = summarise(data)
    sd = float(data["math"].std())
    one, two = (MATHS,), (MATHS, LANGUAGE)
    versions = {"naive": naive(records, one, rng), "naive_two": naive(records, two, rng)}
    versions["corrected"] = corrected(records, one, versions["naive"], rng)
    versions["corrected_two"] = corrected(records, two, versions["naive_two"], rng)
    versions["spline"] = naive(records, records.spline, rng)
    versions["instrumented"], instrument = instrumented(records, rng)
    fixed = fit_fixed_effects(
        data, outcome="math", school="schoolid", need="sped", covariates=f"{MATHS} + frl", rng=rng, draws=DRAWS,
        context=context_name(one), attrs={"unit": UNIT, "seed": SEED},
    )  # fmt: skip
    results = collect(records, versions, fixed, sd) | instrument
    text = json.dumps(results, indent=2, sort_keys=True)
    (RESULTS / "testscores.json").write_text(text + "\n", encoding="utf-8")
    table = pd.concat([version.effects.table() for version in versions.values()] + [fixed.table()], ignore_index=True)
    table.to_csv(RESULTS / "testscores_effects.csv", index=False, float_format="%.4f")
    figure = caterpillar(
        table, estimator="labelled_corrected", context=context_name(one), unit=UNIT, synthetic=False,
        title="One US district, grade 6",
    )  # fmt: skip
    save_svg_png(figure, RESULTS / "testscores_caterpillar")
    report(results)


def collect(
    records: Records, versions: dict[str, Version], fixed: SchoolEffects, sd: float
) -> dict[str, float | int | str]:
    data = records.data
    plain, sloped = plain_models(data)
    cov = plain.solution.covariances[0]
    results: dict[str, float | int | str] = {
        "source": "testscores.csv, R package eivtools (GPL-2 or later)",
        "seed": SEED,
        "n_pupils": len(data),
        "n_sped": int(data["sped"].sum()),
        "n_schools": len(records.schools),
        "fewest_sped_in_a_school": int(data.groupby("schoolid")["sped"].sum().min()),
        "outcome_sd": sd,
        "plain_sd_intercept": float(np.sqrt(cov[0, 0])) / sd,
        "plain_sd_sped": float(np.sqrt(cov[1, 1])) / sd,
        "plain_corr": float(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])),
        "plain_llf": plain.llf,
        "sloped_sd_sped": float(np.sqrt(sloped.solution.covariances[0][1, 1])) / sd,
        "sloped_sd_prior_slope": float(np.sqrt(sloped.solution.covariances[0][2, 2])) / sd,
        "sloped_llf": sloped.llf,
        "llf_gain_of_slopes": sloped.llf - plain.llf,
        "llf_gain_of_spline": curve_gain(records),
        "fixed_effects_slope": fixed.attrs["slopes"][0],
        "fixed_effects_slope_se": fixed.attrs["slope_se"][0],
        "converged": int(all(v.fit.solution.convergence.converged and v.fit.settled for v in versions.values())),
    }
    for score in (MATHS, LANGUAGE):
        sem = data[f"{score}_csem"].to_numpy(dtype=float)
        results[f"reliability_{score}"] = prior_reliability(data[score].to_numpy(dtype=float), sem)
    for name, version in versions.items():
        for score, slope in version.slopes.items() if name != "spline" else ():
            results[f"slope_{name}_{score}"], results[f"slope_se_{name}_{score}"] = slope, version.slope_se[score]
        results |= {f"{key}_{name}": value for key, value in spread_of(version, sd).items()}
        results |= {f"{key}_{name}": value for key, value in intervals(version.effects, sd).items()}
    results |= {f"{key}_fixed_effects": value for key, value in intervals(fixed, sd).items()}
    results["slope_naive"], results["slope_corrected"] = (
        versions["naive"].slopes[MATHS],
        versions["corrected"].slopes[MATHS],
    )
    base = versions["naive"].effects
    others = {name: version.effects for name, version in versions.items() if name != "naive"} | {"fixed_effects": fixed}
    for name, effects in others.items():
        for measure in MEASURES:
            found = compare(base, effects, measure)
            results |= {f"{key}_{measure}_naive_{name}": value for key, value in found.items()}
    return results


def report(r: dict[str, float | int | str]) -> None:
    def n(key: str, digits: int = 2) -> str:
        return f"{r[key]:.{digits}f}"

    key, key_se = f"slope_corrected_two_{LANGUAGE}", f"slope_se_corrected_two_{LANGUAGE}"
    print(
        f"{r['n_pupils']:,} pupils, {r['n_sped']} in special education, {r['n_schools']} schools (fewest "
        f"special-education pupils in a school: {r['fewest_sped_in_a_school']}). Real, anonymous records.\n"
        f"Without correction and with one residual variance, the special-education effect differs between schools with "
        f"SD {n('plain_sd_sped')} pupil SD, level with {n('plain_sd_intercept')} (correlation {n('plain_corr')}; "
        f"log-likelihood {n('plain_llf', 4)}). Where schools may differ in their slope on prior mathematics (SD "
        f"{n('sloped_sd_prior_slope')} pupil SD per SD of prior; log-likelihood {n('llf_gain_of_slopes', 1)} higher) "
        f"the first is {n('sloped_sd_sped')}: differences in slope had passed for differences in the gap. All "
        f"multilevel models below let schools differ in it.\n"
        f"Residual SD: {n('residual_sd_without_sped_naive')} without and {n('residual_sd_with_sped_naive')} with "
        f"special education (pupil SDs).\n"
        f"Reliability of the prior scores by their standard errors: mathematics {n(f'reliability_{MATHS}')}, language "
        f"{n(f'reliability_{LANGUAGE}')}.\n"
        f"Slope on prior mathematics: {n('slope_naive', 3)} as recorded, {n('slope_corrected', 3)} corrected for known "
        f"error, {n(f'slope_instrumented_{MATHS}', 3)} instrumented by language (first-stage F "
        f"{n('first_stage_f', 0)}), {n('fixed_effects_slope', 3)} with fixed effects.\n"
        f"With both scores corrected, language still has a slope of {n(key, 2)} (se {n(key_se, 2)})"
        + (
            ": it says something about grade-6 mathematics that true prior mathematics does not, so as an instrument "
            "it overstates the slope; the known standard errors are to be preferred."
            if float(r[key]) > 2 * float(r[key_se])
            else ", no more than chance, so nothing speaks against it as an instrument."
        )
    )
    names = {
        "corrected": "corrected, one score",
        "instrumented": "instrumented",
        "spline": "one score as recorded, as a spline",
        "naive_two": "two scores as recorded",
        "corrected_two": "corrected, two scores",
        "fixed_effects": "fixed effects, not shrunken",
    }
    print(
        f"\nTheta (pupils in special education), from {n('theta_lowest_naive')} to {n('theta_highest_naive')} pupil SD "
        f"as recorded; SD between schools {n('sd_theta_naive')}; intervals that exclude 0: "
        f"{r['intervals_exclude_zero_naive']} of {r['n_schools']}. Against it:"
    )
    for name, words in names.items():
        sd = f"SD {n(f'sd_theta_{name}')}, " if f"sd_theta_{name}" in r else ""
        print(
            f"  {words}: {sd}from {n(f'theta_lowest_{name}')} to {n(f'theta_highest_{name}')}; "
            f"intervals that exclude 0: {r[f'intervals_exclude_zero_{name}']}; correlation "
            f"{n(f'corr_theta_naive_{name}', 3)}, largest move {r[f'largest_move_theta_naive_{name}']} places of "
            f"{r['n_schools']}"
        )
    print(
        f"\nA line is too simple: with a spline of prior mathematics the log-likelihood is "
        f"{n('llf_gain_of_spline', 1)} higher and the SD of the gap {n('sd_gap_spline')} instead of "
        f"{n('sd_gap_naive')}. Known error can be taken out of a line only, so here it is one correction or the other."
    )
    print("One label only (status as recorded now): leniency of schools cannot be taken out here.")


if __name__ == "__main__":
    main()
