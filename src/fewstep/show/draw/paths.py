"""Figure 1: a panel for each sampler, its paths over the exact ones and the density of the data."""

from __future__ import annotations

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewstep.core.schedule import Float
from fewstep.show.draw.style import FAINT, INK, colour, plain, sheet
from fewstep.show.mixture import Mixture
from fewstep.show.trajectories import Path, Trajectories

PANEL, COLUMNS, CELLS = 2.75, 3, 46
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
    frame = _frame(found)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in grid:
        axes.set_visible(False)
    first, *rest = grid[:panels]
    _panel(first, found, frame, "exact solution", "of the probability-flow ODE")
    _lines(first, found.exact[::THIN], INK, 1.1)
    _ends(first, found.exact, INK)
    for i, (axes, path) in enumerate(zip(rest, found.paths, strict=True)):
        _panel(axes, found, frame, path.strategy.name, _caption(path))
        clear = 1.0 if path.error is not None else 0.45
        _lines(axes, found.exact[::THIN], "#A6A6A6", 1.0)
        _lines(axes, path.points, colour(i), 1.3, clear)
        axes.plot(*path.points[1:-1].reshape(-1, 2).T, ".", color=colour(i), markersize=4, alpha=clear)
        _ends(axes, path.points, colour(i))
    return figure


def _caption(path: Path) -> str:
    evaluations = f"{path.nfe} evaluations, {len(path.points) - 1} steps"
    return f"{evaluations}, draws noise" if path.error is None else f"{evaluations}, error {path.error:.2g}"


def _frame(found: Trajectories) -> tuple[float, float]:
    """Half the width of the panels and of the net for the density: the same for all, and all exact paths inside."""
    reach = float(np.abs(found.exact).max())
    data = float((found.mixture.means.abs() + 3 * found.mixture.stds[:, None]).max())
    return 1.05 * max(reach, data), data


def _panel(axes: Axes, found: Trajectories, frame: tuple[float, float], title: str, caption: str) -> None:
    half, _ = frame
    _density(axes, found.mixture, half)
    plain(axes)
    axes.set_visible(True)
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    axes.set_title(title, fontweight="bold", pad=16)
    axes.text(0, 1.02, caption, transform=axes.transAxes, fontsize=8.5, color=FAINT, va="bottom")


def _density(axes: Axes, mixture: Mixture, half: float) -> None:
    line = torch.linspace(-half, half, CELLS, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    density = mixture.density(points).numpy()
    for share, ink in ((0.03, "#FBF3DC"), (0.2, "#F6E6B4"), (0.6, "#EDD27C")):
        axes.contourf(line.numpy(), line.numpy(), density, [share * density.max(), np.inf], colors=[ink])


def _lines(axes: Axes, points: Float, ink: str, width: float, clear: float = 1.0) -> None:
    """All paths (points, n, 2) as one line with gaps: an SVG names its style once."""
    gap = np.full((1, *points.shape[1:]), np.nan)
    joined = np.concatenate([points, gap]).transpose(1, 0, 2).reshape(-1, 2)
    axes.add_line(Line2D(*joined.T, color=ink, linewidth=width, alpha=clear))


def _ends(axes: Axes, points: Float, ink: str) -> None:
    axes.plot(*points[0].T, "o", markerfacecolor="white", markeredgecolor=ink, markersize=4.5, markeredgewidth=0.9)
    axes.plot(*points[-1].T, "o", color=ink, markersize=5, markeredgecolor="white", markeredgewidth=0.7)
