"""The identification lottery on published counts: how far rates differ between schools, and whether it lasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import BrokenRule, Failure, InputError, NotSupportedError
from send_va.identification.variance_shares import (
    correlation_with_interval,
    median_odds_ratio,
    shares_with_intervals,
)
from send_va.multilevel import GlmmFit, fit_glmm
from send_va.records.academic_years import academic_year_end

LABELS = {"support": "n_sen_support", "ehcp": "n_ehcp"}
COVARIATES = ("fsm6", "eal", "girls")
GROUPS = ("school", "la")

NOT_LENIENCY = (
    "These differences are not leniency: how much need the pupils of a school or an authority have is part of them, "
    "and published counts do not show it."
)
_ONE_ROW_A_SCHOOL = (
    "A school is one count a year, so whatever makes its count more or less even than chance (siblings, classes, a "
    "specialist unit) is in the school's share."
)
_RESIDUAL = (
    "The residual is pi^2/3 by definition of the logit scale: it is the spread of pupils within a school that a label "
    "of yes or no allows for, not something these counts measure."
)
_AUTHORITY = (
    "The authority is the school's; EHC plans are made by the authority a pupil lives in, which for some pupils is "
    "another."
)
_SAME_PUPILS = (
    "Some pupils are counted in both years: four years apart, three of a primary school's seven year groups and one "
    "of the five up to Year 11 of a secondary school are still there, so part of what lasts is the same pupils."
)
_WHO_LASTS = (
    "Persistence rests on the {n:,} schools with counts in both years, placed in the authority of {year}; schools "
    "opened, closed or merged in between are not in it."
)


@dataclass(frozen=True)
class PublishedLottery:
    """How identification rates of schools differ, and how the differences last.

    Attributes
    ----------
    variance : DataFrame
        One row a label (`support`, `ehcp`), year, level (`school`, `la`, `residual`) and model (`null`, `full`):
        `variance` on the logit scale; its `share` of all three, with `lower` and `upper`; `median_odds_ratio` between
        two schools (two authorities). A school share of .05 is a median odds ratio near 1.5: small shares are not small
        differences.
    persistence : DataFrame
        One row a label and level: `correlation` of a school's (an authority's) residual log odds in the two years,
        covariates of each year out, with `lower` and `upper`; `sd_first`, `sd_last`. Near 1 the same schools
        identify more than their intake explains in both years; near 0 the differences are fleeting.
    coefficients : DataFrame
        label, year, model, term, estimate, se: log odds, per ten percentage points (and secondary against primary).
    fits : DataFrame
        label, years, model, llf, converged, n_schools, n_la.
    n_schools : dict
        Schools by year, and ``"both"``: those of the persistence model.
    notes : tuple of str
        What was left out, and what the numbers are not. Publish them with the tables.
    coverage : float
    """

    variance: pd.DataFrame
    persistence: pd.DataFrame
    coefficients: pd.DataFrame = field(repr=False)
    fits: pd.DataFrame
    n_schools: dict[str, int]
    notes: tuple[str, ...]
    coverage: float

    def summary(self) -> str:
        """Plain-text account: schools, shares, persistence, notes."""
        counted = ", ".join(f"{count:,} in {name}" for name, count in self.n_schools.items())
        tables = [_as_text(self.variance)]
        if len(self.persistence):
            tables += ["Persistence of residual rates:", _as_text(self.persistence)]
        return "\n\n".join([f"Identification on published counts; schools: {counted}", *tables, "\n".join(self.notes)])

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        tables = [self.variance.to_html(index=False, na_rep=""), self.persistence.to_html(index=False)]
        return "".join([*tables, *(f"<p>{note}</p>" for note in self.notes)])


def _as_text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format="{:.3f}".format, na_rep="")


def published_lottery(
    schools: pd.DataFrame, *, labels: Sequence[str] = tuple(LABELS), coverage: float = 0.95
) -> PublishedLottery:
    """Estimate how identification rates differ between schools and authorities, and whether the differences last.

    In each year ``identified_j ~ Binomial(roll_j, p_j)``, ``logit p_j = x_j'b + v_la + u_j`` with normal effects
    (Laplace approximation of the likelihood): without covariates (`null`), and with the shares of pupils eligible for
    free school meals in the last six years, with English as an additional language, and of girls, and the phase
    (`full`). With two years, ``(u_j1, u_j2)`` and ``(v_k1, v_k2)`` are also fitted jointly, two rows a school.

    Parameters
    ----------
    schools : DataFrame
        One row a school and year, as from `send_va.records.dfe_census.england_census`: school, year, la, phase, roll,
        n_sen_support, n_ehcp (pupils), fsm6, eal, girls (per cent of pupils). Rows with a missing value or without
        pupils are left out and counted. Give one phase alone to see it apart.
    labels : sequence of {"support", "ehcp"}
        Both by default.
    coverage : float, default 0.95
        Of the intervals, which take the logarithms of SDs as normal (delta method).

    Returns
    -------
    PublishedLottery
        Read `variance` for the size of the lottery and `persistence` for whether it is one: differences that last
        are practice or population, differences that do not are chance and change.

    Raises
    ------
    InputError
        A label is not known, a column is absent, a school has two rows in a year, counts are no whole numbers or
        exceed the roll, no school is there in both years, or a year has one authority or an authority for each school.
    NotSupportedError
        More than two years.

    Notes
    -----
    The Laplace approximation takes a little from the SD of schools where counts are small: against 15-point quadrature
    in a model of schools alone, on England's tables of 2018/19 and 2022/23, 0.1 % for SEN support and 0.6 % for EHC
    plans (4 to 7 of them in a primary school), which is a third of the half-width of that interval. Simulated from
    these fits, nominal 95 % intervals covered: SEN support of secondary schools (400 replicates) .93 schools, .94
    authorities, .95 residual; EHC plans of all schools (60) .92, .93, .85; correlations over the years (60) .95, .95.

    References
    ----------
    Hutchinson, J. (2021). Identifying pupils with special educational needs and disabilities. Education Policy
    Institute, https://epi.org.uk (the "lottery", on pupil records).
    Browne, W. J., Subramanian, S. V., Jones, K., & Goldstein, H. (2005). Variance partitioning in multilevel logistic
    models that exhibit overdispersion. JRSS A, 168(3), 599-613. https://doi.org/10.1111/j.1467-985X.2004.00365.x

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> n = 240
    >>> made_up = pd.DataFrame({"school": range(n), "year": "2018-19", "la": np.arange(n) % 12, "phase": "primary",
    ...     "roll": 300, "fsm6": rng.uniform(5, 60, n), "eal": rng.uniform(0, 50, n), "girls": rng.uniform(45, 55, n)})
    >>> log_odds = -2 + rng.normal(0, 0.5, n) + rng.normal(0, 0.3, 12)[made_up["la"]]
    >>> made_up["n_sen_support"] = rng.binomial(300, 1 / (1 + np.exp(-log_odds)))
    >>> made_up["n_ehcp"] = rng.binomial(300 - made_up["n_sen_support"], 0.02)
    >>> lottery = published_lottery(made_up)
    >>> rows = lottery.variance.query("label == 'support' and model == 'null'").set_index("level")
    >>> bool(rows.loc["school", "lower"] < 0.25 / (0.25 + 0.09 + np.pi**2 / 3) < rows.loc["school", "upper"])
    True
    """
    _refuse_unknown_labels(labels)
    complete, notes = _complete(schools)
    by_year = _by_year(complete)
    pairs = _both_years(by_year) if len(by_year) == 2 else None
    found = [
        _of_one_year(rows, year, label, model, coverage)
        for label in labels
        for year, rows in by_year.items()
        for model in ("null", "full")
    ]
    counted = {year: len(rows) for year, rows in by_year.items()}
    lasting: list[_Part] = []
    if pairs is not None:
        lasting = [_of_both_years(pairs, label, coverage) for label in labels]
        counted["both"] = len(pairs) // 2
        notes += [_SAME_PUPILS, _WHO_LASTS.format(n=counted["both"], year=list(by_year)[-1])]
    fits = pd.concat([part.fit for part in (*found, *lasting)], ignore_index=True)
    if not fits["converged"].all():
        notes.append("A model did NOT CONVERGE (see fits): do not publish its numbers.")
    return PublishedLottery(
        variance=pd.concat([part.table for part in found], ignore_index=True),
        persistence=pd.concat([part.table for part in lasting], ignore_index=True) if lasting else _no_persistence(),
        coefficients=pd.concat([part.coefficients for part in (*found, *lasting)], ignore_index=True),
        fits=fits,
        n_schools=counted,
        notes=(NOT_LENIENCY, *notes, _ONE_ROW_A_SCHOOL, _RESIDUAL, _AUTHORITY),
        coverage=coverage,
    )


@dataclass(frozen=True)
class _Part:
    """What one fit adds to the tables."""

    table: pd.DataFrame
    coefficients: pd.DataFrame
    fit: pd.DataFrame


def _refuse_unknown_labels(labels: Sequence[str]) -> None:
    unknown = [label for label in labels if label not in LABELS]
    if unknown or not labels:
        raise InputError(f"no counts are known for {', '.join(unknown) or 'no label'}", f"Known: {', '.join(LABELS)}.")


def _by_year(complete: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each year, the earlier year first."""
    years = sorted(complete["year"].unique(), key=lambda year: academic_year_end(year) or 0)
    if len(years) > 2:
        raise NotSupportedError(f"persistence is estimated between two years, not {len(years)}; give two of them")
    by_year = {year: complete[complete["year"] == year].reset_index(drop=True) for year in years}
    for year, rows in by_year.items():
        _refuse_few_groups(rows, year)
    return by_year


def _complete(schools: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows that can be used, covariates per ten points, and what was left out in words."""
    needed = ["school", "year", "la", "phase", "roll", *LABELS.values(), *COVARIATES]
    absent = [name for name in needed if name not in schools]
    if absent:
        remedy = "Use england_census, or name the columns alike."
        raise InputError(Failure("is not a column of the table", name, remedy=remedy) for name in absent)
    twice = np.flatnonzero(schools.duplicated(["school", "year"], keep=False))
    if len(twice):
        raise InputError(Failure.of_rows("a school has two rows in a year", "school", twice.tolist()))
    numbers = schools[["roll", *LABELS.values(), *COVARIATES]].astype("float64")
    missing = schools[["school", "year", "la", "phase"]].isna().any(axis=1) | numbers.isna().any(axis=1)
    empty = ~missing & (numbers["roll"] == 0)
    kept = (~missing & ~empty).to_numpy()
    _refuse_impossible_counts(numbers, kept)
    notes = [
        f"Left out: {int(rows.sum()):,} {'row' if rows.sum() == 1 else 'rows'} {why}."
        for rows, why in ((missing, "with a missing count or covariate"), (empty, "of schools without pupils"))
        if rows.any()
    ]
    complete = schools.loc[kept, ["school", "year", "la", "phase"]].assign(**numbers[kept])
    complete["year"] = complete["year"].astype(str)
    complete[list(COVARIATES)] /= 10.0
    return complete, notes


def _refuse_impossible_counts(numbers: pd.DataFrame, kept: NDArray[np.bool_]) -> None:
    counts = numbers[["roll", *LABELS.values()]]
    whole = ((counts >= 0) & (counts == counts.round())).all(axis=1)
    within = counts["n_sen_support"] + counts["n_ehcp"] <= counts["roll"]
    failures = []
    for rule, good in (
        ("counts are whole numbers, zero or more", whole),
        ("n_sen_support and n_ehcp add up to no more than roll", within),
    ):
        bad = np.flatnonzero(kept & ~good.to_numpy())
        if len(bad):
            rows = tuple(int(row) + 1 for row in bad[:10])
            remedy = "Give counts of pupils, not percentages."
            failures.append(BrokenRule(rule, "roll", len(bad), rows, remedy=remedy))
    if failures:
        raise InputError(failures)


def _refuse_few_groups(rows: pd.DataFrame, year: str) -> None:
    authorities = rows["la"].nunique()
    if authorities < 2 or authorities == len(rows):
        raise InputError(
            Failure(
                f"has {authorities} local {'authority' if authorities == 1 else 'authorities'} for {len(rows)} schools "
                f"in {year}, so schools and authorities cannot be told apart",
                "la",
                remedy="Give the schools of several authorities, several in some.",
            )
        )


def _terms(rows: pd.DataFrame) -> list[str]:
    """Covariates that vary, the phase where there are two."""
    return [*COVARIATES, *(["phase"] if _varies(rows["phase"]) else [])]


def _varies(column: pd.Series[Any]) -> bool:
    return bool((column != column.iloc[0]).any())


def _fit(rows: pd.DataFrame, label: str, right: str, groups: dict[str, str]) -> GlmmFit:
    identified = rows[LABELS[label]]
    data = rows.assign(identified=identified, others=rows["roll"] - identified)
    return fit_glmm(f"cbind(identified, others) ~ {right}", data, groups=groups, link="logit")


def _of_one_year(rows: pd.DataFrame, year: str, label: str, model: str, coverage: float) -> _Part:
    right = "1" if model == "null" else " + ".join(_terms(rows))
    fit = _fit(rows, label, right, dict.fromkeys(GROUPS, "1"))
    between = fit.variance_components["variance"].to_numpy()
    share, lower, upper = shares_with_intervals(between, _sampling_cov(fit), fit.residual_variance, coverage)
    variance = np.append(between, fit.residual_variance)
    table = pd.DataFrame(
        {
            "label": label,
            "year": year,
            "level": [*GROUPS, "residual"],
            "model": model,
            "variance": variance,
            "share": share,
            "lower": lower,
            "upper": upper,
            "median_odds_ratio": [*(median_odds_ratio(float(value)) for value in between), np.nan],
        }
    )
    return _Part(table, _coefficients(fit, label, year, model), _account(fit, rows, label, year, model))


def _of_both_years(pairs: pd.DataFrame, label: str, coverage: float) -> _Part:
    """Fit two rows a school: coefficients by year, and effects by year that are correlated in a school (authority)."""
    terms = [str(name) for name in pairs if str(name).startswith(("first", "last"))]
    groups = dict.fromkeys(GROUPS, "0 + first + last")
    fit = _fit(pairs, label, " + ".join(["0", *terms]), groups)
    components, sampling_cov = fit.variance_components["variance"].to_numpy(), _sampling_cov(fit)
    rows = []
    for number, level in enumerate(GROUPS):
        own = slice(3 * number, 3 * number + 3)  # two variances and a covariance
        found = components[own]
        correlation, lower, upper = correlation_with_interval(found, sampling_cov[own, own], coverage)
        rows.append((level, label, correlation, lower, upper, *np.sqrt(found[:2])))
    table = pd.DataFrame(rows, columns=_PERSISTENCE_COLUMNS)
    return _Part(table, _coefficients(fit, label, "both", "full"), _account(fit, pairs, label, "both", "full"))


_PERSISTENCE_COLUMNS = ["level", "label", "correlation", "lower", "upper", "sd_first", "sd_last"]


def _no_persistence() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype="float64") for name in _PERSISTENCE_COLUMNS})


def _both_years(by_year: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack schools with a row in both years, columns of each year zero in the other, in the last year's authority."""
    first, last = by_year.values()
    both = first.merge(last[["school", "la"]], on="school", suffixes=("_then", ""))[["school", "la"]]
    if len(both) == 0:
        raise InputError("no school has a row in both years", "Name a school alike in both: see england_census.")
    parts = []
    for name, rows in (("first", first), ("last", last)):
        part = both.merge(rows.drop(columns="la"), on="school", validate="one_to_one")
        parts.append(part.assign(when=name, secondary=(part["phase"] == "secondary").astype(float)))
    stacked = pd.concat(parts, ignore_index=True)
    terms = [*COVARIATES, *(["secondary"] if _varies(stacked["secondary"]) else [])]
    for name in ("first", "last"):
        at = (stacked["when"] == name).astype(float)
        stacked[name] = at
        stacked = stacked.assign(**{f"{name}_{term}": at * stacked[term] for term in terms})
    return stacked.drop(columns=["when", "phase", *terms])


def _sampling_cov(fit: GlmmFit) -> NDArray[np.float64]:
    return fit.cov_variance_components.to_numpy(dtype=np.float64)


def _coefficients(fit: GlmmFit, label: str, year: str, model: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": label,
            "year": year,
            "model": model,
            "term": fit.params.index,
            "estimate": fit.params.to_numpy(),
            "se": fit.bse.to_numpy(),
        }
    )


def _account(fit: GlmmFit, rows: pd.DataFrame, label: str, year: str, model: str) -> pd.DataFrame:
    counted = {"n_schools": rows["school"].nunique(), "n_la": rows["la"].nunique()}
    keys = {"label": label, "year": year, "model": model}
    return pd.DataFrame([keys | {"llf": fit.llf, "converged": fit.converged} | counted])
