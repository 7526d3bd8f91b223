"""Figure 7: where the points of paths are mapped to, and below how far from the paths' ends that is."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewstep.core.schedule import Float
from fewstep.show.consistency import Answers, ConsistencyMap
from fewstep.show.draw.plane import ends, lines, panel, reach_of
from fewstep.show.draw.style import FAINT, INK, colour, dashes, marker, sheet

PANEL = 3.0


def figure_of(found: ConsistencyMap) -> Figure:
    """The exact map, the teacher's estimate and the student, over their errors."""
    under = (
        "A path goes from noise (open circle) to data (large dot), in the coordinates of a flow. From points along it "
        "thin lines lead to where they are mapped. Below: distance from the path's end, root mean square over "
        f"{found.document()['measured']:,} paths that no training saw."
    )
    teacher, student = found.answers[0], found.answers[-1]
    figure = sheet(3 * PANEL + 0.3, PANEL + 5.0, found.finding, under)
    parts: Any = figure.subfigures(2, 1, height_ratios=[PANEL + 0.5, 3.2])
    row = parts[0].subplots(1, 3).tolist()
    half = 1.05 * max(float(np.abs(found.path).max()), reach_of(found.mixture))
    exact = np.broadcast_to(found.ends, found.path.shape)
    _map(row[0], found, half, "consistency function", "every point to the end of its path", exact)
    _map(row[1], found, half, "the teacher", "its estimate: the mean of all data that fit", teacher.points)
    _map(row[2], found, half, "the student", f"after {student.steps:,} training steps", student.points)
    _errors(parts[1].subplots(), found)
    return figure


def _map(axes: Axes, found: ConsistencyMap, half: float, title: str, caption: str, to: Float) -> None:
    panel(axes, found.mixture, half, title, caption)
    for i in range(found.path.shape[1]):
        ink = colour(i)
        here, there = found.path[:, i], to[:, i]
        lines(axes, np.stack([here, there]), ink, 0.6, 0.55)
        axes.plot(*there.T, "x", color=ink, markersize=4, markeredgewidth=0.9, zorder=3)
        whole = np.concatenate([here, found.ends[None, i]])[:, None]
        lines(axes, whole, ink, 1.6)
        axes.plot(*here[1:].T, ".", color=ink, markersize=5)
        ends(axes, whole, ink)


def _errors(axes: Axes, found: ConsistencyMap) -> None:
    for i, each in enumerate(found.answers):
        axes.plot(found.times, each.errors, label=each.name, linestyle=dashes(i), **_look(each, i))
    axes.set(xlabel="t: share of noise in the point", ylabel="distance from the end of its path", xlim=(1, 0))
    axes.set_yscale("log")
    axes.tick_params(labelcolor=INK)
    axes.legend(loc="upper right")


def _look(each: Answers, i: int) -> dict[str, Any]:
    """Grey for the teacher, colours for the student."""
    ink = FAINT if each.steps is None else colour(i)
    return {"color": ink, "marker": marker(i), "markersize": 4.5}
