"""Figure 1: a panel for each sampler, its paths over the exact ones and the density of the data."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from fewstep.show.draw.plane import ends, lines, panel, reach_of
from fewstep.show.draw.style import INK, colour, sheet
from fewstep.show.trajectories import Path, Trajectories

PANEL, COLUMNS = 2.75, 3
THIN = 6
"""Of the exact points every sixth is drawn: the eye sees no more, and an SVG stays small."""


def figure_of(found: Trajectories) -> Figure:
    """The exact paths first, then each sampler's."""
    panels = 1 + len(found.paths)
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    under = (
        f"Paths from noise (open circles) to data (dots) over the exact score of a mixture, {found.schedule.kind} "
        "schedule. Grey: the exact paths. Each small dot is the end of a step. Error: root mean square distance of "
        "the ends from the exact ends."
    )
    figure = sheet(columns * PANEL + 0.3, rows * (PANEL + 0.35) + 1.2, found.finding, under)
    half = _half(found)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid:
        axes.set_visible(False)
    first, *rest = grid[:panels]
    panel(first, found.mixture, half, "exact solution", "of the probability-flow ODE")
    lines(first, found.exact[::THIN], INK, 1.1)
    ends(first, found.exact, INK)
    for i, (axes, path) in enumerate(zip(rest, found.paths, strict=True)):
        panel(axes, found.mixture, half, path.strategy.name, _caption(path))
        clear = 1.0 if path.error is not None else 0.45
        lines(axes, found.exact[::THIN], "#A6A6A6", 1.0)
        lines(axes, path.points, colour(i), 1.3, clear)
        axes.plot(*path.points[1:-1].reshape(-1, 2).T, ".", color=colour(i), markersize=4, alpha=clear)
        ends(axes, path.points, colour(i))
    return figure


def _caption(path: Path) -> str:
    evaluations = f"{path.nfe} evaluations, {len(path.points) - 1} steps"
    return f"{evaluations}, draws noise" if path.error is None else f"{evaluations}, error {path.error:.2g}"


def _half(found: Trajectories) -> float:
    """Half the width of the panels: the same for all, and all exact paths inside."""
    return 1.05 * max(float(np.abs(found.exact).max()), reach_of(found.mixture))
