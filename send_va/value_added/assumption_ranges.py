"""How far a school's effect moves over what labels alone cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from send_va.multilevel.threads import one_blas_thread
from send_va.records.design_columns import Context
from send_va.value_added.need_fit import fit_need

if TYPE_CHECKING:
    from send_va.effects import SchoolEffects
    from send_va.identification.need import Need
    from send_va.value_added.pupil_design import PupilDesign

SAME_BODY = "labels of the school's own feeders left out"
_FEW_DRAWS = 200  # of a plug-in fit, for its standard deviation only
_NORMAL_95 = 1.959963984540054


@one_blas_thread
def assumption_ranges(
    need: Need,
    design: PupilDesign,
    headline: Mapping[Context, SchoolEffects],
    estimator: str,
    ranges: Mapping[str, Sequence[float]],
    *,
    seed: int,
    prior_slope: bool = True,
    residual_by_need: bool = True,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Estimate theta again at every value of every assumption, the others as in `need`.

    Parameters
    ----------
    need : Need
    design : PupilDesign
    headline : mapping of context to SchoolEffects
        The published effects: what identification adds to their variance is added here too.
    estimator : str
        The one they are of.
    ranges : mapping of str to sequence of float
        Fields of `Assumptions` and the values to try.
    seed : int
    prior_slope, residual_by_need : bool
        As in the headline.
    workers : int
        Threads; the result does not depend on them.
    progress : callable, optional
        Called with the number of fits done.

    Returns
    -------
    DataFrame
        school, estimator, context, assumption, value, mean, lower, upper (95 %) of theta in outcome units, of schools
        that can be compared. A school whose intervals differ much over a range depends on that assumption. Where pupils
        come from feeders of the school's own body, one more row a school leaves their labels before transfer out.
    """
    contexts = list(headline)
    variants = [(name, float(value)) for name, values in ranges.items() for value in values]
    if need.has_entry and need.labels.same_body.any():
        variants.append((SAME_BODY, 1.0))

    def fitted(changed: Need, leave_out: bool = False) -> dict[Context, SchoolEffects]:
        return _fitted(changed, design, estimator, contexts, seed, prior_slope, residual_by_need, leave_out)

    def one(variant: tuple[str, float]) -> dict[Context, SchoolEffects] | None:
        """Fit a variant; None where it is the headline."""
        name, value = variant
        if name == SAME_BODY:
            return fitted(need, leave_out=True)
        changed = need.under(**{name: value})
        return None if changed.assumptions == need.assumptions else fitted(changed)

    parts: list[pd.DataFrame] = []
    with ThreadPoolExecutor(workers) as cores:
        first, others = cores.submit(fitted, need), cores.map(one, variants)
        base = first.result()
        for done, ((name, value), fit) in enumerate(zip(variants, others, strict=True), start=1):
            for context in contexts:
                rows = _rows(headline[context], base[context], (fit or base)[context])
                parts.append(rows.assign(assumption=name, value=value))
            if progress is not None:
                progress(done)
    order = ["school", "estimator", "context", "assumption", "value", "mean", "lower", "upper"]
    return pd.concat(parts, ignore_index=True)[order] if parts else pd.DataFrame(columns=order)


def _fitted(
    need: Need,
    design: PupilDesign,
    estimator: str,
    contexts: Sequence[Context],
    seed: int,
    prior_slope: bool,
    residual_by_need: bool,
    leave_out: bool = False,
) -> dict[Context, SchoolEffects]:
    scores = need.scores(estimator, without=need.labels.same_body if leave_out else None)
    fits = fit_need(
        design,
        scores,
        estimator,
        contexts,
        rng=np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(5,))),
        draws=_FEW_DRAWS,
        prior_slope=prior_slope,
        residual_by_need=residual_by_need,
        plug_in=True,
    )
    return {context: fit.effects for context, fit in fits.items()}


def _rows(headline: SchoolEffects, base: SchoolEffects, found: SchoolEffects) -> pd.DataFrame:
    sd = {
        name: effects.draws("theta").std(axis=0, ddof=1)
        for name, effects in (("headline", headline), ("base", base), ("found", found))
    }
    added = np.maximum(sd["headline"] ** 2 - sd["base"] ** 2, 0.0)
    reach = _NORMAL_95 * np.sqrt(sd["found"] ** 2 + added)
    mean = found.data["mean"].sel(measure="theta").to_numpy()  # conditional mean: no noise of drawing
    table = pd.DataFrame(
        {
            "school": found.schools,
            "estimator": str(headline.attrs["estimator"]),
            "context": str(headline.attrs["context"]),
            "mean": mean,
            "lower": mean - reach,
            "upper": mean + reach,
        }
    )
    return table[np.isfinite(mean)]
