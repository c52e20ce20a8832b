"""England 2018/19 and 2022/23: how far identification rates differ between schools, and whether that lasts.

Reads DfE's school census tables from the folder SEND_VA_DATA (default ../shared/data, from the project's root) and
writes ``england_lottery_*.csv``, ``england_lottery.json`` and the figure ``england_lottery`` to analyses/results.
Counts of every state-funded primary and secondary school; no pupil records. Contains public sector information:
Crown copyright, Department for Education, Open Government Licence v3.0.
"""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import pandas as pd

from send_va.identification.published_counts import (
    COVARIATES,
    LABELS,
    NOT_LENIENCY,
    PublishedLottery,
    published_lottery,
)
from send_va.multilevel import fit_glmm
from send_va.publish.figure_style import save_svg_png
from send_va.publish.lottery_figure import identification_shares
from send_va.records.dfe_census import MAINSTREAM_TYPES, OTHER_TYPES_LEFT_OUT, england_census
from send_va.records.dfe_tables import SchoolTable

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SEND_VA_DATA", ROOT / "../shared/data")) / "england"
RESULTS = ROOT / "analyses" / "results"
SOURCE = (
    "Source: Department for Education, school census tables 2018/19 and 2022/23 (Crown copyright, Open Government "
    "Licence v3.0)"
)


def estimate(census: pd.DataFrame) -> dict[str, PublishedLottery]:
    """All schools, and each phase by itself."""
    phases = {phase: census[census["phase"] == phase] for phase in MAINSTREAM_TYPES.values()}
    return {name: published_lottery(rows) for name, rows in {"all": census, **phases}.items()}


def laplace_error(census: pd.DataFrame) -> dict[str, float]:
    """SD of schools by the Laplace approximation over that by 15-point quadrature, in a model of schools alone."""
    usable = census[census["roll"] > 0].dropna(subset=["fsm6", *LABELS.values()])
    found = {}
    for (year, rows), (label, name) in product(usable.groupby("year"), LABELS.items()):
        data = rows.assign(identified=rows[name], others=rows["roll"] - rows[name])
        formula = f"cbind(identified, others) ~ {' + '.join(COVARIATES)} + phase"
        sds = [
            fit_glmm(formula, data, {"school": "1"}, method=method, points=15).variance_components["sd_or_corr"].iloc[0]
            for method in ("laplace", "agq")
        ]
        found[f"laplace_sd_ratio_{label}_{str(year).replace('-', '_')}"] = float(sds[0] / sds[1])
    return found


def scalars(lotteries: dict[str, PublishedLottery], table: SchoolTable) -> dict[str, float | str]:
    """Flat names: share_support_2022_23_school_full, persistence_ehcp_la, primary_share_..."""
    found: dict[str, float | str] = {"source": SOURCE, "caution": NOT_LENIENCY, **laplace_error(table.data)}
    for name, lottery in lotteries.items():
        prefix = "" if name == "all" else f"{name}_"
        found |= {f"{prefix}n_schools_{year.replace('-', '_')}": n for year, n in lottery.n_schools.items()}
        found[f"{prefix}converged"] = int(lottery.fits["converged"].all())
        for row in lottery.variance.itertuples():
            key = f"{row.label}_{str(row.year).replace('-', '_')}_{row.level}_{row.model}"
            found |= {f"{prefix}share_{key}": row.share, f"{prefix}share_{key}_lower": row.lower}
            found |= {f"{prefix}share_{key}_upper": row.upper}
            if row.level != "residual":
                found[f"{prefix}sd_{key}"] = row.variance**0.5
                found[f"{prefix}median_odds_ratio_{key}"] = row.median_odds_ratio
        for row in lottery.persistence.itertuples():
            key = f"{prefix}persistence_{row.label}_{row.level}"
            found |= {key: row.correlation, f"{key}_lower": row.lower, f"{key}_upper": row.upper}
    identified = table.data.groupby("year")[["roll", "n_sen_support", "n_ehcp"]].sum()
    for year, sums in identified.iterrows():
        for name in ("n_sen_support", "n_ehcp"):
            found[f"percent_{name[2:]}_{str(year).replace('-', '_')}"] = 100 * sums[name] / sums["roll"]
    (join,) = table.joins
    found |= {"joined_by_urn": join.rates[0], "joined_by_laestab": join.rates[1], "joined_by_links": join.rates[2]}
    return {name: value if isinstance(value, str) else round(float(value), 6) for name, value in found.items()}


def report(lotteries: dict[str, PublishedLottery], found: dict[str, float | str]) -> None:
    print(lotteries["all"])
    print(OTHER_TYPES_LEFT_OUT)
    short = {
        label: 100
        * max(1 - float(value) for name, value in found.items() if name.startswith(f"laplace_sd_ratio_{label}"))
        for label in LABELS
    }
    print(
        f"The Laplace approximation makes the SD of schools up to {short['support']:.1f} % too small for SEN support "
        f"and {short['ehcp']:.1f} % for EHC plans (against quadrature, schools alone); the intervals do not hold that."
    )
    for label, called in (("support", "SEN support"), ("ehcp", "An EHC plan")):
        school, la = (f"{label}_2022_23_{level}_full" for level in ("school", "la"))
        lasting = f"persistence_{label}_school"
        print(
            f"\n{called}, 2022/23, net of measured intake: {100 * float(found[f'share_{school}']):.1f} % of the "
            f"variation lies between schools, {100 * float(found[f'share_{la}']):.1f} % between authorities; the odds "
            f"differ {found[f'median_odds_ratio_{school}']:.2f}-fold between two typical schools, "
            f"{found[f'median_odds_ratio_{la}']:.2f}-fold between two authorities. A school's residual rates of both "
            f"years correlate {found[lasting]:.2f} [{found[f'{lasting}_lower']:.2f}, {found[f'{lasting}_upper']:.2f}]."
        )


def main() -> None:
    table = england_census(DATA)
    print(*table.joins, sep="\n")
    lotteries = estimate(table.data)
    found = scalars(lotteries, table)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for part in ("variance", "persistence", "coefficients", "fits"):
        tables = [getattr(lottery, part).assign(schools=name) for name, lottery in lotteries.items()]
        output = pd.concat(tables, ignore_index=True)
        output[["schools", *(name for name in output.columns if name != "schools")]].to_csv(
            RESULTS / f"england_lottery_{part}.csv", index=False, float_format="%.6g"
        )
    (RESULTS / "england_lottery.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    counts = lotteries["all"].n_schools
    figure = identification_shares(
        lotteries["all"].variance,
        synthetic=False,
        caution=NOT_LENIENCY,
        source=f"{counts['2018-19']:,} and {counts['2022-23']:,} state-funded primary and secondary schools. {SOURCE}",
    )
    save_svg_png(figure, RESULTS / "england_lottery")
    report(lotteries, found)
    print(f"\nWrote four tables, england_lottery.json and a figure to {RESULTS.relative_to(ROOT)}.")
    print("Crown copyright, Department for Education, Open Government Licence v3.0.")


if __name__ == "__main__":
    main()
