"""The robustness statement of a run: one page that says what its table rests on, in plain words with the figures."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from send_va.identification.tables import WEAK_INTAKE
from send_va.publish.run_tables import RunTables, all_changes
from send_va.sensitivity.incentive_summary import said_gain
from send_va.sensitivity.school_acts import IN_WORDS
from send_va.value_added.assumption_ranges import SAME_BODY

STATEMENT = "robustness.md"
_LEVEL = 0.05
CHANGES_TABLE = 0.1  # share of schools in another fifth from which a choice is said to change the table

_DEPARTURES = {
    "estimator": "Estimator",
    "context": "Context",
    "label_reliability": "Reliability of labels (headline: 1)",
    "area_sorting_share": "Share of authorities' leniency that is need of their population (headline: 0)",
    "feeder_sorting_share": "Share of feeders' leniency that is need of their pupils (headline: 0)",
    "sorting_share": "Share of what schools add to labels that is need",
    SAME_BODY: "Labels of a school's own feeders",
    "leniency": "Leniency of all who label its pupils at once, SDs off the estimate, each school by itself",
    "need": "Need of its pupils with need that no record tells, SDs, each school by itself",
    "definition": "Threshold of need, moved from support towards EHCP by a share of the way",
    "sorting": "Unmeasured sorting of pupils between schools, as a multiple of that on prior attainment",
    "roll_weighting": "Pupils weighted by terms on roll",
    "missing_prior": "Pupils without prior attainment, in the analysis of `send-va missing`",
}
_UNTESTED = (
    "Whether pupils sort between schools on what no record shows, year after year: no forecast or falsification test "
    "sees sorting that persists.",
    "Whether need clusters over neighbourhoods of several schools: it looks like policy of the authority or like "
    "effects of schools.",
    "Mainstream against special schools: they are not comparable on this measure.",
    "What a school does for one pupil: theta is about a school's results with its pupils with need, given prior "
    "attainment and context, and not causal without the assumptions named in docs/sensitivity.md.",
)


def robustness_statement(tables: RunTables, *, title: str, certain: float, synthetic: bool) -> str:
    """State in plain words what changes the table of a run, what does not, and whom it could mislead.

    Parameters
    ----------
    tables : RunTables
    title : str
        Of the study.
    certain : float
        Probability from which a school is said to belong to one fifth.
    synthetic : bool

    Returns
    -------
    str
        Markdown, one page. Every figure stands in a table of the run.
    """
    changes = all_changes(tables)
    moved = changes[changes["share_other_fifth"] > CHANGES_TABLE].sort_values("share_other_fifth", ascending=False)
    kept = changes.drop(moved.index).sort_values("share_other_fifth", ascending=False)
    stamp = ["**Synthetic data: no school here exists.**"] if synthetic else []
    sections = {
        "Chance alone": _chance(tables, certain),
        f"What changes the table (more than {CHANGES_TABLE:.0%} of schools in another fifth)": _said_of(moved),
        "What does not": _said_of(kept),
        "All declared choices at once": _multiverse(tables),
        "Checks": _checks(tables),
        "What schools would gain by acting on it": _incentives(tables),
        "Whom it could mislead or wrong": _misled(tables),
        "Not examined in this run": _not_examined(tables),
        "What no analysis of these records can tell": _UNTESTED,
    }
    opening = (
        f"The table of theta by the estimator `{tables.estimator}` in context `{tables.context}`. One unit for "
        "everything that could have been chosen or assumed otherwise: the share of schools that would stand in another "
        "fifth of the table. Two unrelated tables have 80 %."
    )
    parts = [f"# Robustness statement: {title}", *stamp, opening]
    for heading, lines in sections.items():
        said = list(lines)
        if said:
            parts += [f"## {heading}", "\n".join(f"- {line}" for line in said)]
    return "\n\n".join(parts) + "\n"


def _said_of(changes: pd.DataFrame) -> Iterator[str]:
    """One line a departure; its values share it."""
    if changes.empty:
        yield "None of the choices and assumptions that were varied."
    for departure, rows in changes.groupby("departure", sort=False):
        shares = [
            " ".join(filter(None, [str(value), f"{share:.0%}"]))
            for value, share in zip(rows["value"], rows["share_other_fifth"], strict=True)
        ]
        places = rows["largest_places"].max()
        farthest = f" (largest move {places:,.0f} places)" if np.isfinite(places) else ""
        yield f"{_DEPARTURES.get(str(departure), str(departure))}: {', '.join(shares)}{farthest}."


def _chance(tables: RunTables, certain: float) -> Iterator[str]:
    row = tables.own("ranking_summary").iloc[0]
    if not row["published"]:
        yield (
            "No school is given a position (publication.csv and the column reason of rankings.csv say why). What "
            "follows is about a table that is not to be published."
        )
    if pd.isna(row["quintiles_correct"]):
        return
    yield (
        f"A printed table of fifths would be right for {row['quintiles_correct']:.0%} of schools if every choice and "
        f"assumption were. {row['certain_of_quintile']:,.0f} of {row['schools']:,.0f} schools belong to one fifth with "
        f"a probability of {certain:g} or more."
    )
    if pd.notna(row["mean_rank_set"]):
        yield (
            f"Rank sets that hold all schools' ranks together span {row['mean_rank_set']:,.0f} of "
            f"{row['schools']:,.0f} places on average: exact places should not be printed."
        )


def _multiverse(tables: RunTables) -> Iterator[str]:
    told = tables.record("multiverse")
    if told is None:
        return
    specifications, choices = tables.get("specifications"), tables.get("choice_variance")
    assert specifications is not None  # written with the record
    assert choices is not None
    done = specifications[specifications["status"] == "done"]
    yield (
        f"Over {len(done):,} specifications {told['share_depends']:.0%} of schools are not in the same fifth under "
        f"all; {told['share_top_and_bottom']:.0%} are in the highest under one and in the lowest under another; "
        f"{told['share_mostly']:.0%} are in one fifth under 80 % or more."
    )
    failed = len(specifications) - len(done)
    if failed:
        yield f"{failed:,} of {len(specifications):,} specifications could not run (specifications.csv says why)."
    single = choices[(choices["order"] == 1) & (choices["result"] == "place")].sort_values("share", ascending=False)
    if len(single):
        first = single.iloc[0]
        words = {"prior": "what estimates are shrunken to", "send": "the definition of SEND"}.get(first["term"])
        yield f"Most depends on {words or first['term']}: {first['share']:.0%} of how far schools move."


def _checks(tables: RunTables) -> Iterator[str]:
    by_school = tables.get("robustness")
    if by_school is not None and by_school["robust"].notna().any():
        robust = by_school["robust"].dropna().astype(str).eq("True").mean()
        yield (
            f"{robust:.0%} of schools keep their fifth under 1 SD of leniency, .25 SD of unobserved need and every "
            "threshold of need tried, one at a time (robustness.csv)."
        )
    risk = tables.get("constant_risk")
    if risk is not None:
        first = risk.iloc[0]
        yield f"{first['verdict']} (SD between schools {first['sd']:.3g}, p = {first['p_value']:.2g}.)"
        if first["p_value"] >= _LEVEL:
            yield "A check that finds nothing is no proof: with few schools it would miss large differences too."
    bias = tables.get("forecast_bias")
    if bias is not None:
        for row in bias[bias["estimator"] == tables.estimator].to_dict("records"):
            yield (
                f"Later cohorts against what earlier ones foretold ({row['prediction']}): coefficient "
                f"{row['coefficient']:.2f} ({row['lower']:.2f} to {row['upper']:.2f}), {row['verdict']}. It sees drift "
                "and wrong shrinkage, not sorting that persists."
            )
    stable = tables.get("stability")
    if stable is not None:
        for row in stable[stable["estimator"] == tables.estimator].to_dict("records"):
            yield (
                f"{row['same']:.0%} of schools stay in their fifth from one cohort to the next. If no school changed, "
                f"chance error alone would leave {row['same_chance']:.0%} there: {row['verdict']}."
            )


def _incentives(tables: RunTables) -> Iterator[str]:
    verdicts = tables.get("incentive_verdicts")
    if verdicts is None:
        return
    verdicts = verdicts[(verdicts["measure"] == "theta") & (verdicts["context"] == tables.context)]
    tolerance = verdicts[["tolerance", "tolerance_given"]].drop_duplicates().to_dict("records")
    for row in tolerance:
        stated = "stated in the study" if row["tolerance_given"] else "the default"
        yield (
            f"A measure passes where every act gains the average school less than {row['tolerance']:g} pupil SDs "
            f"({stated})."
        )
    for estimator, rows in verdicts.groupby("estimator", sort=False):
        said = [_verdict(row) for row in rows.to_dict("records") if row["acts"] != "all"]
        yield f"`{estimator}`: {'; '.join(said)}."


def _verdict(row: Mapping[Hashable, Any]) -> str:
    weighting = ", pupils weighted by terms on roll" if row["roll_weighted"] else ""
    acts = {"labelling": "labelling acts", "roll": "acts on the roll and on entries"}[row["acts"]]
    if row["verdict"] == "not applicable":
        return f"{acts}{weighting}: not applicable"
    gain = said_gain(row["worst_gain_sd"], row["tolerance"])
    worst = gain if gain.startswith("nothing") else f"{IN_WORDS[row['worst_action']]}, {gain} on average"
    return f"{acts}{weighting}: {row['verdict']} ({worst})"


def _misled(tables: RunTables) -> Iterator[str]:
    row = tables.own("ranking_summary").iloc[0]
    withheld = int(row["schools"] - row["published"])
    if withheld:
        yield (
            f"Readers who look for the {withheld:,} of {row['schools']:,.0f} schools without a position: that says "
            "they are small or imprecisely known (publication.csv), not that they do badly."
        )
    yield from _magnets(tables)
    changes = tables.get("table_changes")
    assert changes is not None  # every run writes it
    labelled = changes[(changes["departure"] == "estimator") & (changes["value"] == "labelled")]
    if len(labelled):
        rewards = ", and rewards generous labelling" if tables.estimator == "entry" else ""
        yield (
            "Readers of a table by the label as recorded: it puts "
            f"{labelled['share_other_fifth'].iloc[0]:.0%} of schools in another fifth than the headline does{rewards}."
        )
    if tables.estimator == "labelled":
        yield (
            "Everybody who reads this table: the rated school sets the label it rests on, generous labelling is "
            "rewarded, and its intervals are too short (docs/identification.md)."
        )


def _magnets(tables: RunTables) -> Iterator[str]:
    identification = tables.get("identification")
    if identification is None or "intake_need_reliability" not in identification:
        return
    reliability = identification["intake_need_reliability"]
    weak = int((reliability < WEAK_INTAKE).sum())
    if weak:
        yield (
            "Schools that attract more need than records show: intake need is known with a reliability below "
            f"{WEAK_INTAKE:g} for {weak:,} of {reliability.notna().sum():,} schools, and where it is not known, they "
            "are still penalised."
        )


def _not_examined(tables: RunTables) -> Sequence[str]:
    optional = {
        "incentive_verdicts": "What schools would gain by acting on the table: `send-va audit`.",
        "robustness": "Tipping points by school, which need an estimator other than `labelled`.",
        "choice_variance": "All declared choices crossed with each other: `send-va multiverse`.",
        "missing_prior": "Pupils without prior attainment: `send-va missing`.",
        "roll_weighting": "Terms on roll: the records do not name them (terms_on_roll under [roles]).",
        "stability": "Stability between years: the records are of one cohort, or the study does not ask.",
    }
    return [said for name, said in optional.items() if tables.get(name) is None]
