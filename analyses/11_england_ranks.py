"""England 2018/19: how much of a league table of Progress 8 the data support, before and after context.

Reads DfE's published school tables from the folder SEND_VA_DATA (default ../shared/data, from the project's root) and
writes ``england_ranks.csv`` (one row a context), ``england_rank_schools.csv``, ``england_ranks.json`` and the figure
``england_ranks`` to analyses/results. No pupil records are used. Contains public sector information: Crown copyright,
Department for Education, Open Government Licence v3.0; part of it as collated by FFT Education Datalab.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from england import ADDED, DATA, ROOT, complete, formulas

from send_va.multilevel.area import AreaFit, fit_area
from send_va.publish.england_ranks_figure import england_ranks_figure
from send_va.publish.figure_style import save_svg_png
from send_va.ranking.confidence_sets import confidence_sets
from send_va.ranking.deconvolution import deconvolve
from send_va.ranking.grades import grades
from send_va.ranking.pairwise import pairwise_probabilities
from send_va.ranking.rank_probabilities import rank_probabilities
from send_va.records.dfe_england import england_schools

RESULTS = ROOT / "analyses" / "results"

SURE = 0.8  # probability from which a school is said to belong to one quintile
DRAWS, SET_DRAWS, SEED = 4_000, 10_000, 2019


def one_context(context: str, fit: AreaFit, urn: pd.Series) -> tuple[dict[str, object], pd.DataFrame]:
    """What can be said of places in one context: a row of the summary, and one row a school."""
    draws = fit.draw_effects(DRAWS, np.random.default_rng(SEED))
    found = rank_probabilities(draws, schools=urn.astype(str).tolist())
    chances = found.groups.round(9)  # shares of draws, differences of which rounding must not take below .8
    surest = chances.max(axis=1)
    estimate, se = (fit.effects[name].to_numpy() for name in ("unshrunken", "unshrunken_se"))
    sets = confidence_sets(estimate, se, draws=SET_DRAWS, seed=SEED)
    graded = grades(pairwise_probabilities(prior=deconvolve(estimate, se), estimate=estimate, se=se))
    width = found.table["rank_upper"] - found.table["rank_lower"] + 1
    schools = pd.DataFrame(
        {
            "urn": urn,
            "context": context,
            "expected_rank": found.table["expected_rank"].to_numpy(),
            "rank_lower": found.table["rank_lower"].to_numpy(),
            "rank_upper": found.table["rank_upper"].to_numpy(),
            "set_lower": sets["lower"].to_numpy(),
            "set_upper": sets["upper"].to_numpy(),
            "grade": np.asarray(graded.grades),
            "quintile": chances.argmax(axis=1) + 1,
            "p_quintile": surest,
        }
    ).join(pd.DataFrame(chances, columns=[f"p_quintile_{k + 1}" for k in range(5)]))
    row = {
        "context": context,
        "schools": len(urn),
        "sure": int((surest >= SURE).sum()),
        "share_sure": float((surest >= SURE).mean()),
        "expected_correct": float(surest.mean()),
        "mean_interval": float(width.mean()),
        "mean_set": float((sets["upper"] - sets["lower"] + 1).mean()),
        "grades": graded.n_grades,
        "discordance": graded.discordance,
        "tau": graded.tau,
    }
    sure = chances.argmax(axis=1)[surest >= SURE]
    return row | {f"sure_{k + 1}": int((sure == k).sum()) for k in range(5)}, schools


def main() -> None:
    """Fit every context, count what can be said, and draw it."""
    schools = complete(england_schools(DATA).data, ADDED)
    rows, parts = [], []
    for context, formula in formulas(ADDED).items():
        fit = fit_area(formula, schools, se="p8_se", area="la")
        row, part = one_context(context, fit, schools["urn"])
        rows.append(row)
        parts.append(part)
        print(
            f"{context:>6}: {row['sure']:,} of {row['schools']:,} schools in one quintile with probability {SURE}; a "
            f"quintile table would be right for {row['expected_correct']:.0%} of schools; simultaneous rank sets "
            f"span {row['mean_set']:,.0f} places on average; {row['grades']} grades (tau {row['tau']:.2f}, "
            f"{row['discordance']:.1%} of pairs in the wrong order expected)",
            flush=True,
        )
    summary, by_school = pd.DataFrame(rows), pd.concat(parts, ignore_index=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    summary.to_csv(RESULTS / "england_ranks.csv", index=False, float_format="%.6g")
    by_school.to_csv(RESULTS / "england_rank_schools.csv", index=False, float_format="%.6g")
    record = {"sure_from": SURE, **summary.set_index("context").to_dict(orient="index")}
    (RESULTS / "england_ranks.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    save_svg_png(england_ranks_figure(by_school, sure=SURE), RESULTS / "england_ranks")
    print("Crown copyright, Department for Education, Open Government Licence v3.0.")


if __name__ == "__main__":
    main()
