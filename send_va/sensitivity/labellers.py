"""What a school's result would be if those who labelled its pupils were more lenient than estimated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from send_va.errors import NotSupportedError
from send_va.identification.labels import LabelRecords
from send_va.identification.model import Parameters
from send_va.identification.need import Need
from send_va.identification.scores import both_need, entry_need
from send_va.records.design_columns import Context
from send_va.sensitivity.held_estimators import HeldNeed
from send_va.sensitivity.held_identification import HeldIdentification
from send_va.sensitivity.held_national import SchoolValues

Floats = NDArray[np.float64]
_LEAST_SD = 1e-3  # of leniency, in SDs of unexplained need


@dataclass(frozen=True, eq=False)
class Labellers:
    """Those who set the labels that an estimator uses, school by school.

    Labels stay as recorded. Of a school whose pupils were labelled by others more lenient than estimated, the labelled
    pupils are less needy and so are those without a label; national parameters are held.

    Attributes
    ----------
    held : HeldNeed
    need : Need
    context : str
    who : str
        ``school`` (its own leniency now, for ``standardised``) or ``feeders`` (of all its pupils at once, for
        ``entry``; the school's intake need is found again given that).
    sd : float
        Of leniency at the support threshold, SDs of unexplained need.
    """

    held: HeldNeed
    need: Need
    context: Context
    who: str
    sd: float

    @classmethod
    def of(cls, held: HeldNeed, need: Need, context: Context) -> Labellers:
        """Find out who labels, and how much they differ.

        Raises
        ------
        NotSupportedError
            ``label_free``, which uses no label; leniencies that do not differ; shares of authorities' leniency taken
            to be need.
        """
        if held.estimator == "label_free":
            raise NotSupportedError("'label_free' uses no label, so no leniency moves it. Use 'entry'.")
        own = held.estimator == "standardised"
        if not own and need.assumptions.area_sorting_share:
            raise NotSupportedError(
                "leniency is varied where none of that of authorities is need: area_sorting_share 0"
            )
        fit = need.now_fit if own and need.now_fit is not None else need.entry_fit
        term = "school" if fit is need.now_fit else "feeder" if "feeder" in fit.names else "la"
        variance = float(fit.solution.covariances[fit.names.index(term)][0, 0]) if term in fit.names else 0.0
        if variance < _LEAST_SD**2:
            raise NotSupportedError(
                "those who label are not found to differ in leniency: there is no SD to vary it by."
            )
        return cls(held, need, context, "school" if own else "feeders", float(np.sqrt(variance)))

    def values(self, shift: Floats) -> SchoolValues:
        """Values of all schools, those who label the pupils of each being more lenient by its own `shift`.

        Parameters
        ----------
        shift : array, shape (schools,)
            SDs of unexplained need; on all thresholds alike.
        """
        pi, severity = self.scores(shift)
        columns = np.column_stack([pi, severity])[self.held.order]
        return self.held.with_columns(columns)[self.context]

    def scores(self, shift: Floats) -> tuple[Floats, Floats]:
        """``pi`` and ``severity`` of every pupil in file order, each (n,)."""
        need, records = self.need, self.need.labels
        if not need.has_entry:
            # the label says what leniency and intake add up to: what the one gains, the other loses
            known = need.parameters
            split = replace(known, feeder=known.feeder + shift[:, None], intake=known.intake - shift)
            return entry_need(records, split, need.assumptions, records.entry)
        if self.who == "school":
            known, _ = self.held.identification.parameters()
            moved = replace(known, school=known.school + shift[:, None])
            return both_need(records, moved, need.assumptions, records.entry)
        records, parameters = _by_school(records, need.parameters, shift)
        again, _ = HeldIdentification(replace(need, labels=records, parameters=parameters, draws=())).parameters(
            leniency=False
        )
        return entry_need(records, again, need.assumptions, records.entry)


def _by_school(records: LabelRecords, known: Parameters, shift: Floats) -> tuple[LabelRecords, Parameters]:
    """Add a shift of each school's own to the leniency its pupils met, as if each school had authorities of its own."""
    place = np.asarray(records.feeder_la + 1)  # 0 where no authority is known
    pair, code = np.unique(records.school * (int(place.max()) + 1) + place, return_inverse=True)
    school, la = np.divmod(pair, int(place.max()) + 1)
    d = len(known.tau)
    own = np.vstack([np.zeros((1, d)), known.la_entry if len(known.la_entry) else np.zeros((int(place.max()), d))])
    return replace(records, feeder_la=code.astype(np.intp)), replace(known, la_entry=own[la] + shift[school][:, None])
