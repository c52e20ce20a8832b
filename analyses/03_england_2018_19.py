"""England 2018/19: which context moves mainstream schools' Progress 8, by how many places, and which schools.

Reads DfE's published school tables from the folder SEND_VA_DATA (default ../shared/data, from the project's root) and
writes ``england_*.csv`` and ``england_2018_19.json`` to analyses/results. No pupil records are used. Contains public
sector information: Crown copyright, Department for Education, Open Government Licence v3.0; part of it as collated by
FFT Education Datalab.
"""

from __future__ import annotations

import json
from itertools import pairwise

import england
import numpy as np
import pandas as pd

from send_va.multilevel.area import AreaFit, fit_area
from send_va.records.dfe_england import england_schools
from send_va.records.dfe_tables import SchoolTable

RESULTS = england.ROOT / "analyses" / "results"

# Suspensions, exclusions and absence are partly the school's own doing: adjusting for them hides part of what a school
# does, so that step is shown apart and never the basis of a ranking.
ADDED = england.ADDED | {"conduct": ["suspensions", "permanent_exclusions", "absence"]}
CONTEXTS = list(ADDED)
COVARIATES = england.covariates(ADDED)
FAR = 500  # places, as Leckie & Goldstein count for Adjusted Progress 8 of 2016: a fifth of schools (arXiv:1811.09240)
DRAWS, SEED = 2_000, 2019
PUPIL_SD = 1.28  # of Progress 8, as DfE's intervals imply (see `trap`)


def fit_contexts(schools: pd.DataFrame) -> dict[str, AreaFit]:
    formulas = england.formulas(ADDED)
    return {context: fit_area(formula, schools, se="p8_se", area="la") for context, formula in formulas.items()}


def rank(effect: pd.Series) -> pd.Series:
    """Rank 1 = highest."""
    return effect.rank(ascending=False)


def moves(before: pd.Series, after: pd.Series) -> dict[str, float]:
    change = before - after
    return {
        "median_places": change.abs().median(),
        "mean_places": change.abs().mean(),
        "p90_places": change.abs().quantile(0.9),
        "max_places": change.abs().max(),
        "share_over_100": (change.abs() > 100).mean(),
        "share_over_500": (change.abs() > FAR).mean(),
        "spearman": before.corr(after),
    }


def all_moves(ranks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    steps = list(pairwise(CONTEXTS))
    pairs = [*steps, ("none", "intake"), ("none", "sen"), ("prior", "sen")]
    return pd.DataFrame(
        {"estimate": estimate, "before": one, "after": other, **moves(table[one], table[other])}
        for estimate, table in ranks.items()
        for one, other in pairs
    )


def by_decile(schools: pd.DataFrame, ranks: pd.DataFrame) -> pd.DataFrame:
    tables = []
    for share in ("sen_support", "ehcp", "fsm6"):
        decile = pd.qcut(schools[share].rank(method="first"), 10, labels=range(1, 11))
        for before, after in (("intake", "sen"), ("none", "sen")):
            gain = ranks[before] - ranks[after]
            grouped = pd.DataFrame({"share": schools[share], "gain": gain}).groupby(decile, observed=True)
            tables.append(
                grouped.agg(
                    schools=("gain", "size"),
                    mean_share=("share", "mean"),
                    mean_places_gained=("gain", "mean"),
                    mean_places_moved=("gain", lambda g: g.abs().mean()),
                    share_over_500=("gain", lambda g: (g.abs() > FAR).mean()),
                )
                .rename_axis("decile")
                .reset_index()
                .assign(by=share, before=before, after=after)
            )
    return pd.concat(tables, ignore_index=True)


def rank_intervals(fit: AreaFit) -> pd.DataFrame:
    """Quantiles of the rank over joint draws of all schools' effects, the variances held at their estimates."""
    draws = fit.draw_effects(DRAWS, np.random.default_rng(SEED))
    ranks = (-draws).argsort(axis=1).argsort(axis=1) + 1
    lower, upper = np.quantile(ranks, [0.025, 0.975], axis=0)
    return pd.DataFrame({"expected_rank": ranks.mean(axis=0), "rank_lower": lower, "rank_upper": upper})


def coefficients(fits: dict[str, AreaFit], schools: pd.DataFrame) -> pd.DataFrame:
    """Per unit, and per SD between schools."""
    return pd.concat(
        pd.DataFrame(
            {
                "context": context,
                "term": fit.params.index,
                "estimate": fit.params.to_numpy(),
                "se": fit.bse.to_numpy(),
                "per_sd": (fit.params * schools.reindex(columns=fit.params.index).std()).to_numpy(),
            }
        )
        for context, fit in fits.items()
    )


def local_authorities(fits: dict[str, AreaFit], schools: pd.DataFrame) -> pd.DataFrame:
    names = schools.drop_duplicates("la").set_index("la")[["la_name", "region"]]
    tables = [
        fit.area_effects.assign(context=context, rank=rank(fit.area_effects["estimate"]))
        for context, fit in fits.items()
    ]
    return pd.concat(tables).rename(columns={"level": "la"}).join(names, on="la").reset_index(drop=True)


def sen_pupils_by_authority() -> pd.DataFrame:
    """Progress 8 of pupils by SEN status and LA, 2017/18: the lowest level published for pupils with SEN themselves."""
    table = pd.read_csv(england.DATA / "local-authority" / "ks4_2018_la_characteristics.csv")
    table = table[
        (table["geographic_level"] == "Local authority")
        & (table["breakdown"] == "SEN_status")
        & (table["characteristic_gender"] == "Total")
        & (table["t_inp8calc"] >= 10)
    ]
    rows = []
    for status, group in table.groupby("characteristic_sen_status"):
        p8 = group["t_p8score"] / group["t_inp8calc"]
        known = pd.DataFrame({"p8": p8, "se": PUPIL_SD / np.sqrt(group["t_inp8calc"])}).dropna()
        if len(known) > 100:
            fit = fit_area("p8 ~ 1", known, se="se")
            reliability = fit.effects["reliability"].mean()
            rows.append((status, len(known), fit.params.iloc[0], np.sqrt(fit.tau2), reliability))
    return pd.DataFrame(rows, columns=["sen_status", "authorities", "mean_p8", "sd_between", "mean_reliability"])


def scalars(
    schools: pd.DataFrame, table: SchoolTable, fits: dict[str, AreaFit], moved: pd.DataFrame, intervals: pd.DataFrame
) -> dict[str, float]:
    """Every number the paper takes, by name."""
    found: dict[str, float] = {"schools_with_interval": len(table.data), "schools": len(schools)}
    for right, report in zip(("census", "absence", "collated"), table.joins, strict=True):
        steps = zip(("urn", "laestab", "links"), report.rates, strict=True)
        found |= {f"join_{right}_{step}": rate for step, rate in steps}
    found["pupil_sd_implied"] = float((schools["p8_se"] * np.sqrt(schools["n_pupils"])).median())
    total = fits["none"].variance_components["variance"].sum()
    for context, fit in fits.items():
        area, unit = fit.variance_components["variance"]
        found |= {
            f"tau2_{context}": unit,
            f"area_variance_{context}": area,
            f"sd_{context}": np.sqrt(unit + area),
            f"explained_{context}": 1 - (unit + area) / total,
            f"la_share_{context}": area / (unit + area),
            f"median_reliability_{context}": fit.effects["reliability"].median(),
        }
        found |= {f"coef_{context}_{term}": value for term, value in fit.params.items()}
        found |= {f"se_{context}_{term}": value for term, value in fit.bse.items()}
    for row in moved.itertuples():
        prefix = f"{row.estimate}_{row.before}_to_{row.after}"
        found |= {f"{prefix}_{name}": getattr(row, name) for name in moved.columns[3:]}
    width = intervals["rank_upper"] - intervals["rank_lower"] + 1
    found |= {"mean_rank_interval_places": width.mean(), "median_rank_interval_places": width.median()}
    for name, context in (("sen_step", "intake"), ("all_steps", "none")):
        place = rank(fits[context].effects["estimate"])
        found[f"share_{name}_inside_interval"] = place.between(intervals["rank_lower"], intervals["rank_upper"]).mean()
    return {name: round(float(value), 6) for name, value in found.items()}


def report(found: dict[str, float], moved: pd.DataFrame, deciles: pd.DataFrame, sen_pupils: pd.DataFrame) -> None:
    print(
        f"{found['schools']:,.0f} of {found['schools_with_interval']:,.0f} mainstream schools with a P8 interval have"
    )
    print("every covariate; only they are compared, so that all rankings have the same number of places.\n")
    for context in CONTEXTS:
        sd, explained, la_share = (found[f"{name}_{context}"] for name in ("sd", "explained", "la_share"))
        print(
            f"{context:>8}: adds {', '.join(ADDED[context]) or 'nothing'}; SD between schools {sd:.3f}, "
            f"{explained:.0%} of the variance explained, {la_share:.0%} of the rest between local authorities"
        )
    print("\nPlaces moved, unshrunken residuals (first table) and shrunken effects (second):")
    for _, part in moved.groupby("estimate", sort=False):
        print(part.drop(columns="estimate").round(3).to_string(index=False))
    print(
        f"\nAdding SEN shares to prior attainment, FSM6 and EAL moves the median school "
        f"{found['unshrunken_intake_to_sen_median_places']:.0f} places and "
        f"{found['unshrunken_intake_to_sen_share_over_500']:.1%} of schools more than {FAR}; all contexts up to SEN "
        f"together move {found['unshrunken_none_to_sen_share_over_500']:.0%} more than {FAR}."
    )
    ends = deciles[(deciles["by"] == "sen_support") & (deciles["before"] == "intake")].set_index("decile")
    print(
        f"Schools with most SEN support (top tenth, mean {ends['mean_share'][10]:.0f} %) gain "
        f"{ends['mean_places_gained'][10]:.0f} places by that step on average, those with least (mean "
        f"{ends['mean_share'][1]:.0f} %) {ends['mean_places_gained'][1]:+.0f}."
    )
    print(
        f"The 95 % interval of a school's rank spans {found['mean_rank_interval_places']:.0f} places on average; for "
        f"{found['share_sen_step_inside_interval']:.0%} of schools it includes the place they had without SEN shares, "
        f"for {found['share_all_steps_inside_interval']:.0%} the place they had without any context."
    )
    print(
        "\nThis is a regression of whole-school Progress 8 on the SEN share of the whole roll: ecological. It does not "
        "say how pupils with SEN fare at any school, and a school that labels more pupils is given more allowance."
    )
    print(
        "The step 'conduct' adjusts for suspensions, exclusions and absence, which schools partly cause: it shows what "
        "goes with results, and is no basis for a comparison."
    )
    print(
        f"Trap: the published intervals imply one pupil SD of {found['pupil_sd_implied']:.2f} in every school; where "
        "pupils differ more, the standard error is too small and the school looks more certain than it is."
    )
    print("\nPupils with SEN themselves, by local authority only (2017/18, standard errors from the same pupil SD):")
    print(sen_pupils.round(3).to_string(index=False))


def main() -> None:
    table = england_schools(england.DATA)
    for joined in table.joins:
        print(joined)
    schools = england.complete(table.data, ADDED)
    fits = fit_contexts(schools)
    ranks = {
        estimate: pd.DataFrame({context: rank(fit.effects[estimate]) for context, fit in fits.items()})
        for estimate in ("unshrunken", "estimate")
    }
    moved = all_moves({"unshrunken": ranks["unshrunken"], "shrunken": ranks["estimate"]})
    deciles = by_decile(schools, ranks["unshrunken"])
    intervals = rank_intervals(fits["sen"])
    sen_pupils = sen_pupils_by_authority()
    found = scalars(schools, table, fits, moved, intervals)
    found |= {
        f"la_{row.sen_status}_{name}": round(float(getattr(row, name)), 6)
        for row in sen_pupils.itertuples()
        for name in ("mean_p8", "sd_between", "mean_reliability")
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    keys = schools[["urn", "name", "la", "la_name", "region", "n_pupils", "p8", "p8_se", *COVARIATES]]
    effects = [
        keys[["urn"]].assign(context=context, rank=ranks["unshrunken"][context], **fit.effects)
        for context, fit in fits.items()
    ]
    outputs = {
        "england_schools": pd.concat([keys, intervals], axis=1),
        "england_school_effects": pd.concat(effects),
        "england_coefficients": coefficients(fits, schools),
        "england_moves": moved,
        "england_moves_by_decile": deciles,
        "england_local_authorities": local_authorities(fits, schools),
        "england_sen_pupils_by_authority": sen_pupils,
    }
    for name, output in outputs.items():
        output.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.6g")
    (RESULTS / "england_2018_19.json").write_text(json.dumps(found, indent=1) + "\n")
    report(found, moved, deciles, sen_pupils)
    print(f"\nWrote {len(outputs)} tables and england_2018_19.json to {RESULTS.relative_to(england.ROOT)}.")
    print("Crown copyright, Department for Education, Open Government Licence v3.0.")


if __name__ == "__main__":
    main()
