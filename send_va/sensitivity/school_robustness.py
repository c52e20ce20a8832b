"""One row a school: what would have to be so for its quintile to be another (``robustness.csv``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from send_va.errors import InputError, NotSupportedError
from send_va.identification.need import Need
from send_va.records.design_columns import Context, check_contexts
from send_va.sensitivity.held_estimators import HeldLabelled, hold_need
from send_va.sensitivity.need_definition import DefinitionSensitivity, need_definitions
from send_va.sensitivity.quintiles import Quintiles, whole
from send_va.sensitivity.school_bounds import SchoolBounds, label_bounds
from send_va.sensitivity.tipping import Tipping, tip_by_leniency, tip_by_need
from send_va.sensitivity.unmeasured_schools import QUINTILE, SortingSensitivity, unmeasured_schools
from send_va.value_added.fit_result import ValueAddedFit
from send_va.value_added.pupil_design import PupilDesign

COLUMNS = {
    "leniency_more": "SDs of leniency by which those who label its pupils must be more lenient than estimated",
    "leniency_less": "the same, less lenient (negative)",
    "need_more": "SDs of unexplained need that its pupils with need must have beyond all records",
    "need_less": "the same, less need (negative)",
    "need_nearest_intake": "the smaller of both in SDs of intake need between schools; missing where that is below .05",
    "definition_higher": "first threshold tried above support that changes it, share of the way to EHCP",
    "definition_lower": "the same below support (negative)",
    "sorting_prior_attainment": "unmeasured sorting needed, in units of that on prior attainment",
    "robustness_value": "share of membership and of outcome that a confounder must explain to bring theta to zero",
    "label_bound_lower": "theta under `labelled`, unshrunken, excess labelled pupils cut off the top; outcome units",
    "label_bound_upper": "the same, cut off the bottom",
    "share_trimmed": "share of its labelled pupils that one national threshold would not label",
    "label_sign_known": "whether both bounds lie on one side of zero",
}


_LEAST_INTAKE_SD = 0.05


@dataclass(frozen=True, eq=False)
class Robustness:
    """Tipping points of every school, for one estimator.

    Attributes
    ----------
    table : DataFrame
        One row a school: school, estimator, context, quintile (1 the highest), theta (outcome units), and the columns
        of `COLUMNS`, which are missing where nothing tried changes the quintile or the question does not apply;
        ``robust``: the quintile survives 1 SD of leniency, .25 SD of unobserved need and every threshold tried.
    leniency, need : Tipping or None
    definition : DefinitionSensitivity or None
    sorting : SortingSensitivity or None
    labels : SchoolBounds or None
    not_applicable : dict of str to str
        Which of them these records do not allow, and why.
    """

    table: pd.DataFrame
    leniency: Tipping | None
    need: Tipping | None
    definition: DefinitionSensitivity | None
    sorting: SortingSensitivity | None
    labels: SchoolBounds | None
    not_applicable: dict[str, str]

    @property
    def headlines(self) -> tuple[str, ...]:
        """Sentences on all schools, the overall one first."""
        compared = self.table[self.table["quintile"].notna()]
        known = compared["robust"].notna()
        first = (
            f"The quintile of {100 * float(compared.loc[known, 'robust'].astype(bool).mean()):.0f} % of schools "
            "survives 1 SD of leniency, .25 SD of unobserved need and every threshold of need tried, one at a time."
            if known.any()
            else "No tipping point of the quintile could be worked out."
        )
        parts = (self.leniency, self.need, self.definition, self.sorting, self.labels)
        said = [
            part.headline if isinstance(part, Tipping | DefinitionSensitivity) else str(part) for part in parts if part
        ]
        left = [f"Not applicable: {name} ({why})" for name, why in self.not_applicable.items()]
        return (first, *said, *left)

    @property
    def shares(self) -> pd.DataFrame:
        """Share of schools whose quintile changes, by size of each departure (``tipping.csv``).

        estimator, context, departure (``leniency``, ``need``, ``definition``, ``sorting``), benchmark (of sorting),
        size (SDs of leniency; SDs of unexplained need; share of the way from support to EHCP; units of sorting),
        share_changed. Of `definition` all schools move at once, of the others each alone.
        """
        parts = [part.shares.assign(departure=part.kind, benchmark="") for part in (self.leniency, self.need) if part]
        if self.definition is not None:
            tried = self.definition.thresholds.rename(columns={"threshold": "size"})
            parts.append(tried[["size", "share_changed"]].assign(departure="definition", benchmark=""))
        if self.sorting is not None:
            lines = self.sorting.shares
            lines = lines[(lines["line"] == QUINTILE) & (lines["scale"] == "shrunken") & lines["share"].notna()]
            lines = lines.rename(columns={"times": "size", "share": "share_changed"})
            parts.append(lines[["size", "share_changed", "benchmark"]].assign(departure="sorting"))
        of = {name: self.table[name].iloc[0] for name in ("estimator", "context")}
        columns = ["estimator", "context", "departure", "benchmark", "size", "share_changed"]
        return pd.concat(parts, ignore_index=True).assign(**of)[columns]

    def __str__(self) -> str:
        return "\n".join(self.headlines)

    def _repr_html_(self) -> str:
        return "".join(f"<p>{line}</p>" for line in self.headlines) + str(self.table.to_html(index=False))


def robustness(
    design: PupilDesign,
    need: Need,
    fit: ValueAddedFit,
    *,
    labelled: HeldLabelled | None = None,
    standard: pd.DataFrame | None = None,
) -> Robustness:
    """Work out all tipping points of one estimator in one context.

    Parameters
    ----------
    design : PupilDesign
        All complete pupils, those of schools that cannot be compared included.
    need : Need
        Of the same records.
    fit : ValueAddedFit
        The published fit of ``entry``, ``standardised`` or ``label_free``: what schools are ordered by.
    labelled : HeldLabelled, optional
        ``labelled`` with national parameters held in the same context, for its trimming bounds.
    standard : DataFrame, optional
        From :func:`send_va.identification.tables.national_standard`, if it is there already.

    Returns
    -------
    Robustness
        A tipping point that is missing is good news: nothing tried changes the quintile. What the records do not allow
        is listed in ``not_applicable`` and missing as well.

    Raises
    ------
    InputError
        `fit` is not of an estimator with need, or of other schools.

    Examples
    --------
    >>> import send_va as sv
    >>> from send_va.value_added.design import context_columns
    >>> from send_va.value_added.need_fit import fit_need
    >>> from send_va.value_added.pupil_design import pupil_design
    >>> roles = {"pupil": "pupil", "school": "school", "feeder": "feeder", "outcome": "outcome", "prior": ["prior"],
    ...          "sen_status": "sen_status", "sen_status_entry": "sen_status_entry"}
    >>> world = sv.simulate(np.random.default_rng(2), schools=40, pupils_per_school=60)
    >>> cohort = sv.Cohort.from_pandas(world.pupils, roles, synthetic=True)
    >>> need = sv.fit_identification(cohort, draws=0)
    >>> profile = cohort.profile(5)
    >>> design = pupil_design(cohort, profile, context_columns(cohort, profile))
    >>> compared = design.without_schools(np.flatnonzero(need.labels.component > 0))
    >>> rng = np.random.default_rng(1)
    >>> fit = fit_need(compared, need.scores("entry"), "entry", ["prior"], rng=rng, draws=50, plug_in=True)["prior"]
    >>> found = robustness(design, need, fit)
    >>> len(found.table), found.not_applicable
    (40, {'trimming bounds': 'labelled was not given'})
    """
    estimator, (context,) = str(fit.effects.attrs["estimator"]), check_contexts([str(fit.effects.attrs["context"])])
    if tuple(fit.effects.schools) != design.schools or estimator == "labelled":
        raise InputError("the fit is of other schools than the design, or of 'labelled'", "Give a fit with need.")
    refused: dict[str, str] = {}

    def tried[Part](name: str, work: Callable[[], Part]) -> Part | None:
        try:
            return work()
        except NotSupportedError as error:
            refused[name] = str(error)
            return None

    held = hold_need(design, need, estimator, [context])
    effects = fit.effects
    leniency = tried("leniency", lambda: tip_by_leniency(held, need, context, effects=effects))
    unobserved = tried("unobserved need", lambda: tip_by_need(held, need, context, effects=effects))
    definition = tried("definition of need", lambda: need_definitions(design, need, estimator, context))
    sorting = unmeasured_schools(design, fit)
    bounds = None if labelled is None else label_bounds(labelled, need, context, standard=standard)
    if labelled is None:
        refused["trimming bounds"] = "labelled was not given"
    table = _table(fit, context, leniency, unobserved, definition, sorting, bounds)
    return Robustness(table, leniency, unobserved, definition, sorting, bounds, refused)


def _table(
    fit: ValueAddedFit,
    context: Context,
    leniency: Tipping | None,
    unobserved: Tipping | None,
    definition: DefinitionSensitivity | None,
    sorting: SortingSensitivity,
    bounds: SchoolBounds | None,
) -> pd.DataFrame:
    theta = fit.effects.data["mean"].sel(measure="theta").to_numpy().astype(np.float64)
    table = pd.DataFrame(
        {
            "school": fit.effects.schools,
            "estimator": str(fit.effects.attrs["estimator"]),
            "context": context,
            "quintile": whole(Quintiles.of(theta).quintile),
            "theta": theta,
        }
    )
    table = table.assign(**dict.fromkeys(COLUMNS, np.nan))
    robust = []
    for name, part in (("leniency", leniency), ("need", unobserved)):
        if part is not None:
            table[[f"{name}_more", f"{name}_less"]] = part.table[["more", "less"]].to_numpy()
            robust.append(part.table["robust"])
    if unobserved is not None and unobserved.intake_sd >= _LEAST_INTAKE_SD:
        table["need_nearest_intake"] = unobserved.table["nearest"].to_numpy() / unobserved.intake_sd
    if definition is not None:
        table[["definition_higher", "definition_lower"]] = definition.table[["higher", "lower"]].to_numpy()
        robust.append(definition.table["robust"])
    lines = sorting.schools
    nearest = lines[(lines["line"] == QUINTILE) & (lines["scale"] == "shrunken")]
    table["sorting_prior_attainment"] = nearest["times prior attainment"].abs().to_numpy()
    table["robustness_value"] = nearest["robustness_value"].to_numpy()
    if bounds is not None:
        table[["label_bound_lower", "label_bound_upper"]] = bounds.table[["lower", "upper"]].to_numpy()
        table["share_trimmed"] = bounds.table["share_trimmed"].to_numpy()
        table["label_sign_known"] = bounds.table["sign_known"].to_numpy()
    table["robust"] = pd.concat(robust, axis=1).all(axis=1, skipna=False).astype("boolean") if robust else pd.NA
    return table
