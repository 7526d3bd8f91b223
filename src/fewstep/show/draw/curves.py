"""Figure 3: alpha, sigma and lambda over time above; below, where each grid puts its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fewstep.show.draw.style import FAINT, INK, PALE, colour, dashes, sheet
from fewstep.show.levels import Levels

REACH = 8.0
"""How far the axis of lambda goes where a schedule's is infinite."""
TOPS = (
    ("alpha", "share of the data"),
    ("sigma", "noise, logarithmic"),
    ("lam", "log(alpha / sigma)"),
)


def figure_of(found: Levels) -> Figure:
    """Three panels of curves over one of steps."""
    under = (
        "Above: the schedules over time, from clean data (0 %) to the noisiest time (100 %). Below: the noisy times "
        f"of {found.steps} steps on the {found.grid_schedule.kind} schedule, by how noisy they are."
    )
    rows = len(found.grids)
    bottom = 0.3 * rows + 1.0
    figure = sheet(9.4, 4.3 + bottom, found.finding, under)
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.0, bottom])
    top, low = parts
    panels = top.subplots(1, 3)
    for axes, (key, words) in zip(panels, TOPS, strict=True):
        _curves(axes, found, key)
        axes.set_title(f"{'lambda' if key == 'lam' else key}: {words}")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set(xlim=(0, 1), xticks=[0, 0.5, 1], xlabel="time")
    handles, labels = panels[0].get_legend_handles_labels()
    top.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    _steps(low.subplots(), found)
    return figure


def _curves(axes: Axes, found: Levels, key: str) -> None:
    for i, (name, curves) in enumerate(found.curves.items()):
        values = getattr(curves, key)
        shown = np.isfinite(values) & (values > 0 if key == "sigma" else True)
        style = dashes(i) if i else "-"
        axes.plot(curves.share[shown], values[shown], color=colour(i), linestyle=style, label=name)
    if key == "sigma":
        axes.set_yscale("log")
        axes.set_ylim(bottom=5e-3)
    elif key == "alpha":
        axes.set_ylim(-0.03, 1.05)
    else:
        axes.set_ylim(-REACH, REACH)
        axes.axhline(0, color=FAINT, linewidth=0.8)


def _steps(axes: Axes, found: Levels) -> None:
    """A row of dots for each grid, from the noisiest on the left."""
    names = list(found.grids)
    finite = np.concatenate([lams[np.isfinite(lams)] for lams in found.grids.values()])
    low, high = max(float(finite.min()), -REACH), float(finite.max())
    for y, name in enumerate(names):
        lams = np.clip(found.grids[name], low, high)
        axes.plot([low, high], [y, y], color=PALE, linewidth=1, zorder=1)
        axes.plot(lams, np.full(len(lams), y), "o", color=colour(0), markersize=7, markeredgecolor="white", zorder=3)
        noisy = int(np.sum(found.grids[name] < 0))
        axes.text(1.01, y, f"{noisy} | {len(lams) - noisy}", transform=axes.get_yaxis_transform(), va="center")
    axes.text(1.01, -0.85, "steps", transform=axes.get_yaxis_transform(), va="center", color=FAINT, fontsize=9)
    axes.axvline(0, color=FAINT, linewidth=1)
    margin = 0.03 * (high - low)
    axes.set(
        yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.9), xlim=(low - margin, high + margin)
    )
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(False, axis="y")
    axes.set_xlabel("lambda = log(alpha / sigma)")
    axes.text(0, -0.85, "more noise than data  ", ha="right", va="center", color=FAINT, fontsize=9)
    axes.text(0, -0.85, "  more data than noise", ha="left", va="center", color=FAINT, fontsize=9)
