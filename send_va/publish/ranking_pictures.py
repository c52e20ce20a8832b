"""The pictures of a run's ranking: rank sets, grades, quintiles and pairs, each as SVG and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from send_va.publish.figure_data import is_published
from send_va.publish.figure_style import save_svg_png
from send_va.publish.ranking_figures import grade_strip, group_probability_bars, pairwise_heatmap, rank_interval_density

_NAMED = (0.02, 0.25, 0.5, 0.75, 0.98)  # of the order of schools with a position


def save_ranking_pictures(
    rankings: pd.DataFrame,
    values: pd.DataFrame,
    chances: NDArray[np.float64],
    directory: Path,
    *,
    unit: str,
    coverage: float,
    certain: float,
    synthetic: bool,
    title: str,
) -> list[Path]:
    """Draw what a ranking can and cannot say, of one estimator in one context.

    Parameters
    ----------
    rankings : pandas.DataFrame
        Rows of ``rankings.csv`` of one estimator and context.
    values : pandas.DataFrame
        school, value (what grades are drawn along, in `unit`).
    chances : array, shape (m, m)
        Chance that a school (or one of a block) is higher than another, from the highest expected rank to the lowest;
        of all schools compared.
    directory : pathlib.Path
    unit : str
    coverage : float
    certain : float
        Chance from which a school is said to belong to one quintile.
    synthetic : bool
    title : str

    Returns
    -------
    list of pathlib.Path
        Files written, SVG before PNG. All schools compared are drawn, so that the pictures show the whole table; only
        schools that are given a position are named. Nothing is drawn where no school is, and no grades where there are
        none.

    Raises
    ------
    InputError
        As the single figures.

    Examples
    --------
    >>> import tempfile
    >>> places = {"expected_rank": [1.2, 1.8], "rank_lower_simultaneous": 1, "rank_upper_simultaneous": 2}
    >>> fifths = {f"p_quintile_{k}": 0.2 for k in range(1, 6)}
    >>> rows = pd.DataFrame({"school": ["a", "b"], "grade": [1, 2], "published": True} | places | fifths)
    >>> values = pd.DataFrame({"school": ["a", "b"], "value": [2.0, -2.0]})
    >>> options = {"unit": "points", "coverage": 0.95, "certain": 0.8, "synthetic": True, "title": "Two schools"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = save_ranking_pictures(rows, values, np.full((2, 2), 0.5), Path(folder), **options)
    >>> [file.name for file in files if file.suffix == ".png"]
    ['quintiles.png', 'pairs.png', 'rank_sets.png', 'grades.png']
    """
    placed = rankings[rankings["expected_rank"].notna()]
    published = placed[is_published(placed)]
    if len(published) < len(placed):
        title = f"{title}. Compared and drawn, but given no position: {len(placed) - len(published):,}"
    order = published.sort_values("expected_rank")["school"].tolist()
    named = [order[k] for k in sorted({round(at * (len(order) - 1)) for at in _NAMED})] if order else []
    drawn: dict[str, Figure] = {}
    stamp: dict[str, Any] = {"synthetic": synthetic, "title": title, "highlight": named}
    if named:
        drawn["quintiles"] = group_probability_bars(placed, certain=certain, **stamp)
        drawn["pairs"] = pairwise_heatmap(
            chances, schools=len(placed), coverage=coverage, synthetic=synthetic, title=title
        )
    bounds = {"rank_lower_simultaneous": "lower", "rank_upper_simultaneous": "upper"}
    if named and placed[list(bounds)].notna().all(axis=1).any():
        sets = placed.rename(columns=bounds)
        drawn["rank_sets"] = rank_interval_density(sets, coverage=coverage, kind="simultaneous rank set", **stamp)
    graded = placed[["school", "grade"]].astype({"school": str}).merge(values.astype({"school": str}), on="school")
    graded_names = set(graded.loc[graded["grade"].notna() & graded["value"].notna(), "school"])
    if named and graded_names:
        stamp["highlight"] = [name for name in named if str(name) in graded_names]
        drawn["grades"] = grade_strip(graded, unit=unit, **stamp)
    directory.mkdir(parents=True, exist_ok=True)
    return [path for name, figure in drawn.items() for path in save_svg_png(figure, directory / name)]
