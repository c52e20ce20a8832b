"""One look for every figure: readable printed in grey, the same bytes for the same input."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#111111"
ACCENT = "#12355b"
MIDDLE = "#6f7f8f"
PALE = "#c3ccd6"

WIDTH_INCHES = 6.9
DPI = 300
SYNTHETIC_STAMP = "Synthetic data"

STYLE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure is the same on every machine
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.unicode_minus": True,
    "svg.hashsalt": "send_va",
    "svg.fonttype": "path",
}

# How estimators look wherever several are drawn: by form and filling, so that grey print tells them apart.
ESTIMATOR_MARKS = {
    "entry": {"marker": "D", "markerfacecolor": INK, "label": "entry (headline)"},
    "standardised": {"marker": "o", "markerfacecolor": "white", "label": "standardised"},
    "labelled": {"marker": "x", "markerfacecolor": INK, "label": "labelled"},
    "label_free": {"marker": "^", "markerfacecolor": "white", "label": "label-free"},
}
PANELS_ACROSS = 3  # small ones, side by side
_PANEL_INCHES, _PANEL_GAP_INCHES, _PANEL_BETWEEN_INCHES = 1.3, 0.26, 0.3
_TOP_LINE_INCHES = 0.13
_TITLE_LINE_INCHES = 0.19
_SUBTITLE_LINE_INCHES = 0.155
_NOTE_LINE_INCHES = 0.135
_LEFT_INCHES = 0.86
_RIGHT_INCHES = 0.24
_TITLE_CHARACTERS = 70
_TITLE_CHARACTERS_BESIDE_STAMP = 54
_SUBTITLE_CHARACTERS = 108
_NOTE_CHARACTERS = 128


def styled[**P, R](draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the house style, whatever the caller's matplotlib settings are.

    Parameters
    ----------
    draw : callable
        A function that makes a figure.

    Returns
    -------
    callable
        The same function; the caller's settings are untouched afterwards.

    Raises
    ------
    Exception
        Whatever `draw` raises, unchanged.

    Examples
    --------
    >>> styled(lambda: mpl.rcParams["svg.hashsalt"])()
    'send_va'
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return drawn


@styled
def titled_figure(
    title: str,
    subtitle: str,
    note: str,
    *,
    synthetic: bool,
    panels: tuple[float, ...] = (1.0,),
    plot_height_inches: float = 3.2,
    legend_row: bool = False,
    label_lines: int = 1,
) -> tuple[Figure, list[Axes]]:
    """Lay out an empty figure: title and subtitle above, panels side by side, a note below.

    The figure grows with the number of text lines, so that text never covers the panels.

    Parameters
    ----------
    title : str
        The subject of the finding, one or two lines.
    subtitle : str
        How to read the picture.
    note : str
        Definitions and counts left out, below the panels.
    synthetic : bool
        Stamp the figure with "Synthetic data".
    panels : tuple of float
        Relative widths of the panels.
    plot_height_inches : float
        Height of the panels in inches.
    legend_row : bool
        Leave room for one row of legend between subtitle and panels.
    label_lines : int
        Lines of the label of the horizontal axis.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Drawn with Agg; no pyplot state is touched.
    axes : list of matplotlib.axes.Axes
        One for each panel, left to right.

    Raises
    ------
    ValueError
        When `panels` is empty.

    Examples
    --------
    >>> figure, axes = titled_figure("A", "B", "", synthetic=True, panels=(2, 1))
    >>> len(axes)
    2
    """
    if not panels:
        raise ValueError("a figure needs at least one panel")
    title_lines = _even_lines(title, _TITLE_CHARACTERS_BESIDE_STAMP if synthetic else _TITLE_CHARACTERS)
    subtitle_lines = _even_lines(subtitle, _SUBTITLE_CHARACTERS)
    note_lines = _even_lines(note, _NOTE_CHARACTERS)
    head = _TOP_LINE_INCHES + _TITLE_LINE_INCHES * len(title_lines) + _SUBTITLE_LINE_INCHES * len(subtitle_lines)
    head += 0.36 if legend_row else 0.16
    foot = 0.52 + 0.14 * (label_lines - 1) + _NOTE_LINE_INCHES * len(note_lines)
    height = head + plot_height_inches + foot
    figure = Figure(figsize=(WIDTH_INCHES, height))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1,
        len(panels),
        width_ratios=panels,
        left=_LEFT_INCHES / WIDTH_INCHES,
        right=1 - _RIGHT_INCHES / WIDTH_INCHES,
        bottom=foot / height,
        top=1 - head / height,
        wspace=0.28,
    )
    axes = [figure.add_subplot(grid[0, column]) for column in range(len(panels))]
    _write_text(figure, title_lines, subtitle_lines, note_lines)
    if synthetic:
        _stamp_synthetic(figure)
    return figure, axes


def small_panels_height(count: int, name: float) -> float:
    """Room that `count` small panels take, with `name` inches above each; in inches."""
    rows = math.ceil(count / PANELS_ACROSS)
    return rows * (_PANEL_INCHES + name) + (rows - 1) * _PANEL_GAP_INCHES


def small_panels(figure: Figure, whole: Axes, count: int, name: float) -> list[Axes]:
    """Split the room of one panel into `count` small ones, row by row, each with `name` inches above it."""
    room = whole.get_position()
    whole.remove()
    wide, tall = figure.get_size_inches()
    width = (room.width - (PANELS_ACROSS - 1) * _PANEL_BETWEEN_INCHES / wide) / PANELS_ACROSS
    panels = []
    for k in range(count):
        row, column = divmod(k, PANELS_ACROSS)
        left = room.x0 + column * (width + _PANEL_BETWEEN_INCHES / wide)
        down = (row + 1) * (_PANEL_INCHES + name) + row * _PANEL_GAP_INCHES
        panels.append(figure.add_axes((left, room.y1 - down / tall, width, _PANEL_INCHES / tall)))
    return panels


def axis_label(name: str, unit: str, most: int = 46) -> str:
    """Write an axis label with its unit, on as many lines as it needs.

    Parameters
    ----------
    name, unit : str
        What is drawn and its unit.
    most : int
        Characters that fit along the axis.

    Returns
    -------
    str
        One line when it fits, otherwise lines of even length.

    Raises
    ------
    ValueError
        When `most` is below 2.

    Examples
    --------
    >>> axis_label("Theta", "points")
    'Theta (points)'
    >>> axis_label("Theta", "points of the test", most=14).splitlines()
    ['Theta (points', 'of the test)']
    """
    if most < 2:
        raise ValueError("an axis label needs room for at least two characters a line")
    return "\n".join(_even_lines(f"{name} ({unit})", most))


def _even_lines(text: str, most: int) -> list[str]:
    """Wrap at `most` characters, then as narrow as keeps the number of lines, so that no word is left alone."""
    lines = textwrap.wrap(text, most)
    for width in range(most - 1, most // 2, -1):
        narrower = textwrap.wrap(text, width)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def _write_text(figure: Figure, title: list[str], subtitle: list[str], note: list[str]) -> None:
    height = figure.get_figheight()
    left = 0.12 / WIDTH_INCHES
    y = height - _TOP_LINE_INCHES
    for line in title:
        figure.text(left, y / height, line, fontsize=10.5, fontweight="bold", color=INK, va="top")
        y -= _TITLE_LINE_INCHES
    for line in subtitle:
        figure.text(left, y / height, line, fontsize=8.5, color=INK, va="top")
        y -= _SUBTITLE_LINE_INCHES
    for number, line in enumerate(reversed(note)):
        y_note = (0.05 + number * _NOTE_LINE_INCHES) / height
        figure.text(left, y_note, line, fontsize=7.5, color="#333333", va="bottom")


def _stamp_synthetic(figure: Figure) -> None:
    figure.text(
        1 - 0.14 / WIDTH_INCHES,
        1 - 0.14 / figure.get_figheight(),
        SYNTHETIC_STAMP,
        fontsize=8.5,
        fontweight="bold",
        color="white",
        ha="right",
        va="top",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": INK, "edgecolor": INK},
    )


@styled
def save_svg_png(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem.svg`` and ``stem.png`` (300 dpi); same figure, same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        From `titled_figure` or one of the functions of `send_va.publish.figures`.
    stem : pathlib.Path
        Path without suffix; its folder must exist.

    Returns
    -------
    list of pathlib.Path
        The SVG and the PNG. Neither carries a date or the version of the drawing program.

    Raises
    ------
    FileNotFoundError
        When the folder of `stem` does not exist.

    Examples
    --------
    >>> import tempfile
    >>> figure, _ = titled_figure("A", "B", "", synthetic=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save_svg_png(figure, Path(folder) / "empty")]
    ['empty.svg', 'empty.png']
    """
    if not stem.parent.is_dir():
        raise FileNotFoundError(f"the folder {stem.parent.name} for figure {stem.name} does not exist; create it first")
    svg, png = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
    figure.savefig(svg, dpi=DPI, metadata={"Date": None, "Creator": None})
    return [svg, save_png(figure, png)]


@styled
def save_png(figure: Figure, path: Path, dpi: int = DPI) -> Path:
    """Write one PNG without a date: for figures of which a run makes many."""
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
    return path
