"""Folders of real data and reference numbers, which are not part of the project."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("NPROC", "1")  # read by XLA when it starts: its threads would slow down chains side by side


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT / default))
    if folder.is_dir():
        return folder
    message = f"{variable} names no folder (default {default}): the tests that read it have nothing to read"
    if os.environ.get("SEND_VA_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real records and published tables."""
    return _folder("SEND_VA_DATA", "../shared/data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Numbers computed by other programs."""
    return _folder("SEND_VA_REFERENCE", "../shared/reference")
