"""The figure of the incentive audit: its finding agrees with the numbers, and nothing overlaps."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from send_va.errors import InputError
from send_va.publish.incentives_figure import incentives_figure
from send_va.sensitivity.audit_settings import AuditSettings
from send_va.sensitivity.school_acts import ACTIONS, LABELLING_ACTS

ESTIMATORS = ("labelled", "standardised", "entry", "label_free")


def summary() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = []
    for estimator, action, weighted in itertools.product(ESTIMATORS, ACTIONS, (False, True)):
        if action in LABELLING_ACTS and weighted:
            continue
        idle = action in LABELLING_ACTS and estimator in ("entry", "label_free")
        mean = 0.0 if idle else (0.01 if weighted else 0.03) * (1 if action != "label_fewer" else -1)
        mean *= 0.3 if estimator == "standardised" else 1.0
        spread = np.array([-1.6, -0.7, 0.7, 1.6]) * (0.0 if idle else 0.02 + 0.01 * rng.random())
        row = dict(zip(("q05", "q25", "q75", "q95"), mean + spread, strict=True))
        keys = {"estimator": estimator, "action": action, "roll_weighted": weighted}
        rows.append(keys | {"context": "cva", "measure": "theta", "n_schools": 9, "mean_gain_sd": mean} | row)
    return pd.DataFrame(rows)


def test_the_title_counts_what_fails() -> None:
    figure = incentives_figure(summary(), AuditSettings(), context="cva", synthetic=True)
    words = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "pay in theta under 3 of 4 estimators, labelling under labelled" in words
    assert "Synthetic data" in words
    assert "0.02 pupil SDs" in words
    assert "(default)" in words
    strict = incentives_figure(summary(), AuditSettings(tolerance=0.5), context="cva", synthetic=False)
    words = " ".join(" ".join(text.get_text() for text in strict.texts).split())
    assert "under 0 of 4 estimators, labelling under none" in words
    assert "Synthetic data" not in words


def test_marks_stand_at_the_mean_gains() -> None:
    figure = incentives_figure(summary(), AuditSettings(), context="cva", synthetic=True)
    for ax, weighted in zip(figure.axes, (False, True), strict=True):
        drawn = np.sort(np.concatenate([np.ravel(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) > 2]))
        rows = summary()
        np.testing.assert_allclose(drawn, np.sort(rows[rows["roll_weighted"] == weighted]["mean_gain_sd"]))


def test_no_text_covers_another_or_leaves_the_page() -> None:
    figure = incentives_figure(summary(), AuditSettings(), context="cva", synthetic=True)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown]
    for label, box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, label
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 0.5 or tall <= 0.5, f"{first!r} covers {second!r}"


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="no gain in theta in context prior"):
        incentives_figure(summary(), AuditSettings(), context="prior", synthetic=True)
    with pytest.raises(InputError, match="q05"):
        incentives_figure(summary().drop(columns="q05"), AuditSettings(), context="cva", synthetic=True)
