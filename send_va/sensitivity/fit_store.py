"""Where finished fits are kept, so that an interrupted multiverse goes on from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class FitStore(Protocol):
    """What a multiverse needs of the place its fits are kept in."""

    def has(self, name: str) -> bool:
        """Whether a fit is there, complete."""
        ...

    def load(self, name: str) -> Arrays:
        """Its arrays."""
        ...

    def save(self, name: str, arrays: Arrays) -> None:
        """Keep it, whole or not at all."""
        ...


class MemoryStore:
    """Keeps fits while the program runs.

    Examples
    --------
    >>> store = MemoryStore()
    >>> store.save("a", {"theta": np.zeros(2)})
    >>> store.has("a"), store.has("b"), store.load("a")["theta"].tolist()
    (True, False, [0.0, 0.0])
    """

    def __init__(self) -> None:
        self._kept: dict[str, Arrays] = {}

    def has(self, name: str) -> bool:
        """Whether a fit is there."""
        return name in self._kept

    def load(self, name: str) -> Arrays:
        """Its arrays."""
        return self._kept[name]

    def save(self, name: str, arrays: Arrays) -> None:
        """Keep it."""
        self._kept[name] = dict(arrays)


class FolderStore:
    """Keeps every fit in a file of its own, the same bytes for the same fit.

    The folder must belong to one study, its records and one version of the package: nothing in the files tells them
    apart. :class:`send_va.run_directory.RunDirectory` makes such folders.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     FolderStore(Path(name) / "fits").save("a", {"theta": np.ones(2)})
    ...     FolderStore(Path(name) / "fits").load("a")["theta"].tolist()
    [1.0, 1.0]
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"

    def has(self, name: str) -> bool:
        """Whether a fit is there, complete."""
        return self._path(name).exists()

    def load(self, name: str) -> Arrays:
        """Its arrays."""
        with np.load(self._path(name), allow_pickle=False) as kept:
            return dict(kept)

    def save(self, name: str, arrays: Arrays) -> None:
        """Write it beside its place and move it there."""
        partial = self._folder / f"partial-{name}.npz"
        np.savez(partial, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})
        partial.replace(self._path(name))
