"""Figure 6: a row of panels for each way to a student of few steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewstep.show.distillation import Distillation
from fewstep.show.draw.plane import ends, lines, panel, reach_of
from fewstep.show.draw.style import FAINT, INK, colour, sheet
from fewstep.show.modes import Drawn

PANEL, COLUMNS = 2.55, 4
TITLES = (
    "Progressive distillation: two steps of the teacher become one, again and again",
    "Reflow: trained on its own pairs of noise and data, a flow goes straight",
    "One step: regression, and matching at most levels of noise and at little noise alone",
)


def figure_of(found: Distillation) -> Figure:
    """Four panels in each of three rows."""
    under = (
        "Paths from noise (open circles) to data (dots) over the density of a mixture, in the coordinates of a flow, "
        "x = (1 - t) data + t noise. Students are networks of 3,602 weights, the teacher is the exact score. Errors "
        f"are root mean square distances over {found.document()['measured']:,} noises that no training saw."
    )
    figure = sheet(COLUMNS * PANEL + 0.3, 3 * (PANEL + 0.75) + 1.3, found.finding, under)
    parts: Any = figure.subfigures(3, 1)
    half = 1.05 * max(_reach(found), reach_of(found.mixture))
    for part, words, draw in zip(parts, TITLES, (_halving, _straightening, _modes), strict=True):
        part.suptitle(words, x=0.012, ha="left", fontsize=11, color=INK)
        draw(part.subplots(1, COLUMNS).tolist(), found, half)
    return figure


def _reach(found: Distillation) -> float:
    points = [each.points for each in (*found.halving.rounds, *found.straightening.ways)]
    return max(float(np.abs(each).max()) for each in points)


def _halving(row: list[Axes], found: Distillation, half: float) -> None:
    for i, (axes, each) in enumerate(zip(row, found.halving.rounds, strict=True)):
        name = f"{each.steps} step{'s' * (each.steps > 1)}"
        caption = f"error {each.error:.2g}; exact score {each.untrained:.2g}" if i else "the teacher, exact score"
        panel(axes, found.mixture, half, name, caption)
        _path(axes, each.points, colour(i) if i else FAINT)


def _straightening(row: list[Axes], found: Distillation, half: float) -> None:
    for i, ways in enumerate(found.straightening.ways):
        ink = colour(2 * i) if i else FAINT
        path, jump = row[i], row[2 + i]
        panel(path, found.mixture, half, f"ways {ways.name}", f"departure from straight {ways.straightness:.2g}")
        lines(path, ways.points, ink, 1.3)
        ends(path, ways.points, ink)
        panel(jump, found.mixture, half, f"one step {ways.name}", f"{ways.error:.2g} from the end of the way")
        _path(jump, ways.jumps, ink)


def _modes(row: list[Axes], found: Distillation, half: float) -> None:
    for i, (axes, drawn) in enumerate(zip(row, found.modes.drawn, strict=True)):
        lost = f"{drawn.lost} lost" if drawn.lost else "none lost"
        panel(axes, found.mixture, half, drawn.name, f"{drawn.between:.1%} between modes, {lost}")
        axes.plot(*drawn.points.T, ".", color=colour(i) if i else FAINT, markersize=2.2, alpha=0.7, zorder=2)
        _shares(axes, found, drawn, half)


def _shares(axes: Axes, found: Distillation, drawn: Drawn, half: float) -> None:
    """The share of all drawings beside each mode, farther out."""
    for mean, std, share in zip(found.mixture.means.numpy(), found.mixture.stds.tolist(), drawn.shares, strict=True):
        away = float(np.linalg.norm(mean)) or 1.0
        place = np.clip(mean * (1 + (3 * std + 0.25) / away), -0.9 * half, 0.9 * half)
        axes.text(
            place[0],
            place[1],
            f"{share:.0%}",
            ha="center",
            va="center",
            fontsize=7.5,
            color=INK,
            zorder=4,
            in_layout=False,
        )


def _path(axes: Axes, points: np.ndarray, ink: str) -> None:
    """Paths with a small dot at the end of each step."""
    lines(axes, points, ink, 1.3)
    axes.plot(*points[1:-1].reshape(-1, 2).T, ".", color=ink, markersize=4)
    ends(axes, points, ink)
