"""One fit of a multiverse: what it was made under, and what it says of every school."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray
from send_va.sensitivity.fit_store import Arrays


@dataclass(frozen=True)
class BaseKey:
    """The choices that one fit is made under, as in :class:`send_va.sensitivity.specifications.Choices`."""

    outcome: str
    send: str
    years: int
    estimator: str
    context: str
    adjustment: str

    @classmethod
    def of(cls, specification: object) -> BaseKey:
        """The part of a specification (a row of their table, as a named tuple) that a fit is made under."""
        return cls(*(getattr(specification, item.name) for item in fields(cls)))

    @property
    def name(self) -> str:
        """A file name that says most of it; the hash tells apart what cannot stand in one.

        Examples
        --------
        >>> BaseKey("att8", "any", 0, "entry", "cva", "full").name
        'entry-cva-full-any-0-9ac125b3'
        """
        text = json.dumps(asdict(self), sort_keys=True)
        words = (self.estimator, self.context, self.adjustment, self.send, str(self.years))
        return "-".join([*words, hashlib.sha256(text.encode()).hexdigest()[:8]])


@dataclass(frozen=True)
class BaseFit:
    """Effects on pupils with need under one key, or why there are none.

    Attributes
    ----------
    schools : string array, shape (schools,)
    theta : array, shape (schools,)
        Conditional means given the data, pupil SDs.
    estimate, se : array, shape (schools,)
        Unshrunken estimates and their sampling standard errors, pupil SDs; missing where they cannot be estimated.
    n_need : integer array, shape (schools,)
        Pupils with need, or their expected number, rounded; 0 for a school that cannot be compared.
    llf : float
        Restricted log-likelihood.
    reason : str
        Why there are no effects; empty where there are.
    """

    schools: NDArray[np.str_]
    theta: FloatArray
    estimate: FloatArray
    se: FloatArray
    n_need: NDArray[np.int64]
    llf: float
    reason: str = ""

    @classmethod
    def failed(cls, reason: str) -> BaseFit:
        """One that could not be made."""
        none = np.zeros(0)
        return cls(np.zeros(0, dtype=np.str_), none, none, none, np.zeros(0, dtype=np.int64), np.nan, reason)

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> BaseFit:
        """From what a store kept."""
        kept = {name: arrays[name] for name in ("schools", "theta", "estimate", "se", "n_need")}
        return cls(**kept, llf=float(arrays["llf"]), reason=str(arrays["reason"]))

    def arrays(self) -> Arrays:
        """For a store."""
        return {name: np.asarray(value) for name, value in vars(self).items()}
