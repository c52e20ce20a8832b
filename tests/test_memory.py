"""Freed memory that stays with the process."""

import platform
import subprocess
import sys

import pytest

PAGED_AFRESH = """
import resource
import numpy as np
from send_va.memory import keep_freed_memory

print(keep_freed_memory())
for _ in range(2):
    np.ones(2_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_arrays_reuse_the_pages_of_those_before() -> None:
    """Twenty arrays of 16 MB have 78,000 pages of 4 kB; a fresh process, since what is asked for cannot be undone."""
    done = subprocess.run([sys.executable, "-c", PAGED_AFRESH], capture_output=True, text=True, check=True)
    taken, faults = done.stdout.split()
    assert taken == "True"
    assert int(faults) < 1000
