"""Where finished fits are kept."""

from pathlib import Path

import numpy as np

from send_va.sensitivity.base_fits import BaseFit
from send_va.sensitivity.fit_store import FolderStore


def test_a_fit_comes_back_as_it_was_and_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal((3, 4))
    fit = BaseFit(np.array(["7", "08", "a|b", "9"]), *numbers, np.arange(4), -1.5)
    for name in ("first", "second"):
        FolderStore(tmp_path / name).save("entry", fit.arrays())
    back = BaseFit.of_arrays(FolderStore(tmp_path / "first").load("entry"))
    for name, value in vars(fit).items():
        np.testing.assert_array_equal(getattr(back, name), value)
    assert (tmp_path / "first" / "entry.npz").read_bytes() == (tmp_path / "second" / "entry.npz").read_bytes()


def test_a_fit_that_was_being_written_is_not_there(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / "partial-entry.npz").write_bytes(b"half")
    assert not store.has("entry")


def test_a_failure_is_kept_with_its_reason(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.save("entry", BaseFit.failed("no such column").arrays())
    back = BaseFit.of_arrays(store.load("entry"))
    assert back.reason == "no such column" and len(back.schools) == 0 and np.isnan(back.llf)
