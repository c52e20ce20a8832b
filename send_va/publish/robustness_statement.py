"""The robustness statement of a run: one page that says what its table rests on, in plain words with the figures."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from send_va.identification.tables import WEAK_INTAKE
from send_va.sensitivity.school_acts import IN_WORDS
from send_va.value_added.assumption_ranges import SAME_BODY

STATEMENT = "robustness.md"
CHANGES_TABLE = 0.1  # share of schools in another fifth from which a choice is said to change the table

_DEPARTURES = {
    "estimator": "Estimator",
    "context": "Context",
    "label_reliability": "Reliability of labels (headline: 1)",
    "area_sorting_share": "Share of authorities' leniency that is need of their population (headline: 0)",
    "feeder_sorting_share": "Share of feeders' leniency that is need of their pupils (headline: 0)",
    "sorting_share": "Share of what schools add to labels that is need",
    SAME_BODY: "Labels of a school's own feeders",
    "leniency": "Leniency of those who label its pupils, SDs off the estimate, each school by itself",
    "need": "Need of its pupils with need that no record tells, SDs, each school by itself",
    "definition": "Threshold of need, moved from support towards EHCP by a share of the way",
    "sorting": "Unmeasured sorting of pupils between schools, as a multiple of that on prior attainment",
    "roll_weighting": "Pupils weighted by terms on roll",
}
_BOTH_WAYS = ("leniency", "need")
_DEPARTED = {
    "leniency": (1.0, -1.0),
    "need": (0.25, -0.25),
    "definition": (0.25, 0.5, 1.0),
    "sorting": (0.1, 0.25, 0.5),
}
_UNTESTED = (
    "Whether pupils sort between schools on what no record shows, year after year: no forecast or falsification test "
    "sees sorting that persists.",
    "Whether need clusters over neighbourhoods of several schools: it looks like policy of the authority or like "
    "effects of schools.",
    "Mainstream against special schools: they are not comparable on this measure.",
    "What a school does for one pupil: theta is about a school's results with pupils whose need was above the national "
    "threshold at transfer, given prior attainment and context. It is not causal without the assumptions of section 10 "
    "of the method (docs/sensitivity.md).",
)


@dataclass(frozen=True)
class RunTables:
    """Tables of a finished run that a statement is written from, read where they are.

    Attributes
    ----------
    folder : Path
    estimator, context : str
        The headline.
    """

    folder: Path
    estimator: str
    context: str

    def get(self, name: str) -> pd.DataFrame | None:
        """One table, None where the run has not made it."""
        file = self.folder / f"{name}.csv"
        return pd.read_csv(file, dtype={"school": str}, keep_default_na=True) if file.exists() else None

    def own(self, name: str) -> pd.DataFrame:
        """Rows of the headline; none where there is no such table."""
        table = self.get(name)
        if table is None:
            return pd.DataFrame()
        return table[(table["estimator"] == self.estimator) & (table["context"] == self.context)]


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
    changes = pd.concat([_table_changes(tables), _tipping(tables), _roll(tables)], ignore_index=True)
    moved = changes[changes["share_other_fifth"] > CHANGES_TABLE].sort_values("share_other_fifth", ascending=False)
    kept = changes.drop(moved.index).sort_values("share_other_fifth", ascending=False)
    stamp = ["**Synthetic data: no school here exists.**"] if synthetic else []
    sections = {
        "Chance alone": _chance(tables, certain),
        f"What changes the table (more than {CHANGES_TABLE:.0%} of schools in another fifth)": _said_of(moved),
        "What does not": _said_of(kept),
        "What schools would gain by acting on it": _incentives(tables),
        "Whom it could mislead": _misled(tables),
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


def _table_changes(tables: RunTables) -> pd.DataFrame:
    changes = tables.get("table_changes")
    assert changes is not None  # every run writes it
    named = changes["departure"].isin(["estimator", "context"])
    return changes.assign(
        value=changes["value"].astype(str).where(~named, "`" + changes["value"].astype(str) + "`") + ":"
    )


def _tipping(tables: RunTables) -> pd.DataFrame:
    """Departures of a stated size from what is assumed, each school by itself but for the definition of need."""
    shares = tables.own("tipping")
    if shares.empty:
        return shares
    rows = [
        {
            "departure": departure,
            "value": f"{size:{'+' if departure in _BOTH_WAYS else ''}g}:",
            "share_other_fifth": part["share_changed"].iloc[0],
        }
        for departure, sizes in _DEPARTED.items()
        for size in sizes
        for part in [
            shares[(shares["departure"] == departure) & _is_near(shares["size"], size) & _first_benchmark(shares)]
        ]
        if len(part)
    ]
    return pd.DataFrame(rows)


def _is_near(values: pd.Series, size: float) -> pd.Series:
    return (values - size).abs() < 1e-9


def _first_benchmark(shares: pd.DataFrame) -> pd.Series:
    """Rows without a benchmark, and those of prior attainment."""
    return shares["benchmark"].isna() | (shares["benchmark"] == "prior attainment")


def _roll(tables: RunTables) -> pd.DataFrame:
    """Pupils weighted by terms on roll, where the records have them."""
    rows = tables.own("roll_weighting")
    if rows.empty:
        return rows
    both = rows.dropna(subset=["quintile", "quintile_roll_weighted"])
    return pd.DataFrame(
        {
            "departure": ["roll_weighting"],
            "value": [""],
            "share_other_fifth": [(both["quintile"] != both["quintile_roll_weighted"]).mean()],
            "largest_places": [(both["place"] - both["place_roll_weighted"]).abs().max()],
        }
    )


def _said_of(changes: pd.DataFrame) -> Iterator[str]:
    """One line a departure; its values share it."""
    if changes.empty:
        yield "None of the choices and assumptions that were varied."
    for departure, rows in changes.groupby("departure", sort=False):
        shares = [
            " ".join(filter(None, [str(value), f"{share:.0%}"]))
            for value, share in zip(rows["value"], rows["share_other_fifth"], strict=True)
        ]
        places = rows["largest_places"].max() if "largest_places" in rows else np.nan
        farthest = f" (largest move {places:,.0f} places)" if np.isfinite(places) else ""
        yield f"{_DEPARTURES.get(str(departure), str(departure))}: {', '.join(shares)}{farthest}."


def _chance(tables: RunTables, certain: float) -> Iterator[str]:
    row = tables.own("ranking_summary").iloc[0]
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


def _incentives(tables: RunTables) -> Iterator[str]:
    verdicts = tables.get("incentive_verdicts")
    if verdicts is None:
        return
    verdicts = verdicts[(verdicts["measure"] == "theta") & (verdicts["context"] == tables.context)]
    tolerance = verdicts[["tolerance", "tolerance_given"]].drop_duplicates().to_dict("records")
    for row in tolerance:
        stated = "stated in the study" if row["tolerance_given"] else "the default"
        yield (
            f"A measure passes where no act gains the average school more than {row['tolerance']:g} pupil SDs "
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
    worst = f"{IN_WORDS[row['worst_action']]}, {row['worst_gain_sd']:+.3f} SD on average"
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
    assert changes is not None
    labelled = changes[(changes["departure"] == "estimator") & (changes["value"] == "labelled")]
    if len(labelled):
        yield (
            "Readers of a table by the label as recorded: it puts "
            f"{labelled['share_other_fifth'].iloc[0]:.0%} of schools in another fifth than the headline does, and "
            "rewards generous labelling."
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
        "robustness": "Tipping points by school.",
        "multiverse_schools": "All declared choices crossed with each other: `send-va multiverse`.",
        "missing_prior": "Missing prior attainment.",
        "stability": "Stability between years: the records are of one cohort, or the study does not ask.",
    }
    return [said for name, said in optional.items() if tables.get(name) is None]
