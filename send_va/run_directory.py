"""The directory of a run: written whole or not at all, and resumable stage by stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from send_va.errors import InputError

_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class RunDirectory:
    """Where a run writes.

    Stages write into a hidden folder named after the run's fingerprint; :meth:`finish` moves it to ``private/`` in
    one rename. A run that was interrupted leaves the hidden folder, and another with the same fingerprint goes on
    from the stages found there.

    Attributes
    ----------
    out : Path
        The directory the user named.
    work : Path
        The hidden folder of this run.
    resumed : bool
        It goes on from an interrupted run.
    """

    out: Path
    work: Path
    resumed: bool = False

    @classmethod
    def open(cls, out: str | Path, fingerprint: str, *, resume: bool = False) -> RunDirectory:
        """Prepare a directory for a run with this fingerprint.

        Parameters
        ----------
        out : str or Path
        fingerprint : str
            Hash of everything that decides the result.
        resume : bool
            Keep finished stages of an interrupted run with the same fingerprint.

        Raises
        ------
        InputError
            `out` is a file, or a folder that holds something other than a run.
        """
        out = Path(out)
        refuse_foreign(out)
        work = out / _UNFINISHED / fingerprint[:16]
        resumed = resume and work.exists()
        if work.parent.exists() and not resumed:
            shutil.rmtree(work.parent)
        work.mkdir(parents=True, exist_ok=True)
        return cls(out, work, resumed)

    @property
    def private(self) -> Path:
        """What stays inside: may hold small cells."""
        return self.out / "private"

    def has(self, *names: str) -> bool:
        """Whether files of finished stages are there."""
        return all((self.work / name).exists() for name in names)

    def write(self, name: str, save: Callable[[Path], object]) -> Path:
        """Write one file of a stage: complete under its name, or absent."""
        target = self.work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"partial-{target.name}")
        save(partial)
        partial.replace(target)
        return target

    def discard(self) -> None:
        """Leave nothing behind of a run that found its input unusable."""
        shutil.rmtree(self.out / _UNFINISHED)
        if not any(self.out.iterdir()):
            self.out.rmdir()

    def keep_earlier(self) -> None:
        """Take over from the finished run in this directory what this one has not written itself."""
        for file in sorted(self.private.rglob("*")) if self.private.exists() else []:
            target = self.work / file.relative_to(self.private)
            if file.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)

    def finish(self) -> None:
        """Put the finished run in place of an earlier one."""
        old = self.out / _UNFINISHED / "replaced"
        if self.private.exists():
            self.private.rename(old)
        self.work.rename(self.private)
        shutil.rmtree(self.out / _UNFINISHED)


def refuse_foreign(out: Path) -> None:
    """Refuse to write where something else is kept.

    Raises
    ------
    InputError
        `out` is a file, or a folder with content that no run made.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out.name} is a file, not a directory", "Name a new or empty directory.")
    if not out.exists():
        return
    foreign = [item.name for item in out.iterdir() if item.name not in ("private", "public", _UNFINISHED)]
    earlier = (out / "private").exists() and not (out / "private" / "manifest.json").exists()
    if foreign or earlier:
        what = ", ".join(sorted(foreign)[:5]) or "a private/ folder without manifest.json"
        raise InputError(f"{out.name} holds something that is not a run: {what}", "Name a new or empty directory.")
