"""What all fitted models show of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import InputError

FloatArray = NDArray[np.float64]


class FittedModel(ABC):
    """Text and HTML of a model with coefficients and variance components."""

    params: pd.Series[float]
    bse: pd.Series[float]
    variance_components: pd.DataFrame
    formula: str

    def summary(self) -> str:
        """Plain-text account: model, convergence, variance components, coefficients."""
        table = pd.DataFrame({"estimate": self.params, "se": self.bse, "z": self.params / self.bse})
        number = "{:.5f}".format
        components = self.variance_components.to_string(index=False, na_rep="", float_format=number)
        return "\n".join([*self._heading(), "", components, "", table.to_string(float_format=number)])

    @abstractmethod
    def _heading(self) -> list[str]:
        """First lines of the account: the model, the records, whether it converged."""

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        table = pd.DataFrame({"estimate": self.params, "se": self.bse})
        return f"<p>{self.formula}</p>{self.variance_components.to_html(index=False, na_rep='')}{table.to_html()}"


class GroupedModel(FittedModel):
    """A model with effects of groups.

    Attributes
    ----------
    labels : dict of str to Index
        By grouping.
    terms : dict of str to tuple of str
        Names of the effects of each grouping.
    """

    labels: dict[str, pd.Index[str]]
    terms: dict[str, tuple[str, ...]]

    def _known(self, group: str) -> str:
        if group not in self.labels:
            raise InputError(f"no grouping {group!r} in this model", f"It has {', '.join(self.labels)}.")
        return group

    def _effects(self, group: str, modes: FloatArray, covariances: FloatArray) -> pd.DataFrame:
        """One row a group and effect, from (groups, q) and (groups, q, q)."""
        terms, labels = self.terms[group], self.labels[group]
        return pd.DataFrame(
            {
                "level": np.repeat(labels.to_numpy(), len(terms)),
                "term": np.tile(np.array(terms, dtype=object), len(labels)),
                "estimate": modes.ravel(),
                "se": np.sqrt(np.einsum("gqq->gq", covariances)).ravel(),
            }
        )
