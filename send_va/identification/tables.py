"""What identification says of every school, authority and region, with its uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.identification.kernels import Floats, Ints

if TYPE_CHECKING:
    from send_va.identification.need import Need

NOT_CONNECTED = "not connected with other schools through feeders: not compared"
WEAK_INTAKE = 0.5  # reliability of intake need below which a magnet is penalised about as without adjustment
_MOST_SUMS = 40  # draws over which pupils are summed: enough for an interval, a fraction of a second each


def school_table(need: Need, standard: pd.DataFrame | None = None) -> pd.DataFrame:
    """Leniency, intake need and shares labelled, by school.

    Parameters
    ----------
    need : Need
    standard : DataFrame, optional
        From :func:`national_standard`, with a level ``school``, if it is there already.

    Returns
    -------
    DataFrame
        school; leniency and leniency_sd (support threshold now, in SDs of unexplained need; positive labels more),
        leniency_ehcp and leniency_ehcp_sd where EHCPs occur; intake_need, intake_need_sd and intake_need_reliability
        (below .5: hardly told apart from feeders); labelled_share, labelled_share_entry; standard_share with
        standard_share_lower and standard_share_upper: share with need above one national threshold; n_pupils,
        n_same_body (pupils whose feeder is of the school's own body), flag.

    Examples
    --------
    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> table = school_table(need)
    >>> len(table), bool(table["intake_need_reliability"].between(0, 1).all())
    (20, True)
    """
    labels, parameters = need.labels, need.parameters
    n = np.bincount(labels.school, minlength=len(labels.schools))
    table = pd.DataFrame({"school": labels.schools})
    leniency = parameters.school if need.now_fit is not None else parameters.feeder if not need.has_entry else None
    drawn = [p.school if need.now_fit is not None else p.feeder for p in need.draws]
    for c, name in enumerate(("leniency", "leniency_ehcp")[: labels.levels]):
        table[name] = np.nan if leniency is None else leniency[:, c]
        table[f"{name}_sd"] = np.nan if leniency is None else _sd([values[:, c] for values in drawn], len(n))
    table["intake_need"] = parameters.intake
    table["intake_need_sd"] = _sd([p.intake for p in need.draws], len(n))
    table["intake_need_reliability"] = _reliability(need)
    table["labelled_share"] = _mean(labels.now > 0, labels.school, n)
    known = labels.entry >= 0
    if need.has_entry:
        n_known = np.bincount(labels.school[known], minlength=len(n))
        table["labelled_share_entry"] = _mean((labels.entry > 0)[known], labels.school[known], n_known)
    if standard is None:
        standard = national_standard(need, {"school": (labels.school, labels.schools)})
    standard = standard[standard["level"] == "school"]
    for column, source in (("", "expected"), ("_lower", "lower"), ("_upper", "upper")):
        table[f"standard_share{column}"] = standard[source].to_numpy() / np.maximum(n, 1)
    table["n_pupils"] = n
    table["n_same_body"] = np.bincount(labels.school[labels.same_body], minlength=len(n))
    table["flag"] = _flags(need, table)
    outside = labels.component > 0
    estimated = [str(c) for c in table.columns if str(c).startswith(("leniency", "intake", "standard"))]
    table.loc[outside, estimated] = np.nan
    return table


def national_standard(need: Need, groups: dict[str, tuple[Ints, tuple[str, ...]]]) -> pd.DataFrame:
    """How many pupils would be identified at one national threshold.

    Parameters
    ----------
    need : Need
    groups : dict
        Level to codes (n,) and names: schools, authorities, regions. Pupils with code -1 are left out and, above the
        level ``school``, those of schools that cannot be compared.

    Returns
    -------
    DataFrame
        level, name, n_pupils, labelled_now, expected (pupils with need above the national support threshold at
        transfer), lower, upper: 95 % interval, of the parameters and of who the pupils with need are. A school with
        ``labelled_now`` above `upper` labels more pupils than the national threshold would. Schools that cannot be
        compared have no expected number. flag: that, or what every expected number assumes.

    Examples
    --------
    >>> import numpy as np
    >>> import send_va as sv
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(1), schools=20, pupils_per_school=50)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> table = national_standard(need, {"school": (need.labels.school, need.labels.schools)})
    >>> bool(table["expected"].between(table["lower"], table["upper"]).all())
    True
    """
    from send_va.identification.need import best_estimator

    scores = need.scores(best_estimator(need))
    compared = need.labels.component[need.labels.school] == 0
    groups = {
        level: (codes if level == "school" else np.where(compared, codes, -1), names)
        for level, (codes, names) in groups.items()
    }
    drawn = scores.summed(lambda pi: _sums(np.nan_to_num(pi), groups), _MOST_SUMS)
    pi, _ = scores.plug_in()
    parts = []
    for level, (codes, names) in groups.items():
        expected = _sum(np.nan_to_num(pi), codes, len(names))
        own = _sum(np.nan_to_num(pi * (1.0 - pi)), codes, len(names))
        between = np.var([sums[level] for sums in drawn], axis=0, ddof=1) if len(drawn) > 1 else np.zeros(len(names))
        reach = 1.959964 * np.sqrt(own + between)
        n = _sum(np.ones(len(codes)), codes, len(names))
        expected = np.where((n > 0) & (_sum(compared, codes, len(names)) == 0), np.nan, expected)
        parts.append(
            pd.DataFrame(
                {
                    "level": level,
                    "name": names,
                    "n_pupils": n.astype(int),
                    "labelled_now": _sum(need.labels.now > 0, codes, len(names)).astype(int),
                    "expected": expected,
                    "lower": np.clip(expected - reach, 0.0, n),
                    "upper": np.clip(expected + reach, 0.0, n),
                    "flag": np.where(np.isnan(expected), NOT_CONNECTED, need.assumes("standardised")),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _sums(pi: Floats, groups: dict[str, tuple[Ints, tuple[str, ...]]]) -> dict[str, Floats]:
    return {level: _sum(pi, codes, len(names)) for level, (codes, names) in groups.items()}


def _sum(values: Floats | NDArray[np.bool_], codes: Ints, n_groups: int) -> Floats:
    known = codes >= 0
    return np.bincount(codes[known], weights=np.asarray(values, dtype=np.float64)[known], minlength=n_groups)


def _mean(values: NDArray[np.bool_], codes: Ints, n: Ints) -> Floats:
    return _sum(values, codes, len(n)) / np.where(n > 0, n, np.nan)


def _sd(drawn: list[Floats], n: int) -> Floats:
    return np.std(drawn, axis=0, ddof=1) if len(drawn) > 1 else np.full(n, np.nan)


def _reliability(need: Need) -> Floats:
    """``1 - Var(m | labels) / Var(m)``; missing where schools do not differ or need cannot be told from leniency."""
    fit = need.entry_fit
    if not need.has_entry or "school" not in fit.names or need.parameters.intake_variance < 1e-6:
        return np.full(len(need.labels.schools), np.nan)
    given = fit.solution.mode_covs[fit.names.index("school")][:, 0, 0]
    return np.clip(1.0 - given / need.parameters.intake_variance, 0.0, 1.0)


def _flags(need: Need, table: pd.DataFrame) -> list[str]:
    share, apart = table["labelled_share"].to_numpy(), need.labels.component > 0
    conditions = {
        need.assumes("standardised"): np.full(len(table), not need.has_entry),
        NOT_CONNECTED: apart,
        "no pupil labelled": share == 0,
        "every pupil labelled": share == 1,
        "intake need weakly identified": ~apart & (table["intake_need_reliability"].to_numpy() < WEAK_INTAKE),
        "feeders of the school's own body": table["n_same_body"].to_numpy() > 0,
    }
    return ["; ".join(text for text, holds in conditions.items() if holds[j]) for j in range(len(table))]
