"""What every stage of a run works with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from send_va.progress import Progress
from send_va.records.design_columns import Context, ContextColumns
from send_va.records.profile import CohortProfile
from send_va.records.reader import Cohort
from send_va.run_directory import RunDirectory
from send_va.study import Study
from send_va.value_added.authorities import school_authorities
from send_va.value_added.bayes import Authorities
from send_va.value_added.design import STRATA, context_columns


@dataclass(frozen=True)
class StageInputs:
    """A study, its records, and where the results of a run go.

    Attributes
    ----------
    study : Study
    cohort : Cohort
    contexts : tuple of str
    directory : RunDirectory
    progress : Progress
    engine : str
        ``reml`` or ``bayes``.
    """

    study: Study
    cohort: Cohort
    contexts: tuple[Context, ...]
    directory: RunDirectory
    progress: Progress
    engine: str = "reml"

    @cached_property
    def profile(self) -> CohortProfile:
        """What the records hold, read when first asked for."""
        return self.cohort.profile(self.study.prior.knots)

    @cached_property
    def columns(self) -> ContextColumns:
        """Columns of the contexts."""
        return context_columns(self.cohort, self.profile, self.study.value_added.composition)

    @cached_property
    def authorities(self) -> Authorities | None:
        """Authority of every school, where that is a level of the model."""
        return school_authorities(self.cohort, tuple(self.profile.schools.schools))

    @cached_property
    def floor_shares(self) -> dict[str, float]:
        """Share of complete pupils with the lowest possible outcome, by SEN status and in all."""
        floor, roles = self.study.outcome.minimum, self.cohort.roles
        at, everyone = np.zeros(len(STRATA)), np.zeros(len(STRATA))
        for batch in self.cohort.batches([roles.outcome, "sen_level"]):
            level = np.asarray(batch.column("sen_level").to_numpy(zero_copy_only=False), dtype=np.int64)
            lowest = batch.column(roles.outcome).to_numpy(zero_copy_only=False) <= floor
            at += np.bincount(level, weights=lowest, minlength=len(STRATA))
            everyone += np.bincount(level, minlength=len(STRATA))
        shares = {name: float(a / n) for name, a, n in zip(STRATA, at, everyone, strict=True) if n}
        return shares | {"all": float(at.sum() / everyone.sum())}

    @property
    def attrs(self) -> dict[str, Any]:
        """What all estimates of the run say of themselves."""
        return {
            "seed": self.study.study.seed,
            "engine": self.engine,
            "unit": self.study.outcome.unit,
            "title": self.study.study.title,
            "synthetic": int(self.study.study.synthetic),
        }


def context_generator(seed: int, context: Context) -> np.random.Generator:
    """A generator of its own for every context, so that a resumed run draws the same numbers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(get_args(Context).index(context),)))
