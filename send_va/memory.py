"""Freed memory stays with the process: arrays of one draw then reuse the pages of the draw before."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
_LARGEST_ON_HEAP, _NEVER = 32 * 2**20, 2**31 - 1  # bytes; the first is the most glibc takes


def keep_freed_memory() -> bool:
    """Ask the C library not to return freed memory to the system; for a process that is this package's own.

    glibc unmaps large arrays when they are freed, and the system clears every page of the next one: a fifth of the
    processor time of a pass over the need of 593,000 pupils.

    Returns
    -------
    bool
        Whether the C library took it; other systems than Linux with glibc go on as they were.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
