"""Pieces of work on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def in_threads[T, R](work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Results of `work` for each part, in order; an error in one is raised.

    What comes out does not depend on the number of threads as long as parts write to places of their own.
    """
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as cores:
        return list(cores.map(work, parts))
