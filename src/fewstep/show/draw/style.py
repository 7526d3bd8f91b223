"""How all figures look: light, one font, and colours that people with any colour vision tell apart."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Those of Okabe and Ito (2008) with a grey; markers and dashes tell apart what comes after."""
MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p")
LONGEST = 90
"""Most letters of a line of a title."""
INK, FAINT, PALE = "#222222", "#666666", "#D9D9D9"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "fewstep",
    "svg.fonttype": "path",
    "mathtext.fontset": "dejavusans",
    "path.simplify": True,
}


def colour(index: int) -> str:
    """The colour of the line of that number."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Its marker."""
    return MARKERS[index % len(MARKERS)]


def dashes(index: int) -> str:
    """Its line: solid until the colours repeat."""
    return ("-", "--", ":", "-.")[index // len(COLOURS) % 4]


def sheet(width: float, height: float, finding: str, under: str) -> Figure:
    """An empty figure, inches; its title states what is found, and a line under it what is shown."""
    figure = Figure(figsize=(width, height), layout="constrained")
    title = textwrap.fill(finding, min(LONGEST, int(width * 9.2)))
    body = textwrap.fill(under, int(width * 13.4))
    lines = title.count("\n") + 1, body.count("\n") + 1
    top = 1 - 0.12 / height
    figure.text(0.16 / width, top, title, fontsize=13, fontweight="bold", va="top", linespacing=1.25)
    below = top - (lines[0] * 0.235 + 0.06) / height
    figure.text(0.16 / width, below, body, fontsize=9.5, color=FAINT, va="top", linespacing=1.3)
    room = 0.12 + lines[0] * 0.235 + 0.06 + lines[1] * 0.175 + 0.12
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.0, 0.0, 1.0, 1 - room / height), w_pad=0.12, h_pad=0.1)  # type: ignore[call-arg]
    return figure


def plain(axes: Axes) -> None:
    """No ticks, no grid: a picture of the plane."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(PALE)
