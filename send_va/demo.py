"""The demo: a synthetic cohort through the main job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from send_va.errors import InputError
from send_va.pipeline import run
from send_va.records.simulator import simulate, write_cohort
from send_va.study import load_study

_DRAWS = 40  # of the identification parameters: enough to see the tables, a fifth of the default


def run_demo(out: str | Path, *, schools: int = 300, seed: int = 1, quiet: bool = True) -> str:
    """Simulate `schools` schools, run the main job on them, compare with the known truth.

    Parameters
    ----------
    out : str or Path
        Directory for ``cohort/`` and ``run/``.
    schools : int
    seed : int
    quiet : bool
        Report no progress.

    Returns
    -------
    str
        The first rows of the table, how far it is from the truth, and where the files are.

    Raises
    ------
    InputError
        `out` is a file or holds something else.
    """
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(item.name not in ("cohort", "run") for item in out.iterdir())):
        raise InputError(f"{out.name} holds something that is not a demo", "Name another directory with --out.")
    simulated = simulate(np.random.default_rng(seed), schools=schools)
    write_cohort(simulated, out / "cohort")
    study = load_study(out / "cohort" / "study.toml")
    study = replace(study, identification=replace(study.identification, draws=_DRAWS))
    result = run(study, out / "run", quiet=quiet)
    theta = result.school_effects.query("context == 'cva' and measure == 'theta'")
    truth = simulated.truth.assign(school=simulated.truth["school"].astype(str)).set_index("school")["theta"]
    effects = theta.query("estimator == 'entry'")
    columns = ["school", "mean", "lower", "upper", "reliability", "n_pupils", "n_need"]
    best = effects.sort_values("mean", ascending=False)[columns].head(5)
    return "\n".join(
        [
            "",
            "SYNTHETIC DATA: no school here exists.",
            f"{len(simulated.pupils):,} pupils, {schools} schools. Highest value-added for pupils with need (theta,",
            "Attainment 8 points, cva context, estimator 'entry': no label the rated school set):",
            best.to_string(index=False, float_format="{:.2f}".format),
            "",
            "Against the known truth: share of schools whose 95 % interval holds it, and correlation.",
            *(_against(truth, part, name) for name, part in theta.groupby("estimator", sort=False)),
            f"Tables:  {out / 'run' / 'private' / 'school_effects.csv'}, rankings.csv",
            f"Figures: {out / 'run' / 'private' / 'figures'}",
            "Next:    docs/tutorial.md walks through them.",
        ]
    )


def _against(truth: pd.Series[float], effects: pd.DataFrame, name: object) -> str:
    known = truth.loc[effects["school"]].to_numpy()
    inside = (effects["lower"].to_numpy() < known) & (known < effects["upper"].to_numpy())
    return f"  {name!s:13}{inside.mean():6.0%}{np.corrcoef(effects['mean'], known)[0, 1]:7.2f}"
