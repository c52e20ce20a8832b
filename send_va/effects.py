"""SchoolEffects: draws of named measures, one number a school and draw; what every estimator of the package returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from send_va.errors import InputError

FloatArray = NDArray[np.float64]

MEASURES = {
    "theta": "effect on a pupil with need at the stated prior attainment (u + gap)",
    "u": "effect on a pupil without need",
    "gap": "what a pupil with need gains beyond one without, compared with the average school",
}
PER_MEASURE = ("mean", "sd", "reliability", "estimate", "se")


@dataclass(frozen=True)
class SchoolEffects:
    """Draws of school effects, with what is known of each school.

    Attributes
    ----------
    data : xarray.Dataset
        Draws: one variable a measure (``theta``, ``u``, ``gap``), dims (draw, school), in outcome units.
        By school and measure: ``mean``, ``sd`` (of the effect given the data), ``reliability`` (share of the variance
        between schools that is known of this school, at the estimated variances), ``estimate`` and ``se`` (unshrunken
        within-school estimate and its sampling error; missing where it cannot be estimated). By school: ``n_pupils``,
        ``n_need``, ``flag``. All of a school that cannot be compared is missing, draws included.
        ``attrs``: estimator, context, seed, unit, outcome_sd (pupil SD of the outcome) and more.
    """

    data: xr.Dataset

    @property
    def schools(self) -> list[str]:
        """School identifiers, in the order of the draws."""
        return [str(name) for name in self.data["school"].to_numpy()]

    @property
    def measures(self) -> list[str]:
        """Names of the measures held."""
        return [str(name) for name in self.data["measure"].to_numpy()]

    @property
    def attrs(self) -> dict[str, Any]:
        """Where the effects come from: estimator, context, seed, units."""
        return {str(key): value for key, value in self.data.attrs.items()}

    def draws(self, measure: str = "theta") -> FloatArray:
        """Draws of one measure, shape (draws, schools), in outcome units."""
        self._check(measure)
        return np.asarray(self.data[measure].transpose("draw", "school").to_numpy(), dtype=np.float64)

    def summary(self, measure: str = "theta", coverage: float = 0.95) -> pd.DataFrame:
        """One row a school.

        Parameters
        ----------
        measure : str
            ``theta``, ``u`` or ``gap``.
        coverage : float
            Share of draws inside the interval.

        Returns
        -------
        DataFrame
            school, mean, sd, lower, upper (outcome units), reliability (0: nothing is known of the school beyond the
            average; 1: known exactly), n_pupils, n_need, estimate, se, flag. A school whose interval contains 0
            cannot be told from the average school at this coverage.

        Raises
        ------
        InputError
            Unknown measure, or a coverage outside (0, 1).
        """
        if not 0.0 < coverage < 1.0:
            raise InputError(f"coverage must lie between 0 and 1, not {coverage}")
        tail = (1.0 - coverage) / 2.0
        lower, upper = np.quantile(self.draws(measure), [tail, 1.0 - tail], axis=0)
        known = {name: self.data[name].sel(measure=measure).to_numpy() for name in PER_MEASURE}
        return pd.DataFrame(
            {
                "school": self.schools,
                "mean": known["mean"],
                "sd": known["sd"],
                "lower": lower,
                "upper": upper,
                "reliability": known["reliability"],
                "n_pupils": self.data["n_pupils"].to_numpy(),
                "n_need": self.data["n_need"].to_numpy(),
                "estimate": known["estimate"],
                "se": known["se"],
                "flag": self.data["flag"].to_numpy().astype(str),
            }
        )

    def table(self, coverage: float = 0.95) -> pd.DataFrame:
        """All measures below each other, with estimator and context: the rows of ``school_effects.csv``."""
        frames = []
        for measure in self.measures:
            frame = self.summary(measure, coverage)
            frame.insert(1, "estimator", self.attrs["estimator"])
            frame.insert(2, "context", self.attrs["context"])
            frame.insert(3, "measure", measure)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def _check(self, measure: str) -> None:
        if measure not in self.measures:
            raise InputError(f"no measure {measure!r}", f"These effects hold {', '.join(self.measures)}.")

    def __str__(self) -> str:
        table = self.summary(self.measures[0])
        return (
            f"School effects ({self.attrs['estimator']}, {self.attrs['context']}): {len(self.schools):,} schools, "
            f"{self.data.sizes['draw']:,} draws, {self.attrs.get('unit', 'outcome units')}\n"
            f"{table.head().to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        return str(self.summary(self.measures[0]).to_html(index=False))


def school_effects(
    schools: Sequence[str],
    draws: Mapping[str, FloatArray],
    known: Mapping[str, Mapping[str, FloatArray]],
    *,
    n_pupils: NDArray[np.integer],
    n_need: NDArray[np.integer],
    flag: Sequence[str],
    attrs: Mapping[str, Any],
    not_compared: NDArray[np.bool_] | None = None,
) -> SchoolEffects:
    """Build SchoolEffects from arrays.

    Parameters
    ----------
    schools : sequence of str, length s
    draws : mapping of measure to array, shape (draws, s)
    known : mapping of measure to mapping of ``mean``, ``sd``, ``reliability``, ``estimate``, ``se`` to array (s,)
        Absent entries are taken from the draws (mean, sd) or are missing.
    n_pupils, n_need : integer array, shape (s,)
    flag : sequence of str
        What is unusual about a school (``"no_need_pupils"``), empty where nothing is.
    attrs : mapping
        Must name ``estimator`` and ``context``. ``assumes`` says what every value rests on, where labels do not tell.
    not_compared : bool array, shape (s,), optional
        Schools that cannot be compared with the others: whatever is given for them is set to missing.

    Raises
    ------
    InputError
        Shapes disagree or an attribute is missing.
    """
    for name in ("estimator", "context"):
        if name not in attrs:
            raise InputError(f"school effects need the attribute {name!r}")
    shapes = {measure: values.shape for measure, values in draws.items()}
    if len(set(shapes.values())) != 1 or next(iter(shapes.values()))[1] != len(schools):
        raise InputError(f"draws of {len(schools)} schools have shapes {shapes}", "Give (draws, schools) for each.")
    blank = np.full(len(schools), np.nan)
    if not_compared is not None and not_compared.any():
        draws = {measure: np.where(not_compared, np.nan, values) for measure, values in draws.items()}
        known = {
            measure: {name: np.where(not_compared, np.nan, values) for name, values in of_measure.items()}
            for measure, of_measure in known.items()
        }
    per_measure: dict[str, list[FloatArray]] = {name: [] for name in PER_MEASURE}
    for measure, values in draws.items():
        have = dict(known.get(measure, {}))
        have.setdefault("mean", values.mean(axis=0))
        have.setdefault("sd", values.std(axis=0))
        for name in PER_MEASURE:
            per_measure[name].append(np.asarray(have.get(name, blank), dtype=np.float64))
    variables: dict[str, Any] = {measure: (("draw", "school"), values) for measure, values in draws.items()}
    variables |= {name: (("measure", "school"), np.stack(rows)) for name, rows in per_measure.items()}
    variables |= {
        "n_pupils": ("school", np.asarray(n_pupils, dtype=np.int64)),
        "n_need": ("school", np.asarray(n_need, dtype=np.int64)),
        "flag": ("school", np.array(list(flag), dtype=object)),
    }
    coords = {
        "school": np.array(list(schools), dtype=object),
        "measure": np.array(list(draws), dtype=object),
        "draw": np.arange(next(iter(shapes.values()))[0]),
    }
    return SchoolEffects(xr.Dataset(variables, coords=coords, attrs=dict(attrs)))
