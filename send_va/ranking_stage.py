"""The part of a run that places schools: rank sets, grades, who is published, and what the table can say at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import SchoolEffects
from send_va.publish.ranking_panels import MOST_COLUMNS
from send_va.ranking.confidence_sets import confidence_sets
from send_va.ranking.deconvolution import deconvolve
from send_va.ranking.grades import Grades, grades
from send_va.ranking.pairwise import pairwise_probabilities
from send_va.ranking.pairwise_from_draws import chance_above_by_block, even_blocks
from send_va.ranking.posterior_ranks import Ranking, rank
from send_va.ranking.publication_rule import PublicationRule
from send_va.ranking.resolution import resolution
from send_va.ranking.threads import in_threads
from send_va.study import Study

FEWEST_GRADED = 20  # schools below which a prior of effects cannot be deconvolved
MOST_GRADED = 5_000  # beyond, the pairs of all schools take minutes and gigabytes for every estimator and context
_MEASURE = "theta"
_QUINTILES = [f"p_quintile_{k}" for k in range(1, 6)]


@dataclass(frozen=True)
class RankedSchools:
    """Places of all schools, by estimator and context.

    Attributes
    ----------
    rankings : DataFrame
        As ``rankings.csv``.
    summary : DataFrame
        As ``ranking_summary.csv``: one row an estimator and context.
    withheld : DataFrame
        As ``publication.csv``: how many schools each clause withholds.
    """

    rankings: pd.DataFrame
    summary: pd.DataFrame
    withheld: pd.DataFrame


def rank_schools(study: Study, effects: Sequence[SchoolEffects], disagreements: pd.DataFrame | None) -> RankedSchools:
    """Rank the schools of every estimator and context.

    Parameters
    ----------
    study : Study
    effects : sequence of SchoolEffects
    disagreements : DataFrame, optional
        Of estimators, as :func:`send_va.value_added.disagreement.disagreements` returns; for the publication rule.

    Returns
    -------
    RankedSchools
    """
    ranked = in_threads(lambda part: _place(study, part, _furthest(disagreements, part)), effects)
    keys = [{"estimator": part.attrs["estimator"], "context": part.attrs["context"]} for part in effects]
    counts = [one.decision.counts.assign(**key) for (one, _), key in zip(ranked, keys, strict=True)]
    return RankedSchools(
        pd.concat([one.table for one, _ in ranked], ignore_index=True),
        pd.DataFrame(
            [
                key | _said(study, one, graded) | _told_apart(part, study.value_added.coverage)
                for (one, graded), key, part in zip(ranked, keys, effects, strict=True)
            ]
        ),
        pd.concat(counts, ignore_index=True)[["estimator", "context", "clause", "limit", "withheld", "withheld_only"]],
    )


def chances_of_pairs(effects: SchoolEffects, expected_rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance that one school is higher than another, in order of expected rank; thousands of schools in blocks.

    Parameters
    ----------
    effects : SchoolEffects
    expected_rank : array, shape (schools,)
        Missing where a school cannot be compared.

    Returns
    -------
    array, shape (blocks, blocks)
    """
    compared = np.isfinite(expected_rank)
    blocks = even_blocks(expected_rank[compared], MOST_COLUMNS)
    return chance_above_by_block(effects.draws(_MEASURE)[:, compared], blocks)


def said_of(summary: pd.DataFrame, estimator: str, context: str, certain: float) -> str:
    """What the ranking of one estimator in one context can say, in a sentence.

    Where no school is given a position the sentence says that. Grades are left out of it where there are none.
    """
    at = (summary["estimator"] == estimator) & (summary["context"] == context)
    row = summary[at].iloc[0]
    if not row["published"]:
        return f"no school of {row['schools']:,.0f} is given a position (publication.csv says why)"
    told = (
        f"{row['published']:,.0f} of {row['schools']:,.0f} schools get a position; simultaneous rank sets span "
        f"{row['mean_rank_set']:,.0f} places on average; {row['certain_of_quintile']:,.0f} schools belong to one "
        f"quintile with probability {certain:g}, and a table of quintiles would be right for "
        f"{row['quintiles_correct']:.0%}"
    )
    if np.isnan(row["grades"]):
        return told
    return f"{told}; {row['grades']:.0f} grades, {row['discordance']:.1%} of pairs expected in the wrong order"


def _place(
    study: Study, effects: SchoolEffects, disagreement: NDArray[np.float64] | None
) -> tuple[Ranking, Grades | None]:
    """Ranks of one estimator in one context, with rank sets and grades from unshrunken estimates."""
    coverage, wanted, limits = study.value_added.coverage, study.ranking, study.publication
    summary = effects.summary(_MEASURE, coverage)
    compared = np.isfinite(effects.draws(_MEASURE)).all(axis=0)
    estimate, se = (summary[name].to_numpy(dtype=np.float64) for name in ("estimate", "se"))
    known = compared & np.isfinite(estimate) & (se > 0.0)
    sets, graded = None, None
    if known.sum() >= 2:
        sets = _among(
            confidence_sets(
                estimate[known], se[known], coverage, draws=wanted.set_draws, seed=study.study.seed
            ).reset_index(drop=True),
            known[compared],
        )
    if FEWEST_GRADED <= known.sum() <= MOST_GRADED:
        graded = _graded(study, estimate[known], se[known])
    rule = PublicationRule(
        minimum_need=limits.minimum_need,
        minimum_reliability=limits.minimum_reliability,
        maximum_rank_width=limits.maximum_rank_width,
        maximum_disagreement=limits.maximum_disagreement,
    )
    given = None
    if graded is not None:
        given = pd.Series(np.nan, index=range(int(compared.sum())))
        given[known[compared]] = np.asarray(graded.grades, dtype=np.float64)
    ranking = rank(effects, coverage=coverage, rule=rule, sets=sets, grades=given, disagreement=disagreement)
    return ranking, graded


def _among(sets: pd.DataFrame, known: NDArray[np.bool_]) -> pd.DataFrame:
    """Rank sets among all schools compared: one without an estimate can be anywhere, and widens every other set."""
    n, unknown = len(known), int((~known).sum())
    out = pd.DataFrame({"lower": np.ones(n, dtype=np.int64), "upper": np.full(n, n, dtype=np.int64)})
    out.loc[known, "lower"] = sets["lower"].to_numpy()
    out.loc[known, "upper"] = sets["upper"].to_numpy() + unknown
    return out


def _graded(study: Study, estimate: NDArray[np.float64], se: NDArray[np.float64]) -> Grades:
    wanted = study.ranking
    prior = deconvolve(estimate, se, method="spline" if wanted.grade_prior == "spline" else "mixture")
    chances = pairwise_probabilities(prior=prior, estimate=estimate, se=se)
    if wanted.discordance_rate is not None:
        return grades(chances, discordance_rate=wanted.discordance_rate, counting="pairs")
    return grades(chances, loss_ratio=wanted.loss_ratio)


def _furthest(disagreements: pd.DataFrame | None, effects: SchoolEffects) -> NDArray[np.float64] | None:
    """Largest difference between the estimator and another one in its context, in pupil SDs, by school."""
    if disagreements is None or disagreements.empty:
        return None
    estimator = effects.attrs["estimator"]
    own = disagreements[
        (disagreements["context"] == effects.attrs["context"])
        & ((disagreements["estimator"] == estimator) | (disagreements["against"] == estimator))
    ]
    if own.empty:
        return None
    far = own.assign(far=own["difference_sd"].abs(), school=own["school"].astype(str)).groupby("school")["far"].max()
    return np.asarray(far.reindex(effects.schools), dtype=np.float64)


def _said(study: Study, ranking: Ranking, graded: Grades | None) -> dict[str, float]:
    """What the table can say: a row of the summary."""
    table = ranking.table.dropna(subset=["expected_rank"])
    surest = table[_QUINTILES].max(axis=1)
    width = (table["rank_upper"] - table["rank_lower"] + 1).astype(np.float64)
    joint = (table["rank_upper_simultaneous"] - table["rank_lower_simultaneous"] + 1).astype(np.float64)
    nothing = float("nan")
    return {
        "schools": len(table),
        "published": int(ranking.table["published"].sum()),
        "mean_rank_interval": float(width.mean()),
        "mean_rank_set": float(joint.mean()),
        "certain_of_quintile": int((surest >= study.ranking.certain).sum()),
        "quintiles_correct": float(surest.mean()),
        "grades": nothing if graded is None else graded.n_grades,
        "discordance": nothing if graded is None else graded.discordance,
        "tau": nothing if graded is None else graded.tau,
        "optimality_gap": nothing if graded is None else graded.gap,
    }


def _told_apart(effects: SchoolEffects, coverage: float) -> dict[str, float]:
    """How many groups of schools the draws tell apart."""
    found = resolution(effects, coverage=coverage)
    return {"strata": found.strata, "chain": len(found.chain)}
