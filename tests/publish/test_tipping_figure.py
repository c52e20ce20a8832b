"""The picture of tipping points."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from send_va.errors import InputError
from send_va.publish.figure_style import save_svg_png
from send_va.publish.tipping_figure import tipping_figure


def shares() -> pd.DataFrame:
    size = np.array([-1.0, -0.25, 0.0, 0.25, 1.0])
    rows = [
        pd.DataFrame({"estimator": e, "departure": d, "benchmark": "", "size": size, "share_changed": np.abs(size) / 2})
        for e in ("entry", "standardised")
        for d in ("leniency", "need", "definition")
    ]
    for k, benchmark in enumerate(("prior attainment", "fsm6", "eal", "idaci")):
        part = pd.DataFrame({"estimator": "entry", "departure": "sorting", "benchmark": benchmark, "size": [0.5, 1.0]})
        rows.append(part.assign(share_changed=[0.4 / (k + 1), 0.8 / (k + 1)]))
    return pd.concat(rows).assign(context="cva")


def test_one_panel_a_departure_with_its_lines(tmp_path: Path) -> None:
    for name in ("first", "second"):
        figure = tipping_figure(shares(), synthetic=True)
        save_svg_png(figure, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    legends = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in figure.axes]
    assert legends == [["entry", "standardised"]] * 3 + [["prior attainment", "fsm6", "eal"]]
    said = " ".join(text.get_text() for text in figure.texts)
    assert "Up to 50 % of schools" in said and "Synthetic data" in said
    only = tipping_figure(shares()[shares()["departure"] == "definition"], synthetic=False)
    assert len(only.axes) == 1


def test_missing_columns_and_several_contexts_are_refused() -> None:
    with pytest.raises(InputError, match="benchmark"):
        tipping_figure(shares().drop(columns="benchmark"), synthetic=True)
    for wrong in (shares().assign(departure="other"), pd.concat([shares(), shares().assign(context="prior")])):
        with pytest.raises(InputError, match="no departure to draw"):
            tipping_figure(wrong, synthetic=True)
