"""A panel of the plane: the density of the data, paths over it, and points."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fewstep.core.schedule import Float
from fewstep.show.draw.style import FAINT, plain
from fewstep.show.mixture import Mixture

CELLS = 46


def panel(axes: Axes, mixture: Mixture, half: float, title: str, caption: str) -> None:
    """An empty panel from -half to half over the density of the data."""
    _density(axes, mixture, half)
    plain(axes)
    axes.set_visible(True)
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    axes.set_title(title, fontweight="bold", pad=16)
    axes.text(0, 1.02, caption, transform=axes.transAxes, fontsize=8.5, color=FAINT, va="bottom")


def reach_of(mixture: Mixture) -> float:
    """How far from the middle the data are, but for few of them."""
    return float((mixture.means.abs() + 3 * mixture.stds[:, None]).max())


def _density(axes: Axes, mixture: Mixture, half: float) -> None:
    line = torch.linspace(-half, half, CELLS, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    density = mixture.density(points).numpy()
    for share, ink in ((0.03, "#FBF3DC"), (0.2, "#F6E6B4"), (0.6, "#EDD27C")):
        axes.contourf(line.numpy(), line.numpy(), density, [share * density.max(), np.inf], colors=[ink])


def lines(axes: Axes, points: Float, ink: str, width: float, clear: float = 1.0) -> None:
    """All paths (points, n, 2) as one line with gaps: an SVG names its style once."""
    gap = np.full((1, *points.shape[1:]), np.nan)
    joined = np.concatenate([points, gap]).transpose(1, 0, 2).reshape(-1, 2)
    axes.add_line(Line2D(*joined.T, color=ink, linewidth=width, alpha=clear))


def ends(axes: Axes, points: Float, ink: str) -> None:
    """Open circles where paths (points, n, 2) begin, and dots where they end."""
    axes.plot(*points[0].T, "o", markerfacecolor="white", markeredgecolor=ink, markersize=4.5, markeredgewidth=0.9)
    axes.plot(*points[-1].T, "o", color=ink, markersize=5, markeredgecolor="white", markeredgewidth=0.7)
