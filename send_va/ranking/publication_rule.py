"""Which schools get a position, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class PublicationRule:
    """Clauses a school must meet to be given a position.

    Attributes
    ----------
    minimum_need : int
        Fewest pupils with need. 10 is the usual threshold for counts leaving a secure environment (Office for National
        Statistics, Secure Research Service, output checking rules).
    minimum_reliability : float
        Lowest reliability of the ranked measure; 0 asks for none.
    """

    minimum_need: int = 10
    minimum_reliability: float = 0.0

    def reasons(self, summary: pd.DataFrame) -> NDArray[np.object_]:
        """Why each school gets no position; empty text where it gets one.

        Parameters
        ----------
        summary : DataFrame
            With columns mean, n_need, reliability and flag, as :meth:`send_va.effects.SchoolEffects.summary` returns.
        """
        reason = np.full(len(summary), "", dtype=object)
        unreliable = summary["reliability"].to_numpy() < self.minimum_reliability
        reason[unreliable] = f"u: reliability below {self.minimum_reliability:g}"
        reason[summary["n_need"].to_numpy() < self.minimum_need] = f"fewer than {self.minimum_need} pupils with need"
        missing = summary["mean"].isna().to_numpy()
        reason[missing] = summary["flag"].to_numpy()[missing]
        return reason
