"""Do two readings hold the same complete pupils in the same order: a hash of schools and prior scores by row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from send_va.records.design_columns import numbers


class RowOrder:
    """Hash of the sequence of schools and prior scores, filled batch by batch; it holds no pupil id.

    Neither labels nor outcomes are in it. Two orders that differ only among pupils with the same school and scores
    hash alike.

    Parameters
    ----------
    school : str
        Column of the schools.
    prior : sequence of str
        Columns of the prior scores.

    Examples
    --------
    >>> batch = pa.RecordBatch.from_pydict({"school": ["1", "1", "2"], "prior": [99.0, 101.0, 99.0]})
    >>> whole, parts, turned = (RowOrder("school", ["prior"]) for _ in range(3))
    >>> whole.add(batch)
    >>> parts.add(batch.slice(0, 1))
    >>> parts.add(batch.slice(1))
    >>> turned.add(batch.take(pa.array([1, 0, 2])))
    >>> whole.hash == parts.hash, whole.hash == turned.hash
    (True, False)
    """

    def __init__(self, school: str, prior: Sequence[str]) -> None:
        self._school, self._prior = school, tuple(prior)
        self._of_schools, self._of_scores = hashlib.sha256(), [hashlib.sha256() for _ in prior]
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the next rows."""
        self._rows += batch.num_rows
        names = batch.column(self._school).cast(pa.string()).to_pylist()
        self._of_schools.update("".join(f"{name}\n" for name in names).encode())
        for name, known in zip(self._prior, self._of_scores, strict=True):
            known.update(numbers(batch, name).tobytes())

    @property
    def hash(self) -> str:
        """SHA-256 of the rows so far, their number included."""
        parts = [str(self._rows), *(known.hexdigest() for known in (self._of_schools, *self._of_scores))]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()
